"""The section of a report on what coefficients mean, in probability."""

import math
import warnings

from mfgppl.counterfactuals.effects import effects
from mfgppl.counterfactuals.effects_record import LARGER, Effects
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.plots.effects_on_choices import plot_effects
from mfgppl.posterior.policies import Fit
from mfgppl.reporting.effects_by_period import sites_of_periods
from mfgppl.reporting.subject import Section, Subject

TITLE = "What the coefficients mean"
EFFECT_DRAWS = 40
MOST_LEADING = 2  # sentences at the head of the page
EFFECT_PARAMETERS = 6
MOST_DIFFERENTIATED = 30  # parameters of a point beyond which effects have no intervals here
LARGEST_TABLE = 100_000  # entries of a policy beyond which effects take too long here


def meaning(subject: Subject) -> Section | None:
    """What a larger coefficient and a denser crowd do to choices."""
    model = subject.model
    if model is None or model.likelihood != "causal" or not hasattr(model.panel, "offsets"):
        return None
    if math.prod(model.game.shape) > LARGEST_TABLE or (model.coupled and model.nodes is not None):
        return None
    found = _found(model, subject.fit, subject.ci_prob)
    if found is None:
        return None
    on_choices = tuple(found.of_crowd_on_choices)
    crowd = (found.of_crowd,) if found.of_crowd else ()
    said = (
        *crowd,
        *on_choices[MOST_LEADING:],
        *(found.of_parameter(name) for name in found.parameters),
    )
    gist, rest = said[0], said[1:]
    table = 100 * found.choices()[["estimate", "lower", "upper"]]
    table.index = [f"{name}: {action}" for name, action in table.index]
    settled = 100 * found.choices(how="equilibrium")["estimate"]
    if len(settled):
        table["in equilibrium"] = settled.to_numpy()
    numbers = {
        "residual of the flow": found.residual,
        "draws": found.n_draws,
    }
    notes = (
        f"Points of probability, average over the panel's decisions, of a coefficient 10% larger: "
        f"“{LARGER['held']}” of mfg.effects, which has further effects, elasticities and ratios.",
        *found.messages[:1],
    )
    caption = (
        "Left: points of probability for a coefficient 10% larger, along the flow held (dots with "
        "intervals) and in equilibrium (circles). Right: how much more likely agents are to be in "
        "a state for one point more of the crowd there"
    )
    return Section(TITLE, gist, None, numbers, table, ((caption, lambda: plot_effects(found)),),
                   notes, rest, lead=on_choices[:MOST_LEADING])  # fmt: skip


def by_treatment(subject: Subject) -> tuple[str, ...]:
    """Say in a sentence what the parameter is that treatments of the flow move most."""
    found = subject.treatments
    if found is None:
        return ()
    estimate = found.table["estimate"].unstack("treatment").loc[:, list(found.fits)]
    width = (found.table["upper"] - found.table["lower"]).groupby("parameter").mean()
    spread = ((estimate.max(axis=1) - estimate.min(axis=1)) / width).dropna()
    if spread.empty:
        return ()
    name = spread.idxmax()
    rows = found.table.xs(name, level="parameter").loc[list(found.fits)]
    each = ", ".join(
        f"{way} {row['estimate']:.3g} ({row['lower']:.3g} to {row['upper']:.3g})"
        for way, row in rows.iterrows()
    )
    return (f"By treatment of the crowd's flow {name} is: {each}.",)


def _found(model: TrajectoryModel, fit: Fit, ci_prob: float) -> Effects | None:
    contrasts = sites_of_periods(model)  # one of which moves several periods
    names = [name for name in model.parameters if name not in contrasts][:EFFECT_PARAMETERS]
    if not names:
        return None
    many = isinstance(fit, PointEstimate) and len(fit.params) > MOST_DIFFERENTIATED
    known = dict(fit.params) if many and isinstance(fit, PointEstimate) else fit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the fit itself has warned of
        return effects(model, known, of=names, draws=EFFECT_DRAWS, ci_prob=ci_prob)
