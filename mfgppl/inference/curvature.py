"""What second derivatives say of each direction: known, flat, or no maximum."""

from typing import NamedTuple

import numpy as np

FLAT = 1e-8  # curvature, relative to its diagonal, below which a direction counts as flat
TOUCHES = 1e-6  # share of a parameter within flat directions that refuses its standard error
NOTHING = 1e-9  # gradient, relative to the largest, that is no more than rounding
ROUNDING = 1e-13  # curvature, relative to the largest, that is no more than rounding


class Curvature(NamedTuple):
    """What the second derivatives at an estimate say of each direction.

    Attributes
    ----------
    covariance : ndarray, shape (K, K)
        Inverse on the directions that are known, zero on the others; unconstrained space.
    known : ndarray of bool, shape (K,)
        Which unconstrained parameters lie outside all flat directions.
    flat : ndarray, shape (n_flat, K)
        The flat directions.
    saddle : bool
        Whether some direction bends upwards: the point is no maximum.
    """

    covariance: np.ndarray
    known: np.ndarray
    flat: np.ndarray
    saddle: bool


def equilibrate(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale a symmetric matrix so that each row's largest entry is 1, or the row is zero.

    Returns
    -------
    standard : ndarray, shape (K, K)
        The matrix without the parameters' units; rows below rounding are zero.
    scale : ndarray, shape (K,)
        Its rows and columns are divided by this.
    """
    standard = 0.5 * (matrix + matrix.T)
    largest = np.abs(standard).max(1)
    idle = largest <= ROUNDING * max(float(largest.max()), 1e-300)
    standard[idle, :] = standard[:, idle] = 0.0
    scale = np.ones(len(matrix))
    for _ in range(30):
        step = np.sqrt(np.abs(standard).max(1))
        step[step == 0] = 1.0
        standard = standard / np.outer(step, step)
        scale *= step
    return standard, scale


def without_effect(gradients: np.ndarray) -> np.ndarray:
    """Return directions along which the likelihood does not change, shape (n, K), orthonormal.

    Second derivatives carry rounding that grows with the size of a feature; gradients enter here
    squared, so that what is nothing but rounding stands out.

    Parameters
    ----------
    gradients : ndarray, shape (n_points, J, K)
        Gradients of the trajectories' log likelihoods at several points.
    """
    n_parameters = gradients.shape[-1]
    rows = gradients.reshape(-1, n_parameters)
    largest = np.abs(rows).max(0)
    idle = largest <= NOTHING * max(float(largest.max()), 1e-300)
    scale = np.where(idle, 1.0, np.sqrt((rows**2).sum(0)))
    scale[scale == 0] = 1.0
    standard = np.where(idle, 0.0, rows / scale)
    if len(np.unique(standard.round(9), axis=0)) < n_parameters:
        return np.zeros((0, n_parameters))  # too few different trajectories to tell
    eigenvalues, vectors = np.linalg.eigh(standard.T @ standard)
    flat = vectors[:, eigenvalues <= NOTHING] / scale[:, None]
    return np.linalg.qr(flat)[0].T


def analyse_curvature(information: np.ndarray, gradients: np.ndarray | None = None) -> Curvature:
    """Split directions into known and flat ones by an eigen-analysis free of units.

    Parameters
    ----------
    information : ndarray, shape (K, K)
        Minus the second derivatives of a log density.
    gradients : ndarray, shape (n_points, J, K), optional
        Gradients by trajectory at several points, to tell rounding from weak information.

    Returns
    -------
    Curvature
        Covariance on the known directions, and the flat ones; nothing known where a derivative is
        not finite.
    """
    if not np.isfinite(information).all():
        n = len(information)
        return Curvature(np.zeros((n, n)), np.zeros(n, dtype=bool), np.zeros((0, n)), False)
    if gradients is not None:
        idle = without_effect(gradients)
        # what has no effect has no curvature: the rest of it is rounding
        keep = np.eye(len(information)) - idle.T @ idle
        information = keep @ information @ keep
    standard, scale = equilibrate(information)
    eigenvalues, vectors = np.linalg.eigh(standard)
    flat = np.abs(eigenvalues) <= FLAT
    known = eigenvalues > FLAT
    unscaled = vectors / scale[:, None]
    covariance = (unscaled[:, known] / eigenvalues[known]) @ unscaled[:, known].T
    inside = (vectors[:, ~known] ** 2).sum(1)
    saddle = bool((eigenvalues < -FLAT).any())
    return Curvature(covariance, inside < TOUCHES, unscaled[:, flat].T, saddle)


def describe_direction(direction: np.ndarray, names: list[str]) -> str:
    """Name a direction of parameters, its largest entry 1: "level + 0.5 crowd"."""
    direction = direction / direction[np.abs(direction).argmax()]
    parts: list[str] = []
    for weight, name in zip(direction, names, strict=True):
        if abs(weight) > 1e-3:
            size = "" if abs(abs(weight) - 1) < 5e-4 else f"{abs(weight):.3g} "
            sign = ("- " if weight < 0 else "+ ") if parts else ("-" if weight < 0 else "")
            parts.append(f"{sign}{size}{name}")
    return " ".join(parts)
