"""What second derivatives say of each direction: known, flat, or no maximum."""

from typing import NamedTuple

import numpy as np

FLAT = 1e-8  # curvature, relative to its diagonal, below which a direction counts as flat
TOUCHES = 1e-6  # share of a parameter within flat directions that refuses its standard error
NOTHING = 1e-9  # gradient, relative to what the reward allows, that is no more than rounding
UNLIKE = 1e-4  # ratio of standard errors whose squares share digits no longer
ROUNDING = 1e-13  # curvature, relative to what the reward allows, that is no more than rounding


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


def equilibrate(
    matrix: np.ndarray, sizes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scale a symmetric matrix so that each row's largest entry is 1, or the row is zero.

    Parameters
    ----------
    matrix : ndarray, shape (K, K)
        Second derivatives.
    sizes : ndarray, shape (K,), optional
        Root of the largest information that each parameter can have: rows below rounding of it are
        zero. A size of zero, or none, says nothing of a row.

    Returns
    -------
    standard : ndarray, shape (K, K)
        The matrix without the parameters' units.
    scale : ndarray, shape (K,)
        Its rows and columns are divided by this.
    """
    symmetric = 0.5 * (matrix + matrix.T)
    own = np.sqrt(np.abs(np.diag(symmetric)))
    scale = own if sizes is None else np.where(sizes > 0, sizes, own)
    scale = np.where(scale > 0, scale, 1.0)
    standard = symmetric / scale[:, None] / scale
    idle = np.abs(standard).max(1) <= ROUNDING
    standard[idle, :] = standard[:, idle] = 0.0
    for _ in range(30):
        step = np.sqrt(np.abs(standard).max(1))
        step[step == 0] = 1.0
        standard = standard / np.outer(step, step)
        scale = scale * step
    return standard, scale


def unit_curvature(
    information: np.ndarray, sizes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return directions of unit curvature, up or down, and which have curvature at all.

    Returns
    -------
    directions : ndarray, shape (K, K)
        One column per direction; those without curvature are in units of the parameters' sizes.
    bends : ndarray of bool, shape (K,)
        Which directions have curvature.
    """
    if not len(information):
        return np.zeros((0, 0)), np.zeros(0, dtype=bool)
    standard, scale = equilibrate(information, sizes)
    eigenvalues, vectors = np.linalg.eigh(standard)
    bends = np.abs(eigenvalues) > FLAT
    root = np.where(bends, np.sqrt(np.abs(eigenvalues)), 1.0)
    directions: np.ndarray = vectors / root / scale[:, None]
    return directions, bends


def without_effect(gradients: np.ndarray, sizes: np.ndarray | None = None) -> np.ndarray:
    """Return directions along which the likelihood does not change, shape (n, K), orthonormal.

    Second derivatives carry rounding that grows with the size of a feature; gradients enter here
    squared, so that what is nothing but rounding stands out.

    Parameters
    ----------
    gradients : ndarray, shape (n_points, J, K)
        Gradients of the trajectories' log likelihoods at several points.
    sizes : ndarray, shape (K,), optional
        As in `equilibrate`.
    """
    n_points, _, n_parameters = gradients.shape
    rows = gradients.reshape(-1, n_parameters)
    scale = np.sqrt((rows**2).sum(0))
    largest = np.zeros(n_parameters) if sizes is None else np.sqrt(n_points) * sizes
    idle = scale <= NOTHING * largest
    scale[idle | (scale == 0)] = 1.0
    standard = np.where(idle, 0.0, rows / scale)
    if len(np.unique(standard.round(9), axis=0)) < n_parameters:
        return np.zeros((0, n_parameters))  # too few different trajectories to judge
    eigenvalues, vectors = np.linalg.eigh(standard.T @ standard)
    # back in the parameters' own units, each direction by itself to keep small ones
    flat = vectors[:, eigenvalues <= NOTHING] / scale[:, None]
    return np.asarray(flat / np.linalg.norm(flat, axis=0)).T


def analyse_curvature(
    information: np.ndarray,
    gradients: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
) -> Curvature:
    """Split directions into known and flat ones by an eigen-analysis free of units.

    Parameters
    ----------
    information : ndarray, shape (K, K)
        Minus the second derivatives of a log density.
    gradients : ndarray, shape (n_points, J, K), optional
        Gradients by trajectory at several points, to distinguish rounding from weak information.
    sizes : ndarray, shape (K,), optional
        As in `equilibrate`.

    Returns
    -------
    Curvature
        Covariance on the known directions, and the flat ones; nothing known where a derivative is
        not finite.
    """
    if not np.isfinite(information).all():
        n = len(information)
        return Curvature(np.zeros((n, n)), np.zeros(n, dtype=bool), np.zeros((0, n)), False)
    standard, scale = equilibrate(information, sizes)
    if gradients is not None:
        # what has no effect has no curvature: the rest of it is rounding
        standard = without(standard, scale * without_effect(gradients, sizes))
    eigenvalues, vectors = np.linalg.eigh(standard)
    flat = np.abs(eigenvalues) <= FLAT
    known = eigenvalues > FLAT
    unscaled = vectors / scale[:, None]
    covariance = (unscaled[:, known] / eigenvalues[known]) @ unscaled[:, known].T
    inside = (vectors[:, ~known] ** 2).sum(1)
    saddle = bool((eigenvalues < -FLAT).any())
    return Curvature(covariance, inside < TOUCHES, unscaled[:, flat].T, saddle)


def root_of(covariance: np.ndarray) -> np.ndarray:
    """Return a root (K, K) of a covariance: directions in columns, zero where without variance.

    Where units are so far apart that small variances drown in the rounding of large ones, of the
    correlations, in the parameters' units.
    """
    error = np.sqrt(np.diag(covariance))
    largest = error.max(initial=0.0)
    apart = bool((error[error > 0] < UNLIKE * largest).any())
    unit = np.where(error > 0, error, 1.0) if apart else np.ones_like(error)
    values, vectors = np.linalg.eigh(covariance / np.outer(unit, unit))
    kept = values > (FLAT**2 if apart else 1e-300)
    return np.asarray(unit[:, None] * vectors * np.sqrt(np.where(kept, values, 0.0)))


def without(matrix: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return a symmetric matrix (K, K) without what it holds along directions (n, K)."""
    if not len(directions):
        return matrix
    across = np.linalg.qr((directions / np.linalg.norm(directions, axis=1)[:, None]).T)[0]
    keep = np.eye(len(matrix)) - across @ across.T
    return np.asarray(keep @ matrix @ keep)


def describe_direction(
    direction: np.ndarray, names: list[str], effects: np.ndarray | None = None
) -> str:
    """Name a direction of parameters, its largest entry 1: "level + 0.5 crowd".

    Parameters
    ----------
    direction : ndarray, shape (P,)
        Weights of the parameters.
    names : list of str
        The parameters.
    effects : ndarray, shape (P,), optional
        Effect of a unit of each parameter: what is small beside the rest is left out by its effect,
        not by its weight.
    """
    direction = direction / direction[np.abs(direction).argmax()]
    counts = np.abs(direction)
    if effects is not None and (counts * effects).any():
        shares = counts * effects / (counts * effects).max()
        if effects[counts.argmax()] <= 0:  # what else moves may be rounding
            shares[counts <= NOTHING] = 0.0
        counts = np.where(effects > 0, shares, counts)
    parts: list[str] = []
    for weight, count, name in zip(direction, counts, names, strict=True):
        if count > 1e-3:
            size = "" if abs(abs(weight) - 1) < 5e-4 else f"{abs(weight):.3g} "
            sign = ("- " if weight < 0 else "+ ") if parts else ("-" if weight < 0 else "")
            parts.append(f"{sign}{size}{name}")
    return " ".join(parts)


def readable(directions: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """Return another basis of columns (P, n) as rows (n, P), each its own leading parameter.

    What is small beside the rest is so by its effect, not by its weight.
    """
    rows = directions.T * effects
    largest = np.abs(rows).max(1, initial=0.0, keepdims=True)
    rows /= np.where(largest > 0, largest, 1.0)
    leading = []
    for k in range(len(rows)):
        row, column = np.unravel_index(np.abs(rows[k:]).argmax(), rows[k:].shape)
        rows[[k, k + row]] = rows[[k + row, k]]
        rows[k] /= rows[k, column]
        others = np.arange(len(rows)) != k
        rows[others] -= np.outer(rows[others, column], rows[k])
        leading.append(column)
    rows[np.abs(rows) < NOTHING] = 0.0
    rows /= effects
    if len(rows):
        rows /= np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    return rows[np.argsort(leading, kind="stable")]
