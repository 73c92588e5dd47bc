"""Games, panels and slow twins that the tests of the baselines share."""

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg
from mfgppl.data.space import StateSpace


def as_they_should(game: mfg.MeanFieldGame, policy: Any, n_agents: int) -> mfg.CountedPanel:
    """Return a panel whose counts are those that a policy is expected to make, exactly.

    Policy and dynamics must be such that all counts are whole numbers.
    """
    flow = mfg.equilibrium.generate_mean_field(game, policy)
    tables = game.transition_along(flow).expand(game.n_steps, -1, -1, -1)
    paths: list[tuple[list[int], list[int], float]] = [
        ([s], [], float(share)) for s, share in enumerate(game.initial) if share > 0
    ]
    for t in range(game.horizon):
        grown = []
        for states, actions, share in paths:
            for a in range(game.n_actions):
                chosen = share * float(policy[t, states[-1], a])
                if chosen == 0:
                    continue
                if t == game.horizon - 1:
                    grown.append((states, [*actions, a], chosen))
                    continue
                for x in range(game.n_states):
                    moved = chosen * float(tables[t, states[-1], a, x])
                    if moved > 0:
                        grown.append(([*states, x], [*actions, a], moved))
        paths = grown
    rows: list[tuple[list[int], list[int]]] = []
    for states, actions, share in paths:
        number = round(share * n_agents)
        assert abs(number - share * n_agents) < 1e-9
        rows += [(states, actions)] * number
    return panel_of(game, rows)


def panel_of(game: mfg.MeanFieldGame, rows: list[tuple[list[int], list[int]]]) -> Any:
    """Return whole trajectories, given by the positions of their states and actions."""
    T, n = game.horizon, len(rows)
    return mfg.Trajectories(
        space=StateSpace(game.space.coordinates),
        actions=game.actions,
        first_time=0,
        horizon=T,
        agents=np.arange(n),
        offsets=np.arange(n + 1) * T,
        time=np.tile(np.arange(T), n),
        state=np.concatenate([states for states, _ in rows]),
        action=np.concatenate([actions for _, actions in rows]),
    )


def coin(**changes: Any) -> mfg.MeanFieldGame:
    """Agents toss a fair coin or stay: dynamics that halve, so that counts stay whole."""
    stay, toss = np.eye(2), np.full((2, 2), 0.5)
    arguments: dict[str, Any] = {
        "states": ["low", "high"],
        "actions": ["stay", "toss"],
        "horizon": 3,
        "transition": np.stack([stay, toss], axis=1),
        "initial": [0.5, 0.5],
    }
    return mfg.MeanFieldGame(**(arguments | changes))


def climbing(x: mfg.RewardInputs) -> torch.Tensor:
    """Reward of `coin`: height is worth something, a toss costs, company costs."""
    height = pyro.sample("height", dist.Normal(0.0, 1.0))
    cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
    company = pyro.sample("company", dist.Normal(0.0, 1.0))
    return height * (x.state == "high") - cost * (x.action == "toss") - company * x.density


def alone(x: mfg.RewardInputs) -> torch.Tensor:
    """The same without a crowd."""
    height = pyro.sample("height", dist.Normal(0.0, 1.0))
    cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
    return height * (x.state == "high") - cost * (x.action == "toss")


ALONE = {"height": 1.5, "cost": 0.5}


def halves(game: mfg.MeanFieldGame) -> torch.Tensor:
    """Return a policy of quarters, halves and wholes."""
    policy = torch.full(game.shape, 0.5, dtype=torch.float64)
    policy[0, 0] = torch.tensor([0.25, 0.75])
    policy[1, 1] = torch.tensor([0.75, 0.25])
    return policy
