"""What both kinds of response map offer to solvers: certificates and derivatives."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse.linalg
import torch
from torch import Tensor

from mfgppl._kernels import crowd
from mfgppl.equilibrium.exposures import LARGEST_SYSTEM, Exposures
from mfgppl.equilibrium.flat_flows import Array
from mfgppl.equilibrium.images import Image
from mfgppl.equilibrium.recording import pushed_forward
from mfgppl.equilibrium.response import soft_response
from mfgppl.equilibrium.response_map import ResponseMap
from mfgppl.equilibrium.stationary_response_map import StationaryResponseMap
from mfgppl.equilibrium.sweeps_over_time import Sweeps
from mfgppl.exceptions import ConvergenceError
from mfgppl.game import MeanFieldGame
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import RewardProgram, bind, double_precision
from mfgppl.reward.site_values import site_values
from mfgppl.reward.valued import valued

FEW_STATES = 32  # up to which sweeps over time are quicker than what else solves the system
SMALL_SYSTEM = 400  # shares of a flow up to which a matrix of derivatives is quickest
SMALL_STEP, CLOSE = 1e-6, 1e-4  # shares by which a solution is tried, and its error, relative
ACCURACY = 1e-12  # of iterative linear solutions, relative
ROUGHLY, CLOSELY = 1e-1, 1e-4  # of those that a Newton step needs, and a move along a path
LOG_TEMPERATURE_STEP = 1e-5  # of central differences in the logarithm of the temperature

AnyResponseMap = ResponseMap | StationaryResponseMap
FlowMap = Callable[[Array], Array]
Found = TypeVar("Found")


def response_map_of(
    game: MeanFieldGame,
    reward: RewardProgram,
    parameters: Mapping[str, Any] | pd.Series | None = None,
) -> AnyResponseMap:
    """Return a game at fixed reward parameters over arrays."""
    kind = StationaryResponseMap if game.stationary else ResponseMap
    return kind(game, reward, parameters)


def moved_map(
    kept: AnyResponseMap | None,
    game: MeanFieldGame,
    reward: RewardProgram,
    program: Program,
    values: np.ndarray,
) -> AnyResponseMap:
    """Return a game at flat parameters (P,): what was kept, moved there, or a new response map.

    Parameters
    ----------
    kept : ResponseMap or StationaryResponseMap, optional
        What the last call returned, of the same game and reward.
    game : MeanFieldGame
        The game.
    reward : callable
        Its reward program.
    program : Program
        The sites of the program.
    values : ndarray, shape (P,)
        Constrained parameters.
    """
    if isinstance(kept, ResponseMap) and kept.recorded:
        kept.put(values)
        return kept
    return response_map_of(game, reward, program.by_site(torch.from_numpy(values.copy())))


def valued_map(
    game: MeanFieldGame,
    reward: RewardProgram,
    parameters: Mapping[str, Any] | pd.Series | None = None,
) -> AnyResponseMap:
    """Return the same where policies are valued: of the reward and its end alone."""
    plain, alone = valued(game, bind(reward, site_values("parameters", parameters)))
    if plain is game:
        return response_map_of(game, reward, parameters)
    return response_map_of(plain, alone)


def gain(response_map: AnyResponseMap, policy: Array, temperature: float = 0.0) -> float:
    """Return what the best response to the flow of a policy has over the policy.

    `max_pi' J(mu^pi, pi') - J(mu^pi, pi)`, with `temperature` times the policies' entropy in J.
    """
    evaluation = response_map.evaluate(policy, temperature)
    values, _ = response_map.best(evaluation, temperature)
    return max(float(response_map.start(evaluation) @ (values[0] - evaluation.values[0])), 0.0)


def confirmed(
    response_map: AnyResponseMap, search: Callable[[], Found], flow_of: Callable[[Found], Array]
) -> Found:
    """Return what a search finds, again without the recording where that is wrong at its end."""
    outcome = search()
    return outcome if response_map.confirms(flow_of(outcome)) else search()


class System(Protocol):
    """`(I - J)^-1` at a flow, or what is near it: J is the derivative of what a flow generates."""

    def closed(self, gap: Array) -> Array:
        """Return the change of a flow (T, F) that closes a gap."""

    def weighed(self, weights: Array) -> Array:
        """Return the weights (T, F) of a gap from those of the change that closes it."""

    def start(self, weights: Array) -> Array:
        """Return weights of a gap from which to begin, where those given may be any."""


class Factors(NamedTuple):
    """LU factors of `I - J`."""

    lower_upper: Array
    pivots: Array

    def closed(self, gap: Array) -> Array:
        """Return the change of a flow (T, F) that closes a gap."""
        return self.solved(gap, transposed=False)

    def weighed(self, weights: Array) -> Array:
        """Return the weights (T, F) of a gap from those of the change that closes it."""
        return self.solved(weights, transposed=True)

    def start(self, weights: Array) -> Array:
        """Return the same: nothing else is needed to begin with."""
        return self.weighed(weights)

    def solved(self, right: Array, *, transposed: bool) -> Array:
        """Return the solution of the system, in the right side's shape."""
        pivots = self.pivots.copy()  # LAPACK's wrapper writes to it meanwhile
        solution, _ = scipy.linalg.lapack.dgetrs(
            self.lower_upper, pivots, right.ravel(), trans=int(transposed)
        )
        return np.asarray(solution).reshape(right.shape)


class OfReads(NamedTuple):
    """The system of what is read of a flow, z = L w: near the inverse of that of the flow.

    A gap is closed as far as it is read; the rest follows one response later. Weights are those
    that lie in the range of L', as those that a response returns do.
    """

    exposures: Exposures
    factors: Factors

    def closed(self, gap: Array) -> Array:
        """Return the change of a flow (T, F) that closes what is read of a gap."""
        sums = self.exposures.sums(gap)
        closed = self.factors.solved(sums, transposed=False)
        return gap + self.exposures.spread(closed - sums)

    def weighed(self, weights: Array) -> Array:
        """Return the weights (T, F) of a gap from those of the change that closes it."""
        read = self.exposures.spread_transposed(weights)
        return self.exposures.sums_transposed(self.factors.solved(read, transposed=True))

    def start(self, weights: Array) -> Array:
        """Return the weights as they are: they need not lie in the range of L'."""
        return weights


def system_at(response_map: AnyResponseMap, image: Image, temperature: float) -> System | None:
    """Return the system at a response, or that of what is read of flows.

    None where that is too large or singular, or nothing is recorded; sweeps of a singular system
    give what is not finite.
    """
    sweeps = response_map.sweeps(image, temperature) if _is_swept(response_map) else None
    exposures = response_map.exposures
    if sweeps is not None:
        return sweeps
    try:
        if exposures is not None and exposures.size(image.flow) <= LARGEST_SYSTEM:
            if response_map.change(image, temperature, np.zeros_like(image.flow)) is None:
                return None
            forward = functools.partial(_forward, response_map, image, temperature)
            return OfReads(exposures, _factored_exposures(exposures, forward, image.flow))
        small = image.flow.size <= LARGEST_SYSTEM
        rows = response_map.jacobian(image, temperature) if small else None
        return None if rows is None else _factors(rows)
    except ConvergenceError:  # where equilibria meet
        return None


def _is_swept(response_map: AnyResponseMap) -> bool:
    """Return whether sweeps over time are quicker than the system of what is read of flows."""
    return response_map.exposures is None or response_map.game.shape[1] <= FEW_STATES


def inverse(
    response_map: AnyResponseMap, image: Image, temperature: float, *, often: bool = False
) -> tuple[FlowMap, FlowMap]:
    """Return `(I - J)^-1` and its transpose as maps of changes (T, F) of a flow.

    J is the derivative of the flow that the soft best response generates.

    Parameters
    ----------
    response_map : ResponseMap or StationaryResponseMap
        The world.
    image : Image
        The response to the flow at which the derivative is taken.
    temperature : float
        Of the response.
    often : bool
        Whether the maps are called so often that a small matrix is worth its columns one by one.

    Raises
    ------
    ConvergenceError
        If the system is singular.
    """
    sweeps = response_map.sweeps(image, temperature) if _is_swept(response_map) else None
    if sweeps is not None and _inverts(sweeps, response_map, image, temperature):
        return sweeps.closed, sweeps.weighed
    exposures = response_map.exposures
    if exposures is not None and exposures.exact and exposures.size(image.flow) <= LARGEST_SYSTEM:
        return _inverse_by_exposures(response_map, image, temperature, exposures)
    size, shape = image.flow.size, image.flow.shape
    rows = response_map.jacobian(image, temperature) if size <= LARGEST_SYSTEM else None
    if rows is None and often and size <= SMALL_SYSTEM:
        forward = functools.partial(_forward, response_map, image, temperature)
        rows = np.array([forward(entry.reshape(shape)).ravel() for entry in np.eye(size)])
    if rows is not None:
        factors = _factors(rows)
        return factors.closed, factors.weighed
    return (
        _krylov(functools.partial(_forward, response_map, image, temperature)),
        _krylov(functools.partial(_pull_back, response_map, image, temperature)),
    )


def _inverts(
    sweeps: Sweeps, response_map: AnyResponseMap, image: Image, temperature: float
) -> bool:
    """Return whether sweeps solve the system, as they do where nothing else is read of flows.

    By a difference of responses, whose error is far below what another number read would make.
    """
    change = np.random.default_rng(0).standard_normal(image.flow.shape)
    closed = sweeps.closed(change)
    step = SMALL_STEP / float(np.abs(closed).max())
    ahead, behind = (
        response_map.image(image.flow + side * closed, temperature).generated
        for side in (step, -step)
    )
    left = change + (ahead - behind) / (2 * step) - closed
    return bool(np.abs(left).max() <= CLOSE * np.abs(closed).max())


def _factors(rows: Array) -> Factors:
    """Return the LU factors of `I - J`, with what each entry of a flow changes in a row."""
    lower_upper, pivots, info = scipy.linalg.lapack.dgetrf(np.eye(len(rows)) - rows.T)
    if info != 0:
        raise _singular()
    return Factors(lower_upper, pivots)


def _inverse_by_exposures(
    response_map: AnyResponseMap, image: Image, temperature: float, exposures: Exposures
) -> tuple[FlowMap, FlowMap]:
    """Return `(I - J)^-1` and its transpose where a response reads but sums of the flow."""
    forward = functools.partial(_forward, response_map, image, temperature)
    back = functools.partial(_pull_back, response_map, image, temperature)
    near = OfReads(exposures, _factored_exposures(exposures, forward, image.flow))

    def solve(change: Array) -> Array:
        sums = near.factors.solved(exposures.sums(change), transposed=False)
        return np.asarray(change + forward(exposures.spread(sums)))

    def solve_transposed(weights: Array) -> Array:
        return weights + near.weighed(back(weights))

    return solve, solve_transposed


def _factored_exposures(exposures: Exposures, forward: FlowMap, flow: Array) -> Factors:
    """Return the LU factors of `I - L G_z`, with `forward` the derivative of the response."""
    units = np.eye(exposures.size(flow)).reshape(-1, len(flow), exposures.size(flow) // len(flow))
    return _factors(
        np.array([exposures.sums(forward(exposures.spread(unit))).ravel() for unit in units])
    )


def newton_move(response_map: AnyResponseMap, image: Image, temperature: float) -> Array:
    """Return the change of the flow that closes the linearised gap: `(I - J)^-1 gap`."""
    gap = image.generated - image.flow
    if image.flow.shape[1] <= FEW_STATES:
        sweeps = response_map.sweeps(image, temperature)
        if sweeps is not None:
            return sweeps.closed(gap)
    if gap.size > SMALL_SYSTEM or not response_map.recorded:
        forward = functools.partial(_forward, response_map, image, temperature)
        move, failed = _gmres(forward, gap, rtol=ROUGHLY, restarts=2)
        if not failed:
            return move
    return inverse(response_map, image, temperature)[0](gap)


def bordered_move(
    response_map: AnyResponseMap,
    image: Image,
    log_temperature: float,
    along: tuple[Array, float],
    *,
    gap: Array,
    off: float,
) -> tuple[Array, float]:
    """Return changes of the flow and of the log temperature that close a gap on a plane.

    `(I - J) dx - F_l dl = gap` and `along . (dx, dl) = off`, with `l` the log temperature.
    """
    temperature, h = float(np.exp(log_temperature)), LOG_TEMPERATURE_STEP
    size = image.flow.size
    hotter, colder = (
        response_map.image(image.flow, temperature * np.exp(d)).generated for d in (h, -h)
    )
    by_log_temperature = ((hotter - colder) / (2 * h)).ravel()
    across, right = along[0].ravel(), np.append(gap.ravel(), off)
    rows = response_map.jacobian(image, temperature) if size <= SMALL_SYSTEM else None
    if rows is not None:
        system = np.zeros((size + 1, size + 1))
        system[:size, :size] = np.eye(size) - rows.T
        system[:size, size], system[size, :size], system[size, size] = (
            -by_log_temperature,
            across,
            along[1],
        )
        solution = np.linalg.solve(system, right)
        return solution[:size].reshape(image.flow.shape), float(solution[size])

    def apply(v: Array) -> Array:
        moved = _forward(
            response_map, image, temperature, v[:size].reshape(image.flow.shape)
        ).ravel()
        return np.append(
            v[:size] - moved - v[size] * by_log_temperature, across @ v[:size] + along[1] * v[size]
        )

    operator = scipy.sparse.linalg.LinearOperator((size + 1, size + 1), matvec=apply, dtype=float)
    solution, _ = scipy.sparse.linalg.gmres(
        operator, right, rtol=CLOSELY, atol=0.0, restart=100, maxiter=2
    )
    return solution[:size].reshape(image.flow.shape), float(solution[size])


def _forward(
    response_map: AnyResponseMap, image: Image, temperature: float, change: Array
) -> Array:
    """Return `J v`, by kernel where the response map is recorded."""
    recorded = response_map.change(image, temperature, change)
    return _push_forward(response_map, image, temperature, change) if recorded is None else recorded


def _krylov(apply: FlowMap) -> FlowMap:
    """Return the map that solves `(I - J) x = v`, by GMRES."""

    def solve(change: Array) -> Array:
        solution, failed = _gmres(apply, change, rtol=ACCURACY, restarts=20)
        if failed:
            raise _singular()
        return solution

    return solve


def _singular() -> ConvergenceError:
    return ConvergenceError(
        "the derivative of the equilibrium was not reached: its linear system is singular or "
        "nearly so, as where equilibria meet."
    )


def _gmres(apply: FlowMap, change: Array, *, rtol: float, restarts: int) -> tuple[Array, bool]:
    """Return the solution of `(I - J) x = change`, and whether it is not accurate enough."""
    size, shape = change.size, change.shape

    def residual(v: Array) -> Array:
        return np.asarray(v - apply(v.reshape(shape)).ravel())

    operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=residual, dtype=float)
    solution, info = scipy.sparse.linalg.gmres(
        operator, change.ravel(), rtol=rtol, atol=0.0, restart=min(size, 60), maxiter=restarts
    )
    return np.asarray(solution).reshape(shape), info != 0


def _next_flow(response_map: AnyResponseMap, flow: Tensor, temperature: float) -> Tensor:
    return soft_response(
        response_map.game, response_map.program, flow, temperature=temperature
    ).mean_field


def _push_forward(
    response_map: AnyResponseMap, image: Image, temperature: float, change: Array
) -> Array:
    """Return `J v` by autograd, forwards."""
    with double_precision(), torch.no_grad():
        slope = pushed_forward(
            lambda flow: _next_flow(response_map, flow, temperature),
            _tensor(response_map, image.flow),
            _tensor(response_map, change),
        )
    return np.asarray(slope.numpy().reshape(change.shape))


def _pull_back(
    response_map: AnyResponseMap, image: Image, temperature: float, change: Array
) -> Array:
    """Return `J' v`, by kernel where the world is recorded, else by autograd backwards."""
    if isinstance(response_map, ResponseMap):
        nothing = np.zeros_like(image.policy)
        still = crowd.no_moves(response_map.arrays)
        found = response_map.pull(
            image, temperature, counts=nothing, weights=np.ascontiguousarray(change), moved=still
        )
        if found is not None:
            return found[0]
    with double_precision(), torch.enable_grad():
        flow = _tensor(response_map, image.flow).requires_grad_(True)
        weighed = (
            _next_flow(response_map, flow, temperature) * _tensor(response_map, change)
        ).sum()
        if not weighed.requires_grad:
            return np.zeros_like(change)
        slope = torch.autograd.grad(weighed, flow, allow_unused=True)[0]
    return np.zeros_like(change) if slope is None else slope.numpy().reshape(change.shape)


def _tensor(response_map: AnyResponseMap, flow: Array) -> Tensor:
    return torch.from_numpy(np.array(flow).reshape(response_map.game.flow_shape))
