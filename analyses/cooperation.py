# %% [markdown]
# # From competition to cooperation
#
# **Question.** A reduction to the population level (mean field control) maximises what everybody
# earns by a common policy. Theorem 1: it recovers the game only where agents are fully
# cooperative. How far apart are game and reduction on the way there, and what does a fit find that
# assumes the reduction where agents play the game?
#
# Run `python analyses/cooperation.py` (about two minutes) or, smaller, with `--quick`.

# %%
"""A dial from the game to its population-level reduction, solved along the way and fitted."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import torch
from output import fixed, run, write_table
from torch import Tensor

import mfgppl as mfg
from mfgppl.plots.style import AMBER, DOT, GREEN, INK, PURPLE

FIXED = (  # games whose dynamics the crowd does not move
    "traffic_routing",
    "equilibrium_price",
    "left_right",
    "malware",
    "rock_paper_scissors",
)
MOVED = ("sis",)  # the crowd moves the dynamics: outside of what the dial covers
FITTED = ("traffic_routing", "equilibrium_price", "rock_paper_scissors")
DIAL = np.linspace(0.0, 1.0, 11)
TEMPERATURE = 1.0  # of the gallery's games
EXPLOITABILITY = 1e-4  # certificate of an equilibrium, reward units
SLACK = 2 * EXPLOITABILITY  # between two solvers, each with a tolerance of this size
AGENTS, SEED = 10_000, 1
STANDARD_ERRORS = 3.0
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "cooperation"
TITLES = {"competition": "fit of the game", "cooperation": "fit of full cooperation"}
COLOURS = (INK, DOT, GREEN, AMBER, PURPLE, "#6b7280")


# %% [markdown]
# ## Model
#
# At cooperation `c` an agent earns its own reward and the share `c` of what its presence does to
# the others, its externality, with `rho_t(s, a)` the crowd's shares of states and actions:
#
#     r_c(s, a, mu) = r(s, a, mu) + c sum_{s',a'} rho(s', a') dr(s', a', mu) / dmu(s)
#
# At `c = 0` that is the game. At `c = 1` it is the derivative of `J = sum_t <rho_t, r(mu_t)>` in
# `rho_t(s, a)`, so that "nobody gains by another policy" is "no direction raises J": the
# first-order condition of the social optimum. That needs dynamics which the crowd does not move:
# otherwise presence also changes where the others go, which the sum leaves out.
#
# In joint games the derivative is in the shares of states and actions. In the other games of this
# page what the crowd does to a reward does not depend on the own action, so `rho` may spread
# `mu(s)` over the actions in any way; `externality_is_action_free` checks it.


# %%
def cooperative(game: mfg.MeanFieldGame, reward: Any, cooperation: float) -> Any:
    """Return the reward program at a degree of cooperation in [0, 1].

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        Any reward program.
    cooperation : float
        The weight of the externality.

    Returns
    -------
    callable
        A reward program with the same parameters.
    """
    spread = torch.full((game.n_actions,), 1.0 / game.n_actions, dtype=torch.float64)

    def program(x: mfg.RewardInputs) -> Tensor:
        with pyro.poutine.trace() as record:
            own = reward(x)
        parameters = {k: v["value"] for k, v in record.trace.nodes.items() if v["type"] == "sample"}
        crowd = x.occupancy if game.joint else x.density * spread
        effect = externality(game, reward, parameters, x, crowd)
        return own + cooperation * effect

    return program


def externality(
    game: mfg.MeanFieldGame,
    reward: Any,
    parameters: dict[str, Any],
    x: mfg.RewardInputs,
    crowd: Tensor,
) -> Tensor:
    """Return what one more agent in a state does to the crowd's reward, (T, S, 1) or (T, S, A)."""

    def total(flow: Tensor) -> Tensor:
        with pyro.poutine.block(), pyro.poutine.condition(data=parameters):
            earned = (crowd * reward(mfg.RewardInputs(game, flow))).sum()
        return earned + 0.0 * flow.sum()  # a reward that ignores the crowd has the slope zero

    effect = torch.func.grad(total)(x.occupancy if game.joint else x.mean_field)
    return effect if game.joint else effect[..., None]


def externality_is_action_free(file: ModuleType) -> bool:
    """Return whether the externality is the same however the crowd's actions are spread."""
    game = file.game()
    if game.joint:
        return True
    flow = mfg.solve_equilibrium(game, file.reward, parameters=file.TRUTH).value.mean_field
    x = mfg.RewardInputs(game, flow)
    values = {k: torch.tensor(v, dtype=torch.float64) for k, v in file.TRUTH.items()}
    corners = torch.eye(game.n_actions, dtype=torch.float64)
    found = [externality(game, file.reward, values, x, x.density * corner) for corner in corners]
    return all(torch.allclose(found[0], other, atol=1e-12) for other in found)


# %% [markdown]
# ## Data and inference
#
# Along the dial the plain equilibrium is solved for, with its exploitability as the certificate,
# and the entropy-regularised one; all are judged by the true reward. The social optimum is found
# by another solver, which climbs J. Then agents who play the game, `c = 0`, are drawn, and the
# causal likelihood is maximised twice with the true flow: once with the reward of the game, once
# with that of full cooperation.


# %%
def soft_return(file: ModuleType, world: Any, temperature: float) -> float:
    """Return `J(mu^pi, pi)` under the true reward, with the entropy of the policy (no discount)."""
    game, flow, policy = file.game(), world.mean_field, world.policy.detach()
    shares = flow.sum(-1) if game.joint else flow
    entropy = (shares[..., None] * torch.special.xlogy(policy, policy)).sum()
    plain = mfg.equilibrium.expected_return(game, file.reward, policy, parameters=file.TRUTH)
    return plain - temperature * float(entropy)


def along_the_dial(name: str, file: ModuleType, dial: np.ndarray) -> pd.DataFrame:
    """Return one row per degree of cooperation, with both optima in each."""
    game, rows = file.game(), []
    best = {
        beta: mfg.equilibrium.social_optimum(
            game, file.reward, parameters=file.TRUTH, temperature=beta, throw=True
        )
        for beta in (0.0, TEMPERATURE)
    }
    optima = {beta: soft_return(file, found.value, beta) for beta, found in best.items()}
    for degree in dial:
        reward = cooperative(game, file.reward, degree)
        nash = mfg.solve_nash(
            game, reward, parameters=file.TRUTH, tolerance=EXPLOITABILITY, throw=True
        )
        soft = mfg.solve_equilibrium(game, reward, parameters=file.TRUTH, throw=True)
        rows.append(
            {
                "game": name,
                "cooperation": degree,
                "return": soft_return(file, nash.value, 0.0),
                "optimum": optima[0.0],
                "soft return": soft_return(file, soft.value, TEMPERATURE),
                "soft optimum": optima[TEMPERATURE],
                "exploitability": nash.residual,
                "residual": soft.residual,
            }
        )
    return pd.DataFrame(rows)


def fits(name: str, file: ModuleType, n_agents: int) -> pd.DataFrame:
    """Return estimates of the game's parameters under both assumptions."""
    game = file.game()
    world = mfg.solve_equilibrium(game, file.reward, parameters=file.TRUTH, throw=True).value
    flow = world.mean_field
    panel = mfg.simulate(game, world.policy, flow, n_agents=n_agents, random_seed=SEED)
    table = pd.DataFrame({"game": name, "parameter": list(file.TRUTH)})
    table["truth"] = list(file.TRUTH.values())
    for who, degree in (("competition", 0.0), ("cooperation", 1.0)):
        reward = cooperative(game, file.reward, degree) if degree else file.reward
        point = mfg.mle(
            mfg.TrajectoryModel(game, reward, panel, mean_field=flow), progressbar=False
        )
        table[who] = point.params[list(file.TRUTH)].to_numpy()
        table[f"s.e. {who}"] = point.bse[list(file.TRUTH)].to_numpy()
        table[f"log likelihood {who}"] = point.llf
    return table


# %% [markdown]
# ## Checks
#
# - Every point has its certificate: exploitability 1e-4, or a residual of 1e-10. Failure: the
#   solver raises.
# - No equilibrium earns more than the social optimum, and at `c = 1` the optimum is reached where
#   the dynamics are fixed. Where J is concave, the optimum is above the equilibrium by the
#   exploitability at most. Failure: a name below.
# - Where the crowd moves the dynamics, the optimum is not reached. Failure: it is, and the
#   condition is idle.
# - The fit of the game is within three standard errors of the truth in every parameter, that of the
#   reduction is not. Failure: a name below.


# %%
def check(found: pd.DataFrame, fitted: pd.DataFrame) -> None:
    """Raise where a claim fails."""
    left = np.minimum(
        found["optimum"] - found["return"], found["soft optimum"] - found["soft return"]
    )
    above = set(found["game"][left < -SLACK])
    last = found[found["cooperation"] == 1.0].set_index("game")
    left = np.maximum(last["optimum"] - last["return"], last["soft optimum"] - last["soft return"])
    off = {name for name, gap in left.items() if name in FIXED and gap > SLACK}
    idle = {name for name, gap in left.items() if name in MOVED and gap < 0.1}
    if above or off or idle:
        raise RuntimeError(
            f"above the optimum: {above}; not there at full cooperation: {off}; there although "
            f"the crowd moves the dynamics: {idle}"
        )
    away = furthest(fitted)
    lost = set(away.index[away["competition"] > STANDARD_ERRORS])
    found_too = set(away.index[away["cooperation"] <= STANDARD_ERRORS])
    if lost or found_too:
        raise RuntimeError(f"not recovered: {lost}; recovered by the reduction: {found_too}")


def furthest(fitted: pd.DataFrame) -> pd.DataFrame:
    """Return how many standard errors the furthest estimate of each fit is from the truth."""
    away = {
        who: ((fitted[who] - fitted["truth"]) / fitted[f"s.e. {who}"]).abs()
        for who in ("competition", "cooperation")
    }
    return pd.DataFrame(away).groupby(fitted["game"], sort=False).max()


# %% [markdown]
# ## Answer
#
# Two figures and two tables; they are read in `docs/cooperation.md`.


# %%
def words(name: str) -> str:
    """Return a file's name in words."""
    return name.replace("_", " ")


def draw_dial(found: pd.DataFrame) -> plt.Figure:
    """Draw the return along the dial, one panel per game, and the optimum as a line."""
    groups = list(found.groupby("game", sort=False))
    n_rows = -(-len(groups) // 3)
    figure, axes = plt.subplots(
        n_rows, 3, figsize=(9.6, 0.6 + 2.5 * n_rows), layout="constrained", sharex=True
    )
    for axis, (name, rows) in zip(axes.flat, groups, strict=False):
        axis.axhline(rows["optimum"].iloc[0], color=DOT, lw=1.5, label="social optimum")
        axis.plot(rows["cooperation"], rows["return"], "o-", ms=4, color=INK, label="equilibrium")
        axis.set_title(words(str(name)), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=0.12)
        low, high = axis.get_ylim()
        if high - low < SLACK:  # one line: no need to look at rounding
            axis.set_ylim(low - 0.1, high + 0.1)
        axis.yaxis.set_major_locator(plt.MaxNLocator(5))
    for axis in axes.flat[len(groups) :]:
        axis.set_visible(False)
    axes.flat[0].legend(frameon=False, fontsize=9)
    figure.supxlabel("cooperation c", fontsize=10)
    figure.supylabel("return J (reward units)", fontsize=10)
    return figure


def draw_consequences(found: pd.DataFrame, fitted: pd.DataFrame) -> plt.Figure:
    """Draw the loss that is left along the dial, and both fits against the truth."""
    figure, axes = plt.subplots(
        1, 2, figsize=(10.6, 3.7), layout="constrained", width_ratios=(1, 1.05)
    )
    for colour, (name, rows) in zip(COLOURS, found.groupby("game", sort=False), strict=False):
        axes[0].plot([], [], color=colour, label=words(str(name)))
        for kind, style in (("", "-"), ("soft ", ":")):
            loss = rows[f"{kind}optimum"] - rows[f"{kind}return"]
            if loss.iloc[0] > SLACK:
                axes[0].plot(rows["cooperation"], loss / loss.iloc[0], style, color=colour)
    axes[0].plot([], [], ":", color="black", label="with entropy")
    axes[0].set_xlabel("cooperation c")
    axes[0].set_ylabel("loss against the optimum,\nover the loss at c = 0")
    axes[0].set_ylim(-0.03, 1.27)
    axes[0].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    place = np.arange(len(fitted))[::-1]
    axes[1].axvline(0.0, color="0.6", lw=1)
    for who, colour, up in (("competition", INK, 0.13), ("cooperation", DOT, -0.13)):
        size = fitted["truth"].abs()
        off, error = (fitted[who] - fitted["truth"]) / size, fitted[f"s.e. {who}"] / size
        label = TITLES[who]
        axes[1].errorbar(
            off, place + up, xerr=STANDARD_ERRORS * error, fmt="o", ms=4, color=colour, label=label
        )
    names = [f"{words(g)}: {p}" for g, p in zip(fitted["game"], fitted["parameter"], strict=True)]
    axes[1].set_yticks(place, names, fontsize=8)
    axes[1].tick_params(axis="y", length=0)
    axes[1].set_xlabel("(estimate - truth) / truth, 3 s.e.")
    axes[1].legend(frameon=False, fontsize=8, loc="center left")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def price_of_anarchy(point: pd.Series) -> float:
    """Return the cost over the least cost, nan where returns are not costs."""
    costs = point["return"] < 0 and point["optimum"] < 0
    return float(point["return"] / point["optimum"]) if costs else np.nan


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return the ends of the dial, one row per game."""
    rows = []
    for name, along in found.groupby("game", sort=False):
        first, last = along.iloc[0], along.iloc[-1]
        rows.append(
            {
                "game": words(str(name)),
                "J at c = 0": first["return"],
                "J at c = 1": last["return"],
                "social optimum": last["optimum"],
                "price of anarchy": price_of_anarchy(first),
                "with entropy: loss at c = 0": first["soft optimum"] - first["soft return"],
                "with entropy: loss at c = 1": last["soft optimum"] - last["soft return"],
            }
        )
    return pd.DataFrame(rows)


def estimates(fitted: pd.DataFrame) -> pd.DataFrame:
    """Return both fits as text, one row per parameter."""
    table = pd.DataFrame({"game": fitted["game"].map(words), "parameter": fitted["parameter"]})
    table["truth"] = fitted["truth"].map("{:g}".format)
    for who, title in TITLES.items():
        pairs = zip(fitted[who], fitted[f"s.e. {who}"], strict=True)
        table[f"{title} (s.e.)"] = [f"{value:.3f} ({error:.3f})" for value, error in pairs]
    off = fitted["log likelihood competition"] - fitted["log likelihood cooperation"]
    table["difference of log likelihoods"] = off.map(fixed(4))
    return table


def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the analysis and write its tables and figures."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    names = ("traffic_routing", "rock_paper_scissors") if quick else FIXED + MOVED
    files = {name: importlib.import_module(f"mfgppl.models.{name}") for name in names}
    for name, file in files.items():
        if not externality_is_action_free(file):
            raise RuntimeError(f"the externality of {name} depends on the crowd's actions")
    dial = DIAL[::5] if quick else DIAL
    found = pd.concat([along_the_dial(name, file, dial) for name, file in files.items()])
    fitted = pd.concat(
        [fits(n, files[n], 2000 if quick else AGENTS) for n in FITTED if n in files],
        ignore_index=True,
    )
    write_table(summary(found), out, "ends", fixed(4), csv=False)
    write_table(estimates(fitted), out, "fits", fixed(4), csv=False)
    found.to_csv(out / "dial.csv", index=False)
    for name, figure in (
        ("dial", draw_dial(found)),
        ("consequences", draw_consequences(found, fitted)),
    ):
        figure.savefig(out / f"{name}.png", dpi=120)
        plt.close(figure)
    check(found, fitted)


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="two games and smaller panels")
