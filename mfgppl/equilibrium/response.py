"""The soft best response to a flow in plain torch: what the kernels repeat, and differentiate."""

from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mfgppl.equilibrium.soft_control import propagate_mean_field, soft_backward_induction
from mfgppl.equilibrium.stationary import invariant_mean_field, soft_policy_iteration
from mfgppl.equilibrium.steps import as_steps
from mfgppl.exceptions import ConvergenceError
from mfgppl.game import ROW_SUM, MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, reward_table

MAX_ROUNDS = 10_000
SETTLED = 1e-13  # change of a share that counts as none


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
    table = reward_table(reward, RewardInputs(game, mean_field))
    masked = table.masked_fill(~game.available, -torch.inf)
    transition = game.transition_along(mean_field)
    control = soft_policy_iteration if game.stationary else soft_backward_induction
    solution = control(masked, transition, discount=game.discount, temperature=temperature)
    policy = solution.log_policy.exp()
    if game.stationary:
        shares = invariant_mean_field(policy, transition, initial=game.initial)
    else:
        shares = propagate_mean_field(policy, transition, game.initial)
    flow = shares[..., None] * policy if game.joint else shares
    return Equilibrium(flow, policy, solution.soft_values, masked)


def generate_mean_field(game: MeanFieldGame, policy: Tensor) -> Tensor:
    """Return the flow that a policy generates where the dynamics answer that flow.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    policy : Tensor, shape (T, S, A)
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
    policy = check_policy(game, policy)
    if game.stationary:
        return _settled(game, policy)
    shares, flow = game.initial, []
    fixed = (
        None if game.crowd_moves_dynamics else as_steps(game.transition_along(shares), len(policy))
    )
    for t in range(len(policy)):
        flow.append(shares[:, None] * policy[t] if game.joint else shares)
        if t < len(policy) - 1:
            steps, k = fixed, t
            if steps is None:
                steps, k = as_steps(game.transition_at(flow[t], t), 1), 0
            shares = steps.pushed(k, shares[:, None] * policy[t])
    return torch.stack(flow)


def _settled(game: MeanFieldGame, policy: Tensor) -> Tensor:
    """Return the flow of a stationary policy."""
    flow = game.initial[None]
    flow = flow[..., None] * policy if game.joint else flow
    for _ in range(MAX_ROUNDS):
        along = game.transition_along(flow)
        shares = invariant_mean_field(policy, along, initial=game.initial)
        found = shares[..., None] * policy if game.joint else shares
        change = float((found - flow).detach().abs().max())
        flow = found
        if change <= SETTLED or not game.crowd_moves_dynamics:
            return flow
    raise ConvergenceError(
        f"the policy's distribution did not settle in {MAX_ROUNDS} rounds (last change "
        f"{change:.1e}): the dynamics answer the crowd too strongly."
    )


def check_policy(game: MeanFieldGame, policy: Any) -> Tensor:
    """Return a policy (T, S, A) as float64, else raise a `ValueError`."""
    if isinstance(policy, xr.DataArray):
        policy = _in_order(game, policy)
    policy = policy if isinstance(policy, Tensor) else torch.tensor(np.asarray(policy, float))
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
    taken = ((shares > 0) & ~game.available).nonzero()
    if len(taken):
        t, s, a = taken[0].tolist()
        raise ValueError(
            f"`policy` takes the action {game.actions[a]!r} in state {game.space.labels[s]!r} at "
            f"time {t + first_time}, where the game does not allow it."
        )


def _in_order(game: MeanFieldGame, policy: xr.DataArray) -> np.ndarray:
    """Return a labelled policy with its labels, or their text, in the game's order."""
    dims = ("time", "state", "action")
    if set(policy.dims) != set(dims):
        raise ValueError(f"`policy` must have the dims {dims}; got {policy.dims}.")
    for dim, labels in (("state", game.space.labels), ("action", game.actions)):
        if dim not in policy.coords:
            continue
        there, known = [str(v) for v in policy[dim].values.tolist()], [str(v) for v in labels]
        if sorted(there) != sorted(known):
            raise ValueError(
                f"`policy` has the labels {there} along {dim!r}; the game has {known}."
            )
        policy = policy.isel({dim: [there.index(v) for v in known]})
    return np.asarray(policy.transpose(*dims).values, dtype=float)
