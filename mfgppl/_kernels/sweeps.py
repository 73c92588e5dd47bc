"""Backward sweeps and their adjoints over float64 arrays; callers check the arguments.

Rewards are (T, S, A), with -inf where an action is not available. Transitions are (n, S, A, S)
with n = 1 for one table or n = T-1 for one a step. Each function fills the arrays it is given, so
that a fit allocates them once. Sums may be reordered (`reassoc`); infinities and NaN are kept.
"""

import numba
import numpy as np

jit = numba.njit(
    cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy"
)


@jit
def soft_sweep(reward, transition, discount, temperature, soft_values, log_policy, policy):
    """Solve soft backward induction: fill V (T, S), log pi and pi (T, S, A)."""
    T, S, A = reward.shape
    n_tables = transition.shape[0]
    for t in range(T - 1, -1, -1):
        k = t if n_tables > 1 else 0
        for s in range(S):
            top = -np.inf
            for a in range(A):
                expected = 0.0
                if t < T - 1:
                    for x in range(S):
                        expected += transition[k, s, a, x] * soft_values[t + 1, x]
                q = (reward[t, s, a] + discount * expected) / temperature
                log_policy[t, s, a] = q
                top = max(top, q)
            norm = 0.0
            for a in range(A):
                weight = np.exp(log_policy[t, s, a] - top)
                policy[t, s, a] = weight
                norm += weight
            log_norm = top + np.log(norm)
            for a in range(A):
                policy[t, s, a] /= norm
                log_policy[t, s, a] -= log_norm
            soft_values[t, s] = temperature * log_norm


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
def causal_value_and_gradient(
    reward, transition, discount, temperature, counts, soft_values, log_policy, policy, gradient
):
    """Return `sum N (Q - V) / temperature` and fill its gradient in the reward (T, S, A).

    With d = dL/dV: `g = N / beta + pi (d - n / beta)`, `d_{t+1} = discount * sum_sa g P`.
    """
    T, S, A = reward.shape
    n_tables = transition.shape[0]
    soft_sweep(reward, transition, discount, temperature, soft_values, log_policy, policy)
    adjoint = np.zeros(S)
    following = np.empty(S)
    for t in range(T):
        k = t if n_tables > 1 else 0
        following[:] = 0.0
        for s in range(S):
            visits = 0.0
            for a in range(A):
                visits += counts[t, s, a]
            carried = adjoint[s] - visits / temperature
            for a in range(A):
                g = counts[t, s, a] / temperature + policy[t, s, a] * carried
                gradient[t, s, a] = g
                if t < T - 1:
                    for x in range(S):
                        following[x] += g * transition[k, s, a, x]
        for x in range(S):
            adjoint[x] = discount * following[x]
    return counted(counts, log_policy)


@jit
def energy_sweep(reward, transition, temperature, log_partition, log_next, log_policy):
    """Fill W (T, S), `log sum_x P exp W_{t+1}` (T, S, A) and the energy law's log pi (T, S, A)."""
    T, S, A = reward.shape
    n_tables = transition.shape[0]
    weights = np.empty(S)
    for t in range(T - 1, -1, -1):
        k = t if n_tables > 1 else 0
        peak = -np.inf
        if t < T - 1:
            for x in range(S):
                peak = max(peak, log_partition[t + 1, x])
            for x in range(S):
                weights[x] = np.exp(log_partition[t + 1, x] - peak)
        for s in range(S):
            top = -np.inf
            for a in range(A):
                ahead = 0.0
                if t < T - 1:
                    total = 0.0
                    for x in range(S):
                        total += transition[k, s, a, x] * weights[x]
                    ahead = peak + np.log(total)
                log_next[t, s, a] = ahead
                q = reward[t, s, a] / temperature + ahead
                log_policy[t, s, a] = q
                top = max(top, q)
            norm = 0.0
            for a in range(A):
                norm += np.exp(log_policy[t, s, a] - top)
            log_norm = top + np.log(norm)
            for a in range(A):
                log_policy[t, s, a] -= log_norm
            log_partition[t, s] = log_norm


@jit
def energy_value_and_gradient(
    reward,
    transition,
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
    n_tables = transition.shape[0]
    energy_sweep(reward, transition, temperature, log_partition, log_next, log_policy)
    value = counted(counts, reward) / temperature
    value += counted(ends_seen, log_partition) + counted(ends_unseen, log_next)
    adjoint = np.zeros(S)
    following = np.empty(S)
    for t in range(T):
        k = t if n_tables > 1 else 0
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
                        adjoint[s] -= entering * share
        else:
            for s in range(S):
                adjoint[s] -= starts[t, s]
                if starts[t, s] != 0.0:
                    value -= starts[t, s] * log_partition[t, s]
        for s in range(S):
            adjoint[s] += ends_seen[t, s]
        following[:] = 0.0
        for s in range(S):
            for a in range(A):
                flow = adjoint[s] * np.exp(log_policy[t, s, a])
                gradient[t, s, a] = (counts[t, s, a] + flow) / temperature
                if t < T - 1:
                    flow += ends_unseen[t, s, a]
                    if flow != 0.0:
                        for x in range(S):
                            if transition[k, s, a, x] > 0.0:
                                following[x] += (
                                    flow
                                    * transition[k, s, a, x]
                                    * np.exp(log_partition[t + 1, x] - log_next[t, s, a])
                                )
        for x in range(S):
            adjoint[x] = following[x]
    return value


@jit
def add_entries(table, entry, owner, sign, totals):
    """Add `sign * table[entry]` to the total of each entry's owner."""
    for i in range(entry.size):
        totals[owner[i]] += sign * table[entry[i]]
