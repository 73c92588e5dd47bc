"""Estimates of points and of draws in one layout, by groups of parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import xarray as xr

from mfgppl._arguments import is_a, real_between, strict_keywords
from mfgppl.density.draws import is_tree, received
from mfgppl.estimation.latex import Table
from mfgppl.estimation.point_estimate import PointEstimate, clusters_for
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reporting.effects_by_period import check_names_of, draws_by_period, point_by_period

Fit = PointEstimate | xr.DataTree
Wanted = Sequence[str] | Mapping[str, Sequence[str]]


@strict_keywords
def summary(
    fit: Fit,
    *,
    parameters: Wanted | None = None,
    ci_prob: float = 0.9,
    kind: str = "observed",
    groups: str | None = None,
    model: TrajectoryModel | None = None,
) -> pd.DataFrame:
    """Return the estimates of a fit, points and draws alike, one row per parameter.

    Parameters
    ----------
    fit : PointEstimate or DataTree
        A fit.
    parameters : list of str, or mapping of str to list, optional
        Which parameters to show, in this order: a name, or a site for all its entries. A mapping
        gives groups of them headings, as in {"costs": ["cut", "raise"]}. By default all.
    ci_prob : float in (0, 1)
        Mass of the intervals: Wald of a point, equal-tailed of draws.
    kind, groups
        Of a point's standard errors, as in `PointEstimate.cov_params`.
    model : TrajectoryModel, optional
        The fitted model: effects of periods are given by period, in place of the contrasts that
        `mfg.period_effects` samples.

    Returns
    -------
    DataFrame
        `estimate`, the posterior mean of draws; `error`, the standard error or the posterior
        standard deviation; `lower` and `upper` with the mass; then `z`, `p` and `flow_bias` of a
        point, `ess_bulk`, `ess_tail` and `r_hat` of draws. Rows have a level for the heading where
        `parameters` is a mapping.

    Raises
    ------
    ValueError
        If a parameter is not the fit's, or draws are asked for a kind of standard errors.
    """
    real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
    if model is not None:
        check_names_of(is_a("model", model, TrajectoryModel), fit)
    if isinstance(fit, PointEstimate):
        table = _of_point(fit, model, ci_prob, kind, groups)
    else:
        _refuse_kind(kind, groups)
        draws = received(fit, "fit")
        table = _of_draws(draws if model is None else draws_by_period(draws, model), ci_prob)
    if parameters is None:
        return Table(table)
    chosen = wanted_entries(parameters, list(table.index))
    shown = table.loc[[entry for entries in chosen.values() for entry in entries]]
    if isinstance(parameters, Mapping):
        rows = [(heading, entry) for heading, entries in chosen.items() for entry in entries]
        shown.index = pd.MultiIndex.from_tuples(rows, names=["group", "parameter"])
    return Table(shown)


def check_fit(argument: str, fit: Any) -> Fit:
    """Return a point fit or a tree of draws, else raise a `TypeError`."""
    if isinstance(fit, PointEstimate):
        return fit
    if is_tree(fit):
        return received(fit, argument)
    raise TypeError(
        f"`{argument}` must be a point fit or draws; got {type(fit).__name__}. Fit the model with "
        "mle, or nuts."
    )


def wanted_entries(parameters: Any, entries: Sequence[str]) -> dict[str, list[str]]:
    """Return which entries are wanted by heading, one heading "" for a list; else raise."""
    given = parameters if isinstance(parameters, Mapping) else {"": parameters}
    return {str(k): entries_named(v, entries, "parameters") for k, v in given.items()}


def entries_named(names: Any, entries: Sequence[str], argument: str) -> list[str]:
    """Return the entries that names, or sites, stand for, else raise."""
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, Sequence) or not all(isinstance(name, str) for name in listed):
        raise TypeError(f"`{argument}` must hold names of parameters; got {names!r}.")
    found = []
    for name in listed:
        of_name = [e for e in entries if e == name or e.startswith(f"{name}[")]
        if not of_name:
            raise ValueError(
                f"`{argument}` has {name!r}, which no fit has; they have {list(entries)}."
            )
        found += of_name
    return found


def arviz_summary(fit: xr.DataTree, ci_prob: float) -> pd.DataFrame:
    """Return ArviZ's summary of the parameters, not of what is computed from them."""
    import arviz_stats  # slow to import

    names = list(fit.attrs["parameters"])
    return arviz_stats.summary(
        fit, var_names=names, ci_prob=ci_prob, ci_kind="eti", round_to="none"
    )


def bounds_of(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the bounds of ArviZ's summary."""
    bounds = [c for c in table.columns if str(c).endswith(("_lb", "_ub"))]
    low, high = (pd.to_numeric(table[c]) for c in bounds[:2])
    return low, high


def _refuse_kind(kind: str, groups: str | None) -> None:
    clusters_for(kind, groups)
    if kind != "observed":
        raise ValueError(
            f"`kind` {kind!r} is of the standard errors of point fits; draws have their posterior "
            "standard deviation."
        )


def _of_point(
    fit: PointEstimate,
    model: TrajectoryModel | None,
    ci_prob: float,
    kind: str,
    groups: str | None,
) -> pd.DataFrame:
    if model is None:
        table = pd.DataFrame(fit.summary(ci_prob, kind=kind, groups=groups))
    else:
        table = point_by_period(fit, model, ci_prob, kind=kind, groups=groups)
    table = table.rename(columns={"std_err": "error"})
    last = [c for c in ("z", "p", "flow_bias") if c in table]
    return table[["estimate", "error", *table.columns[-2:], *last]]


def _of_draws(fit: xr.DataTree, ci_prob: float) -> pd.DataFrame:
    found, mass = arviz_summary(fit, ci_prob), f"{100 * ci_prob:g}%"
    low, high = bounds_of(found)
    columns = {"estimate": found["mean"], "error": found["sd"], f"lower {mass}": low}
    columns |= {f"upper {mass}": high}
    columns |= {c: found[c] for c in ("ess_bulk", "ess_tail", "r_hat") if c in found}
    table = pd.DataFrame({k: pd.to_numeric(v) for k, v in columns.items()}, found.index)
    return table.dropna(axis=1, how="all")  # independent draws have no R-hat
