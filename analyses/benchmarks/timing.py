"""Times of calls taken in turns, so that a machine's drift falls on all alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

ROUND_SECONDS = 0.01  # a candidate's turn


class Timing(NamedTuple):
    """Microseconds of one call.

    Attributes
    ----------
    median, best : float
        Over rounds.
    """

    median: float
    best: float


def time_in_turns(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time candidates in rounds, each for a short turn, so that drift falls on all alike.

    By `time.process_time` other work on the machine, which stops long calls only, does not count.
    """
    repeats = {}
    for name, call in candidates.items():
        call()
        repeats[name] = max(1, int(ROUND_SECONDS / max(_seconds(call, 3, clock), 1e-7)))
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for k in range(rounds):
        names = list(candidates)[:: 1 if k % 2 == 0 else -1]
        for name in names:
            taken[name].append(1e6 * _seconds(candidates[name], repeats[name], clock))
    return {name: Timing(float(np.median(t)), min(t)) for name, t in taken.items()}


def _seconds(call: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(repeats):
        call()
    return (clock() - began) / repeats
