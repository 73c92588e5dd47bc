"""What checks share: parameters drawn from a fit, shares of a panel, parts of a panel."""

from dataclasses import replace
from typing import Any

import numpy as np

from mfgppl.data.trajectories import Trajectories
from mfgppl.inference.compiled import density_of
from mfgppl.inference.curvature import analyse_curvature
from mfgppl.inference.estimate import PointEstimate
from mfgppl.inference.products import Fit, values_of
from mfgppl.likelihood.model import TrajectoryModel

LEVEL = 0.9  # of the equal-tailed bands of all checks
TAILS = [0.5 * (1 - LEVEL), 0.5 * (1 + LEVEL)]


def values_to_draw_at(model: TrajectoryModel, fit: Fit, draws: int) -> np.ndarray:
    """Return flat constrained parameters (N, K): of draws `draws` at most, of a point as many."""
    values, kept = values_of(model, fit, draws)
    return np.repeat(values, draws, axis=0) if kept is None else values


def values_around(model: TrajectoryModel, fit: Fit, draws: int, random_seed: int) -> np.ndarray:
    """Return the same, of a point estimate drawn from the normal of its curvature.

    What is compared with draws that carry the error of the parameters must carry it too.
    """
    values = values_to_draw_at(model, fit, draws)
    if not isinstance(fit, PointEstimate):
        return values
    spread, vectors = np.linalg.eigh(analyse_curvature(fit.information, fit.probes).covariance)
    noise = np.random.default_rng(random_seed).standard_normal((draws, len(spread)))
    theta = fit.theta + (noise * np.sqrt(np.maximum(spread, 0.0))) @ vectors.T
    return density_of(model).constrained(theta)


def flow_shares(panel: Trajectories) -> np.ndarray:
    """Return the share of the agents seen in each state (T, S), NaN at times without any."""
    visits = panel.visits[: panel.horizon]
    totals = visits.sum(-1, keepdims=True)
    return np.where(totals > 0, visits / np.maximum(totals, 1), np.nan)


def before(panel: Trajectories, time: int) -> Trajectories:
    """Return the rows of a panel before a time, counted from its first.

    Trajectories that begin later are left out; the decision times that stay are `time` at most.
    """
    kept = panel.time < time
    rows = np.add.reduceat(kept, panel.offsets[:-1], dtype=int)
    there = rows > 0
    return replace(
        panel,
        horizon=min(time, panel.horizon),
        agents=panel.agents[there],
        offsets=np.append(0, rows[there].cumsum()),
        groups={k: v[there] for k, v in panel.groups.items()},
        **{k: getattr(panel, k)[kept] for k in ("time", "state", "action")},
    )


def needs_causal(model: TrajectoryModel, what: str) -> None:
    """Raise a `ValueError` unless a model has the exact law of the actions."""
    if model.likelihood_name != "causal":
        raise ValueError(
            f"{what} needs likelihood='causal': under the energy likelihood the next state does "
            "not follow the game's dynamics, and later decisions change the law of earlier ones."
        )


def upper_tail(drawn: Any, observed: Any) -> np.ndarray:
    """Return the share of draws (N, ...) above the observed value, a tie counted as half.

    The observed value counts as one of N + 1, so that no share is zero. Draws that are NaN are
    left out; NaN where the observed value is.
    """
    drawn, observed = np.asarray(drawn, dtype=float), np.asarray(observed, dtype=float)
    scale = np.abs(observed) + np.where(np.isnan(drawn), 0.0, np.abs(drawn)).max(0)
    tie = np.abs(drawn - observed) <= 1e-12 * scale  # sums in another order
    above = ((drawn > observed) & ~tie).sum(0) + 0.5 * (tie.sum(0) + 1)
    share = above / ((~np.isnan(drawn)).sum(0) + 1)
    return np.where(np.isnan(observed), np.nan, share)
