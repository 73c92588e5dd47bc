"""Point estimates: maximum likelihood and maximum a posteriori, with standard errors."""

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mfgppl._arguments import (
    Seed,
    is_a,
    one_of,
    positive_int,
    real_between,
    seed_of,
    strict_keywords,
)
from mfgppl._keep import keep
from mfgppl._replication import replicate, seeds_of
from mfgppl.data.trajectories import Trajectories
from mfgppl.density.climb import Objective
from mfgppl.density.groups_of_agents import start_from_groups
from mfgppl.density.of_model import density_of
from mfgppl.density.protocol import LogDensity
from mfgppl.density.sizes import climbing_units, constrained_at, idle_at
from mfgppl.density.who_is_who import kinds_table, node_shares
from mfgppl.estimation.counted_flow import CountedFlow
from mfgppl.estimation.flow_cost import is_counted, measured_cost
from mfgppl.estimation.judgement import judged, kinks, warn_of, warned
from mfgppl.estimation.newton import Climb, climb
from mfgppl.estimation.parts import clusters_of
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.estimation.starts import Start, starting_values
from mfgppl.estimation.svi import run_svi
from mfgppl.estimation.twin_kinds import messages_of_kinds
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.terms import add_up

SVI_STEPS = 50  # the climb after them needs a start, no more
LEARNING_RATE = 0.05
FARTHEST = 0.1  # standard errors from a maximum at which a fit is none
MOST_PROBED = 50  # parameters for which effects are looked for at points nearby


@strict_keywords
def mle(
    model: TrajectoryModel,
    *,
    init: Start | None = None,
    restarts: int = 0,
    svi_steps: int | None = None,
    learning_rate: float | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 100,
    random_seed: Seed = 0,
    n_jobs: int | None = None,
    progressbar: bool = True,
    flow_bias: bool = True,
) -> PointEstimate:
    """Maximise the likelihood: SVI with a point guide, then Newton; the prior plays no part.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    init : mapping of str to value, Series, PointEstimate or DataTree, optional
        Where to start, by site, or another fit: of draws the mean over unconstrained values. By
        default the median of draws from the prior, and for mean_field="equilibrium" the posterior's
        mode along the flow that was seen.
    restarts : int
        Further starts, at draws from the prior; the best maximum is kept, and `attained` holds
        what each start led to.
    svi_steps : int, optional
        Steps of SVI before L-BFGS and Newton, which it brings near: 50 by default, and none for
        mean_field="equilibrium" or where kinds are not seen, whose climb from groups of agents has
        already begun. With 0 the climb begins at `init`; a likelihood of one maximum has the same
        estimate either way.
    learning_rate : float, optional
        Step of its optimiser, by default 0.05, in units of each parameter that change a reward by
        a temperature.
    tolerance : float, at most 0.1
        Distance from the maximum, in standard errors, that counts as none.
    max_steps : int
        Newton steps at most.
    random_seed : int or SeedSequence
        Seed of the starting points.
    n_jobs : int, optional
        Restarts at a time, through joblib; as in `replicate`.
    progressbar : bool
        Whether to show progress on a terminal.
    flow_bias : bool
        Whether to measure, by refits without a twentieth of the agents each, what it costs that
        the flow is counted from the panel; where no term reads such a flow, nothing is done.

    Returns
    -------
    PointEstimate
        Invariant to how the program is parametrised, and to the units of features.

    Warns
    -----
    ConvergenceWarning
        If the maximum stays out of reach, the point is no maximum, or there is none: a combination
        of parameters separates the choices, and the likelihood rises along it without end.
    IdentificationWarning
        If some combination of parameters does not change the likelihood; its parameters get no
        standard error.
    """
    settings = _Settings(
        restarts, svi_steps, learning_rate, tolerance, max_steps, random_seed, n_jobs, progressbar
    )
    if isinstance(model, TrajectoryModel) and model.samples_agents:
        raise ValueError(
            "the law of coefficients that are sampled, x.agents(sampled=True), is a prior, which "
            "mle drops: use nuts, or `with x.agents:`, which sums over nodes."
        )
    fit = _maximise(model, init, settings, kind="mle", prior=0.0, jacobian=0.0)
    if not flow_bias or not isinstance(model, TrajectoryModel):
        return fit
    return with_counted_flow(fit, measured_cost(model, fit))


def with_counted_flow(fit: PointEstimate, cost: CountedFlow | None) -> PointEstimate:
    """Return a fit that says what its counted flow costs."""
    if cost is None:
        return fit
    return replace(fit, counted_flow=cost, messages=fit.messages + cost.messages())


def cost_of_counting(model: TrajectoryModel) -> CountedFlow | None:
    """Return what the counted flow costs the maximum likelihood estimate, fitted where not yet."""
    if not isinstance(model, TrajectoryModel) or model.samples_agents or not is_counted(model):
        return None

    def measured() -> CountedFlow | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a fit that is not asked for
            return mle(model, svi_steps=0, progressbar=False).counted_flow

    return keep(model, "counted_flow", measured)


@strict_keywords
def map_estimate(
    model: TrajectoryModel,
    *,
    space: str = "constrained",
    init: Start | None = None,
    restarts: int = 0,
    svi_steps: int | None = None,
    learning_rate: float | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 100,
    random_seed: Seed = 0,
    n_jobs: int | None = None,
    progressbar: bool = True,
    flow_bias: bool = True,
) -> PointEstimate:
    """Maximise the posterior density, which depends on the space in which it is a density.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    space : {"constrained", "unconstrained"}
        Whether the density is over the parameters as declared or over their unconstrained values.
    init, restarts, svi_steps, learning_rate, tolerance, max_steps, random_seed, n_jobs, progressbar
        As in `mle`.
    flow_bias : bool
        As in `mle`; what is measured is the error of the maximum likelihood estimate.

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
    fit = _maximise(model, init, settings, kind=f"map ({space})", prior=1.0, jacobian=jacobian)
    return with_counted_flow(fit, cost_of_counting(model)) if flow_bias else fit


class _Settings(NamedTuple):
    restarts: int
    svi_steps: Any
    learning_rate: Any
    tolerance: float
    max_steps: int
    random_seed: Any
    n_jobs: int | None
    progressbar: bool


def _settings(settings: _Settings, model: TrajectoryModel) -> _Settings:
    """Return settings with their defaults, else raise what is wrong with them."""
    positive_int("restarts", settings.restarts, least=0)
    positive_int("max_steps", settings.max_steps)
    check_tolerance(settings.tolerance)
    svi_steps = settings.svi_steps
    if svi_steps is None:
        svi_steps = 0 if model.coupled or model.nodes is not None else SVI_STEPS
    positive_int("svi_steps", svi_steps, least=0)
    rate = settings.learning_rate
    if rate is not None:
        real_between("learning_rate", rate, above=0.0)
        if svi_steps == 0:
            raise ValueError(
                f"`learning_rate` belongs to SVI, of which there are no steps; got {rate!r}. Give "
                "`svi_steps`, or leave it out."
            )
    return settings._replace(
        svi_steps=int(svi_steps),
        learning_rate=LEARNING_RATE if rate is None else rate,
        random_seed=seed_of(settings.random_seed),
    )


def check_tolerance(tolerance: Any) -> float:
    """Return a distance from a maximum, in standard errors, that can count as none, else raise."""
    value = real_between("tolerance", tolerance, above=0.0)
    if value > FARTHEST:
        raise ValueError(
            f"`tolerance` must be at most {FARTHEST:g}: a fit that is farther from its maximum, in "
            f"standard errors, is none; got {value:g}."
        )
    return value


def _maximise(
    model: TrajectoryModel,
    init: Start | None,
    settings: _Settings,
    *,
    kind: str,
    prior: float,
    jacobian: float,
) -> PointEstimate:
    is_a("model", model, TrajectoryModel)
    settings = _settings(settings, model)
    density = density_of(model, progressbar=settings.progressbar)
    objective = Objective(density, prior, jacobian)
    start = starting_values(density, init, settings.random_seed)
    if init is None and not model.coupled:  # whose anchor is already reached from groups
        start = _with_kinds(objective, start, seeds_of(settings.random_seed, 1)[0])
    climbs = [_climb(objective, start, settings)]
    if settings.restarts:

        def restart(stream: int) -> Climb:
            here = density_of(model)
            there = Objective(here, prior, jacobian)
            away = here.record(here.program.draw(stream)[None])[0]
            anew = settings._replace(random_seed=stream, progressbar=False)
            values = {k: v[0] for k, v in away.items()}
            if model.nodes is not None and stream % 2:  # half of the starts are groups of agents
                values = _with_kinds(there, start, stream)
            return _climb(there, values, anew)

        climbs += replicate(
            restart,
            settings.restarts,
            random_seed=settings.random_seed,
            n_jobs=settings.n_jobs,
            progressbar=settings.progressbar,
        )
    best = max(climbs, key=lambda climb: climb.value)
    theta = best.theta
    params, slope = constrained_at(density, theta)
    scores = scores_of(density, theta)
    away = density.program.free(start)
    probes = None if prior or scores is None else _probe(density, theta, away, scores)
    judgement = judged(
        objective, best, objective.effects(theta), slope, probes, list(params.index),
        tolerance=settings.tolerance, with_prior=prior > 0,
    )  # fmt: skip
    messages = warn_of(judgement, params, slope, hierarchical=prior > 0, stacklevel=5)
    edge = judgement.edge
    if model.game.behaviour == "boltzmann":
        jumps = kinks(objective, theta, objective.effects(theta), slope)
        tied = (np.abs(slope[:, jumps]) > 0).any(1)
        messages += warned(_of_ties(params.index[tied]), stacklevel=5)
        edge = edge | tied
    reason = judgement.reason
    equilibria = density.certificates(params.to_numpy(copy=True)[None])
    if equilibria is not None:
        reason += f"; equilibrium within {equilibria.residual[0]:.1e}"
        messages += warned(equilibria.messages(), stacklevel=5)
    messages += warned(model.messages, stacklevel=5)
    kinds, value = None, params.to_numpy(copy=True)
    if isinstance(model.law, KindsLikelihood):
        kinds = kinds_table(model, node_shares(density, value))
        found = messages_of_kinds(density, value, saddle=judgement.curvature.saddle)
        messages += warned(found, stacklevel=5)
    return PointEstimate(
        kind=kind,
        params=params,
        llf=density.evaluator(prior=0.0, jacobian=0.0)(theta)[0],
        nobs=model.panel.n_decisions,
        converged=judgement.converged,
        residual=best.residual,
        n_steps=settings.svi_steps + best.n_steps,
        reason=reason,
        messages=messages,
        information=judgement.information,
        jacobian=slope,
        scores=scores,
        probes=probes,
        groups=clusters_of(model.panel),
        n_trajectories=model.panel.n_trajectories,
        theta=theta,
        attained=tuple(climb.value for climb in climbs),
        sizes=judgement.sizes,
        edge=edge,
        separated=judgement.separated,
        mean_field=model.flow_kind,
        kinds=kinds,
    )


def _with_kinds(objective: "Objective", start: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return a start whose kinds are groups of agents who do alike; without kinds, itself."""
    density = objective.density
    if density.model.nodes is None:
        return start
    theta = density.program.free(start)
    slope = constrained_at(density, theta)[1]
    units = climbing_units(density, objective.effects(theta), slope, prior=objective.prior)
    found = start_from_groups(density, theta, units, seed)
    return {k: v[0] for k, v in density.record(found[None])[0].items()}


def _of_ties(names: pd.Index) -> list[str]:
    """Return what is said of parameters in which the likelihood has a kink at the estimate."""
    if not len(names):
        return []
    return [
        "two actions tie at the estimate, where the likelihood of behaviour='boltzmann' has a "
        f"kink in {', '.join(map(str, names))}: no standard error"
    ]


def _climb(objective: "Objective", start: dict[str, Any], settings: _Settings) -> Climb:
    """Climb from constrained values by SVI, L-BFGS and Newton."""
    density = objective.density
    theta = density.program.free(start)
    slope = constrained_at(density, theta)[1]
    units = climbing_units(density, objective.effects(theta), slope, prior=objective.prior)
    begun = run_svi(
        objective,
        theta,
        units,
        n_steps=settings.svi_steps,
        learning_rate=settings.learning_rate,
        random_seed=settings.random_seed,
        progressbar=settings.progressbar,
    )
    return climb(
        objective,
        begun,
        units,
        tolerance=settings.tolerance,
        max_steps=settings.max_steps,
    )


def _probe(
    density: LogDensity, theta: np.ndarray, start: np.ndarray, scores: np.ndarray
) -> np.ndarray | None:
    """Return trajectories' gradients here, nearby and near the start, unless that is costly."""
    if len(theta) > MOST_PROBED:
        return None
    steps = np.random.default_rng(0).standard_normal((2, len(theta)))
    points = [
        at + 0.1 * (1 + np.abs(at)) * step for at, step in zip((theta, start), steps, strict=True)
    ]
    elsewhere = [scores_of(density, point) for point in points]
    return np.stack([scores, *(s for s in elsewhere if s is not None and np.isfinite(s).all())])


def scores_of(density: LogDensity, theta: np.ndarray) -> np.ndarray | None:
    """Return the gradient of each trajectory's log likelihood, (J, K), None without rows."""
    model = density.model
    if not isinstance(model.panel, Trajectories):
        return None
    if isinstance(model.law, KindsLikelihood):
        core = density.rewards(density.constrained(theta[None]))[0]
        return model.law.scores(core, density.table_slopes(theta), model.panel)
    terms = model.law.terms(model.panel)
    scores = np.zeros((model.panel.n_trajectories, len(theta)))
    for k, slopes in enumerate(density.table_slopes(theta)):
        scores[:, k] = add_up(terms, slopes, model.panel.n_trajectories)
    scores[:, idle_at(density, theta)] = 0.0
    return scores
