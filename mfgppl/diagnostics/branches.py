"""A game's equilibrium at many values of its reward's parameters, its other branches watched."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from torch import Tensor

from mfgppl.equilibrium.fixed_point import SAME, find_equilibria, solve_equilibrium
from mfgppl.equilibrium.response import Equilibrium
from mfgppl.equilibrium.returns import discounted
from mfgppl.exceptions import ConvergenceError
from mfgppl.game import MeanFieldGame
from mfgppl.inference.program import Program
from mfgppl.inference.progress import progress
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, bind, double_precision, reward_table

CHUNK = 20  # draws that a worker takes at a time
NAMES = ("welfare", "welfare_with_entropy", "welfare_fitted")  # the last by the fitted reward


class Search(NamedTuple):
    """How equilibria are sought.

    Attributes
    ----------
    tolerance : float
        Residual that counts as none.
    max_steps : int
        Responses to compute at most from each start.
    n_starts : int
        Starts of the search for other equilibria at the reference.
    """

    tolerance: float
    max_steps: int
    n_starts: int


class Setting(NamedTuple):
    """A world in which draws are solved.

    Attributes
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        Its reward program.
    fitted : callable
        The reward program of the fit, which may be another.
    branches : list of Tensor
        Flows at the reference: of the equilibrium to follow, and of the others that are known.
    """

    game: MeanFieldGame
    reward: RewardProgram
    fitted: RewardProgram
    branches: list[Tensor]


class Solved(NamedTuple):
    """A world's equilibria by draw; NaN where none was found.

    Attributes
    ----------
    flow : ndarray, shape (N, T, S)
        Shares of the states.
    policy : ndarray, shape (N, T, S, A)
        Probability of each action.
    worth : ndarray, shape (N, 3)
        The welfare `NAMES`, reward units over the horizon.
    residual : ndarray, shape (N,)
        Largest change of a share under one more response.
    several : ndarray of bool, shape (N,)
        Whether the starts lead to more than one equilibrium.
    switched : ndarray of bool, shape (N,)
        Whether the equilibrium is nearer to another branch of the reference than to its own.
    """

    flow: np.ndarray
    policy: np.ndarray
    worth: np.ndarray
    residual: np.ndarray
    several: np.ndarray
    switched: np.ndarray


def branches_at(
    game: MeanFieldGame,
    reward: RewardProgram,
    parameters: dict[str, Any],
    start: Tensor,
    search: Search,
) -> list[Tensor]:
    """Return the flow of the equilibrium sought from a start, then of the others found."""
    arguments = {"tolerance": search.tolerance, "max_steps": search.max_steps}
    with torch.no_grad():
        own = _attempt(game, reward, parameters, start, search)
        try:
            found = find_equilibria(
                game, reward, parameters=parameters, n_starts=search.n_starts, **arguments
            ).solutions
        except ConvergenceError:  # dynamics that settle at no distribution
            found = []
    first = start if own is None else own[0].mean_field
    others = [solution.value.mean_field for solution in found]
    return [first, *(flow for flow in others if _apart(flow, first) > SAME)]


def solve_all(
    setting: Setting,
    program: Program,
    values: np.ndarray,
    search: Search,
    *,
    n_jobs: int | None,
    progressbar: bool,
) -> Solved:
    """Return a world's equilibria at flat constrained parameters (N, K), through joblib."""
    parts = [values[k : k + CHUNK] for k in range(0, len(values), CHUNK)]
    sites = [[program.by_site(value) for value in part] for part in parts]
    backend, _ = joblib.parallel.get_active_backend()
    order = "generator" if getattr(backend, "supports_return_generator", False) else "list"
    run = joblib.Parallel(n_jobs=n_jobs, return_as=order)
    tasks = (joblib.delayed(_solved)(setting, part, search) for part in sites)
    rows = list(progress(run(tasks), "equilibria", progressbar, total=len(parts)))
    return Solved(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def _solved(setting: Setting, draws: Sequence[dict[str, Any]], search: Search) -> Solved:
    with torch.no_grad():
        rows = [_solved_at(setting, values, search) for values in draws]
    return Solved(*(np.stack(column) for column in zip(*rows, strict=True)))


def _solved_at(setting: Setting, values: dict[str, Any], search: Search) -> tuple[Any, ...]:
    """Return the fields of `Solved` at one draw."""
    game, known = setting.game, setting.branches
    starts: list[Tensor | None] = [*known] if len(known) > 1 else [known[0], None]
    tried = [_attempt(game, setting.reward, values, start, search) for start in starts]
    found = [one for one in tried if one is not None and one[1] <= search.tolerance]
    residual = found[0][1] if found else min((one[1] for one in tried if one), default=np.inf)
    if not found:
        T, S, A = game.shape
        nothing = (np.full((T, S), np.nan), np.full((T, S, A), np.nan), np.full(len(NAMES), np.nan))
        return (*nothing, residual, False, False)
    own = found[0][0]
    distances = [_apart(own.mean_field, flow) for flow in known]
    return (
        _shares(game, own).numpy(),
        own.policy.numpy(),
        _worth(setting, own, values),
        residual,
        any(_apart(one.mean_field, own.mean_field) > SAME for one, _ in found),
        int(np.argmin(distances)) > 0,
    )


def _attempt(
    game: MeanFieldGame,
    reward: RewardProgram,
    values: dict[str, Any],
    start: Tensor | None,
    search: Search,
) -> tuple[Equilibrium, float] | None:
    """Return where the search from a start ends with its residual; None where it breaks off."""
    try:
        solution = solve_equilibrium(
            game,
            reward,
            parameters=values,
            mean_field=start,
            tolerance=search.tolerance,
            max_steps=search.max_steps,
        )
    except ConvergenceError:  # dynamics that settle at no distribution
        return None
    return solution.value, solution.residual


def _worth(setting: Setting, found: Equilibrium, values: dict[str, Any]) -> np.ndarray:
    """Return the welfare `NAMES` of an equilibrium."""
    game, policy, shares = setting.game, found.policy, _shares(setting.game, found)
    entropy = -(shares * torch.special.xlogy(policy, policy).sum(-1)).sum(1)
    plain = _earned(game, found, found.reward)
    fitted = plain
    if setting.reward is not setting.fitted:
        with double_precision():
            inputs = RewardInputs(game, found.mean_field)
            fitted = _earned(game, found, reward_table(bind(setting.fitted, values), inputs))
    total = plain + game.temperature * discounted(game, entropy)
    return np.array([float(plain), float(total), float(fitted)])


def _earned(game: MeanFieldGame, found: Equilibrium, rewards: Tensor) -> Tensor:
    """Return the discounted reward of the crowd's policy."""
    income = torch.where(found.policy > 0, found.policy * rewards, 0.0).sum(-1)
    return discounted(game, (_shares(game, found) * income).sum(1))


def _shares(game: MeanFieldGame, found: Equilibrium) -> Tensor:
    """Return shares of the states (T, S)."""
    return found.mean_field.sum(-1) if game.joint else found.mean_field


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
