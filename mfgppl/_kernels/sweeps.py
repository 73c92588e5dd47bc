"""Backward sweeps and their adjoints over float64 arrays; callers check the arguments.

Rewards and counts are (T, S, A), rewards -inf where an action is not available. Each function fills
the arrays it is given, so that a fit allocates them once. Sums may be reordered (`reassoc`);
infinities and NaN are kept. A loop that sums does not store: compiled code would then choose its
order by where the arrays happen to lie, and the same seed would give other draws.
"""

import numba
import numpy as np

from mfgppl._kernels.arithmetic import exp, log
from mfgppl._kernels.dynamics import LANES, expected, expected_each, jit_options, n_tables, pushed

STRETCH = 4096  # entries of a vector worked on together

jit = numba.njit(cache=True, **jit_options)


@jit
def normalise(q, policy, soft_values, n_actions):
    """Turn rows of scaled Q (S * A,) into probabilities; fill the log-sum-exp of each row."""
    S = soft_values.size
    whole = S - S % LANES
    if whole > 0:
        normalise_lanes(q, policy, soft_values, n_actions, whole)
    if whole < S:
        start = whole * n_actions
        normalise_rows(q[start:], policy[start:], soft_values[whole:], n_actions)


@jit
def normalise_lanes(q, policy, soft_values, n_actions, n_states):
    """Do so for many states at a time, each in a lane."""
    block, top, norm = np.empty((n_actions, LANES)), np.empty(LANES), np.empty(LANES)
    for first in range(0, n_states, LANES):
        for i in range(LANES):
            top[i] = -np.inf
        for a in range(n_actions):
            for i in range(LANES):
                block[a, i] = q[(first + i) * n_actions + a]
                top[i] = max(top[i], block[a, i])
        for i in range(LANES):
            norm[i] = 0.0
        for a in range(n_actions):
            for i in range(LANES):
                block[a, i] = exp(block[a, i] - top[i])
                norm[i] += block[a, i]
        for i in range(LANES):
            soft_values[first + i] = top[i] + log(norm[i])
            norm[i] = 1.0 / norm[i]
        for a in range(n_actions):
            for i in range(LANES):
                policy[(first + i) * n_actions + a] = block[a, i] * norm[i]


@jit
def normalise_rows(q, policy, soft_values, n_actions):
    """Do so row by row, which is best for few states."""
    S = soft_values.size
    for s in range(S):
        highest = -np.inf
        for a in range(n_actions):
            highest = max(highest, q[s * n_actions + a])
        soft_values[s] = highest
        for a in range(n_actions):
            policy[s * n_actions + a] = q[s * n_actions + a] - highest
    for i in range(S * n_actions):  # one long loop for what is costly
        policy[i] = exp(policy[i])
    for s in range(S):
        total = 0.0
        for a in range(n_actions):
            total += policy[s * n_actions + a]
        share = 1.0 / total
        for a in range(n_actions):
            policy[s * n_actions + a] *= share
        soft_values[s] += log(total)


@jit
def soft_sweeps(rewards, tables, discount, temperature, soft_values, log_policies):
    """Solve soft backward induction for many rewards (N, T, S, A) at once.

    Fill V (N, T, S) and log pi (N, T, S, A). The rewards share each reading of the tables.
    """
    N, T, S, A = rewards.shape
    ahead, following, policy = np.zeros((N, S * A)), np.empty((N, S)), np.empty(S * A)
    for t in range(T - 1, -1, -1):
        if t < T - 1:
            expected_each(tables, t if n_tables(tables) > 1 else 0, following, ahead)
        for n in range(N):
            q, r = log_policies[n, t].reshape(S * A), rewards[n, t].reshape(S * A)
            for i in range(S * A):
                q[i] = (r[i] + discount * ahead[n, i]) / temperature
            normalise(q, policy, following[n], A)
            for s in range(S):
                for a in range(A):
                    q[s * A + a] -= following[n, s]
                following[n, s] *= temperature
                soft_values[n, t, s] = following[n, s]


@jit
def causal_value_and_gradient(
    reward, tables, discount, temperature, counts, visits, soft_values, gradient
):
    """Return `sum N (Q - V) / temperature` and fill its gradient in the reward (T, S, A).

    With n = `visits` (T, S) and d = dL/dV: `g = N / beta + pi (d - n / beta)`,
    `d_{t+1} = discount * sum_sa g P`. The array of the gradient holds pi between the sweeps.
    """
    T, S, A = reward.shape
    scale, onward = 1.0 / temperature, discount / temperature
    ahead, q = np.zeros(S * A), np.empty(S * A)
    value = 0.0
    for t in range(T - 1, -1, -1):
        if t < T - 1:
            expected(tables, t if n_tables(tables) > 1 else 0, soft_values[t + 1], ahead)
        r, n = reward[t].reshape(S * A), counts[t].reshape(S * A)
        for i in range(S * A):
            q[i] = r[i] * scale + onward * ahead[i]
        for i in range(S * A):  # what was never done adds nothing, also where its log is -inf
            value += n[i] * q[i] if n[i] != 0.0 else 0.0
        normalise(q, gradient[t].reshape(S * A), soft_values[t], A)
        for s in range(S):
            value -= visits[t, s] * soft_values[t, s]
        for s in range(S):
            soft_values[t, s] *= temperature
    carried, arrived = np.zeros(S), np.empty(S)
    for t in range(T):
        g, n = gradient[t].reshape(S * A), counts[t].reshape(S * A)
        for s in range(S):
            weight = carried[s] - visits[t, s] * scale
            for a in range(A):
                g[s * A + a] = n[s * A + a] * scale + g[s * A + a] * weight
        if t < T - 1:
            pushed(tables, t if n_tables(tables) > 1 else 0, g, arrived)
            for s in range(S):
                carried[s] = discount * arrived[s]
    return value


@jit
def counted(counts, logs):
    """Return `sum counts * logs`, where nothing counted adds nothing (also for log 0)."""
    total = 0.0
    counts, logs = counts.ravel(), logs.ravel()
    for i in range(counts.size):
        if counts[i] != 0.0:
            total += counts[i] * logs[i]
    return total


@jit
def energy_sweep(reward, tables, temperature, log_partition, log_next, log_policy):
    """Fill W (T, S), `log sum_x P exp W_{t+1}` (T, S, A) and the energy law's log pi (T, S, A)."""
    T, S, A = reward.shape
    weights, policy = np.empty(S), np.empty(S * A)
    for t in range(T - 1, -1, -1):
        ahead, logs = log_next[t].reshape(S * A), log_policy[t].reshape(S * A)
        r = reward[t].reshape(S * A)
        if t < T - 1:
            peak = weigh(log_partition[t + 1], weights)
            expected(tables, t if n_tables(tables) > 1 else 0, weights, ahead)
            for i in range(S * A):
                ahead[i] = peak + np.log(ahead[i])
        else:
            ahead[:] = 0.0
        for i in range(S * A):
            logs[i] = r[i] / temperature + ahead[i]
        normalise(logs, policy, log_partition[t], A)
        for s in range(S):
            for a in range(A):
                logs[s * A + a] -= log_partition[t, s]


@jit
def energy_sweeps(rewards, tables, temperature, log_partition, log_next, log_policy):
    """Do so for many rewards, with a leading axis (N, ...) everywhere."""
    for n in range(rewards.shape[0]):
        energy_sweep(rewards[n], tables, temperature, log_partition[n], log_next[n], log_policy[n])


@jit
def weigh(logs, weights):
    """Fill `exp(logs - peak)` and return the peak, the largest of them."""
    peak = -np.inf
    for x in range(logs.size):
        peak = max(peak, logs[x])
    for x in range(logs.size):
        weights[x] = exp(logs[x] - peak)
    return peak


@jit
def energy_value_and_gradient(
    reward,
    tables,
    temperature,
    counts,
    starts,
    ends_seen,
    ends_unseen,
    entry,
    marginal,
    log_partition,
    log_next,
    log_policy,
    gradient,
):
    """Return the energy log likelihood and fill its gradient in the reward (T, S, A).

    `entry` (T, S) is the distribution of the first state by entry time, for the marginal form.
    """
    T, S, A = reward.shape
    energy_sweep(reward, tables, temperature, log_partition, log_next, log_policy)
    value = counted(counts, reward) / temperature
    value += counted(ends_seen, log_partition) + counted(ends_unseen, log_next)
    carried, arrived = np.zeros(S), np.empty(S)
    weights, flow = np.empty(S), np.empty(S * A)
    for t in range(T):
        if marginal:
            entering = starts[t].sum()
            if entering > 0:
                peak = -np.inf
                for s in range(S):
                    if entry[t, s] > 0:
                        peak = max(peak, log_partition[t, s])
                total = 0.0
                for s in range(S):
                    if entry[t, s] > 0:
                        total += entry[t, s] * np.exp(log_partition[t, s] - peak)
                value -= entering * (peak + np.log(total))
                for s in range(S):
                    if entry[t, s] > 0:
                        share = entry[t, s] * np.exp(log_partition[t, s] - peak) / total
                        carried[s] -= entering * share
        else:
            value -= counted(starts[t], log_partition[t])
            for s in range(S):
                carried[s] -= starts[t, s]
        for s in range(S):
            carried[s] += ends_seen[t, s]
            for a in range(A):
                flow[s * A + a] = carried[s] * exp(log_policy[t, s, a])
                gradient[t, s, a] = (counts[t, s, a] + flow[s * A + a]) / temperature
        if t < T - 1:
            peak = weigh(log_partition[t + 1], weights)
            unseen, ahead = ends_unseen[t].reshape(S * A), log_next[t].reshape(S * A)
            for i in range(S * A):
                flow[i] += unseen[i]
                flow[i] = flow[i] * np.exp(peak - ahead[i]) if flow[i] != 0.0 else 0.0
            pushed(tables, t if n_tables(tables) > 1 else 0, flow, arrived)
            for s in range(S):
                carried[s] = arrived[s] * weights[s]
    return value


@jit
def add_entries(table, entry, owner, sign, totals):
    """Add `sign * table[entry]` to the total of each entry's owner."""
    for i in range(entry.size):
        totals[owner[i]] += sign * table[entry[i]]


@jit
def affine(matrix, offset, weights, out):
    """Fill `out = offset + weights @ matrix`, a stretch at a time that stays in the cache."""
    for start in range(0, out.size, STRETCH):
        part, begun = out[start : start + STRETCH], offset[start : start + STRETCH]
        for i in range(part.size):
            part[i] = begun[i]
        for k in range(weights.size):
            row, weight = matrix[k, start : start + STRETCH], weights[k]
            for i in range(part.size):
                part[i] += weight * row[i]


@jit
def affine_pullback(matrix, slope, out):
    """Fill `out = matrix @ slope`, likewise."""
    out[:] = 0.0
    for start in range(0, slope.size, STRETCH):
        part = slope[start : start + STRETCH]
        for k in range(out.size):
            row = matrix[k, start : start + STRETCH]
            total = 0.0
            for i in range(part.size):
                total += row[i] * part[i]
            out[k] += total
