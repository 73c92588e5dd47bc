"""Effects of periods as tables show them: by period, not by the contrasts that are sampled."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtr, stdtr

from mfgppl.density.draws import parameters_of
from mfgppl.density.of_model import density_of
from mfgppl.estimation.delta_method import variances_of
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.groups import SAMPLES
from mfgppl.reward.period_effects import Entries, effects_of_contrasts
from mfgppl.reward.site_values import Site, entry_labels


def sites_of_periods(model: TrajectoryModel) -> dict[str, tuple[Entries, np.ndarray]]:
    """Return the axes of effects by site of contrasts, and the weights of contrasts in them."""
    program = density_of(model).program
    found = {s.name: effects_of_contrasts(s.name, s.entries, model.game) for s in program.sites}
    return {name: effects for name, effects in found.items() if effects is not None}


def names_of_periods(model: TrajectoryModel) -> list[str]:
    """Return what effects of periods are called in tables: "years[1973]"."""
    sites = sites_of_periods(model)
    return [f"{name}[{label}]" for name, (axes, _) in sites.items() for label in entry_labels(axes)]


def check_names_of(model: TrajectoryModel, fit: PointEstimate | xr.DataTree) -> None:
    """Raise a `ValueError` unless a model has the parameters of a fit."""
    program = density_of(model).program
    if isinstance(fit, PointEstimate):
        own, theirs = program.entry_names(), list(fit.params.index)
    else:
        own, theirs = [s.name for s in program.sites], list(fit.attrs.get("parameters", ()))
    if own != theirs:
        raise ValueError(
            f"`model` must be the fitted one; its parameters are {own}, the fit's {theirs}."
        )


def point_by_period(
    fit: PointEstimate, model: TrajectoryModel, ci_prob: float, **errors: Any
) -> pd.DataFrame:
    """Return a point's table, effects of periods by the delta method in place of contrasts."""
    table = pd.DataFrame(fit.summary(ci_prob, **errors))
    effects = sites_of_periods(model)
    if not effects:
        return table
    parts, names = [], list(fit.params.index)
    for site in density_of(model).program.sites:
        own = _entries_of(site, names)
        if site.name not in effects:
            parts.append(table.loc[own])
            continue
        axes, weights = effects[site.name]
        slope = np.zeros((len(weights), len(names)))
        slope[:, [names.index(name) for name in own]] = weights
        labels = [f"{site.name}[{label}]" for label in entry_labels(axes)]
        parts.append(_rows(fit, slope, labels, table.columns, ci_prob, errors))
    return pd.concat(parts)


def draws_by_period(draws: xr.DataTree, model: TrajectoryModel) -> xr.DataTree:
    """Return draws of the parameters, effects of periods in place of contrasts."""
    effects, given = sites_of_periods(model), draws["posterior"].to_dataset()
    if not effects:
        return draws
    values = parameters_of(density_of(model).program, draws)
    shown = {}
    for name in draws.attrs["parameters"]:
        shown[name] = given[name]
        if name in effects:
            axes, weights = effects[name]
            flat = values[name].reshape(*values[name].shape[:2], -1) @ weights.T
            sizes = [len(labels) for _, labels in axes]
            coords = {axis: list(labels) for axis, labels in axes}
            shown[name] = xr.DataArray(
                flat.reshape(*flat.shape[:2], *sizes), coords, [*SAMPLES, *coords]
            )
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(shown)})
    tree.attrs = dict(draws.attrs)
    return tree


def _entries_of(site: Site, names: list[str]) -> list[str]:
    return [name for name in names if name == site.name or name.startswith(f"{site.name}[")]


def _rows(
    fit: PointEstimate, slope: np.ndarray, labels: list[str], columns: Any, ci_prob: float,
    errors: dict[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """Return the rows of a summary for linear functions of the parameters."""
    kind, groups = errors.get("kind", "observed"), errors.get("groups")
    variance, _ = variances_of(fit, slope, "an effect", kind=kind, groups=groups)
    estimate = pd.Series(slope @ fit.params.to_numpy(dtype=float), labels)
    error = pd.Series(np.sqrt(variance), labels)
    z, degrees = estimate / error, fit.degrees(kind, groups=groups)
    half = fit.quantile(0.5 + ci_prob / 2, kind, groups=groups) * error
    chance = ndtr(-z.abs()) if np.isinf(degrees) else stdtr(degrees, -z.abs())
    rows = {"estimate": estimate, "std_err": error, "z": z}
    rows["p"] = pd.Series(2 * np.asarray(chance), labels)
    rows |= {columns[-2]: estimate - half, columns[-1]: estimate + half}
    return pd.DataFrame(rows, labels).reindex(columns=columns)
