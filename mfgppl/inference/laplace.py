"""Laplace's approximation: a normal at each mode of the posterior, over unconstrained values."""

import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.special
import xarray as xr

from mfgppl._arguments import positive_int, strict_keywords
from mfgppl.exceptions import ConvergenceWarning, IdentificationWarning
from mfgppl.inference.approximate import JUDGED, finished, seed_of
from mfgppl.inference.compiled import density_of
from mfgppl.inference.curvature import (
    FLAT,
    analyse_curvature,
    describe_direction,
    equilibrate,
)
from mfgppl.inference.estimate import PointEstimate
from mfgppl.inference.point import map_estimate
from mfgppl.likelihood.plays import Model, check_model

SAME_MODE = 0.1  # standard deviations within which two modes are one


@strict_keywords
def laplace(
    model: Model,
    *,
    draws: int = 1000,
    init: Mapping[str, Any] | PointEstimate | None = None,
    restarts: int = 0,
    random_seed: int | None = None,
    log_likelihood: bool | None = None,
    progressbar: bool = True,
) -> xr.DataTree:
    """Draw from the normal at the posterior's mode with its curvature, over unconstrained values.

    Where further starts lead to other modes, from the mixture of their normals, each weighed by
    the probability that its normal holds. Along a direction in which the posterior has no
    curvature draws do not vary, and a warning names it.

    Parameters
    ----------
    model : TrajectoryModel or Plays
        The model.
    draws : int
        Number of independent draws.
    init : mapping or PointEstimate, optional
        Where to look for the mode.
    restarts : int
        Further starts, at draws from the prior.
    random_seed : int, optional
        Seed of the draws and further starts; by default one is drawn and recorded.
    log_likelihood : bool, optional
        As in `nuts`.
    progressbar : bool
        Whether to show progress on a terminal.

    Returns
    -------
    DataTree
        As of `nuts`, with one chain. `sample_stats` holds lp and log_q, the log densities of
        posterior (up to a constant) and approximation over unconstrained values; the attribute
        `pareto_k` is the shape of the tail of their weights, `mode_weights` the probability of
        each mode.

    Warns
    -----
    ConvergenceWarning
        If no mode is found, the posterior is flat in some direction, or the Pareto shape is above
        0.7.

    References
    ----------
    .. [1] Tierney and Kadane (1986), *Accurate approximations for posterior moments and marginal
       densities*, JASA 81.
    .. [2] Yao, Vehtari, Simpson and Gelman (2018), *Yes, but did it work? Evaluating variational
       inference*, ICML.
    """
    check_model(model)
    positive_int("draws", draws)
    positive_int("restarts", restarts, least=0)
    random_seed = seed_of(random_seed)
    began = time.perf_counter()
    modes = _modes(model, init, restarts, random_seed, progressbar=progressbar)
    messages = list(dict.fromkeys(m for mode in modes for m in _mode_messages(mode)))
    peaks = [_peak(model, mode) for mode in modes]
    weights = scipy.special.softmax([peak.log_mass for peak in peaks])
    rng = np.random.default_rng(random_seed)
    which = rng.choice(len(peaks), size=max(draws, JUDGED), p=weights)
    theta = np.stack([peaks[k].draw(rng) for k in which])
    logs = np.stack([peak.log_normal(theta) for peak in peaks])
    log_q = scipy.special.logsumexp(logs, axis=0, b=weights[:, None])
    attrs = {
        "sampler": "laplace",
        "sampling_time": time.perf_counter() - began,
        "mode_weights": weights.tolist(),
    }
    return finished(model, theta, log_q, draws, attrs, messages, random_seed, log_likelihood)


class _Peak(NamedTuple):
    """A normal on the directions in which the posterior has curvature at a mode.

    Attributes
    ----------
    centre : ndarray, shape (K,)
        The mode.
    root : ndarray, shape (K, R)
        A root of the covariance, a column a direction that has variance.
    log_mass : float
        Log of the probability that the normal holds, up to a constant.
    """

    centre: np.ndarray
    root: np.ndarray
    log_mass: float

    @property
    def log_size(self) -> float:
        """Log of the normal's integral at a peak of height 1."""
        _, log_det = np.linalg.slogdet(self.root.T @ self.root)
        return 0.5 * (float(log_det) + self.root.shape[1] * np.log(2 * np.pi))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a point (K,)."""
        return self.centre + self.root @ rng.standard_normal(self.root.shape[1])

    def log_normal(self, points: np.ndarray) -> np.ndarray:
        """Return the normal's log density at points (N, K)."""
        away = np.linalg.pinv(self.root) @ (points - self.centre).T
        return np.asarray(-0.5 * (away**2).sum(0) - self.log_size)


def _peak(model: Model, mode: PointEstimate) -> _Peak:
    peak = _Peak(mode.theta, _root(analyse_curvature(mode.information).covariance), 0.0)
    height = density_of(model).evaluator()(mode.theta)[0]
    return peak._replace(log_mass=float(height) + peak.log_size)


def _modes(
    model: Model,
    init: Mapping[str, Any] | PointEstimate | None,
    restarts: int,
    random_seed: int,
    *,
    progressbar: bool,
) -> list[PointEstimate]:
    """Return the distinct modes that the starts lead to, the highest of what is no mode else."""

    def climbed(start: Any, seed: int) -> PointEstimate:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", IdentificationWarning)
            return map_estimate(
                model, space="unconstrained", init=start, random_seed=seed, progressbar=progressbar
            )

    density = density_of(model, progressbar=progressbar)
    seeds = np.random.SeedSequence(random_seed).generate_state(restarts)
    starts = [init]
    for seed in seeds:
        away = density.record(density.program.draw(int(seed))[None])[0]
        starts.append({k: v[0] for k, v in away.items()})
    evaluate = density.evaluator()
    found = [climbed(start, 0) for start in starts]
    found.sort(key=lambda estimate: -evaluate(estimate.theta)[0])
    modes: list[PointEstimate] = []
    for estimate in found:
        if estimate.converged and not any(_alike(estimate, mode) for mode in modes):
            modes.append(estimate)
    return modes or found[:1]


def _alike(a: PointEstimate, b: PointEstimate) -> bool:
    """Whether two modes are one: apart by no more than a small part of a standard deviation.

    Along a direction without curvature no distance counts.
    """
    standard, scale = equilibrate(b.information)
    bend, vectors = np.linalg.eigh(standard)
    steps = vectors.T @ (scale * (a.theta - b.theta))
    counts = np.abs(bend) > FLAT
    return bool((np.abs(bend) * steps**2)[counts].sum() < SAME_MODE**2)


def _mode_messages(mode: PointEstimate) -> list[str]:
    """Return what is wrong with a mode, in words."""
    messages = [] if mode.converged else [f"no mode was found: {mode.reason}"]
    for flat in analyse_curvature(mode.information).flat:
        combination = describe_direction(mode.jacobian @ flat, list(mode.params.index))
        messages.append(
            f"the posterior has no curvature along {combination}: draws do not vary along it, and "
            "are the posterior of the rest alone; give its parameters a prior that ties them down"
        )
    return messages


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return a root of a covariance, a column a direction that has variance."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-300
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))
