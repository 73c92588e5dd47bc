"""What a policy earns when everybody follows it, and the policy that earns most."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl._arguments import differentiable_door, is_a, not_negative, positive_int, real_between
from mfgppl._generated_flow import flow_of_policy, uniform_policy
from mfgppl._quasi_newton import maximise
from mfgppl.equilibrium.linearisation import confirmed, valued_map
from mfgppl.equilibrium.response import check_policy
from mfgppl.equilibrium.solution import Solution, as_equilibrium, ended, outcome
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, bind, double_precision, reward_table
from mfgppl.reward.site_values import site_values
from mfgppl.reward.valued import valued

COOLING = np.array([1e-1, 1e-2, 1e-3, 1e-4])  # weights of the entropy, over the reward's spread
MIXED = 0.01  # share of chance in what is climbed from, without which nothing is tried
ROUNDING = 1e-9  # of two values that count as equal
SATURATED = 30.0  # log of the odds at which a choice counts as made


@differentiable_door
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
    game, program = valued(game, bind(reward, site_values("parameters", parameters)))
    table = check_policy(game, policy).detach()
    with double_precision(), torch.no_grad():
        return float(return_of(game, program, table, flow_of_policy(game, table)))


def return_of(game: MeanFieldGame, program: RewardProgram, policy: Tensor, flow: Tensor) -> Tensor:
    """Return the discounted reward of a policy along the flow that it generates."""
    rewards = reward_table(program, RewardInputs(game, flow))
    shares = flow.sum(-1) if game.joint else flow
    return discounted(game, (shares[..., None] * policy * rewards).sum((1, 2)))


def discounted(game: MeanFieldGame, by_time: Tensor, discount: Tensor | None = None) -> Tensor:
    """Return the discounted sum of what each time brings (T,); for ever in a stationary game.

    By the game's discount, or by that of each state (S,), of what each time and state bring (T, S).
    """
    weight = game.discount if discount is None else discount
    if game.stationary:
        return (by_time[0] / (1.0 - weight)).sum()
    times = torch.arange(len(by_time), dtype=by_time.dtype)
    return (weight ** times.reshape(-1, *[1] * (by_time.ndim - 1)) * by_time).sum()


@differentiable_door
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
    response_map = valued_map(game, reward, parameters)
    game = response_map.game
    uniform = uniform_policy(game)
    start = uniform if policy is None else check_policy(game, policy).detach()
    _check_differentiable(game, start)
    problem = _Problem(game, response_map.program, temperature)
    weights = [w for w in COOLING * problem.spread(start) if w > temperature] + [temperature]
    if policy is not None:  # near the start first
        weights = [temperature, *weights]
    candidates, n_steps = [start], 0
    logits = ((1 - MIXED) * start + MIXED * uniform).log()
    for weight in weights:
        logits, steps = problem.climb(logits, weight, max_steps)
        n_steps += steps
        candidates.append(problem.policy(logits))
    candidates.append(problem.greedy(candidates[-1]))
    best = problem.best(candidates)
    if problem.slope(best) > tolerance:
        polished, steps = problem.polish(best, tolerance, max_steps // 4)
        best, n_steps = problem.best([best, polished]), n_steps + steps
    slope = problem.slope(best)
    reason = outcome("slope", slope, tolerance, n_steps, "evaluations")
    evaluation = confirmed(
        response_map, lambda: response_map.evaluate(best.numpy(), temperature), lambda t: t.flow
    )
    solution = Solution(
        as_equilibrium(game, evaluation), slope <= tolerance, slope, n_steps, reason
    )
    remedy = "give more `max_steps`, another start `policy`, or a `temperature` above zero"
    return ended(solution, throw=throw, what="the social optimum", remedy=remedy)


def _check_differentiable(game: MeanFieldGame, policy: Tensor) -> None:
    flow = flow_of_policy(game, policy)
    if game.crowd_moves_dynamics and game.transition_along(flow).layout != torch.strided:
        raise ValueError(
            "the social optimum is not sought through a `transition` that returns scipy sparse "
            "matrices, which has no derivative; return a dense tensor computed in torch."
        )


class _Problem:
    """The objective as a function of a policy or its logits, with its gradient."""

    def __init__(self, game: MeanFieldGame, program: RewardProgram, temperature: float) -> None:
        self.game, self.program, self.temperature = game, program, temperature

    def policy(self, logits: Tensor) -> Tensor:
        masked = logits.masked_fill(~self.game.available, -torch.inf)
        return torch.softmax(masked, -1)

    def spread(self, policy: Tensor) -> float:
        with double_precision(), torch.no_grad():
            flow = flow_of_policy(self.game, policy)
            rewards = reward_table(self.program, RewardInputs(self.game, flow))
        return max(float(rewards.max() - rewards.min()), 1e-12)

    def objective(self, policy: Tensor, temperature: float) -> Tensor:
        flow = flow_of_policy(self.game, policy)
        value = return_of(self.game, self.program, policy, flow)
        if temperature == 0.0:
            return value
        shares = flow.sum(-1) if self.game.joint else flow
        entropy = -torch.special.xlogy(policy, policy.clamp_min(1e-300)).sum(-1)
        return value + temperature * discounted(self.game, (shares * entropy).sum(1))

    def value(self, policy: Tensor) -> float:
        with double_precision(), torch.no_grad():
            return float(self.objective(policy, self.temperature))

    def best(self, policies: Sequence[Tensor]) -> Tensor:
        """Return the policy of the highest value, of nearly equals the one of the least slope."""
        values = [self.value(p) for p in policies]
        near = max(values) - ROUNDING * max(abs(max(values)), 1.0)
        equals = [p for p, v in zip(policies, values, strict=True) if v >= near]
        return min(equals, key=self.slope)

    def climb(self, logits: Tensor, temperature: float, max_steps: int) -> tuple[Tensor, int]:
        """Return logits of a local maximum near some, and the evaluations that it took."""
        shape = logits.shape

        def height(point: np.ndarray) -> tuple[float, np.ndarray]:
            at = torch.from_numpy(point.reshape(shape)).requires_grad_(True)
            with double_precision(), torch.enable_grad():
                value = self.objective(self.policy(at), temperature)
                (slope,) = torch.autograd.grad(value, at)
            return float(value.detach()), slope.numpy().ravel()

        point, _, n_evaluations = maximise(
            height,
            logits.clamp(-SATURATED, SATURATED).numpy().ravel(),
            bound=SATURATED,
            tolerance=1e-9,
            gain=1e-15,
            max_steps=max_steps,
            max_evaluations=max_steps,
        )
        return torch.from_numpy(point.reshape(shape)), n_evaluations

    def polish(self, policy: Tensor, tolerance: float, max_steps: int) -> tuple[Tensor, int]:
        """Return a policy after natural gradient steps, which rarely met choices take as well.

        Logits grow by a rate times the slope over the share that meets the choice.
        """
        rate, value, n_steps = 1.0 / self.spread(policy), self.value(policy), 0
        while n_steps < max_steps and self.slope(policy) > tolerance and rate > 1e-9:
            flow = flow_of_policy(self.game, policy)
            shares = flow.sum(-1) if self.game.joint else flow
            gains = self.slopes(policy) / shares.clamp_min(1e-12)[..., None]
            gains = gains - torch.where(policy > 0, policy * gains, 0.0).sum(-1, keepdim=True)
            following = self.policy(policy.clamp_min(1e-12).log() + (rate * gains).clamp(-5.0, 5.0))
            reached = self.value(following)
            n_steps += 1
            if reached > value:
                policy, value, rate = following, reached, 1.5 * rate
            else:
                rate /= 4
        return policy, n_steps

    def slopes(self, policy: Tensor) -> Tensor:
        """Return the derivative of the objective in each probability, (T, S, A)."""
        at = policy.clone().requires_grad_(True)
        with double_precision(), torch.enable_grad():
            (slope,) = torch.autograd.grad(self.objective(at, self.temperature), at)
        return slope.masked_fill(~self.game.available, -torch.inf)

    def slope(self, policy: Tensor) -> float:
        """Return the slope towards the policy that takes each choice's best action."""
        slopes = self.slopes(policy)
        kept = torch.where(policy > 0, policy * slopes, 0.0).sum(-1)
        return float((slopes.max(-1).values - kept).clamp_min(0.0).sum())

    def greedy(self, policy: Tensor) -> Tensor:
        """Return the policy that takes each choice's best action."""
        best = self.slopes(policy).argmax(-1)
        return torch.nn.functional.one_hot(best, self.game.n_actions).to(torch.float64)
