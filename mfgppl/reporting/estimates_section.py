"""The section of a report on the estimates: what agents want, and how surely."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mfgppl.checks.prior_conflict import likelihood_maximum
from mfgppl.density.of_model import density_of
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.plots.estimates import LIKELIHOOD, entries_of, forest_drawing, pairs_drawing
from mfgppl.plots.predictions import Drawing
from mfgppl.reporting.crowd_terms import crowd_sentences
from mfgppl.reporting.effects_by_period import draws_by_period, names_of_periods, point_by_period
from mfgppl.reporting.effects_section import by_treatment
from mfgppl.reporting.points_and_draws import arviz_summary, bounds_of
from mfgppl.reporting.subject import Section, Subject, as_floats, count_of, enumeration
from mfgppl.reporting.tables import few_clusters

MOST_BESIDE = 40  # parameters up to which draws have their maximum likelihood estimates beside
OWN_ERRORS = {"jackknife": "by the jackknife"}  # of estimates that carry their own
SHORT = ["estimate", "error", "lower", "upper"]
OF_PERIODS = (
    "Effects of periods sum to zero over time. The program samples contrasts of them (the mean of "
    "the periods before against one), which mfg.results.summary(fit) lists."
)


class _Shown(NamedTuple):
    """Estimates as the section shows them.

    Attributes
    ----------
    table : DataFrame
        All numbers.
    rows : DataFrame, shape (P, 4)
        `SHORT` of them.
    kind : str
        Of the intervals.
    error : str
        What the errors are called.
    notes : tuple of str
        Small print.
    beside : DataFrame or None
        Maximum likelihood estimates beside draws.
    further : tuple of Drawing
        Figures that are folded.
    """

    table: pd.DataFrame
    rows: pd.DataFrame
    kind: str
    error: str
    notes: tuple[str, ...]
    beside: pd.DataFrame | None
    further: tuple[Drawing, ...]


def estimates(subject: Subject) -> Section:
    """What agents want."""
    shown = _of_point(subject) if isinstance(subject.fit, PointEstimate) else _of_draws(subject)
    of_periods = [] if subject.model is None else names_of_periods(subject.model)
    rows, kind, prob = shown.rows, shown.kind, f"{100 * subject.ci_prob:g}%"
    at = None if shown.beside is None else shown.beside["estimate"]
    short = rows.rename(columns={"error": shown.error, "lower": f"from ({prob})", "upper": "to"})
    if shown.beside is not None:
        short[LIKELIHOOD] = shown.beside["estimate"].reindex(short.index)
        if subject.groups is not None:
            errors = shown.beside["std_err"].reindex(short.index)
            short[f"its error, clustered by {subject.groups}"] = errors
    bounds = {name: as_floats(rows[name].to_dict()) for name in ("lower", "upper")}
    interval: dict[str, Any] = {"ci_prob": subject.ci_prob, "kind": kind}
    lead = crowd_sentences(subject, rows)
    return Section(
        "Estimates",
        _gist(rows, of_periods, f"{kind} {prob}"),
        None,
        {"interval": interval | bounds},
        shown.table,
        forest_drawing(rows, subject.ci_prob, kind, at),
        shown.notes + (OF_PERIODS,) * bool(of_periods),
        by_treatment(subject),
        short,
        shown.further,
        lead=lead,
    )


def _gist(rows: pd.DataFrame, of_periods: list[str], which: str) -> str:
    """Say how many intervals exclude zero, and which signs are open."""
    signed = (rows["lower"] > 0) | (rows["upper"] < 0)
    known, periods = rows["lower"].notna(), rows.index.isin(of_periods)
    own = ~periods
    one = own.sum() == 1
    gist = (
        f"The {which} {'interval' if one else 'intervals'} of {(signed & own).sum()} of "
        f"{count_of(int(own.sum()), 'parameter')} {'excludes' if one else 'exclude'} zero"
    )
    if periods.any():
        gist += f", and of {(signed & periods).sum()} of {periods.sum()} effects of periods"
    open_, without = rows.index[~signed & known & own], rows.index[~known & own]
    if len(open_):
        gist += f"; the sign of {enumeration(open_)} is open"
    if len(without):
        gist += f"; {enumeration(without)} {'has' if len(without) == 1 else 'have'} none"
    return gist + "."


def _of_point(subject: Subject) -> _Shown:
    fit, prob = subject.fit, f"{100 * subject.ci_prob:g}%"
    assert isinstance(fit, PointEstimate)
    assert subject.model is not None  # which a point needs
    table = point_by_period(fit, subject.model, subject.ci_prob, **subject.errors)
    degrees = fit.degrees(**subject.errors)
    kind = "t" if np.isfinite(degrees) else "Wald"
    rows = table.iloc[:, [0, 1, -2, -1]].set_axis(SHORT, axis=1)
    of_degrees = f" of {degrees:.0f} degrees of freedom" if np.isfinite(degrees) else ""
    few = [] if subject.groups is None else few_clusters({"": fit}, subject.groups)
    notes = (
        f"{prob} {kind} intervals{of_degrees}; standard errors {_basis(subject, fit)}, none where "
        "the data do not identify.",
        *few,
    )
    return _Shown(table, rows, kind, "std. error", notes, None, ())


def _of_draws(subject: Subject) -> _Shown:
    draws, model = subject.draws, subject.model
    assert draws is not None
    shown = draws if model is None else draws_by_period(draws, model)
    table = arviz_summary(shown, subject.ci_prob)
    columns = [table["mean"], table["sd"], *bounds_of(table)]
    rows = pd.concat(columns, axis=1).set_axis(SHORT, axis=1)
    notes = (
        "Of the program's parameters: posterior mean, standard deviation and equal-tailed "
        f"{100 * subject.ci_prob:g}% intervals; effective sample sizes, R-hat and Monte Carlo "
        "errors.",
    )
    return _Shown(
        table, rows, "equal-tailed", "std. deviation", notes, _beside(subject),
        pairs_drawing(entries_of(draws)),
    )  # fmt: skip


def _basis(subject: Subject, fit: PointEstimate) -> str:
    if subject.groups is None:
        return OWN_ERRORS.get(fit.kind, "from the observed information")
    return f"clustered by {subject.groups}"


def _beside(subject: Subject) -> pd.DataFrame | None:
    """Return maximum likelihood estimates to put beside draws, where they are found quickly."""
    model = subject.model
    if model is None or model.coupled or model.nodes is not None:
        return None
    if len(density_of(model).program.entry_names()) > MOST_BESIDE:
        return None
    found = likelihood_maximum(model)
    if found is None:
        return None
    table = point_by_period(found, model, subject.ci_prob)
    estimate = table["estimate"].where(table["std_err"].notna())
    errors = point_by_period(found, model, subject.ci_prob, **subject.errors)["std_err"]
    return pd.DataFrame({"estimate": estimate, "std_err": errors})
