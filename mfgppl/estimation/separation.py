"""Likelihoods without a maximum: choices that the parameters separate.

Along a direction in which each choice seen becomes ever surer, the likelihood rises for ever and
its curvature vanishes. A climb ends somewhere on the way, where little is left to rise.
"""

import numpy as np

from mfgppl.estimation.newton import Height

WEAK = 1e-6  # information a decision, relative to what the reward allows, that is looked into
AHEAD = 4.0 ** np.arange(4)  # temperatures that a reward moves by, forwards
NEAREST = 64.0  # and back, at least, and to the other side of no effect at all
SLACK = 1e-9  # of a log likelihood, relative, that is rounding
FALL = 1e-3  # nats of a fall backwards
LEFT = 1e-3  # nats that are left to rise where a climb has ended


def separated_along(
    height: Height,
    theta: np.ndarray,
    information: np.ndarray,
    moves: np.ndarray,
    n_decisions: int,
) -> np.ndarray | None:
    """Return a direction (K,) along which the likelihood rises without end, None if there is none.

    Parameters
    ----------
    height : Height
        What was climbed.
    theta : ndarray, shape (K,)
        Where the climb ended.
    information : ndarray, shape (K, K)
        Minus its second derivatives there.
    moves : ndarray, shape (K,)
        Largest change of a reward by a unit of each parameter, in temperatures.
    n_decisions : int
        Decisions of the panel.
    """
    if not np.isfinite(information).all() or not (moves > 0).any():
        return None
    vectors = weak_directions(information, moves, n_decisions)
    if not len(vectors):
        return None
    value, gradient = height.value_and_gradient(theta)
    units = 1 / np.where(moves > 0, moves, np.inf)
    along = vectors.T @ (vectors @ (units * gradient))
    if np.abs(along).max() > 0:
        vectors = np.vstack([along / np.abs(along).max(), vectors])
    for vector in (s * v for v in vectors for s in (1.0, -1.0)):
        if is_endless(height, theta, value, units * vector, moves):
            return np.asarray(units * vector)
    return None


def weak_directions(information: np.ndarray, moves: np.ndarray, n_decisions: int) -> np.ndarray:
    """Return directions (n, K), in temperatures, of which the data say next to nothing here."""
    kept = moves > 0
    size = moves[kept]
    standard = information[np.ix_(kept, kept)] / np.outer(size, size) / n_decisions
    eigenvalues, eigenvectors = np.linalg.eigh(0.5 * (standard + standard.T))
    weak = eigenvectors[:, np.abs(eigenvalues) <= WEAK]
    vectors = np.zeros((weak.shape[1], len(moves)))
    vectors[:, kept] = weak.T
    return vectors


def is_endless(
    height: Height, theta: np.ndarray, value: float, direction: np.ndarray, moves: np.ndarray
) -> bool:
    """Whether the likelihood neither falls nor has much to rise ahead, and falls behind."""
    slack = SLACK * max(1.0, abs(value))
    size = float(np.abs(moves * direction).max())
    if size == 0.0:
        return False
    step = direction / size
    farthest = max(NEAREST, 4 * float(np.abs(moves * theta).max()))
    behind = 4.0 ** np.arange(np.ceil(np.log(farthest) / np.log(4.0)) + 1)

    def at(distance: float) -> float:
        there = height.value_and_gradient(theta + distance * step)[0]
        return there if np.isfinite(there) else -np.inf

    if not all(-slack <= at(distance) - value <= LEFT for distance in AHEAD):
        return False
    return any(at(-distance) < value - max(FALL, slack) for distance in behind)
