"""What a report says of a fit beside fits of other models."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl.diagnostics.comparison import compare_models
from mfgppl.diagnostics.loo import loo
from mfgppl.inference.estimate import PointEstimate
from mfgppl.report.tables import compare_fits

OWN = "this fit"
Fit = xr.DataTree | PointEstimate
Compared = tuple[str, dict[str, Any], pd.DataFrame | None, tuple[str, ...]]
BY_TRAJECTORY = "elpd: expected log predictive density of a trajectory left out, summed, nats"


def compared(fit: Fit, against: Mapping[str, Fit]) -> Compared | None:
    """Return a sentence, its numbers, a table and small print; None where nothing can be said."""
    if isinstance(fit, PointEstimate):
        points = {k: v for k, v in against.items() if isinstance(v, PointEstimate)}
        return _by_criteria({OWN: fit} | points) if points else None
    if "log_likelihood" not in fit.children:
        return None
    if against:
        return _by_prediction({OWN: fit, **against})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = loo(fit)
    bad = int((np.asarray(found.pareto_k) > found.good_k).sum())
    gist = (
        f"Left out one by one, the trajectories have an expected log predictive density of "
        f"{found.elpd:.1f} nats (standard error {found.se:.1f}), to compare with other models of "
        "the same panel."
    )
    numbers = {
        "elpd": float(found.elpd),
        "standard error": float(found.se),
        "effective parameters": float(found.p),
        "trajectories with an unreliable estimate": f"{bad} of {found.n_data_points}",
    }
    return gist, numbers, None, ()


def _by_prediction(fits: Mapping[str, Any]) -> Compared:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = compare_models(fits)
    best, second = table.index[0], table.index[1]
    ahead, error = float(-table["elpd_diff"].iloc[1]), float(table["dse"].iloc[1])
    ahead = abs(ahead)
    gist = f"{_named(best)} predicts left-out trajectories best, {ahead:.1f} nats (standard error "
    gist += f"{error:.1f}) ahead of {_named(second)}"
    gist += "." if ahead > 2 * error else ", which is within chance."
    numbers = {"best": best, "ahead by": ahead, "standard error": error}
    shown = table[["rank", "elpd", "se", "elpd_diff", "dse", "weight"]]
    return gist[0].upper() + gist[1:], numbers, shown, (BY_TRAJECTORY, "weight: of stacking")


def _by_criteria(fits: Mapping[str, PointEstimate]) -> Compared:
    table = compare_fits(fits)
    criterion = pd.Series({name: fit.aic for name, fit in fits.items()}).sort_values()
    gap = float(criterion.iloc[1] - criterion.iloc[0])
    best, second = criterion.index[:2]
    gist = f"{_named(best)} has the lower AIC, by {gap:.1f} against {_named(second)}"
    gist += "." if gap > 2 else ", which says little."
    numbers = {"AIC": {k: float(v) for k, v in criterion.items()}}
    return gist[0].upper() + gist[1:], numbers, table.cells, table.notes


def _named(name: str) -> str:
    """Return a fit's name as a sentence has it."""
    return name if name == OWN else f"“{name}”"
