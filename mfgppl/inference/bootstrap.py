"""The bootstrap over agents or groups of them."""

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mfgppl._arguments import is_a, one_of, positive_int, strict_keywords
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.inference.point import mle
from mfgppl.inference.redrawn import maximum_near, redrawn
from mfgppl.inference.replication import replicate
from mfgppl.likelihood.model import TrajectoryModel


@strict_keywords
def bootstrap(
    model: TrajectoryModel,
    *,
    replications: int = 200,
    cluster: str = "agent",
    random_seed: int,
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
    random_seed : int
        Seed of the draws.
    n_jobs, progressbar
        As in `replicate`.

    Returns
    -------
    DataFrame
        A row a replication, a column a constrained parameter; NaN where a fit did not converge.

    Raises
    ------
    ValueError
        If the panel has no such groups.

    References
    ----------
    .. [1] Cameron, Gelbach and Miller (2008), *Bootstrap-based improvements for inference with
       clustered errors*, Review of Economics and Statistics 90.
    """
    is_a("model", model, TrajectoryModel)
    positive_int("replications", replications)
    panel = with_rows(model.panel, "bootstrap")
    one_of("cluster", cluster, ["agent", *panel.groups])
    owners = panel.agents if cluster == "agent" else panel.groups[cluster]
    start = mle(model, progressbar=False)

    def refit(seed: int) -> np.ndarray:
        with threadpool_limits(1):  # the products of a fit are too small to be shared out
            found = maximum_near(redrawn(model, resample(panel, owners, seed)), start)
        return np.full(len(start.params), np.nan) if found is None else found

    rows = replicate(
        refit, replications, random_seed=random_seed, n_jobs=n_jobs, progressbar=progressbar
    )
    return pd.DataFrame(rows, columns=start.params.index).rename_axis("replication")


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
