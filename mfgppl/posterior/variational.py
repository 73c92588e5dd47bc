"""Variational inference: the member of a family of laws that is nearest to the posterior."""

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
import xarray as xr
from pyro.infer import autoguide
from pyro.nn import PyroParam

from mfgppl._arguments import (
    Seed,
    is_a,
    one_of,
    positive_int,
    real_between,
    seed_of,
    strict_keywords,
    torch_seed,
)
from mfgppl._kernels import bridge
from mfgppl._modes import seeded
from mfgppl.density.of_model import density_of
from mfgppl.density.protocol import LogDensity
from mfgppl.density.sizes import climbing_units, effects_of
from mfgppl.estimation.point import map_estimate
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.estimation.starts import Start, starting_values
from mfgppl.exceptions import ConvergenceWarning
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.approximation import JUDGED, weighted_tree
from mfgppl.reward.program import double_precision

WINDOW = 500  # steps over which the bound is averaged
SETTLED = 2.0  # standard errors by which a window must be better than the last to go on

Guide = Callable[..., Any]
GUIDES: dict[str, Guide] = {
    "diagonal": autoguide.AutoDiagonalNormal,
    "full_rank": autoguide.AutoMultivariateNormal,
    "low_rank": autoguide.AutoLowRankMultivariateNormal,
    "flow": autoguide.AutoIAFNormal,
}


@strict_keywords
def vi(
    model: TrajectoryModel,
    *,
    guide: str = "full_rank",
    draws: int = 1000,
    max_steps: int = 10_000,
    learning_rate: float = 0.02,
    particles: int = 16,
    init: Start | None = None,
    restarts: int = 0,
    random_seed: Seed = None,
    log_likelihood: bool | None = None,
    flow_bias: bool = True,
) -> xr.DataTree:
    """Draw from the member of a family that is nearest to the posterior (variational inference).

    The evidence lower bound is climbed by Adam with reparametrised draws from one of Pyro's guides,
    until a window of steps is no better than the one before.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    guide : {"full_rank", "diagonal", "low_rank", "flow"}
        The family over unconstrained values: normals with a full, a diagonal or a low-rank plus
        diagonal covariance, or an inverse autoregressive flow.
    draws : int
        Number of independent draws.
    max_steps : int
        Steps of the optimiser at most.
    learning_rate : float
        Of Adam, in units of each parameter that change a reward by a temperature, or the log prior
        by a nat; it falls as the bound settles.
    particles : int
        Draws a step.
    init : mapping, Series, PointEstimate or DataTree, optional
        Where the family is centred at first; by default the posterior's mode.
    restarts : int
        Further starts of the search for the mode, at draws from the prior.
    random_seed : int or SeedSequence, optional
        Seed of everything; by default a fresh one, recorded.
    log_likelihood : bool, optional
        As in `nuts`.
    flow_bias : bool
        As in `nuts`.

    Returns
    -------
    DataTree
        As of `laplace`, with the attributes `elbo` (nats), `elbo_se`, `n_steps` and `pareto_k`.

    Warns
    -----
    ConvergenceWarning
        If the bound has not settled, or the Pareto shape is above 0.7.
    IdentificationWarning
        As of `nuts`.

    References
    ----------
    .. [1] Kucukelbir, Tran, Ranganath, Gelman and Blei (2017), *Automatic differentiation
       variational inference*, JMLR 18.
    .. [2] Yao, Vehtari, Simpson and Gelman (2018), *Yes, but did it work? Evaluating variational
       inference*, ICML.
    """
    is_a("model", model, TrajectoryModel)
    one_of("guide", guide, GUIDES)
    positive_int("draws", draws)
    positive_int("max_steps", max_steps)
    positive_int("particles", particles)
    positive_int("restarts", restarts, least=0)
    real_between("learning_rate", learning_rate, above=0.0)
    random_seed = seed_of(random_seed)
    began = time.perf_counter()
    density = density_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mode = map_estimate(
            model,
            space="unconstrained",
            init=init,
            restarts=restarts,
            random_seed=random_seed,
            progressbar=False,
            flow_bias=False,
        )
    start = starting_values(density, mode, 0)
    with double_precision(), seeded(torch_seed(random_seed)), pyro.get_param_store().scope():
        units = _units(density, mode)
        family = _family(model, guide, start, mode, units)
        climb = _climb_bound(density, family, units, max_steps, learning_rate, particles)
        with torch.no_grad():
            law = family.get_posterior()
            drawn = law.sample(torch.Size([max(draws, JUDGED)]))
            log_q = law.log_prob(drawn).numpy()
    messages = []
    if not climb.settled:
        messages.append(
            f"the bound was still rising after {climb.n_steps} steps; give more `max_steps`."
        )
    attrs = {
        "sampler": f"vi ({guide})",
        "sampling_time": time.perf_counter() - began,
        "elbo": climb.elbo,
        "elbo_se": climb.error,
        "n_steps": climb.n_steps,
    }
    theta = drawn.numpy().reshape(len(drawn), -1)
    return weighted_tree(
        model, theta, log_q, draws, attrs, messages, random_seed, log_likelihood, flow_bias
    )


def _step(optimiser: Any, places: list[Any], unit: torch.Tensor) -> None:
    """Take a step of the optimiser: places move by units of their own, shapes have none."""
    before = [p.detach().clone() for p in places]
    for p in places:
        p.grad *= unit
    optimiser.step()
    for p, old in zip(places, before, strict=True):
        p.data.copy_(old + unit * (p.data - old))


class _Climb(NamedTuple):
    elbo: float
    error: float
    n_steps: int
    settled: bool


def _units(density: LogDensity, mode: PointEstimate) -> np.ndarray:
    """Return the step of order one of each unconstrained parameter (K,)."""
    return climbing_units(density, effects_of(density, mode.theta), mode.jacobian, prior=1.0)


def _family(
    model: TrajectoryModel,
    guide: str,
    start: Mapping[str, Any],
    mode: PointEstimate,
    units: np.ndarray,
) -> Any:
    """Return one of Pyro's guides, set up at the mode and as wide as the curvature there says."""
    values = {k: torch.tensor(v, dtype=torch.float64) for k, v in start.items()}
    curvature = np.maximum(np.diag(mode.information), 1e-6 / units**2)
    options: dict[str, Any] = {"hidden_dim": [16 * max(len(curvature), 2)]}
    if guide != "flow":
        scale = float(np.median(curvature**-0.5))
        options = {"init_loc_fn": autoguide.init_to_value(values=values), "init_scale": scale}
    family = GUIDES[guide](pyro.poutine.block(model, hide_fn=_is_observed), **options)
    family()
    positive = torch.distributions.constraints.positive
    if guide in ("diagonal", "low_rank"):  # the nearest normal with independent entries
        family.scale = PyroParam(torch.from_numpy(curvature**-0.5), positive)
    if guide == "full_rank":
        root = torch.from_numpy(_triangle(mode, units))
        family.scale = PyroParam(root.diagonal().clone(), positive)
        family.scale_tril = PyroParam(
            root / root.diagonal()[:, None], pyro.distributions.constraints.unit_lower_cholesky
        )
    return family.double()


def _is_observed(site: Any) -> bool:
    return bool(site["type"] == "sample" and site["is_observed"])


def _triangle(mode: PointEstimate, units: np.ndarray) -> np.ndarray:
    """Return the lower triangular root of the covariance, a unit where there is no curvature."""
    covariance = mode.curvature.covariance / np.outer(units, units)
    idle = np.diag(covariance) <= 0
    covariance[idle, idle] = 1.0
    values, vectors = np.linalg.eigh(covariance)
    floor = 1e-8 * values.max()
    triangle = np.linalg.cholesky((vectors * np.maximum(values, floor)) @ vectors.T)
    return np.asarray(units[:, None] * triangle)


def _climb_bound(
    density: LogDensity,
    family: Any,
    units: np.ndarray,
    max_steps: int,
    learning_rate: float,
    particles: int,
) -> _Climb:
    """Climb the evidence lower bound until it settles at three learning rates."""
    evaluate = density.evaluator()

    def sum_of_heights(flat: np.ndarray) -> tuple[float, np.ndarray]:
        total, slopes = 0.0, np.empty((particles, density.n_dim))
        for point, slope in zip(flat.reshape(particles, -1), slopes, strict=True):
            value, slope[:] = evaluate(point)
            total += value
        return total, slopes.ravel()

    optimiser = torch.optim.Adam(family.parameters(), lr=learning_rate)
    places = [p for name, p in family.named_parameters() if name == "loc"]
    unit = torch.from_numpy(units)
    bounds: list[float] = []
    last, falls = -np.inf, 0
    while len(bounds) < max_steps:
        for _ in range(min(WINDOW, max_steps - len(bounds))):
            optimiser.zero_grad()
            law = family.get_posterior()
            points = law.rsample(torch.Size([particles]))
            height = bridge.differentiable(points.reshape(-1), sum_of_heights) / particles
            bound = height - law.log_prob(points).mean()
            (-bound).backward()
            _step(optimiser, places, unit)
            bounds.append(float(bound.detach()))
        window = np.array(bounds[-WINDOW:])
        mean, error = float(window.mean()), float(window.std(ddof=1) / np.sqrt(len(window)))
        if mean < last + SETTLED * error:
            falls += 1
            for group in optimiser.param_groups:
                group["lr"] /= 4
        if falls == 3:
            return _Climb(mean, error, len(bounds), True)
        last = max(last, mean)
    return _Climb(mean, error, len(bounds), False)
