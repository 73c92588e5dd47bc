"""The entropy-regularised equilibrium: a flow that its own soft best response generates."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl._arguments import (
    Seed,
    differentiable_door,
    is_a,
    one_of,
    positive_int,
    real_between,
    seed_of,
)
from mfgppl.equilibrium.flat_flows import Array, flat_shape, softmax, uniform_flow
from mfgppl.equilibrium.implicit import with_derivatives
from mfgppl.equilibrium.iterations import (
    HOTTEST,
    Budget,
    Found,
    anderson,
    damped_iteration,
    find_fixed_point,
    follow_temperatures,
    newton,
)
from mfgppl.equilibrium.linearisation import AnyResponseMap, confirmed, response_map_of
from mfgppl.equilibrium.solution import Solution, ended, full_response, outcome
from mfgppl.game import MeanFieldGame
from mfgppl.reward.program import RewardProgram

METHODS = ["auto", "damped", "anderson", "newton", "path"]
TOLERANCE, MAX_STEPS = 1e-10, 10_000  # residual that counts as none, and responses at most
REMEDY = "raise the game's `temperature`, give `mean_field` another start, or more `max_steps`"
SAME = 1e-6  # difference of shares below which two flows are one equilibrium


@differentiable_door
def solve_equilibrium(
    game: MeanFieldGame,
    reward: RewardProgram,
    *,
    parameters: Mapping[str, Any] | pd.Series | None = None,
    mean_field: Tensor | None = None,
    method: str = "auto",
    damping: float | None = None,
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
    throw: bool = False,
) -> Solution:
    """Solve `mu = push(soft_policy(mu))`, the entropy-regularised mean field equilibrium.

    Where a parameter (or a tensor in the reward program) requires grad, so does the solution: it is
    differentiated through the equation that it solves, not through the iteration: once, backwards
    or forwards (`torch.autograd.forward_ad`), not under the transforms of `torch.func`.

    Parameters
    ----------
    game : MeanFieldGame
        The game; its temperature is that of the equilibrium.
    reward : callable
        A reward program.
    parameters : mapping or Series, optional
        A value for each of its latent sites, as in `mle(model).params`; tensors may require grad.
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game, optional
        Where to start; by default everybody stays where they began.
    method : {"auto", "damped", "anderson", "newton", "path"}
        "damped" iterates; "anderson" extrapolates from the last flows; "newton" solves the
        linearised equation; "path" follows the solution from a high temperature down. "auto"
        accelerates, then takes Newton steps, then follows the path, until one succeeds.
    damping : float in (0, 1], optional
        Share of the new flow in each step of "damped"; by default it is adapted.
    tolerance : float
        Largest change of a share that counts as none.
    max_steps : int
        Soft best responses to compute at most.
    throw : bool
        Whether to raise where no solution is found.

    Returns
    -------
    Solution
        With an `Equilibrium` as value. Its residual is the largest change of a share under one
        more response.

    Raises
    ------
    ConvergenceError
        If `throw` and the residual stays above the tolerance.
    ValueError
        If an argument, a parameter or a reward is wrong.

    References
    ----------
    .. [1] Cui and Koeppl (2021), *Approximately solving mean field games via entropy-regularized
       deep reinforcement learning*, AISTATS.
    .. [2] Turocy (2005), *A dynamic homotopy interpretation of the logistic quantal response
       equilibrium correspondence*, Games and Economic Behavior 51.
    """
    is_a("game", game, MeanFieldGame)
    one_of("method", method, METHODS)
    if damping is not None:
        real_between("damping", damping, above=0.0, upto=1.0)
        if method not in ("auto", "damped"):
            raise ValueError(f"`damping` belongs to method='damped'; got method={method!r}.")
        method = "damped"
    budget = Budget(
        real_between("tolerance", tolerance, above=0.0), positive_int("max_steps", max_steps)
    )
    start = None if mean_field is None else game.check_flow("mean_field", mean_field).detach()
    response_map = response_map_of(game, reward, parameters)
    end = end_of_search(response_map, _begun(game, start), budget, method, damping)
    solution = _solution(response_map, end, budget)
    if solution.converged and torch.is_grad_enabled():
        value = with_derivatives(response_map, end.image)
        solution = solution if value is None else solution._replace(value=value)
    return ended(solution, throw=throw, what="the equilibrium", remedy=REMEDY)


class Settled(NamedTuple):
    """Where a crowd settles: an equilibrium without what it is worth to anybody.

    Attributes
    ----------
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
        The flow.
    policy : Tensor, shape (T, S, A)
        Probability of each action.
    converged : bool
        Whether the residual is within tolerance.
    reason : str
        How the search went and why it ended.
    """

    mean_field: Tensor
    policy: Tensor
    converged: bool
    reason: str


def settled(
    game: MeanFieldGame,
    reward: RewardProgram,
    values: Mapping[str, Any] | None = None,
    *,
    start: Tensor | None = None,
    max_steps: int = MAX_STEPS,
    throw: bool = False,
) -> Settled:
    """Return where the crowd settles at values by site that are known, without derivatives.

    `start` and `throw` are `mean_field` and `throw` of `solve_equilibrium`.
    """
    budget = Budget(TOLERANCE, max_steps)
    end = end_of_search(response_map_of(game, reward, values), _begun(game, start), budget)
    flow = torch.from_numpy(end.image.flow.copy()).reshape(game.flow_shape)
    policy = torch.from_numpy(end.image.policy.copy())
    converged = end.image.residual <= budget.tolerance
    found = Settled(flow, policy, converged, _reason(end, budget))
    return ended(found, throw=throw, what="the equilibrium", remedy=REMEDY)


def solved_from(response_map: AnyResponseMap, flow: Array, budget: Budget) -> Solution:
    """Return where the search for a response map's equilibrium ends, from a flow (T, F)."""
    return _solution(response_map, end_of_search(response_map, flow, budget), budget)


def _begun(game: MeanFieldGame, start: Tensor | None) -> Array:
    """Return the flow (T, F) where a search begins; by default everybody stays."""
    if start is None:
        return uniform_flow(game)
    return start.numpy().reshape(flat_shape(game)).copy()


def _solution(response_map: AnyResponseMap, end: Found, budget: Budget) -> Solution:
    """Return an end as a solution, without derivatives."""
    residual, value = end.image.residual, full_response(response_map, end.image)
    reason = _reason(end, budget)
    return Solution(value, residual <= budget.tolerance, residual, end.n_steps, reason)


def _reason(end: Found, budget: Budget) -> str:
    steps = f"steps of {end.how}"
    return outcome("residual", end.image.residual, budget.tolerance, end.n_steps, steps)


def end_of_search(
    response_map: AnyResponseMap,
    flow: Array,
    budget: Budget,
    method: str = "auto",
    damping: float | None = None,
) -> Found:
    """Return where a method ends, without the recording where that is wrong there."""
    search = functools.partial(_end_of, response_map, flow, budget, method, damping)
    return confirmed(response_map, search, _flow)


def _end_of(
    response_map: AnyResponseMap, flow: Array, budget: Budget, method: str, damping: float | None
) -> Found:
    """Return where a method ends."""
    temperature = response_map.game.temperature
    if method == "damped":
        return damped_iteration(response_map, flow, temperature, budget, damping=damping)
    if method == "anderson":
        return anderson(response_map, flow, temperature, budget)
    if method == "newton":
        return newton(response_map, flow, temperature, budget)
    if method == "path":
        return _by_path(response_map, flow, budget)
    first = find_fixed_point(response_map, flow, temperature, budget)
    left = budget._replace(max_steps=budget.max_steps - first.n_steps)
    if first.image.residual <= budget.tolerance or left.max_steps < 1:
        return first
    second = _by_path(response_map, flow, left)
    best = min(first, second, key=lambda end: end.image.residual)
    how = f"{first.how}, then {second.how}"
    return Found(best.image, first.n_steps + second.n_steps, how)


def _flow(end: Found) -> Array:
    return end.image.flow


def _by_path(response_map: AnyResponseMap, flow: Array, budget: Budget) -> Found:
    temperature = response_map.game.temperature
    if budget.max_steps == 1:
        return newton(response_map, flow, temperature, budget)
    budget = budget._replace(max_steps=budget.max_steps - 1)
    for _, end in follow_temperatures(
        response_map, flow, temperature, budget, hottest=HOTTEST * temperature
    ):
        last = end
    return Found(response_map.image(last.image.flow, temperature), last.n_steps + 1, last.how)


class Equilibria(NamedTuple):
    """Equilibria found from several starts.

    Attributes
    ----------
    solutions : list of Solution
        Distinct equilibria, the one reached most often first.
    counts : list of int
        How many starts led to each.
    n_starts : int
        Number of starts.
    n_failed : int
        Starts that led to none.
    """

    solutions: list[Solution]
    counts: list[int]
    n_starts: int
    n_failed: int

    @property
    def n_distinct(self) -> int:
        """Number of distinct equilibria."""
        return len(self.solutions)


@differentiable_door
def find_equilibria(
    game: MeanFieldGame,
    reward: RewardProgram,
    *,
    parameters: Mapping[str, Any] | pd.Series | None = None,
    n_starts: int = 20,
    random_seed: Seed = 0,
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
) -> Equilibria:
    """Look for several equilibria from the flows of random policies.

    That no second one is found does not prove that there is none.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program.
    parameters : mapping or Series, optional
        A value for each of its latent sites.
    n_starts : int
        Number of starts: the flow of those who stay, then of random policies from the nearly
        uniform to the nearly deterministic.
    random_seed : int or SeedSequence
        Seed of the policies.
    tolerance, max_steps
        As in `solve_equilibrium`, for each start.

    Returns
    -------
    Equilibria
        The distinct ones (no share differs by more than 1e-6), and how often each was reached.
    """
    is_a("game", game, MeanFieldGame)
    rng = np.random.default_rng(seed_of(random_seed))
    budget = Budget(
        real_between("tolerance", tolerance, above=0.0), positive_int("max_steps", max_steps)
    )
    positive_int("n_starts", n_starts)
    response_map = response_map_of(game, reward, parameters)
    ends, counts = distinct_ends(response_map, n_starts, rng, budget)
    return Equilibria(
        [_solution(response_map, end, budget) for end in ends], counts, n_starts,
        n_starts - sum(counts),
    )  # fmt: skip


def distinct_ends(
    response_map: AnyResponseMap, n_starts: int, rng: np.random.Generator, budget: Budget
) -> tuple[list[Found], list[int]]:
    """Return the distinct equilibria from several starts, and how many led to each.

    The one reached most often is first.
    """
    game = response_map.game
    starts = [uniform_flow(game)]
    for k in range(n_starts - 1):
        spread = 2.0 ** (k % 6 - 1)
        logits = spread * rng.standard_normal(game.shape)
        logits[~game.available.expand(game.shape).numpy()] = -np.inf
        starts.append(response_map.evaluate(softmax(logits)).flow)
    ends: list[Found] = []
    counts: list[int] = []
    for start in starts:
        search = functools.partial(find_fixed_point, response_map, start, game.temperature, budget)
        end = confirmed(response_map, search, _flow)
        if end.image.residual > budget.tolerance:
            continue
        known = [k for k, other in enumerate(ends) if _same(other, end)]
        if known:
            counts[known[0]] += 1
            continue
        ends.append(end)
        counts.append(1)
    order = sorted(range(len(counts)), key=lambda k: -counts[k])
    return [ends[k] for k in order], [counts[k] for k in order]


def _same(one: Found, other: Found) -> bool:
    return float(np.abs(one.image.flow - other.image.flow).max()) <= SAME
