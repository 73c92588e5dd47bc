"""What checks share: parameters drawn from a fit, shares of a panel, parts of a panel."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from mfgppl.data.panel import Panel
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


def values_or_replications(
    model: TrajectoryModel, fit: Fit | pd.DataFrame, draws: int
) -> tuple[np.ndarray, int]:
    """Return flat constrained parameters (N, K), and how many replications have none.

    Of draws and of replications of `bootstrap` at most `draws`, evenly spaced; of a point one.
    """
    if not isinstance(fit, pd.DataFrame):
        return values_of(model, fit, draws)[0], 0
    names = density_of(model).program.entry_names()
    if list(fit.columns) != names:
        raise ValueError(
            f"`fit` has the columns {list(fit.columns)}; the model has the parameters {names}."
        )
    rows = fit.to_numpy(dtype=float)
    sound = rows[np.isfinite(rows).all(1)]
    if not len(sound):
        raise ValueError("`fit` has no replication with an estimate.")
    kept = np.linspace(0, len(sound) - 1, min(draws, len(sound))).round().astype(int)
    return sound[kept], len(rows) - len(sound)


def nearest_to_mean(values: np.ndarray) -> int:
    """Return which row (N, K) is nearest to the mean, in standard deviations."""
    spread = values.std(0)
    away = (values - values.mean(0)) / np.where(spread > 0, spread, 1.0)
    return int((away**2).sum(1).argmin())


def observed_flow(model: TrajectoryModel) -> torch.Tensor:
    """Return the panel's own flow, the model's where the panel does not have all of it."""
    panel, game = model.panel, model.game
    seen = panel.visits[: panel.horizon].sum(-1) > 0
    if game.joint or panel.horizon < game.shape[0] or not seen.all():
        return model.mean_field
    return torch.as_tensor(panel.mean_field())


def flow_distance(panel: Panel, shares: np.ndarray) -> float:
    """Return the total variation between a panel's flow and shares (T, S), mean over time."""
    gap = 0.5 * np.abs(flow_shares(panel) - shares[: panel.horizon]).sum(-1)
    return float(np.nanmean(gap))


def flow_shares(panel: Panel) -> np.ndarray:
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
