"""Tiny named games and panels; each docstring says which bug it can see."""

from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import mfgppl as mfg

ROUNDING = 1e-10  # sums of a few dozen float64 numbers
STANDARD_ERRORS = 5.0  # of a Monte Carlo mean


def random_rows(seed: int, *shape: int) -> np.ndarray:
    """Return an array whose last axis holds random probabilities."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])


def two_roads(**changes: Any) -> mfg.MeanFieldGame:
    """Drivers stay on a road or turn to the other, deterministically: sees a wrong sign of crowding
    and a transposed transition, since every next state is known.
    """
    stay, turn = np.eye(2), np.eye(2)[::-1]
    arguments: dict[str, Any] = {
        "states": ["left", "right"],
        "actions": ["stay", "turn"],
        "horizon": 4,
        "transition": np.stack([stay, turn], axis=1),
        "initial": [0.8, 0.2],
    }
    return mfg.MeanFieldGame(**(arguments | changes))


def avoid_crowds(x: mfg.RewardInputs) -> Tensor:
    """Reward of `two_roads`: the crowd on one's road costs, turning costs."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    effort = pyro.sample("effort", dist.HalfNormal(1.0))
    return -crowding * x.density - effort * (x.action == "turn")


ROADS_TRUTH = {"crowding": 1.5, "effort": 0.4}


def shop(**changes: Any) -> mfg.MeanFieldGame:
    """A product space with labels in no sorted order and three unequal axes: sees a re-sorted
    label, a transposed axis, or a state index that is not row-major.
    """
    arguments: dict[str, Any] = {
        "states": {"price": [3, 1, 2], "stock": ["low", "high"]},
        "actions": ["raise", "hold", "cut", "close"],
        "horizon": 5,
        "transition": random_rows(1, 6, 4, 6),
        "initial": random_rows(2, 6),
        "discount": 0.9,
        "temperature": 0.7,
    }
    return mfg.MeanFieldGame(**(arguments | changes))


def epidemic(**changes: Any) -> mfg.MeanFieldGame:
    """Infection grows with the crowd of the infected: sees dynamics evaluated at a wrong flow or
    at a wrong time.
    """

    def transition(mean_field: Tensor, time: int) -> Tensor:
        risk = 0.8 * mean_field[1]
        healthy = torch.stack([1 - risk, risk])
        safe = torch.tensor([1.0, 0.0], dtype=torch.float64)
        recover = 0.2 + 0.1 * time
        ill = torch.tensor([recover, 1 - recover], dtype=torch.float64)
        return torch.stack([torch.stack([healthy, safe]), torch.stack([ill, ill])])

    arguments: dict[str, Any] = {
        "states": ["healthy", "ill"],
        "actions": ["out", "distance"],
        "horizon": 4,
        "transition": transition,
        "initial": [0.7, 0.3],
    }
    return mfg.MeanFieldGame(**(arguments | changes))


def fear(x: mfg.RewardInputs) -> Tensor:
    """Reward of `epidemic`: illness and distance cost."""
    illness = pyro.sample("illness", dist.Normal(0.0, 1.0))
    distance = pyro.sample("distance", dist.Normal(0.0, 1.0))
    return -illness * (x.state == "ill") - distance * (x.action == "distance")


def lone() -> mfg.MeanFieldGame:
    """One state, one action, one decision: sees an axis dropped at size 1."""
    return mfg.MeanFieldGame(
        states=["here"], actions=["wait"], horizon=1, transition=np.ones((1, 1, 1)), initial=[1.0]
    )


def played(
    game: mfg.MeanFieldGame, reward: Any, parameters: dict[str, float], n_agents: int, seed: int
) -> mfg.Trajectories:
    """Return a panel of agents in the equilibrium of a game."""
    solution = mfg.solve_equilibrium(game, reward, parameters=parameters, throw=True)
    policy, flow = solution.value.policy, solution.value.mean_field
    n_times = 20 if game.stationary else None
    return mfg.simulate(game, policy, flow, n_agents=n_agents, random_seed=seed, n_times=n_times)


def as_frame(panel: mfg.Trajectories) -> pd.DataFrame:
    """Return a panel as a table with columns agent, time, the state coordinates and action."""
    codes = panel.space.codes[:, panel.state]
    columns: dict[str, Any] = {
        "agent": panel.agents[panel.trajectory],
        "time": panel.time + panel.first_time,
    }
    for (name, labels), code in zip(panel.space.coordinates.items(), codes, strict=True):
        columns[name] = [labels[c] for c in code]
    columns["action"] = [panel.actions[a] if a >= 0 else None for a in panel.action]
    return pd.DataFrame(columns)


def full_table(values: Tensor, game: mfg.MeanFieldGame) -> np.ndarray:
    """Return values spread to (T, S, A)."""
    return np.broadcast_to(values.numpy(), game.shape)
