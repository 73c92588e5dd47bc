"""Efficient pseudo-likelihood: refit along the flow that one Newton step gives, repeat."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl._arguments import Seed, is_a, positive_int, real_between, seed_of, strict_keywords
from mfgppl._keep import keep
from mfgppl.density.at_equilibrium import CoupledDensity, compiled_parameters
from mfgppl.density.climb import Objective
from mfgppl.density.compiled_program import compile_program
from mfgppl.density.curvature import unit_curvature
from mfgppl.density.of_model import density_of
from mfgppl.density.sizes import climbing_units, constrained_at
from mfgppl.density.tangent import AlongTangent, Climbed
from mfgppl.equilibrium.flat_flows import Array, as_shares, flat_shape
from mfgppl.equilibrium.iterations import Budget
from mfgppl.estimation.newton import AIM, Climb, climb
from mfgppl.estimation.point import mle, scores_of
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.estimation.starts import Start, starting_values
from mfgppl.exceptions import ConvergenceError, ConvergenceWarning
from mfgppl.flows.pseudo_likelihood import printed_sequence
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.requirements import needs_one_kind

LARGEST_CHANGE = 1e-2  # of a share: what moves by more is no fixed point
MAXIMUM = 1e-6  # distance from a maximum, in standard errors, that counts as none
MOST_NEWTON = 100  # Newton steps of one refit
NEAR, SLOWEST, MOST_STEPS = 0.3, 0.3, 12  # distance, what a step leaves of it, steps, in `_near`
SHORTEST = 2.0**-10  # share of a step below which it gives up
FREE = 10  # steps that may lead anywhere, before each must help
NEARER, SLACK = 0.9, 1e-3  # of a residual, and nats less, that do not count as worse
WHOLE = 3  # steps before any is damped: the first are far from the fixed point
TO_AND_FRO, LEAST_SHARE = -0.5, 0.1  # rate of steps below which they are damped, and to what
SETTLING = Budget(1e-10, 300)  # of a flow at fixed parameters
PATIENCE, FALLS = 15, 0.9  # steps in which the change must fall below this share of the least
FIXED = "fixed point"
KIND = "efficient pseudo-likelihood"
COLUMNS = ["change", "residual", "llf", "shortened"]  # of a path, before the parameters


@dataclass(frozen=True, eq=False, repr=False)
class EfficientPseudoLikelihood:
    """Where refits along flows that answer the parameters lead.

    Attributes
    ----------
    estimate : PointEstimate
        At a fixed point, the maximum of the coupled likelihood there, judged as by `mle` of a
        coupled model, whose information, scores and standard errors it has. Before, the parameters
        of the last step, with standard errors that take its flow as known.
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
        At a fixed point, the equilibrium at the estimate; before, the flow of the last step, which
        may have shares below 0.
    path : DataFrame
        One row per step: `change`, the largest change of a share by the whole step; `residual`, the
        largest difference of a share between the flow reached and the one that its response
        generates; `llf`, nats; `shortened`, whether less than the whole step was gone, or the flow
        alone moved; and the parameters.
    converged : bool
        Whether the last change is within tolerance, so that flow and policy are an
        entropy-regularised equilibrium of the fitted game, and the coupled likelihood has its
        maximum there.
    residual : float
        Largest difference of a share between `mean_field` and the flow that its response generates.
    reason : str
        How it ended: a fixed point, a cycle, a likelihood that is not defined, or too few steps;
        and how many steps were shortened.
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
        lines = printed_sequence(KIND, self, moves=self.reason.startswith(FIXED))
        return "\n".join([*lines, *(f"warning: {m}" for m in self.estimate.messages)])


@strict_keywords
def efficient_pseudo_likelihood(
    model: TrajectoryModel,
    *,
    mean_field: Any = None,
    tolerance: float = 1e-8,
    max_steps: int = 50,
    init: Start | None = None,
    random_seed: Seed = 0,
) -> EfficientPseudoLikelihood:
    """Reach the coupled maximum likelihood estimate from the plug-in fit, without equilibria.

    With F the flow that the soft best response to a flow generates, each step maximises the
    likelihood along `U(theta) = mu + (I - F_mu)^-1 (F(theta, mu) - mu)`, which is one Newton step
    towards the equilibrium at each value of the parameters; the next flow is U at the maximum. Each
    step's estimate is consistent and as efficient as maximum likelihood, and a fixed point is the
    maximum of the coupled likelihood, also where `nested_pseudo_likelihood` cycles.

    A step is shortened where steps go to and fro, or, late in the sequence, where its end is both
    farther from an equilibrium and less likely than a point met before; and where the likelihood is
    not defined along U, which may leave the simplex, the flow settles at the last parameters.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the causal likelihood.
    mean_field : array, shape (T, S), or (T, S, A) in a joint game, optional
        The first flow; by default the model's. Where several equilibria fit, it decides.
    tolerance : float, at most 0.01
        Largest change of a share that counts as none.
    max_steps : int
        Steps at most. A few are an estimator of their own, before they converge.
    init : mapping of str to value, Series, PointEstimate or DataTree, optional
        Where the plug-in fit along the first flow starts, as in `mle`.
    random_seed : int or SeedSequence
        Seed of that start, as in `mle`.

    Returns
    -------
    EfficientPseudoLikelihood
        The estimate, the flow and the path to it.

    Warns
    -----
    ConvergenceWarning
        If no fixed point is reached; `reason` says how it ended. And what `mle` of a coupled model
        warns of.

    Raises
    ------
    ValueError
        If the likelihood is not causal, the flow does not fit the game, or the crowd moves the
        dynamics through sparse matrices.

    References
    ----------
    .. [1] Dearing and Blevins (2025), *Efficient and convergent sequential pseudo-likelihood
       estimation of dynamic discrete games*, Review of Economic Studies 92, arXiv 1912.10488.
    """
    is_a("model", model, TrajectoryModel)
    if model.likelihood != "causal":
        raise ValueError(
            "efficient_pseudo_likelihood needs likelihood='causal', whose policy generates the "
            "flow."
        )
    needs_one_kind(model, "efficient_pseudo_likelihood")
    real_between("tolerance", tolerance, above=0.0, upto=LARGEST_CHANGE)
    positive_int("max_steps", max_steps)
    seed = seed_of(random_seed)
    here = model.uncoupled() if model.coupled else model
    if mean_field is not None:
        here = model.along(model.game.check_flow("mean_field", mean_field))
    steps = _Steps(here, init, seed, tolerance)
    reason = ""
    while not reason:
        reason = steps.go() or _ending(steps.path, tolerance, max_steps)
    fixed = reason.startswith(FIXED)
    n_short = sum(row["shortened"] for row in steps.path)
    if n_short:
        reason += f"; {n_short} of {len(steps.path)} steps were shortened"
    path = pd.DataFrame(steps.path, columns=[*COLUMNS, *steps.names])
    path.index = pd.RangeIndex(1, len(path) + 1, name="step")
    if not fixed:
        message = f"no fixed point was reached: {reason}"
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
        flow = torch.from_numpy(steps.flow.copy()).reshape(model.game.flow_shape)
        estimate = steps.with_known_flow(reason, message)
        return EfficientPseudoLikelihood(estimate, flow, path, False, steps.residual, reason)
    estimate, flow, residual = steps.at_the_maximum()
    if not estimate.converged:
        reason += f"; {estimate.reason}"
    return EfficientPseudoLikelihood(estimate, flow, path, estimate.converged, residual, reason)


def _ending(path: list[dict[str, Any]], tolerance: float, max_steps: int) -> str:
    """Return why the sequence ends here, "" if it goes on."""
    changes = [row["change"] for row in path]
    change = changes[-1]
    if change <= tolerance and not path[-1]["shortened"]:
        return f"{FIXED}: the flow changes by {change:.1e}"
    if len(path) > PATIENCE and min(changes[-PATIENCE:]) > FALLS * min(changes[:-PATIENCE]):
        return (
            f"cycle: steps still change the flow by {change:.1e}, no less than {PATIENCE} steps "
            "before; give a `mean_field`, or use mle with mean_field='equilibrium'"
        )
    if len(path) == max_steps:
        return f"too few steps: the flow still changes by {change:.1e}; raise `max_steps`"
    return ""


def _near(height: AlongTangent, theta: Array, information: Array) -> Climb | None:
    """Return the maximum near a point by steps with the curvature known; None where that is slow.

    Each step must leave a third of the distance at most, in standard errors.
    """
    if not np.isfinite(information).all():
        return None
    directions, bends = unit_curvature(information, height.sizes(theta))
    last = NEAR / SLOWEST
    for n_steps in range(MOST_STEPS):
        value, gradient = height.value_and_gradient(theta)
        rise = directions.T @ gradient
        residual = float(np.abs(rise).max())
        if not (np.isfinite(value) and residual < SLOWEST * last):
            return None
        if residual <= AIM * MAXIMUM:
            return Climb(theta, value, n_steps, residual, information)
        theta, last = theta + directions @ np.where(bends, rise, 0.0), residual
    return None


class _Gone(NamedTuple):
    """A step that was gone: the whole of it (K,), and the share that was gone."""

    whole: Array
    share: float


class _Met(NamedTuple):
    """A point that the steps have met.

    Attributes
    ----------
    residual : float
        How far its flow is from the one that its response generates.
    height : float
        The log likelihood there, its flow moved by one more linear response.
    """

    residual: float
    height: float

    def helps(self, met: list["_Met"]) -> bool:
        """Return whether it is nearer to an equilibrium, or likelier, than each point met."""
        if not np.isfinite(self.height):
            return False
        return all(
            self.residual <= NEARER * other.residual or self.height >= other.height - SLACK
            for other in met
        )


class _Steps:
    """The sequence of parameters and flows, from the plug-in fit on.

    Parameters
    ----------
    here : TrajectoryModel
        The model along the first flow.
    init : mapping, Series, PointEstimate or DataTree, optional
        Where the plug-in fit starts.
    seed : int
        Seed of that start.
    tolerance : float
        Change of a share that counts as none.

    Attributes
    ----------
    theta : ndarray, shape (K,)
        Unconstrained parameters.
    flow : ndarray, shape (T, F)
        The flow.
    residual : float
        How far it is from the one that its response generates.
    path : list of dict
        One row per step.
    """

    def __init__(
        self, here: TrajectoryModel, init: Start | None, seed: int, tolerance: float
    ) -> None:
        self.here, self.coupled, self.tolerance = here, here.along("equilibrium"), tolerance
        density = density_of(here)
        objective = Objective(density, 0.0, 0.0)
        theta = density.program.free(starting_values(density, init, seed))
        slope = constrained_at(density, theta)[1]
        effects = objective.effects(theta)
        self._first_units = climbing_units(density, effects, slope, prior=0.0)
        fit = climb(objective, theta, self._first_units, tolerance=MAXIMUM, max_steps=MOST_NEWTON)
        self.theta, self.flow = fit.theta, here.mean_field.numpy().reshape(flat_shape(here.game))
        self.names = density.program.entry_names()
        self.path: list[dict[str, Any]] = []
        program, compiled = compiled_parameters(self.coupled)
        if program.has_factors:  # which may be -inf where the likelihood is at its highest
            compiled = compile_program(program, coupled=True, prior=False)
        self._world = Climbed(self.coupled, program, compiled, effects, fit.theta)
        self._information, self._units = fit.information, self._scaled(fit)
        self._tangent = self._tangent_at(self.theta, self.flow)
        self._met: list[_Met] = []
        self._gone: _Gone | None = None
        self.residual = np.inf if self._tangent is None else self._tangent.residual

    def go(self) -> str:
        """Go a step; return why none can be gone, else ""."""
        if self._tangent is None:
            return "reward or dynamics are not defined along the first flow at the plug-in fit"
        try:
            height = self._tangent.value_and_gradient(self.theta)[0]
            gone = np.isfinite(height) and self._climb(self._tangent)
        except ConvergenceError:  # the linear response is singular, or its solution not reached
            gone = False
        return "" if gone else self._settle(self._tangent)

    def _climb(self, tangent: AlongTangent) -> bool:
        """Go towards the maximum along a tangent, as far as that helps; return whether it does."""
        found = _near(tangent, self.theta, self._information) or climb(
            tangent, self.theta, self._units, tolerance=MAXIMUM, max_steps=MOST_NEWTON
        )
        whole = found.theta - self.theta
        change = float(np.abs(tangent.reached(found.theta) - self.flow).max())
        last = change <= self.tolerance
        share = 1.0 if last else self._share_of(whole)
        while share >= SHORTEST:
            theta = self.theta + share * whole
            value = found.value if share == 1.0 else tangent.value_and_gradient(theta)[0]
            following = self._tangent_at(theta, tangent.reached(theta))
            if following is not None and np.isfinite(value):
                here = _Met(following.residual, tangent.answered(following))
                if last or here.helps(self._met[FREE:]):
                    self._information, self._units = found.information, self._scaled(found)
                    self._gone = _Gone(whole, share)
                    self._take(theta, following, value, change, here)
                    return True
            share /= 2
        return False

    def _share_of(self, whole: Array) -> float:
        """Return the share of a step to go: less than all of it if steps go to and fro.

        With `whole = rate * whole before` of whole steps, `1 / (1 - rate)` of one ends at the fixed
        point.
        """
        if self._gone is None or len(self.path) < WHOLE:
            return 1.0
        now, before = whole / self._units, self._gone.whole / self._units
        left = float(now @ before) / max(float(before @ before), 1e-300)
        rate = 1 - (1 - left) / self._gone.share
        return 1.0 if rate > TO_AND_FRO else max(1 / (1 - rate), LEAST_SHARE)

    def _settle(self, tangent: AlongTangent) -> str:
        """Let the flow settle at the parameters; return why it does not, else ""."""
        following = self._tangent_at(self.theta, tangent.settled(SETTLING))
        if following is None or not following.residual < SLOWEST * self.residual:
            return "no step raises the likelihood or brings the flow nearer to an equilibrium"
        value = following.height(following.flow)
        if not np.isfinite(value):
            return "the likelihood is not finite at the equilibrium of the last parameters"
        change = float(np.abs(following.flow - self.flow).max())
        self._gone = None
        self._take(self.theta, following, value, change, _Met(following.residual, value))
        return ""

    def _take(
        self, theta: Array, tangent: AlongTangent, value: float, change: float, here: "_Met"
    ) -> None:
        """Move to where a step has led."""
        shortened = self._gone is None or self._gone.share < 1.0
        self.theta, self.flow, self._tangent = theta, tangent.flow, tangent
        self.residual = tangent.residual
        self._met.append(here)
        values = dict(zip(self.names, self._world.values(theta), strict=True))
        row = [change, self.residual, value, shortened]
        self.path.append(dict(zip(COLUMNS, row, strict=True)) | values)

    def _scaled(self, found: Climb) -> Array:
        """Return steps of order one by the curvature at a maximum, where there is one."""
        bend = np.diag(found.information)
        known = np.isfinite(bend) & (bend > 0)
        return np.where(known, 1 / np.sqrt(np.where(known, bend, 1.0)), self._first_units)

    def _tangent_at(self, theta: Array, flow: Array) -> AlongTangent | None:
        """Return the likelihood along the tangent at a point; None where none is defined."""
        try:
            found = AlongTangent(self._world, theta, flow, self._units)
        except ValueError:
            return None
        return found if np.isfinite(found.residual) else None

    def with_known_flow(self, reason: str, message: str) -> PointEstimate:
        """Return the last step's parameters with what the likelihood along its flow says."""
        shares = torch.from_numpy(as_shares(self.flow)).reshape(self.here.game.flow_shape)
        here = self.here.along(shares)
        density = density_of(here)
        params, slope = constrained_at(density, self.theta)
        height = density.evaluator(prior=0.0, jacobian=0.0)(self.theta)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the maximum along that flow, which is not shown
            fit = mle(here, init=params, svi_steps=0, progressbar=False)
        return replace(
            fit,
            kind=KIND,
            params=params,
            theta=self.theta,
            llf=self.path[-1]["llf"] if self.path else height,
            converged=False,
            reason=reason,
            messages=(message,),
            information=-density.second_derivatives(self.theta, prior=0.0, jacobian=0.0),
            jacobian=slope,
            scores=scores_of(density, self.theta),
            probes=None,
        )

    def at_the_maximum(self) -> tuple[PointEstimate, Tensor, float]:
        """Return the coupled likelihood's maximum nearby, its equilibrium, and the residual."""
        coupled, law, game = self.coupled, self.coupled.law, self.coupled.game
        assert isinstance(law, CoupledLikelihood)
        flow = torch.from_numpy(self.flow.copy()).reshape(game.flow_shape)
        density = keep(
            coupled,
            "density",
            lambda: CoupledDensity(coupled, law, self.theta, self._first_units, flow=flow),
        )
        params = pd.Series(density.constrained(self.theta[None])[0], self.names)
        fit = mle(coupled, init=params, svi_steps=0, progressbar=False)
        (image,) = density.images(fit.params.to_numpy(copy=True)[None])
        found = torch.from_numpy(image.flow.copy()).reshape(game.flow_shape)
        return replace(fit, kind=KIND), found, image.residual
