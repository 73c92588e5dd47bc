"""Transitions as the arrays that the sweeps read, and their two products.

A sweep backwards needs the expected value after each state and action, a sweep forwards needs where
the weight of states and actions goes. Both cost as much as there are stored entries.

Where agents are of several kinds, states are stacked, cells leading: state s of cell c stands at
c * S + s. Nobody changes its cell, so that each has tables of its own states alone.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from mfgppl._kernels import caching

BLAS_FROM = 100  # states from which a library product beats the loop
PRODUCT_FROM = 8  # cells that share a table from which one product for all beats a loop over them
CACHED = 32768  # entries of tables that stay in a core's cache beside what a sweep reads
PARTS = 2  # of many cells at least, so that they can be swept side by side
LANES = 32  # rows of a slice of a sparse table

jit_options: dict[str, Any] = {
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
}


class Dense(NamedTuple):
    """One table, or one a step, with the next state first, so that loops run along long rows.

    Attributes
    ----------
    tables : ndarray, shape (n, B, S, S * A)
        `P(x | s, a)` at `[k, b, x, s * A + a]`, over the states of one cell.
    block : ndarray of int64, shape (C,)
        Which of the B tables each cell uses.
    """

    tables: np.ndarray
    block: np.ndarray


class Sparse(NamedTuple):
    """Stored entries of one table, or of one a step, by rows and by columns.

    Either way, `LANES` neighbouring rows make a slice, each row padded to the longest in its slice,
    and entries of a slice are stored slot by slot, so that a loop runs along the rows [1]_. Row i
    of slice c has its slot k at `starts[t, c] + k * LANES + i`.

    Attributes
    ----------
    after, before : ndarray, shape (n_entries,)
        Probabilities, by rows s * A + a and by next states.
    following, leading : ndarray of int32, shape (n_entries,)
        The next state, and the row s * A + a, of each entry.
    after_starts, before_starts : ndarray of int64, shape (n, n_slices + 1)
        Where slices start.

    References
    ----------
    .. [1] Kreutzer, Hager, Wellein, Fehske and Bishop (2014), *A unified sparse matrix data format
       for efficient general sparse matrix-vector multiplication*, SIAM J. Sci. Comput. 36.
    """

    after: np.ndarray
    following: np.ndarray
    after_starts: np.ndarray
    before: np.ndarray
    leading: np.ndarray
    before_starts: np.ndarray


Tables = Dense | Sparse


def n_tables(tables):
    """Return how many tables there are: 1, or one a step."""


def n_cells(tables):
    """Return the number of cells; sparse tables hold all in one."""


def cells(tables, first, last):
    """Return the tables of the cells from `first` to before `last`."""


def room_for(tables, n):
    """Return dense tables of n steps, not filled, with the cells and blocks of these."""


def fill_moves(tables, weights, values, other_weights, other_values, moves):
    """Fill the sums of `weights[i] * values[x]` of two pairs, for the tables that cells use.

    They are laid out as (B, S, S * A), flat.
    """


def expected(tables, k, values, ahead):
    """Fill `ahead[s * A + a]` with the mean of `values` after each state and action."""


def expected_each(tables, k, values, ahead):
    """Fill row by row of `ahead` (N, S * A) what `expected` does for rows of `values` (N, S)."""


def pushed(tables, k, weights, arrived):
    """Fill `arrived[x]` with the weight that `weights[s * A + a]` sends to each state."""


def put_under(tables, policy, weight, moves):
    """Fill `moves[x, s]` with `weight` times the chance of x after s, under a policy (S * A,)."""


def log_mean(tables, k, row, logs):
    """Return the log of the mean of `exp(logs)` after one row s * A + a, by its own peak."""


def spread(tables, k, row, logs, level, weight, arrived):
    """Add `weight * P(x | row) * exp(logs[x] - level)` to `arrived[x]` where the row leads."""


def is_tuple(kind, value):
    """Return whether numba's type of a value is that of a kind of named tuple."""
    return isinstance(value, types.BaseNamedTuple) and value.instance_class is kind


@overload(n_tables, jit_options=jit_options)
def _n_tables(tables):
    if is_tuple(Dense, tables):
        return lambda tables: tables.tables.shape[0]
    return lambda tables: tables.after_starts.shape[0]


@overload(n_cells, jit_options=jit_options)
def _n_cells(tables):
    if is_tuple(Dense, tables):
        return lambda tables: tables.block.size
    return lambda tables: 1


@overload(cells, jit_options=jit_options)
def _cells(tables, first, last):
    if is_tuple(Dense, tables):
        return lambda tables, first, last: Dense(tables.tables, tables.block[first:last])
    return lambda tables, first, last: tables


@overload(room_for, jit_options=jit_options)
def _room_for(tables, n):
    if is_tuple(Dense, tables):
        return _room_for_dense
    return lambda tables, n: Dense(np.empty((0, 1, 0, 0)), np.zeros(1, np.int64))


def _room_for_dense(tables, n):
    _, B, S, m = tables.tables.shape
    return Dense(np.empty((n, B, S, m)), tables.block)


@overload(fill_moves, jit_options=jit_options)
def _fill_moves(tables, weights, values, other_weights, other_values, moves):
    if is_tuple(Dense, tables):
        return _fill_moves_dense
    return lambda tables, weights, values, other_weights, other_values, moves: None


def _fill_moves_dense(tables, weights, values, other_weights, other_values, moves):
    S, m = tables.tables.shape[2], tables.tables.shape[3]
    moves[:] = 0.0
    for c in range(tables.block.size):
        here = slice(c * m, (c + 1) * m)
        one, two = weights[here], other_weights[here]
        for x in range(S):
            start = (tables.block[c] * S + x) * m
            row, v, w = moves[start : start + m], values[c * S + x], other_values[c * S + x]
            for i in range(m):
                row[i] += one[i] * v + two[i] * w


@caching.jit(inner=True, **jit_options)
def at_once(tables):
    """Return how many cells one library product serves, 0 where a loop is faster."""
    C, B = tables.block.size, tables.tables.shape[1]
    if C >= PRODUCT_FROM and B == 1:
        return C
    return 1 if tables.tables.shape[2] >= BLAS_FROM else 0


@overload(expected, jit_options=jit_options)
def _expected(tables, k, values, ahead):
    if is_tuple(Dense, tables):
        return _expected_dense
    return _expected_sparse


def _expected_dense(tables, k, values, ahead):
    C, n, m = tables.block.size, tables.tables.shape[2], tables.tables.shape[3]
    width = at_once(tables)
    if width > 0:
        rows, found = values.reshape((C, n)), ahead.reshape((C, m))
        for c in range(0, C, width):
            end = c + width
            np.dot(rows[c:end], tables.tables[k, tables.block[c]], found[c:end])
        return
    ahead[:] = 0.0
    for c in range(C):
        table = tables.tables[k, tables.block[c]]
        v, out = values[c * n : (c + 1) * n], ahead[c * m : (c + 1) * m]
        x = 0
        while x + 3 < n:
            v0, v1, v2, v3 = v[x], v[x + 1], v[x + 2], v[x + 3]
            for i in range(m):
                out[i] += (
                    table[x, i] * v0
                    + table[x + 1, i] * v1
                    + table[x + 2, i] * v2
                    + table[x + 3, i] * v3
                )
            x += 4
        while x < n:
            v0 = v[x]
            for i in range(m):
                out[i] += table[x, i] * v0
            x += 1


def _expected_sparse(tables, k, values, ahead):
    by_slices(tables.after, tables.following, tables.after_starts[k], values, ahead)


@caching.jit(inner=True, **jit_options)
def by_slices(entries, places, starts, source, out):
    """Fill `out[i]` with the sum of row i's entries times `source` at their places."""
    for c in range(starts.size - 1):
        lanes = out[c * LANES : (c + 1) * LANES]
        # views, because an index known not to be negative lets a loop run in vectors
        weight, place = entries[starts[c] :], places[starts[c] :]
        for i in range(lanes.size):
            lanes[i] = weight[i] * source[place[i]]
        for e in range(starts[c] + LANES, starts[c + 1], LANES):
            weight, place = entries[e:], places[e:]
            for i in range(lanes.size):
                lanes[i] += weight[i] * source[place[i]]


@overload(expected_each, jit_options=jit_options)
def _expected_each(tables, k, values, ahead):
    if is_tuple(Dense, tables):
        return _expected_each_dense
    return _expected_each_sparse


def _expected_each_dense(tables, k, values, ahead):
    N, C = values.shape[0], tables.block.size
    S, m = tables.tables.shape[2], tables.tables.shape[3]
    rows, found = values.reshape((N * C, S)), ahead.reshape((N * C, m))
    width = N * C if tables.tables.shape[1] == 1 else 1
    for j in range(0, N * C, width):
        c, n = divmod(j, N)  # a cell's rows follow each other, so that its table stays in the cache
        r = n * C + c
        np.dot(rows[r : r + width], tables.tables[k, tables.block[c]], found[r : r + width])


def _expected_each_sparse(tables, k, values, ahead):
    for n in range(values.shape[0]):
        expected(tables, k, values[n], ahead[n])


@overload(pushed, jit_options=jit_options)
def _pushed(tables, k, weights, arrived):
    if is_tuple(Dense, tables):
        return _pushed_dense
    return _pushed_sparse


def _pushed_dense(tables, k, weights, arrived):
    C, n, m = tables.block.size, tables.tables.shape[2], tables.tables.shape[3]
    width = at_once(tables)
    if width > 0:
        rows, found = weights.reshape((C, m)), arrived.reshape((C, n))
        for c in range(0, C, width):
            end = c + width
            np.dot(rows[c:end], tables.tables[k, tables.block[c]].T, found[c:end])
        return
    for c in range(C):
        table, weight = tables.tables[k, tables.block[c]], weights[c * m : (c + 1) * m]
        for x in range(n):
            total = 0.0
            for i in range(m):
                total += weight[i] * table[x, i]
            arrived[c * n + x] = total


def _pushed_sparse(tables, k, weights, arrived):
    by_slices(tables.before, tables.leading, tables.before_starts[k], weights, arrived)


@overload(put_under, jit_options=jit_options)
def _put_under(tables, policy, weight, moves):
    if is_tuple(Dense, tables):
        return _put_under_dense
    return _put_under_sparse


def _put_under_dense(tables, policy, weight, moves):
    table, S = tables.tables[0, tables.block[0]], moves.shape[0]
    A = policy.size // S
    for x in range(S):
        row, out = table[x], moves[x]
        for s in range(S):
            total = 0.0
            for a in range(A):
                total += policy[s * A + a] * row[s * A + a]
            out[s] = weight * total


def _put_under_sparse(tables, policy, weight, moves):
    S, starts = moves.shape[0], tables.before_starts[0]
    A = policy.size // S
    moves[:] = 0.0
    for x in range(S):
        for e in range(starts[x // LANES] + x % LANES, starts[x // LANES + 1], LANES):
            i = tables.leading[e]
            moves[x, i // A] += weight * tables.before[e] * policy[i]


@overload(log_mean, jit_options=jit_options)
def _log_mean(tables, k, row, logs):
    if is_tuple(Dense, tables):
        return _log_mean_dense
    return _log_mean_sparse


@caching.jit(inner=True, **jit_options)
def row_of(tables, k, row):
    """Return the chances of a row s * A + a of all cells, and the first state of its own."""
    S, m = tables.tables.shape[2], tables.tables.shape[3]
    return tables.tables[k, tables.block[row // m], :, row % m], row // m * S


def _log_mean_dense(tables, k, row, logs):
    chances, first = row_of(tables, k, row)
    logs = logs[first : first + chances.size]
    peak, total = -np.inf, 0.0
    for x in range(logs.size):
        if chances[x] > 0.0:
            peak = max(peak, logs[x])
    if peak == -np.inf:
        return peak
    for x in range(logs.size):
        if chances[x] > 0.0:
            total += chances[x] * np.exp(logs[x] - peak)
    return peak + np.log(total)


def _log_mean_sparse(tables, k, row, logs):
    starts = tables.after_starts[k]
    first, end = starts[row // LANES] + row % LANES, starts[row // LANES + 1]
    peak, total = -np.inf, 0.0
    for e in range(first, end, LANES):
        if tables.after[e] > 0.0:
            peak = max(peak, logs[tables.following[e]])
    if peak == -np.inf:
        return peak
    for e in range(first, end, LANES):
        if tables.after[e] > 0.0:
            total += tables.after[e] * np.exp(logs[tables.following[e]] - peak)
    return peak + np.log(total)


@overload(spread, jit_options=jit_options)
def _spread(tables, k, row, logs, level, weight, arrived):
    if is_tuple(Dense, tables):
        return _spread_dense
    return _spread_sparse


def _spread_dense(tables, k, row, logs, level, weight, arrived):
    chances, first = row_of(tables, k, row)
    logs, arrived = logs[first : first + chances.size], arrived[first : first + chances.size]
    for x in range(logs.size):
        if chances[x] > 0.0:
            arrived[x] += weight * chances[x] * np.exp(logs[x] - level)


def _spread_sparse(tables, k, row, logs, level, weight, arrived):
    starts = tables.after_starts[k]
    for e in range(starts[row // LANES] + row % LANES, starts[row // LANES + 1], LANES):
        if tables.after[e] > 0.0:
            x = tables.following[e]
            arrived[x] += weight * tables.after[e] * np.exp(logs[x] - level)


def parts_of(tables: Tables, cells: tuple[int, int] | None = None) -> np.ndarray:
    """Return the cells where parts begin that are swept on their own, and where they end, (n + 1,).

    Of all cells, or those from a first to before a last.

    Cells with tables of their own make parts whose tables stay in a core's cache.
    """
    if not isinstance(tables, Dense):
        return np.array([0, 1])
    _, B, S, m = tables.tables.shape
    first, last = (0, len(tables.block)) if cells is None else cells
    C = last - first
    together = C if B == 1 else max(1, CACHED // (S * m))
    n = max(min(C, PARTS), -(-C // together))
    return first + np.arange(n + 1) * C // n


def sliced(
    table: np.ndarray, row: np.ndarray, place: np.ndarray, entry: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return entries, places and starts of tables in slices; `shape` is (tables, rows)."""
    n, n_rows = shape
    n_slices = -(-n_rows // LANES)
    order = np.lexsort((row, table))
    table, row, place, entry = (v[order] for v in (table, row, place, entry))
    line = (table * n_slices + row // LANES) * LANES + row % LANES  # rows, padded to whole slices
    lengths = np.bincount(line, minlength=n * n_slices * LANES)
    slot = np.arange(len(line)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    widths = np.maximum(lengths.reshape(-1, LANES).max(1), 1)
    starts = np.concatenate([[0], np.cumsum(widths * LANES)])
    where = starts[line // LANES] + slot * LANES + line % LANES
    entries, places = np.zeros(starts[-1]), np.zeros(starts[-1], dtype=np.int32)
    entries[where], places[where] = entry, place
    bounds = np.arange(n)[:, None] * n_slices + np.arange(n_slices + 1)
    return entries, places, starts[bounds]
