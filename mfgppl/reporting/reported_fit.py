"""The fit that a report is about: whether it is one, and what was noted of it."""

import json
import math
from collections.abc import Mapping
from typing import Any

import xarray as xr

from mfgppl._arguments import is_a, one_of
from mfgppl.data.trajectories import with_rows
from mfgppl.density.draws import is_tree, received
from mfgppl.density.of_model import density_of
from mfgppl.estimation.parts import clusters_of
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.result_tree import record_of

NEEDED = (
    "audit", "data_hash", "discount", "game_hash", "likelihood", "mean_field", "parameters",
    "priors", "reward_source", "sampler", "start", "temperature",
)  # fmt: skip
AS_JSON = ("agents", "audit", "priors")
Fit = xr.DataTree | PointEstimate


def checked_fit(name: str, fit: Any) -> Fit:
    """Return a fit as the report reads it, else raise."""
    if isinstance(fit, PointEstimate):
        return fit
    if not is_tree(fit):
        raise TypeError(
            f"`{name}` must be a DataTree of nuts, laplace or vi, or a PointEstimate; "
            f"got {type(fit).__name__}.{_inner(fit)}"
        )
    library = fit.attrs.get("inference_library")
    if library is None and "posterior" in _groups(fit):
        raise ValueError(
            f"`{name}` lacks the attribute 'inference_library', as a tree put together from groups "
            "does: give it those of the draws that it is made of, merged.attrs = draws.attrs."
        )
    if library != "mfgppl" or "posterior" not in _groups(fit):
        came = f"; its library is {library!r}" if library else ""
        raise ValueError(f"`{name}` must be a result of mfgppl with the group posterior{came}.")
    return received(fit, name)


def _inner(given: Any) -> str:
    """Say which part of a record is the fit, where one is."""
    is_record = isinstance(getattr(given, "estimate", None), PointEstimate)
    return " Give its `estimate`." if is_record else ""


def _groups(fit: Any) -> list[str]:
    return list(fit.children) if isinstance(fit, xr.DataTree) else list(fit.groups())


def check_groups(groups: str, fit: Fit, model: TrajectoryModel | None) -> None:
    """Raise unless the standard errors on the page can be clustered so."""
    if isinstance(fit, PointEstimate):
        fit.cov_params("cluster", groups=groups)
    elif model is None:
        raise ValueError("`groups` clusters the estimates beside draws: give `model` as well.")
    else:
        one_of("groups", groups, list(clusters_of(with_rows(model.panel, "report(groups=)"))))


def noted_of(fit: Fit, model: TrajectoryModel | None) -> dict[str, Any]:
    """Return the attributes of a fit; those of a point estimate come from its model."""
    if model is not None:
        is_a("model", model, TrajectoryModel)
    if isinstance(fit, PointEstimate):
        if model is None:
            raise ValueError("a point estimate does not hold its panel: give `model` as well.")
        density = density_of(model)
        if list(fit.params.index) != density.program.entry_names():
            raise ValueError(
                f"`model` must be the fitted one; its parameters are "
                f"{density.program.entry_names()}, the fit's {list(fit.params.index)}."
            )
        there = density.evaluator(prior=0.0, jacobian=0.0)(fit.theta)[0]
        if fit.nobs != model.panel.n_decisions:
            raise ValueError(
                f"`model` must be the fitted one; its panel has {model.panel.n_decisions} "
                f"decisions, the fit's {fit.nobs}."
            )
        if not math.isclose(there, fit.llf, rel_tol=1e-6):
            raise ValueError(
                f"`model` must be the fitted one; at the estimate its log likelihood is "
                f"{there:.3f}, the fit's {fit.llf:.3f}."
            )
        return record_of(model, density)
    record = {str(k): v for k, v in fit.attrs.items()}
    _check_record(record)
    if model is not None:
        _check_model(model, record)
    return record


def _check_record(record: Mapping[str, Any]) -> None:
    """Raise a `ValueError` unless a result says of its fit what the page says."""
    missing = [name for name in NEEDED if name not in record]
    if missing:
        raise ValueError(
            f"`fit` lacks the attribute {missing[0]!r}, as results of earlier versions or of other "
            "programs may: draw it again."
        )
    for name in AS_JSON:
        try:
            sound = isinstance(json.loads(record.get(name, "{}")), dict)
        except (ValueError, TypeError):
            sound = False
        if not sound:
            raise ValueError(f"`fit` has the attribute {name!r} damaged: {record[name]!r:.40}.")


def _check_model(model: TrajectoryModel, record: Mapping[str, Any]) -> None:
    """Raise a `ValueError` unless a model is that of a record."""
    prints, density = model.fingerprint(), density_of(model)
    for what, same in (
        ("panel or flow", prints["data"] == record["data_hash"]),
        ("game", prints["game"] == record["game_hash"]),
        ("set of priors", density.program.priors() == json.loads(record["priors"])),
        ("likelihood", model.likelihood == record["likelihood"]),
    ):
        if not same:
            raise ValueError(f"`model` must be the fitted one; it has another {what}.")
