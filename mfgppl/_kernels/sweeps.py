"""Backward sweeps and their adjoints over float64 arrays; callers check the arguments.

Rewards and counts are (T, S, A), rewards -inf where an action is not available. Each function fills
the arrays it is given, so that a fit allocates them once. Sums may be reordered (`reassoc`);
infinities and NaN are kept. A loop that sums does not store: compiled code would then choose its
order by where the arrays happen to lie, and the same seed would give other draws.
"""

import numpy as np

from mfgppl._kernels import caching
from mfgppl._kernels.arithmetic import exp, exp_down, log
from mfgppl._kernels.dynamics import (
    cells,
    expected,
    expected_each,
    jit_options,
    log_mean,
    n_cells,
    n_tables,
    pushed,
    spread,
)

BLOCK = 64  # rows normalised together
FAR_BELOW = 1e-130  # sums below this, relative to the largest entry of a block, are taken anew
STRETCH = 4096  # entries of a vector worked on together
# means of weights below this lose digits; such rows reach only states far poorer than the richest
FAR, LOG_FAR = 1e-278, -640.1

jit = caching.jit(**jit_options)
alone = caching.jit(alone=True, **jit_options)
inner = caching.jit(inner=True, **jit_options)
inner_alone = caching.jit(inner=True, alone=True, **jit_options)


@inner_alone
def normalise(q, policy, soft_values, n_actions):
    """Turn rows of scaled Q (S * A,) into probabilities; fill the log-sum-exp of each row.

    The two arrays of rows must not be the same one.
    """
    share = np.empty(min(BLOCK, soft_values.size))
    for first in range(0, soft_values.size, BLOCK):
        v = soft_values[first : first + BLOCK]
        here = slice(first * n_actions, (first + v.size) * n_actions)
        p = policy[here]
        weigh_rows(q[here], p, v, share[: v.size], n_actions)
        for s in range(v.size):
            for a in range(n_actions):
                p[s * n_actions + a] *= share[s]


@inner
def weigh_rows(q, weights, soft_values, share, n_actions):
    """Fill weights in proportion to the probabilities of rows, their factors, and the log sums.

    All rows are taken relative to the largest entry of them all, so that what is costly runs along
    one long loop; a row far below it is taken by its own.
    """
    peak, S = largest(q), soft_values.size
    for i in range(q.size):
        weights[i] = exp_down(q[i] - peak)
    row_sums(weights, n_actions, share)
    n_far = 0
    for s in range(S):
        n_far += 0 if share[s] > FAR_BELOW else 1
    for s in range(S):
        soft_values[s] = peak + log(share[s])
        share[s] = 1.0 / share[s]
    if n_far > 0:
        for s in range(S):
            if not share[s] < 1.0 / FAR_BELOW:
                row = slice(s * n_actions, (s + 1) * n_actions)
                top = largest(q[row])
                soft_values[s], share[s] = top + by_itself(q[row], weights[row], top), 1.0


@inner
def row_sums(entries, n_actions, sums):
    """Fill the sum (S,) of each row of entries (S * A,)."""
    for s in range(sums.size):
        sums[s] = entries[s * n_actions]
    for a in range(1, n_actions):
        column = entries[a:]
        for s in range(sums.size):
            sums[s] += column[s * n_actions]


@inner
def by_itself(q, policy, peak):
    """Fill the probabilities of one row, and return the log of `sum exp(q - peak)`."""
    total = 0.0
    for a in range(q.size):
        total += np.exp(q[a] - peak)
    for a in range(q.size):
        policy[a] = np.exp(q[a] - peak) / total
    return np.log(total)


@inner
def largest(values):
    """Return the largest of some numbers, by four that do not wait for each other."""
    one = two = three = four = -np.inf
    i = 0
    while i + 3 < values.size:
        one, two = max(one, values[i]), max(two, values[i + 1])
        three, four = max(three, values[i + 2]), max(four, values[i + 3])
        i += 4
    while i < values.size:
        one = max(one, values[i])
        i += 1
    return max(max(one, two), max(three, four))


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


@alone
def causal_value_and_gradient(
    reward, tables, discount, temperature, counts, visits, soft_values, gradient, first, last
):
    """Return `sum N (Q - V) / temperature` and fill its gradient in the reward (T, S, A).

    With n = `visits` (T, S) and d = dL/dV: `g = N / beta + pi (d - n / beta)`,
    `d_{t+1} = discount * sum_sa g P`. The array of the gradient holds weights in
    proportion to pi between the sweeps. Both
    are those of the cells from `first` to before `last`.
    """
    T, A = reward.shape[0], reward.shape[2]
    each = reward.shape[1] // n_cells(tables)
    S, some = (last - first) * each, cells(tables, first, last)
    here, wide = slice(first * each, last * each), slice(first * each * A, last * each * A)
    rewards, numbers, slopes = flat(reward), flat(counts), flat(gradient)
    scale, onward = 1.0 / temperature, discount / temperature
    ahead, q, shares = np.zeros(S * A), np.empty(S * A), np.empty((T, S))
    value, following = 0.0, soft_values[T - 1, here]
    for t in range(T - 1, -1, -1):
        if t < T - 1:
            expected(some, t if n_tables(tables) > 1 else 0, following, ahead)
        r, n = rewards[t, wide], numbers[t, wide]
        for i in range(S * A):
            q[i] = r[i] * scale + onward * ahead[i]
        for i in range(S * A):  # what was never done adds nothing, also where its log is -inf
            value += n[i] * q[i] if n[i] != 0.0 else 0.0
        v, visited = soft_values[t, here], visits[t, here]
        for block in range(0, S, BLOCK):
            inside, end = v[block : block + BLOCK], min(block + BLOCK, S)
            g = slopes[t, first * each * A + block * A : first * each * A + end * A]
            weigh_rows(q[block * A : end * A], g, inside, shares[t, block:end], A)
        for s in range(S):
            value -= visited[s] * v[s]
        for s in range(S):
            v[s] *= temperature
        following = v
    carried, arrived = np.zeros(S), np.empty(S)
    for t in range(T):
        g, n, visited = slopes[t, wide], numbers[t, wide], visits[t, here]
        for s in range(S):
            weight = (carried[s] - visited[s] * scale) * shares[t, s]
            for a in range(A):
                g[s * A + a] = n[s * A + a] * scale + g[s * A + a] * weight
        if t < T - 1:
            pushed(some, t if n_tables(tables) > 1 else 0, g, arrived)
            for s in range(S):
                carried[s] = discount * arrived[s]
    return value


@inner
def flat(array):
    """Return an array (T, S, A) as rows (T, S * A)."""
    return array.reshape((array.shape[0], array.shape[1] * array.shape[2]))


@jit
def counted(counts, logs):
    """Return `sum counts * logs`, where nothing counted adds nothing (also for log 0)."""
    total = 0.0
    counts, logs = counts.ravel(), logs.ravel()
    for i in range(counts.size):
        if counts[i] != 0.0:
            total += counts[i] * logs[i]
    return total


@inner_alone
def energy_sweep(reward, tables, temperature, log_partition, log_next, log_policy):
    """Fill W (T, S), `log sum_x P exp W_{t+1}` (T, S, A) and the energy law's log pi (T, S, A).

    Return whether some row reaches only states far below the highest one of its cell.
    """
    T, A = reward.shape[0], reward.shape[2]
    S = reward.shape[1] // n_cells(tables)
    rewards, means, policies = flat(reward), flat(log_next), flat(log_policy)
    weights, policy, any_far = np.empty(S), np.empty(S * A), False
    for c in range(n_cells(tables)):
        own, here = cells(tables, c, c + 1), slice(c * S, (c + 1) * S)
        wide, following = slice(c * S * A, (c + 1) * S * A), log_partition[T - 1, here]
        for t in range(T - 1, -1, -1):
            ahead, logs = means[t, wide], policies[t, wide]
            r, found = rewards[t, wide], log_partition[t, here]
            if t < T - 1:
                k = t if n_tables(tables) > 1 else 0
                peak = weigh(following, weights)
                expected(own, k, weights, ahead)
                for i in range(S * A):
                    if ahead[i] < FAR:
                        ahead[i], any_far = log_mean(own, k, i, following), True
                    else:
                        ahead[i] = peak + np.log(ahead[i])
            else:
                ahead[:] = 0.0
            for i in range(S * A):
                logs[i] = r[i] / temperature + ahead[i]
            normalise(logs, policy, found, A)
            for s in range(S):
                for a in range(A):
                    logs[s * A + a] -= found[s]
            following = found
    return any_far


@jit
def energy_sweeps(rewards, tables, temperature, log_partition, log_next, log_policy):
    """Do so for many rewards, with a leading axis (N, ...) everywhere."""
    for n in range(rewards.shape[0]):
        energy_sweep(rewards[n], tables, temperature, log_partition[n], log_next[n], log_policy[n])


@inner
def weigh(logs, weights):
    """Fill `exp(logs - peak)` and return the peak, the largest of them."""
    peak = largest(logs)
    for x in range(logs.size):
        weights[x] = exp_down(logs[x] - peak)
    return peak


@alone
def energy_value_and_gradient(
    reward,
    tables,
    temperature,
    counts,
    starts,
    ends_seen,
    ends_unseen,
    entry,
    n_groups,
    log_partition,
    log_next,
    log_policy,
    gradient,
):
    """Return the energy log likelihood and fill its gradient in the reward (T, S, A).

    In the marginal form states are in `n_groups` groups, each with one partition function for all
    who enter at a time, and `entry` (T, S) has the distributions of their first states, one for
    each group. With no group each first state has its own.
    """
    T, S, A = reward.shape
    any_far = energy_sweep(reward, tables, temperature, log_partition, log_next, log_policy)
    value = counted(counts, reward) / temperature
    value += counted(ends_seen, log_partition) + counted(ends_unseen, log_next)
    size = S // n_groups if n_groups > 0 else S
    entering, level = np.zeros((T, S // size)), np.zeros((T, S // size))
    for t in range(T):
        if n_groups == 0:
            value -= counted(starts[t], log_partition[t])
            continue
        for k in range(n_groups):
            inside = slice(k * size, (k + 1) * size)
            for s in range(k * size, (k + 1) * size):
                entering[t, k] += starts[t, s]
            if entering[t, k] > 0:
                level[t, k] = log_sum(entry[t, inside], log_partition[t, inside])
                value -= entering[t, k] * level[t, k]
    S //= n_cells(tables)
    n_far = S * A if any_far else 0  # rows to look at one by one
    numbers, slopes, stopped = flat(counts), flat(gradient), flat(ends_unseen)
    policies, means = flat(log_policy), flat(log_next)
    far, weights, flow = np.empty(n_far), np.empty(S), np.empty(S * A)
    for c in range(n_cells(tables)):
        own, here = cells(tables, c, c + 1), slice(c * S, (c + 1) * S)
        wide = slice(c * S * A, (c + 1) * S * A)
        carried, arrived = np.zeros(S), np.empty(S)
        for t in range(T):
            begun, first, ended = starts[t, here], entry[t, here], ends_seen[t, here]
            w, logs = log_partition[t, here], policies[t, wide]
            n, g = numbers[t, wide], slopes[t, wide]
            for s in range(S):
                k = (c * S + s) // size
                if n_groups == 0:
                    carried[s] -= begun[s]
                elif entering[t, k] > 0 and first[s] > 0:
                    carried[s] -= entering[t, k] * first[s] * np.exp(w[s] - level[t, k])
                carried[s] += ended[s]
                for a in range(A):
                    i = s * A + a
                    flow[i] = carried[s] * exp(logs[i])
                    g[i] = (n[i] + flow[i]) / temperature
            if t < T - 1:
                k, following = t if n_tables(tables) > 1 else 0, log_partition[t + 1, here]
                peak = weigh(following, weights)
                unseen, ahead = stopped[t, wide], means[t, wide]
                for i in range(n_far):
                    is_far = ahead[i] < peak + LOG_FAR
                    far[i] = flow[i] + unseen[i] if is_far else 0.0
                    flow[i] = -unseen[i] if is_far else flow[i]
                for i in range(S * A):
                    flow[i] += unseen[i]
                    flow[i] = flow[i] * np.exp(peak - ahead[i]) if flow[i] != 0.0 else 0.0
                pushed(own, k, flow, arrived)
                for s in range(S):
                    carried[s] = arrived[s] * weights[s]
                for i in range(n_far):
                    if far[i] != 0.0:
                        spread(own, k, i, following, ahead[i], far[i], carried)
    return value


@inner
def log_sum(weights, logs):
    """Return the log of the sum of `weights * exp(logs)`, by the peak of what has weight."""
    peak, total = -np.inf, 0.0
    for s in range(logs.size):
        if weights[s] > 0:
            peak = max(peak, logs[s])
    for s in range(logs.size):
        if weights[s] > 0:
            total += weights[s] * np.exp(logs[s] - peak)
    return peak + np.log(total)


@jit
def add_entries(table, entry, owner, sign, totals):
    """Add `sign * table[entry]` to the total of each entry's owner."""
    for i in range(entry.size):
        totals[owner[i]] += sign * table[entry[i]]


@alone
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


@alone
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
