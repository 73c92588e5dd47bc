"""The flow that a policy generates where the dynamics answer that flow; the policy at random."""

import torch
from torch import Tensor

from mfgppl.control.stationary_control import kept_flow
from mfgppl.exceptions import ConvergenceError
from mfgppl.game import MeanFieldGame

MAX_ROUNDS = 10_000
SETTLED = 1e-13  # change of a share that counts as none


def uniform_policy(game: MeanFieldGame) -> Tensor:
    """Return the policy (T, S, A) that takes all available actions as often."""
    allowed = game.available.to(torch.float64)
    return (allowed / allowed.sum(-1, keepdim=True)).expand(game.shape).clone()


def flow_at_random(game: MeanFieldGame) -> Tensor:
    """Return the flow of agents who take all available actions as often."""
    policy = uniform_policy(game)
    return flow_of_policy(game, policy)


def flow_of_policy(game: MeanFieldGame, policy: Tensor, *, checked: bool = True) -> Tensor:
    """Return the flow (T, S), or (T, S, A) in a joint game, of a policy (T, S, A).

    What is recorded cannot be checked, which reads its values.

    Raises
    ------
    ConvergenceError
        If the dynamics of a stationary game settle at no distribution.
    """
    if game.stationary:
        return _kept(game, policy)
    shares, flow = game.initial, []
    for t in range(len(policy)):
        flow.append(shares[:, None] * policy[t] if game.joint else shares)
        if t < len(policy) - 1:
            if game.crowd_moves_dynamics:
                steps, k = game.step_at(flow[t], t, checked=checked), 0
            else:
                steps, k = game.steps, t
            shares = steps.pushed(k, shares[:, None] * policy[t])
    return torch.stack(flow)


def _kept(game: MeanFieldGame, policy: Tensor) -> Tensor:
    """Return the flow that a stationary policy keeps as it is."""
    flow = game.initial[None]
    flow = flow[..., None] * policy if game.joint else flow
    for _ in range(MAX_ROUNDS):
        shares = kept_flow(policy, game.steps_along(flow), initial=game.initial)
        following = shares[..., None] * policy if game.joint else shares
        change = float((following - flow).detach().abs().max())
        flow = following
        if change <= SETTLED or not game.crowd_moves_dynamics:
            return flow
    raise ConvergenceError(
        f"the policy's distribution did not settle in {MAX_ROUNDS} rounds (last change "
        f"{change:.1e}): the dynamics answer the crowd too strongly."
    )
