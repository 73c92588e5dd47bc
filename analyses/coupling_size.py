# %% [markdown]
# # Which tests of coupling can be believed, and which of them see anything?
#
# **Question.** In worlds where nobody looks at anybody a test at 5 % must find coupling in one of
# twenty. Where the panel's own flow is plugged in, the textbook's chi-squared test does not. Which
# rows of `coupling_test` do, and which find coupling that is there?
#
# Run `python analyses/coupling_size.py` (about half an hour on one core) or, smaller, with
# `--quick`.

# %%
"""Size and power of the tests of coupling."""

import warnings
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
from output import run
from scipy.stats import binomtest

import mfgppl as mfg
from mfgppl._replication import replicate
from mfgppl.flows.coupling import coupling_test
from mfgppl.models import market
from mfgppl.plots.style import GREY, INK

NOMINAL = 0.05
N_AGENTS = 200
REPLICATIONS, FOLDS = 19, 2  # p = 1/20 is attained; the law of p is exact for any number
WORLDS, MARKET_WORLDS, FEW_WORLDS = 200, 100, 40  # without coupling, in either game, and with
SEED = 20251
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "coupling"

# %% [markdown]
# ## Data: two games
#
# - *roads*: drivers stay on their road or turn to the other, eight times, and turning costs 0.4.
#   They look far ahead, so that the term that is tested is nearly all future flow.
# - *market*: firms choose prices over 12 months, all from the lowest price. The crowd moves, and
#   coupling shows in how.


# %%
def roads() -> mfg.MeanFieldGame:
    """Return the game of two roads."""
    stay, turn = np.eye(2), np.eye(2)[::-1]
    return mfg.MeanFieldGame(
        states=["left", "right"], actions=["stay", "turn"], horizon=8,
        transition=np.stack([stay, turn], axis=1), initial=[0.8, 0.2],
    )  # fmt: skip


def prices() -> mfg.MeanFieldGame:
    """Return the market of 12 months that starts at the lowest price."""
    lowest = np.repeat([0.5, 0.0], [2, 6])
    return market.game().replace(horizon=12, features={}, initial=lowest)


def alone_on_roads(x: mfg.RewardInputs) -> Any:
    """Return the cost of turning."""
    return -pyro.sample("effort", dist.Normal(0.0, 10.0)) * (x.action == "turn")


def alone_in_market(x: mfg.RewardInputs) -> Any:
    """Return the value of a price less the cost of a change."""
    margin, menu_cost = (
        pyro.sample(name, dist.Normal(0.0, 10.0)) for name in ("margin", "menu_cost")
    )
    return margin * x.price - menu_cost * (x.action != "hold")


def crowded(alone: Callable[[mfg.RewardInputs], Any]) -> Callable[[mfg.RewardInputs], Any]:
    """Return a reward to which the cost of company is added."""

    def reward(x: mfg.RewardInputs) -> Any:
        return alone(x) - pyro.sample("crowding", dist.Normal(0.0, 10.0)) * x.density

    return reward


class Case(NamedTuple):
    """A game, its reward without the crowd, the truth, strengths of coupling, and flows fitted.

    And how many worlds without coupling.
    """

    game: mfg.MeanFieldGame
    alone: Callable[[mfg.RewardInputs], Any]
    truth: dict[str, float]
    strengths: tuple[float, ...]
    flows: tuple[str, ...]
    worlds: int


def cases() -> dict[str, Case]:
    """Return both games."""
    both = ("empirical", "equilibrium")
    tried = (0.0, 1.0, 2.0)
    truth = {"margin": 0.15, "menu_cost": 0.3}
    return {
        "roads": Case(roads(), alone_on_roads, {"effort": 0.4}, (0.0,), both[:1], WORLDS),
        "market": Case(prices(), alone_in_market, truth, tried, both, MARKET_WORLDS),
    }


# %% [markdown]
# ## Inference
#
# Each world is one panel of 200 agents in the equilibrium at its truth, and one call of
# `coupling_test`: of models along the panel's own flow, and of coupled models, whose flow is solved
# for. The same worlds are put to both.

# %%
LABELS = {"empirical": "", "equilibrium": "coupled "}


def tests(case: Case, strength: float, flow: str, worlds: int) -> pd.DataFrame:
    """Return p by test, one row per world; NaN where the test could not be made."""
    reward = crowded(case.alone)
    truth = case.truth | {"crowding": strength}
    world = mfg.solve_equilibrium(case.game, reward, parameters=truth, throw=True).value

    def one(seed: int) -> dict[str, float]:
        panel = mfg.simulate(
            case.game, world.policy, world.mean_field, n_agents=N_AGENTS, random_seed=seed
        )
        full, null = (
            mfg.TrajectoryModel(case.game, r, panel, mean_field=flow) for r in (reward, case.alone)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = coupling_test(
                    full, null, replications=REPLICATIONS, folds=FOLDS, random_seed=seed,
                    progressbar=False,
                )  # fmt: skip
            except (mfg.exceptions.ConvergenceError, ValueError):
                return {}
        return found.table["p"].add_prefix(LABELS[flow]).to_dict()

    return pd.DataFrame(replicate(one, worlds, random_seed=SEED, progressbar=False))


def rates(name: str, strength: float, p: pd.DataFrame, worlds: int) -> pd.DataFrame:
    """Return how often each test rejects, with a 95 % interval."""
    rows = []
    for test, values in p.items():
        known = values.dropna()
        found = binomtest(int((known <= NOMINAL).sum()), len(known))
        low, high = found.proportion_ci(0.95, "wilson")
        rows.append((name, strength, test, found.statistic, low, high, worlds - len(known)))
    columns = ["game", "coupling", "test", "rejects", "lower", "upper", "failed"]
    return pd.DataFrame(rows, columns=columns).assign(worlds=worlds)


def study(name: str, case: Case, most: int) -> pd.DataFrame:
    """Return rejection rates of a game by strength of coupling and test."""
    tables = []
    for strength in case.strengths:
        n = min(FEW_WORLDS if strength else case.worlds, most)
        for flow in case.flows:
            tables.append(rates(name, strength, tests(case, strength, flow, n), n))
            print(tables[-1].to_string(index=False), flush=True)
    return pd.concat(tables, ignore_index=True)


# %% [markdown]
# ## Checks
#
# Failure would be a bootstrap that rejects outside 3 to 8 % where there is no coupling, or a
# coupled test that does; a curve that does not rise with the strength of coupling sees nothing.
# The test by shifted flows has as many values as there are times: 8 or 12 cannot reach 5 %.

# %%
STYLES = {
    "chi-squared": ("#b03a2e", "o", "--"),
    "bootstrap ratio": ("#b03a2e", "s", "-"),
    "bootstrap estimates": ("#c2a12d", "D", "-"),
    "shifted flows": (GREY, "^", ":"),
    "held-out agents": ("#8a5a99", "v", "-"),
    "coupled chi-squared": (INK, "o", "--"),
    "coupled bootstrap ratio": (INK, "s", "-"),
    "coupled bootstrap estimates": ("#5b8fc7", "D", "-"),
}


def figure_of(table: pd.DataFrame) -> Any:
    """Draw rejection rates: without coupling by game, and by strength of coupling."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4), width_ratios=[1, 1.2])
    size = table[table["coupling"] == 0]
    places = list(STYLES)
    for shift, (name, colour) in zip(
        (-0.13, 0.13), {"roads": "#b03a2e", "market": INK}.items(), strict=True
    ):
        rows = size[size["game"] == name]
        at = [places.index(test) + shift for test in rows["test"]]
        bars = [rows["rejects"] - rows["lower"], rows["upper"] - rows["rejects"]]
        axes[0].errorbar(rows["rejects"], at, xerr=bars, fmt="o", ms=4, color=colour, label=name)
    axes[0].set_yticks(range(len(places)), places)
    axes[0].invert_yaxis()
    axes[0].set_title("no coupling", fontsize=10)
    axes[0].set_xlabel("share of worlds in which the test rejects at 5%")
    axes[0].legend(frameon=False)
    axes[0].axvline(NOMINAL, color=GREY, lw=0.8)
    for test, (colour, marker, line) in STYLES.items():
        rows = table[(table["game"] == "market") & (table["test"] == test)]
        axes[1].plot(
            rows["coupling"], rows["rejects"], ls=line, marker=marker, color=colour, ms=4, lw=1.2,
            label=test,
        )  # fmt: skip
    axes[1].axhline(NOMINAL, color=GREY, lw=0.8)
    axes[1].set_title("market", fontsize=10)
    axes[1].set_xlabel("true crowding")
    axes[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure


def write(table: pd.DataFrame, out: Path) -> None:
    """Write sizes and powers as CSV and as Markdown, one row per game and test."""
    table.to_csv(out / "rates.csv", index=False)
    cells = [
        f"{r.rejects:.1%} ({r.lower:.0%} to {r.upper:.0%})" for r in table.itertuples(index=False)
    ]
    wide = table.assign(cell=cells).pivot_table(
        values="cell", index=["game", "test"], columns="coupling", aggfunc="first"
    )
    order = table[["game", "test"]].drop_duplicates()
    shown = order.merge(wide.reset_index(), on=["game", "test"]).fillna("")
    names = [f"crowding {c:g}" if isinstance(c, float) else c for c in shown.columns]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(row) + " |" for row in shown.itertuples(index=False)]
    (out / "rates.md").write_text("\n".join(lines) + "\n")
    print(f"\n{shown.to_string(index=False)}", flush=True)


def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the study and write its table and figure."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    most = 1 if quick else WORLDS
    table = pd.concat([study(k, c, most) for k, c in cases().items()], ignore_index=True)
    write(table, out)
    figure_of(table).savefig(out / "rates.png", dpi=110)


# %% [markdown]
# ## Answer
#
# `rates.md` and `rates.png`: how often each test rejects, with 95 % intervals.

# %%
if __name__ == "__main__":
    run(main, __doc__, OUT, quick="three worlds and one")
