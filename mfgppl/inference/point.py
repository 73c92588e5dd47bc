"""Point estimates: maximum likelihood and maximum a posteriori, with standard errors."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyro
import scipy.optimize
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, init_to_value
from pyro.optim import ClippedAdam
from pyro.poutine.messenger import Messenger
from torch import Tensor

from mfgppl._arguments import one_of, positive_int, real_between, strict_keywords
from mfgppl.data.trajectories import Trajectories
from mfgppl.exceptions import ConvergenceWarning, IdentificationWarning
from mfgppl.inference.compiled import STARTS, AnyDensity, OneDensity, density_of, parts_of
from mfgppl.inference.coupled import CoupledDensity
from mfgppl.inference.curvature import (
    FLAT,
    Curvature,
    analyse_curvature,
    describe_direction,
    equilibrate,
)
from mfgppl.inference.estimate import EDGE, PointEstimate, point_values
from mfgppl.inference.progress import progress
from mfgppl.inference.replication import replicate
from mfgppl.likelihood.model import OBSERVED
from mfgppl.likelihood.plays import Model, check_model, clusters_of, plays_of
from mfgppl.likelihood.terms import add_up
from mfgppl.reward.program import double_precision

SVI_STEPS = 200
MOST_PROBED = 50  # parameters for which effects are looked for at points nearby


@strict_keywords
def mle(
    model: Model,
    *,
    init: Mapping[str, Any] | PointEstimate | None = None,
    restarts: int = 0,
    svi_steps: int | None = None,
    learning_rate: float = 0.05,
    tolerance: float = 1e-8,
    max_steps: int = 100,
    random_seed: int = 0,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> PointEstimate:
    """Maximise the likelihood: SVI with a point guide, then Newton; the prior plays no part.

    Parameters
    ----------
    model : TrajectoryModel or Plays
        The model.
    init : mapping of str to value, or PointEstimate, optional
        Where to start, by site; by default the median of draws from the prior, and for
        mean_field="equilibrium" the posterior's mode along the flow that was seen.
    restarts : int
        Further starts, at draws from the prior; the best maximum is kept, and `attained` holds
        what each start led to.
    svi_steps : int, optional
        Steps of SVI; by default 200, and none for mean_field="equilibrium".
    learning_rate : float
        Step size of its optimiser.
    tolerance : float
        Largest entry of the gradient, per nat of the log likelihood, that counts as zero.
    max_steps : int
        Newton steps at most.
    random_seed : int
        Seed of the starting points.
    n_jobs : int, optional
        Restarts at a time, through joblib; as in `replicate`.
    progressbar : bool
        Whether to show progress on a terminal.

    Returns
    -------
    PointEstimate
        Invariant to how the program is parametrised.

    Warns
    -----
    ConvergenceWarning
        If the gradient stays above the tolerance, or the point is no maximum.
    IdentificationWarning
        If some combination of parameters does not change the likelihood; its parameters get no
        standard error.
    """
    settings = _Settings(
        restarts, svi_steps, learning_rate, tolerance, max_steps, random_seed, n_jobs, progressbar
    )
    return _maximise(model, init, settings, kind="mle", prior=0.0, jacobian=0.0)


@strict_keywords
def map_estimate(
    model: Model,
    *,
    space: str = "constrained",
    init: Mapping[str, Any] | PointEstimate | None = None,
    restarts: int = 0,
    svi_steps: int | None = None,
    learning_rate: float = 0.05,
    tolerance: float = 1e-8,
    max_steps: int = 100,
    random_seed: int = 0,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> PointEstimate:
    """Maximise the posterior density, which depends on the space in which it is a density.

    Parameters
    ----------
    model : TrajectoryModel or Plays
        The model.
    space : {"constrained", "unconstrained"}
        Whether the density is over the parameters as declared or over their unconstrained values.
    init, restarts, svi_steps, learning_rate, tolerance, max_steps, random_seed, n_jobs, progressbar
        As in `mle`.

    Returns
    -------
    PointEstimate
        With the curvature of the posterior in place of the likelihood's.
    """
    one_of("space", space, ["constrained", "unconstrained"])
    settings = _Settings(
        restarts, svi_steps, learning_rate, tolerance, max_steps, random_seed, n_jobs, progressbar
    )
    jacobian = float(space == "unconstrained")
    return _maximise(model, init, settings, kind=f"map ({space})", prior=1.0, jacobian=jacobian)


class _Settings(NamedTuple):
    restarts: int
    svi_steps: Any
    learning_rate: float
    tolerance: float
    max_steps: int
    random_seed: int
    n_jobs: int | None
    progressbar: bool


def _maximise(
    model: Model,
    init: Mapping[str, Any] | PointEstimate | None,
    settings: _Settings,
    *,
    kind: str,
    prior: float,
    jacobian: float,
) -> PointEstimate:
    check_model(model)
    positive_int("restarts", settings.restarts, least=0)
    svi_steps = settings.svi_steps
    if svi_steps is None:
        svi_steps = 0 if model.coupled else SVI_STEPS
    settings = settings._replace(svi_steps=positive_int("svi_steps", svi_steps, least=0))
    positive_int("max_steps", settings.max_steps)
    positive_int("random_seed", settings.random_seed, least=0)
    real_between("learning_rate", settings.learning_rate, above=0.0)
    real_between("tolerance", settings.tolerance, above=0.0)
    density = density_of(model, progressbar=settings.progressbar)
    objective = Objective(density, prior, jacobian)
    start = starting_values(density, init, settings.random_seed)
    climbs = [_climb(objective, start, settings)]
    if settings.restarts:

        def restart(seed: int) -> _Climb:
            here = density_of(model)
            away = here.record(here.program.draw(seed)[None])[0]
            anew = settings._replace(random_seed=seed, progressbar=False)
            values = {k: v[0] for k, v in away.items()}
            return _climb(Objective(here, prior, jacobian), values, anew)

        climbs += replicate(
            restart,
            settings.restarts,
            random_seed=settings.random_seed,
            n_jobs=settings.n_jobs,
            progressbar=settings.progressbar,
        )
    theta, _, n_newton, residual = max(climbs, key=lambda climb: climb.value)
    information = -objective.second_derivatives(theta)
    bends = bool(np.isfinite(information).all())
    scores = scores_of(density, theta)
    probes = None if prior or scores is None else _probe(density, theta, scores)
    curvature = analyse_curvature(information, probes)
    llf = density.evaluator(prior=0.0, jacobian=0.0)(theta)[0]
    small = residual <= settings.tolerance * max(1.0, abs(llf)) and bends
    reason = f"largest gradient {residual:.1e}"
    if not bends:
        reason += ", but near the point the fitted game has no equilibrium that is found"
    if curvature.saddle:
        reason += ", but the point is not a maximum"
    params, slope = constrained_at(density, theta)
    messages = _warn(params, slope, curvature, small, reason, hierarchical=prior > 0)
    values = params.to_numpy(copy=True)[None]
    for part in parts_of(density):
        if isinstance(part, CoupledDensity):
            found = part.certificates(values)
            reason += f"; equilibrium within {found.residual[0]:.1e}"
            messages += _warned(part.messages(found))
    panels = [play.panel for play in plays_of(model).values()]
    return PointEstimate(
        kind=kind,
        params=params,
        llf=llf,
        nobs=sum(panel.n_decisions for panel in panels),
        converged=small and not curvature.saddle,
        residual=residual,
        n_steps=settings.svi_steps + n_newton,
        reason=reason,
        messages=messages,
        information=information,
        jacobian=slope,
        scores=scores,
        probes=probes,
        groups=clusters_of(model),
        n_trajectories=sum(panel.n_trajectories for panel in panels),
        theta=theta,
        attained=tuple(climb.value for climb in climbs),
    )


class _Climb(NamedTuple):
    """Where a start led to."""

    theta: np.ndarray
    value: float
    n_steps: int
    residual: float


def _climb(objective: "Objective", start: dict[str, Any], settings: _Settings) -> _Climb:
    """Climb from constrained values by SVI, L-BFGS and Newton."""
    density = objective.density
    start = _run_svi(density.model, start, settings, objective.prior)
    theta, n_newton, residual = _polish(objective, density.program.free(start), settings)
    return _Climb(theta, objective.value_and_gradient(theta)[0], n_newton, residual)


def starting_values(
    density: AnyDensity, init: Mapping[str, Any] | PointEstimate | None, random_seed: int
) -> dict[str, Any]:
    """Return where to start, by site: the given values, else medians of draws from the prior."""
    if isinstance(init, PointEstimate):
        return point_values(density.program, init, argument="init")
    given = density.program.check_values("init", init or {}, complete=False)
    first = parts_of(density)[0]
    if isinstance(first, CoupledDensity):
        centre = first.anchor.theta
    else:
        draws = [density.program.draw(random_seed + k) for k in range(STARTS)]
        centre = np.median(draws, axis=0)
    values = density.record(centre[None])[0]
    start = {**{k: v[0] for k, v in values.items()}, **given}
    density.program.free(start, argument="init")
    return start


class _OnlyLikelihood(Messenger):
    """Leave out all sites of a model but the observed ones."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"].rsplit("/")[-1] not in OBSERVED:
            msg["mask"] = False


def _run_svi(
    model: Model, start: dict[str, Any], settings: _Settings, prior: float
) -> dict[str, Any]:
    """Take SVI steps with a point guide, in a parameter store of their own."""
    if settings.svi_steps == 0:
        return start
    target = model if prior else _OnlyLikelihood()(model)
    init = {k: torch.tensor(v, dtype=torch.float64) for k, v in start.items()}
    with double_precision(), pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.random_seed)
        guide = AutoDelta(target, init_loc_fn=init_to_value(values=init))
        svi = SVI(target, guide, ClippedAdam({"lr": settings.learning_rate}), Trace_ELBO())
        for _ in progress(range(settings.svi_steps), "SVI", settings.progressbar):
            svi.step()
        return {k: v.detach().numpy().copy() for k, v in guide().items()}


class Objective:
    """A weighted log density over unconstrained parameters with two derivatives."""

    def __init__(self, density: AnyDensity, prior: float, jacobian: float) -> None:
        self.density, self.prior, self.jacobian = density, prior, jacobian
        self.evaluate = density.evaluator(prior=prior, jacobian=jacobian)

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the value and its gradient, an array of its own."""
        with np.errstate(all="ignore"):
            value, gradient = self.evaluate(theta)
        return float(value), gradient.copy()

    def second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Return the second derivatives (K, K)."""
        return self.density.second_derivatives(theta, prior=self.prior, jacobian=self.jacobian)


def _polish(
    objective: Objective, theta: np.ndarray, settings: _Settings
) -> tuple[np.ndarray, int, float]:
    """Run L-BFGS to the neighbourhood, then damped Newton; return point, steps, residual."""
    first = scipy.optimize.minimize(
        lambda x: tuple(-v for v in objective.value_and_gradient(x)),
        theta,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 50 * settings.max_steps},
    )
    theta, n_steps = first.x, int(first.nit)
    value, gradient = objective.value_and_gradient(theta)
    for _ in range(settings.max_steps):
        if np.abs(gradient).max() <= 0.01 * settings.tolerance * max(1.0, abs(value)):
            break
        hessian = objective.second_derivatives(theta)
        if not np.isfinite(hessian).all():
            break
        step = _newton_step(hessian, gradient)
        for halving in range(30):
            trial = theta + 0.5**halving * step
            new_value, new_gradient = objective.value_and_gradient(trial)
            slack = 1e-12 * max(1.0, abs(value))
            if np.isfinite(new_value) and new_value >= value - slack:
                break
        else:
            break
        stalled = np.abs(new_gradient).max() >= np.abs(gradient).max() and new_value <= value
        if stalled:
            break
        theta, value, gradient, n_steps = trial, new_value, new_gradient, n_steps + 1
    return theta, n_steps, float(np.abs(gradient).max())


def _newton_step(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return an ascent step that flips upward curvature and stays put in flat directions."""
    standard, scale = equilibrate(-hessian)
    eigenvalues, vectors = np.linalg.eigh(standard)
    bend = np.abs(eigenvalues)
    inverse = np.where(bend > FLAT, 1.0 / np.maximum(bend, FLAT), 0.0)
    return vectors @ (inverse * (vectors.T @ (gradient / scale))) / scale


def constrained_at(density: AnyDensity, theta: np.ndarray) -> tuple[pd.Series, np.ndarray]:
    """Return the constrained parameters by name and their slope in the unconstrained ones."""
    program = density.program

    def values(free: Tensor) -> Tensor:
        run = program.run(program.split(free))
        return torch.cat([v.reshape(-1) for v in run.values.values()])

    with double_precision(), pyro.validation_enabled(False):
        point = torch.from_numpy(theta.copy())
        slope = torch.autograd.functional.jacobian(values, point).numpy()
        flat = values(point).numpy()
    return pd.Series(flat, program.entry_names(), name="estimate"), slope


def _probe(density: AnyDensity, theta: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """Return trajectories' gradients here and at two points nearby, unless that is costly."""
    if len(theta) > MOST_PROBED:
        return None
    rng = np.random.default_rng(0)
    steps = 0.1 * (1 + np.abs(theta)) * rng.standard_normal((2, len(theta)))
    nearby = [scores_of(density, theta + step) for step in steps]
    return np.stack([scores, *(s for s in nearby if s is not None and np.isfinite(s).all())])


def scores_of(density: AnyDensity, theta: np.ndarray) -> np.ndarray | None:
    """Return the gradient of each trajectory's log likelihood, (J, K), None without rows."""
    found = [_scores(part, theta) for part in parts_of(density)]
    rows = [scores for scores in found if scores is not None]
    return np.concatenate(rows) if len(rows) == len(found) else None


def _scores(density: OneDensity, theta: np.ndarray) -> np.ndarray | None:
    model = density.model
    if not isinstance(model.panel, Trajectories):
        return None
    terms = model.likelihood.terms(model.panel)
    scores = np.zeros((model.panel.n_trajectories, len(theta)))
    for k, slopes in enumerate(density.table_slopes(theta)):
        scores[:, k] = add_up(terms, slopes, model.panel.n_trajectories)
    return scores


def _warned(messages: list[str]) -> tuple[str, ...]:
    """Warn of what the fitted game's equilibria are like."""
    for message in messages:
        warnings.warn(message, ConvergenceWarning, stacklevel=5)
    return tuple(messages)


def _warn(
    params: pd.Series,
    slope: np.ndarray,
    curvature: Curvature,
    small: bool,
    reason: str,
    *,
    hierarchical: bool,
) -> tuple[str, ...]:
    """Warn of what makes the numbers unusable; return the messages for the record."""
    messages = []
    if not small or curvature.saddle:
        messages.append(f"the fit did not converge: {reason}")
        warnings.warn(messages[-1], ConvergenceWarning, stacklevel=5)
    edge = np.abs(slope).max(1) < EDGE
    for name in params.index[edge]:
        messages.append(
            f"{name!r} is at the edge of its support ({params[name]:.3g}); it has no standard error"
            + ("; the mode of a hierarchical prior collapses there: use nuts" * hierarchical)
        )
        warnings.warn(messages[-1], IdentificationWarning, stacklevel=5)
    # around a collapsed mode the curvature has no scale, and its flat directions no meaning
    for direction in [] if hierarchical and edge.any() else curvature.flat:
        combination = slope @ direction
        if np.abs(combination[~edge]).max(initial=0.0) == 0.0:
            continue
        messages.append(
            f"the data do not tell {describe_direction(combination, list(params.index))}; "
            "its parameters have no standard error"
        )
        warnings.warn(messages[-1], IdentificationWarning, stacklevel=5)
    return tuple(messages)
