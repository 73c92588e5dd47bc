"""The sections of a report: each a verdict in plain words and the numbers behind it."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl.checks.distance_from_equilibrium import observed_exploitability
from mfgppl.checks.predictive import PredictiveCheck, predictive_check
from mfgppl.checks.prior_conflict import likelihood_maximum
from mfgppl.checks.prior_contraction import contraction
from mfgppl.density.curvature import describe_direction
from mfgppl.density.draws import flat_draws
from mfgppl.density.of_model import density_of
from mfgppl.design.identification import Identification, identify
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.flows.side_by_side import ASSUMES
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.plots import checks as check_figures
from mfgppl.plots import fits as figures
from mfgppl.plots.fits import Drawing
from mfgppl.plots.parameters import LIKELIHOOD, entries_of, forest_drawing, pairs_drawing
from mfgppl.plots.sampler import sampler_drawings
from mfgppl.plots.treatments_of_flows import plot_treatments
from mfgppl.posterior.groups import SAMPLES
from mfgppl.reporting.agents_sections import away, scorecard, shared_shocks
from mfgppl.reporting.comparison_section import compared
from mfgppl.reporting.effects_section import by_treatment, meaning
from mfgppl.reporting.kinds_section import kinds
from mfgppl.reporting.parameters import arviz_summary, bounds_of
from mfgppl.reporting.prior_section import PRIOR_DRAWS, sensitivity
from mfgppl.reporting.subject import (
    CHANGE,
    FOUND,
    SEEN,
    TRUST,
    Section,
    Subject,
    as_floats,
    enumeration,
)
from mfgppl.reporting.tables import few_clusters
from mfgppl.reporting.types_section import types

BIASED = 0.5  # standard errors by which a counted flow may put an estimate off
RIDGE = 30.0  # times that the worst known direction is known less well than the best
CHECK_DRAWS = 200  # panels drawn for predictive checks
EQUILIBRIUM_DRAWS = 50
MOST_BESIDE = 40  # parameters up to which draws have their maximum likelihood estimates beside
OWN_ERRORS = {"jackknife": "by the jackknife"}  # of estimates that carry their own
SHORT = ["estimate", "error", "lower", "upper"]


def sections_of(subject: Subject) -> list[Section]:
    """Return all sections for which there is something to say, in the order of the page."""
    makers = {
        FOUND: (estimates, meaning, prediction),
        TRUST: (trust, identification, types, kinds, equilibrium),
        CHANGE: (counting, ways, shared_shocks, away, sensitivity, comparison),
        SEEN: (scorecard, panel),
    }
    return [
        replace(section, part=part)
        for part, several in makers.items()
        for make in several
        if (section := make(subject)) is not None
    ]


def panel(subject: Subject) -> Section:
    """What was seen."""
    audit = json.loads(subject.record["audit"])
    agents, made = _count(audit["agents"], "agent"), _count(audit["decisions"], "decision")
    verb = "makes" if audit["agents"] == 1 else "make"
    gist = f"{agents} {verb} {made}; the panel passed all checks at reading."
    return Section("The panel", gist, None, _audit_rows(audit))


def identification(subject: Subject) -> Section | None:
    """What data can identify of the reward along the flow, and how evenly these do."""
    model = subject.model
    if model is None:
        return None
    identification = identify(model.game, model.reward, parameters=subject.fit,
                     mean_field=None if model.coupled else model.mean_field)  # fmt: skip
    numbers: dict[str, Any] = {
        "directions that data can identify": identification.rank,
        "directions": identification.n_directions,
        "that no data can identify": list(identification.directions.index),
    }
    if not identification.identified:
        return _flat_directions(subject, identification, numbers)
    n = identification.n_directions
    known = (
        "Data can identify the parameter." if n == 1 else f"Data can identify all {n} parameters."
    )
    if subject.draws is not None and (open_ := subject.not_identified):
        gist = f"{known[:-1]}, but this panel does not: {'; '.join(open_)}."
        return Section("Identification", gist, False, numbers)
    worst = _worst_known(_covariance(subject))
    if worst is None:
        return Section("Identification", known, True, numbers)
    name, ratio = worst
    numbers |= {"known worst": name, "times worse than the best": round(ratio, 1)}
    if ratio < RIDGE:
        return Section("Identification", known, True, numbers)
    gist = f"{known[:-1]}, but mostly in combination: {name} is known {ratio:.0f} times worse than "
    gist += "the best known move of the parameters."
    return Section("Identification", gist, False, numbers)


def _flat_directions(
    subject: Subject, identification: Identification, numbers: dict[str, Any]
) -> Section:
    named = "; ".join(str(d) for d in identification.directions.index)
    gist = f"Along this flow no data can identify: {named}."
    tied = False
    if isinstance(subject.fit, PointEstimate) and subject.fit.kind != "mle":
        involved = (identification.directions != 0).any()
        tied = bool(subject.fit.bse[involved[involved].index].notna().all())
        if tied:
            gist = (
                f"The likelihood alone does not identify: {named}; the prior ties it to the data."
            )
    if subject.draws is not None and subject.model is not None:
        table = contraction(subject.draws, subject.model, prior_draws=PRIOR_DRAWS)
        involved = (identification.directions != 0).any()
        tied = bool((table.loc[involved[involved].index, "verdict"] == "data-driven").all())
        tied = tied and not subject.not_identified
        if tied:
            gist = (
                f"The likelihood alone does not identify: {named}; the prior ties it to the data."
            )
        else:
            gist += " What the posterior says of it is the prior."
    return Section("Identification", gist, tied, numbers)


def estimates(subject: Subject) -> Section:
    """What agents want."""
    prob = f"{100 * subject.ci_prob:g}%"
    if isinstance(subject.fit, PointEstimate):
        table = subject.fit.summary(subject.ci_prob, **subject.errors)
        degrees = subject.fit.degrees(**subject.errors)
        kind = "t" if np.isfinite(degrees) else "Wald"
        rows = table.iloc[:, [0, 1, -2, -1]].set_axis(SHORT, axis=1)
        beside, further = None, pairs_drawing({})
        drawings = forest_drawing(rows, subject.ci_prob, kind)
        notes = (
            f"{prob} {kind} intervals{_of_degrees(degrees)}; standard errors {_basis(subject)}, "
            "none where the data do not identify.",
            *_few({"": subject.fit}, subject),
        )
    else:
        table, kind = arviz_summary(subject.fit, subject.ci_prob), "equal-tailed"
        columns = [table["mean"], table["sd"], *bounds_of(table)]
        rows = pd.concat(columns, axis=1).set_axis(SHORT, axis=1)
        beside = _beside(subject)
        at = None if beside is None else beside["estimate"]
        drawings = forest_drawing(rows, subject.ci_prob, kind, at)
        further = pairs_drawing(entries_of(subject.fit))
        notes = (
            "Of the program's parameters: posterior mean, standard deviation and equal-tailed "
            f"{prob} intervals; effective sample sizes, R-hat and Monte Carlo errors.",
        )
    low, high = rows["lower"], rows["upper"]
    signed = (low > 0) | (high < 0)
    open_, without = table.index[~signed & low.notna()], table.index[low.isna()]
    which = f"{signed.sum()} of {_count(len(low), 'parameter')}"
    verb = "interval of" if len(low) == 1 else "intervals of"
    gist = f"The {kind} {prob} {verb} {which} {'excludes' if len(low) == 1 else 'exclude'} zero"
    if len(open_):
        gist += f"; the sign of {enumeration(open_)} is open"
    if len(without):
        gist += f"; {enumeration(without)} {'has' if len(without) == 1 else 'have'} none"
    interval = {"ci_prob": subject.ci_prob, "kind": kind}
    bounds = {"lower": as_floats(low.to_dict()), "upper": as_floats(high.to_dict())}
    numbers = {"interval": interval | bounds}
    error = "std. error" if isinstance(subject.fit, PointEstimate) else "std. deviation"
    short = rows.rename(columns={"error": error, "lower": f"from ({prob})", "upper": "to"})
    if beside is not None:
        short[LIKELIHOOD] = beside["estimate"].reindex(short.index)
        if subject.groups is not None:
            short[f"its error, clustered by {subject.groups}"] = beside["std_err"].reindex(
                short.index
            )
    return Section(
        "Estimates", gist + ".", None, numbers, table, drawings, notes, by_treatment(subject),
        short, further,
    )  # fmt: skip


def _of_degrees(degrees: float) -> str:
    return f" of {degrees:.0f} degrees of freedom" if np.isfinite(degrees) else ""


def _basis(subject: Subject) -> str:
    if subject.groups is None and isinstance(subject.fit, PointEstimate):
        return OWN_ERRORS.get(subject.fit.kind, "from the observed information")
    return f"clustered by {subject.groups}"


def _few(fits: dict[str, PointEstimate], subject: Subject) -> list[str]:
    """Return what to know of errors from few clusters."""
    return [] if subject.groups is None else few_clusters(fits, subject.groups)


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
    errors = found.standard_errors(**subject.errors)
    estimate = found.params.where(found.bse.notna())
    return pd.DataFrame({"estimate": estimate, "std_err": errors})


def trust(subject: Subject) -> Section:
    """Whether the fit did what it should."""
    fit, cost = subject.fit, subject.counted_flow
    counted = () if cost is None else cost.messages()  # which have a section of their own
    messages = [message for message in subject.messages if message not in counted]
    if subject.draws is not None and subject.model is not None:  # the section on identification
        messages = [message for message in messages if message not in subject.not_identified]
    if isinstance(fit, PointEstimate):
        numbers: dict[str, Any] = {
            "converged": fit.converged,
            "standard errors from the maximum": fit.residual,
            "log likelihood, nats": fit.llf,
            "maxima that the starts led to": list(fit.attained),
        }
        if fit.converged and not messages:
            gist = f"The fit converged to a maximum ({fit.reason})."
        elif fit.converged:
            gist = f"The fit converged, with {_count(len(messages), 'warning')}."
        else:
            gist = f"The fit did NOT converge ({fit.reason}): do not use its numbers."
        return Section("Diagnostics", gist, fit.converged and not messages, numbers,
                       notes=tuple(messages))  # fmt: skip
    stats = fit["sample_stats"].dataset if "sample_stats" in fit.children else {}
    if "pareto_k" in subject.record:
        shape = float(subject.record["pareto_k"])
        numbers = {"Pareto shape": shape, "method": subject.record["sampler"]}
        gist = f"The approximation is close to the posterior: Pareto shape {shape:.2f}."
        if messages:
            gist = f"{_count(len(messages), 'check')} of the approximation"
            gist += f" {'speaks' if len(messages) == 1 else 'speak'} against these draws; "
            gist += f"its Pareto shape is {shape:.2f} (at most 0.7 is good)."
    else:
        numbers = _sampler_facts(stats) | {
            "chains": fit["posterior"].sizes["chain"],
            "draws": fit["posterior"].sizes["draw"],
        }
        gist = "The sampler converged: no check of the sampler speaks against these draws."
        if messages:
            verb = "speaks" if len(messages) == 1 else "speak"
            checks = _count(len(messages), "check")
            gist = f"{checks} of the sampler {verb} against these draws."
    by_sampler = "pareto_k" not in subject.record and "energy" in stats
    drawings = sampler_drawings(entries_of(fit), stats["energy"].values) if by_sampler else ()
    return Section("Diagnostics", gist, not messages, numbers, None, drawings, tuple(messages))


def counting(subject: Subject) -> Section | None:
    """What it costs that the flow is counted from the panel."""
    cost = subject.counted_flow
    if cost is None:
        return None
    off = cost.table["bias_se"].abs() > BIASED
    bad = [name for name in cost.table.index if off[name] or name in cost.untrusted]
    gist = str(cost).rstrip(".")
    if bad:
        verb = "is" if len(bad) == 1 else "are"
        best = cost.table["corrected"].where(~cost.table.index.isin(cost.saturated))
        best = best.fillna(cost.table["cross_fit"])
        corrected = ", ".join(f"{name} {best[name]:.3g}" for name in bad)
        gist = (
            f"Counted from {_count(cost.n_agents, 'agent')} it is not, if these plan along the "
            f"flow they expect: {enumeration(bad)} {verb} off, and the interval too narrow. "
            f"Corrected: {corrected}"
        )
    numbers = {
        "agents": cost.n_agents,
        "agents per state and time": cost.per_state,
        "expected error in standard errors": as_floats(cost.table["bias_se"].to_dict()),
        "corrected": as_floats(cost.table["corrected"].to_dict()),
    }
    notes = (
        "Of the maximum likelihood estimate, by the jackknife over twenty parts of the agents. The "
        "numbers hold if agents plan along the flow that they expect; where they react to the "
        "shares as these are realised, counting the whole crowd costs nothing.",
    )
    good = None if cost.reason else not bad
    title = "Is the crowd's flow known well enough?"
    gist = gist[0].upper() + gist[1:] + "."
    return Section(title, gist, good, numbers, cost.table, notes=notes)


def ways(subject: Subject) -> Section | None:
    """How the crowd's flow may be treated, and which way the panel supports."""
    found = subject.treatments
    if found is None:
        return None
    gist = found.verdict[0].upper() + found.verdict[1:].rstrip(".") + "."
    numbers = {
        "recommended": found.recommended,
        "p of the distance from equilibrium": found.p_equilibrium,
        "no estimate": found.failures,
    }
    table = found.table.reset_index().set_index("treatment")
    drawings = (("Estimates and 90% intervals by treatment", lambda: plot_treatments(found)),)
    notes = tuple(f"{name}: assumes that {ASSUMES[name]}." for name in found.fits)
    return Section("How should the crowd's flow be treated?", gist, None, numbers, table, drawings,
                   notes)  # fmt: skip


def _sampler_facts(stats: Any) -> dict[str, Any]:
    """Return what the sampler says of its draws, where a selection still has it."""
    facts: dict[str, Any] = {}
    if "diverging" in stats:
        facts["divergences"] = int(stats["diverging"].sum())
    if "reached_max_treedepth" in stats:
        facts["share at maximum depth"] = float(stats["reached_max_treedepth"].mean())
    return facts


def prediction(subject: Subject) -> Section | None:
    """Whether the model draws panels like the one seen."""
    model, fit = subject.model, subject.fit
    title = "Does the model predict what was seen?"
    if model is None or not _draws_panels(model):
        return None if isinstance(fit, PointEstimate) else _coverage(title, fit)
    check = predictive_check(model, fit, draws=CHECK_DRAWS, random_seed=subject.random_seed)
    numbers = {"p": as_floats(check.table["p"].to_dict()), "panels drawn": check.n_draws}
    notes = (
        "Panels are drawn from the fit along the observed flow; p is two-sided, and too cautious "
        "as the same panel was used to fit.",
    )
    flow, choices, statistics = _check_drawings(check)
    return Section(
        title, check.verdict, check.passed, numbers, check.table, (flow, choices), notes,
        further=(statistics,),
    )  # fmt: skip


def equilibrium(subject: Subject) -> Section | None:
    """Whether the crowd is near an equilibrium of the fitted game."""
    if subject.model is None or not _draws_panels(subject.model) or subject.model.game.stationary:
        return None
    if subject.model.nodes is not None:  # the distance takes agents of kinds that are seen
        return None
    distance = observed_exploitability(
        subject.model, subject.fit, draws=EQUILIBRIUM_DRAWS, random_seed=subject.random_seed
    )
    numbers = {
        "draws": len(distance.rounds),
        "draws without an equilibrium": distance.n_failed,
        "p": as_floats(distance.table["p"].to_dict()),
    }
    caption = "Exploitability of the observed crowd beside panels that play an equilibrium"
    drawings = ((caption, lambda: check_figures.plot_exploitability(distance)),)
    title = "Is the crowd near an equilibrium?"
    return Section(title, distance.verdict, distance.passed, numbers, distance.table, drawings)


def comparison(subject: Subject) -> Section | None:
    """How the model predicts beside others."""
    comparison = compared(subject.fit, subject.against)
    if comparison is None:
        return None
    gist, numbers, table, notes = comparison
    return Section("Comparison", gist, None, numbers, table, (), notes)


def _draws_panels(model: TrajectoryModel) -> bool:
    """Whether panels can be drawn again: rows are kept, and the law is causal."""
    return model.likelihood == "causal" and hasattr(model.panel, "offsets")


def _coverage(title: str, fit: xr.DataTree) -> Section | None:
    """Say how many observed shares lie inside their predictive bands; None without these."""
    if not {"observed_data", "posterior_predictive"} <= set(fit.children):
        return None
    if not all(fit["posterior_predictive"].sizes.get(dim) for dim in SAMPLES):
        return None  # a selection without any of the draws that predict
    observed = fit["observed_data"].dataset["share_by_time"]
    low, high = figures.predictive_band(fit, "share_by_time")
    known = observed.notnull() & low.notnull()  # noqa: PD004 - xarray's name
    inside = int(((observed >= low) & (observed <= high) & known).sum())
    total = int(known.sum())
    if not total:
        return None
    share = inside / total
    judged = "about what a model that is right would give"
    if share < 0.8:
        judged = "fewer than a model that is right would give: something moves that it leaves out"
    counted = f"{inside} of {total} observed shares over time ({100 * share:.0f}%)"
    gist = f"{counted} lie in the 90% band, {judged}."
    return Section(title, gist, share >= 0.8, {"inside": inside, "of": total}, None,
                   figures.share_drawings(fit))  # fmt: skip


def _check_drawings(check: PredictiveCheck) -> tuple[Drawing, Drawing, Drawing]:
    return (
        (
            "Share of agents in the states most visited: observed (dots), 90% predictive band",
            lambda: check_figures.plot_flow_check(check),
        ),
        (
            "Shares of actions by state: observed (dots), 90% predictive interval",
            lambda: check_figures.plot_choice_check(check),
        ),
        (
            "Statistics of the panel (dots) against the 90% bands of panels drawn from the fit",
            lambda: check_figures.plot_statistics(check),
        ),
    )


def _covariance(subject: Subject) -> pd.DataFrame:
    """Return the covariance of the parameters that have one."""
    if isinstance(subject.fit, PointEstimate):
        covariance = subject.fit.cov_params()
        known = covariance.index[np.isfinite(np.diag(covariance))]
        return covariance.loc[known, known]
    if subject.draws is None or subject.model is None:
        return pd.DataFrame()
    program = density_of(subject.model).program
    flat = flat_draws(program, subject.draws)
    names = program.entry_names()
    if flat.shape[0] * flat.shape[1] < 2:
        return pd.DataFrame()
    table = np.atleast_2d(np.cov(flat.reshape(-1, len(names)).T))
    return pd.DataFrame(table, names, names)


def _worst_known(covariance: pd.DataFrame) -> tuple[str, float] | None:
    """Name the move of the parameters that is known worst, and by how much."""
    spread = np.sqrt(np.diag(covariance))
    if len(spread) < 2 or (spread <= 0).any():
        return None
    information = np.linalg.pinv(covariance / np.outer(spread, spread))
    scale = np.sqrt(np.diag(information))
    eigenvalues, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    if eigenvalues[0] <= 0:
        return None
    move = vectors[:, 0] / scale * spread
    ratio = float(np.sqrt(eigenvalues[-1] / eigenvalues[0]))
    return describe_direction(move, list(covariance.index)), ratio


def _audit_rows(audit: dict[str, Any]) -> dict[str, str]:
    """Return an audit as rows of text."""
    rows = {}
    for key, value in audit.items():
        if isinstance(value, dict):
            value = "; ".join(
                f"{k}: {', '.join(map(str, v)) if isinstance(v, list) else v}"
                for k, v in value.items()
            )
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        rows[key] = str(value)
    return rows


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}" + "s" * (n != 1)
