# %% [markdown]
# # Do the products of a supermarket follow the crowd?
#
# **Question.** 534 products of one chain lower, hold or raise their prices each month. Does a
# product like to stand where the others stand? What is left of the crowd once months, ends, kinds
# of products and their last moves are in the model, and does the model predict what was seen?
#
# Run `python analyses/pricing_study.py` (about five minutes on one core) or, for a small version,
# `python analyses/pricing_study.py --quick`. A run that was stopped goes on where it was.

# %%
"""Price setting in a supermarket, step by step from a naive reward to one that predicts."""

import functools
from collections.abc import Callable
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
from steps import crowd_of, fit

import mfgppl as mfg
from mfgppl.models import pricing
from mfgppl.plots.style import BAND, DOT, GREY, INK

ACTIONS = ["lower", "hold", "raise"]
LABELS = {"margin": list(range(6)), "stock": ["low", "normal"], "last": ACTIONS}
NODES = 5  # of a random coefficient
TOWARDS_POOLED = 1.0  # pseudo-count of the pooled law of a month's move
SEED = 1
Law = Callable[[str], Any]
NARROW, WIDE = dist.Normal(0.0, 3.0), dist.Normal(0.0, 10.0)
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "pricing_study"
README = Path(__file__).resolve().parents[1] / "docs" / "_static"


class Step(NamedTuple):
    """What a model has.

    Attributes
    ----------
    label : str
        What it adds to the one before.
    bins, end, tilt, slope : bool
        A number for each bin of the margin, and for each bin at the end; costs of moving that
        depend on the margin; shocks of months that do.
    months : bool
        Whether each month has unforeseen shocks of its own.
    kinds : int
        Unseen kinds of products.
    last : str
        "one" number for each move after each other, "by bin", or nothing of the last move.
    stock : bool
        Whether the stock is part of the state.
    moving : bool
        Whether the law of the margin's move is each month's own.
    varied : bool
        Whether each product has a pace and a habit of its own, random coefficients of moving and
        of doing what it did last.
    """

    label: str
    bins: bool = True
    end: bool = True
    tilt: bool = False
    slope: bool = False
    months: bool = True
    kinds: int = 1
    last: str = ""
    stock: bool = False
    moving: bool = False
    varied: bool = False


SLOPED = {"tilt": True, "slope": True}
STEPS = (
    Step("a herd", bins=False, end=False, months=False),
    Step("bins free", end=False, months=False),
    Step("what the end is worth", months=False),
    Step("months free"),
    Step("months by margin", **SLOPED),
    Step("months, two kinds", kinds=2),
    Step("months by margin, two kinds", kinds=2, **SLOPED),
    Step("and the last move", kinds=2, last="one", **SLOPED),
    Step("and by bin, margins moving by month", kinds=2, last="by bin", moving=True, slope=True),
    Step("the same, three kinds", kinds=3, last="by bin", moving=True, slope=True),
    Step("the same, one kind", last="by bin", moving=True, slope=True),
    Step("one kind, with the stock", last="by bin", moving=True, slope=True, stock=True),
    Step("one kind, pace and habit vary", last="by bin", moving=True, slope=True, varied=True),
)
HERD, FINAL = 0, 12  # the steps that are drawn
QUICK = (HERD,)
LEFT = ["ratio", "df", "crowd", "clustered s.e.", "statistics unlike"]  # of the crowd
STORY = [STEPS[n].label for n in (0, 2, 3, 4, 6, 7, 8, 12)]
SHORT = [STEPS[n].label for n in (0, 2, 3, 4, 12)]

# %% [markdown]
# ## Data
#
# The bundled panel. A state is one of six bins of the margin; later also the stock, and the last
# move, which in the first month, when none was seen, counts as holding.


# %%
def coordinates(step: Step) -> list[str]:
    """Return what a state is made of."""
    return ["margin", *["stock"] * step.stock, *["last"] * bool(step.last)]


@functools.cache
def observed(names: tuple[str, ...]) -> mfg.Trajectories:
    """Return the panel by the coordinates named."""
    frame = mfg.datasets.supermarket_pricing().rename(columns={"inventory": "stock"})
    frame["last"] = frame.groupby("product")["action"].shift().fillna("hold")
    return mfg.Trajectories.from_frame(
        frame, agent="product", time="month", state=list(names), action="action",
        state_labels={name: LABELS[name] for name in names}, action_labels=ACTIONS,
    )  # fmt: skip


def moves_of(step: Step) -> np.ndarray:
    """Return the law of the next state, pooled over months or, shrunk to that, by month."""
    panel = observed(tuple(name for name in coordinates(step) if name != "last"))
    law = panel.estimate_transition(prior_count=0.1 * step.stock).probabilities.values
    if step.moving:
        by_month = panel.estimate_transition(by_time=True, prior_count=1e-9, support="all")
        counts = by_month.counts.values + TOWARDS_POOLED * law
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
    panel = observed(tuple(coordinates(step)))
    return mfg.MeanFieldGame(
        states={name: LABELS[name] for name in coordinates(step)}, actions=ACTIONS,
        horizon=panel.horizon, transition=moves_of(step), initial=panel.initial_distribution(),
        features={"level": ("margin", pricing.CENTRES / 0.1)},
    )  # fmt: skip


def last_moves() -> pd.DataFrame:
    """Return the shares of moves after each last move, at the usual margin."""
    frame = mfg.datasets.supermarket_pricing()
    frame["last move"] = frame.groupby("product")["action"].shift()
    usual = frame[(frame["margin"] == 3) & frame["action"].notna()]
    shares = pd.crosstab(usual["last move"], usual["action"], normalize="index")
    return shares.loc[ACTIONS, ACTIONS].reset_index()


# %% [markdown]
# ## Model
#
# What a product may care about; all numbers but those of months and of `table` are each kind's own.
# `crowd` is the worth of company: of the share of all products in one's own bin of the margin.


# %%
def entries(name: str, *shape: int) -> torch.Tensor:
    """Sample a table of numbers."""
    return pyro.sample(name, NARROW.expand(list(shape)).to_event(len(shape)))


def free(name: str) -> Any:
    """Return the law of months that have nothing in common."""
    return WIDE


def shocks(x: mfg.RewardInputs, step: Step, law: Law) -> Any:
    """Return what months add to both moves, unforeseen."""
    total = torch.zeros(())
    for name, action in (("cuts", "lower"), ("lifts", "raise")):
        effect = mfg.period_effects(x, name, law(name))
        if step.slope:
            effect = effect + x.level * mfg.period_effects(x, f"{name}_slope", law(f"{name}_slope"))
        total = total + effect * (x.action == action)
    return total


def own_taste(x: mfg.RewardInputs, nodes: int) -> Any:
    """Return what each product likes in its own measure: to move, and to do what it did last."""
    spread = pyro.sample("spread", dist.HalfNormal(1.0).expand([2]).to_event(1))
    with x.agents(nodes=nodes):
        pace = pyro.sample("pace", dist.Normal(0.0, spread[0]))
        habit = pyro.sample("habit", dist.Normal(0.0, spread[1]))
    return pace * (x.action != "hold") + habit * (x.action == x.last)


def program(step: Step, *, crowd: bool = True, nodes: int = NODES, law: Law = free) -> Any:
    """Return the preferences of a product; `law` gives the prior of each kind of month's shock."""

    def product(x: mfg.RewardInputs) -> Any:
        n, m = step.kinds, x.margin.codes
        low, up = x.action == "lower", x.action == "raise"
        cut, lift = entries("cut", n), entries("lift", n)
        level = entries("level", n, 6 if step.bins else 2)
        end = entries("end", n, 6) if step.end else None
        tilt = entries("tilt", n, 2) if step.tilt else None
        stock = entries("stock_low", n, 3) if step.stock else None
        after = entries("after", n, 2, 2) if step.last else None
        company = entries("crowd", n) if crowd else None
        k: Any = 0
        if n > 1:
            share = pyro.sample("share", dist.Dirichlet(torch.ones(n)))
            with x.agents:
                k = pyro.sample("kind", dist.Categorical(share))
        own: Any = own_taste(x, nodes) if step.varied else 0.0
        reward = own + cut[k] * low + lift[k] * up
        reward = reward + (
            level[k, m] if step.bins else level[k, 0] * x.level + level[k, 1] * x.level**2
        )
        if company is not None:
            met = sum((x.margin == q) * x.share(margin=q) for q in range(6))
            reward = reward + company[k] * met
        if tilt is not None:
            reward = reward + x.level * (tilt[k, 0] * low + tilt[k, 1] * up)
        if after is not None:
            for j, last in enumerate(("lower", "raise")):
                moved = x.last == last
                reward = reward + moved * (after[k, j, 0] * low + after[k, j, 1] * up)
        if step.last == "by bin":
            table = entries("table", 2, 6, 3)
            reward = reward + table[0][m, x.last.codes] * low + table[1][m, x.last.codes] * up
        if stock is not None:
            costs = stock[k, 0] * low + stock[k, 1] * up + stock[k, 2]
            reward = reward + (x.stock == "low") * costs
        parts = {} if end is None else {"terminal": end[k, m]}
        if step.months:
            parts["shock"] = shocks(x, step, law)
        return mfg.Preferences(reward, **parts)

    return product


def model_of(step: Step, *, crowd: bool = True, nodes: int = NODES) -> mfg.TrajectoryModel:
    """Return the trajectory model of a step."""
    panel = observed(tuple(coordinates(step)))
    return mfg.TrajectoryModel(game(step), program(step, crowd=crowd, nodes=nodes), panel)


# %% [markdown]
# ## Inference and checks
#
# Maximum likelihood. Failure: statistics of the panel that panels drawn from the fit do not have.


# %%
def unlike(check: Any) -> str:
    """Return the statistics outside chance, with their size in plain units."""
    said = []
    for name, row in check.table[check.table["p"] < 0.05].iterrows():
        if name not in check.arrays:
            said.append(f"{name} {row['observed']:.3g} seen, {row['mean']:.3g} drawn")
            continue
        array = check.arrays[name]
        gap = 100 * abs(array["observed"] - array["mean"])
        said.append(f"{name} by {float(gap.mean()):.1f} points on average")
    return "; ".join(said) or "nothing"


def beyond(model: mfg.TrajectoryModel, point: Any) -> pd.DataFrame:
    """Return how much products differ in ways that no built-in statistic asks for."""

    def over_products(count: Any) -> Any:
        def spread(panel: mfg.Trajectories) -> float:
            shape = (panel.n_trajectories, -1)
            moves, margin = panel.action.reshape(shape), panel.state.reshape(shape) // len(ACTIONS)
            return float(count(moves[:, : model.panel.horizon], margin).sum(1).std())

        return spread

    asked = {
        "cuts and raises": lambda moves, margin: moves != 1,
        "cuts": lambda moves, margin: moves == 0,
        "raises": lambda moves, margin: moves == 2,
        "holds after holds": lambda moves, margin: (moves[:, 1:] == 1) & (moves[:, :-1] == 1),
        "months at the usual margin": lambda moves, margin: margin == 3,
        "changes of the margin's bin": lambda moves, margin: np.diff(margin) != 0,
    }
    statistics = {name: over_products(count) for name, count in asked.items()}
    check = mfg.predictive_check(model, point, statistics=statistics, draws=400, random_seed=SEED)
    return check.table.loc[list(asked), ["observed", "mean", "p"]]


def by_nodes(step: Step, point: Any) -> pd.DataFrame:
    """Return the log likelihood at the estimates under more nodes of each coefficient."""
    finer = {n: mfg.log_likelihood(model_of(step, nodes=n), point) for n in (NODES, 7, 9)}
    rows = [{"nodes": n, "log likelihood": float(each.sum())} for n, each in finer.items()]
    return pd.DataFrame(rows)


def rows_of(number: int, out: Path) -> list[dict[str, Any]]:
    """Return the row of a step: its fit, its check and what is left of the crowd."""
    step = STEPS[number]
    model, without = model_of(step), model_of(step, crowd=False)
    point = fit(model)
    known_ones = point.params[[k for k in point.params.index if not k.startswith("crowd")]]
    ratio = 2 * (point.llf - fit(without, known_ones).llf)
    draws = 1000 if number == FINAL else 200
    check = mfg.predictive_check(model, point, draws=draws, random_seed=SEED)
    if number == FINAL:
        point.params.to_csv(out / f"params_{number}.csv", header=["value"])
        beyond(model, point).to_csv(out / "beyond_found.csv")
        by_nodes(step, point).to_csv(out / "nodes_found.csv", index=False)
    if number in (HERD, FINAL):
        by_month = check.arrays["choice_by_time"].drop_vars("deviation").to_dataframe()
        by_month.to_csv(out / f"by_month_{number}.csv")
        check.table.to_csv(out / f"check_{number}.csv")
    known = len(point.theta) - len(point.curvature.flat)
    worth, error = crowd_of(point)
    return [
        {"panel": number, "model": step.label, "log likelihood": point.llf, "known": known,
         "BIC": known * np.log(model.panel.n_trajectories) - 2 * point.llf,
         "ratio": ratio, "df": step.kinds, "crowd": worth, "clustered s.e.": error,
         "statistics unlike": int((check.table["p"] < 0.05).sum()), "unlike": unlike(check),
         "verdict": bool(check.passed), "converged": point.converged}
    ]  # fmt: skip


# %% [markdown]
# ## Figures


# %%
def draw_steps(axis: Any, steps: pd.DataFrame) -> None:
    """Draw the likelihood ratio that speaks for the crowd, step by step."""
    rows = np.arange(len(steps))
    colours = [GREY if unlike else INK for unlike in steps["statistics unlike"]]
    axis.barh(rows, steps["ratio"], color=colours)
    note = "dark: panels drawn are like the one seen\nin all seven built-in statistics"
    axis.text(0.97, 0.06, note, transform=axis.transAxes, ha="right", fontsize=8, color=INK)
    for row, value in zip(rows, steps["ratio"], strict=True):
        axis.text(value + 4, row, f"{value:.0f}", va="center", fontsize=8)
    axis.set_yticks(rows, steps["model"], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * steps["ratio"].max())
    axis.set_xlabel("likelihood ratio statistic for the crowd")
    axis.set_title("What speaks for the crowd", fontsize=11)


def draw_cuts(axis: Any, table: pd.DataFrame, title: str) -> None:
    """Draw the observed shares of cuts by month against their 90 % predictive bands."""
    cuts = table[table["action"] == "lower"]
    axis.fill_between(cuts["time"], cuts["lower"], cuts["upper"], color=BAND, lw=0)
    axis.plot(cuts["time"], cuts["observed"], "o-", color=DOT, ms=3, lw=0.8)
    axis.set_xlabel("month")
    axis.set_ylabel("share of products that cut")
    axis.set_title(title, fontsize=11)


def figures(steps: pd.DataFrame, out: Path, readme: Path | None) -> None:
    """Write the figure of the page, and that of the README."""
    by_month = {n: pd.read_csv(out / f"by_month_{n}.csv") for n in (HERD, FINAL)}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
    draw_cuts(axes[0], by_month[HERD], "A herd")
    draw_cuts(axes[1], by_month[FINAL], "Months, last moves, pace and habit")
    write_figure(figure, out, "cuts")
    if readme is None:
        return
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    draw_steps(axes[0], steps[steps["model"].isin(STORY)])
    draw_cuts(axes[1], by_month[FINAL], "Price cuts: seen (dots), last model (90% band)")
    write_figure(figure, readme, "readme", dpi=100)


# %% [markdown]
# ## Results


# %%
def main(quick: bool, out: Path) -> None:
    """Fit, check and write tables and figures."""
    out.mkdir(parents=True, exist_ok=True)
    numbers = QUICK if quick else range(len(STEPS))
    steps = at(numbers, functools.partial(rows_of, out=out), out / "steps_found.csv")
    table = steps.drop(columns=["panel", "unlike", "verdict", "converged"])
    write_table(table, out, "steps", fixed(1))
    short = table.loc[table["model"].isin(SHORT), ["model", *LEFT]]
    write_table(short, out, "steps_short", fixed(1), csv=False)
    write_table(last_moves(), out, "last_moves", fixed(2), csv=False)
    write_table(steps[["model", "unlike"]], out, "unlike", csv=False)
    if quick:
        return
    check = pd.read_csv(out / f"check_{FINAL}.csv")
    write_table(check.drop(columns=["lower", "upper"]), out, "check", csv=False)
    write_table(pd.read_csv(out / "beyond_found.csv"), out, "beyond", csv=False)
    write_table(pd.read_csv(out / "nodes_found.csv"), out, "nodes", fixed(1), csv=False)
    figures(steps, out, README if out == OUT else None)


def at(numbers: Any, rows_at: Any, path: Path) -> pd.DataFrame:
    """Return rows of the steps named, of which a file keeps what has been worked out."""
    for number in numbers:
        found = pd.read_csv(path) if path.exists() else pd.DataFrame({"panel": []})
        if number not in set(found["panel"]):
            rows = pd.DataFrame(rows_at(number))
            rows.to_csv(path, mode="a", header=not path.exists(), index=False)
    found = pd.read_csv(path)
    return found[found["panel"].isin(numbers)].sort_values("panel", kind="stable")


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="the first step alone")
