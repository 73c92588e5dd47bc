"""Leave-one-out scores by importance sampling, as ArviZ's `ELPDData`."""

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from mfgppl._arguments import is_a, strict_keywords
from mfgppl.diagnostics.held_out import FitMethod, Units, held_out, summed_by
from mfgppl.exceptions import ConvergenceWarning
from mfgppl.likelihood.model import TrajectoryModel

if TYPE_CHECKING:
    from arviz_stats import ELPDData


@strict_keywords
def loo(
    draws: xr.DataTree,
    *,
    by: str = "trajectory",
    model: TrajectoryModel | None = None,
    refit: FitMethod | None = None,
) -> "ELPDData":
    """Estimate the score of each trajectory, or group of them, under a fit of all others.

    By Pareto-smoothed importance sampling, with no refit; draws of `laplace` and `vi` are weighted
    by the ratio of posterior and approximation too. A group's log likelihood is the sum over its
    trajectories, so that a group is left out whole.

    Parameters
    ----------
    draws : DataTree
        Posterior draws with the group log_likelihood.
    by : str
        What is left out: "trajectory", "agent", or one of the panel's `groups`.
    model : TrajectoryModel, optional
        The model, for all but `by="trajectory"` without `refit`.
    refit : callable, optional
        Fits a model, as of `kfold`: where the Pareto shape is too large, the score is that of an
        actual fit without the trajectory or group, along the same flow.

    Returns
    -------
    ELPDData
        Of ArviZ, in nats, with `elpd_i` and `pareto_k` by what was left out; where refitted,
        `pareto_k` is zero.

    Raises
    ------
    ValueError
        If the draws have no log likelihood, or not that of the model's trajectories.

    Warns
    -----
    ConvergenceWarning
        If some Pareto shape is too large to rely on.

    References
    ----------
    .. [1] Vehtari, Gelman and Gabry (2017), *Practical Bayesian model evaluation using
       leave-one-out cross-validation and WAIC*, Statistics and Computing 27.
    .. [2] Magnusson, Andersen, Jonasson and Vehtari (2019), *Bayesian leave-one-out
       cross-validation for large data*, ICML.
    """
    is_a("draws", draws, xr.DataTree)
    if "log_likelihood" not in draws.children:
        raise ValueError(
            "`draws` must have the group log_likelihood; draw again with log_likelihood=True."
        )
    by_trajectory = draws["log_likelihood"].dataset["actions"]
    if model is None:
        if by != "trajectory" or refit is not None:
            raise ValueError("`model` is needed to leave out groups, or to refit.")
        return _psis(draws, by_trajectory)
    units = Units(model, by, "loo")
    if by_trajectory.sizes["trajectory"] != len(units.codes):
        raise ValueError(
            f"`draws` hold the log likelihood of {by_trajectory.sizes['trajectory']} trajectories; "
            f"the model has {len(units.codes)}."
        )
    summed = summed_by(by_trajectory.values, units)
    dim = f"{by}_" if by in ("chain", "draw") else by
    coords = {k: by_trajectory[k] for k in ("chain", "draw")} | {dim: units.labels}
    named = xr.DataArray(summed, coords, ("chain", "draw", dim), name="actions")
    found = _psis(draws, named, warn=refit is None)
    if refit is not None:
        _refitted(found, units, refit)
    return found


def _psis(draws: xr.DataTree, log_likelihood: xr.DataArray, *, warn: bool = True) -> "ELPDData":
    import arviz_stats  # slow to import

    stats = draws["sample_stats"].dataset if "sample_stats" in draws.children else xr.Dataset()
    parts = {"posterior": draws["posterior"].to_dataset()}
    tree = xr.DataTree.from_dict(parts | {"log_likelihood": log_likelihood.to_dataset()})
    with warnings.catch_warnings():  # ours says what to do
        warnings.filterwarnings("ignore", message="Estimated shape parameter")
        if "log_q" in stats:
            logs = {f"log_{k}": stats[v].values.ravel() for k, v in (("p", "lp"), ("q", "log_q"))}
            found = arviz_stats.loo_approximate_posterior(tree, pointwise=True, **logs)
        else:
            found = arviz_stats.loo(tree, pointwise=True)
    bad = int((found.pareto_k > found.good_k).sum())
    if bad and warn:
        what = str(found.elpd_i.dims[0])
        warnings.warn(
            f"the Pareto shape is above {found.good_k:.2f} for {bad} of {found.n_data_points} "
            f"scores by {what}: do not rely on them; give `refit`, or use kfold.",
            ConvergenceWarning,
            stacklevel=4,
        )
    return found


def _refitted(found: "ELPDData", units: Units, refit: FitMethod) -> None:
    """Replace scores whose Pareto shape is too large by those of actual fits."""
    bad = np.flatnonzero(found.pareto_k.values > found.good_k)
    score = found.elpd_i.values.copy()
    shape = found.pareto_k.values.copy()
    for unit in bad:
        score[unit] = held_out(units, refit, np.array([unit]), "panel")[0]
        shape[unit] = 0.0
    # the effective number of parameters is what the scores lose against the fit of all
    found.p = found.p + float(found.elpd_i.sum() - score.sum())
    found.elpd_i, found.pareto_k = found.elpd_i.copy(data=score), found.pareto_k.copy(data=shape)
    found.elpd, found.se = float(score.sum()), math.sqrt(len(score) * score.var())
    found.warning = False
