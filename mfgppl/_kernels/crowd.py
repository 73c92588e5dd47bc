"""A crowd whose flow its agents answer: best responses, the flows of policies, and their slopes.

A game at fixed reward parameters is a `Arrays`: tapes from a flow to the reward and to the dynamics
along it, with the tables that the sweeps read. Rewards and policies are (T, S, A). Flows are
(T, F): F is S, or S * A where the mean field is joint. States are stacked, cells leading. Tables
that move with the crowd are dense.
"""

from typing import NamedTuple

import numpy as np
from numba.extending import overload

from mfgppl._kernels import caching, tape
from mfgppl._kernels.arithmetic import assign
from mfgppl._kernels.dynamics import (
    Dense,
    Tables,
    expected,
    fill_moves,
    is_tuple,
    jit_options,
    n_tables,
    pushed,
    room_for,
)
from mfgppl._kernels.sweeps import normalise, row_sums

jit = caching.jit(**jit_options)
alone = caching.jit(alone=True, **jit_options)
inner = caching.jit(inner=True, **jit_options)
inner_alone = caching.jit(inner=True, alone=True, **jit_options)


class Played(NamedTuple):
    """A tape in stages, each from the first inputs to an output of its own.

    Attributes
    ----------
    code, places, buffer : ndarray
        As in `Tape`.
    inputs, outputs : ndarray of int64
        Where inputs and outputs begin.
    ends : ndarray of int64
        Number of instructions after which each output is there, led by 0.
    """

    code: np.ndarray
    places: np.ndarray
    buffer: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    ends: np.ndarray


class Arrays(NamedTuple):
    """A game at fixed reward parameters.

    Attributes
    ----------
    tables : Dense or Sparse
        The dynamics, rewritten along a flow where they move with it.
    reward : Played
        From a flow to the reward, in one stage.
    moves : Played
        From a flow to the tables, a stage a step, which leaves those of all blocks, flat from
        (B, S, S * A); without stages where dynamics are fixed.
    initial : ndarray, shape (S,)
        Distribution of the first state.
    discount : float
        Weight of the next period.
    """

    tables: Tables
    reward: Played
    moves: Played
    initial: np.ndarray
    discount: float


def no_moves(arrays: Arrays) -> np.ndarray:
    """Return zeros for the tables of all steps that move with the crowd, (n, B, S, S * A)."""
    each = arrays.tables.tables.shape[1:] if isinstance(arrays.tables, Dense) else (1, 0, 0)
    return np.zeros((len(arrays.moves.ends) - 1, *each))


@inner
def play(played, stage):
    """Run a stage; its inputs lie in the buffer."""
    code = played.code[played.ends[stage] : played.ends[stage + 1]]
    if code.shape[0] > 0:
        tape.run(code, played.places, played.buffer)


@inner
def put(played, k, values):
    """Write an input."""
    start = played.inputs[k]
    assign(played.buffer[start : start + values.size], values.reshape(values.size))


@inner
def output(played, stage, size):
    """Return where a stage leaves its output."""
    start = played.outputs[stage]
    return played.buffer[start : start + size]


@inner
def faced(arrays, flow, shape):
    """Return the reward (T, S, A) along a flow, where its tape leaves it."""
    put(arrays.reward, 0, flow)
    play(arrays.reward, 0)
    return output(arrays.reward, 0, shape[0] * shape[1] * shape[2]).reshape(shape)


@inner
def face(arrays, flow, reward):
    """Fill the reward along a flow."""
    found = faced(arrays, flow, reward.shape)
    assign(reward.reshape(reward.size), found.reshape(reward.size))


def keep_table(tables, k, played):
    """Write table k from the output of its stage."""


@overload(keep_table, jit_options=jit_options)
def _keep_table(tables, k, played):
    if is_tuple(Dense, tables):
        return _keep_dense
    return lambda tables, k, played: None


def _keep_dense(tables, k, played):
    table = tables.tables[k]
    assign(table.reshape(table.size), output(played, k, table.size))


@alone
def follow(arrays, flow):
    """Rewrite the tables along a flow."""
    n = arrays.moves.ends.size - 1
    if n > 0:
        put(arrays.moves, 0, flow)
    for k in range(n):
        play(arrays.moves, k)
        keep_table(arrays.tables, k, arrays.moves)


@inner
def at(arrays, t):
    """Return which table step t uses."""
    return t if n_tables(arrays.tables) > 1 else 0


@inner
def look_ahead(arrays, t, reward, following, q):
    """Fill Q (S * A,) of time t from the values after it."""
    if t < reward.shape[0] - 1:
        expected(arrays.tables, at(arrays, t), following, q)
    else:
        q[:] = 0.0
    r = reward[t].reshape(q.size)
    for i in range(q.size):
        q[i] = r[i] + arrays.discount * q[i]


@alone
def respond(arrays, reward, temperature, q_values, values, policy):
    """Fill the soft best response to a reward along the tables; at temperature 0 the hard one."""
    T, S, A = reward.shape
    scaled = np.empty(S * A)
    for t in range(T - 1, -1, -1):
        q, p = q_values[t].reshape(S * A), policy[t].reshape(S * A)
        look_ahead(arrays, t, reward, values[min(t + 1, T - 1)], q)
        if temperature > 0.0:
            for i in range(S * A):
                scaled[i] = q[i] / temperature
            normalise(scaled, p, values[t], A)
            for s in range(S):
                values[t, s] *= temperature
        else:
            greedy(q, p, values[t], A)


@inner
def greedy(q, policy, values, n_actions):
    """Fill the largest Q of each state, and the policy that shares its weight among the best."""
    for s in range(values.size):
        best = -np.inf
        for a in range(n_actions):
            best = max(best, q[s * n_actions + a])
        n_best = 0
        for a in range(n_actions):
            n_best += 1 if q[s * n_actions + a] == best else 0
        for a in range(n_actions):
            policy[s * n_actions + a] = 1.0 / n_best if q[s * n_actions + a] == best else 0.0
        values[s] = best


@alone
def evaluate(arrays, reward, policy, temperature, q_values, values):
    """Fill the values of a policy, with `temperature` times its entropy."""
    T, S, A = reward.shape
    weighed = np.empty(S * A)
    for t in range(T - 1, -1, -1):
        q, p = q_values[t].reshape(S * A), policy[t].reshape(S * A)
        look_ahead(arrays, t, reward, values[min(t + 1, T - 1)], q)
        for i in range(S * A):  # -inf is never taken
            weighed[i] = p[i] * q[i] if p[i] > 0.0 else 0.0
        if temperature > 0.0:
            for i in range(S * A):
                weighed[i] -= temperature * p[i] * np.log(p[i]) if p[i] > 0.0 else 0.0
        for s in range(S):
            total = 0.0
            for a in range(A):
                total += weighed[s * A + a]
            values[t, s] = total


@inner
def shared(shares, policy, weights):
    """Fill the shares of states and actions (S * A,)."""
    S, A = policy.shape
    for s in range(S):
        for a in range(A):
            weights[s * A + a] = shares[s] * policy[s, a]


@alone
def push(arrays, policy, flow, answer):
    """Fill the flow that a policy generates, along the tables as they are.

    If `answer`, the dynamics answer the flow as it arises, and the tables are rewritten.
    """
    T, S, A = policy.shape
    shares, weights = arrays.initial.copy(), np.empty(S * A)
    answer = answer and arrays.moves.ends.size > 1
    for t in range(T):
        shared(shares, policy[t], weights)
        assign(flow[t], shares if flow.shape[1] == S else weights)
        if t == T - 1:
            break
        if answer:
            start = arrays.moves.inputs[0] + t * flow.shape[1]
            assign(arrays.moves.buffer[start : start + flow.shape[1]], flow[t])
            play(arrays.moves, t)
            keep_table(arrays.tables, t, arrays.moves)
        pushed(arrays.tables, at(arrays, t), weights, shares)


@jit
def image(arrays, flow, temperature, reward, q_values, values, policy, generated):
    """Fill the soft best response to a flow and the flow that it generates along its tables."""
    face(arrays, flow, reward)
    follow(arrays, flow)
    respond(arrays, reward, temperature, q_values, values, policy)
    push(arrays, policy, generated, False)


@jit
def turn(arrays, policy, temperature, flow, reward, q_values, values):
    """Fill the flow that a policy generates, the reward along it, and the policy's values."""
    push(arrays, policy, flow, True)
    face(arrays, flow, reward)
    evaluate(arrays, reward, policy, temperature, q_values, values)


@jit
def mirror(arrays, logits, rate, n_turns, flow, policy):
    """Take steps of online mirror descent: logits (T, S, A) grow by `rate` times Q."""
    T, S, A = logits.shape
    scores, p, top = logits.reshape(logits.size), policy.reshape(logits.size), np.empty(T * S)
    for _ in range(n_turns):
        normalise(scores, p, top, A)
        push(arrays, policy, flow, True)
        climb(arrays, faced(arrays, flow, logits.shape), policy, rate, logits)
    normalise(scores, p, top, A)


@inner_alone
def climb(arrays, reward, policy, rate, logits):
    """Add `rate` times a policy's Q along the tables to logits."""
    T, S, A = reward.shape
    values, q, weighed = np.empty(S), np.empty(S * A), np.empty(S * A)
    for t in range(T - 1, -1, -1):
        look_ahead(arrays, t, reward, values, q)
        scores, p = logits[t].reshape(S * A), policy[t].reshape(S * A)
        for i in range(S * A):
            scores[i] += rate * q[i]
            weighed[i] = p[i] * q[i] if p[i] > 0.0 else 0.0  # -inf is never taken
        row_sums(weighed, A, values)


@alone
def slope(arrays, reward_slope, moves_slope, flow, change, temperature, values, policy, out):
    """Fill the change of `image` (T, F) for a change of the flow, at what `image` has filled.

    `dQ_t = dr_t + discount (P_t dV_{t+1} + dP_t V_{t+1})`, `dV = sum_a pi dQ`,
    `dpi = pi (dQ - dV) / temperature`, and the shares are pushed by the product rule.
    """
    T, S, A = policy.shape
    put(reward_slope, 0, flow)
    put(reward_slope, 1, change)
    play(reward_slope, 0)
    d_reward = output(reward_slope, 0, T * S * A).reshape((T, S, A))
    n_moves = moves_slope.ends.size - 1
    d_tables = room_for(arrays.tables, n_moves)
    if n_moves > 0:
        put(moves_slope, 0, flow)
        put(moves_slope, 1, change)
    for t in range(n_moves):  # a stage's output lasts until another stage is played
        play(moves_slope, t)
        keep_table(d_tables, t, moves_slope)
    d_policy, d_values, ahead = np.empty((T, S, A)), np.zeros(S), np.zeros(S * A)
    for t in range(T - 1, -1, -1):
        dp = d_policy[t].reshape(S * A)
        dr, p = d_reward[t].reshape(S * A), policy[t].reshape(S * A)
        for i in range(S * A):
            ahead[i] = 0.0
            dp[i] = 0.0
        if t < T - 1:
            expected(arrays.tables, at(arrays, t), d_values, ahead)
            if n_moves > 0:
                expected(d_tables, t, values[t + 1], dp)
        for i in range(S * A):
            dp[i] = dr[i] + arrays.discount * (ahead[i] + dp[i])
        for s in range(S):
            d_values[s] = 0.0
            for a in range(A):
                if p[s * A + a] > 0.0:
                    d_values[s] += p[s * A + a] * dp[s * A + a]
            for a in range(A):
                k = s * A + a
                dp[k] = p[k] * (dp[k] - d_values[s]) / temperature if p[k] > 0.0 else 0.0
    shares, d_shares, more = arrays.initial.copy(), np.zeros(S), np.empty(S)
    weights, d_weights = np.empty(S * A), np.empty(S * A)
    for t in range(T):
        shared(shares, policy[t], weights)
        for s in range(S):
            for a in range(A):
                k = s * A + a
                d_weights[k] = d_shares[s] * policy[t, s, a] + shares[s] * d_policy[t, s, a]
        assign(out[t], d_shares if out.shape[1] == S else d_weights)
        if t == T - 1:
            break
        pushed(arrays.tables, at(arrays, t), weights, shares)
        pushed(arrays.tables, at(arrays, t), d_weights, d_shares)
        if n_moves > 0:
            pushed(d_tables, t, weights, more)
            for s in range(S):
                d_shares[s] += more[s]


@jit
def jacobian(arrays, reward_slope, moves_slope, flow, temperature, values, policy, columns):
    """Fill row j with the change of `image` for a change of entry j of the flow."""
    T, F = flow.shape
    change = np.zeros((T, F))
    for j in range(T * F):
        t, i = j // F, j % F
        change[t, i] = 1.0
        out = columns[j].reshape((T, F))
        slope(
            arrays, reward_slope, moves_slope, flow, change, temperature, values, policy, out
        )  # fmt: skip
        change[t, i] = 0.0


@jit
def pull(arrays, counts, weights, temperature, values, policy, on_reward, on_tables, on_start):
    """Fill the slopes of `sum counts log policy + sum weights generated`.

    In the reward, the tables and the distribution (S,) with which the flow begins.

    The adjoint of `slope`, at what `image` has filled. With `h_t` the worth of a share of states
    and actions, `e_t = sum_a pi h_t` (plus the weight of a share of states), `h_t = P_t e_{t+1}`:

        g_t = counts / temperature + pi (d_t - n_t / temperature + mu_t (h_t - e_t) / temperature)
        d_{t+1} = discount g_t P_t,    dP_t(x) = mu_t pi_t e_{t+1}(x) + discount g_t V_{t+1}(x)

    The slopes in the tables are laid out as (T-1, B, S, S * A): cells that share one add up.
    """
    T, S, A = policy.shape
    by_state = weights.shape[1] == S
    worth, arriving = np.zeros((T, S * A)), np.zeros((T + 1, S))
    for t in range(T - 1, -1, -1):
        h, p = worth[t], policy[t].reshape(S * A)
        if t < T - 1:
            expected(arrays.tables, at(arrays, t), arriving[t + 1], h)
        for s in range(S):
            arriving[t, s] = weights[t, s] if by_state else 0.0
            for a in range(A):
                k = s * A + a
                h[k] += 0.0 if by_state else weights[t, k]
                arriving[t, s] += p[k] * h[k]
    assign(on_start, arriving[0])
    n_moves = arrays.moves.ends.size - 1
    shares, later, sent = arrays.initial.copy(), np.zeros(S), np.empty(S * A)
    onward = np.empty(S * A)
    for t in range(T):
        h, p = worth[t], policy[t].reshape(S * A)
        g, n = on_reward[t].reshape(S * A), counts[t].reshape(S * A)
        for s in range(S):
            visits, mean = 0.0, 0.0
            for a in range(A):
                visits += n[s * A + a]
                mean += p[s * A + a] * h[s * A + a]
            for a in range(A):
                k = s * A + a
                moved = shares[s] * (h[k] - mean) - visits
                g[k] = n[k] / temperature + p[k] * (later[s] + moved / temperature)
                sent[k] = shares[s] * p[k]
        if t == T - 1:
            break
        if n_moves > 0:
            for i in range(S * A):
                onward[i] = arrays.discount * g[i]
            moves = on_tables[t].reshape(on_tables[t].size)
            fill_moves(arrays.tables, sent, arriving[t + 1], onward, values[t + 1], moves)
        pushed(arrays.tables, at(arrays, t), g, later)
        for s in range(S):
            later[s] *= arrays.discount
        pushed(arrays.tables, at(arrays, t), sent, shares)


@jit
def pull_back(played, flow, weights, size):
    """Return what a tape of slopes gives along a flow for weights: `size` numbers."""
    put(played, 0, flow)
    put(played, 1, weights)
    play(played, 0)
    return output(played, 0, size).copy()
