"""Nested pseudo-likelihood: refit, let the fitted policy generate the flow, repeat."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl._arguments import is_a, positive_int, real_between, strict_keywords
from mfgppl.equilibrium.fixed_point import solve_equilibrium
from mfgppl.equilibrium.response import generate_mean_field
from mfgppl.exceptions import ConvergenceWarning
from mfgppl.inference.compiled import density_of
from mfgppl.inference.curvature import analyse_curvature
from mfgppl.inference.estimate import PointEstimate
from mfgppl.inference.held import climb_held, whitening
from mfgppl.inference.point import Objective, mle
from mfgppl.inference.products import policy
from mfgppl.likelihood.model import TrajectoryModel

REFINED, FINE = 10, 1e-10  # Newton steps at most, and their size that is none, standard errors
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
        A row a step: `change`, the largest difference of a share between the flow and the one that
        the fitted policy generates; `llf`, nats; and the parameters.
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
        state = "converged" if self.converged else "NOT converged"
        flow = "moves with the parameters" if self.converged else "is taken as known"
        estimate = self.estimate
        lines = [
            f"nested pseudo-likelihood: {state} in {len(self.path)} steps ({self.reason}), "
            f"log likelihood {estimate.llf:.3f}, {estimate.nobs} decisions of "
            f"{estimate.n_trajectories} trajectories",
            estimate.summary().to_string(float_format=lambda v: f"{v:.4g}"),
            f"std_err: the flow {flow}; 90% Wald intervals",
        ]
        return "\n".join(lines)


@strict_keywords
def nested_pseudo_likelihood(
    model: TrajectoryModel,
    *,
    mean_field: Any = None,
    damping: float = 0.5,
    tolerance: float = 1e-8,
    max_steps: int = 50,
    init: Mapping[str, Any] | PointEstimate | None = None,
    random_seed: int = 0,
) -> NestedPseudoLikelihood:
    """Fit the reward and the flow that it generates to each other by iteration.

    The reward is fitted along a flow by maximum likelihood; the fitted policy generates the next
    flow, from the game's initial distribution and by its dynamics; and so on. A fixed point is an
    equilibrium of the fitted game, and its flow no longer depends on the choices seen but through
    the parameters.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the causal likelihood.
    mean_field : array, shape (T, S), or (T, S, A) in a joint game, optional
        The first flow; by default the model's. Where several equilibria fit, it decides.
    damping : float in (0, 1]
        Share of the generated flow in the next one. With 1, the iteration as published, flows take
        turns for ever where the crowd answers itself strongly.
    tolerance : float
        Largest change of a share that counts as none.
    max_steps : int
        Refits at most.
    init : mapping of str to value, or PointEstimate, optional
        Where the first fit starts, as in `mle`.
    random_seed : int
        Seed of the first fit, as in `mle`.

    Returns
    -------
    NestedPseudoLikelihood
        The estimate, the flow and the path to it.

    Warns
    -----
    ConvergenceWarning
        If no fixed point is reached; `reason` says how it ended.

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
    if model.likelihood_name != "causal":
        raise ValueError(
            "nested_pseudo_likelihood needs likelihood='causal', whose policy generates the flow."
        )
    real_between("damping", damping, above=0.0, upto=1.0)
    real_between("tolerance", tolerance, above=0.0)
    positive_int("max_steps", max_steps)
    flow = model.mean_field
    if mean_field is not None:
        flow = model.game.check_flow("mean_field", mean_field)
    here = model.with_panel(model.panel, mean_field=flow)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a step on the way; the last fit says its own
        fit: PointEstimate | None = mle(here, init=init, random_seed=random_seed, progressbar=False)
    steps: list[_Step] = []
    reason = ""
    while not reason and fit is not None:
        generated = generate_mean_field(here.game, torch.as_tensor(policy(here, fit).values))
        steps.append(_Step(here, fit, generated - here.mean_field))
        reason = _ending(steps, tolerance, max_steps)
        if not reason:
            here = model.with_panel(
                model.panel, mean_field=torch.lerp(here.mean_field, generated, damping)
            )
            fit = _refit(here, fit)
    last = steps[-1]
    estimate = mle(last.model, init=last.fit, svi_steps=0, progressbar=False)
    converged = last.change <= tolerance
    if converged:
        estimate = _with_moving_flow(last.model, estimate)
    else:
        reason = reason or "no maximum was found along the next flow"
        warnings.warn(f"no fixed point was reached: {reason}", ConvergenceWarning, stacklevel=3)
    rows = [{"change": s.change, "llf": _height(s.model, s.fit), **s.fit.params} for s in steps]
    path = pd.DataFrame(rows).rename_axis("step")
    return NestedPseudoLikelihood(
        estimate, last.model.mean_field, path, converged, last.change, reason
    )


class _Step(NamedTuple):
    """A fit along a flow, and the change to the flow that its policy generates."""

    model: TrajectoryModel
    fit: PointEstimate
    gap: Tensor

    @property
    def change(self) -> float:
        """The largest change of a share."""
        return float(self.gap.abs().max())


def _refit(model: TrajectoryModel, start: PointEstimate) -> PointEstimate | None:
    """Return the maximum near a fit along another flow, with the parameters alone up to date."""
    density = density_of(model)
    objective, nothing = Objective(density, 0.0, 0.0), np.zeros(density.n_dim, dtype=bool)
    found = climb_held(objective, start.theta, nothing)
    if not found.converged:
        return None
    theta = found.theta
    directions = whitening(-objective.second_derivatives(theta))
    for _ in range(REFINED):
        step = directions.T @ objective.value_and_gradient(theta)[1]
        theta = theta + directions @ step
        if np.abs(step).max() <= FINE:
            break
    params = pd.Series(density.constrained(theta[None])[0], start.params.index, name="estimate")
    return replace(start, params=params, theta=theta)


def _height(model: TrajectoryModel, fit: PointEstimate) -> float:
    """Return the log likelihood at a fit's parameters."""
    return float(density_of(model).evaluator(prior=0.0, jacobian=0.0)(fit.theta)[0])


def _ending(steps: list[_Step], tolerance: float, max_steps: int) -> str:
    """Return why the iteration ends here, "" if it goes on."""
    changes = [s.change for s in steps]
    if changes[-1] <= tolerance:
        return f"fixed point: the flow changes by {changes[-1]:.1e}"
    if len(steps) > PATIENCE and min(changes[-PATIENCE:]) > FALLS * changes[-PATIENCE - 1]:
        last, before = (s.gap.ravel() for s in steps[:-3:-1])
        alternates = float(last @ before) < -0.5 * float(last.norm() * before.norm())
        what = "cycle: flows take turns" if alternates else "runs away"
        return f"{what}, with changes of {changes[-1]:.1e}; lower `damping` or give a `mean_field`"
    if len(steps) == max_steps:
        return f"too few steps: the flow still changes by {changes[-1]:.1e}; raise `max_steps`"
    return ""


def _with_moving_flow(model: TrajectoryModel, fit: PointEstimate) -> PointEstimate:
    """Return a fit whose information and scores count that its flow moves with the parameters.

    The estimate solves `s(theta, mu(theta)) = 0` with mu the equilibrium's flow; with D the slope
    of that and I the information along the fixed flow, the estimate's covariance is
    `D^-1 I D^-T`.
    """
    curvature = analyse_curvature(fit.information, fit.probes)
    if len(curvature.flat) or curvature.saddle:
        return fit
    density = density_of(model)
    widths = STEP * np.sqrt(np.diag(curvature.covariance))
    slope = np.empty_like(fit.information)
    for k, width in enumerate(widths):
        away = np.zeros(len(widths))
        away[k] = width
        ends = [_score_at(model, density.constrained((fit.theta + d)[None])[0], fit.theta + d)
                for d in (away, -away)]  # fmt: skip
        slope[:, k] = (ends[0] - ends[1]) / (2 * width)
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


def _score_at(model: TrajectoryModel, values: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Return the gradient (K,) of the log likelihood along the parameters' own equilibrium."""
    parameters = density_of(model).program.by_site(values)
    world = solve_equilibrium(
        model.game, model.reward, parameters=parameters, mean_field=model.mean_field, throw=True
    )
    moved = density_of(model.with_panel(model.panel, mean_field=world.value.mean_field))
    return moved.evaluator(prior=0.0, jacobian=0.0)(theta)[1].copy()
