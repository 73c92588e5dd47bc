"""The flow that a policy generates where the dynamics answer that flow."""

import torch
from torch import Tensor

from mfgppl.control.steps import DenseSteps, Steps, as_steps
from mfgppl.game import MeanFieldGame


def flow_of_policy(game: MeanFieldGame, policy: Tensor, *, checked: bool = True) -> Tensor:
    """Return the flow (T, S), or (T, S, A) in a joint game, of a policy (T, S, A).

    What is recorded cannot be checked, which reads its values.
    """
    shares, flow = game.initial, []
    for t in range(len(policy)):
        flow.append(shares[:, None] * policy[t] if game.joint else shares)
        if t < len(policy) - 1:
            if game.crowd_moves_dynamics:
                steps, k = _moving_step(game, flow[t], t, checked), 0
            else:
                steps, k = game.steps, t
            shares = steps.pushed(k, shares[:, None] * policy[t])
    return torch.stack(flow)


def _moving_step(game: MeanFieldGame, crowd: Tensor, time: int, checked: bool) -> Steps:
    """Return the dynamics of one step along a crowd."""
    if not checked:
        try:
            tables = game.moving_tables(crowd, time)
        except TypeError:  # sparse matrices of scipy
            return _moving_step(game, crowd, time, checked=True)
        return DenseSteps(tables.expand(game.n_cells, -1, -1, -1)[None])
    return as_steps(game.transition_at(crowd, time)[None], 1)
