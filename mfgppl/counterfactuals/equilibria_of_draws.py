"""A game's equilibrium at many values of its reward's parameters, its other branches watched."""

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from torch import Tensor

from mfgppl._progress import progress
from mfgppl.counterfactuals.welfare import NAMES, shares_of, worth_of
from mfgppl.equilibrium.fixed_point import SAME, find_equilibria, solve_equilibrium
from mfgppl.equilibrium.flat_flows import flat_shape, uniform_flow
from mfgppl.equilibrium.iterations import Budget, Found, anderson
from mfgppl.equilibrium.linearisation import confirmed, response_map_of
from mfgppl.equilibrium.solution import Solution, full_response
from mfgppl.exceptions import ConvergenceError
from mfgppl.game import MeanFieldGame
from mfgppl.reward.program import RewardProgram, bind
from mfgppl.reward.site_values import site_values

CHUNK = 20  # draws that a worker takes at a time
FAR = 8.0  # times the median draw's distance from the reference: beyond it a flow is traced
WALK, STRIDE = 8, 30  # steps from the reference to such a draw, and responses for each


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
    fitted : callable or None
        The reward program of the fit, where that is another.
    shapes : dict of str to tuple
        The parameters' shapes by site, in the order of flat ones.
    reference : ndarray, shape (K,)
        The reference's parameters.
    branches : list of Tensor
        Flows at the reference: of the equilibrium to follow, and of the others that are known.
    """

    game: MeanFieldGame
    reward: RewardProgram
    fitted: RewardProgram | None
    shapes: dict[str, tuple[int, ...]]
    reference: np.ndarray
    branches: list[Tensor]

    def by_site(self, draw: np.ndarray) -> dict[str, np.ndarray]:
        """Return flat parameters (K,) by site."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])
        parts = np.split(draw, ends[:-1])
        return {k: v.reshape(s) for (k, s), v in zip(self.shapes.items(), parts, strict=True)}


class Draw(NamedTuple):
    """A world's equilibrium at a draw; NaN where none was found. `Solved` has one row per draw.

    Attributes
    ----------
    flow : ndarray, shape (T, S)
        Shares of the states.
    policy : ndarray, shape (T, S, A)
        Probability of each action.
    worth : ndarray, shape (3,)
        The welfare `NAMES`, reward units over the horizon.
    residual : float
        Largest change of a share under one more response.
    distance : float
        Largest difference of a share from the reference.
    several : bool
        Whether more than one equilibrium was met.
    switched : bool
        Whether the equilibrium is on another branch than the reference's.
    """

    flow: Any
    policy: Any
    worth: Any
    residual: Any
    distance: Any
    several: Any
    switched: Any


Solved = Draw


def branches_at(
    game: MeanFieldGame,
    reward: RewardProgram,
    parameters: dict[str, Any],
    start: Tensor,
    search: Search,
) -> list[Tensor]:
    """Return the flow of the equilibrium sought from a start, then of the others found."""
    with torch.no_grad():
        own = attempt(game, reward, parameters, start, search)
        try:
            found = find_equilibria(
                game,
                reward,
                parameters=parameters,
                n_starts=search.n_starts,
                tolerance=search.tolerance,
                max_steps=search.max_steps,
            ).solutions
        except ConvergenceError:  # dynamics that settle at no distribution
            found = []
    first = start if own is None else own.value.mean_field
    others = [solution.value.mean_field for solution in found]
    return [first, *(flow for flow in others if _apart(flow, first) > SAME)]


def solve_all(
    setting: Setting,
    values: np.ndarray,
    search: Search,
    *,
    n_jobs: int | None,
    progressbar: bool,
) -> Solved:
    """Return a world's equilibria at flat constrained parameters (N, K), through joblib."""

    def run(task: Callable[..., list[Draw]], draws: list[Any]) -> list[Draw]:
        parts = [draws[k : k + CHUNK] for k in range(0, len(draws), CHUNK)]
        backend, _ = joblib.parallel.get_active_backend()
        order = "generator" if getattr(backend, "supports_return_generator", False) else "list"
        found = joblib.Parallel(n_jobs=n_jobs, return_as=order)(
            joblib.delayed(task)(setting, search, part) for part in parts
        )
        return list(chain(*progress(found, "equilibria", progressbar, total=len(parts))))

    rows = run(_sought, list(values))
    distances = np.array([row.distance for row in rows])
    near = FAR * np.nanmedian(distances) if np.isfinite(distances).any() else np.inf
    traced = np.flatnonzero(~(distances <= near))
    again = run(_traced, [(values[k], rows[k]) for k in traced])
    for k, row in zip(traced, again, strict=True):
        rows[k] = row
    return Solved(*(np.stack(column) for column in zip(*rows, strict=True)))


def _sought(setting: Setting, search: Search, draws: Sequence[np.ndarray]) -> list[Draw]:
    """Return equilibria sought quickly, from the reference's own and from elsewhere."""
    game, known = setting.game, [_flat(setting.game, flow) for flow in setting.branches]
    starts = known if len(known) > 1 else [known[0], uniform_flow(game)]
    rows = []
    for draw in draws:
        with torch.no_grad():
            tried = _accelerated(setting, search, draw, starts)
            found = [one for one in tried if one.converged]
            rows.append(_draw(setting, draw, found) if found else _nothing(setting, tried))
    return rows


def _accelerated(
    setting: Setting, search: Search, draw: np.ndarray, starts: Sequence[np.ndarray]
) -> list[Solution]:
    """Return where accelerated searches end, in one world that is certified at the first."""
    game, budget = setting.game, Budget(search.tolerance, search.max_steps)
    response_map = response_map_of(game, setting.reward, setting.by_site(draw))

    def ends() -> list[Found]:
        return [anderson(response_map, start, game.temperature, budget) for start in starts]

    try:
        found = confirmed(response_map, ends, lambda several: several[0].image.flow)
    except ConvergenceError:  # dynamics that settle at no distribution
        return []
    return [
        Solution(
            full_response(response_map, one.image),
            one.image.residual <= search.tolerance,
            one.image.residual,
            one.n_steps,
            one.how,
        )
        for one in found
    ]


def _traced(
    setting: Setting, search: Search, draws: Sequence[tuple[np.ndarray, Draw]]
) -> list[Draw]:
    """Return equilibria reached from the reference on the straight line of parameters.

    Where the line leads to none, that which is found otherwise stays, on another branch.
    """
    rows = []
    for draw, row in draws:
        with torch.no_grad():
            walked = _walked(setting, search, draw)
            if walked is not None:
                again = _draw(setting, draw, [walked])
                differs = np.isfinite(row.distance) and not _same(again, row)
                rows.append(again._replace(several=row.several or differs))
                continue
            if not np.isfinite(row.distance):
                last = _solve(setting, search, draw, setting.branches[0], "auto")
                found = [last] if last is not None and last.converged else []
                row = _draw(setting, draw, found) if found else _nothing(setting, [last])
            rows.append(row._replace(switched=bool(np.isfinite(row.distance))))
    return rows


def _walked(setting: Setting, search: Search, draw: np.ndarray) -> Solution | None:
    """Return the equilibrium at the end of the line; None where it breaks off or jumps."""
    flow, strides = setting.branches[0], []
    for share in np.linspace(0.0, 1.0, WALK + 1)[1:]:
        point = setting.reference + share * (draw - setting.reference)
        limited = search._replace(max_steps=min(STRIDE, search.max_steps))
        found = _solve(setting, limited, point, flow, "newton")
        if found is None or not found.converged:
            return None
        strides.append(_apart(found.value.mean_field, flow))
        flow = found.value.mean_field
    return found if max(strides) <= 0.5 * sum(strides) else None


def _draw(setting: Setting, draw: np.ndarray, found: Sequence[Solution]) -> Draw:
    """Return the first of the solutions found as a draw."""
    own, game = found[0].value, setting.game
    values = site_values("parameters", setting.by_site(draw))
    fitted = None if setting.fitted is None else bind(setting.fitted, values)
    distances = [_apart(own.mean_field, flow) for flow in setting.branches]
    return Draw(
        flow=shares_of(game, own).numpy(),
        policy=own.policy.numpy(),
        worth=worth_of(game, own, fitted, bind(setting.reward, values)),
        residual=found[0].residual,
        distance=distances[0],
        several=any(_apart(one.value.mean_field, own.mean_field) > SAME for one in found),
        switched=int(np.argmin(distances)) > 0,
    )


def _nothing(setting: Setting, tried: Sequence[Solution | None]) -> Draw:
    T, S, A = setting.game.shape
    return Draw(
        flow=np.full((T, S), np.nan),
        policy=np.full((T, S, A), np.nan),
        worth=np.full(len(NAMES), np.nan),
        residual=min((one.residual for one in tried if one is not None), default=np.inf),
        distance=np.nan,
        several=False,
        switched=False,
    )


def _solve(
    setting: Setting, search: Search, draw: np.ndarray, start: Tensor, method: str
) -> Solution | None:
    values = setting.by_site(draw)
    return attempt(setting.game, setting.reward, values, start, search, method)


def attempt(
    game: MeanFieldGame,
    reward: RewardProgram,
    values: dict[str, Any],
    start: Tensor,
    search: Search,
    method: str = "auto",
) -> Solution | None:
    """Return where the search from a start ends; None where it breaks off."""
    try:
        return solve_equilibrium(
            game,
            reward,
            parameters=values,
            mean_field=start,
            method=method,
            tolerance=search.tolerance,
            max_steps=search.max_steps,
        )
    except ConvergenceError:  # dynamics that settle at no distribution
        return None


def _flat(game: MeanFieldGame, flow: Tensor) -> np.ndarray:
    return flow.numpy().reshape(flat_shape(game)).copy()


def _same(one: Draw, other: Draw) -> bool:
    apart = one.flow[..., None] * one.policy - other.flow[..., None] * other.policy
    return bool(np.abs(apart).max() <= SAME)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
