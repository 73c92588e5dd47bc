"""Nested pseudo-likelihood: refit, let the fitted policy generate the flow, repeat."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl._arguments import Seed, is_a, positive_int, real_between, strict_keywords
from mfgppl._generated_flow import flow_of_policy
from mfgppl.data.composition import turnover_message
from mfgppl.density.climb import Objective, climb_held, whitening
from mfgppl.density.of_model import density_of
from mfgppl.equilibrium.fixed_point import settled
from mfgppl.estimation.newton import climb_from
from mfgppl.estimation.point import mle
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.estimation.refits_along_flows import Refits
from mfgppl.estimation.starts import Start
from mfgppl.exceptions import ConvergenceError, ConvergenceWarning
from mfgppl.likelihood.model import TrajectoryModel

LARGEST_CHANGE = 1e-2  # of a share: what moves by more is no fixed point
STEP = 1e-2  # of central differences, in standard errors
PATIENCE, FALLS = 6, 0.9  # steps after which the change must be below this share of what it was


@dataclass(frozen=True, eq=False, repr=False)
class NestedPseudoLikelihood:
    """Where refits and the flows that they generate lead.

    Attributes
    ----------
    estimate : PointEstimate
        The maximum along the last flow. Once converged, its standard errors of all kinds count how
        the flow moves with the parameters, as its information and scores are those of the fixed
        point; before, they take the flow as known.
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
        The last flow along which the reward was fitted.
    path : DataFrame
        One row per step: `change`, the largest difference of a share between the flow and the one
        that the fitted policy generates; `llf`, nats; and the parameters.
    converged : bool
        Whether the last change is within tolerance: flow and policy are an entropy-regularised
        equilibrium of the fitted game.
    residual : float
        The last change.
    reason : str
        How it ended: a fixed point, a cycle, a flow that runs away, or too few steps.
    """

    estimate: PointEstimate
    mean_field: Tensor
    path: pd.DataFrame
    converged: bool
    residual: float
    reason: str

    @property
    def params(self) -> pd.Series:
        """The estimate's parameters."""
        return self.estimate.params

    def __repr__(self) -> str:
        lines = printed_sequence("nested pseudo-likelihood", self, moves=self.converged)
        return "\n".join(lines)


class Sequence(Protocol):
    """What a sequence of fits and flows leads to."""

    @property
    def estimate(self) -> PointEstimate:
        """The last fit."""

    @property
    def path(self) -> pd.DataFrame:
        """One row per step."""

    @property
    def converged(self) -> bool:
        """Whether it has reached a fixed point."""

    @property
    def reason(self) -> str:
        """How it ended."""


def printed_sequence(kind: str, sequence: Sequence, *, moves: bool) -> list[str]:
    """Return the lines of a sequence's printed form; `moves` says whether errors count the flow."""
    state = "converged" if sequence.converged else "NOT converged"
    flow = "moves with the parameters" if moves else "is taken as known"
    estimate = sequence.estimate
    return [
        f"{kind}: {state} in {len(sequence.path)} steps ({sequence.reason}), "
        f"log likelihood {estimate.llf:.3f}, {estimate.nobs} decisions of "
        f"{estimate.n_trajectories} trajectories",
        estimate.summary().to_string(float_format=lambda v: f"{v:.4g}"),
        f"std_err: the flow {flow}; 90% Wald intervals",
    ]


@strict_keywords
def nested_pseudo_likelihood(
    model: TrajectoryModel,
    *,
    mean_field: Any = None,
    damping: float = 0.5,
    tolerance: float = 1e-8,
    max_steps: int = 50,
    init: Start | None = None,
    random_seed: Seed = 0,
) -> NestedPseudoLikelihood:
    """Fit the reward and the flow that it generates to each other by iteration.

    The reward is fitted along a flow by maximum likelihood; the fitted policy generates the next
    flow, from the game's initial distribution and by its dynamics; and so on. A fixed point is an
    equilibrium of the fitted game, and its flow no longer depends on the choices seen but through
    the parameters. Where the crowd answers itself strongly there is none to reach:
    `efficient_pseudo_likelihood` converges there.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the causal likelihood.
    mean_field : array, shape (T, S), or (T, S, A) in a joint game, optional
        The first flow; by default the model's. Where several equilibria fit, it decides.
    damping : float in (0, 1]
        Share of the generated flow in the next one. With 1, the iteration as published, flows take
        turns for ever where the crowd answers itself strongly.
    tolerance : float, at most 0.01
        Largest change of a share that counts as none.
    max_steps : int
        Refits at most.
    init : mapping of str to value, Series, PointEstimate or DataTree, optional
        Where the first fit starts, as in `mle`.
    random_seed : int or SeedSequence
        Seed of the first fit, as in `mle`.

    Returns
    -------
    NestedPseudoLikelihood
        The estimate, the flow and the path to it.

    Warns
    -----
    ConvergenceWarning
        If no fixed point is reached; `reason` says how it ended. If many agents enter late or end
        early: the flow that a policy generates is that of a closed population.

    Raises
    ------
    ValueError
        If the likelihood is not causal, or the flow does not fit the game.

    References
    ----------
    .. [1] Aguirregabiria and Mira (2007), *Sequential estimation of dynamic discrete games*,
       Econometrica 75.
    .. [2] Kasahara and Shimotsu (2012), *Sequential estimation of structural models with a fixed
       point constraint*, Econometrica 80: when the iteration converges, and damping.
    """
    is_a("model", model, TrajectoryModel)
    if model.likelihood != "causal":
        raise ValueError(
            "nested_pseudo_likelihood needs likelihood='causal', whose policy generates the flow."
        )
    real_between("damping", damping, above=0.0, upto=1.0)
    real_between("tolerance", tolerance, above=0.0, upto=LARGEST_CHANGE)
    positive_int("max_steps", max_steps)
    flow = model.mean_field
    if mean_field is not None:
        flow = model.game.check_flow("mean_field", mean_field)
    here = model.with_panel(model.panel, mean_field=flow)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a step on the way; the last fit says its own
        fit = mle(here, init=init, random_seed=random_seed, progressbar=False, flow_bias=False)
    fits = _Fits(here, fit)
    steps: list[_Step] = []
    reason, found = "", fits.first()
    while not reason and found is not None:
        generated = flow_of_policy(here.game, found.log_policy.exp())
        steps.append(_Step(flow, found, generated - flow))
        reason = _ending(steps, tolerance, max_steps)
        if not reason:
            flow = torch.lerp(flow, generated, damping)
            found = fits.along(flow, found.theta)
    turnover = turnover_message(model.panel)
    if turnover is not None:
        warnings.warn(turnover, ConvergenceWarning, stacklevel=3)
    if not steps:
        raise ConvergenceError(
            "the fit along the first flow did not converge, so that there is no flow to follow: "
            f"{'; '.join(fit.messages)}"
        )
    last = steps[-1]
    end = model.with_panel(model.panel, mean_field=last.flow)
    start = density_of(end).program.by_site(last.fit.values)
    estimate = mle(end, init=start, svi_steps=0, progressbar=False, flow_bias=False)
    converged = last.change <= tolerance
    if converged:
        estimate = _with_moving_flow(fits, end, estimate)
    else:
        reason = reason or "no maximum was found along the next flow"
        warnings.warn(f"no fixed point was reached: {reason}", ConvergenceWarning, stacklevel=3)
    names = list(fit.params.index)
    rows = [
        {"change": s.change, "llf": s.fit.llf, **dict(zip(names, s.fit.values, strict=True))}
        for s in steps
    ]
    path = pd.DataFrame(rows).rename_axis("step")
    return NestedPseudoLikelihood(estimate, end.mean_field, path, converged, last.change, reason)


class _Fit(NamedTuple):
    """A maximum along a flow: parameters, unconstrained and not, height and log policy."""

    theta: np.ndarray
    values: np.ndarray
    llf: float
    log_policy: Tensor


class _Step(NamedTuple):
    """A fit along a flow, and the change to the flow that its policy generates."""

    flow: Tensor
    fit: _Fit
    gap: Tensor

    @property
    def change(self) -> float:
        """The largest change of a share."""
        return float(self.gap.abs().max())


class _Fits:
    """Fits of a model along many flows, by the recorded program where there is one."""

    def __init__(self, model: TrajectoryModel, fit: PointEstimate) -> None:
        self.model, self.fit = model, fit
        self.refits = Refits(model, fit)
        self.directions = whitening(fit.information, fit.sizes)
        self.counts = np.asarray(model.law.counts.actions, dtype=float)

    def first(self) -> _Fit | None:
        """Return the fit along the model's own flow."""
        return self.along(self.model.mean_field, self.fit.theta)

    def along(self, flow: Tensor, theta: np.ndarray) -> _Fit | None:
        """Return the maximum along a flow near a point, None where there is none."""
        if self.refits.recorded:
            height = self.refits.along(self.counts, flow.numpy())
            found = climb_from(height, theta, self.directions)
            if found is not None:
                values, log_policy = height.outcome(found)
                return _Fit(
                    found, values, height.value_and_gradient(found)[0], torch.from_numpy(log_policy)
                )
        return self._compiled_anew(flow, theta)

    def slope(self, flow: Tensor, theta: np.ndarray) -> np.ndarray:
        """Return the gradient (K,) of the log likelihood along a flow."""
        if self.refits.recorded:
            return self.refits.along(self.counts, flow.numpy()).value_and_gradient(theta)[1]
        density = density_of(self.model.along(flow))
        return density.evaluator(prior=0.0, jacobian=0.0)(theta)[1].copy()

    def _compiled_anew(self, flow: Tensor, theta: np.ndarray) -> _Fit | None:
        density = density_of(self.model.along(flow))
        objective, nothing = Objective(density, 0.0, 0.0), np.zeros(len(theta), dtype=bool)
        near = climb_held(objective, theta, nothing)
        if not near.converged:
            return None
        directions = whitening(-objective.second_derivatives(near.theta), self.fit.sizes)
        found = climb_from(objective, near.theta, directions)
        if found is None:
            return None
        values = density.constrained(found[None])
        llf = objective.value_and_gradient(found)[0]
        return _Fit(found, values[0], llf, torch.as_tensor(density.log_policies(values)[0]))


def _ending(steps: list[_Step], tolerance: float, max_steps: int) -> str:
    """Return why the iteration ends here, "" if it goes on."""
    changes = [s.change for s in steps]
    if changes[-1] <= tolerance:
        return f"fixed point: the flow changes by {changes[-1]:.1e}"
    if len(steps) > PATIENCE and min(changes[-PATIENCE:]) > FALLS * changes[-PATIENCE - 1]:
        last, before = (s.gap.ravel() for s in steps[:-3:-1])
        alternates = float(last @ before) < -0.5 * float(last.norm() * before.norm())
        what = "cycle: flows take turns" if alternates else "runs away"
        return (
            f"{what}, with changes of {changes[-1]:.1e}; use "
            "mfg.flows.efficient_pseudo_likelihood, lower `damping` or give a `mean_field`"
        )
    if len(steps) == max_steps:
        return f"too few steps: the flow still changes by {changes[-1]:.1e}; raise `max_steps`"
    return ""


def _with_moving_flow(fits: _Fits, model: TrajectoryModel, fit: PointEstimate) -> PointEstimate:
    """Return a fit whose information and scores count that its flow moves with the parameters.

    The estimate solves `s(theta, mu(theta)) = 0` with mu the equilibrium's flow; with D the slope
    of that and I the information along the fixed flow, the estimate's covariance is
    `D^-1 I D^-T`.
    """
    curvature = fit.curvature
    if len(curvature.flat) or curvature.saddle:
        return fit
    density = density_of(model)

    def score(theta: np.ndarray) -> np.ndarray:
        values = density.program.by_site(density.constrained(theta[None])[0])
        start = model.mean_field
        world = settled(model.game, model.reward, values, start=start, throw=True)
        return fits.slope(world.mean_field, theta)

    widths = STEP * np.sqrt(np.diag(curvature.covariance))
    slope = np.empty_like(fit.information)
    for k, away in enumerate(np.diag(widths)):
        slope[:, k] = (score(fit.theta + away) - score(fit.theta - away)) / (2 * widths[k])
    weights = np.linalg.solve(fit.information, -slope)
    information = -slope.T @ weights
    scores = None if fit.scores is None else fit.scores @ weights
    return replace(
        fit,
        kind="nested pseudo-likelihood",
        information=0.5 * (information + information.T),
        scores=scores,
        probes=None,
    )
