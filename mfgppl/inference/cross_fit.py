"""Cross-fitting: the flow of other agents than those whose choices are explained."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize

from mfgppl._arguments import is_a, one_of, positive_int, real_between, strict_keywords
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.exceptions import ConvergenceWarning, IdentificationWarning
from mfgppl.inference.compiled import AnyDensity, density_of
from mfgppl.inference.curvature import Curvature, analyse_curvature, describe_direction
from mfgppl.inference.estimate import PointEstimate
from mfgppl.inference.point import Objective, constrained_at, mle, scores_of, starting_values
from mfgppl.likelihood.model import TrajectoryModel


@strict_keywords
def cross_fit(
    model: TrajectoryModel,
    *,
    by: str = "agent",
    folds: int | None = 10,
    random_seed: int,
    init: Mapping[str, Any] | PointEstimate | None = None,
    tolerance: float = 1e-8,
    max_steps: int = 100,
) -> PointEstimate:
    """Maximise the likelihood of each part of the panel along the flow of the rest, in one go.

    `sum_k log L(part k | flow of the rest)` over one vector of parameters. No agent's choices then
    explain themselves through the flow (reflection). What stays is the sampling error of the rest's
    flow: noise in a regressor, which pulls coupling terms towards zero, less so the more agents
    there are. The more folds, the larger the rest: halves pay for the cure with twice the noise.

    Parameters
    ----------
    model : TrajectoryModel
        The model; its own flow is not used.
    by : str
        What stays together: "agent", or one of the panel's `groups`. Groups whose members share
        shocks leave their reflection in the flow where they are split.
    folds : int, optional
        Number of parts, drawn at random; with None each agent (group) is a part.
    random_seed : int
        Seed of the parts.
    init : mapping of str to value, or PointEstimate, optional
        Where to start; by default at the maximum likelihood estimate.
    tolerance : float
        Largest entry of the gradient, per nat of the log likelihood, that counts as zero.
    max_steps : int
        Newton steps at most.

    Returns
    -------
    PointEstimate
        Of kind "cross-fit", its `llf` the sum above. Standard errors of the observed information
        hold where agents are independent and the flow's error is small beside theirs; "cluster"
        allows for dependence within agents too. Neither counts the error of the flow.

    Warns
    -----
    ConvergenceWarning
        If the gradient stays above the tolerance, or the point is no maximum.
    IdentificationWarning
        If some combination of parameters does not change the likelihood.

    Raises
    ------
    ValueError
        If there are more folds than agents (groups), or nobody of the rest is seen at some time.
    """
    is_a("model", model, TrajectoryModel)
    panel = with_rows(model.panel, "cross_fit")
    parts = _parts(panel, by, folds, positive_int("random_seed", random_seed, least=0))
    real_between("tolerance", tolerance, above=0.0)
    positive_int("max_steps", max_steps)
    densities = [density_of(_along_the_rest(model, panel, part)) for part in parts]
    total = SummedObjective(densities)
    theta, n_steps = _climb(total, _start(model, init), tolerance, max_steps)
    value, gradient = total.value_and_gradient(theta)
    scores = np.zeros((panel.n_trajectories, len(theta)))
    for density, part in zip(densities, parts, strict=True):
        scores[part] = scores_of(density, theta)
    residual, information = float(np.abs(gradient).max()), -total.second_derivatives(theta)
    params, slope = constrained_at(densities[0], theta)
    curvature = analyse_curvature(information)
    small, reason = residual <= tolerance * max(1.0, abs(value)), f"largest gradient {residual:.1e}"
    if curvature.saddle:
        reason += ", but the point is not a maximum"
    return PointEstimate(
        kind="cross-fit",
        params=params,
        llf=value,
        nobs=panel.n_decisions,
        converged=small and not curvature.saddle,
        residual=residual,
        n_steps=n_steps,
        reason=reason,
        messages=_warn(params, slope, curvature, small=small, reason=reason),
        information=information,
        jacobian=slope,
        scores=scores,
        probes=None,
        groups={"agent": panel.agents, **panel.groups},
        theta=theta,
        n_trajectories=panel.n_trajectories,
        attained=(value,),
    )


class SummedObjective:
    """The sum of the log likelihoods of several models of one program, with two derivatives.

    Parameters
    ----------
    densities : sequence of Density
        Of models that share their parameters.
    """

    def __init__(self, densities: Sequence[AnyDensity]) -> None:
        self.parts = [Objective(density, 0.0, 0.0) for density in densities]

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the value and its gradient (K,) at unconstrained parameters."""
        found = [part.value_and_gradient(theta) for part in self.parts]
        return sum(value for value, _ in found), np.sum([slope for _, slope in found], axis=0)

    def second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Return the second derivatives (K, K)."""
        return np.asarray(np.sum([p.second_derivatives(theta) for p in self.parts], axis=0))


def flow_of(model: TrajectoryModel, panel: Trajectories) -> np.ndarray:
    """Return the empirical flow of a panel as a model takes it, (T, S), or (T, S, A) if joint."""
    return panel.occupancy() if model.game.joint else panel.mean_field()


def _parts(panel: Trajectories, by: str, folds: int | None, seed: int) -> list[np.ndarray]:
    """Return the trajectories of each part."""
    one_of("by", by, ["agent", *panel.groups])
    codes, units = pd.factorize(panel.agents if by == "agent" else panel.groups[by])
    n_units = len(units)
    if n_units < 2:
        raise ValueError(f"cross_fit needs two parts at least; `by` {by!r} has one value.")
    n_folds = n_units if folds is None else positive_int("folds", folds, least=2)
    if n_folds > n_units:
        raise ValueError(
            f"`folds` must be at most {n_units}, how many there are by {by}; got {n_folds}."
        )
    fold = np.empty(n_units, dtype=int)
    fold[np.random.default_rng(seed).permutation(n_units)] = np.arange(n_units) % n_folds
    return [np.flatnonzero(fold[codes] == k) for k in range(n_folds)]


def _along_the_rest(
    model: TrajectoryModel, panel: Trajectories, part: np.ndarray
) -> TrajectoryModel:
    rest = panel.subset(np.setdiff1d(np.arange(panel.n_trajectories), part))
    try:
        flow = flow_of(model, rest)
    except ValueError as error:
        raise ValueError(f"cross_fit cannot take the flow of the rest of a part: {error}") from None
    return model.with_panel(panel.subset(part), mean_field=flow)


def _start(model: TrajectoryModel, init: Mapping[str, Any] | PointEstimate | None) -> np.ndarray:
    """Return unconstrained parameters (K,) to start from."""
    if init is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the sum does not tell, it says itself
            return mle(model, progressbar=False).theta
    density = density_of(model)
    return density.program.free(starting_values(density, init, 0), argument="init")


def _climb(
    total: SummedObjective, start: np.ndarray, tolerance: float, max_steps: int
) -> tuple[np.ndarray, int]:
    """Climb by L-BFGS, then by Newton steps in a trust region; return the point and the steps."""

    def minus(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = total.value_and_gradient(theta)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return np.inf, np.zeros_like(theta)
        return -value, -gradient

    first = scipy.optimize.minimize(minus, start, jac=True, method="L-BFGS-B")
    largest = 0.01 * tolerance * max(1.0, abs(float(first.fun)))
    last = scipy.optimize.minimize(
        minus,
        first.x,
        jac=True,
        hess=lambda theta: -total.second_derivatives(theta),
        method="trust-exact",
        options={"gtol": largest, "maxiter": max_steps},
    )
    return last.x, int(first.nit + last.nit)


def _warn(
    params: pd.Series, slope: np.ndarray, curvature: Curvature, *, small: bool, reason: str
) -> tuple[str, ...]:
    """Warn of what makes the numbers unusable; return the messages for the record."""
    messages = []
    if not small or curvature.saddle:
        messages.append(f"the fit did not converge: {reason}")
        warnings.warn(messages[-1], ConvergenceWarning, stacklevel=4)
    for direction in curvature.flat:
        messages.append(
            f"the data do not tell {describe_direction(slope @ direction, list(params.index))}; "
            "its parameters have no standard error"
        )
        warnings.warn(messages[-1], IdentificationWarning, stacklevel=4)
    return tuple(messages)
