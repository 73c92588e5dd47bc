"""Maximum likelihood over some parameters while the others are held."""

from typing import NamedTuple, Protocol

import numpy as np
import scipy.optimize

from mfgppl.inference.curvature import FLAT, equilibrate
from mfgppl.inference.point import Objective

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


def whitening(information: np.ndarray) -> np.ndarray:
    """Return directions of unit curvature, shape (K, K), those without curvature as they are."""
    if not len(information):
        return np.zeros((0, 0))
    standard, scale = equilibrate(information)
    eigenvalues, vectors = np.linalg.eigh(standard)
    bend = np.abs(eigenvalues)
    root = np.where(bend > FLAT, np.sqrt(np.maximum(bend, FLAT)), 1.0)
    directions: np.ndarray = vectors / root / scale[:, None]
    return directions


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

    def minus(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective.value_and_gradient(at(z))
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return np.inf, np.zeros_like(z)
        return -value, -(directions.T @ gradient[~held])

    z = np.zeros(len(directions))
    if len(z) and np.isfinite(minus(z)[0]):
        options = {"gtol": 1e-2 * SMALL, "ftol": 1e-15, "maxiter": 500}
        z = scipy.optimize.minimize(minus, z, jac=True, method="L-BFGS-B", options=options).x
    value, gradient = minus(z)
    return HeldMaximum(at(z), -value, float(np.abs(gradient).max(initial=0.0)))


def climb_held(objective: Objective, theta: np.ndarray, held: np.ndarray) -> HeldMaximum:
    """Maximise from afar: the scale is taken anew where each climb ends."""
    found = HeldMaximum(theta, -np.inf, np.inf)
    for climb in range(4):
        information = -objective.second_derivatives(found.theta)
        if not np.isfinite(information).all():
            break
        found = maximise_held(
            objective, found.theta, held, whitening(information[np.ix_(~held, ~held)])
        )
        if climb and found.converged:  # in the units of where the climb before ended
            break
    return found
