# %% [markdown]
# # Two laws of trajectories
#
# **Question.** How far is the energy law of trajectories (Theorem 4 as printed) from the law that
# trajectories have under an entropy-regularised equilibrium, and does more data help?
#
# Run `python analyses/likelihoods.py` (about two minutes) or, smaller, with `--quick`.

# %%
"""The causal and the energy law of trajectories, by enumeration and by estimation."""

import itertools
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro.distributions as dist
import torch
from output import run, significant, write_table

import mfgppl as mfg
from mfgppl.likelihood.energy import energy_induction
from mfgppl.plots.style import AMBER, DOT, GREEN, INK

N_STATES, N_ACTIONS, HORIZON = 3, 2, 3
SEED = 1
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # standard deviation of the reward, in temperatures
CASES = (
    "stochastic, one constant",
    "stochastic, given the start",
    "deterministic, one constant",
    "deterministic, given the start",
)
WEIGHTS = {"first": 1.0, "second": -0.5}  # true weights of the estimation
STEPS = 6  # its horizon
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "likelihoods"
COLOURS = (DOT, AMBER, INK, GREEN)


# %% [markdown]
# ## Data
#
# Random games: rows of the transition and the start are uniform on the simplex (Dirichlet with all
# ones); under deterministic dynamics the next state of each state and action is drawn uniformly.
# Rewards are independent normal numbers, one a time, state and action. Temperature and discount
# are 1. No crowd is needed: the flow is held fixed in both laws.


# %%
class Drawn(NamedTuple):
    """A random game.

    Attributes
    ----------
    initial : ndarray, shape (S,)
        Distribution of the first state.
    transition : ndarray, shape (S, A, S)
        Probability of the next state.
    reward : ndarray, shape (T, S, A)
        Standard normal numbers.
    """

    initial: np.ndarray
    transition: np.ndarray
    reward: np.ndarray


def draw_game(rng: np.random.Generator, *, deterministic: bool) -> Drawn:
    """Draw a game."""
    shape = (N_STATES, N_ACTIONS)
    initial = rng.dirichlet(np.ones(N_STATES))
    rows = rng.dirichlet(np.ones(N_STATES), shape)
    ends = np.eye(N_STATES)[rng.integers(N_STATES, size=shape)]
    return Drawn(initial, ends if deterministic else rows, rng.standard_normal((HORIZON, *shape)))


# %% [markdown]
# ## Model
#
# Both laws, at every trajectory `s_0, a_0, ..., s_{T-1}, a_{T-1}`:
#
#     exact:   mu_0(s_0) prod P prod pi_t(a_t|s_t)
#     energy:  mu_0(s_0) prod P exp(sum r_t) / Z,   Z one constant, or one a first state


# %%
def log_laws(game: Drawn, scale: float) -> dict[str, np.ndarray]:
    """Return log probabilities of all trajectories under the exact law and both energy laws."""
    paths = np.array(list(itertools.product(range(N_STATES), range(N_ACTIONS), repeat=HORIZON)))
    states, actions, time = paths[:, ::2], paths[:, 1::2], np.arange(HORIZON)
    reward, transition = torch.as_tensor(scale * game.reward), torch.as_tensor(game.transition)
    with np.errstate(divide="ignore"):
        step = np.log(game.transition)[states[:, :-1], actions[:, :-1], states[:, 1:]].sum(1)
        start = np.log(game.initial)
    base = start[states[:, 0]] + step
    policy = mfg.equilibrium.soft_backward_induction(reward, transition).log_policy.numpy()
    partition = energy_induction(reward, transition)[0][0].numpy()
    total = reward.numpy()[time, states, actions].sum(1)
    return {
        "exact": base + policy[time, states, actions].sum(1),
        "one constant": base + total - np.logaddexp.reduce(start + partition),
        "given the start": base + total - partition[states[:, 0]],
    }


def total_variation(log_a: np.ndarray, log_b: np.ndarray) -> float:
    """Return half the summed absolute difference of two laws."""
    return float(0.5 * np.abs(np.exp(log_a) - np.exp(log_b)).sum())


# %% [markdown]
# ## Inference
#
# Total variation over many games; then estimation. In the latter, panels of growing size are drawn
# from the soft policy of a stochastic game with a reward of two known weights, and both likelihoods
# are maximised.


# %%
def distances(n_games: int, scales: tuple[float, ...]) -> tuple[pd.DataFrame, float]:
    """Return one row per game, case and scale, and how far any law's sum is from 1."""
    rows, worst = [], 0.0
    for kind in ("stochastic", "deterministic"):
        rng = np.random.default_rng(SEED)
        for k in range(n_games):
            game = draw_game(rng, deterministic=kind == "deterministic")
            for scale in scales:
                laws = log_laws(game, scale)
                worst = max(worst, *(abs(np.exp(v).sum() - 1) for v in laws.values()))
                for how in ("one constant", "given the start"):
                    distance = total_variation(laws["exact"], laws[how])
                    case = f"{kind}, {how}"
                    rows.append({"case": case, "scale": scale, "game": k, "distance": distance})
    return pd.DataFrame(rows), worst


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return means and extremes over games at a reward scale of one."""
    at_one = found[found["scale"] == 1.0].groupby("case", sort=False)["distance"]
    table = pd.DataFrame(
        {
            "mean": at_one.mean(),
            "s.e.": at_one.std() / np.sqrt(at_one.size()),
            "smallest": at_one.min(),
            "largest": at_one.max(),
        }
    )
    return table.rename_axis("dynamics, partition function").reset_index()


def estimation_errors(n_games: int, sizes: tuple[int, ...]) -> pd.DataFrame:
    """Return root mean squared errors of both likelihoods by the size of the panel."""
    rng, errors = np.random.default_rng(SEED + 1), []
    for k in range(n_games):
        drawn = draw_game(rng, deterministic=False)
        features = {w: rng.standard_normal((1, N_STATES, N_ACTIONS)) for w in WEIGHTS}
        reward = mfg.linear_reward(features, dist.Normal(0.0, 3.0))
        game = mfg.MeanFieldGame(
            states=range(N_STATES),
            actions=range(N_ACTIONS),
            horizon=STEPS,
            transition=drawn.transition,
            initial=drawn.initial,
        )
        world = mfg.solve_equilibrium(game, reward, parameters=WEIGHTS, throw=True).value
        for n in sizes:
            seed = 1000 * k + n
            panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=n, random_seed=seed)
            for law in ("causal", "energy"):
                model = mfg.TrajectoryModel(game, reward, panel, likelihood=law)
                point = mfg.mle(model, svi_steps=0, progressbar=False)
                square = np.mean([(point.params[w] - v) ** 2 for w, v in WEIGHTS.items()])
                errors.append({"agents": n, "likelihood": law, "game": k, "square": square})
    table = pd.DataFrame(errors).pivot_table("square", "agents", "likelihood", aggfunc="mean")
    return np.sqrt(table).reset_index().rename_axis(None, axis=1)


# %% [markdown]
# ## Checks
#
# Each law sums to one over all trajectories, with the partition function computed by dynamic
# programming. Failure: a sum away from 1 by more than rounding. Under deterministic dynamics given
# the start, both laws are one and the same. Failure: a distance above rounding.


# %%
def check(table: pd.DataFrame, worst: float) -> None:
    """Raise where an identity fails."""
    same = table.set_index("dynamics, partition function")["largest"]
    same = same["deterministic, given the start"]
    if worst > 1e-10 or same > 1e-10:
        raise RuntimeError(f"sums miss 1 by {worst:.1e}; equal laws differ by {same:.1e}")
    print(f"sums over trajectories miss 1 by {worst:.1e} at most; equal laws differ by {same:.1e}")


# %% [markdown]
# ## Answer
#
# A table of distances, a table of errors and a figure; they are read in `docs/likelihoods.md`.


# %%
def draw_figure(found: pd.DataFrame, errors: pd.DataFrame) -> plt.Figure:
    """Draw distances by reward scale, and errors of estimates by size of the panel."""
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.6))
    for colour, case in zip(COLOURS, CASES, strict=True):
        mean = found[found["case"] == case].groupby("scale")["distance"].mean()
        axes[0].plot(mean.index, mean, "o-", ms=4, color=colour, label=case)
    axes[0].set_xscale("log", base=2)
    axes[0].set_xticks(list(found["scale"].unique()), [f"{s:g}" for s in found["scale"].unique()])
    axes[0].set_xlabel("s.d. of the reward (temperatures)")
    axes[0].set_ylabel("total variation, mean over games")
    axes[0].legend(frameon=False, fontsize=8)
    for law, colour in (("causal", INK), ("energy", DOT)):
        axes[1].loglog(errors["agents"], errors[law], "o-", ms=4, color=colour, label=law)
    axes[1].set_xlabel("agents in the panel")
    axes[1].set_ylabel("error of a weight, r.m.s. (reward units)")
    axes[1].legend(frameon=False, title="likelihood")
    figure.tight_layout()
    return figure


def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the analysis and write its tables and figure."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    found, worst = distances(20 if quick else 200, (1.0,) if quick else SCALES)
    table = summary(found)
    check(table, worst)
    sizes = (100, 1000) if quick else (100, 1000, 10_000, 100_000)
    errors = estimation_errors(2 if quick else 10, sizes)
    write_table(table, out, "distances", significant(3))
    write_table(errors, out, "errors", significant(3))
    figure = draw_figure(found, errors)
    figure.savefig(out / "likelihoods.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="fewer games and smaller panels")
