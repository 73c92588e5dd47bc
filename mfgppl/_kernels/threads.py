"""Threads beside the caller's, for kernels that let go of the interpreter's lock."""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

Task = Callable[[], float]
_forked: list[bool] = []  # a process that was forked is one of several, which share the cores


def side_by_side(tasks: Sequence[Task]) -> list[float]:
    """Return what tasks give, in their order, whatever number of threads shares them."""
    n = min(n_cores(), len(tasks))
    bounds = [len(tasks) * k // n for k in range(n + 1)]
    shares = [tasks[first:last] for first, last in itertools.pairwise(bounds)]
    elsewhere = [_helpers().submit(_one_by_one, share) for share in shares[1:]]
    found = _one_by_one(shares[0])
    for share in elsewhere:
        found += share.result()
    return found


def n_cores() -> int:
    """Return how many cores the process may use; a process that was forked takes one."""
    if _forked:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _one_by_one(tasks: Sequence[Task]) -> list[float]:
    return [task() for task in tasks]


@functools.cache
def _helpers() -> ThreadPoolExecutor:
    """Return the process's helpers, begun as they are needed and kept."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="mfgppl")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forked.append(True))
