"""Point fits side by side: estimates with standard errors below, as text, HTML and LaTeX."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mfgppl._arguments import positive_int, strict_keywords
from mfgppl.estimation.latex import latex_text
from mfgppl.estimation.point_estimate import PointEstimate

STARS = {0.01: "***", 0.05: "**", 0.1: "*"}


@dataclass(frozen=True, eq=False, repr=False)
class FitTable:
    """Point fits side by side.

    Attributes
    ----------
    estimates : DataFrame, shape (P, M)
        One row per parameter, one column per model; NaN where a model lacks the parameter.
    std_err : DataFrame, shape (P, M)
        Standard errors; NaN where there is none.
    statistics : DataFrame, shape (5, M)
        Log likelihood, AIC, BIC, decisions, trajectories.
    cells : DataFrame
        The same as text, standard errors in brackets below.
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

    def to_html(self) -> str:
        """Return the table as HTML."""
        notes = "".join(f"<p>{_escape_latex(note)}</p>\n" for note in self.notes)
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


@strict_keywords
def compare_fits(
    fits: Mapping[str, PointEstimate],
    *,
    kind: str = "observed",
    groups: str | None = None,
    digits: int = 3,
    stars: bool = False,
) -> FitTable:
    """Lay out point fits side by side.

    Parameters
    ----------
    fits : mapping of str to PointEstimate
        Fits by the heading of their column.
    kind, groups
        Of the standard errors, as in `PointEstimate.cov_params`.
    digits : int
        Decimals.
    stars : bool
        Whether to mark estimates whose two-sided p against zero is below 0.1, 0.05 and 0.01.

    Returns
    -------
    FitTable
        `to_text()`, `to_html()`, `to_latex()`, and the numbers in `estimates`, `std_err` and
        `statistics`.

    Raises
    ------
    TypeError
        If a value is not a point fit.
    ValueError
        If there is no fit, or a panel is counted and `kind` needs its rows.
    """
    if not isinstance(fits, Mapping):
        raise TypeError(
            f"`fits` must be a mapping of headings to point fits; got {type(fits).__name__}."
        )
    if not fits:
        raise ValueError("`fits` is empty; give at least one, as in {'base': fit}.")
    for name, fit in fits.items():
        if not isinstance(fit, PointEstimate):
            raise TypeError(
                f"`fits` must hold point fits; {name!r} is a {type(fit).__name__}. Fit the model "
                "with mle."
            )
    positive_int("digits", digits, least=0)
    summaries = {k: f.summary(kind=kind, groups=groups) for k, f in fits.items()}
    order = list(dict.fromkeys(p for s in summaries.values() for p in s.index))
    columns = {
        word: pd.DataFrame({k: s[word].reindex(order) for k, s in summaries.items()})
        for word in ("estimate", "std_err", "p")
    }
    statistics = pd.DataFrame({k: _statistics(f) for k, f in fits.items()})
    marks = columns["p"].map(_stars) if stars else columns["p"].map(lambda _: "")
    cells = _cells(columns["estimate"], columns["std_err"], marks, statistics, digits)
    return FitTable(
        columns["estimate"],
        columns["std_err"],
        statistics,
        cells,
        _notes(fits, kind, groups, stars),
    )


def _statistics(fit: PointEstimate) -> pd.Series:
    return pd.Series(
        {
            "log likelihood": fit.llf,
            "AIC": fit.aic,
            "BIC": fit.bic,
            "decisions": fit.nobs,
            "trajectories": fit.n_trajectories,
        },
        dtype=float,
    )


def _cells(
    estimates: pd.DataFrame,
    std_err: pd.DataFrame,
    marks: pd.DataFrame,
    statistics: pd.DataFrame,
    digits: int,
) -> pd.DataFrame:
    """Return the table as text, two rows a parameter."""
    rows, index = [], []
    for name in estimates.index:
        values = [_number(v, digits) for v in estimates.loc[name]]
        rows.append([v + m for v, m in zip(values, marks.loc[name], strict=True)])
        present = estimates.loc[name].notna()
        errors = [
            f"({_number(e, digits) or '-'})" if here else ""
            for e, here in zip(std_err.loc[name], present, strict=True)
        ]
        rows.append(errors)
        index += [str(name), ""]
    for name in statistics.index:
        whole = name in ("decisions", "trajectories")
        rows.append([f"{v:.0f}" if whole else _number(v, digits) for v in statistics.loc[name]])
        index.append(str(name))
    return pd.DataFrame(rows, index, estimates.columns)


def _number(value: float, digits: int) -> str:
    """Return a number of so many decimals, of significant digits where these would be zeros."""
    if np.isnan(value):
        return ""
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 10.0**-digits else f"{value:.2g}"


def _stars(p: float) -> str:
    return next((mark for bound, mark in STARS.items() if p < bound), "")


def _notes(
    fits: Mapping[str, PointEstimate], kind: str, groups: str | None, stars: bool
) -> tuple[str, ...]:
    by = {
        "observed": "from the observed information",
        "opg": "from the outer product of the gradients",
        "cluster": f"clustered by {groups or 'agent'}",
    }
    notes = [f"standard errors in brackets, {by[kind]}; (-): the data do not identify"]
    if stars:
        notes.append(", ".join(f"{mark} p < {bound:g}" for bound, mark in STARS.items()))
    kinds = {k: f.kind for k, f in fits.items() if f.kind != "mle"}
    notes += [f"{k}: {v}, not maximum likelihood" for k, v in kinds.items()]
    notes += [f"{k}: NOT converged ({f.reason})" for k, f in fits.items() if not f.converged]
    if len({(f.nobs, f.n_trajectories) for f in fits.values()}) > 1:
        notes.append("the models are fits of different data: their criteria do not compare")
    return tuple(notes)


def _escape_latex(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _latex(cells: pd.DataFrame) -> pd.DataFrame:
    escaped = cells.map(latex_text)
    escaped.index = pd.Index([latex_text(v) for v in cells.index])
    escaped.columns = pd.Index([latex_text(v) for v in cells.columns])
    return escaped
