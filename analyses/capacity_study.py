# %% [markdown]
# # Do airlines answer the crowd, once weeks and kinds of services are free?
#
# **Question.** A service cuts, keeps or adds weekly flights. How much of what speaks for the crowd
# of other services is left once each week has shocks of its own, and services are of several
# kinds? Does the model predict what was seen?
#
# Run `python analyses/capacity_study.py` or, for a small version,
# `python analyses/capacity_study.py --quick`. A run that was stopped goes on where it was.

# %%
"""Airline capacity: what is left of the crowd beside weeks and kinds of services."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from output import fixed, run, write_table
from pricing_study import at, unlike
from steps import crowd_of, fit

import mfgppl as mfg
from mfgppl.models import capacity

ACTIONS = ["cut", "keep", "add"]
SEED = 1
NARROW, WIDE = dist.Normal(0.0, 3.0), dist.Normal(0.0, 10.0)
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "capacity_study"


class Step(NamedTuple):
    """What a model has, beside a number for each bin of capacity and for each at the end.

    Attributes
    ----------
    label : str
        Its name.
    weeks, slope : bool
        Shocks of weeks, and those that depend on the level.
    kinds : int
        Unseen kinds of services.
    """

    label: str
    weeks: bool = True
    slope: bool = False
    kinds: int = 1


STEPS = (
    Step("bins and the end", weeks=False),
    Step("weeks free"),
    Step("weeks by level, two kinds", slope=True, kinds=2),
)
QUICK = (0,)

# %% [markdown]
# ## Data
#
# The bundled panel. The airport is a type that is seen, and a service's crowd is its airport: three
# crowds, which differ within a week.


# %%
@functools.cache
def observed() -> mfg.Trajectories:
    """Return the panel."""
    return mfg.Trajectories.from_frame(
        mfg.datasets.nyc_flights(), **capacity.COLUMNS, types=["airport"],
        groups=["carrier", "dest"], action_labels=ACTIONS,
    )  # fmt: skip


def game() -> mfg.MeanFieldGame:
    """Return the game, whose services meet those of their own airport."""
    panel = observed()
    return mfg.MeanFieldGame(
        types={"airport": panel.space.coordinates["airport"]}, meets="airport",
        states=panel.space.within.coordinates, actions=ACTIONS, horizon=panel.horizon,
        transition=panel.estimate_transition(), initial=panel.initial_distribution(),
        discount=0.9, features={"level": ("capacity", capacity.CENTRES / 0.1)},
    )  # fmt: skip


# %% [markdown]
# ## Model
#
# All numbers but those of weeks are each kind's own. `crowd` is what adding is worth more where all
# services of one's airport fly well below normal than where none does.


# %%
def entries(name: str, *shape: int) -> torch.Tensor:
    """Sample a table of numbers."""
    return pyro.sample(name, NARROW.expand(list(shape)).to_event(len(shape)))


def program(step: Step, *, crowd: bool = True) -> Any:
    """Return the preferences of a service."""

    def service(x: mfg.RewardInputs) -> Any:
        n, c = step.kinds, x.capacity.codes
        cuts, adds = x.action == "cut", x.action == "add"
        cut, lift, level, end = (
            entries("cut", n), entries("lift", n), entries("level", n, 6), entries("end", n, 6),
        )  # fmt: skip
        tilt = entries("tilt", n, 2) if step.slope else None
        answer = entries("crowd", n) if crowd else None
        k: Any = 0
        if n > 1:
            share = pyro.sample("share", dist.Dirichlet(torch.ones(n)))
            with x.agents:
                k = pyro.sample("kind", dist.Categorical(share))
        reward = cut[k] * cuts + lift[k] * adds + level[k, c]
        if answer is not None:
            below = x.share(capacity=0) + x.share(capacity=1)
            reward = reward + answer[k] * adds * (below - capacity.USUAL)
        if tilt is not None:
            reward = reward + x.level * (tilt[k, 0] * cuts + tilt[k, 1] * adds)
        parts = {"terminal": end[k, c]}
        if step.weeks:
            parts["shock"] = shocks(x, step)
        return mfg.Preferences(reward, **parts)

    return service


def shocks(x: mfg.RewardInputs, step: Step) -> Any:
    """Return what weeks add to both moves, unforeseen."""
    total = torch.zeros(())
    for name, action in (("cuts", "cut"), ("adds", "add")):
        effect = mfg.period_effects(x, name, WIDE)
        if step.slope:
            effect = effect + x.level * mfg.period_effects(x, f"{name}_slope", WIDE)
        total = total + effect * (x.action == action)
    return total


def model_of(step: Step, *, crowd: bool = True) -> mfg.TrajectoryModel:
    """Return the trajectory model of a step."""
    return mfg.TrajectoryModel(game(), program(step, crowd=crowd), observed())


# %% [markdown]
# ## Inference and checks
#
# Maximum likelihood. Failure: statistics of the panel that panels drawn from the fit do not have.


# %%
def rows_of(number: int) -> list[dict[str, Any]]:
    """Return the row of a step: its fit, its check and what is left of the crowd."""
    step = STEPS[number]
    model = model_of(step)
    point = fit(model)
    others = point.params[[k for k in point.params.index if not k.startswith("crowd")]]
    ratio = 2 * (point.llf - fit(model_of(step, crowd=False), others).llf)
    worth, error = crowd_of(point, "carrier")
    check = mfg.predictive_check(model, point, draws=200, random_seed=SEED)
    known = len(point.theta) - len(point.curvature.flat)
    return [
        {"panel": number, "model": step.label, "log likelihood": point.llf, "known": known,
         "BIC": known * np.log(model.panel.n_trajectories) - 2 * point.llf, "ratio": ratio,
         "df": step.kinds, "crowd": worth, "s.e. by carrier": error,
         "statistics unlike": int((check.table["p"] < 0.05).sum()), "unlike": unlike(check),
         "verdict": bool(check.passed), "converged": point.converged}
    ]  # fmt: skip


# %% [markdown]
# ## Answer
#
# The tables in `--out`; they are read in `docs/capacity.md`.


# %%
def main(quick: bool, out: Path) -> None:
    """Fit, check and write tables."""
    out.mkdir(parents=True, exist_ok=True)
    steps = at(QUICK if quick else range(len(STEPS)), rows_of, out / "steps_found.csv")
    table = steps.drop(columns=["panel", "unlike", "verdict", "converged"])
    write_table(table, out, "steps", fixed(1), csv=False)
    write_table(steps[["model", "unlike"]], out, "unlike", csv=False)


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="the first step alone")
