"""Tasks that differ by their seed alone, through joblib: on this machine's cores or a cluster's."""

from collections.abc import Callable
from typing import TypeVar

import joblib
import numpy as np

from mfgppl._arguments import positive_int, strict_keywords
from mfgppl.inference.progress import progress

T = TypeVar("T")


@strict_keywords
def replicate(
    task: Callable[[int], T],
    n: int,
    *,
    random_seed: int,
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
    random_seed : int
        Seed of them all.
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
    positive_int("random_seed", random_seed, least=0)
    if not callable(task):
        raise TypeError(f"`task` must be a function of a seed; got {type(task).__name__}.")
    seeds = seeds_of(random_seed, n)
    backend, _ = joblib.parallel.get_active_backend()
    order = "generator" if getattr(backend, "supports_return_generator", False) else "list"
    run = joblib.Parallel(n_jobs=n_jobs, return_as=order)
    results = run(joblib.delayed(task)(seed) for seed in seeds)
    return list(progress(results, "runs", progressbar, total=n))


def seeds_of(random_seed: int, n: int) -> list[int]:
    """Return independent seeds, one a task: the streams of one `numpy.random.SeedSequence`."""
    streams = np.random.SeedSequence(positive_int("random_seed", random_seed, least=0)).spawn(n)
    return [int(s.generate_state(1)[0]) for s in streams]
