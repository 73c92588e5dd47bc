"""The soft best response to a flow in plain torch: what the kernels repeat, and differentiate."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mfgppl._arguments import differentiable_door, is_a
from mfgppl._arrays import as_numbers
from mfgppl._game_arguments import AXES, ROW_SUM
from mfgppl._generated_flow import flow_of_policy
from mfgppl.control.soft_control import backward_induction, generated_flow
from mfgppl.control.stationary_control import kept_flow, policy_iteration
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram
from mfgppl.reward.valued import Outlook, faced


class Equilibrium(NamedTuple):
    """A flow, how agents act along it, and what it is worth to them.

    A stationary game has T = 1.

    Attributes
    ----------
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
        The flow.
    policy : Tensor, shape (T, S, A)
        Probability of each action.
    soft_values : Tensor, shape (T, S)
        Values of the states, reward units, with the entropy's where the temperature is not zero.
    reward : Tensor, shape (T, S, A)
        The reward along the flow, -inf where an action is not available.
    """

    mean_field: Tensor
    policy: Tensor
    soft_values: Tensor
    reward: Tensor


def soft_response(
    game: MeanFieldGame, reward: RewardProgram, mean_field: Tensor, *, temperature: float
) -> Equilibrium:
    """Return the soft best response to a flow and the flow that it generates along it."""
    table, own = faced(reward, RewardInputs(game, mean_field))
    masked = table.masked_fill(~game.available, -torch.inf)
    steps = game.steps_along(mean_field)
    control = policy_iteration if game.stationary else backward_induction
    solution = control(masked, steps, discount=game.discount, temperature=temperature)
    policy = solution.log_policy.exp()
    if game.stationary:
        shares = kept_flow(policy, steps, initial=game.initial)
    else:
        shares = generated_flow(policy, steps, game.initial)
    flow = shares[..., None] * policy if game.joint else shares
    return in_own_units(Equilibrium(flow, policy, solution.soft_values, masked), own)


def in_own_units(found: Equilibrium, own: Outlook | None) -> Equilibrium:
    """Return a response with what agents earn and expect, whatever table they answer."""
    return found if own is None else found._replace(reward=own.reward, soft_values=own.values)


@differentiable_door
def generate_mean_field(game: MeanFieldGame, policy: Any) -> Tensor:
    """Return the flow that a policy generates where the dynamics answer that flow.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    policy : Tensor, array, DataArray or Series, shape (T, S, A)
        Probability of each action; rows sum to 1.

    Returns
    -------
    Tensor, shape (T, S), or (T, S, A) in a joint game
        `mu_{t+1}(x) = sum_{s,a} mu_t(s) pi_t(a|s) P(x|s,a,mu_t)`; in a stationary game the
        distribution that stays as it is.

    Raises
    ------
    ValueError
        If the policy's shape does not fit.
    ConvergenceError
        If the dynamics of a stationary game settle at no distribution.
    """
    is_a("game", game, MeanFieldGame)
    return flow_of_policy(game, check_policy(game, policy))


def check_policy(game: MeanFieldGame, policy: Any) -> Tensor:
    """Return a policy (T, S, A) as float64, else raise a `ValueError`."""
    policy = game.in_order("policy", policy, AXES)
    policy = as_numbers("policy", policy, "(T, S, A)")
    if tuple(policy.shape) != game.shape:
        raise ValueError(
            f"`policy` must have shape (T, S, A) = {game.shape}; got {tuple(policy.shape)}."
        )
    shares = policy.detach()
    sound = bool((shares >= 0).all()) and bool(((shares.sum(-1) - 1).abs() <= ROW_SUM).all())
    if not sound:
        raise ValueError(
            "`policy` must be shares of actions: numbers from 0 to 1, each row summing to 1 "
            f"(within {ROW_SUM:g}; build it in float64)."
        )
    check_allowed(game, shares, first_time=0)
    return policy.to(torch.float64)


def check_allowed(game: MeanFieldGame, shares: Tensor, *, first_time: int) -> None:
    """Raise a `ValueError` where shares of actions (n, S, A) are of some that are not available."""
    allowed = game.available
    if allowed.ndim == 3:
        allowed = allowed[first_time : first_time + len(shares)]
    taken = ((shares > 0) & ~allowed).nonzero()
    if len(taken):
        t, s, a = taken[0].tolist()
        raise ValueError(
            f"`policy` takes the action {game.actions[a]!r} in state {game.space.labels[s]!r} at "
            f"time {t + first_time}, where the game does not allow it."
        )
