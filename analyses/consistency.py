# %% [markdown]
# # Does every treatment of the crowd's flow lead to the truth, and at what price?
#
# **Question.** Theorem 2 says that a fit along the flow observed is consistent, Theorem 5 that it
# is a two-step estimator: the flow is estimated first, and its error is left out of the intervals.
# How far are five treatments of the flow from the truth as agents become more, what does the first
# stage cost, and whose 90 % intervals hold the truth nine times in ten?
#
# Run `python analyses/consistency.py` (some 40 minutes on one core) or, smaller, with `--quick`.

# %%
"""Bias, error and coverage of five treatments of the flow, by number of agents."""

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

import mfgppl as mfg
from mfgppl.calibration.coverage import Recovery, recovery
from mfgppl.models import left_right, market, sis
from mfgppl.plots.style import BAND, DOT, GREY, INK

CI_PROB = 0.9
SIZES = (50, 500, 5000)
PANELS = 16  # at each size
N_COVERED, COVERED = 1000, 500  # agents and panels of the study of coverage
FOLDS, FLOWS, DRAWS = 10, 20, 1000
SEED = 20250
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "consistency"

# %% [markdown]
# ## Data: three games
#
# In each, agents play the equilibrium at the truth, and panels of feasible size identify its
# parameters.
#
# - *market*: firms avoid crowded prices over 12 months. All start at the lowest price, so that the
#   crowd moves for months and its densities differ; in a crowd that starts where it will stay,
#   margin and crowding do the same.
# - *left or right*: five times in a row agents choose a side for the next step. All parts of the
#   coupling term lie in the future flow, so that reflection is at its strongest; and
#   the estimate has a closed form. One choice would not do: its log odds over `2 - 3 mu(left)`
#   explode where chance brings the share of 30 agents near two thirds.
# - *epidemic*: the crowd enters by the dynamics alone, and the reward has no coupling term.


# %%
def market_reward(x: mfg.RewardInputs) -> Any:
    """Return the market's reward under wide priors."""
    margin, crowding, menu_cost = (
        pyro.sample(name, dist.Normal(0.0, 10.0)) for name in market.TRUTH
    )
    return margin * x.price - crowding * x.density - menu_cost * (x.action != "hold")


def sis_reward(x: mfg.RewardInputs) -> Any:
    """Return the epidemic's reward under wide priors."""
    infection, distancing = (pyro.sample(name, dist.Normal(0.0, 10.0)) for name in sis.TRUTH)
    return -infection * (x.health == "infected") - distancing * (x.action == "distance")


class Case(NamedTuple):
    """A game, its reward, its truth, and the parameter that is drawn."""

    game: mfg.MeanFieldGame
    reward: Callable[[mfg.RewardInputs], Any]
    truth: dict[str, float]
    shown: str


def cases() -> dict[str, Case]:
    """Return the three games."""
    lowest = np.repeat([0.5, 0.0], [2, 6])  # the lowest price, either stock
    prices = market.game().replace(horizon=12, features={}, initial=lowest)
    sides = left_right.game(horizon=6)
    epidemic = sis.game(horizon=15)
    return {
        "market": Case(prices, market_reward, market.TRUTH, "crowding"),
        "left or right": Case(sides, left_right.reward, left_right.TRUTH, "crowding"),
        "epidemic": Case(epidemic, sis_reward, sis.TRUTH, "infection"),
    }


# %% [markdown]
# ## Inference: five treatments
#
# Searches for a maximum start at the truth. All see the same panels.


# %%
def treatments(truth: dict[str, float]) -> dict[str, Any]:
    """Return those that are fitted along the panel's own flow."""

    def crossed(model: mfg.TrajectoryModel, *, random_seed: int) -> mfg.results.PointEstimate:
        return mfg.flows.cross_fit(model, folds=FOLDS, random_seed=random_seed, init=truth)

    def nested(model: mfg.TrajectoryModel, *, random_seed: int) -> mfg.results.PointEstimate:
        found = mfg.flows.nested_pseudo_likelihood(
            model, init=truth, tolerance=1e-4, random_seed=random_seed
        )
        if not found.converged:
            raise mfg.exceptions.ConvergenceError(found.reason.split(",")[0].split(":")[0])
        return found.estimate

    def cut(model: mfg.TrajectoryModel, *, random_seed: int) -> Any:
        return mfg.flows.cut_posterior(
            model, flows=FLOWS, draws=DRAWS, random_seed=random_seed, progressbar=False
        )

    return {"plug-in": "wald", "cross-fit": crossed, "nested": nested, "cut posterior": cut}


def study(case: Case, n_agents: int, panels: int, methods: Any, mean_field: str) -> Recovery:
    """Fit panels of one size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)  # failures are counted
        return recovery(
            case.game, case.reward, truth=case.truth, n_agents=n_agents, panels=panels,
            methods=methods, ci_prob=CI_PROB, mean_field=mean_field, random_seed=SEED,
            n_jobs=1, progressbar=False,
        )  # fmt: skip


def rows_of(name: str, n_agents: int, found: list[Recovery]) -> pd.DataFrame:
    """Return the tables of one game and size as one, with the error times the root of size."""
    table = pd.concat([f.table.reset_index() for f in found], ignore_index=True)
    table.insert(0, "game", name)
    table.insert(1, "agents", n_agents)
    table["scaled"] = table["rmse"] * np.sqrt(n_agents)
    return table.assign(panels=found[0].n_panels).rename(columns={"method": "treatment"})


def by_size(name: str, case: Case, sizes: tuple[int, ...], panels: int) -> pd.DataFrame:
    """Return one row per size, treatment and parameter."""
    tables = []
    for n_agents in sizes:
        observed = study(case, n_agents, panels, treatments(case.truth), "empirical")
        coupled = study(case, n_agents, panels, {"coupled": "wald"}, "equilibrium")
        tables.append(rows_of(name, n_agents, [observed, coupled]))
        print(name, n_agents, observed, coupled, sep="\n", flush=True)
    return pd.concat(tables, ignore_index=True)


def covered(name: str, case: Case, panels: int) -> pd.DataFrame:
    """Return the coverage of the plug-in's and of the coupled likelihood's intervals."""
    found = [
        study(case, N_COVERED, panels, {"plug-in": "wald"}, "empirical"),
        study(case, N_COVERED, panels, {"coupled": "wald"}, "equilibrium"),
    ]
    print(name, *found, sep="\n", flush=True)
    return rows_of(name, N_COVERED, found)


# %% [markdown]
# ## Checks
#
# Failure would be a bias that does not vanish as agents become more, or an RMSE times the root of
# their number that goes on growing: that treatment is not consistent. Where these curves level off,
# their heights over that of the coupled likelihood are the price of not solving for the flow.
# Coverage of the coupled likelihood's intervals outside 87 to 93 % in 500 panels would mean wrong
# derivatives, or standard errors that leave out how the flow moves. A shortfall of the plug-in's is
# its first stage, which its standard errors ignore.

# %%
STYLES = {
    "plug-in": ("#b03a2e", "o"),
    "cross-fit": ("#c2a12d", "s"),
    "cut posterior": ("#8a5a99", "^"),
    "nested": ("#5b8fc7", "D"),
    "coupled": (INK, "v"),
}


def size_figure(table: pd.DataFrame, shown: dict[str, str]) -> Any:
    """Draw bias and scaled error against the number of agents, one column per game."""
    figure, axes = plt.subplots(2, len(shown), figsize=(10, 5.6), sharex=True, squeeze=False)
    for column, (name, parameter) in zip(axes.T, shown.items(), strict=True):
        here = table[(table["game"] == name) & (table["parameter"] == parameter)]
        column[0].axhline(0.0, color=GREY, lw=0.8)
        for k, (treatment, (colour, marker)) in enumerate(STYLES.items()):
            rows = here[here["treatment"] == treatment]
            at, style = rows["agents"] * 1.06 ** (k - 2), {"color": colour, "marker": marker}
            bars = 2 * rows["bias_error"]
            column[0].errorbar(at, rows["bias"], bars, ms=4, lw=1, label=treatment, **style)
            column[1].plot(at, rows["scaled"], ms=4, lw=1, **style)
        column[0].set_title(f"{name}: {parameter}", fontsize=10)
        # chance throws single estimates far away among the fewest agents: the scale is the rest's
        rest = here[here["agents"] > here["agents"].min()]
        reach = 1.3 * float((rest["bias"].abs() + 2 * rest["bias_error"]).max())
        column[0].set_ylim(-reach, reach)
        column[1].set_ylim(0, 1.25 * float(rest["scaled"].max()))
        column[1].set_xscale("log")
        column[1].set_xlim(0.7 * here["agents"].min(), 1.4 * here["agents"].max())
        column[1].set_xlabel("agents")
    axes[0, 0].set_ylabel("bias, two standard errors")
    axes[1, 0].set_ylabel("RMSE × √agents")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=5, frameon=False
    )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return figure


def coverage_figure(table: pd.DataFrame) -> Any:
    """Draw coverage of the plug-in's and of the coupled likelihood's intervals."""
    figure, axis = plt.subplots(figsize=(7, 3.4))
    names = list(dict.fromkeys(zip(table["game"], table["parameter"], strict=True)))
    axis.axvspan(0.87, 0.93, color=BAND, alpha=0.5, lw=0)
    axis.axvline(CI_PROB, color=GREY, lw=0.6)
    for treatment, colour in (("plug-in", DOT), ("coupled", STYLES["coupled"][0])):
        rows = table[table["treatment"] == treatment]
        at = [names.index(key) for key in zip(rows["game"], rows["parameter"], strict=True)]
        marker = STYLES[treatment][1]
        axis.scatter(rows["coverage"], at, c=colour, marker=marker, s=28, label=treatment)
    axis.set_yticks(range(len(names)), [f"{game}: {parameter}" for game, parameter in names])
    axis.invert_yaxis()
    axis.set_xlim(min(0.5, float(table["coverage"].min()) - 0.05), 1.0)
    axis.set_xlabel("share of 90% intervals that hold the truth (band: 87% to 93%)")
    axis.legend(frameon=False, loc="lower left")
    figure.tight_layout()
    return figure


def across(table: pd.DataFrame, value: str, form: str) -> pd.DataFrame:
    """Return one figure by game, parameter and treatment, one column per size."""
    keys = ["game", "parameter", "treatment"]
    order = table[keys].drop_duplicates()
    wide = table.pivot_table(values=value, index=keys, columns="agents")
    return order.merge(wide.map(form.format).reset_index(), on=keys, how="left")


def write(table: pd.DataFrame, out: Path, name: str, digits: dict[str, str]) -> None:
    """Write a table as Markdown."""
    shown = table.copy()
    for column, form in digits.items():
        shown[column] = [form.format(v) for v in table[column]]
    lines = ["| " + " | ".join(map(str, shown.columns)) + " |", "|" + "---|" * shown.shape[1]]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in shown.itertuples(index=False)]
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")
    print(f"\n{name}\n{shown.to_string(index=False)}", flush=True)


def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run both studies and write their tables and figures."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    games = cases()
    few = {"left or right": games["left or right"]}
    tables = [covered(k, c, 2 if quick else COVERED) for k, c in games.items()]
    coverage = pd.concat(tables, ignore_index=True)
    coverage.to_csv(out / "coverage.csv", index=False)
    columns = {
        "bias": "{:+.4f}", "bias_error": "{:.4f}", "rmse": "{:.4f}", "width": "{:.3f}",
        "coverage": "{:.1%}", "coverage_error": "{:.1%}", "failed": "{:.1%}", "scaled": "{:.2f}",
    }  # fmt: skip
    write(coverage, out, "coverage", columns)
    coverage_figure(coverage).savefig(out / "coverage.png", dpi=110)
    chosen = few if quick else games
    sizes, panels = ((30, 400), 2) if quick else (SIZES, PANELS)
    found = [by_size(k, c, sizes, panels) for k, c in chosen.items()]
    table = pd.concat(found, ignore_index=True)
    table.to_csv(out / "sizes.csv", index=False)
    for name, form in (
        ("bias", "{:+.3f}"), ("scaled", "{:.2f}"), ("coverage", "{:.0%}"), ("failed", "{:.0%}"),
    ):  # fmt: skip
        write(across(table, name, form), out, f"sizes_{name}", {})
    size_figure(table, {k: c.shown for k, c in chosen.items()}).savefig(out / "sizes.png", dpi=110)


# %% [markdown]
# ## Answer
#
# `sizes.png` and its tables: bias, scaled error, coverage and failures by number of agents.
# `coverage.md`: whose intervals hold their level.

# %%
if __name__ == "__main__":
    run(main, __doc__, OUT, quick="two panels, two sizes, one game")
