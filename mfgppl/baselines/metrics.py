"""How near a recovered reward is, and what the crowd does under it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl._arguments import is_a, strict_keywords
from mfgppl._generated_flow import flow_of_policy
from mfgppl.control.fixed_flow import advantages, weights_of
from mfgppl.equilibrium.best_response_gain import exploitability
from mfgppl.equilibrium.fixed_point import solve_equilibrium
from mfgppl.equilibrium.response import check_policy
from mfgppl.equilibrium.returns import expected_return
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, bind, check_callable, double_precision
from mfgppl.reward.site_values import site_values
from mfgppl.reward.valued import worth_table


class RecoveryMetrics(NamedTuple):
    """A recovered reward, or policy, beside the truth.

    Attributes
    ----------
    expected_return : float
        What agents earn, by the true reward, in the equilibrium of the recovered one.
    true_return : float
        What they earn in that of the true one.
    mean_field_deviation : float
        `sum_t KL(mu^E_t || mu_t)` of the true equilibrium's flow from the recovered one's, nats.
    policy_deviation : float
        `sum_t sum_s mu^E_t(s) KL(pi^E_t(.|s) || pi_t(.|s))`, nats.
    exploitability : float
        Of the recovered policy, by the true reward, reward units.
    reward_correlation : float
        Of the two reward tables along the true equilibrium's flow, where the crowd is, all actions
        alike; nan where one is constant.
    reward_distance : float
        `sqrt((1 - rho) / 2)` with rho the correlation after shaping is removed: 0 where rewards
        are the same up to shaping and a positive factor, 1 where they are opposite.
    converged : bool
        Whether both equilibria were found.
    """

    expected_return: float
    true_return: float
    mean_field_deviation: float
    policy_deviation: float
    exploitability: float
    reward_correlation: float
    reward_distance: float
    converged: bool


@strict_keywords
def recovery_metrics(
    game: MeanFieldGame,
    reward: RewardProgram,
    recovered: RewardProgram | None,
    *,
    parameters: Mapping[str, Any] | pd.Series | None = None,
    recovered_parameters: Mapping[str, Any] | pd.Series | None = None,
    policy: Any = None,
    mean_field: Tensor | None = None,
) -> RecoveryMetrics:
    """Solve the equilibria of a true and a recovered reward and compare them.

    Parameters
    ----------
    game : MeanFieldGame
        The world in which they are compared, of the data or a changed one.
    reward : callable
        The true reward program.
    recovered : callable or None
        The recovered one; None where a method gives a `policy` alone.
    parameters, recovered_parameters : mapping or Series, optional
        A value for each latent site of the two.
    policy : array, shape (T, S, A), optional
        A policy to judge in place of the recovered reward's equilibrium.
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game, optional
        Where the search for the recovered reward's equilibrium starts, as a flow that was seen;
        it matters where there are several.

    Returns
    -------
    RecoveryMetrics
        Of an imitated policy the reward's correlation and distance are nan.

    Raises
    ------
    ValueError
        If there is neither a reward nor a policy, or the game is stationary.

    References
    ----------
    .. [1] Gleave, Dennis, Legg, Russell and Leike (2021), *Quantifying differences in reward
       functions*, ICLR.
    """
    is_a("game", game, MeanFieldGame)
    if game.stationary:
        raise ValueError("`recovery_metrics` needs a game with a horizon; got a stationary one.")
    if recovered is None and policy is None:
        raise ValueError("give `recovered`, a reward program, or a `policy`; got neither.")
    if recovered is not None:
        check_callable(recovered, "recovered")
        site_values("recovered_parameters", recovered_parameters)
    truth = solve_equilibrium(game, reward, parameters=parameters)
    found_all = truth.converged
    if policy is None and recovered is not None:
        solution = solve_equilibrium(
            game, recovered, parameters=recovered_parameters, mean_field=mean_field
        )
        found_all = found_all and solution.converged
        table = solution.value.policy.detach()
    else:
        table = check_policy(game, policy).detach()
    flow, expert = flow_of_policy(game, table), truth.value
    correlation = distance = float("nan")
    if recovered is not None:
        correlation, distance = reward_distances(
            game,
            bind(reward, site_values("parameters", parameters)),
            bind(recovered, site_values("recovered_parameters", recovered_parameters)),
            expert.mean_field.detach(),
        )
    shares = _shares(game, expert.mean_field.detach())
    return RecoveryMetrics(
        expected_return(game, reward, table, parameters=parameters),
        expected_return(game, reward, expert.policy.detach(), parameters=parameters),
        float(_divergence(shares, _shares(game, flow)).sum()),
        float((shares * _divergence(expert.policy.detach(), table)).sum()),
        exploitability(game, reward, table, parameters=parameters),
        correlation,
        distance,
        found_all,
    )


def reward_distances(
    game: MeanFieldGame, reward: RewardProgram, recovered: RewardProgram, flow: Tensor
) -> tuple[float, float]:
    """Return the correlation of two rewards along a flow, and their distance without shaping."""
    steps = game.steps_along(flow.detach())
    weights = weights_of(_shares(game, flow), game.available)
    with double_precision(), torch.no_grad():
        tables = [worth_table(r, RewardInputs(game, flow)) for r in (reward, recovered)]
        bare = [advantages(r, steps, game.available, discount=game.discount) for r in tables]
    plain, without = (_correlation(a, b, weights) for a, b in (tables, bare))
    return plain, float(np.sqrt(max(1.0 - without, 0.0) / 2.0))


def _correlation(first: Tensor, second: Tensor, weights: Tensor) -> float:
    """Return the weighted correlation of two tables, nan where one is constant."""
    a, b = (v - (weights * v).sum() for v in (first, second))
    sizes = (weights * a * a).sum(), (weights * b * b).sum()
    if min(map(float, sizes)) < 1e-20:
        return float("nan")
    return float((weights * a * b).sum() / (sizes[0] * sizes[1]).sqrt())


def _divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence along the last axis, nats."""
    terms = torch.special.xlogy(first, first) - torch.special.xlogy(first, second)
    return torch.where(first > 0, terms, 0.0).sum(-1)


def _shares(game: MeanFieldGame, flow: Tensor) -> Tensor:
    return flow.sum(-1) if game.joint else flow
