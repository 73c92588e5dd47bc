"""Panels drawn from a policy along a flow."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfgppl._arguments import is_a, positive_int, strict_keywords
from mfgppl.data.trajectories import Trajectories
from mfgppl.equilibrium.steps import as_steps
from mfgppl.game import ROW_SUM, MeanFieldGame


@strict_keywords
def simulate(
    game: MeanFieldGame, policy: Any, mean_field: Any, *, n_agents: int, random_seed: int
) -> Trajectories:
    """Draw a balanced panel of agents that follow a policy in the mean-field limit.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    policy : Tensor, array or DataArray, shape (T, S, A)
        Probability of each action.
    mean_field : Tensor or array, shape (T, S)
        The flow that the dynamics see.
    n_agents : int
        Number of agents; each is observed at all T decisions.
    random_seed : int
        Seed of the draws.

    Returns
    -------
    Trajectories
        T decisions an agent; the state after the last one is not recorded.
    """
    is_a("game", game, MeanFieldGame)
    positive_int("n_agents", n_agents)
    positive_int("random_seed", random_seed, least=0)
    policy = policy if isinstance(policy, Tensor) else torch.tensor(np.asarray(policy, float))
    if tuple(policy.shape) != game.shape:
        raise ValueError(
            f"`policy` must have shape (T, S, A) = {game.shape}; got {tuple(policy.shape)}."
        )
    if bool((policy < 0).any()) or bool(((policy.sum(-1) - 1).abs() > ROW_SUM).any()):
        raise ValueError("`policy` must be shares of actions: each row sums to 1.")
    mean_field = game.check_flow("mean_field", mean_field)
    rng = np.random.default_rng(random_seed)
    T = game.horizon
    steps = as_steps(game.transition_along(mean_field).detach(), T)
    acts = policy.detach().numpy().cumsum(-1)
    state = np.empty((n_agents, T), dtype=np.int64)
    action = np.empty((n_agents, T), dtype=np.int64)
    state[:, 0] = _draw(rng, np.tile(game.initial.numpy().cumsum(), (n_agents, 1)))
    for t in range(T):
        action[:, t] = _draw(rng, acts[t, state[:, t]])
        if t < T - 1:
            here, acted = torch.from_numpy(state[:, t]), torch.from_numpy(action[:, t])
            uniform = torch.from_numpy(rng.random(n_agents))
            state[:, t + 1] = steps.draw(t, here, acted, uniform).numpy()
    return Trajectories(
        space=game.space,
        actions=game.actions,
        first_time=0,
        horizon=T,
        agents=np.arange(n_agents),
        offsets=np.arange(n_agents + 1) * T,
        time=np.tile(np.arange(T), n_agents),
        state=state.ravel(),
        action=action.ravel(),
    )


def _draw(rng: np.random.Generator, cumulative: np.ndarray) -> np.ndarray:
    """Draw one category a row from cumulative probabilities."""
    uniform = rng.random(len(cumulative))[:, None] * cumulative[:, -1:]
    return (uniform >= cumulative).sum(-1)
