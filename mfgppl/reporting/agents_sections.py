"""The sections of a report on what agents share, where their game goes, and what they lose."""

import numpy as np

from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.plots.checks import plot_runaway
from mfgppl.plots.losses import plot_imperfection
from mfgppl.plots.reflection import plot_coupling
from mfgppl.reporting.subject import Section, Subject
from mfgppl.reward.valued import parts_drawn

SHARED = "Is it the crowd, or what all agents share?"
LEVEL = 0.05  # of the test
WORST = 10  # agents shown


def _has_shocks(model: TrajectoryModel) -> bool:
    return "shock" in parts_drawn(model.reward, model.inputs)


def shared_shocks(subject: Subject) -> Section | None:
    """Whether shocks that meet all agents can stand for the crowd's terms."""
    model, found = subject.model, subject.coupling
    if found is None:
        blind = model is None or model.game.stationary or not model.reward_reads_flow
        if model is None or blind or _has_shocks(model):
            return None
        way = "mfg.flows.coupling_test(..., free='time') tells them apart; give it as `coupling`."
        if model.nodes is not None:
            way = "Shocks from mfg.period_effects in the program show what is left of them."
        gist = (
            "Not tried: terms of the crowd that are fitted without free periods may stand for "
            f"shocks that all agents share. {way}"
        )
        return Section(SHARED, gist, None, {"tried": False})
    observed, fitted = found.estimates.loc["observed"], _values(subject)
    terms = [f"{name} is {value:.3g}" for name, value in observed.items()]
    given = "With free periods" if found.free else "Without free periods"
    if not found.free and model is not None and _has_shocks(model):
        given = "Beside the program's own shocks"
    without = [f"{name} {fitted[name]:.3g}" for name in observed.index if name in fitted]
    beside = f" (in the fit: {', '.join(without)})" if without and found.free else ""
    gist = f"{given} {', '.join(terms)}{beside}; {_after_comma(found.verdict)}."
    numbers = {
        "free periods": found.free,
        "estimates": dict(zip(map(str, observed.index), observed.to_numpy().tolist(), strict=True)),
        "bootstrap p": found.p,
        "panels drawn": int(np.isfinite(found.drawn).sum()),
    }
    drawing = (
        "The likelihood ratio among those of panels without coupling",
        lambda: plot_coupling(found),
    )
    good = found.p <= LEVEL if found.free else None
    return Section(SHARED, gist, good, numbers, found.table, (drawing,))


def away(subject: Subject) -> Section | None:
    """Whether the fitted game goes elsewhere than the crowd that was seen, or to several places."""
    found = subject.runaway
    if found is None:
        return None
    n, several = len(found.table), int(found.table["several"].sum())
    gist = found.verdict
    if several:
        gist += (
            f" At {several} of {n} draws it has several equilibria: a prediction is one of them."
        )
    numbers = {
        "draws": n,
        "probability of running away": found.probability,
        "draws without an equilibrium": found.n_failed,
        "draws with several equilibria": several,
        "total variation beyond which a draw runs away": found.beyond,
    }
    drawing = (
        "Solved at each draw: the distance of the flow from the one seen, and the largest share of "
        "one state",
        lambda: plot_runaway(found),
    )
    good = found.probability == 0 and not several
    return Section("Does the fitted game run away?", gist, good, numbers, None, (drawing,))


def scorecard(subject: Subject) -> Section | None:
    """How much of the reward agents leave on the table."""
    found = subject.imperfection
    if found is None:
        return None
    mean = found.mean["mean"]
    parts = ", ".join(f"{name} {mean[name]:.3g}" for name in ("noise", "lapses", "plan"))
    gist = (
        f"An agent leaves {mean['loss']:.3g} of its reward on average, where the fit expects "
        f"{mean['expected']:.3g}: {parts}."
    )
    numbers = dict(zip(map(str, mean.index), mean.to_numpy().tolist(), strict=True))
    table = found.table.nlargest(WORST, "loss")
    drawing = ("Losses by agent, and what is expected by cause", lambda: plot_imperfection(found))
    notes = (
        f"The {len(table)} agents who lose most. {found.reading[0].upper()}{found.reading[1:]}.",
    )
    return Section("What do agents leave on the table?", gist, None, numbers, table, (drawing,),
                   notes)  # fmt: skip


def _values(subject: Subject) -> dict[str, float]:
    """Return the estimates of scalar parameters, posterior means of draws."""
    fit = subject.fit
    if isinstance(fit, PointEstimate):
        return {str(k): float(v) for k, v in fit.params.items()}
    means = fit["posterior"].to_dataset().mean(("chain", "draw"))
    return {str(k): float(v) for k, v in means.data_vars.items() if v.ndim == 0}


def _after_comma(verdict: str) -> str:
    return verdict.removeprefix("with free periods ")
