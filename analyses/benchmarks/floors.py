"""What the machine allows: bytes over measured bandwidth, operations over a measured rate."""

import functools
import time
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

DOUBLE = 8  # bytes
REPEATS = 15


class Work(NamedTuple):
    """What one value and gradient of the causal likelihood must do, whatever the code.

    Attributes
    ----------
    moved : float
        Bytes read and written: each table once backwards and once forwards in time, the reward
        once, the counts twice, the policy written and read, the gradient written.
    held : float
        Bytes of the arrays, by which one sees the cache that they fit in.
    operations : float
        Multiplications and additions of the two products a step.
    """

    moved: float
    held: float
    operations: float


class Floor(NamedTuple):
    """Seconds below which one core cannot go."""

    by_bytes: float
    by_operations: float

    @property
    def seconds(self) -> float:
        """The larger of the two."""
        return max(self)


def dense_work(horizon: int, n_states: int, n_actions: int, *, n_tables: int) -> Work:
    """Return the work with one dense table, or one a step."""
    table = n_states * n_actions * n_states
    products = 2 * (horizon - 1) * table
    entries = horizon * n_states * n_actions
    moved = DOUBLE * (products + 6 * entries)
    return Work(moved, DOUBLE * (n_tables * table + 3 * entries), 2.0 * products)


def sparse_work(horizon: int, n_states: int, n_actions: int, *, n_entries: int) -> Work:
    """Return the work with one sparse table: a probability and a place an entry."""
    products = 2 * (horizon - 1) * n_entries
    entries = horizon * n_states * n_actions
    moved = (DOUBLE + 4) * products + DOUBLE * 6 * entries
    held = 2 * (DOUBLE + 4) * n_entries + DOUBLE * 3 * entries
    return Work(moved, held, 2.0 * products)


def floor(work: Work) -> Floor:
    """Return the floor of some work on one core of this machine."""
    return Floor(work.moved / bandwidth(work.held), work.operations / rate())


@functools.cache
def bandwidth(held: float) -> float:
    """Return bytes a second moved by a copy between arrays that together are `held` bytes."""
    n = max(int(held / (2 * DOUBLE)), 1000)
    source, target = np.random.default_rng(0).random(n), np.ones(n)
    repeats = max(1, 10**7 // n)

    def run() -> None:
        for _ in range(repeats):
            np.copyto(target, source)

    return 2 * DOUBLE * n * repeats / _best(run)


@functools.cache
def rate() -> float:
    """Return the operations a second of a product of matrices on one core."""
    n = 400
    a, b, c = np.random.default_rng(0).random((3, n, n))
    with threadpool_limits(1):
        return 2.0 * n**3 / _best(lambda: np.matmul(a, b, out=c))


def _best(run) -> float:  # type: ignore[no-untyped-def]
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return min(found)
