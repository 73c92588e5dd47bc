"""The sections of a report: each a verdict in plain words and the numbers behind it."""

import json
from dataclasses import replace
from typing import Any

import xarray as xr

from mfgppl.checks.distance_from_equilibrium import observed_exploitability
from mfgppl.checks.predictive import PredictiveCheck, predictive_check
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.flows.side_by_side import ASSUMES
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.plots import checks as check_figures
from mfgppl.plots import predictions as figures
from mfgppl.plots.estimates import entries_of
from mfgppl.plots.predictions import Drawing
from mfgppl.plots.traces import sampler_drawings
from mfgppl.plots.treatments_of_flows import plot_treatments
from mfgppl.posterior.groups import SAMPLES
from mfgppl.reporting.agents_sections import away, scorecard, shared_shocks
from mfgppl.reporting.comparison_section import compared
from mfgppl.reporting.effects_section import meaning
from mfgppl.reporting.estimates_section import estimates
from mfgppl.reporting.identification_section import identification
from mfgppl.reporting.kinds_section import kinds
from mfgppl.reporting.prior_section import sensitivity
from mfgppl.reporting.subject import (
    CHANGE,
    FOUND,
    SEEN,
    TRUST,
    Section,
    Subject,
    as_floats,
    count_of,
    enumeration,
)
from mfgppl.reporting.types_section import types

BIASED = 0.5  # standard errors by which a counted flow may put an estimate off
CHECK_DRAWS = 200  # panels drawn for predictive checks
EQUILIBRIUM_DRAWS = 50


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
    agents, made = count_of(audit["agents"], "agent"), count_of(audit["decisions"], "decision")
    verb = "makes" if audit["agents"] == 1 else "make"
    gist = f"{agents} {verb} {made}; the panel passed all checks at reading."
    return Section("The panel", gist, None, _audit_rows(audit))


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
            gist = f"The fit converged, with {count_of(len(messages), 'warning')}."
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
            gist = f"{count_of(len(messages), 'check')} of the approximation"
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
            checks = count_of(len(messages), "check")
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
            f"Counted from {count_of(cost.n_agents, 'agent')} it is not, if these plan along the "
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
    known = observed.notnull() & low.notnull()
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
            "Share of agents by state: observed (dots), 90% predictive band",
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
