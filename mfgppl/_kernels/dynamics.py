"""Transitions as the arrays that the sweeps read, and their two products.

A sweep backwards needs the expected value after each state and action, a sweep forwards needs where
the weight of states and actions goes. Both cost as much as there are stored entries.
"""

from typing import NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import overload

BLAS_FROM = 100  # states from which a library product beats the loop
LANES = 32  # rows of a slice of a sparse table

jit_options = {
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
}


class Dense(NamedTuple):
    """One table, or one a step, with the next state first, so that loops run along long rows.

    Attributes
    ----------
    tables : ndarray, shape (n, S, S * A)
        `P(x | s, a)` at `[k, x, s * A + a]`.
    """

    tables: np.ndarray


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


def expected(tables, k, values, ahead):
    """Fill `ahead[s * A + a]` with the mean of `values` after each state and action."""


def expected_each(tables, k, values, ahead):
    """Fill row by row of `ahead` (N, S * A) what `expected` does for rows of `values` (N, S)."""


def pushed(tables, k, weights, arrived):
    """Fill `arrived[x]` with the weight that `weights[s * A + a]` sends to each state."""


def is_tuple(kind, value):
    """Return whether numba's type of a value is that of a kind of named tuple."""
    return isinstance(value, types.BaseNamedTuple) and value.instance_class is kind


@overload(n_tables, jit_options=jit_options)
def _n_tables(tables):
    if is_tuple(Dense, tables):
        return lambda tables: tables.tables.shape[0]
    return lambda tables: tables.after_starts.shape[0]


@overload(expected, jit_options=jit_options)
def _expected(tables, k, values, ahead):
    if is_tuple(Dense, tables):
        return _expected_dense
    return _expected_sparse


def _expected_dense(tables, k, values, ahead):
    table = tables.tables[k]
    n = values.size
    if n >= BLAS_FROM:
        np.dot(values, table, ahead)
        return
    ahead[:] = 0.0
    x = 0
    while x + 3 < n:
        v0, v1, v2, v3 = values[x], values[x + 1], values[x + 2], values[x + 3]
        for i in range(ahead.size):
            ahead[i] += (
                table[x, i] * v0
                + table[x + 1, i] * v1
                + table[x + 2, i] * v2
                + table[x + 3, i] * v3
            )
        x += 4
    while x < n:
        v0 = values[x]
        for i in range(ahead.size):
            ahead[i] += table[x, i] * v0
        x += 1


def _expected_sparse(tables, k, values, ahead):
    by_slices(tables.after, tables.following, tables.after_starts[k], values, ahead)


@numba.njit(cache=True, **jit_options)
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
    np.dot(values, tables.tables[k], ahead)


def _expected_each_sparse(tables, k, values, ahead):
    for n in range(values.shape[0]):
        expected(tables, k, values[n], ahead[n])


@overload(pushed, jit_options=jit_options)
def _pushed(tables, k, weights, arrived):
    if is_tuple(Dense, tables):
        return _pushed_dense
    return _pushed_sparse


def _pushed_dense(tables, k, weights, arrived):
    table = tables.tables[k]
    if arrived.size >= BLAS_FROM:
        np.dot(table, weights, arrived)
        return
    for x in range(arrived.size):
        total = 0.0
        for i in range(weights.size):
            total += weights[i] * table[x, i]
        arrived[x] = total


def _pushed_sparse(tables, k, weights, arrived):
    by_slices(tables.before, tables.leading, tables.before_starts[k], weights, arrived)


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
