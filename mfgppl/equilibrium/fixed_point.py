"""The entropy-regularised equilibrium by a damped fixed point."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from mfgppl._arguments import is_a, positive_int, real_between, strict_keywords
from mfgppl.equilibrium.soft_control import propagate_mean_field, soft_backward_induction
from mfgppl.exceptions import ConvergenceError
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, bind, reward_table


class Equilibrium(NamedTuple):
    """An entropy-regularised mean field equilibrium.

    Attributes
    ----------
    mean_field : Tensor, shape (T, S)
        The flow.
    policy : Tensor, shape (T, S, A)
        The soft best response to it.
    soft_values : Tensor, shape (T, S)
        Its values, reward units.
    reward : Tensor, shape (T, S, A)
        The reward along the flow.
    """

    mean_field: Tensor
    policy: Tensor
    soft_values: Tensor
    reward: Tensor


class Solution(NamedTuple):
    """What an iteration found, and whether to believe it.

    Attributes
    ----------
    value : Equilibrium
        The last iterate.
    converged : bool
        Whether the residual is within tolerance.
    residual : float
        Largest change of the flow under one undamped step, in shares.
    n_steps : int
        Steps taken.
    reason : str
        Why the iteration ended.
    """

    value: Equilibrium
    converged: bool
    residual: float
    n_steps: int
    reason: str


def soft_response(game: MeanFieldGame, reward: RewardProgram, mean_field: Tensor) -> Equilibrium:
    """Return the soft best response to a flow and the flow that it generates."""
    table = reward_table(reward, RewardInputs(game, mean_field))
    masked = table.masked_fill(~game.available, -torch.inf)
    transition = game.transition_along(mean_field)
    solution = soft_backward_induction(
        masked, transition, discount=game.discount, temperature=game.temperature
    )
    policy = solution.log_policy.exp()
    flow = propagate_mean_field(policy, transition, game.initial)
    return Equilibrium(flow, policy, solution.soft_values, table)


@strict_keywords
def solve_equilibrium(
    game: MeanFieldGame,
    reward: RewardProgram,
    *,
    parameters: Mapping[str, Any] | pd.Series | None = None,
    mean_field: Tensor | None = None,
    damping: float = 0.5,
    tolerance: float = 1e-10,
    max_steps: int = 10_000,
    throw: bool = False,
) -> Solution:
    """Solve `mu = push(soft_policy(mu))` by damped iteration.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program.
    parameters : mapping or Series, optional
        A value for each of its latent sites, as in `mle(model).params`.
    mean_field : Tensor, shape (T, S), optional
        Where to start; by default everybody stays where they began.
    damping : float in (0, 1]
        Share of the new flow in each step.
    tolerance : float
        Largest change of a share that counts as none.
    max_steps : int
        Steps to take at most.
    throw : bool
        Whether to raise where the iteration does not converge.

    Returns
    -------
    Solution
        With an `Equilibrium` as value; its flow is the last iterate.

    Raises
    ------
    ConvergenceError
        If `throw` and the residual stays above the tolerance.

    References
    ----------
    .. [1] Cui and Koeppl (2021), *Approximately solving mean field games via entropy-regularized
       deep reinforcement learning*, AISTATS.
    """
    is_a("game", game, MeanFieldGame)
    real_between("damping", damping, above=0.0, upto=1.0)
    real_between("tolerance", tolerance, above=0.0)
    positive_int("max_steps", max_steps)
    program = bind(reward, {} if parameters is None else dict(parameters))
    flow = game.initial.repeat(game.horizon, 1)
    if mean_field is not None:
        flow = game.check_flow("mean_field", mean_field)
    residual = float("inf")
    with torch.no_grad():
        for step in range(1, max_steps + 1):
            response = soft_response(game, program, flow)
            residual = float((response.mean_field - flow).abs().max())
            if residual <= tolerance:
                reason = f"residual {residual:.1e} within {tolerance:.1e}"
                return Solution(response._replace(mean_field=flow), True, residual, step, reason)
            flow = flow + damping * (response.mean_field - flow)
    reason = f"residual {residual:.1e} above {tolerance:.1e} after {max_steps} steps"
    if throw:
        raise ConvergenceError(
            f"the equilibrium was not reached: {reason}; lower `damping` (now {damping:g})."
        )
    return Solution(response._replace(mean_field=flow), False, residual, max_steps, reason)
