"""A flow's own linear response as a two-point boundary problem, solved in one sweep each way.

Where rewards and dynamics at a time read the flow of that time alone, a change `x` of a flow with
`x - J x = gap`, J the derivative of the flow that a flow generates, is `x_t = gap_t + y_t` with

    dV_t = B_t x_t + A_t dV_{t+1},    y_{t+1} = (A_t / discount)' y_t + D_t x_t + G_t dV_{t+1}

where y is the change of what is generated, `y_0 = 0`, and V are soft values, which do not change
after the last time. Backwards in time `dV_t = K_t y_t + k_t`, from `K = B` and `k = B gap` at the
last time on, and

    y_{t+1} = Z_t y_t + v_t,        v_t = W_t (G_t k_{t+1} + D_t gap_t)
    W_t = (I - G_t K_{t+1})^-1,     Z_t = W_t ((A_t / discount)' + D_t)
    K_t = B_t + A_t K_{t+1} Z_t,    k_t = B_t gap_t + A_t (K_{t+1} v_t + k_{t+1})

The cost grows as `T A S^3`, where a matrix of J has T S rows [1]_.

References
----------
.. [1] Ascher, Mattheij and Russell (1995), *Numerical solution of boundary value problems for
   ordinary differential equations*, SIAM, chapter 4.
"""

from typing import NamedTuple

import numpy as np

from mfgppl._kernels.arithmetic import assign
from mfgppl._kernels.crowd import alone, at, inner, inner_alone, jit, keep_table, output, play, put
from mfgppl._kernels.dynamics import room_for

LARGE = 32  # entries of the right factor from which a library product beats the loop


class TwoPoint(NamedTuple):
    """The matrices of the sweeps, each (T, S, S); those of a step are not used at the last time.

    Attributes
    ----------
    by_flow : ndarray
        `B_t`: what a change of the flow does to values of its time.
    ahead : ndarray
        `A_t`: what a change of values does to those a step before.
    feedback : ndarray
        `K_t`: what a change of the flow generated does to values.
    of_values, of_gap : ndarray
        `G_t`, `D_t`: what changes of values a step later, and of the flow of its time, do to the
        flow generated a step later.
    closed, onward : ndarray
        `W_t`: from a direct change of the next flow to its whole change, once later values have
        answered. `Z_t`: from a change of the flow generated to that a step later.
    """

    by_flow: np.ndarray
    ahead: np.ndarray
    feedback: np.ndarray
    of_values: np.ndarray
    of_gap: np.ndarray
    closed: np.ndarray
    onward: np.ndarray


def room(n_times: int, n_states: int) -> TwoPoint:
    """Return matrices that are not filled."""
    return TwoPoint(*np.empty((7, n_times, n_states, n_states)))


@alone
def product(a, b, out):
    """Fill the product of two matrices."""
    if a.shape[1] * b.shape[1] >= LARGE:
        np.dot(a, b, out)
        return
    for i in range(a.shape[0]):
        row = out[i]
        row[:] = 0.0
        for k in range(a.shape[1]):
            factor, other = a[i, k], b[k]
            for j in range(row.size):
                row[j] += factor * other[j]


@inner
def add_mapped(a, v, out):
    """Add a matrix times a vector."""
    for i in range(a.shape[0]):
        total = 0.0
        for k in range(v.size):
            total += a[i, k] * v[k]
        out[i] += total


@inner
def add_mapped_back(a, v, out):
    """Add a transposed matrix times a vector."""
    for i in range(a.shape[0]):
        factor = v[i]
        for k in range(out.size):
            out[k] += factor * a[i, k]


@alone
def eliminate(rows):
    """Solve the system of the first n columns for all others, in place; not finite if singular."""
    n = rows.shape[0]
    for c in range(n):
        best = c
        for r in range(c + 1, n):
            if abs(rows[r, c]) > abs(rows[best, c]):
                best = r
        for j in range(c, rows.shape[1]):
            rows[c, j], rows[best, j] = rows[best, j], rows[c, j]
        top = rows[c]
        for r in range(c + 1, n):
            row = rows[r]
            factor = row[c] / top[c]
            for j in range(c + 1, row.size):
                row[j] -= factor * top[j]
    for c in range(n - 1, -1, -1):
        top = rows[c]
        for j in range(n, top.size):
            top[j] /= top[c]
        for r in range(c):
            row = rows[r]
            for j in range(n, row.size):
                row[j] -= row[c] * top[j]


@jit
def reward_change(reward_slope, flow, change, out):
    """Fill the change (T, S, A) of the reward for a change of the flow."""
    put(reward_slope, 0, flow)
    put(reward_slope, 1, change)
    play(reward_slope, 0)
    found = output(reward_slope, 0, out.size)
    assign(out.reshape(out.size), found)


@alone
def slopes_of_q(
    arrays, reward_slope, moves_slope, flow, units, values, policy, generated, slopes, moved
):
    """Fill what a change of each time's flow along unit k does to Q (T, S * A, n) of that time.

    And to where agents go (T, S, n), by the tables that move with the crowd. Units are (n, S).
    """
    T, S, A = policy.shape
    m, n_moves = S * A, moves_slope.ends.size - 1
    d_tables = room_for(arrays.tables, n_moves)
    change = np.empty((T, S))
    put(reward_slope, 0, flow)
    if n_moves > 0:
        put(moves_slope, 0, flow)
    moved[:] = 0.0
    for k in range(units.shape[0]):
        for t in range(T):
            assign(change[t], units[k])
        put(reward_slope, 1, change)
        play(reward_slope, 0)
        found = output(reward_slope, 0, T * m)
        for t in range(T):
            for i in range(m):
                slopes[t, i, k] = found[t * m + i]
        if n_moves > 0:
            put(moves_slope, 1, change)
        for t in range(n_moves):
            play(moves_slope, t)
            keep_table(d_tables, t, moves_slope)
            add_moves(
                d_tables, t, values[t + 1], policy[t], generated[t], arrays.discount,
                slopes[t], moved[t], k,
            )  # fmt: skip


@inner
def add_moves(tables, t, values, policy, shares, discount, slopes, moved, k):
    """Add what a change of a step's tables does to Q and to the states that follow."""
    A = policy.shape[1]
    n = tables.tables.shape[2]
    for c in range(tables.block.size):
        table, first = tables.tables[t, tables.block[c]], c * n
        for x in range(n):
            arrived, worth = 0.0, discount * values[first + x]
            for s in range(n):
                for a in range(A):
                    slopes[(first + s) * A + a, k] += worth * table[x, s * A + a]
                    arrived += table[x, s * A + a] * shares[first + s] * policy[first + s, a]
            moved[first + x, k] += arrived


@alone
def by_policy(slope, policy, direct):
    """Fill the mean over actions (S, S) of slopes (S * A, S), which are zeroed where none acts."""
    S, A = policy.shape
    for s in range(S):
        mean = direct[s]
        mean[:] = 0.0
        for a in range(A):
            p, row = policy[s, a], slope[s * A + a]
            if not p > 0.0:
                row[:] = 0.0
            for j in range(S):
                mean[j] += p * row[j]


@inner_alone
def answers(tables, k, slope, direct, policy, weights, ahead, both, arrived):
    """Fill what a step's changes of Q do to the shares that follow, by the policy.

    `ahead` is filled with the moves under the policy, `arrived` with the slopes (S, 2 * S) of the
    shares: in the flow, and but for the discount in values a step later. `both` is room for
    (S * A, 2 * S).
    """
    S, A = policy.shape
    n = tables.tables.shape[2]
    m = n * A
    ahead[:] = 0.0
    both[:] = 0.0
    for c in range(tables.block.size):  # nobody leaves a cell
        table, first = tables.tables[k, tables.block[c]], c * n
        for x in range(n):
            for s in range(n):
                for a in range(A):
                    ahead[first + s, first + x] += policy[first + s, a] * table[x, s * A + a]
        for s in range(n):
            mean, onward = direct[first + s], ahead[first + s]
            for a in range(A):
                i = s * A + a
                weight, own = weights[first + s] * policy[first + s, a], slope[first * A + i]
                row = both[first * A + i]
                for j in range(S):
                    row[j] = weight * (own[j] - mean[j])
                for y in range(n):
                    j = first + y
                    row[S + j] = weight * (table[y, i] - onward[j])
        product(table, both[first * A : first * A + m], arrived[first : first + n])


@jit
def linearise(
    arrays, reward_slope, moves_slope, reads, flow, temperature, values, policy, generated, system
):
    """Fill the matrices at what `crowd.image` has filled, along tables as they are.

    Agents read `reads @ flow` of each time's flow, n numbers; rows of `reads` are orthonormal.
    """
    T, S, A = policy.shape
    n = reads.shape[0]
    along, moved = np.empty((T, S * A, n)), np.empty((T, S, n))
    slopes_of_q(
        arrays, reward_slope, moves_slope, flow, reads, values, policy, generated, along, moved
    )  # fmt: skip
    by_flow, weights = np.empty((S * A, S)), np.empty(S)
    both, arrived = np.empty((S * A, 2 * S)), np.empty((S, 2 * S))
    rows, one, other = np.empty((S, 2 * S)), np.empty((S, S)), np.empty((S, S))
    for t in range(T - 1, -1, -1):
        direct, ahead, back = system.by_flow[t], system.ahead[t], system.feedback[t]
        product(along[t], reads, by_flow)
        by_policy(by_flow, policy[t], direct)
        assign(back.reshape(S * S), direct.reshape(S * S))
        if t == T - 1:
            continue
        later, of_values, of_gap = system.feedback[t + 1], system.of_values[t], system.of_gap[t]
        for s in range(S):
            weights[s] = generated[t, s] / temperature
        answers(
            arrays.tables, at(arrays, t), by_flow, direct, policy[t], weights, ahead, both, arrived
        )  # fmt: skip
        product(moved[t], reads, of_gap)
        for s in range(S):
            for x in range(S):
                of_gap[s, x] += arrived[s, x]
                of_values[s, x] = arrays.discount * arrived[s, S + x]
                one[s, x] = ahead[x, s] + of_gap[s, x]
        product(of_values, later, other)
        for s in range(S):
            for x in range(S):
                ahead[s, x] *= arrays.discount
                rows[s, x] = -other[s, x]
                rows[s, S + x] = 0.0
            rows[s, s] += 1.0
            rows[s, S + s] = 1.0
        eliminate(rows)
        closed = system.closed[t]
        for s in range(S):
            assign(closed[s], rows[s, S:])
        product(closed, one, system.onward[t])
        product(later, system.onward[t], one)
        product(ahead, one, other)
        for s in range(S):
            for x in range(S):
                back[s, x] += other[s, x]


@jit
def solve(system, gap, out):
    """Fill the change (T, S) of a flow of which a gap is left: `(I - J)^-1 gap`."""
    T, S = gap.shape
    values, moved, mapped = np.zeros((T, S)), np.zeros((T, S)), np.empty(S)
    add_mapped(system.by_flow[T - 1], gap[T - 1], values[T - 1])
    for t in range(T - 2, -1, -1):
        mapped[:] = 0.0
        add_mapped(system.of_values[t], values[t + 1], mapped)
        add_mapped(system.of_gap[t], gap[t], mapped)
        add_mapped(system.closed[t], mapped, moved[t])
        assign(mapped, values[t + 1])
        add_mapped(system.feedback[t + 1], moved[t], mapped)
        add_mapped(system.by_flow[t], gap[t], values[t])
        add_mapped(system.ahead[t], mapped, values[t])
    generated = np.zeros((T, S))
    for t in range(T - 1):
        assign(generated[t + 1], moved[t])
        add_mapped(system.onward[t], generated[t], generated[t + 1])
    for t in range(T):
        for s in range(S):
            out[t, s] = gap[t, s] + generated[t, s]


@jit
def solve_back(system, weights, out):
    """Fill the weights (T, S) of a gap from those of the change that closes it: the transpose."""
    T, S = weights.shape
    generated = weights.copy()
    for t in range(T - 2, -1, -1):
        add_mapped_back(system.onward[t], generated[t + 1], generated[t])
    values, moved, mapped = np.zeros(S), np.empty(S), np.empty(S)
    for t in range(T):
        assign(out[t], weights[t])
        add_mapped_back(system.by_flow[t], values, out[t])
        if t == T - 1:
            break
        mapped[:] = 0.0
        add_mapped_back(system.ahead[t], values, mapped)
        assign(moved, generated[t + 1])
        add_mapped_back(system.feedback[t + 1], mapped, moved)
        values[:] = 0.0
        add_mapped_back(system.closed[t], moved, values)
        add_mapped_back(system.of_gap[t], values, out[t])
        add_mapped_back(system.of_values[t], values, mapped)
        assign(values, mapped)
