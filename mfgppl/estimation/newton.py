"""Climbs to a maximum that do not depend on the units of the parameters: L-BFGS, then Newton."""

from typing import NamedTuple, Protocol

import numpy as np

from mfgppl._quasi_newton import maximise
from mfgppl.density.curvature import unit_curvature

ROUNDS = 3  # climbs at most, each in the units of where the one before ended
AIM = 0.01  # share of the tolerance that Newton's steps aim at
HALVINGS = 30
CHORDS, SLOW = 60, 0.3  # steps at most, and the share of a gradient left by a step that is slow
CLOSE, LEAST = 1e-4, 1e-3  # step of differences, and the smallest curvature, in those directions
NEAR = 1e-6  # gradient at which rounding may stop a climb


class Height(Protocol):
    """What is climbed, with two derivatives."""

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the value and its gradient, an array of its own."""
        ...

    def second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Return the second derivatives (K, K)."""
        ...

    def sizes(self, theta: np.ndarray) -> np.ndarray:
        """Return the root of the largest information that each parameter can have (K,)."""
        ...


class Slopes(Protocol):
    """What is climbed, with one derivative."""

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the value and its gradient, an array of its own."""
        ...


class Climb(NamedTuple):
    """Where a climb led to.

    Attributes
    ----------
    theta : ndarray, shape (K,)
        The point.
    value : float
        Its height, nats.
    n_steps : int
        Steps of both algorithms.
    residual : float
        Distance from the maximum of the parabola there, in standard errors: the largest entry of
        the gradient in directions of unit curvature; infinite without second derivatives.
    information : ndarray, shape (K, K)
        Minus the second derivatives there.
    """

    theta: np.ndarray
    value: float
    n_steps: int
    residual: float
    information: np.ndarray


def climb(
    height: Height, theta: np.ndarray, units: np.ndarray, *, tolerance: float, max_steps: int
) -> Climb:
    """Climb from a point.

    Parameters
    ----------
    height : Height
        What is climbed.
    theta : ndarray, shape (K,)
        Where to start.
    units : ndarray, shape (K,)
        Step of each parameter that is of order one.
    tolerance : float
        Residual, in standard errors, that counts as none.
    max_steps : int
        Newton steps at most.
    """
    n_steps = 0
    for _ in range(ROUNDS):
        near = maximise(height.value_and_gradient, theta, units=units, max_steps=50 * max_steps)
        end = _newton(height, near.point, AIM * tolerance, max_steps)
        n_steps += near.n_steps + end.n_steps
        if end.residual <= tolerance or not np.isfinite(end.information).all():
            break
        bend = np.sqrt(np.abs(np.diag(end.information)))
        theta, units = end.theta, np.where(bend > 0, 1 / np.where(bend > 0, bend, 1.0), units)
    return end._replace(n_steps=n_steps)


def climb_from(
    height: Slopes, theta: np.ndarray, directions: np.ndarray, *, tolerance: float = 1e-9
) -> np.ndarray | None:
    """Climb to a maximum nearby, which is all but exact; None where it is not reached.

    Newton steps with the second derivatives of another maximum, taken anew by differences of the
    gradient where these steps become slow. Directions without curvature stay as they are.

    Parameters
    ----------
    height : Slopes
        What is climbed.
    theta : ndarray, shape (K,)
        Where to start.
    directions : ndarray, shape (K, n)
        Directions of about unit curvature.
    tolerance : float
        Gradient in these directions that counts as none.
    """
    value, gradient = height.value_and_gradient(theta)
    for _ in range(CHORDS):
        rise = directions.T @ gradient
        size = float(np.abs(rise).max(initial=0.0))
        if size <= tolerance:
            return theta
        if not np.isfinite(size):
            return None
        for halving in range(HALVINGS):
            trial = theta + 0.5**halving * (directions @ rise)
            new_value, new_gradient = height.value_and_gradient(trial)
            if np.isfinite(new_value) and new_value >= value - 1e-12 * max(1.0, abs(value)):
                break
        else:
            return theta if size <= NEAR else None
        theta, value, gradient = trial, new_value, new_gradient
        slow = np.abs(directions.T @ gradient).max() > SLOW * size
        if slow and size <= NEAR:
            return theta  # no more than rounding is left
        if slow or halving:
            directions = _bent(height, theta, directions)
    return None


def _bent(height: Slopes, theta: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return directions that span the same, of unit curvature at a point."""
    bends = -bends_along(height, theta, directions)
    if not np.isfinite(bends).all():
        return directions
    eigenvalues, vectors = np.linalg.eigh(bends)
    return np.asarray(directions @ vectors / np.sqrt(np.maximum(np.abs(eigenvalues), LEAST)))


def bends_along(height: Slopes, theta: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return second derivatives (n, n) along directions (K, n), by differences of slopes."""
    rows = [
        directions.T @ (height.value_and_gradient(theta + CLOSE * along)[1]
                        - height.value_and_gradient(theta - CLOSE * along)[1])
        for along in directions.T
    ]  # fmt: skip
    bends = np.array(rows).reshape(directions.shape[1], -1) / (2 * CLOSE)
    return np.asarray(0.5 * (bends + bends.T))


def _newton(height: Height, theta: np.ndarray, aim: float, max_steps: int) -> Climb:
    """Take damped Newton steps; upward curvature is flipped, flat directions stay put."""
    value, gradient = height.value_and_gradient(theta)
    n_steps, sizes = 0, height.sizes(theta)
    while True:
        hessian = height.second_derivatives(theta)
        if not np.isfinite(hessian).all():
            return Climb(theta, value, n_steps, np.inf, -hessian)
        directions, bends = unit_curvature(-hessian, sizes)
        rise = directions.T @ gradient
        here = Climb(theta, value, n_steps, float(np.abs(rise).max()), -hessian)
        if here.residual <= aim or n_steps == max_steps:
            return here
        step = directions @ np.where(bends, rise, 0.0)
        for halving in range(HALVINGS):
            trial = theta + 0.5**halving * step
            new_value, new_gradient = height.value_and_gradient(trial)
            if np.isfinite(new_value) and new_value >= value - 1e-12 * max(1.0, abs(value)):
                break
        else:
            return here
        no_less = np.abs(directions.T @ new_gradient).max() >= here.residual
        if no_less and new_value <= value:
            return here
        theta, value, gradient, n_steps = trial, new_value, new_gradient, n_steps + 1
