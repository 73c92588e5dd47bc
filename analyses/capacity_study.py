# %% [markdown]
# # Do airlines answer the crowd, once weeks and kinds of services are free?
#
# **Question.** A service cuts, keeps or adds weekly flights. How much of what speaks for the crowd
# of other services is left once each week has shocks of its own, and services are of several
# kinds? Does the model predict what was seen?
#
# Run `python analyses/capacity_study.py` (six minutes on one core) or, for a small version,
# `python analyses/capacity_study.py --quick`. A run that was stopped goes on where it was.

# %%
"""Airline capacity: what is left of the crowd beside weeks and kinds of services."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from output import fixed, run, write_figure, write_table
from pricing_study import at, unlike
from steps import crowd_of, fit

import mfgppl as mfg
from mfgppl.models import capacity
from mfgppl.plots.style import BAND, DOT

ACTIONS = ["cut", "keep", "add"]
TOWARDS_POOLED = 1.0  # pseudo-count of the pooled law of a week's move
WEEKS, FIVES = 51, np.arange(1, 42, 5)  # decisions; changes of action, by fives
NEVER = 30.0  # reward units that a move costs those who never move
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
        Unseen kinds of services that move.
    last : bool
        Whether the last move is part of the state, each move with a worth after each other in each
        bin, and the law of the next bin each week's own.
    airports : bool
        Whether each airport has a worth of its own of each move in each bin.
    still : bool
        Whether there is a kind that never moves, and each other kind answers its last move in its
        own way.
    """

    label: str
    weeks: bool = True
    slope: bool = False
    kinds: int = 1
    last: bool = False
    airports: bool = False
    still: bool = False


LAST = {"slope": True, "last": True}
STEPS = (
    Step("bins and the end", weeks=False),
    Step("weeks free"),
    Step("weeks by level", slope=True),
    Step("weeks by level, two kinds", slope=True, kinds=2),
    Step("and the last move by bin, capacity moving by week", kinds=2, **LAST),
    Step("and airports by bin", kinds=2, airports=True, **LAST),
    Step("and services that never move", kinds=2, airports=True, still=True, **LAST),
    Step("the same, weeks not by level", kinds=2, airports=True, still=True, last=True),
)
BEFORE, FINAL = 3, 6  # the steps that are drawn
QUICK = (0,)

# %% [markdown]
# ## Data
#
# The bundled panel. The airport is a type that is seen, and a service's crowd is its airport: three
# crowds, which differ within a week. The last move, in the first week, when none was seen, counts
# as keeping.


# %%
def coordinates(step: Step) -> dict[str, list[Any]]:
    """Return what a state is made of, and its labels."""
    return {"capacity": list(range(6))} | ({"last": ACTIONS} if step.last else {})


@functools.cache
def observed(*names: str) -> mfg.Trajectories:
    """Return the panel by the coordinates named."""
    frame = mfg.datasets.nyc_flights()
    frame["last"] = frame.groupby("service")["action"].shift().fillna("keep")
    labels = {"capacity": list(range(6)), "last": ACTIONS}
    return mfg.Trajectories.from_frame(
        frame, agent="service", time="week", state=list(names), action="action", types=["airport"],
        groups=["carrier", "dest"], action_labels=ACTIONS,
        state_labels={name: labels[name] for name in names},
    )  # fmt: skip


def moves_of(step: Step) -> np.ndarray:
    """Return the law of the next state, pooled over weeks or, shrunk to that, by week."""
    panel = observed("capacity")
    law = panel.estimate_transition().probabilities.values
    if not step.last:
        return law
    by_week = panel.estimate_transition(by_time=True, prior_count=1e-9, support="all")
    counts = by_week.counts.values + TOWARDS_POOLED * law
    law = counts / counts.sum(-1, keepdims=True)
    full = np.zeros((len(law), 6, 3, 3, 6, 3))
    for a in range(3):  # the last move is the one that was made
        full[..., a, :, a] = law[:, :, None, a, :]
    return full.reshape(len(law), 18, 3, 18)


@functools.cache
def game(step: Step) -> mfg.MeanFieldGame:
    """Return the game, whose services meet those of their own airport."""
    panel = observed(*coordinates(step))
    return mfg.MeanFieldGame(
        types={"airport": panel.space.coordinates["airport"]}, meets="airport",
        states=coordinates(step), actions=ACTIONS, horizon=panel.horizon,
        transition=moves_of(step), initial=panel.initial_distribution(),
        discount=0.9, features={"level": ("capacity", capacity.CENTRES / 0.1)},
    )  # fmt: skip


# %% [markdown]
# ## Model
#
# All numbers are each kind's own but those of weeks, of `table` and of `port`. `crowd` is what
# adding is worth more where all services of one's airport fly well below normal than where none
# does. A service that never moves stays at its regular schedule, and is there in the first week.


# %%
def entries(name: str, *shape: int) -> torch.Tensor:
    """Sample a table of numbers."""
    return pyro.sample(name, NARROW.expand(list(shape)).to_event(len(shape)))


def kind_of(x: mfg.RewardInputs, step: Step) -> Any:
    """Return the kind of a service, the last of which never moves."""
    n = step.kinds
    if n + step.still == 1:
        return torch.zeros((), dtype=torch.long)
    if not step.still:
        law = dist.Categorical(pyro.sample("share", dist.Dirichlet(torch.ones(n))))
    else:
        regular = x.first_state.capacity == 3
        odds, more = entries("odds", n - 1), entries("odds_regular", n - 1)
        logs = [odds[j] + more[j] * regular for j in range(n - 1)]
        logs += [torch.zeros(()), entries("odds_still", 1)[0] - NEVER * ~regular]
        law = dist.Categorical(logits=torch.stack(torch.broadcast_tensors(*logs), -1))
    with x.agents:
        return pyro.sample("kind", law)


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
        after = entries("after", n, 2, 2) if step.still else None
        kind = kind_of(x, step)
        k = kind % n  # the kind that never moves has no numbers
        reward = cut[k] * cuts + lift[k] * adds + level[k, c]
        if answer is not None:
            below = x.share(capacity=0) + x.share(capacity=1)
            reward = reward + answer[k] * adds * (below - capacity.USUAL)
        if tilt is not None:
            reward = reward + x.level * (tilt[k, 0] * cuts + tilt[k, 1] * adds)
        if after is not None:
            for j, last in enumerate(("cut", "add")):
                moved = x.last == last
                reward = reward + moved * (after[k, j, 0] * cuts + after[k, j, 1] * adds)
        if step.last:
            table = entries("table", 2, 6, 3)
            reward = reward + table[0][c, x.last.codes] * cuts + table[1][c, x.last.codes] * adds
        if step.airports:
            port, a = entries("port", 2, 3, 6), x.airport.codes
            reward = reward + port[0][a, c] * cuts + port[1][a, c] * adds
        parts = {"terminal": end[k, c]}
        if step.weeks:
            parts["shock"] = shocks(x, step)
        if step.still:
            moves = kind < n
            reward = moves * reward - NEVER * ~moves * (cuts + adds)
            parts = {name: moves * part for name, part in parts.items()}
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
    panel = observed(*coordinates(step))
    return mfg.TrajectoryModel(game(step), program(step, crowd=crowd), panel)


# %% [markdown]
# ## Inference and checks
#
# Maximum likelihood. Failure: statistics of the panel that panels drawn from the fit do not have.


# %%
def start_of(model: mfg.TrajectoryModel, before: Any) -> dict[str, np.ndarray]:
    """Return where to start, from a fit with fewer numbers: a further kind moves less.

    Parameters
    ----------
    model : TrajectoryModel
        The model to fit.
    before : Series
        Estimates of the other by name.
    """
    start = {}
    for site, shape in model.sites.items():
        known = before[[name.split("[")[0] == site for name in before.index]].to_numpy()
        if len(known):
            start[site] = np.resize(known, tuple(shape))
            if site in ("cut", "lift") and len(known) < len(start[site]):
                start[site] = start[site] - np.arange(len(start[site]))
    return start


@functools.cache
def fitted(number: int, *, crowd: bool = True) -> Any:
    """Return the fit of a step; kinds start from the step before."""
    model = model_of(STEPS[number], crowd=crowd)
    if crowd and STEPS[number].kinds == 1:
        return fit(model)
    return fit(model, start_of(model, fitted(number - 1 if crowd else number).params))


def rows_of(number: int, out: Path) -> list[dict[str, Any]]:
    """Return the row of a step: its fit, its check and what is left of the crowd."""
    step, point = STEPS[number], fitted(number)
    ratio = 2 * (point.llf - fitted(number, crowd=False).llf)
    worth, error = crowd_of(point, "carrier")
    model = model_of(step)
    check = mfg.predictive_check(model, point, draws=200, random_seed=SEED)
    if number in (BEFORE, FINAL):
        changes_of(model, point).to_csv(out / f"changes_{number}.csv", index=False)
    if number == FINAL:
        check.table.to_csv(out / "check.csv")
    known = len(point.theta) - len(point.curvature.flat)
    return [
        {"panel": number, "model": step.label, "log likelihood": point.llf, "known": known,
         "BIC": known * np.log(model.panel.n_trajectories) - 2 * point.llf, "ratio": ratio,
         "df": step.kinds, "crowd": worth, "s.e. by carrier": error,
         "statistics unlike": int((check.table["p"] < 0.05).sum()), "unlike": unlike(check),
         "verdict": bool(check.passed), "converged": point.converged}
    ]  # fmt: skip


def changes(panel: mfg.Trajectories) -> np.ndarray:
    """Return how many services change their action so often, by fives, and how many never do."""
    pairs = np.diff(panel.action.reshape(panel.n_trajectories, -1)[:, :WEEKS]) != 0
    number = pairs.sum(1)
    return np.array([(number == 0).sum(), *np.histogram(number, FIVES)[0]])


def changes_of(model: mfg.TrajectoryModel, point: Any) -> pd.DataFrame:
    """Return numbers of services by changes of action, seen and in panels drawn."""
    check = mfg.predictive_check(
        model, point, statistics={"changes": changes}, draws=200, random_seed=SEED
    )
    table = check.arrays["changes"].drop_vars("deviation").to_dataframe().reset_index(drop=True)
    return table.assign(changes=["0", *(f"{a}-{a + 4}" for a in FIVES[:-1])])


# %% [markdown]
# ## Figures


# %%
def draw_changes(axis: Any, table: pd.DataFrame, title: str) -> None:
    """Draw how often services change their action, seen and in 90 % bands of panels drawn."""
    rows = np.arange(len(table))
    height = table["upper"] - table["lower"]
    axis.bar(rows, height, bottom=table["lower"], width=0.8, color=BAND)
    axis.plot(rows, table["observed"], "o", color=DOT, ms=4)
    axis.set_xticks(rows, table["changes"], fontsize=8)
    axis.set_xlabel("changes of action in a year")
    axis.set_ylabel("services")
    axis.set_title(title, fontsize=11)


def figure(out: Path) -> None:
    """Write the figure of how often services change their action."""
    drawing, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
    for axis, number in zip(axes, (BEFORE, FINAL), strict=True):
        title = STEPS[number].label.capitalize()
        draw_changes(axis, pd.read_csv(out / f"changes_{number}.csv"), title)
    write_figure(drawing, out, "changes")


# %% [markdown]
# ## Answer
#
# The tables in `--out`; they are read in `docs/capacity.md`.


# %%
def main(quick: bool, out: Path) -> None:
    """Fit, check and write tables."""
    out.mkdir(parents=True, exist_ok=True)
    numbers = QUICK if quick else range(len(STEPS))
    steps = at(numbers, functools.partial(rows_of, out=out), out / "steps_found.csv")
    table = steps.drop(columns=["panel", "unlike", "verdict", "converged"])
    write_table(table, out, "steps", fixed(1), csv=False)
    write_table(steps[["model", "unlike"]], out, "unlike", csv=False)
    if quick:
        return
    check = pd.read_csv(out / "check.csv")
    write_table(check.drop(columns=["lower", "upper"]), out, "check", csv=False)
    figure(out)


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="the first step alone")
