"""Laplace's approximation: a normal at each mode of the posterior, over unconstrained values."""

import time
import warnings
from typing import Any, NamedTuple

import numpy as np
import scipy.special
import xarray as xr

from mfgppl._arguments import Seed, is_a, positive_int, seed_of, strict_keywords
from mfgppl.density.curvature import (
    describe_direction,
    root_of,
    unit_curvature,
)
from mfgppl.density.of_model import density_of
from mfgppl.estimation.point import map_estimate
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.estimation.starts import Start
from mfgppl.exceptions import ConvergenceError, ConvergenceWarning, IdentificationWarning
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.approximation import JUDGED, weighted_tree

SAME_MODE = 0.1  # standard deviations within which two modes are one


@strict_keywords
def laplace(
    model: TrajectoryModel,
    *,
    draws: int = 1000,
    init: Start | None = None,
    restarts: int = 0,
    random_seed: Seed = None,
    log_likelihood: bool | None = None,
    progressbar: bool = True,
    flow_bias: bool = True,
) -> xr.DataTree:
    """Draw from the normal at the posterior's mode with its curvature, over unconstrained values.

    Where further starts lead to other modes, from the mixture of their normals, each weighed by
    the probability that its normal holds. Along a direction in which the posterior has no
    curvature draws do not vary, and a warning names it.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    draws : int
        Number of independent draws.
    init : mapping, Series, PointEstimate or DataTree, optional
        Where to look for the mode, as in `mle`.
    restarts : int
        Further starts, at draws from the prior.
    random_seed : int or SeedSequence, optional
        Seed of the draws and further starts; by default a fresh one, recorded.
    log_likelihood : bool, optional
        As in `nuts`.
    progressbar : bool
        Whether to show progress on a terminal.
    flow_bias : bool
        As in `nuts`.

    Returns
    -------
    DataTree
        As of `nuts`, with one chain. `sample_stats` holds lp and log_q, the log densities of
        posterior (up to a constant) and approximation over unconstrained values; the attribute
        `pareto_k` is the shape of the tail of their weights, `mode_weights` the probability of
        each mode.

    Raises
    ------
    ConvergenceError
        If the posterior has no finite density at any mode.

    Warns
    -----
    ConvergenceWarning
        If no mode is found, the posterior is flat in some direction, or the Pareto shape is above
        0.7.
    IdentificationWarning
        As of `nuts`.

    References
    ----------
    .. [1] Tierney and Kadane (1986), *Accurate approximations for posterior moments and marginal
       densities*, JASA 81.
    .. [2] Yao, Vehtari, Simpson and Gelman (2018), *Yes, but did it work? Evaluating variational
       inference*, ICML.
    """
    is_a("model", model, TrajectoryModel)
    positive_int("draws", draws)
    positive_int("restarts", restarts, least=0)
    random_seed = seed_of(random_seed)
    began = time.perf_counter()
    modes = _modes(model, init, restarts, random_seed, progressbar=progressbar)
    messages = list(dict.fromkeys(m for mode in modes for m in _mode_messages(mode)))
    peaks = [peak for mode in modes if np.isfinite((peak := _peak(model, mode)).log_mass)]
    if not peaks:
        raise ConvergenceError(
            f"no mode with a finite posterior density was found ({modes[0].reason}), and Laplace's "
            "approximation has no centre; give `init` a point where the model holds, or `restarts`."
        )
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
    return weighted_tree(
        model, theta, log_q, draws, attrs, messages, random_seed, log_likelihood, flow_bias
    )


class _Peak(NamedTuple):
    """A normal on the directions in which the posterior has curvature at a mode.

    Attributes
    ----------
    centre : ndarray, shape (K,)
        The mode.
    root : ndarray, shape (K, R)
        A root of the covariance, one column per direction that has variance.
    log_mass : float
        Log of the probability that the normal holds, up to a constant.
    """

    centre: np.ndarray
    root: np.ndarray
    log_mass: float

    @property
    def log_size(self) -> float:
        """Log of the normal's integral at a peak of height 1."""
        size = self.root.shape[1] * np.log(2 * np.pi)
        if self.root.shape[0] == self.root.shape[1]:
            return float(np.linalg.slogdet(self.root)[1] + 0.5 * size)
        _, log_det = np.linalg.slogdet(self.root.T @ self.root)
        return 0.5 * (float(log_det) + size)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a point (K,)."""
        return self.centre + self.root @ rng.standard_normal(self.root.shape[1])

    def log_normal(self, points: np.ndarray) -> np.ndarray:
        """Return the normal's log density at points (N, K)."""
        size = np.linalg.norm(self.root, axis=1)
        size[size == 0] = 1.0
        away = np.linalg.pinv(self.root / size[:, None]) @ ((points - self.centre) / size).T
        return np.asarray(-0.5 * (away**2).sum(0) - self.log_size)


def _peak(model: TrajectoryModel, mode: PointEstimate) -> _Peak:
    root = root_of(mode.curvature.covariance)
    peak = _Peak(mode.theta, root[:, np.abs(root).max(0, initial=0.0) > 0], 0.0)
    height = density_of(model).evaluator()(mode.theta)[0]
    return peak._replace(log_mass=float(height) + peak.log_size)


def _modes(
    model: TrajectoryModel,
    init: Start | None,
    restarts: int,
    random_seed: int,
    *,
    progressbar: bool,
) -> list[PointEstimate]:
    """Return the distinct modes that the starts lead to, the highest of what is no mode else."""

    def fit_from(start: Any, seed: int) -> PointEstimate:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", IdentificationWarning)
            return map_estimate(
                model, space="unconstrained", init=start, random_seed=seed,
                progressbar=progressbar, flow_bias=False,
            )  # fmt: skip

    density = density_of(model, progressbar=progressbar)
    seeds = np.random.SeedSequence(random_seed).generate_state(restarts)
    starts = [init]
    for seed in seeds:
        away = density.record(density.program.draw(int(seed))[None])[0]
        starts.append({k: v[0] for k, v in away.items()})
    evaluate = density.evaluator()
    fits = [fit_from(start, 0) for start in starts]
    fits.sort(key=lambda estimate: -evaluate(estimate.theta)[0])
    modes: list[PointEstimate] = []
    for estimate in fits:
        if estimate.converged and not any(_same_mode(estimate, mode) for mode in modes):
            modes.append(estimate)
    return modes or fits[:1]


def _same_mode(a: PointEstimate, b: PointEstimate) -> bool:
    """Whether two modes are one: apart by no more than a small part of a standard deviation.

    Along a direction without curvature no distance counts.
    """
    directions, bends = unit_curvature(b.information, b.sizes)
    steps = np.linalg.solve(directions, a.theta - b.theta)
    return bool((steps[bends] ** 2).sum() < SAME_MODE**2)


def _mode_messages(mode: PointEstimate) -> list[str]:
    """Return what is wrong with a mode, in words."""
    messages = [] if mode.converged else [f"no mode was found: {mode.reason}"]
    for flat in mode.curvature.flat:
        combination = describe_direction(mode.jacobian @ flat, list(mode.params.index))
        messages.append(
            f"the posterior has no curvature along {combination}: draws do not vary along it, and "
            "are the posterior of the rest alone; give its parameters a prior that ties them down"
        )
    return messages
