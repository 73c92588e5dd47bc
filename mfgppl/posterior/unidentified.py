"""Directions that the data do not identify, and of which a posterior therefore says its prior."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mfgppl.density.curvature import TOUCHES, analyse_curvature, readable
from mfgppl.density.protocol import LogDensity
from mfgppl.density.sizes import bend_at, constrained_at, effects_of, prior_bend_at
from mfgppl.estimation.judgement import NOT_IDENTIFIED, combinations
from mfgppl.estimation.point import MOST_PROBED, scores_of

CONTRACTED = 0.1  # share of the prior variance that data must remove
UNCERTAIN = 0.5  # share beyond which no Monte Carlo error excuses it
PRIOR_DRAWS = 1000
ROUNDING = 1e-9  # of a weight or a tie, relative to the largest there can be
MOVED = 0.1  # of the largest weight of a direction, that counts as moving a parameter
ELSEWHERE = 3  # draws at which the likelihood is looked at again
IQR_ERROR = 2.33  # relative standard error of a normal's squared interquartile range, times root n


def unidentified_messages(density: LogDensity, theta: np.ndarray) -> list[str]:
    """Return a message for each direction of which the posterior is the prior.

    It is a direction of the constrained parameters along which the log likelihood is flat, at the
    posterior mean and at other draws, by its second derivatives and its gradients by trajectory.
    A direction that is flat at the mean alone is named if a parameter that it moves has its prior's
    spread. Others may know it all the same: a hierarchical prior ties its mean, which no likelihood
    reads, to parameters that one does. What a prior ties is not named, nor what draws show to be
    narrower than the prior, as where positive weights share a known sum.

    Parameters
    ----------
    density : LogDensity
        The log density of the model.
    theta : ndarray, shape (C, N, K)
        Draws by chain, over unconstrained values.
    """
    draws = theta.reshape(-1, theta.shape[-1])
    if not np.isfinite(draws).all():
        return []
    mean = draws.mean(0)
    some = draws[np.linspace(0, len(draws) - 1, ELSEWHERE).astype(int)]
    entries = effects_of(density, mean).entries
    effects = np.where(entries > 0, entries, 1.0)
    here = _flat_at(density, mean)
    if not len(here):
        return []
    params, slope = constrained_at(density, mean)
    flat = _flat_everywhere(density, [mean, *some], effects)
    if not len(flat):
        if not all(len(_flat_at(density, point)) for point in some):  # a point of symmetry
            return []
        return _curved(density, here, slope, theta, params.index, entries)
    rows = flat @ np.linalg.pinv(slope).T
    rows = rows[~tied(prior_bend_at(density.program, mean), rows)]
    if len(rows):
        prior = density.program.draws(PRIOR_DRAWS)
        rows = rows[~contracted(rows, theta, prior)]
    named = combinations(rows, slope, list(params.index), entries)
    return [f"{NOT_IDENTIFIED}{weights}; its posterior is its prior" for weights in named]


def _curved(
    density: LogDensity,
    flat: np.ndarray,
    slope: np.ndarray,
    theta: np.ndarray,
    names: pd.Index,
    entries: np.ndarray,
) -> list[str]:
    """Return a message for each direction (n, P) that is flat at the mean, and turns elsewhere.

    Along such a ridge, as of a scale beside a temperature, the prior alone ends the posterior: it
    is named if a parameter that it moves is no narrower than under the prior. Not named is the
    ridge of a hierarchy written as a mean and a spread times deviations, whose prior is its law.
    """
    mean = theta.reshape(-1, theta.shape[-1]).mean(0)
    rows = flat @ np.linalg.pinv(slope).T
    rows = rows[~tied(prior_bend_at(density.program, mean), rows)]
    if not len(rows):
        return []
    prior = density.program.draws(PRIOR_DRAWS)
    narrower = contracted(np.eye(rows.shape[1]), theta, prior)
    size = np.abs(rows) / np.abs(rows).max(1, keepdims=True)
    moved = size > MOVED
    of_hierarchy = (moved & density.program.deviations()).any(1)
    open_ = rows[(moved & ~narrower).any(1) & ~of_hierarchy]
    named = combinations(open_, slope, list(names), entries)
    return [f"{NOT_IDENTIFIED}{weights}, at the mean of the draws; the prior ends its posterior"
            for weights in named]  # fmt: skip


def contracted(directions: np.ndarray, draws: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return along which directions (n, K) a posterior is narrower than its prior, (n,).

    Along a direction d the combination `sum d_k theta_k / s_k ** 2` is looked at, with s the
    prior's scales: under independent normal priors it is independent of all that moves across d, so
    that data which see nothing along d leave it its prior. Of ten parts of its variance, by
    interquartile ranges, data must remove one, and twice the Monte Carlo error beyond that.

    Parameters
    ----------
    directions : ndarray, shape (n, K)
        Directions of the parameters.
    draws : ndarray, shape (C, N, K)
        Posterior draws by chain.
    prior : ndarray, shape (M, K)
        Draws from the prior.
    """
    scale = _range(prior)
    weights = directions / np.where(scale > 0, scale, 1.0) ** 2
    before, after = prior @ weights.T, draws @ weights.T
    sizes = np.array([_effective_size(after[..., k]) for k in range(len(weights))])
    error = IQR_ERROR * np.sqrt(1 / sizes + 1 / len(prior))
    with np.errstate(all="ignore"):
        removed = 1 - (_range(after.reshape(-1, len(weights))) / _range(before)) ** 2
    return np.asarray(removed > np.minimum(CONTRACTED + 2 * error, UNCERTAIN))


def tied(bend: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return which flat directions (n, K) a prior ties to parameters outside all of them, (n,).

    Parameters
    ----------
    bend : ndarray, shape (K, K)
        Second derivatives of the log prior: where they are not zero it ties two parameters.
    directions : ndarray, shape (n, K)
        All flat directions.
    """
    own = np.sqrt(np.abs(np.diag(bend)))
    ties = np.abs(bend) > ROUNDING * np.outer(own, own)
    size = np.abs(directions)
    moved = size > ROUNDING * size.max(1, initial=0.0, keepdims=True)
    reached = ~moved.any(0)
    for _ in range(len(bend)):
        reached = reached | ties[:, reached].any(1)
    return np.asarray(moved[:, reached].any(1))


def _flat_everywhere(
    density: LogDensity, points: Sequence[np.ndarray], effects: np.ndarray
) -> np.ndarray:
    """Return the constrained directions (n, P) that are flat at all points, in a readable basis."""
    shared = np.zeros((len(effects), len(effects)))
    for point in points:
        rows = _flat_at(density, point) * effects
        if not len(rows):
            return rows
        basis = np.linalg.qr((rows / np.linalg.norm(rows, axis=1, keepdims=True)).T)[0]
        shared += basis @ basis.T / len(points)
    share, vectors = np.linalg.eigh(shared)
    return readable(vectors[:, share > 1 - TOUCHES] / effects[:, None], effects)


def _flat_at(density: LogDensity, theta: np.ndarray) -> np.ndarray:
    """Return the flat directions of the log likelihood at a point that is no maximum, (n, P).

    Where the slope is not zero, the curvature of the parameters' transforms enters the second
    derivatives; it is taken out, so that what is flat over constrained values is so here.
    """
    slope = constrained_at(density, theta)[1]
    gradient = density.evaluator(prior=0.0, jacobian=0.0)(theta)[1].copy()
    if not (np.isfinite(slope).all() and np.isfinite(gradient).all()):
        return np.zeros((0, len(slope)))
    bend = bend_at(density.program, theta, np.linalg.pinv(slope.T) @ gradient)
    information = bend - density.second_derivatives(theta, prior=0.0, jacobian=0.0)
    scores = scores_of(density, theta) if len(theta) <= MOST_PROBED else None
    probes = None if scores is None or not np.isfinite(scores).all() else scores[None]
    sizes = effects_of(density, theta).sizes(slope)
    return np.asarray(analyse_curvature(information, probes, sizes).flat @ slope.T)


def _range(values: np.ndarray) -> np.ndarray:
    """Return the interquartile range of each column."""
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    return np.asarray(high - low)


def _effective_size(draws: np.ndarray) -> float:
    """Return the effective number of draws (chain, draw), one where it is not known."""
    import arviz_stats  # slow to import, and needed after sampling only

    with np.errstate(all="ignore"):
        size = float(arviz_stats.ess(draws))
    return size if size >= 1 else 1.0
