"""What checks share: parameters drawn from a fit, shares of a panel, parts of a panel."""

from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import Seed, seed_of
from mfgppl.density.curvature import root_of
from mfgppl.density.of_model import density_of
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.policies import Fit, values_of

CI_PROB = 0.9  # of the equal-tailed bands of all checks
TAILS = [0.5 * (1 - CI_PROB), 0.5 * (1 + CI_PROB)]


def values_to_draw_at(model: TrajectoryModel, fit: Fit, draws: int) -> np.ndarray:
    """Return flat constrained parameters (N, K): of draws `draws` at most, of a point as many."""
    values, kept = values_of(model, fit, draws)
    return np.repeat(values, draws, axis=0) if kept is None else values


def values_around(
    model: TrajectoryModel, fit: Fit, draws: int, random_seed: Seed
) -> tuple[np.ndarray, pd.Index]:
    """Return the same, of a point estimate drawn from the normal of its curvature, with labels.

    What is compared with draws that carry the error of the parameters must carry it too.
    """
    values, kept = values_of(model, fit, draws)
    if kept is not None:
        return values, kept.labels()
    numbers = pd.RangeIndex(draws, name="draw")
    if not isinstance(fit, PointEstimate):
        return np.repeat(values, draws, axis=0), numbers
    if np.isnan(fit.theta).any():
        raise ValueError(f"the {fit.kind} estimate cannot be drawn around: {fit.messages[0]}")
    root = root_of(fit.curvature.covariance)
    rng = np.random.default_rng(seed_of(random_seed))
    theta = fit.theta + rng.standard_normal((draws, len(root))) @ root.T
    return density_of(model).constrained(theta), numbers


def values_or_replications(
    model: TrajectoryModel, fit: Fit | pd.DataFrame, draws: int
) -> tuple[np.ndarray, pd.Index, int]:
    """Return flat constrained parameters (N, K), their labels, and how many replications have none.

    Of draws and of replications of `bootstrap` at most `draws`, evenly spaced; of a point one.
    """
    if not isinstance(fit, pd.DataFrame):
        values, kept = values_of(model, fit, draws)
        return values, pd.RangeIndex(1, name="draw") if kept is None else kept.labels(), 0
    names = density_of(model).program.entry_names()
    if list(fit.columns) != names:
        raise ValueError(
            f"`fit` has the columns {list(fit.columns)}; the model has the parameters {names}."
        )
    rows = fit.to_numpy(dtype=float)
    sound = np.flatnonzero(np.isfinite(rows).all(1))
    if not len(sound):
        raise ValueError("`fit` has no replication with an estimate.")
    places = sound[np.linspace(0, len(sound) - 1, min(draws, len(sound))).round().astype(int)]
    return rows[places], fit.index[places].rename("draw"), len(rows) - len(sound)


def nearest_to_mean(values: np.ndarray) -> int:
    """Return which row (N, K) is nearest to the mean, in standard deviations."""
    spread = values.std(0)
    away = (values - values.mean(0)) / np.where(spread > 0, spread, 1.0)
    return int((away**2).sum(1).argmin())


def upper_tail(drawn: Any, observed: Any) -> np.ndarray:
    """Return the share of draws (N, ...) above the observed value, a tie counted as half.

    The observed value counts as one of N + 1, so that no share is zero. Draws that are NaN are
    left out; NaN where the observed value is, or all draws are.
    """
    drawn, observed = np.asarray(drawn, dtype=float), np.asarray(observed, dtype=float)
    scale = np.abs(observed) + np.where(np.isnan(drawn), 0.0, np.abs(drawn)).max(0)
    tie = np.abs(drawn - observed) <= 1e-12 * scale  # sums in another order
    above = ((drawn > observed) & ~tie).sum(0) + 0.5 * (tie.sum(0) + 1)
    known = (~np.isnan(drawn)).sum(0)
    return np.where(np.isnan(observed) | (known == 0), np.nan, above / (known + 1))
