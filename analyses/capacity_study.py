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
"""Airline capacity, step by step from a naive reward to one that predicts."""

import functools
import warnings
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

import mfgppl as mfg
from mfgppl.models import capacity
from mfgppl.plots.style import BAND, DOT

ACTIONS = ["cut", "keep", "add"]
TOWARDS_POOLED = 1.0  # pseudo-count of the pooled law of a week's move
SEED = 1
NARROW, WIDE = dist.Normal(0.0, 3.0), dist.Normal(0.0, 10.0)
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "capacity_study"


class Step(NamedTuple):
    """What a model has, beside a number for each bin of capacity and for each at the end.

    Attributes
    ----------
    label : str
        Its name.
    crowd : bool
        Whether adding is worth more where many of one's own airport fly well below normal.
    weeks, slope : bool
        Shocks of weeks, and those that depend on the level.
    kinds : int
        Unseen kinds of services.
    last : bool
        Whether moves cost otherwise by bin and by the last move, which is part of the state.
    moving : bool
        Whether the law of the level's move is each week's own.
    """

    label: str
    crowd: bool = True
    weeks: bool = True
    slope: bool = False
    kinds: int = 1
    last: bool = False
    moving: bool = False


STEPS = (
    Step("bins and the end", weeks=False),
    Step("weeks free"),
    Step("weeks by level, two kinds", kinds=2, slope=True),
    Step("one kind, last moves, no crowd", crowd=False, slope=True, last=True, moving=True),
    Step("three kinds of it", crowd=False, kinds=3, slope=True, last=True, moving=True),
)
NAIVE, FINAL = 0, 4
QUICK = (NAIVE,)

# %% [markdown]
# ## Data
#
# The bundled panel. The airport is a type that is seen, and a service's crowd is its airport: three
# crowds, which differ within a week. The last move, part of the state in the last steps, counts as
# keeping in the first week, when none was seen. Steps without a crowd have one population.


# %%
def types_of(step: Step) -> list[str]:
    """Return what never changes in a service, and is seen."""
    return ["airport"] * step.crowd


@functools.cache
def observed(last: bool, types: tuple[str, ...]) -> mfg.Trajectories:
    """Return the panel, with the last move in the state if asked for."""
    frame = mfg.datasets.nyc_flights()
    frame["last"] = frame.groupby("service")["action"].shift().fillna("keep")
    labels = {"capacity": list(range(6)), "last": ACTIONS}
    state = ["capacity", *["last"] * last]
    groups = [name for name in capacity.GROUPS if name not in types]
    return mfg.Trajectories.from_frame(
        frame, agent="service", time="week", state=state, action="action", types=list(types),
        groups=groups, state_labels={k: labels[k] for k in state}, action_labels=ACTIONS,
    )  # fmt: skip


def moves_of(step: Step) -> np.ndarray:
    """Return the law of the next state, pooled over weeks or, shrunk to that, by week."""
    panel = observed(False, ())
    law = panel.estimate_transition().probabilities.values
    if step.moving:
        by_week = panel.estimate_transition(by_time=True, prior_count=1e-9, support="all")
        counts = by_week.counts.values + TOWARDS_POOLED * law
        law = counts / counts.sum(-1, keepdims=True)
    if not step.last:
        return law
    *times, n, _, _ = law.shape
    full = np.zeros((*times, n, 3, 3, n, 3))
    for a in range(3):  # the last move is the one that was made
        full[..., :, :, a, :, a] = law[..., :, None, a, :]
    return full.reshape(*times, 3 * n, 3, 3 * n)


@functools.cache
def game(step: Step) -> mfg.MeanFieldGame:
    """Return the game of a step."""
    panel = observed(step.last, tuple(types_of(step)))
    return mfg.MeanFieldGame(
        types={name: panel.space.coordinates[name] for name in types_of(step)},
        meets="airport" if step.crowd else "everyone",
        states=panel.space.within.coordinates, actions=ACTIONS, horizon=panel.horizon,
        transition=moves_of(step), initial=panel.initial_distribution(), discount=0.9,
        features={"level": ("capacity", capacity.CENTRES / 0.1)},
    )  # fmt: skip


# %% [markdown]
# ## Model
#
# All numbers but those of weeks and `table` are each kind's own. `crowd` is what adding
# is worth more where all services of one's airport fly well below normal than where none does.


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
        tilt = entries("tilt", n, 2) if step.slope and not step.last else None
        after = entries("after", n, 2, 2) if step.last else None
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
        if after is not None:
            for j, last in enumerate(("cut", "add")):
                moved = x.last == last
                reward = reward + moved * (after[k, j, 0] * cuts + after[k, j, 1] * adds)
            table = entries("table", 2, 6, 3)
            reward = reward + table[0][c, x.last.codes] * cuts + table[1][c, x.last.codes] * adds
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
    panel = observed(step.last, tuple(types_of(step)))
    return mfg.TrajectoryModel(game(step), program(step, crowd=crowd), panel)


# %% [markdown]
# ## Inference and checks
#
# Maximum likelihood. Failure: statistics of the panel that panels drawn from the fit do not have.


# %%
def fit(model: mfg.TrajectoryModel, init: Any = None) -> Any:
    """Return the maximum likelihood estimate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constants of all bins are not identified: a column
        return mfg.mle(model, init=init, svi_steps=0, flow_bias=False, progressbar=False)


def answer_of(point: Any) -> tuple[float, float]:
    """Return the crowd's coefficient, mean over kinds by share, and its error by carrier."""
    names = [name for name in point.params.index if name.startswith("crowd")]
    weights = np.ones(1) if point.kinds is None else point.kinds.mean().to_numpy()
    covariance = point.cov_params("cluster", groups="carrier").loc[names, names].to_numpy()
    return float(weights @ point.params[names]), float(np.sqrt(weights @ covariance @ weights))


def rows_of(number: int, out: Path) -> list[dict[str, Any]]:
    """Return the row of a step: its fit, its check and what is left of the crowd."""
    step = STEPS[number]
    model = model_of(step, crowd=step.crowd)
    point = fit(model)
    point.params.to_csv(out / f"parameters_{number}.csv")
    ratio, worth, error = np.nan, np.nan, np.nan
    if step.crowd:
        others = point.params[[k for k in point.params.index if not k.startswith("crowd")]]
        ratio = 2 * (point.llf - fit(model_of(step, crowd=False), others).llf)
        worth, error = answer_of(point)
    check = mfg.predictive_check(model, point, draws=200, random_seed=SEED)
    if number in (NAIVE, FINAL):
        check.arrays["choice_by_time"].to_dataframe().to_csv(out / f"by_week_{number}.csv")
    check.table.to_csv(out / f"check_{number}.csv")
    known = len(point.theta) - len(point.curvature.flat)
    return [
        {"panel": number, "model": step.label, "log likelihood": point.llf, "known": known,
         "BIC": known * np.log(model.panel.n_trajectories) - 2 * point.llf, "ratio": ratio,
         "df": step.kinds * step.crowd, "crowd": worth, "s.e. by carrier": error,
         "statistics unlike": int((check.table["p"] < 0.05).sum()), "unlike": unlike(check),
         "verdict": bool(check.passed), "converged": point.converged}
    ]  # fmt: skip


# %% [markdown]
# ## Answer
#
# The tables and figures in `--out`; they are read in `docs/capacity.md`.


# %%
def draw_adds(out: Path) -> plt.Figure:
    """Draw observed shares of adding by week with predictive bands, naive and at the end."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
    for axis, number in zip(axes, (NAIVE, FINAL), strict=True):
        table = pd.read_csv(out / f"by_week_{number}.csv")
        adds = table[table["action"] == "add"]
        axis.fill_between(adds["time"], adds["lower"], adds["upper"], color=BAND, lw=0)
        axis.plot(adds["time"], adds["observed"], "o-", color=DOT, ms=3, lw=0.8)
        axis.set_title(STEPS[number].label, fontsize=11)
        axis.set_xlabel("week")
    axes[0].set_ylabel("share of services that add")
    return figure


def main(quick: bool, out: Path) -> None:
    """Fit, check and write tables and figures."""
    out.mkdir(parents=True, exist_ok=True)
    numbers = QUICK if quick else range(len(STEPS))
    steps = at(numbers, functools.partial(rows_of, out=out), out / "steps_found.csv")
    table = steps.drop(columns=["panel", "unlike", "verdict", "converged"])
    write_table(table, out, "steps", fixed(1), csv=False)
    write_table(steps[["model", "unlike"]], out, "unlike", csv=False)
    if quick:
        return
    check = pd.read_csv(out / f"check_{FINAL}.csv").drop(columns=["lower", "upper"])
    write_table(check, out, "check", csv=False)
    write_figure(draw_adds(out), out, "adds")


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="the first step alone")
