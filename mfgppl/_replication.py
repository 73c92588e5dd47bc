"""Tasks that differ by their seed alone, through joblib: on this machine's cores or a cluster's."""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import joblib
import numpy as np

from mfgppl._arguments import Seed, positive_int, seed_of, strict_keywords
from mfgppl._progress import progress
from mfgppl.exceptions import ConvergenceError, ConvergenceWarning

T = TypeVar("T")


@strict_keywords
def replicate(
    task: Callable[[int], T],
    n: int,
    *,
    random_seed: Seed = None,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> list[T]:
    """Run a task many times, each time with a seed of its own, through joblib.

    The seeds are the streams of one `numpy.random.SeedSequence`, one a task, so that results do
    not depend on the number of workers or on where they run.

    Parameters
    ----------
    task : callable
        Takes a seed and returns what a run gives; it travels to other processes by cloudpickle.
    n : int
        How many runs.
    random_seed : int or SeedSequence, optional
        Seed of them all; by default a fresh one.
    n_jobs : int, optional
        Workers, -1 for one a core; by default what `joblib.parallel_config` says, else 1. Under
        `joblib.parallel_config(backend="dask")` or "ray" the tasks run on that cluster.
    progressbar : bool
        Whether to show progress on a terminal.

    Returns
    -------
    list
        Results in order.

    Examples
    --------
    >>> replicate(lambda seed: np.random.default_rng(seed).normal() > 0, 3, random_seed=1)
    [True, False, True]
    """
    positive_int("n", n)
    random_seed = seed_of(random_seed)
    if not callable(task):
        raise TypeError(f"`task` must be a function of a seed; got {type(task).__name__}.")
    seeds = seeds_of(random_seed, n)
    backend, _ = joblib.parallel.get_active_backend()
    order = "generator" if getattr(backend, "supports_return_generator", False) else "list"
    run = joblib.Parallel(n_jobs=n_jobs, return_as=order)
    results = run(joblib.delayed(task)(seed) for seed in seeds)
    return list(progress(results, "runs", progressbar, total=n))


def or_reason(task: Callable[[], T]) -> T | str:
    """Return what a task gives; where data do not allow it, the reason in words."""
    try:
        return task()
    except (ValueError, ArithmeticError, ConvergenceError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]


def warn_of_failures(failures: Counter[str], n: int, what: str, kept: str) -> None:
    """Warn of what had no estimate, by reason; raise where nothing had one."""
    if not failures:
        return
    reasons = "; ".join(f"{count} x {reason}" for reason, count in failures.most_common(3))
    if failures.total() == n:
        raise ConvergenceError(f"none of the {n} {what} can be fitted: {reasons}")
    message = f"{failures.total()} of {n} {what} cannot be fitted and are {kept}: {reasons}"
    warnings.warn(message, ConvergenceWarning, stacklevel=4)


def seeds_of(random_seed: Seed, n: int) -> list[int]:
    """Return independent seeds, one a task: the streams of one `numpy.random.SeedSequence`."""
    streams = np.random.SeedSequence(seed_of(random_seed)).spawn(n)
    return [int(s.generate_state(1)[0]) for s in streams]
