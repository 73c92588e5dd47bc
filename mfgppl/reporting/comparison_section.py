"""What a report says of a fit beside fits of other models."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl.checks.loo import loo
from mfgppl.checks.model_comparison import compare_models
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.hypotheses.comparable import check_same_data
from mfgppl.reporting.subject import method_of_point
from mfgppl.reporting.tables import compare_fits

OWN = "this fit"
FEWEST_DRAWS = 100  # below which the weights of leaving out have no tail to judge
Fit = xr.DataTree | PointEstimate
Compared = tuple[str, dict[str, Any], pd.DataFrame | None, tuple[str, ...]]
BY_TRAJECTORY = "elpd: expected log predictive density of a trajectory left out, summed, nats"


def compared(fit: Fit, against: Mapping[str, Fit]) -> Compared | None:
    """Return a sentence, its numbers, a table and small print; None where nothing can be said."""
    if isinstance(fit, PointEstimate):
        points = {k: v for k, v in against.items() if isinstance(v, PointEstimate)}
        return _by_criteria({OWN: fit} | points) if points else None
    enough = fit["posterior"].sizes["chain"] * fit["posterior"].sizes["draw"] >= FEWEST_DRAWS
    if "log_likelihood" not in fit.children or not enough:
        return None
    if against:
        return _by_prediction({OWN: fit, **against})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = loo(fit)
    bad = int((~(np.asarray(score.pareto_k) <= score.good_k)).sum())
    what = "agents" if score.elpd_i.dims == ("agent",) else "trajectories"
    gist = (
        f"Left out one by one, the {what} have an expected log predictive density of "
        f"{score.elpd:.1f} nats (standard error {score.se:.1f}), to compare with other models of "
        "the same panel."
    )
    numbers = {
        "elpd": float(score.elpd),
        "standard error": float(score.se),
        "effective parameters": float(score.p),
        f"{what} with an unreliable estimate": f"{bad} of {score.n_data_points}",
    }
    return gist, numbers, None, ()


def check_comparable(fit: Fit, other: Fit, name: str) -> None:
    """Raise a `ValueError` unless another fit can stand beside a fit."""
    if name == OWN:
        raise ValueError(f"`against` cannot call a fit {OWN!r}: give it another name.")
    if isinstance(fit, PointEstimate) or isinstance(other, PointEstimate):
        if not (isinstance(fit, PointEstimate) and isinstance(other, PointEstimate)):
            raise ValueError(
                f"`against` must hold fits of the same kind; `fit` is {_what(fit)} and {name!r} is "
                f"{_what(other)}. Fit both with mle, or draw from both with nuts."
            )
        check_same_data(fit, other, f"`fit` and {name!r}")
        return
    seen, there = (tree["observed_data"].dataset["action_counts"].values for tree in (fit, other))
    if seen.shape != there.shape or not np.array_equal(seen, there):
        raise ValueError(f"`against` must hold fits of the same panel; {name!r} is of another.")
    for which, tree in (("`fit`", fit), (repr(name), other)):
        if "log_likelihood" not in tree.children:
            raise ValueError(
                f"{which} lacks the group log_likelihood, by which models are compared; draw again "
                "with log_likelihood=True."
            )


def _by_prediction(fits: Mapping[str, Any]) -> Compared:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = compare_models(fits)
    best, second = table.index[0], table.index[1]
    ahead, error = float(-table["elpd_diff"].iloc[1]), float(table["dse"].iloc[1])
    ahead = abs(ahead)
    gist = f"{_label(best)} predicts left-out trajectories best, {ahead:.1f} nats (standard error "
    gist += f"{error:.1f}) ahead of {_label(second)}"
    gist += "." if ahead > 2 * error else ", which is within chance."
    numbers = {"best": best, "ahead by": ahead, "standard error": error}
    shown = table[["rank", "elpd", "se", "elpd_diff", "dse", "weight"]]
    return gist[0].upper() + gist[1:], numbers, shown, (BY_TRAJECTORY, "weight: of stacking")


def _by_criteria(fits: Mapping[str, PointEstimate]) -> Compared:
    table = compare_fits(fits)
    numbers: dict[str, Any] = {
        "estimates": {k: table.estimates[k].to_dict() for k in fits},
        "standard errors": {k: table.std_err[k].to_dict() for k in fits},
        "statistics": {k: table.statistics[k].to_dict() for k in fits},
    }
    unfit = [k for k, fit in fits.items() if fit.kind != "mle" or not fit.converged]
    if unfit:
        fit = fits[unfit[0]]
        what = "has not converged" if fit.kind == "mle" else f"was made by {method_of_point(fit)}"
        gist = "No criterion compares these fits: AIC is of maxima of the likelihood, and "
        gist += f"{_label(unfit[0])} {what}. Fit each model with mfg.mle to compare them."
        return gist, numbers, table.cells, table.notes
    criterion = pd.Series({name: fit.aic for name, fit in fits.items()}).sort_values()
    gap = float(criterion.iloc[1] - criterion.iloc[0])
    best, second = criterion.index[:2]
    gist = f"{_label(best)} has the lower AIC, by {gap:.1f} against {_label(second)}"
    gist += "." if gap > 2 else ", which says little."
    return gist[0].upper() + gist[1:], numbers, table.cells, table.notes


def _what(fit: Fit) -> str:
    """Say of what kind a fit is."""
    if isinstance(fit, PointEstimate):
        return f"a point estimate by {method_of_point(fit)}"
    return "a tree of draws"


def _label(name: str) -> str:
    """Return a fit's name as a sentence has it."""
    return name if name == OWN else f"“{name}”"
