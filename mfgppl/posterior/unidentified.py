"""Directions that the data do not identify, and of which a posterior therefore says its prior."""

import warnings

import numpy as np

from mfgppl.density.curvature import analyse_curvature, readable
from mfgppl.density.protocol import LogDensity
from mfgppl.density.sizes import bend_at, constrained_at, effects_of
from mfgppl.estimation.judgement import NOT_IDENTIFIED, combinations
from mfgppl.estimation.point import MOST_PROBED, scores_of
from mfgppl.exceptions import ConvergenceWarning, IdentificationWarning

CONTRACTED = 0.1  # share of the prior variance that data must remove
UNCERTAIN = 0.5  # share beyond which no Monte Carlo error excuses it
PRIOR_DRAWS = 1000
ELSEWHERE = 3  # draws at which the likelihood is looked at again
IQR_ERROR = 2.33  # relative standard error of a normal's squared interquartile range, times root n


def unidentified_messages(density: LogDensity, theta: np.ndarray) -> list[str]:
    """Return a message for each direction that the data do not identify and no prior ties to them.

    The second derivatives of the log likelihood at the posterior mean, and its gradients by
    trajectory, say which directions are flat. Such a direction may still be known through others:
    the mean of a hierarchical prior is, which no likelihood reads. It is named only if its
    posterior is as wide as its prior.

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
    flat = _flat_at(density, mean)
    some = draws[np.linspace(0, len(draws) - 1, ELSEWHERE).astype(int)]
    # at a point of symmetry a direction may be flat that is so nowhere else
    if not len(flat) or not all(len(_flat_at(density, point)) for point in some):
        return []
    params, slope = constrained_at(density, mean)
    effects = effects_of(density, mean)
    moves = effects.moves(slope)
    rows = readable(flat.T, np.where(moves > 0, moves, 1.0))
    prior = np.stack([density.program.draw(seed) for seed in range(PRIOR_DRAWS)])
    rows = rows[~contracted(rows, theta, prior)]
    named = combinations(rows, slope, list(params.index), effects.entries)
    return [f"{NOT_IDENTIFIED}{weights}; its posterior is its prior" for weights in named]


def warn_of_draws(messages: list[str], flat: list[str], stacklevel: int) -> None:
    """Warn of what speaks against draws, and of what they say nothing of but the prior."""
    for found, category in ((messages, ConvergenceWarning), (flat, IdentificationWarning)):
        if found:
            warnings.warn("\n".join(found), category, stacklevel=stacklevel)


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


def _flat_at(density: LogDensity, theta: np.ndarray) -> np.ndarray:
    """Return the flat directions (n, K) of the log likelihood at a point that is no maximum.

    Where the slope is not zero, the curvature of the parameters' transforms enters the second
    derivatives; it is taken out, so that what is flat over constrained values is so here.
    """
    slope = constrained_at(density, theta)[1]
    gradient = density.evaluator(prior=0.0, jacobian=0.0)(theta)[1].copy()
    if not (np.isfinite(slope).all() and np.isfinite(gradient).all()):
        return np.zeros((0, len(theta)))
    bend = bend_at(density.program, theta, np.linalg.pinv(slope.T) @ gradient)
    information = bend - density.second_derivatives(theta, prior=0.0, jacobian=0.0)
    scores = scores_of(density, theta) if len(theta) <= MOST_PROBED else None
    probes = None if scores is None or not np.isfinite(scores).all() else scores[None]
    return analyse_curvature(information, probes, effects_of(density, theta).sizes(slope)).flat


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
