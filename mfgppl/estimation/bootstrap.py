"""The bootstrap over agents or groups of them."""

import warnings
from collections import Counter

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mfgppl._arguments import Seed, is_a, one_of, positive_int, seed_of, strict_keywords
from mfgppl._replication import or_reason, replicate, warn_of_failures
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.density.of_model import redrawn
from mfgppl.estimation.parts import clusters_of
from mfgppl.estimation.point import mle
from mfgppl.estimation.refits import maximum_near
from mfgppl.exceptions import ConvergenceWarning
from mfgppl.likelihood.model import TrajectoryModel


@strict_keywords
def bootstrap(
    model: TrajectoryModel,
    *,
    replications: int = 200,
    cluster: str = "agent",
    random_seed: Seed = None,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> pd.DataFrame:
    """Refit the maximum likelihood estimate to resampled agents, or groups of them.

    Each replication draws as many agents (groups) as there are, with replacement, with all their
    trajectories. Where the model's flow is the panel's own, it is that of the resampled panel, so
    that the spread includes the flow's own error; the game stays as it is.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    replications : int
        How many panels to draw.
    cluster : str
        What is drawn: "agent", or one of the panel's `groups`.
    random_seed : int or SeedSequence, optional
        Seed of the draws; by default a fresh one, recorded in `attrs`.
    n_jobs, progressbar
        As in `replicate`.

    Returns
    -------
    DataFrame
        One row per replication, one column per constrained parameter. A row of NaN where a
        resample has no estimate: its fit did not converge, or something cannot be estimated from
        it, as a flow at a time at which nobody is left. Their number is in `attrs["n_failed"]`, by
        reason in `attrs["failures"]`. One entry is NaN where a resample does not determine a
        parameter that the panel does, as where nobody is drawn whom it concerns, or all of these
        choose alike; their number is in `attrs["undetermined"]`, by parameter. The seed is in
        `attrs["random_seed"]`.

    Warns
    -----
    ConvergenceWarning
        If a resample has no estimate, or does not determine a parameter; the messages count them
        by reason, and by parameter.

    Raises
    ------
    ValueError
        If the panel has no such groups.
    ConvergenceError
        If no resample has an estimate.

    References
    ----------
    .. [1] Cameron, Gelbach and Miller (2008), *Bootstrap-based improvements for inference with
       clustered errors*, Review of Economics and Statistics 90.
    """
    is_a("model", model, TrajectoryModel)
    positive_int("replications", replications)
    random_seed = seed_of(random_seed)
    panel = with_rows(model.panel, "bootstrap")
    clusters = clusters_of(panel)
    one_of("cluster", cluster, list(clusters))
    owners = clusters[cluster]
    start = mle(model, progressbar=False, flow_bias=False)

    def refit(stream: int) -> np.ndarray | str:
        with threadpool_limits(1):  # the products of a fit are too small to be shared out
            estimate = or_reason(
                lambda: maximum_near(redrawn(model, resample(panel, owners, stream)), start)
            )
        return "the fit did not converge" if estimate is None else estimate

    estimates = replicate(
        refit, replications, random_seed=random_seed, n_jobs=n_jobs, progressbar=progressbar
    )
    failures = Counter(f for f in estimates if isinstance(f, str))
    nothing = np.full(len(start.params), np.nan)
    rows = [nothing if isinstance(f, str) else f for f in estimates]
    table = pd.DataFrame(rows, columns=start.params.index).rename_axis("replication")
    table.attrs = {"n_failed": failures.total(), "failures": dict(failures)}
    table.attrs["random_seed"] = random_seed
    warn_of_failures(failures, replications, "resamples", "rows of NaN")
    missing = table.isna().sum() - failures.total()
    table.attrs["undetermined"] = {str(k): int(n) for k, n in missing[missing > 0].items()}
    _warn_of_missing(table.attrs["undetermined"], replications)
    return table


def _warn_of_missing(missing: dict[str, int], n: int) -> None:
    """Warn of parameters that some resamples do not determine."""
    if missing:
        each = ", ".join(f"{name!r} in {count}" for name, count in missing.items())
        message = (
            f"of {n} resamples some do not determine a parameter, which is NaN there: {each}. The "
            "others' spread is that of panels which do."
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=4)


def resample(panel: Trajectories, owners: np.ndarray, seed: int) -> Trajectories:
    """Draw as many owners as there are, with replacement, with all their trajectories.

    Parameters
    ----------
    panel : Trajectories
        The panel.
    owners : ndarray, shape (J,)
        Whom each trajectory belongs to.
    seed : int
        Seed of the draw.
    """
    codes, labels = pd.factorize(owners)
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=len(labels))
    first = np.cumsum(sizes) - sizes
    drawn = np.random.default_rng(seed).integers(len(labels), size=len(labels))
    lengths = sizes[drawn]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return panel.subset(order[np.repeat(first[drawn], lengths) + within])
