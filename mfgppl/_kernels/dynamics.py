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
    """Stored entries of one table, or of one a step, by rows (s, a).

    Attributes
    ----------
    probability : ndarray, shape (n_entries,)
        Probabilities.
    following : ndarray of int32, shape (n_entries,)
        Next states.
    offsets : ndarray of int64, shape (n, S * A + 1)
        Entries of row i of table k are `offsets[k, i]:offsets[k, i + 1]`.
    """

    probability: np.ndarray
    following: np.ndarray
    offsets: np.ndarray


Tables = Dense | Sparse


def n_tables(tables):
    """Return how many tables there are: 1, or one a step."""


def expected(tables, k, values, ahead):
    """Fill `ahead[s * A + a]` with the mean of `values` after each state and action."""


def pushed(tables, k, weights, arrived):
    """Fill `arrived[x]` with the weight that `weights[s * A + a]` sends to each state."""


def _is(kind, tables):
    return isinstance(tables, types.BaseNamedTuple) and tables.instance_class is kind


@overload(n_tables, jit_options=jit_options)
def _n_tables(tables):
    if _is(Dense, tables):
        return lambda tables: tables.tables.shape[0]
    return lambda tables: tables.offsets.shape[0]


@overload(expected, jit_options=jit_options)
def _expected(tables, k, values, ahead):
    if _is(Dense, tables):
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
    offsets = tables.offsets[k]
    for i in range(ahead.size):
        total = 0.0
        for e in range(offsets[i], offsets[i + 1]):
            total += tables.probability[e] * values[tables.following[e]]
        ahead[i] = total


@overload(pushed, jit_options=jit_options)
def _pushed(tables, k, weights, arrived):
    if _is(Dense, tables):
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
    offsets = tables.offsets[k]
    arrived[:] = 0.0
    for i in range(weights.size):
        for e in range(offsets[i], offsets[i + 1]):
            arrived[tables.following[e]] += weights[i] * tables.probability[e]
