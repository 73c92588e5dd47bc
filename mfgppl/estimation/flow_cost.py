"""Measuring what it costs a fit that its flow is counted, by fits without parts of the agents."""

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from mfgppl._replication import or_reason
from mfgppl.data.trajectories import Trajectories
from mfgppl.estimation.counted_flow import CountedFlow
from mfgppl.estimation.leave_out import LeaveOut
from mfgppl.estimation.parts import random_parts
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel

PARTS = 20
LARGEST = 5_000_000  # decisions of a panel that is put in parts without being asked
NOMINAL = 0.9  # mass of the interval whose coverage is worked out


def is_counted(model: TrajectoryModel) -> bool:
    """Return whether a flow that is counted from the panel enters the reward or the dynamics."""
    return model.flow_is_empirical and model.reads_flow


def measured_cost(model: TrajectoryModel, fit: PointEstimate) -> CountedFlow | None:
    """Measure what the counted flow costs a fit; None where no term reads a flow of the panel's."""
    if not is_counted(model):
        return None
    found = or_reason(lambda: _by_parts(model, fit))
    if isinstance(found, str):
        nothing = np.full(len(fit.params), np.nan)
        return _record(model, fit, nothing, nothing, nothing, found)
    return found


def correction(whole: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Return the jackknife's correction (P,), from the estimates without each part (G, P)."""
    return np.asarray((len(without) - 1) * (whole - without.mean(0)))


def record_of_bias(
    model: TrajectoryModel, fit: PointEstimate, refit: LeaveOut, without: np.ndarray, by: str
) -> CountedFlow:
    """Return what the fits without each part (G, P) of whole clusters say of the counted flow."""
    shift = correction(fit.params.to_numpy(), without)
    error = _error(fit, refit, without, by)
    return _record(model, fit, shift, error, refit.cross_step(), reason="")


def _error(fit: PointEstimate, refit: LeaveOut, without: np.ndarray, by: str) -> np.ndarray:
    """Return the standard error (P,) of the estimate that counts the flow's error too.

    Along the flow of all it is the larger of that by the information and the clustered one, as
    agents may differ where the model has them alike. What the flow's error adds is the variance by
    the fits without a part less that by the parts' scores along the flow of all.
    """
    assert fit.scores is not None
    G, centred = len(without), without - without.mean(0)
    spread = (G - 1) / G * (centred**2).sum(0)
    scores = np.array([fit.scores[part].sum(0) for part in refit.parts])
    influence = scores @ fit.curvature.covariance @ fit.jacobian.T
    known = G / (G - 1) * (influence**2).sum(0)
    clustered = fit.standard_errors("cluster", groups=by).to_numpy()
    own = np.fmax(fit.bse.to_numpy(), clustered) ** 2
    return np.sqrt(own + np.maximum(spread - known, 0.0))


def _by_parts(model: TrajectoryModel, fit: PointEstimate) -> CountedFlow:
    if not isinstance(model.panel, Trajectories):
        raise ValueError("a counted panel does not keep its agents; read a table of trajectories")
    if model.panel.n_decisions > LARGEST:
        raise ValueError(f"the panel has more than {LARGEST:,} decisions; mfgppl.jackknife does it")
    if not fit.converged:
        raise ValueError("the fit did not converge")
    parts = random_parts(model.panel, "agent", PARTS, 0, what="the jackknife", argument="parts")
    refit = LeaveOut(model, fit, parts)
    without = np.array([refit(part) for part in range(len(parts))])
    return record_of_bias(model, fit, refit, without, "agent")


def _record(
    model: TrajectoryModel,
    fit: PointEstimate,
    shift: np.ndarray,
    error: np.ndarray,
    cross_step: np.ndarray,
    reason: str,
) -> CountedFlow:
    estimate, se = fit.params.to_numpy(copy=True), fit.bse.to_numpy()
    z = ndtri(0.5 + NOMINAL / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        coverage = ndtr((z * se - shift) / error) - ndtr((-z * se - shift) / error)
        columns = {
            "estimate": estimate,
            "bias": -shift,
            "bias_se": -shift / se,
            "coverage": np.where(np.isfinite(se), coverage, np.nan),
            "error": np.where(np.isfinite(se), error, np.nan),
            "corrected": estimate + shift,
            "cross_fit": estimate + cross_step,
        }
    table = pd.DataFrame(columns, index=fit.params.index)
    table.loc[~np.isfinite(se), ["bias", "bias_se", "corrected", "cross_fit"]] = np.nan
    visits = model.panel.visits[: model.panel.horizon]
    seen = visits[visits > 0]
    per_state = float(np.median(seen)) if seen.size else 0.0
    return CountedFlow(model.panel.n_agents, per_state, table, reason)
