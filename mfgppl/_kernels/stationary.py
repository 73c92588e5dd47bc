"""The soft policy of a game that goes on for ever, and the adjoint of its likelihood.

Rewards are (S, A), cell after cell, -inf where an action is not available. Newton's steps solve
`V = T V` cell by cell: with P the moves under the policy of V, each closes the gap `T V - V` by
`(I - discount P)^-1`. The matrix is diagonally dominant, so that its factors need no exchange of
rows; they serve for more steps, and for the adjoint, while these are quick. Values are those
relative to the first state of a cell: their level, `1 / (1 - discount)` times as large, changes no
choice.
"""

import numpy as np

from mfgppl._kernels import caching
from mfgppl._kernels.arithmetic import assign
from mfgppl._kernels.dynamics import cells, expected, jit_options, n_cells, pushed, put_under
from mfgppl._kernels.sweeps import counted, normalise

MOST = 200  # steps
QUICK = 0.1  # share of a change that the next one may leave before matrices are factored anew
EXACT, NEARLY = 1e-14, 1e-11  # changes, relative to what changes: none, and no more than rounding

jit = caching.jit(**jit_options)
alone = caching.jit(alone=True, **jit_options)
inner = caching.jit(inner=True, **jit_options)
inner_alone = caching.jit(inner=True, alone=True, **jit_options)


@jit
def factor(matrix):
    """Put a matrix's LU factors in its place."""
    n = matrix.shape[0]
    for k in range(n):
        pivot = 1.0 / matrix[k, k]
        top = matrix[k, k + 1 :]
        for i in range(k + 1, n):
            if matrix[i, k] != 0.0:
                weight, row = matrix[i, k] * pivot, matrix[i, k + 1 :]
                matrix[i, k] = weight
                for j in range(row.size):
                    row[j] -= weight * top[j]


@jit
def solve(factors, vector):
    """Put the solution of a factored system in the place of its right side."""
    n = vector.size
    for i in range(n):
        total, row = 0.0, factors[i, :i]
        for j in range(row.size):
            total += row[j] * vector[j]
        vector[i] -= total
    for i in range(n - 1, -1, -1):
        total, row, later = 0.0, factors[i, i + 1 :], vector[i + 1 :]
        for j in range(row.size):
            total += row[j] * later[j]
        vector[i] = (vector[i] - total) / factors[i, i]


@jit
def solve_transposed(factors, vector):
    """Do so for the transposed system."""
    n = vector.size
    for i in range(n):
        vector[i] /= factors[i, i]
        value, row, later = vector[i], factors[i, i + 1 :], vector[i + 1 :]
        for j in range(row.size):
            later[j] -= value * row[j]
    for i in range(n - 1, -1, -1):
        value, row = vector[i], factors[i, :i]
        for j in range(row.size):
            vector[j] -= value * row[j]


@inner_alone
def factor_under(tables, policy, discount, factors):
    """Fill the factors of `I - discount P'`, P the moves of a cell under a policy (S * A,)."""
    put_under(tables, policy, -discount, factors)
    for s in range(factors.shape[0]):
        factors[s, s] += 1.0
    factor(factors)


@inner
def greatest(vector):
    """Return the largest size of an entry; NaN where there is one."""
    size = 0.0
    for i in range(vector.size):
        size = max(size, abs(vector[i]))
        if vector[i] != vector[i]:
            return np.nan
    return size


@inner
def follow(reward, policy, temperature, worth):
    """Fill what a policy earns at once (S,), its entropy included, by what can be done."""
    A = reward.size // worth.size
    for s in range(worth.size):
        mass, total = 0.0, 0.0
        for i in range(s * A, (s + 1) * A):
            if policy[i] > 0.0 and reward[i] > -np.inf:
                mass += policy[i]
                total += policy[i] * (reward[i] - temperature * np.log(policy[i]))
        worth[s] = total / mass if mass > 0.0 else 0.0


@inner
def look(tables, reward, discount, temperature, values, q, policy, soft):
    """Fill Q and log sums, in temperatures, and the policy one step before values."""
    expected(tables, 0, values, q)
    for i in range(q.size):
        q[i] = (reward[i] + discount * q[i]) / temperature
    normalise(q, policy, soft, q.size // soft.size)


@inner_alone
def settle(tables, reward, discount, temperature, seen, of_seen, q, policy, soft, factors):
    """Fill what `look` does at the values of a cell; return whether `factors` are a policy's.

    The search begins at what is earned by the policy `seen`, of which `of_seen` are the factors;
    NaN where it does not end.
    """
    S = soft.size
    values, change = np.empty(S), np.empty(S)
    follow(reward, seen, temperature, values)
    largest = greatest(values)
    solve_transposed(of_seen, values)
    level = values[0]
    for s in range(S):
        values[s] -= level
    anew, last, smallest = False, np.inf, np.inf
    for _ in range(MOST):
        look(tables, reward, discount, temperature, values, q, policy, soft)
        size = 0.0
        for attempt in range(2):
            level = temperature * soft[0] - values[0]
            for s in range(S):
                change[s] = temperature * soft[s] - values[s] - level
            solve_transposed(factors if anew else of_seen, change)
            level = change[0]
            for s in range(S):
                change[s] -= level
            size, scale = greatest(change), max(greatest(values), largest)
            if attempt == 1 or size <= QUICK * last or size <= NEARLY * scale:
                break
            factor_under(tables, policy, discount, factors)
            anew = True
        for s in range(S):
            values[s] += change[s]
        if size <= EXACT * scale or (smallest <= NEARLY * scale and size >= 0.5 * smallest):
            look(tables, reward, discount, temperature, values, q, policy, soft)
            return anew
        if not np.isfinite(size):
            break
        last, smallest = size, min(size, smallest)
    q[:] = np.nan
    return anew


@inner_alone
def carry(tables, policy, discount, right, factors, given, anew):
    """Put `(I - discount P')^-1 right`, P under a policy (S * A,), in the place of the right side.

    By factors of a policy nearby, `factors` where there are such, else those `given`.
    """
    S, A = right.size, policy.size // right.size
    found, left, weights = np.zeros(S), right.copy(), np.empty(policy.size)
    last, fresh = np.inf, False
    for _ in range(MOST):
        change = left.copy()
        solve(factors if anew else given, change)
        size = greatest(change)
        if size > QUICK * last and size > NEARLY * greatest(found) and not fresh:
            factor_under(tables, policy, discount, factors)
            anew = fresh = True
            assign(change, left)
            solve(factors, change)
            size = greatest(change)
        elif size >= 0.5 * last:
            break
        for s in range(S):
            found[s] += change[s]
        if not size > EXACT * greatest(found):
            break
        for s in range(S):
            for a in range(A):
                weights[s * A + a] = policy[s * A + a] * found[s]
        pushed(tables, 0, weights, left)
        for s in range(S):
            left[s] = right[s] - found[s] + discount * left[s]
        last = size
    assign(right, found)


@jit
def factor_seen(tables, seen, discount, of_seen):
    """Fill the factors (C, s, s) of all cells under the policy that is seen (S * A,)."""
    wide = seen.size // n_cells(tables)
    for c in range(n_cells(tables)):
        here = seen[c * wide : (c + 1) * wide]
        factor_under(cells(tables, c, c + 1), here, discount, of_seen[c])


@jit
def answer(reward, tables, discount, temperature, seen, of_seen, policy, logs, factors, anew):
    """Fill the soft policy (S * A,) and its log at a reward, cell by cell.

    Fill also `factors` (C, s, s) of a policy nearby, where `anew` (C,) says that there are such.
    """
    C, S = n_cells(tables), of_seen.shape[1]
    wide, soft = seen.size // C, np.empty(S)
    for c in range(C):
        here, q = slice(c * wide, (c + 1) * wide), logs[c * wide : (c + 1) * wide]
        anew[c] = settle(
            cells(tables, c, c + 1), reward[here], discount, temperature, seen[here], of_seen[c], q,
            policy[here], soft, factors[c],
        )  # fmt: skip
        for i in range(wide):
            q[i] -= soft[i // (wide // S)]


@jit
def pull_back(tables, discount, temperature, counts, of_seen, policy, factors, anew, gradient):
    """Fill the gradient of `sum N log pi` in the reward, flat, after `answer` at the reward.

    With n the visits and d = dL/dV: `g = N / beta + pi (d - n / beta)`, `d = discount P' g`.
    """
    C, S = n_cells(tables), of_seen.shape[1]
    wide = counts.size // C
    A, scale, carried, direct = wide // S, 1.0 / temperature, np.empty(S), np.empty(wide)
    for c in range(C):
        own, here = cells(tables, c, c + 1), slice(c * wide, (c + 1) * wide)
        n, pi, g = counts[here], policy[here], gradient[here]
        for s in range(S):
            visited = 0.0
            for i in range(s * A, (s + 1) * A):
                visited += n[i]
            for i in range(s * A, (s + 1) * A):
                direct[i] = (n[i] - pi[i] * visited) * scale
        pushed(own, 0, direct, carried)
        for s in range(S):
            carried[s] *= discount
        carry(own, pi, discount, carried, factors[c], of_seen[c], anew[c])
        for i in range(wide):
            g[i] = direct[i] + pi[i] * carried[i // A]


@jit
def log_policies(rewards, tables, discount, temperature, seen, of_seen, logs):
    """Fill the log policies (N, S * A) of many rewards."""
    policy, factors = np.empty(seen.size), np.empty(of_seen.shape)
    anew = np.zeros(of_seen.shape[0], np.int64)
    for n in range(rewards.shape[0]):
        answer(
            rewards[n], tables, discount, temperature, seen, of_seen, policy, logs[n], factors, anew
        )


@alone
def value_and_gradient(
    reward, tables, discount, temperature, counts, seen, of_seen, policy, logs, factors, anew,
    gradient,
):  # fmt: skip
    """Return `sum N log pi` and fill its gradient in the reward, all flat."""
    answer(reward, tables, discount, temperature, seen, of_seen, policy, logs, factors, anew)
    pull_back(tables, discount, temperature, counts, of_seen, policy, factors, anew, gradient)
    return counted(counts, logs)
