"""What a policy earns when everybody follows it, and the policy that earns most."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
import torch
from torch import Tensor

from mfgppl._arguments import is_a, not_negative, positive_int, real_between, strict_keywords
from mfgppl.equilibrium.response import check_policy, generate_mean_field
from mfgppl.equilibrium.solution import Solution, as_equilibrium, ended
from mfgppl.equilibrium.world import uniform_policy
from mfgppl.equilibrium.worlds import world_of
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, bind, double_precision, reward_table

COOLING = (1e-1, 1e-2, 1e-3, 1e-4, 0.0)  # weights of the entropy, over the reward's spread
SATURATED = 30.0  # log of the odds at which a choice counts as made


@strict_keywords
def expected_return(
    game: MeanFieldGame,
    reward: RewardProgram,
    policy: Any,
    *,
    parameters: Mapping[str, Any] | pd.Series | None = None,
) -> float:
    """Return `J(mu^pi, pi)`: an agent's discounted reward where everybody follows the policy.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program.
    policy : Tensor, array or DataArray, shape (T, S, A)
        Probability of each action.
    parameters : mapping or Series, optional
        A value for each latent site of the reward.

    Returns
    -------
    float
        Reward units over the horizon; in a stationary game from the distribution that stays.
    """
    is_a("game", game, MeanFieldGame)
    program = bind(reward, {} if parameters is None else dict(parameters))
    table = check_policy(game, policy).detach()
    return float(return_of(game, program, table, generate_mean_field(game, table)))


def return_of(game: MeanFieldGame, program: RewardProgram, policy: Tensor, flow: Tensor) -> Tensor:
    """Return the discounted reward of a policy along the flow that it generates."""
    rewards = reward_table(program, RewardInputs(game, flow))
    shares = flow.sum(-1) if game.joint else flow
    return discounted(game, (shares[..., None] * policy * rewards).sum((1, 2)))


def discounted(game: MeanFieldGame, by_time: Tensor) -> Tensor:
    """Return the discounted sum of what each time brings (T,); for ever in a stationary game."""
    if game.stationary:
        return by_time[0] / (1.0 - game.discount)
    weights = game.discount ** torch.arange(len(by_time), dtype=by_time.dtype)
    return (weights * by_time).sum()


@strict_keywords
def social_optimum(
    game: MeanFieldGame,
    reward: RewardProgram,
    *,
    parameters: Mapping[str, Any] | pd.Series | None = None,
    policy: Any = None,
    temperature: float = 0.0,
    tolerance: float = 1e-4,
    max_steps: int = 2_000,
    throw: bool = False,
) -> Solution:
    """Maximise `J(mu^pi, pi)`, what everybody earns by a common policy (mean field control).

    The gradient takes the policy's effect on the flow into account; SciPy's L-BFGS climbs, from
    much entropy to little. It is a local maximum where the objective is not concave.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program.
    parameters : mapping or Series, optional
        A value for each of its latent sites.
    policy : Tensor or array, shape (T, S, A), optional
        Where to start; by default all actions are as likely.
    temperature : float, not negative
        Weight of the policies' entropy in the objective, in reward units. The game's own plays no
        part.
    tolerance : float
        Slope that counts as none, in reward units.
    max_steps : int
        Evaluations at most, for each of the few weights of the entropy.
    throw : bool
        Whether to raise where the tolerance is not reached.

    Returns
    -------
    Solution
        With the policy, its flow and its values. The residual is the slope of the objective
        towards the policy that takes each choice's best action, zero at a maximum.

    Raises
    ------
    ConvergenceError
        If `throw` and the slope stays above the tolerance.
    ValueError
        If an argument is wrong.

    References
    ----------
    .. [1] Yang, Ye, Trivedi, Xu and Zha (2018), *Learning deep mean field games for modeling
       large population behavior*, ICLR.
    .. [2] Bensoussan, Frehse and Yam (2013), *Mean field games and mean field type control theory*,
       Springer.
    """
    is_a("game", game, MeanFieldGame)
    temperature = not_negative("temperature", temperature)
    real_between("tolerance", tolerance, above=0.0)
    positive_int("max_steps", max_steps)
    world = world_of(game, reward, parameters)
    start = torch.from_numpy(uniform_policy(game))
    if policy is not None:
        start = check_policy(game, policy).detach()
    problem = _Problem(game, world.program)
    spread = problem.spread(start)
    weights = [w * spread for w in COOLING if w * spread > temperature] + [temperature]
    logits, n_steps = start.clamp_min(1e-8).log(), 0
    for weight in weights:
        logits, steps = problem.climbed(logits, weight, max_steps)
        n_steps += steps
    found = problem.policy(logits)
    slope = problem.slope(found, temperature)
    pure = problem.greedy(found, temperature)
    flatter = temperature == 0.0 and problem.slope(pure, 0.0) < slope
    if flatter and problem.value(pure, 0.0) >= problem.value(found, 0.0):
        found, slope = pure, problem.slope(pure, 0.0)
    side = "within" if slope <= tolerance else "above"
    reason = f"slope {slope:.1e} {side} {tolerance:.1e} after {n_steps} steps of L-BFGS"
    value = as_equilibrium(game, world.turn(found.numpy(), temperature))
    solution = Solution(value, slope <= tolerance, slope, n_steps, reason)
    remedy = "give more `max_steps`, another start `policy`, or a `temperature` above zero"
    return ended(solution, throw=throw, what="the social optimum", remedy=remedy)


class _Problem:
    """The objective as a function of logits, with its gradient."""

    def __init__(self, game: MeanFieldGame, program: RewardProgram) -> None:
        self.game, self.program = game, program

    def policy(self, logits: Tensor) -> Tensor:
        masked = logits.masked_fill(~self.game.available, -torch.inf)
        return torch.softmax(masked, -1)

    def spread(self, policy: Tensor) -> float:
        with double_precision(), torch.no_grad():
            flow = generate_mean_field(self.game, policy)
            rewards = reward_table(self.program, RewardInputs(self.game, flow))
        return max(float(rewards.max() - rewards.min()), 1e-12)

    def objective(self, policy: Tensor, temperature: float) -> Tensor:
        flow = generate_mean_field(self.game, policy)
        value = return_of(self.game, self.program, policy, flow)
        if temperature == 0.0:
            return value
        shares = flow.sum(-1) if self.game.joint else flow
        entropy = -torch.special.xlogy(policy, policy.clamp_min(1e-300)).sum(-1)
        return value + temperature * discounted(self.game, (shares * entropy).sum(1))

    def value(self, policy: Tensor, temperature: float) -> float:
        with double_precision(), torch.no_grad():
            return float(self.objective(policy, temperature))

    def climbed(self, logits: Tensor, temperature: float, max_steps: int) -> tuple[Tensor, int]:
        """Return logits of a local maximum near some, and the evaluations that it took."""
        shape = logits.shape

        def descend(point: np.ndarray) -> tuple[float, np.ndarray]:
            at = torch.from_numpy(point.reshape(shape)).requires_grad_(True)
            with double_precision(), torch.enable_grad():
                value = self.objective(self.policy(at), temperature)
                (slope,) = torch.autograd.grad(value, at)
            return -float(value.detach()), -slope.numpy().ravel()

        found = scipy.optimize.minimize(
            descend,
            logits.numpy().ravel(),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-SATURATED, SATURATED)] * logits.numel(),
            options={"maxfun": max_steps, "maxiter": max_steps, "ftol": 1e-15, "gtol": 1e-9},
        )
        return torch.from_numpy(found.x.reshape(shape)), int(found.nfev)

    def slopes(self, policy: Tensor, temperature: float) -> Tensor:
        """Return the derivative of the objective in each probability, (T, S, A)."""
        at = policy.clone().requires_grad_(True)
        with double_precision(), torch.enable_grad():
            (slope,) = torch.autograd.grad(self.objective(at, temperature), at)
        return slope.masked_fill(~self.game.available, -torch.inf)

    def slope(self, policy: Tensor, temperature: float) -> float:
        """Return the slope towards the policy that takes each choice's best action."""
        slopes = self.slopes(policy, temperature)
        kept = torch.where(policy > 0, policy * slopes, 0.0).sum(-1)
        return float((slopes.max(-1).values - kept).clamp_min(0.0).sum())

    def greedy(self, policy: Tensor, temperature: float) -> Tensor:
        """Return the policy that takes each choice's best action."""
        best = self.slopes(policy, temperature).argmax(-1)
        return torch.nn.functional.one_hot(best, self.game.n_actions).to(torch.float64)
