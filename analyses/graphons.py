# %% [markdown]
# # What does a networked crowd add?
#
# **Question.** Firms compete with those to whom a graphon joins them. Do finite networks behave as
# the graphon says? Do intervals for the coupling hold what they promise? What do differences
# between neighbourhoods identify that one crowd for all does not, and what does a wrong network do
# to the estimate?
#
# Run `python analyses/graphons.py` (about an hour on one core), or, smaller, with `--quick`. It may
# be stopped at any time: what `panels.csv` and `wrong.csv` hold is not fitted again.

# %%
"""Graphons: their limits, what is learned on them, and what a wrong network costs."""

import functools
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from output import resumed, run, significant, write_figure, write_table

import mfgppl as mfg
from mfgppl.equilibrium.response import Equilibrium
from mfgppl.models import sis_graphon
from mfgppl.plots.style import DOT, GREEN, INK

CI_PROB, PANELS, N_AGENTS, SEED = 0.9, 500, 2000, 20262
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "graphons"
TRUTH = {"margin": 0.3, "crowding": 2.0, "menu_cost": 0.8}
FLOWS = ("known", "equilibrium")
LEVELS, POSITIONS, HORIZON, SUCCESS = 4, 10, 12, 0.8
STEPS = {"down": -1, "stay": 0, "up": 1}

# %% [markdown]
# ## Data: a market on a graphon
#
# A firm has one of four qualities; a step up or down succeeds with probability 0.8. It minds firms
# of its own quality among those whom the graphon of ranked attachment, `1 - x y`, joins it to.


# %%
def network(law: str = "ranked_attachment") -> mfg.Network:
    """Return a graphon between ten positions."""
    return mfg.networks.graphon(law, positions=POSITIONS)


@functools.cache
def game() -> mfg.MeanFieldGame:
    """Return the market; firms begin with any quality."""
    transition = np.zeros((LEVELS, len(STEPS), LEVELS))
    for level in range(LEVELS):
        for move, step in enumerate(STEPS.values()):
            transition[level, move, min(max(level + step, 0), LEVELS - 1)] += SUCCESS
            transition[level, move, level] += 1 - SUCCESS
    return mfg.MeanFieldGame(
        types={"position": network().labels}, states={"quality": range(LEVELS)},
        actions=list(STEPS), horizon=HORIZON, transition=transition, meets=network(),
        initial=np.full(POSITIONS * LEVELS, 1 / (POSITIONS * LEVELS)),
    )  # fmt: skip


def reward(x: mfg.RewardInputs) -> Any:
    """Return the value of quality, less the cost of company and of a change."""
    margin = pyro.sample("margin", dist.Normal(0.0, 10.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 10.0))
    menu_cost = pyro.sample("menu_cost", dist.Normal(0.0, 10.0))
    return margin * x.quality - crowding * x.density - menu_cost * (x.action != "stay")


@functools.cache
def equilibrium() -> Equilibrium:
    """Return the equilibrium at the truth."""
    return mfg.solve_equilibrium(game(), reward, parameters=TRUTH, throw=True).value


def panel_of(number: int) -> mfg.Trajectories:
    """Return a panel of firms along the equilibrium."""
    world = equilibrium()
    return mfg.simulate(
        game(), world.policy, world.mean_field, n_agents=N_AGENTS,
        random_seed=np.random.SeedSequence([SEED, number]),
    )  # fmt: skip


# %% [markdown]
# ## Do finite networks tend to the graphon?
#
# The epidemic of `mfgppl.models.sis_graphon` under uniform attachment: the share of infected at
# time 25, over all positions, where positions, nodes of a network drawn from the graphon, or agents
# on such a network become many. Nodes take the graphon's own policy. Failure would be a difference
# that does not shrink.


# %%
def infected(flow: Any) -> float:
    """Return the share of infected at time 25."""
    return float(np.asarray(flow)[25].reshape(-1, 2)[:, 1].sum())


def limits(quick: bool) -> pd.DataFrame:
    """Return differences from the graphon with many positions, one row per size and kind."""
    many = 60 if quick else 400
    truth = sis_graphon.TRUTH

    def solved(positions: int) -> Equilibrium:
        world = sis_graphon.game(positions=positions)
        return mfg.solve_equilibrium(world, sis_graphon.reward, parameters=truth).value

    limit = solved(many)
    best = np.asarray(limit.policy).reshape(-1, many, 2, 2)
    rows = []
    for n in (5, 10, 20) if quick else (5, 10, 20, 50, 100, 200):
        rows.append(
            ("positions", n, abs(infected(solved(n).mean_field) - infected(limit.mean_field)))
        )
        errors: dict[str, list[float]] = {"network": [], "population": []}
        for seed in range(2 if quick else 20):
            drawn = mfg.networks.sampled("uniform_attachment", nodes=n, random_seed=seed)
            place = np.sort(np.random.default_rng(seed).random(n))  # as `sampled` draws them
            nearest = (place * many).astype(int)
            policy = best[:, nearest].reshape(-1, 2 * n, 2)
            world = sis_graphon.game(positions=n).replace(
                types={"node": range(n)}, meets=drawn, initial=np.full(2 * n, 0.5 / n)
            )
            flow = mfg.equilibrium.generate_mean_field(world, policy)
            errors["network"].append(infected(flow) - infected(limit.mean_field))
            agents = mfg.simulate(world, policy, "empirical", n_agents=10 * n, random_seed=seed)
            errors["population"].append(infected(agents.mean_field()) - infected(limit.mean_field))
        for kind, values in errors.items():
            rows.append((kind, n, float(np.sqrt(np.mean(np.square(values))))))
    return pd.DataFrame(rows, columns=["kind", "n", "error"])


def figure_of_limits(rows: pd.DataFrame) -> plt.Figure:
    """Return errors against sizes, on logarithmic axes."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    names = {"positions": "positions of the graphon", "network": "nodes of a network drawn from it",
             "population": "nodes with ten agents each"}  # fmt: skip
    for (kind, name), colour in zip(names.items(), (INK, DOT, GREEN), strict=True):
        here = rows[rows["kind"] == kind]
        axes.loglog(here["n"], here["error"], marker="o", color=colour, label=name)
    axes.set(
        xlabel="number", ylabel="error of the share of infected at time 25\n(root mean square)"
    )
    axes.legend(frameon=False)
    return figure


# %% [markdown]
# ## Do intervals hold what they say?
#
# Nominal 90 % intervals along the flow that is known, and where it is solved for. Failure would be
# coverage more than three binomial standard errors from nominal.


# %%
def rows_of(number: int) -> list[dict[str, Any]]:
    """Return one row per treatment of the flow and parameter, for one panel."""
    counts = mfg.CountedPanel.from_trajectories(panel_of(number))
    model = mfg.TrajectoryModel(game(), reward, counts, mean_field=equilibrium().mean_field)
    fit, rows = None, []
    for flow in FLOWS:
        here = model if flow == "known" else model.along("equilibrium")
        fit = mfg.mle(here, init=fit, svi_steps=0, progressbar=False)
        interval = fit.conf_int(CI_PROB)
        for name, estimate in fit.params.items():
            rows.append(
                {"panel": number, "flow": flow, "parameter": name, "estimate": estimate,
                 "lower": interval.loc[name].iloc[0], "upper": interval.loc[name].iloc[1],
                 "converged": fit.converged}
            )  # fmt: skip
    return rows


def coverage(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per treatment and parameter."""
    found = []
    for (flow, name), here in rows.groupby(["flow", "parameter"], sort=False):
        inside = here["lower"].le(TRUTH[name]) & here["upper"].ge(TRUTH[name])
        n = len(here)
        error = (CI_PROB * (1 - CI_PROB) / n) ** 0.5
        found.append(
            {"flow": flow, "parameter": name, "truth": TRUTH[name],
             "mean": here["estimate"].mean(), "deviation": here["estimate"].std(),
             "coverage": inside.mean(), "panels": n,
             "binomial errors": (inside.mean() - CI_PROB) / error,
             "not converged": int((~here["converged"]).sum())}
        )  # fmt: skip
    return pd.DataFrame(found)


# %% [markdown]
# ## What does a network identify that one crowd does not?
#
# Expected standard errors of the crowd's coefficient from 2,000 firms, without and with effects of
# time on what quality is worth, free at each time. Where all meet one crowd, time effects and what
# the crowd does to each quality compete; between neighbourhoods the crowd differs at one time.


# %%
def with_time_effects(x: mfg.RewardInputs) -> Any:
    """Return the same, with a worth of each quality above the least that is free at each time."""
    free = dist.Normal(0.0, 10.0).expand([HORIZON, LEVELS - 1]).to_event(2)
    worth = pyro.sample("worth", free)
    crowding = pyro.sample("crowding", dist.Normal(0.0, 10.0))
    menu_cost = pyro.sample("menu_cost", dist.Normal(0.0, 10.0))
    table = torch.cat([torch.zeros(HORIZON, 1, dtype=worth.dtype), worth], dim=1)
    at_time = table[:, None, :, None] if not x.game.space.types else table[None, :, :, None]
    return at_time - crowding * x.density - menu_cost * (x.action != "stay")


def information() -> pd.DataFrame:
    """Return standard errors of the coefficient to expect, one row per network."""
    levels = np.arange(LEVELS)
    worlds = {
        "one crowd": game().replace(meets="everyone"),
        "ranked attachment": game(),
        "uniform attachment": game().replace(meets=network("uniform_attachment")),
    }
    free = {"worth": np.tile(TRUTH["margin"] * levels[1:], (HORIZON, 1))}
    rows = []
    for name, world in worlds.items():
        row: dict[str, Any] = {"network": name}
        for label, program, values in (
            ("without effects of time", reward, TRUTH),
            ("with effects of time", with_time_effects,
             free | {k: TRUTH[k] for k in ("crowding", "menu_cost")}),
        ):  # fmt: skip
            errors = mfg.design.expected_errors(
                {name: world}, program, parameters=values, n_agents=N_AGENTS
            )
            row[label] = float(errors["crowding"].iloc[0])
        rows.append(row)
    return pd.DataFrame(rows)


def figure_of_information(table: pd.DataFrame) -> plt.Figure:
    """Return the standard errors as points, nothing where no data can identify."""
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    place = np.arange(len(table))[::-1]
    for column, colour in zip(table.columns[1:], (INK, DOT), strict=True):
        axes.plot(table[column], place, "o", color=colour, label=column)
    for k in np.flatnonzero(table["with effects of time"].isna()):
        axes.annotate(
            "with effects of time: not identified", (0.02, place[k]), color=DOT, va="center",
            fontsize=8,
        )  # fmt: skip
    axes.set(yticks=place, yticklabels=table["network"], xlabel="standard error of crowding",
             xlim=(0, None), ylim=(-0.6, len(table) - 0.4))  # fmt: skip
    axes.legend(frameon=False, loc="lower right")
    return figure


# %% [markdown]
# ## What does a wrong network do?
#
# The same panels, fitted with other networks along the observed flow of many firms. Failure of the
# true network would be a mean away from 2; a wrong one that gave 2 would make no difference.


# %%
def wrong_rows_of(number: int) -> list[dict[str, Any]]:
    """Return the coefficient of one panel under several networks."""
    counts = mfg.CountedPanel.from_trajectories(panel_of(number))
    order = np.random.default_rng([SEED, number]).permutation(POSITIONS)
    frame = network().to_frame()
    names = dict(zip(network().labels, np.array(network().labels)[order], strict=True))
    shuffled = mfg.Network(
        frame.assign(**{side: frame[side].map(names) for side in ("from", "to")}),
        normalise=None, self_loops=True,
    )  # fmt: skip
    networks = {
        "ranked attachment (true)": network(),
        "shuffled positions": shuffled,
        "uniform attachment": network("uniform_attachment"),
        "one crowd": "everyone",
    }
    rows = []
    for name, meets in networks.items():
        model = mfg.TrajectoryModel(
            game().replace(meets=meets), reward, counts, mean_field=equilibrium().mean_field
        )
        fit = mfg.mle(model, svi_steps=0, progressbar=False)
        rows.append({"panel": number, "network": name, "estimate": fit.params["crowding"],
                     "log likelihood": fit.llf})  # fmt: skip
    return rows


def cost_of_a_wrong_network(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over panels, one row per network."""
    best = rows[rows["network"].str.contains("true")].set_index("panel")["log likelihood"]
    rows = rows.assign(loss=best.loc[rows["panel"]].to_numpy() - rows["log likelihood"])
    grouped = rows.groupby("network", sort=False)
    return pd.DataFrame(
        {"mean": grouped["estimate"].mean(), "deviation": grouped["estimate"].std(),
         "loss of log likelihood": grouped["loss"].mean(), "panels": grouped.size()}
    ).reset_index()  # fmt: skip


# %% [markdown]
# ## Results


# %%
def main(quick: bool, out: Path) -> None:
    """Fit, judge and write tables and figures."""
    out.mkdir(parents=True, exist_ok=True)
    found = limits(quick)
    write_table(found, out, "limits", significant(2), csv=False)
    write_figure(figure_of_limits(found), out, "limits")
    known = information()
    write_table(known, out, "information", csv=False)
    write_figure(figure_of_information(known), out, "information")
    wrong = resumed(wrong_rows_of, 2 if quick else 50, out / "wrong.csv")
    write_table(cost_of_a_wrong_network(wrong), out, "wrong_network", csv=False)
    rows = resumed(rows_of, 3 if quick else PANELS, out / "panels.csv")
    write_table(coverage(rows), out, "coverage", csv=False)


if __name__ == "__main__":
    run(main, __doc__, OUT, "three panels")
