"""The sections of a report: each a verdict in plain words and the numbers behind it."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl.diagnostics.contraction import contraction
from mfgppl.diagnostics.identification import Identification, identify
from mfgppl.diagnostics.observed import observed_exploitability
from mfgppl.diagnostics.predictive import PredictiveCheck, predictive_check
from mfgppl.inference.compiled import density_of
from mfgppl.inference.curvature import describe_direction
from mfgppl.inference.estimate import PointEstimate
from mfgppl.inference.results import flat_draws
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.report import check_figures, figures
from mfgppl.report.comparison import compared
from mfgppl.report.subject import Drawing, Section, Subject

RIDGE = 30.0  # times that the worst known direction is known less well than the best
CHECK_DRAWS = 200  # panels drawn for predictive checks
EQUILIBRIUM_DRAWS = 50


def sections_of(subject: Subject) -> list[Section]:
    """Return all sections for which there is something to say, in the order of the page."""
    makers = (panel, identification, estimates, trust, prediction, equilibrium, sensitivity,
              comparison)  # fmt: skip
    return [found for make in makers if (found := make(subject)) is not None]


def panel(subject: Subject) -> Section:
    """What was seen."""
    audit = json.loads(subject.record["audit"])
    agents, made = _counted(audit["agents"], "agent"), _counted(audit["decisions"], "decision")
    verb = "makes" if audit["agents"] == 1 else "make"
    gist = f"{agents} {verb} {made}; the panel passed all checks at reading."
    return Section("The panel", gist, None, _flat(audit))


def identification(subject: Subject) -> Section | None:
    """What data can tell of the reward along the flow, and how evenly these do."""
    model = subject.model
    if model is None:
        return None
    found = identify(model.game, model.reward, parameters=subject.fit,
                     mean_field=None if model.coupled else model.mean_field)  # fmt: skip
    numbers: dict[str, Any] = {
        "directions that data can tell": found.rank,
        "directions": found.n_directions,
        "that no data can tell": list(found.directions.index),
    }
    if not found.identified:
        return _unidentified(subject, found, numbers)
    worst = _worst_known(_covariance(subject))
    n = found.n_directions
    told = "Data can tell the parameter." if n == 1 else f"Data can tell all {n} parameters."
    if worst is None:
        return Section("Identification", told, True, numbers)
    name, ratio = worst
    numbers |= {"known worst": name, "times worse than the best": round(ratio, 1)}
    if ratio < RIDGE:
        return Section("Identification", told, True, numbers)
    gist = f"{told[:-1]}, but mostly in combination: {name} is known {ratio:.0f} times worse than "
    gist += "the best known move of the parameters."
    return Section("Identification", gist, False, numbers)


def _unidentified(subject: Subject, found: Identification, numbers: dict[str, Any]) -> Section:
    named = "; ".join(str(d) for d in found.directions.index)
    gist = f"Along this flow no data can tell: {named}."
    tied = False
    if isinstance(subject.fit, PointEstimate) and subject.fit.kind != "mle":
        involved = (found.directions != 0).any()
        tied = bool(subject.fit.bse[involved[involved].index].notna().all())
        if tied:
            gist = f"The likelihood alone does not tell: {named}; the prior ties it to the data."
    if subject.draws is not None and subject.model is not None:
        table = contraction(subject.draws, subject.model)
        involved = (found.directions != 0).any()
        tied = bool((table.loc[involved[involved].index, "verdict"] == "data-driven").all())
        if tied:
            gist = f"The likelihood alone does not tell: {named}; the prior ties it to the data."
        else:
            gist += " What the posterior says of it is the prior."
    return Section("Identification", gist, tied, numbers)


def estimates(subject: Subject) -> Section:
    """What agents want."""
    if isinstance(subject.fit, PointEstimate):
        table = subject.fit.summary(subject.level)
        low, high = table.iloc[:, -2], table.iloc[:, -1]
        drawings = figures.interval_drawings(table, subject.level)
        kind = "Wald"
        notes = (
            f"{100 * subject.level:g}% Wald intervals; standard errors from the observed "
            "information, none where the data do not tell.",
        )
    else:
        table = _summary(subject.fit, subject.level)
        low, high = _interval(table)
        drawings, kind = figures.posterior_drawings(subject.fit, subject.level), "equal-tailed"
        notes = (
            "Of the program's parameters: posterior mean, standard deviation and equal-tailed "
            f"{100 * subject.level:g}% intervals; effective sample sizes, R-hat and Monte Carlo "
            "errors.",
        )
    signed = (low > 0) | (high < 0)
    open_, without = table.index[~signed & low.notna()], table.index[low.isna()]
    prob = f"{100 * subject.level:g}%"
    which = f"{signed.sum()} of {_counted(len(low), 'parameter')}"
    verb = "interval of" if len(low) == 1 else "intervals of"
    gist = f"The {kind} {prob} {verb} {which} {'excludes' if len(low) == 1 else 'exclude'} zero"
    if len(open_):
        gist += f"; the sign of {_listed(open_)} is open"
    if len(without):
        gist += f"; {_listed(without)} {'has' if len(without) == 1 else 'have'} none"
    interval = {"level": subject.level, "kind": kind}
    bounds = {"lower": _plain(low.to_dict()), "upper": _plain(high.to_dict())}
    numbers = {"interval": interval | bounds}
    return Section("Estimates", gist + ".", None, numbers, table, drawings, notes)


def trust(subject: Subject) -> Section:
    """Whether the fit did what it should."""
    fit, messages = subject.fit, subject.messages
    if isinstance(fit, PointEstimate):
        numbers: dict[str, Any] = {
            "converged": fit.converged,
            "largest gradient": fit.residual,
            "log likelihood, nats": fit.llf,
            "maxima that the starts led to": list(fit.attained),
        }
        if fit.converged and not messages:
            gist = f"The fit converged to a maximum ({fit.reason})."
        elif fit.converged:
            gist = f"The fit converged, with {_counted(len(messages), 'warning')}."
        else:
            gist = f"The fit did NOT converge ({fit.reason}): do not use its numbers."
        return Section("Diagnostics", gist, fit.converged and not messages, numbers,
                       notes=tuple(messages))  # fmt: skip
    stats = fit["sample_stats"].dataset
    if "pareto_k" in subject.record:
        shape = float(subject.record["pareto_k"])
        numbers = {"Pareto shape": shape, "method": subject.record["sampler"]}
        gist = f"The approximation is close to the posterior: Pareto shape {shape:.2f}."
        if messages:
            gist = f"{_counted(len(messages), 'check')} of the approximation"
            gist += f" {'speaks' if len(messages) == 1 else 'speak'} against these draws; "
            gist += f"its Pareto shape is {shape:.2f} (at most 0.7 is good)."
    else:
        numbers = {
            "divergences": int(stats["diverging"].sum()),
            "share at maximum depth": float(stats["reached_max_treedepth"].mean()),
            "chains": fit["posterior"].sizes["chain"],
            "draws": fit["posterior"].sizes["draw"],
        }
        gist = "The sampler converged: no check of the sampler speaks against these draws."
        if messages:
            verb = "speaks" if len(messages) == 1 else "speak"
            checks = _counted(len(messages), "check")
            gist = f"{checks} of the sampler {verb} against these draws."
    drawings = () if "pareto_k" in subject.record else figures.sampler_drawings(fit)
    return Section("Diagnostics", gist, not messages, numbers, None, drawings, tuple(messages))


def prediction(subject: Subject) -> Section | None:
    """Whether the model draws panels like the one seen."""
    model, fit = subject.model, subject.fit
    title = "Does the model predict what was seen?"
    if model is None or not _checkable(model):
        return None if isinstance(fit, PointEstimate) else _coverage(title, fit)
    found = predictive_check(model, fit, draws=CHECK_DRAWS, random_seed=subject.random_seed)
    numbers = {"p": _plain(found.table["p"].to_dict()), "panels drawn": found.n_draws}
    notes = (
        "Panels are drawn from the fit along the observed flow; p is two-sided, and too cautious "
        "as the same panel was used to fit.",
    )
    drawings = _check_drawings(found)
    return Section(title, found.verdict, found.passed, numbers, found.table, drawings, notes)


def equilibrium(subject: Subject) -> Section | None:
    """Whether the crowd is near an equilibrium of the fitted game."""
    if subject.model is None or not _checkable(subject.model) or subject.model.game.stationary:
        return None
    found = observed_exploitability(
        subject.model, subject.fit, draws=EQUILIBRIUM_DRAWS, random_seed=subject.random_seed
    )
    numbers = {
        "draws": len(found.rounds),
        "draws without an equilibrium": found.n_failed,
        "p": _plain(found.table["p"].to_dict()),
    }
    caption = "Exploitability of the observed crowd beside panels that play an equilibrium"
    drawings = ((caption, lambda: check_figures.plot_exploitability(found)),)
    title = "Is the crowd near an equilibrium?"
    return Section(title, found.verdict, found.passed, numbers, found.table, drawings)


def sensitivity(subject: Subject) -> Section | None:
    """How much of the answer is the prior."""
    if subject.draws is None or subject.model is None:
        return None
    table = contraction(subject.draws, subject.model)
    driven = list(table.index[table["verdict"] == "prior-driven"])
    numbers = {
        "contraction": _plain(table["contraction"].to_dict()),
        "prior-driven": driven,
    }
    if driven:
        gist = f"The posterior of {_listed(driven)} is driven by the prior, not by the data."
    else:
        gist = "No parameter is driven by its prior."
    notes = (
        "contraction: share of the prior variance that the data remove; sensitivities: how the "
        "posterior moves where prior or likelihood are raised to a power near 1.",
    )
    return Section("Sensitivity to the prior", gist, not driven, numbers, table, (), notes)


def comparison(subject: Subject) -> Section | None:
    """How the model predicts beside others."""
    found = compared(subject.fit, subject.against)
    if found is None:
        return None
    gist, numbers, table, notes = found
    return Section("Comparison", gist, None, numbers, table, (), notes)


def _checkable(model: TrajectoryModel) -> bool:
    """Whether panels can be drawn again: rows are kept, and the law is causal."""
    return model.likelihood_name == "causal" and hasattr(model.panel, "offsets")


def _coverage(title: str, fit: xr.DataTree) -> Section | None:
    """Say how many observed shares lie inside their predictive bands."""
    observed = fit["observed_data"].dataset["share_by_time"]
    low, high = figures.predictive_band(fit, "share_by_time")
    known = observed.notnull()  # noqa: PD004 - xarray's name
    inside = int(((observed >= low) & (observed <= high) & known).sum())
    total = int(known.sum())
    share = inside / max(total, 1)
    judged = "about what a model that is right would give"
    if share < 0.8:
        judged = "fewer than a model that is right would give: something moves that it leaves out"
    counted = f"{inside} of {total} observed shares over time ({100 * share:.0f}%)"
    gist = f"{counted} lie in the 90% band, {judged}."
    return Section(title, gist, share >= 0.8, {"inside": inside, "of": total}, None,
                   figures.share_drawings(fit))  # fmt: skip


def _check_drawings(found: PredictiveCheck) -> tuple[Drawing, ...]:
    return (
        (
            "Statistics of the panel (dots) against the 90% bands of panels drawn from the fit",
            lambda: check_figures.plot_statistics(found),
        ),
        (
            "Share of agents in the states most visited: observed (dots), 90% predictive band",
            lambda: check_figures.plot_flow_check(found),
        ),
        (
            "Shares of actions by state: observed (dots), 90% predictive interval",
            lambda: check_figures.plot_choice_check(found),
        ),
    )


def _covariance(subject: Subject) -> pd.DataFrame:
    """Return the covariance of the parameters that have one."""
    if isinstance(subject.fit, PointEstimate):
        found = subject.fit.cov_params()
        known = found.index[np.isfinite(np.diag(found))]
        return found.loc[known, known]
    if subject.draws is None or subject.model is None:
        return pd.DataFrame()
    program = density_of(subject.model).program
    flat = flat_draws(program, subject.draws)
    names = program.entry_names()
    if flat.shape[0] * flat.shape[1] < 2:
        return pd.DataFrame()
    covariance = np.cov(flat.reshape(-1, len(names)).T)
    return pd.DataFrame(np.atleast_2d(covariance), names, names)


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


def _summary(fit: xr.DataTree, level: float) -> pd.DataFrame:
    """Return ArviZ's summary of the parameters, not of what is computed from them."""
    import arviz_stats  # slow to import

    names = list(fit.attrs["parameters"])
    return arviz_stats.summary(fit, var_names=names, ci_prob=level, ci_kind="eti", round_to="none")


def _interval(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the bounds of ArviZ's summary."""
    bounds = [c for c in table.columns if str(c).endswith(("_lb", "_ub"))]
    low, high = (pd.to_numeric(table[c]) for c in bounds[:2])
    return low, high


def _flat(audit: dict[str, Any]) -> dict[str, str]:
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


def _listed(names: Any) -> str:
    names = [str(n) for n in names]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _counted(n: int, word: str) -> str:
    return f"{n:,} {word}" + "s" * (n != 1)


def _plain(values: Mapping[Any, Any]) -> dict[str, float]:
    return {str(k): float(v) for k, v in values.items()}
