"""Agents whose node is not seen: the sweeps of all nodes, the sum over an agent's, its gradient.

Rewards are (N, T, S, A) and their log weights (N, S); an entry is a place (t, s, a). Each function
fills the arrays it is given, and is compiled as those of `sweeps` are.
"""

import numpy as np

from mfgppl._kernels import caching
from mfgppl._kernels.arithmetic import exp, log
from mfgppl._kernels.dynamics import expected, jit_options, n_tables, pushed
from mfgppl._kernels.sweeps import counted, normalise

BLOCK = 128  # agents worked on together

jit = caching.jit(**jit_options)
alone = caching.jit(alone=True, **jit_options)
inner_alone = caching.jit(inner=True, alone=True, **jit_options)


@alone
def forward(rewards, tables, discount, temperature, policies, first, apart):
    """Solve the sweeps of all nodes.

    Fill pi (N, T, S, A), log pi of the first node (E,), and how far those of the others are from it
    (E, N - 1), with E = T * S * A entries.
    """
    N, T, S, A = rewards.shape
    scale, onward = 1.0 / temperature, discount / temperature
    ahead, q, following = np.empty(S * A), np.empty(S * A), np.empty(S)
    for n in range(N):
        ahead[:] = 0.0
        for t in range(T - 1, -1, -1):
            if t < T - 1:
                expected(tables, t if n_tables(tables) > 1 else 0, following, ahead)
            r = rewards[n, t].reshape(S * A)
            for i in range(S * A):
                q[i] = r[i] * scale + onward * ahead[i]
            normalise(q, policies[n, t].reshape(S * A), following, A)
            for s in range(S):
                for a in range(A):
                    q[s * A + a] -= following[s]
            start = t * S * A
            if n == 0:
                for i in range(S * A):
                    first[start + i] = q[i]
            else:
                for i in range(S * A):
                    apart[start + i, n - 1] = q[i] - first[start + i]
            for s in range(S):
                following[s] *= temperature


@jit
def add_up(pairs, n_entries, apart):
    """Fill the rows of pairs of entries, which are the sums of both, in `apart` (E + M, N - 1)."""
    for m in range(pairs.shape[0]):
        for n in range(apart.shape[1]):
            apart[n_entries + m, n] = apart[pairs[m, 0], n] + apart[pairs[m, 1], n]


@alone
def by_agent(
    apart, log_weights, entry, offsets, start, weight, known, posterior, counts, slopes, first, last
):
    """Return `sum_j m_j log sum_n w_n exp(l_nj - l_0j)` of agents from `first` to before `last`.

    An agent's `l_n - l_0` is the sum of the rows of `apart` (E + M, N - 1) at its entries; its
    weights are those of where it was seen first, with `known` (J, N), -inf where it is known to be
    of another kind, or empty. Fill the posterior of each agent's node (J, N), and add it, times the
    agent's number m, to the counts (E + M, N - 1) of its entries for all nodes but the first, and
    to the slopes (N, S) of its log weights.
    Entries are unsigned: an index that cannot be negative is not checked for its sign.
    """
    if apart.shape[1] == 1:
        return of_two(
            apart[:, 0], log_weights, entry, offsets, start, weight, known, posterior,
            counts[:, 0], slopes, first, last,
        )  # fmt: skip
    M, value = apart.shape[1], 0.0
    total = np.empty(M + 1)
    for j in range(first, last):
        total[:] = 0.0
        for i in range(offsets[j], offsets[j + 1]):
            e = entry[i]
            for n in range(M):
                total[n + 1] += apart[e, n]
        peak, mass = -np.inf, 0.0
        for n in range(M + 1):
            total[n] += log_weights[n, start[j]]
            if known.size > 0:
                total[n] += known[j, n]
            peak = max(peak, total[n])
        for n in range(M + 1):
            total[n] = exp(total[n] - peak) if peak > -np.inf else 0.0
        for n in range(M + 1):
            mass += total[n]
        value += weight[j] * (peak + np.log(mass)) if weight[j] != 0.0 else 0.0
        share = 1.0 / mass if mass > 0.0 else 0.0
        for n in range(M + 1):
            posterior[j, n] = total[n] * share
            total[n] = weight[j] * posterior[j, n]
            slopes[n, start[j]] += total[n]
        for i in range(offsets[j], offsets[j + 1]):
            e = entry[i]
            for n in range(M):
                counts[e, n] += total[n + 1]
    return value


@inner_alone
def of_two(
    apart, log_weights, entry, offsets, start, weight, known, posterior, counts, slopes, first, last
):
    """Do so for two nodes, many agents at a time where there is no sum over entries."""
    value, one, other, mass = 0.0, np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for begun in range(first, last, BLOCK):
        n = min(BLOCK, last - begun)
        for k in range(n):
            j = begun + k
            own, gap = entry[offsets[j] : offsets[j + 1]], 0.0
            for i in range(own.size):
                gap += apart[own[i]]
            one[k] = log_weights[0, start[j]]
            other[k] = log_weights[1, start[j]] + gap
            if known.size > 0:
                one[k] += known[j, 0]
                other[k] += known[j, 1]
        for k in range(n):
            gap = other[k] - one[k]
            least = exp(-abs(gap))
            mass[k], one[k] = 1.0 + least, max(one[k], other[k])
            other[k] = (1.0 if gap >= 0.0 else least) / mass[k]
        product = 1.0  # of at most BLOCK numbers up to 2, so that one logarithm serves for all
        for k in range(n):
            number = weight[begun + k]
            if number == 1.0:
                value += one[k]
                product *= mass[k]
            elif number != 0.0:
                value += number * (one[k] + log(mass[k]))
        value += np.log(product)
        for k in range(n):
            j, share = begun + k, other[k]
            posterior[j, 0], posterior[j, 1] = 1.0 - share, share
            slopes[0, start[j]] += weight[j] * (1.0 - share)
            slopes[1, start[j]] += weight[j] * share
            share *= weight[j]
            own = entry[offsets[j] : offsets[j + 1]]
            for i in range(own.size):
                counts[own[i]] += share
    return value


@jit
def share_out(pairs, n_entries, counts):
    """Add the counts (E + M, N - 1) of pairs of entries to those of both."""
    for m in range(pairs.shape[0] - 1, -1, -1):
        for n in range(counts.shape[1]):
            counts[pairs[m, 0], n] += counts[n_entries + m, n]
            counts[pairs[m, 1], n] += counts[n_entries + m, n]


@alone
def backward(policies, tables, discount, temperature, seen, counts, gradient):
    """Fill the gradient (N, T, S, A) of all nodes' sweeps at their counts.

    Those of the first node are what is seen (E,) less those of the others (E, N - 1).
    """
    N, T, S, A = policies.shape
    scale = 1.0 / temperature
    carried, arrived, own = np.empty(S), np.empty(S), np.empty(S * A)
    for n in range(N):
        carried[:] = 0.0
        for t in range(T):
            g, pi = gradient[n, t].reshape(S * A), policies[n, t].reshape(S * A)
            start = t * S * A
            for i in range(S * A):
                if n > 0:
                    own[i] = counts[start + i, n - 1]
                else:
                    own[i] = seen[start + i]
                    for m in range(N - 1):
                        own[i] -= counts[start + i, m]
            for s in range(S):
                visited = 0.0
                for a in range(A):
                    visited += own[s * A + a]
                lasting = carried[s] - visited * scale
                for a in range(A):
                    i = s * A + a
                    g[i] = own[i] * scale + pi[i] * lasting
            if t < T - 1:
                pushed(tables, t if n_tables(tables) > 1 else 0, g, arrived)
                for s in range(S):
                    carried[s] = discount * arrived[s]


@alone
def value_and_gradient(
    core, tables, discount, temperature, entry, offsets, start, weight, known, pairs, seen,
    policies, logs, apart, posterior, counts, gradient,
):  # fmt: skip
    """Return the log likelihood of agents whose node is not seen, and fill its gradient.

    `core` and `gradient` hold rewards (N, T, S, A) and after them log weights (N, S).
    """
    N, T, S, A = policies.shape
    size = N * T * S * A
    rewards, slopes = core[:size].reshape(policies.shape), gradient[size:].reshape((N, S))
    forward(rewards, tables, discount, temperature, policies, logs, apart)
    add_up(pairs, logs.size, apart)
    counts[:] = 0.0
    slopes[:] = 0.0
    value = counted(seen, logs)
    value += by_agent(
        apart, core[size:].reshape((N, S)), entry, offsets, start, weight, known, posterior,
        counts, slopes, 0, start.size,
    )  # fmt: skip
    share_out(pairs, logs.size, counts)
    backward(
        policies, tables, discount, temperature, seen, counts,
        gradient[:size].reshape(policies.shape),
    )  # fmt: skip
    return value


@jit
def heights(log_policies, log_weights, entry, offsets, start, known, posterior, heights):
    """Fill the log likelihood (J,) of each history and the posterior (J, N) of its node.

    Log policies are (E, N).
    """
    N = log_policies.shape[1]
    for j in range(start.size):
        total = posterior[j]
        for n in range(N):
            total[n] = log_weights[n, start[j]] + (known[j, n] if known.size > 0 else 0.0)
        for i in range(offsets[j], offsets[j + 1]):
            for n in range(N):
                total[n] += log_policies[entry[i], n]
        peak, mass = -np.inf, 0.0
        for n in range(N):
            peak = max(peak, total[n])
        for n in range(N):
            total[n] = np.exp(total[n] - peak) if peak > -np.inf else 0.0
            mass += total[n]
        heights[j] = peak + np.log(mass)
        for n in range(N):
            total[n] = total[n] / mass if mass > 0.0 else 0.0
