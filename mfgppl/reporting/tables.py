"""Fits side by side: estimates with their errors below, as text, Markdown, HTML and LaTeX."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arguments import positive_int, strict_keywords
from mfgppl.checks.loo import loo
from mfgppl.estimation.latex import latex_text
from mfgppl.estimation.point_estimate import PointEstimate, clusters_for
from mfgppl.reporting.markdown import markdown_table, markdown_text
from mfgppl.reporting.points_and_draws import (
    Fit,
    Wanted,
    check_fit,
    entries_named,
    summary,
    wanted_entries,
)

STARS = {0.01: "***", 0.05: "**", 0.1: "*"}
FEW = 30  # clusters below which their number is worth a note
COUNTS = ("decisions", "trajectories", "clusters")
STATISTICS = ("log likelihood", "AIC", "BIC", "elpd (loo)", *COUNTS)
PLUGGED = {"empirical": "plug-in", "equilibrium": "coupled", "known": "given"}
OWN_WAY = {
    "cross-fit": "cross-fit",
    "jackknife": "jackknife",
    "nested pseudo-likelihood": "nested",
    "efficient pseudo-likelihood": "efficient",
    "cut": "cut",
}  # of estimators and samplers that treat the flow in their own way


@dataclass(frozen=True, eq=False, repr=False)
class FitTable:
    """Fits side by side.

    Attributes
    ----------
    estimates : DataFrame, shape (P, M)
        One row per parameter, one column per model, posterior means of draws; NaN where a model
        lacks the parameter.
    std_err : DataFrame, shape (P, M)
        Standard errors, posterior standard deviations of draws; NaN where there is none.
    statistics : DataFrame, shape (R, M)
        Log likelihood, AIC and BIC of points, `elpd (loo)` of draws, decisions, trajectories, and
        clusters where errors are clustered; NaN where a model has none.
    cells : DataFrame
        The same as text, errors in brackets below, with the rows of fixed effects and of the
        treatment of the crowd's flow.
    notes : tuple of str
        What stands below the table.
    """

    estimates: pd.DataFrame
    std_err: pd.DataFrame
    statistics: pd.DataFrame
    cells: pd.DataFrame
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """Return the table as text."""
        return "\n".join([self.cells.to_string(), *self.notes])

    def to_markdown(self) -> str:
        """Return the table as Markdown, its notes below."""
        cells = zip(self.cells.index, self.cells.to_numpy(), strict=True)
        rows = [[str(name), *row] for name, row in cells]
        table = markdown_table(list(map(str, self.cells.columns)), rows)
        return "\n".join([*table, "", *(f"{markdown_text(n)}  " for n in self.notes)]) + "\n"

    def to_html(self) -> str:
        """Return the table as HTML."""
        notes = "".join(f"<p>{_escaped(note)}</p>\n" for note in self.notes)
        return f"{self.cells.to_html(border=0)}\n{notes}"

    def to_latex(self) -> str:
        """Return the table as a LaTeX tabular, in the commands of the package booktabs."""
        layout = "l" + "r" * self.cells.shape[1]
        body = _latex(self.cells).to_latex(column_format=layout)
        notes = "".join(f"\\par {latex_text(note)}\n" for note in self.notes)
        return body + notes

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return self.to_html()


class _Look(NamedTuple):
    """How a table is to look: its errors, decimals, stars, headings and folded effects."""

    kind: str
    groups: str | None
    digits: int
    stars: bool
    shown: dict[str, list[str]]
    effects: dict[str, list[str]]


@strict_keywords
def compare_fits(
    fits: Mapping[str, Fit],
    *,
    kind: str = "observed",
    groups: str | None = None,
    parameters: Wanted | None = None,
    fixed_effects: Mapping[str, str | Sequence[str]] | None = None,
    digits: int = 3,
    stars: bool = False,
) -> FitTable:
    """Lay out fits side by side.

    Parameters
    ----------
    fits : mapping of str to PointEstimate or DataTree
        Fits by the heading of their column, points and draws.
    kind, groups
        Of the points' standard errors, as in `PointEstimate.cov_params`.
    parameters : list of str, or mapping of str to list, optional
        Which parameters to show and in which order, in groups by heading, as in
        `mfgppl.results.summary`; by default all, in the order of the fits.
    fixed_effects : mapping of str to str or list, optional
        Parameters that one row stands for, as in {"months": "month"}: it says "yes" of the
        fits that have them, "no" of others.
    digits : int
        Decimals.
    stars : bool
        Whether to mark estimates whose two-sided p against zero is below 0.1, 0.05 and 0.01; of
        points alone.

    Returns
    -------
    FitTable
        `to_text()`, `to_markdown()`, `to_html()`, `to_latex()`, and the numbers in `estimates`,
        `std_err` and `statistics`.

    Raises
    ------
    TypeError
        If a value is neither a point fit nor draws.
    ValueError
        If there is no fit, a name is no parameter of a fit, or a panel is counted and `kind` needs
        its rows.
    """
    if not isinstance(fits, Mapping):
        raise TypeError(f"`fits` must be a mapping of headings to fits; got {type(fits).__name__}.")
    if not fits:
        raise ValueError("`fits` is empty; give at least one, as in {'base': fit}.")
    clusters_for(kind, groups)
    taken = {str(k): check_fit(f"fits[{k!r}]", fit) for k, fit in fits.items()}
    positive_int("digits", digits, least=0)
    summaries = {k: _summary(fit, kind, groups) for k, fit in taken.items()}
    order = list(dict.fromkeys(p for s in summaries.values() for p in s.index))
    effects = _effects(fixed_effects, order)
    folded = {entry for entries in effects.values() for entry in entries}
    shown = wanted_entries([p for p in order if p not in folded], order)
    if parameters is not None:
        shown = wanted_entries(parameters, order)
    look = _Look(kind, groups, digits, stars, shown, effects)
    columns = {
        word: pd.DataFrame({k: s[word].reindex(order) for k, s in summaries.items()})
        for word in ("estimate", "error", "p")
    }
    statistics = pd.DataFrame({k: _statistics(fit, look) for k, fit in taken.items()})
    statistics = statistics.reindex(STATISTICS).dropna(how="all")
    cells = _cells(columns, _ways(taken), statistics, look)
    return FitTable(
        columns["estimate"], columns["error"], statistics, cells, _notes(taken, look)
    )  # fmt: skip


def way_of(fit: Fit) -> str:
    """Name how a fit treats the crowd's flow."""
    if isinstance(fit, PointEstimate):
        return OWN_WAY.get(fit.kind, PLUGGED[fit.mean_field])
    plugged = PLUGGED.get(str(fit.attrs.get("mean_field")), "")
    return OWN_WAY.get(str(fit.attrs.get("sampler")), plugged)


def _summary(fit: Fit, kind: str, groups: str | None) -> pd.DataFrame:
    if isinstance(fit, PointEstimate):
        return summary(fit, kind=kind, groups=groups)
    return summary(fit).assign(p=np.nan)


def _effects(given: Any, order: list[str]) -> dict[str, list[str]]:
    """Return the parameters that a row of a fixed effect stands for, by the row's name."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(
            "`fixed_effects` must be a mapping of headings to parameters; got "
            f"{type(given).__name__}."
        )
    return {str(k): entries_named(v, order, "fixed_effects") for k, v in given.items()}


def _statistics(fit: Fit, look: _Look) -> pd.Series:
    if isinstance(fit, PointEstimate):
        clustered = {"clusters": fit.n_clusters(look.groups)} if look.kind == "cluster" else {}
        numbers = {"log likelihood": fit.llf, "AIC": fit.aic, "BIC": fit.bic}
        sizes = {"decisions": fit.nobs, "trajectories": fit.n_trajectories, **clustered}
        return pd.Series(numbers | sizes, dtype=float)
    audit = json.loads(fit.attrs.get("audit", "{}"))
    sizes = {k: audit.get(k, np.nan) for k in ("decisions", "trajectories")}
    return pd.Series({"elpd (loo)": _elpd(fit), **sizes}, dtype=float)


def _elpd(fit: xr.DataTree) -> float:
    """Return the leave-one-out score, NaN where the draws do not have it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `loo` itself says which scores not to rely on
        try:
            return float(loo(fit).elpd)
        except ValueError:  # no group log_likelihood, or too few draws
            return np.nan


def _ways(fits: Mapping[str, Fit]) -> list[str]:
    return [way_of(fit) for fit in fits.values()]


def _cells(
    columns: Mapping[str, pd.DataFrame], ways: list[str], statistics: pd.DataFrame, look: _Look
) -> pd.DataFrame:
    """Return the table as text, two rows a parameter, a row of its own for each heading."""
    rows: list[tuple[str, list[str]]] = []
    for heading, entries in look.shown.items():
        rows += [(heading, [""] * len(ways))] if heading else []
        rows += [row for entry in entries for row in _of_parameter(columns, entry, look)]
    for heading, entries in look.effects.items():
        there = columns["estimate"].loc[entries].notna().any()
        rows.append((heading, ["yes" if here else "no" for here in there]))
    rows.append(("crowd's flow", ways))
    for name, values in statistics.iterrows():
        digits = 0 if name in COUNTS else look.digits
        rows.append((str(name), [_number(v, digits, whole=name in COUNTS) for v in values]))
    headings = columns["estimate"].columns
    return pd.DataFrame([cells for _, cells in rows], [name for name, _ in rows], headings)


def _of_parameter(
    columns: Mapping[str, pd.DataFrame], name: str, look: _Look
) -> list[tuple[str, list[str]]]:
    estimates, errors, p = (columns[word].loc[name] for word in ("estimate", "error", "p"))
    marks = p.map(_stars if look.stars else lambda _: "")
    values = [_number(v, look.digits) + m for v, m in zip(estimates, marks, strict=True)]
    below = [
        f"({_number(e, look.digits) or '-'})" if here else ""
        for e, here in zip(errors, estimates.notna(), strict=True)
    ]
    return [(name, values), ("", below)]


def _number(value: float, digits: int, *, whole: bool = False) -> str:
    """Return a number of so many decimals, of significant digits where these would be zeros."""
    if np.isnan(value):
        return ""
    fixed = whole or value == 0 or abs(value) >= 10.0**-digits
    return f"{value:.{digits}f}" if fixed else f"{value:.2g}"


def _stars(p: float) -> str:
    return next((mark for bound, mark in STARS.items() if p < bound), "")


def _notes(fits: Mapping[str, Fit], look: _Look) -> tuple[str, ...]:
    points = {k: fit for k, fit in fits.items() if isinstance(fit, PointEstimate)}
    drawn = {k: fit for k, fit in fits.items() if not isinstance(fit, PointEstimate)}
    notes = []
    if points:
        notes.append(f"standard errors in brackets, {_basis(look)}; (-): the data do not identify")
    if drawn:
        which = "" if not points else f"{', '.join(drawn)}: "
        notes.append(f"{which}posterior means, standard deviations in brackets")
    if look.stars:
        notes.append(", ".join(f"{mark} p < {bound:g}" for bound, mark in STARS.items()))
    kinds = {k: f.kind for k, f in points.items() if f.kind != "mle"}
    notes += [f"{k}: {v}, not maximum likelihood" for k, v in kinds.items()]
    notes += [f"{k}: NOT converged ({f.reason})" for k, f in points.items() if not f.converged]
    notes += [
        f"{k}: {message}" for k, f in drawn.items() for message in f.attrs.get("warnings", ())
    ]
    notes += few_clusters(points, look.groups) if look.kind == "cluster" else []
    if len({sizes_of(fit) for fit in fits.values()}) > 1:
        notes.append("the models are fits of different data: their criteria do not compare")
    return tuple(notes)


def _basis(look: _Look) -> str:
    return {
        "observed": "from the observed information",
        "opg": "from the outer product of the gradients",
        "cluster": f"clustered by {look.groups or 'agent'}",
    }[look.kind]


def few_clusters(fits: Mapping[str, PointEstimate], groups: str | None) -> list[str]:
    """Return what to know of errors from few clusters, a line for each number of them."""
    numbers = sorted({n for fit in fits.values() if (n := fit.n_clusters(groups)) < FEW})
    return [
        f"{n} clusters, fewer than {FEW}: intervals and p are of t with {n - 1} degrees, still too "
        "small where clusters are few or unequal; jackknife(by=) leaves out one cluster at a time"
        for n in numbers
    ]


def sizes_of(fit: Fit) -> tuple[Any, ...]:
    """Return how many decisions and trajectories a fit is of."""
    if isinstance(fit, PointEstimate):
        return fit.nobs, fit.n_trajectories
    audit = json.loads(fit.attrs.get("audit", "{}"))
    return audit.get("decisions"), audit.get("trajectories")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _latex(cells: pd.DataFrame) -> pd.DataFrame:
    escaped = cells.map(latex_text)
    escaped.index = pd.Index([latex_text(v) for v in cells.index])
    escaped.columns = pd.Index([latex_text(v) for v in cells.columns])
    return escaped
