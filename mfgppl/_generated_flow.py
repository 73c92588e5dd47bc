"""The flow that a policy generates where the dynamics answer that flow."""

import torch
from torch import Tensor

from mfgppl.control.steps import as_steps
from mfgppl.game import MeanFieldGame


def flow_of_policy(game: MeanFieldGame, policy: Tensor) -> Tensor:
    """Return the flow (T, S), or (T, S, A) in a joint game, of a policy (T, S, A)."""
    shares, flow = game.initial, []
    for t in range(len(policy)):
        flow.append(shares[:, None] * policy[t] if game.joint else shares)
        if t < len(policy) - 1:
            if game.crowd_moves_dynamics:
                steps, k = as_steps(game.transition_at(flow[t], t)[None], 1), 0
            else:
                steps, k = game.steps, t
            shares = steps.pushed(k, shares[:, None] * policy[t])
    return torch.stack(flow)
