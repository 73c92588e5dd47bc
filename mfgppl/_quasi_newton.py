"""Maximum of a smooth function with a known gradient, by SciPy's L-BFGS."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize

GAIN = 1e7 * float(np.finfo(float).eps)  # of a step, relative to the value: SciPy's own

ValueAndGradient = Callable[[np.ndarray], tuple[float, np.ndarray]]


class Maximum(NamedTuple):
    """Where an ascent ended.

    Attributes
    ----------
    point : ndarray, shape (K,)
        The point.
    n_steps : int
        Steps.
    n_evaluations : int
        Evaluations of the function.
    """

    point: np.ndarray
    n_steps: int
    n_evaluations: int


def extended_value(function: ValueAndGradient) -> ValueAndGradient:
    """Return a function that is -inf, without slope, where value or gradient are not finite."""

    def extended(point: np.ndarray) -> tuple[float, np.ndarray]:
        with np.errstate(all="ignore"):
            value, gradient = function(point)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return -np.inf, np.zeros_like(point)
        return float(value), gradient

    return extended


def maximise(
    function: ValueAndGradient,
    start: np.ndarray,
    *,
    units: np.ndarray | None = None,
    bound: float | None = None,
    tolerance: float = 1e-5,
    gain: float = GAIN,
    max_steps: int = 15_000,
    max_evaluations: int = 15_000,
) -> Maximum:
    """Maximise a smooth function from a start; where it is not finite counts as far below.

    Parameters
    ----------
    function : callable
        A point to the value there and its gradient.
    start : ndarray, shape (K,)
        Where to start.
    units : ndarray, shape (K,), optional
        Step of each coordinate that is of order one; by default 1.
    bound : float, optional
        Size that no coordinate exceeds; without units.
    tolerance : float
        Largest entry of the gradient, per unit, that counts as zero.
    gain : float
        Gain of a step, relative to the value, that counts as none.
    max_steps, max_evaluations : int
        Steps and evaluations at most.
    """
    function = extended_value(function)

    def point_of(steps: np.ndarray) -> np.ndarray:
        return steps if units is None else start + units * steps

    def minus(steps: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = function(point_of(steps))
        return -value, -gradient if units is None else -units * gradient

    solution = scipy.optimize.minimize(
        minus,
        start if units is None else np.zeros_like(start),
        jac=True,
        method="L-BFGS-B",
        bounds=None if bound is None else [(-bound, bound)] * len(start),
        options={
            "gtol": tolerance, "ftol": gain, "maxiter": max_steps, "maxfun": max_evaluations,
        },
    )  # fmt: skip
    return Maximum(point_of(solution.x), int(solution.nit), int(solution.nfev))
