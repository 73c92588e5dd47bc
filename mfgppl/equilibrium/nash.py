"""The mean field equilibrium: a policy that is optimal for the flow that it generates.

Every method is judged by the same certificate, the exploitability of the best policy met.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import (
    differentiable_door,
    is_a,
    not_negative,
    one_of,
    positive_int,
    real_between,
)
from mfgppl._generated_flow import uniform_policy
from mfgppl.equilibrium.flat_flows import Array, softmax
from mfgppl.equilibrium.iterations import Budget, follow_temperatures
from mfgppl.equilibrium.linearisation import AnyResponseMap, confirmed, gain, valued_map
from mfgppl.equilibrium.response import check_policy
from mfgppl.equilibrium.solution import Solution, as_equilibrium, ended, outcome
from mfgppl.game import MeanFieldGame
from mfgppl.reward.program import RewardProgram

FLOW_TOLERANCE = 1e-9  # residual of the flows along a path of temperatures
COLDEST = 1e-7  # of the reward's spread: where a path of temperatures ends
BATCH = 25  # steps of mirror descent between two certificates
PURE = 10  # every so many averages of best responses the last of them is judged itself
ROUND = 100  # steps of each method before the next has its turn

# policies one after another, with the steps that they took
Play = Callable[[AnyResponseMap, Array, float, int], Iterator[tuple[Array, int]]]


@differentiable_door
def solve_nash(
    game: MeanFieldGame,
    reward: RewardProgram,
    *,
    parameters: Mapping[str, Any] | pd.Series | None = None,
    policy: Any = None,
    method: str = "auto",
    rate: float | None = None,
    tolerance: float = 1e-4,
    max_steps: int = 10_000,
    throw: bool = False,
) -> Solution:
    """Solve for a mean field equilibrium: nobody gains by another policy, without entropy.

    Parameters
    ----------
    game : MeanFieldGame
        The game; its temperature plays no part.
    reward : callable
        A reward program.
    parameters : mapping or Series, optional
        A value for each of its latent sites.
    policy : Tensor or array, shape (T, S, A), optional
        Where to start; by default all actions are as likely.
    method : str
        "auto" takes turns between the others until one succeeds; "annealing" follows the
        entropy-regularised equilibrium as its temperature falls to zero; "mirror_descent" adds up
        the Q of past policies; "fictitious_play" answers the average of past flows;
        "prior_descent" solves with entropy relative to the last policy; "best_response" moves a
        share of the way to the best response.
    rate : float, optional
        Step size: of mirror descent, over the reward's spread (0.1 by default); of prior descent,
        the temperature over the spread (1); of damped best response, the share (0.1).
    tolerance : float
        Exploitability that counts as none, in reward units over the horizon.
    max_steps : int
        Steps to take at most; a step is one answer to a flow.
    throw : bool
        Whether to raise where the tolerance is not reached.

    Returns
    -------
    Solution
        With the least exploitable policy met, its flow, and its exploitability as residual.

    Raises
    ------
    ConvergenceError
        If `throw` and the exploitability stays above the tolerance.
    ValueError
        If an argument is wrong.

    References
    ----------
    .. [1] Perrin, Perolat, Lauriere, Geist, Elie and Pietquin (2020), *Fictitious play for mean
       field games: continuous time analysis and applications*, NeurIPS.
    .. [2] Perolat, Perrin, Elie, Lauriere, Piliouras, Geist, Tuyls and Pietquin (2022), *Scaling
       mean field games by online mirror descent*, AAMAS.
    .. [3] Cui and Koeppl (2021), *Approximately solving mean field games via entropy-regularized
       deep reinforcement learning*, AISTATS (prior descent).
    .. [4] Turocy (2005), *A dynamic homotopy interpretation of the logistic quantal response
       equilibrium correspondence*, Games and Economic Behavior 51 (annealing).
    """
    is_a("game", game, MeanFieldGame)
    one_of("method", method, PLAYS)
    tolerance = not_negative("tolerance", tolerance)
    positive_int("max_steps", max_steps)
    if rate is not None:
        real_between("rate", rate, above=0.0)
        if method not in RATES:
            raise ValueError(f"`rate` belongs to {', '.join(RATES)}; got method={method!r}.")
    response_map = valued_map(game, reward, parameters)
    first = uniform_policy(game).numpy()
    if policy is not None:
        first = check_policy(game, policy).detach().numpy().copy()
    step = RATES.get(method, 0.0) if rate is None else rate
    play = functools.partial(
        _best_iterate, response_map, first, PLAYS[method], step, tolerance, max_steps
    )
    best, lowest, n_steps = confirmed(
        response_map, play, lambda end: response_map.evaluate(end[0]).flow
    )
    converged = lowest <= tolerance
    steps = f"steps of {method.replace('_', ' ')}"
    reason = outcome("exploitability", lowest, tolerance, n_steps, steps)
    value = as_equilibrium(game, response_map.evaluate(best))
    solution = Solution(value, converged, lowest, n_steps, reason)
    remedy = "try another `method`, another start `policy`, or more `max_steps`"
    return ended(solution, throw=throw, what="the mean field equilibrium", remedy=remedy)


def _best_iterate(
    response_map: AnyResponseMap,
    first: Array,
    play: Play,
    rate: float,
    tolerance: float,
    max_steps: int,
) -> tuple[Array, float, int]:
    """Return the least exploitable policy, its exploitability and the steps taken."""
    best, lowest, n_steps = first, gain(response_map, first), 1
    if lowest <= tolerance:
        return best, lowest, n_steps
    for candidate, n_steps in play(response_map, first, rate, max_steps):
        left = gain(response_map, candidate)
        if left < lowest:
            best, lowest = candidate, left
        if lowest <= tolerance or n_steps >= max_steps:
            break
    return best, lowest, n_steps


def spread_of(response_map: AnyResponseMap, policy: Array) -> float:
    """Return how far apart the rewards of a step are along a policy's flow, at least a trifle."""
    reward = response_map.evaluate(policy).reward
    finite = np.where(np.isfinite(reward), reward, np.nan).reshape(len(reward), -1)
    spread = np.nanmax(finite, 1) - np.nanmin(finite, 1)
    return float(max(spread.max(), 1e-12))


def _annealing(
    response_map: AnyResponseMap, policy: Array, rate: float, max_steps: int
) -> Iterator[tuple[Array, int]]:
    """Yield soft equilibria along falling temperatures."""
    spread = spread_of(response_map, policy) * response_map.game.shape[0]
    budget = Budget(FLOW_TOLERANCE, max_steps)
    flow = response_map.evaluate(policy).flow
    for _, end in follow_temperatures(
        response_map, flow, COLDEST * spread, budget, hottest=10 * spread
    ):
        yield end.image.policy, end.n_steps


def _mirror_descent(
    response_map: AnyResponseMap, policy: Array, rate: float, max_steps: int
) -> Iterator[tuple[Array, int]]:
    """Yield policies whose logits are sums of Q."""
    logits = np.log(np.maximum(policy, 1e-300))
    game = response_map.game
    logits[~game.available.expand(game.shape).numpy()] = -np.inf
    scaled = rate / spread_of(response_map, policy)
    for before in range(0, max_steps, BATCH):
        batch = min(BATCH, max_steps - before)
        logits = response_map.mirrored(logits, scaled, batch)
        yield softmax(logits), before + batch


def _average_play(
    response_map: AnyResponseMap, policy: Array, weight: Callable[[int], float], max_steps: int
) -> Iterator[tuple[Array, int]]:
    """Yield policies of an average over occupancies, with a weight for each best response."""
    occupancy = None
    for n_steps in range(1, max_steps + 1):
        evaluation = response_map.evaluate(policy)
        _, answer = response_map.best(evaluation)
        if occupancy is None:
            occupancy = response_map.occupancy(evaluation, policy)
        occupancy = occupancy + weight(n_steps) * (
            response_map.occupancy(evaluation, answer) - occupancy
        )
        shares = occupancy.sum(-1, keepdims=True)
        policy = np.where(shares > 0, occupancy / np.where(shares > 0, shares, 1.0), answer)
        yield (policy if n_steps % PURE else answer), n_steps


def _fictitious_play(
    response_map: AnyResponseMap, policy: Array, rate: float, max_steps: int
) -> Iterator[tuple[Array, int]]:
    return _average_play(response_map, policy, lambda n: 1.0 / (n + 1), max_steps)


def _best_response(
    response_map: AnyResponseMap, policy: Array, rate: float, max_steps: int
) -> Iterator[tuple[Array, int]]:
    return _average_play(response_map, policy, lambda n: rate, max_steps)


def _prior_descent(
    response_map: AnyResponseMap, policy: Array, rate: float, max_steps: int
) -> Iterator[tuple[Array, int]]:
    """Yield soft best responses with entropy relative to the one before."""
    temperature = rate * spread_of(response_map, policy)
    for n_steps in range(1, max_steps + 1):
        evaluation = response_map.evaluate(policy)
        relative = temperature * np.log(np.maximum(policy, 1e-300))
        _, policy = response_map.best(
            evaluation._replace(reward=evaluation.reward + relative), temperature
        )
        yield policy, n_steps


def _alternate(
    response_map: AnyResponseMap, policy: Array, rate: float, max_steps: int
) -> Iterator[tuple[Array, int]]:
    """Yield the policies of several methods, a round of steps each."""
    plays = [
        _best_response(response_map, policy, 3 * RATES["best_response"], max_steps),
        _mirror_descent(response_map, policy, RATES["mirror_descent"], max_steps),
        _annealing(response_map, policy, 0.0, max_steps),
        _best_response(response_map, policy, RATES["best_response"] / 3, max_steps),
        _prior_descent(response_map, policy, RATES["prior_descent"], max_steps),
    ]
    spent = [0] * len(plays)
    for until in itertools.count(ROUND, ROUND):
        if until > max_steps + ROUND:
            return
        for k, play in enumerate(plays):
            for candidate, n_steps in play:
                spent[k] = n_steps
                yield candidate, sum(spent)
                if n_steps >= until:
                    break


PLAYS: dict[str, Play] = {
    "auto": _alternate,
    "annealing": _annealing,
    "mirror_descent": _mirror_descent,
    "fictitious_play": _fictitious_play,
    "prior_descent": _prior_descent,
    "best_response": _best_response,
}
RATES = {"mirror_descent": 0.1, "prior_descent": 1.0, "best_response": 0.1}
