"""Leave-one-out scores by importance sampling, as ArviZ's `ELPDData`."""

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from mfgppl._arguments import is_a, strict_keywords
from mfgppl.checks.scores import FitMethod, Units, flow_of_crowd, held_out, summed_by
from mfgppl.density.draws import received
from mfgppl.exceptions import ConvergenceWarning
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.groups import SAMPLES

if TYPE_CHECKING:
    from arviz_stats import ELPDData

LEAST = 25  # draws, whose largest fifth is the tail that a shape is fitted to


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
        What is left out: "trajectory", "agent", or one of the panel's `groups`. Where kinds are not
        seen, agents stand in place of trajectories.
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
        If the draws are not finite, or have no log likelihood, or not that of the model's
        trajectories.

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
    draws = received(draws, "draws")
    if "log_likelihood" not in draws.children:
        raise ValueError(
            "`draws` must have the group log_likelihood; draw again with log_likelihood=True."
        )
    by_trajectory = draws["log_likelihood"].dataset["actions"]
    if not by_trajectory.notnull().all():
        raise ValueError(
            "`draws` must have a log likelihood at each draw; some in the group log_likelihood are "
            "NaN: draw again."
        )
    is_a("by", by, str)
    if model is None:
        if by != "trajectory" or refit is not None:
            asks = f"by={by!r}" if by != "trajectory" else "`refit`"
            raise ValueError(f"{asks} needs the fitted `model`, which was not given.")
        return _psis(draws, by_trajectory)
    units = Units(model, by, "loo")
    (kept,) = set(by_trajectory.dims) - set(SAMPLES)
    if by_trajectory.sizes[kept] != len(units.of_scores):
        raise ValueError(
            f"`draws` hold the log likelihood of {by_trajectory.sizes[kept]} trajectories; "
            f"the model has {len(units.of_scores)}."
        )
    summed = summed_by(by_trajectory.values, units)
    by = units.by
    dim = f"{by}_" if by in (*SAMPLES, "actions", "sample") else by
    coords = {k: by_trajectory[k] for k in ("chain", "draw")} | {dim: units.labels}
    named = xr.DataArray(summed, coords, ("chain", "draw", dim), name="actions")
    elpd = _psis(draws, named, warn=refit is None)
    if refit is not None:
        _replace_by_refits(elpd, units, refit)
    return elpd


def _psis(draws: xr.DataTree, log_likelihood: xr.DataArray, *, warn: bool = True) -> "ELPDData":
    import arviz_stats  # slow to import

    n = log_likelihood.sizes["chain"] * log_likelihood.sizes["draw"]
    if n < LEAST:
        raise ValueError(f"`draws` must hold {LEAST} draws or more for Pareto shapes; got {n}.")
    stats = draws["sample_stats"].dataset if "sample_stats" in draws.children else xr.Dataset()
    parts = {"posterior": draws["posterior"].to_dataset()}
    tree = xr.DataTree.from_dict(parts | {"log_likelihood": log_likelihood.to_dataset()})
    with warnings.catch_warnings():  # ours says what to do
        warnings.filterwarnings("ignore", message="Estimated shape parameter")
        if "log_q" in stats:
            logs = {f"log_{k}": stats[v].values.ravel() for k, v in (("p", "lp"), ("q", "log_q"))}
            elpd = arviz_stats.loo_approximate_posterior(tree, pointwise=True, **logs)
        else:
            elpd = arviz_stats.loo(tree, pointwise=True)
    bad = int((~(elpd.pareto_k <= elpd.good_k)).sum())  # NaN is no good shape
    if bad and warn:
        what = str(elpd.elpd_i.dims[0])
        warnings.warn(
            f"the Pareto shape is above {elpd.good_k:.2f} for {bad} of {elpd.n_data_points} "
            f"scores by {what}: do not rely on them; give `refit`, or use kfold.",
            ConvergenceWarning,
            stacklevel=4,
        )
    return elpd


def _replace_by_refits(elpd: "ELPDData", units: Units, refit: FitMethod) -> None:
    """Replace scores whose Pareto shape is too large by those of actual fits."""
    bad = np.flatnonzero(~(elpd.pareto_k.values <= elpd.good_k))
    score = elpd.elpd_i.values.copy()
    shape = elpd.pareto_k.values.copy()
    for unit in bad:
        score[unit] = held_out(units, refit, np.array([unit]), flow_of_crowd(units.model))[0]
        shape[unit] = 0.0
    # the effective number of parameters is what the scores lose against the fit of all
    elpd.p = elpd.p + float(elpd.elpd_i.sum() - score.sum())
    elpd.elpd_i, elpd.pareto_k = elpd.elpd_i.copy(data=score), elpd.pareto_k.copy(data=shape)
    elpd.elpd, elpd.se = float(score.sum()), math.sqrt(len(score) * score.var())
    elpd.warning = False
