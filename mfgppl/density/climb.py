"""Maximum likelihood over some parameters while the others are held."""

from typing import NamedTuple, Protocol

import numpy as np

from mfgppl._quasi_newton import extended_value, maximise
from mfgppl.density.curvature import unit_curvature
from mfgppl.density.protocol import LogDensity
from mfgppl.density.sizes import Effects, constrained_at, effects_of


class Objective:
    """A weighted log density over unconstrained parameters with two derivatives."""

    def __init__(self, density: LogDensity, prior: float, jacobian: float) -> None:
        self.density, self.prior, self.jacobian = density, prior, jacobian
        self.evaluate = density.evaluator(prior=prior, jacobian=jacobian)

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the value and its gradient, an array of its own."""
        with np.errstate(all="ignore"):
            value, gradient = self.evaluate(theta)
        return float(value), gradient.copy()

    def second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Return the second derivatives (K, K)."""
        return self.density.second_derivatives(theta, prior=self.prior, jacobian=self.jacobian)

    def effects(self, theta: np.ndarray) -> Effects:
        """Return what parameters do to rewards."""
        return effects_of(self.density, theta)

    def sizes(self, theta: np.ndarray) -> np.ndarray:
        """Return the root of the largest information that each parameter can have (K,)."""
        return self.effects(theta).sizes(constrained_at(self.density, theta)[1])


SMALL = 1e-3  # gradient in standard errors: the rise still to be had is half its square, nats


class Height(Protocol):
    """What is climbed."""

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the value and its gradient, an array of its own."""
        ...


class HeldMaximum(NamedTuple):
    """The maximum over the parameters that are not held.

    Attributes
    ----------
    theta : ndarray, shape (K,)
        Unconstrained parameters, the held ones as given.
    value : float
        Log likelihood, nats; -inf where it is not finite.
    residual : float
        Largest entry of the gradient in units of the free parameters' standard errors.
    """

    theta: np.ndarray
    value: float
    residual: float

    @property
    def converged(self) -> bool:
        """Whether what is left to rise is below rounding in a test."""
        return self.residual <= SMALL


def whitening(information: np.ndarray, sizes: np.ndarray | None = None) -> np.ndarray:
    """Return directions of unit curvature, shape (K, K), those without curvature as they are."""
    return unit_curvature(information, sizes)[0]


def maximise_held(
    objective: Height, theta: np.ndarray, held: np.ndarray, directions: np.ndarray
) -> HeldMaximum:
    """Maximise over the parameters not held by L-BFGS in whitened coordinates.

    Parameters
    ----------
    objective : Height
        The log likelihood, with its gradient.
    theta : ndarray, shape (K,)
        Where to start; the held entries stay.
    held : ndarray of bool, shape (K,)
        Which parameters stay.
    directions : ndarray, shape (n_free, n_free)
        Directions of about unit curvature; see `whitening`.

    Returns
    -------
    HeldMaximum
        Parameters, value and residual.
    """

    def at(z: np.ndarray) -> np.ndarray:
        point = theta.copy()
        point[~held] += directions @ z
        return point

    def height(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective.value_and_gradient(at(z))
        return value, directions.T @ gradient[~held]

    z = np.zeros(len(directions))
    if len(z):
        z = maximise(height, z, tolerance=1e-2 * SMALL, gain=1e-15, max_steps=500).point
    value, gradient = extended_value(height)(z)
    return HeldMaximum(at(z), value, float(np.abs(gradient).max(initial=0.0)))


def climb_held(objective: Objective, theta: np.ndarray, held: np.ndarray) -> HeldMaximum:
    """Maximise from afar: the scale is taken anew where each climb ends."""
    maximum = HeldMaximum(theta, -np.inf, np.inf)
    sizes = objective.sizes(theta)[~held]
    for climb in range(4):
        information = -objective.second_derivatives(maximum.theta)
        if not np.isfinite(information).all():
            break
        directions = whitening(information[np.ix_(~held, ~held)], sizes)
        maximum = maximise_held(objective, maximum.theta, held, directions)
        if climb and maximum.converged:  # in the units of where the climb before ended
            break
    return maximum
