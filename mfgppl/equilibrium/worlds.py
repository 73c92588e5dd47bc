"""What both kinds of worlds offer to solvers: certificates and derivatives of the flow's map."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse.linalg
import torch
from torch import Tensor

from mfgppl.equilibrium.recording import pushed_forward
from mfgppl.equilibrium.response import soft_response
from mfgppl.equilibrium.stationary_world import StationaryWorld
from mfgppl.equilibrium.world import Array, Image, World
from mfgppl.exceptions import ConvergenceError
from mfgppl.game import MeanFieldGame
from mfgppl.reward.program import RewardProgram, double_precision

SMALL_SYSTEM = 400  # shares of a flow up to which a matrix of derivatives is quickest
LARGEST_SYSTEM = 3000  # and up to which it is worth its room
ACCURACY = 1e-12  # of iterative linear solutions, relative
ROUGHLY, CLOSELY = 1e-1, 1e-4  # of those that a Newton step needs, and a move along a path
HEAT_STEP = 1e-5  # of central differences in the logarithm of the temperature

AnyWorld = World | StationaryWorld
FlowMap = Callable[[Array], Array]
Found = TypeVar("Found")


def world_of(
    game: MeanFieldGame,
    reward: RewardProgram,
    parameters: Mapping[str, Any] | pd.Series | None = None,
) -> AnyWorld:
    """Return a game at fixed reward parameters over arrays."""
    kind = StationaryWorld if game.stationary else World
    return kind(game, reward, parameters)


def gain(world: AnyWorld, policy: Array, temperature: float = 0.0) -> float:
    """Return what the best response to the flow of a policy has over the policy.

    `max_pi' J(mu^pi, pi') - J(mu^pi, pi)`, with `temperature` times the policies' entropy in J.
    """
    turn = world.turn(policy, temperature)
    values, _ = world.best(turn, temperature)
    return max(float(world.start(turn) @ (values[0] - turn.values[0])), 0.0)


def confirmed(
    world: AnyWorld, search: Callable[[], Found], flow_of: Callable[[Found], Array]
) -> Found:
    """Return what a search finds, again without the recording where that is wrong at its end."""
    found = search()
    return found if world.confirms(flow_of(found)) else search()


def inverse(world: AnyWorld, image: Image, temperature: float) -> tuple[FlowMap, FlowMap]:
    """Return `(I - J)^-1` and its transpose as maps of changes (T, F) of a flow.

    J is the derivative of the flow that the soft best response generates.

    Raises
    ------
    ConvergenceError
        If the system is singular.
    """
    size, shape = image.flow.size, image.flow.shape
    rows = world.jacobian(image, temperature) if size <= LARGEST_SYSTEM else None
    if rows is not None:
        lower_upper, pivots, info = scipy.linalg.lapack.dgetrf(np.eye(size) - rows.T)
        if info != 0:
            raise _singular()

        def solve(change: Array, transposed: bool) -> Array:
            found, _ = scipy.linalg.lapack.dgetrs(
                lower_upper, pivots, change.ravel(), trans=int(transposed)
            )
            return np.asarray(found).reshape(shape)

        return (lambda v: solve(v, False)), (lambda v: solve(v, True))

    return (
        _krylov(functools.partial(_forward, world, image, temperature)),
        _krylov(functools.partial(_pulled_back, world, image, temperature)),
    )


def newton_move(world: AnyWorld, image: Image, temperature: float) -> Array:
    """Return the change of the flow that closes the linearised gap: `(I - J)^-1 gap`."""
    gap = image.generated - image.flow
    if gap.size > SMALL_SYSTEM or not world.recorded:
        forward = functools.partial(_forward, world, image, temperature)
        found, failed = _gmres(forward, gap, rtol=ROUGHLY, restarts=2)
        if not failed:
            return found
    return inverse(world, image, temperature)[0](gap)


def bordered_move(
    world: AnyWorld,
    image: Image,
    heat: float,
    along: tuple[Array, float],
    *,
    gap: Array,
    off: float,
) -> tuple[Array, float]:
    """Return changes of the flow and of the log temperature that close a gap on a plane.

    `(I - J) dx - F_heat dheat = gap` and `along . (dx, dheat) = off`.
    """
    temperature, h = float(np.exp(heat)), HEAT_STEP
    size = image.flow.size
    hotter, colder = (world.image(image.flow, temperature * np.exp(d)).generated for d in (h, -h))
    by_heat = ((hotter - colder) / (2 * h)).ravel()
    across, right = along[0].ravel(), np.append(gap.ravel(), off)
    rows = world.jacobian(image, temperature) if size <= SMALL_SYSTEM else None
    if rows is not None:
        system = np.zeros((size + 1, size + 1))
        system[:size, :size] = np.eye(size) - rows.T
        system[:size, size], system[size, :size], system[size, size] = -by_heat, across, along[1]
        found = np.linalg.solve(system, right)
        return found[:size].reshape(image.flow.shape), float(found[size])

    def apply(v: Array) -> Array:
        moved = _forward(world, image, temperature, v[:size].reshape(image.flow.shape)).ravel()
        return np.append(
            v[:size] - moved - v[size] * by_heat, across @ v[:size] + along[1] * v[size]
        )

    operator = scipy.sparse.linalg.LinearOperator((size + 1, size + 1), matvec=apply, dtype=float)
    found, _ = scipy.sparse.linalg.gmres(
        operator, right, rtol=CLOSELY, atol=0.0, restart=100, maxiter=2
    )
    return found[:size].reshape(image.flow.shape), float(found[size])


def _forward(world: AnyWorld, image: Image, temperature: float, change: Array) -> Array:
    """Return `J v`, by kernel where the world is recorded."""
    found = world.change(image, temperature, change)
    return _pushed_forward(world, image, temperature, change) if found is None else found


def _krylov(apply: FlowMap) -> FlowMap:
    """Return the map that solves `(I - J) x = v`, by GMRES."""

    def solve(change: Array) -> Array:
        found, failed = _gmres(apply, change, rtol=ACCURACY, restarts=20)
        if failed:
            raise _singular()
        return found

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
    found, info = scipy.sparse.linalg.gmres(
        operator, change.ravel(), rtol=rtol, atol=0.0, restart=min(size, 60), maxiter=restarts
    )
    return np.asarray(found).reshape(shape), info != 0


def _generated(world: AnyWorld, flow: Tensor, temperature: float) -> Tensor:
    return soft_response(world.game, world.program, flow, temperature=temperature).mean_field


def _pushed_forward(world: AnyWorld, image: Image, temperature: float, change: Array) -> Array:
    """Return `J v` by autograd, forwards."""
    with double_precision(), torch.no_grad():
        slope = pushed_forward(
            lambda flow: _generated(world, flow, temperature),
            _tensor(world, image.flow),
            _tensor(world, change),
        )
    return np.asarray(slope.numpy().reshape(change.shape))


def _pulled_back(world: AnyWorld, image: Image, temperature: float, change: Array) -> Array:
    """Return `J' v` by autograd, backwards."""
    with double_precision(), torch.enable_grad():
        flow = _tensor(world, image.flow).requires_grad_(True)
        weighed = (_generated(world, flow, temperature) * _tensor(world, change)).sum()
        if not weighed.requires_grad:
            return np.zeros_like(change)
        slope = torch.autograd.grad(weighed, flow, allow_unused=True)[0]
    return np.zeros_like(change) if slope is None else slope.numpy().reshape(change.shape)


def _tensor(world: AnyWorld, flow: Array) -> Tensor:
    return torch.from_numpy(np.array(flow).reshape(world.game.flow_shape))
