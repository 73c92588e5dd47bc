"""The group jackknife: a plug-in fit corrected for what counting the crowd costs."""

import functools
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from mfgppl._arguments import Seed, is_a, seed_of, strict_keywords
from mfgppl._replication import or_reason
from mfgppl.data.trajectories import with_rows
from mfgppl.density.curvature import unit_curvature
from mfgppl.density.of_model import density_of
from mfgppl.density.sizes import constrained_at
from mfgppl.estimation.counted_flow import CountedFlow
from mfgppl.estimation.flow_cost import PARTS, correction, record_of_bias
from mfgppl.estimation.leave_out import LeaveOut
from mfgppl.estimation.parts import random_parts
from mfgppl.estimation.point import mle
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.estimation.starts import Start
from mfgppl.exceptions import ConvergenceError
from mfgppl.likelihood.model import TrajectoryModel


@strict_keywords
def jackknife(
    model: TrajectoryModel,
    *,
    parts: int | None = PARTS,
    by: str | None = None,
    random_seed: Seed = 0,
    init: Start | None = None,
) -> PointEstimate:
    """Correct the plug-in fit for the bias of its counted flow, with errors that count it too.

    The agents are put in G parts at random, or by cluster. With theta the estimate of all and
    theta_g that without part g, each along its own flow, the corrected estimate is

        theta_J = G theta - (G - 1) mean_g theta_g,

    free of the bias of order one over the number of agents. Where the flow moves by little but
    chance the bias is not of that order and stays; the messages say so. The variance is the
    jackknife's of theta_J itself, from the fits without two parts each: the simple formula, which
    takes theta_J to vary as theta does, gives too little wherever the correction is large.

    Parameters
    ----------
    model : TrajectoryModel
        The model. Where its flow is given, each fit is along that.
    parts : int, optional
        Number of parts at most; with None each agent (cluster) is one. More than there are
        parameters.
    by : str, optional
        One of the panel's `groups`, whose members share shocks and stay together; by default
        agents. With at most `parts` clusters each is a part.
    random_seed : int or SeedSequence
        Seed of the parts.
    init : mapping of str to value, Series, PointEstimate or DataTree, optional
        Where the fit of all starts, as in `mle`.

    Returns
    -------
    PointEstimate
        Of kind "jackknife"; its `llf` is below that of the plug-in fit, the maximum. Intervals and
        p values are of t with G - 1 degrees; `counted_flow` has the correction by parameter.

    Raises
    ------
    ValueError
        If the flow is solved for, parts are not more than parameters, or the panel is counted.
    ConvergenceError
        If the fit of all, or one without a part, has no maximum, or a part alone determines a
        parameter.

    References
    ----------
    .. [1] Hahn and Newey (2004), *Jackknife and analytical bias reduction for nonlinear panel
       models*, Econometrica 72.
    .. [2] Dhaene and Jochmans (2015), *Split-panel jackknife estimation of fixed-effect models*,
       Review of Economic Studies 82.
    """
    is_a("model", model, TrajectoryModel)
    if model.coupled:
        raise ValueError(
            "jackknife corrects a flow that is counted; with mean_field='equilibrium' it is solved "
            "for, and mle counts its error already."
        )
    panel = with_rows(model.panel, "jackknife")
    stream = seed_of(random_seed)
    cluster = "agent" if by is None else by
    groups = random_parts(panel, cluster, parts, stream, what="jackknife", argument="parts")
    fit = mle(model, init=init, svi_steps=0, progressbar=False, flow_bias=False)
    n, known = len(groups), len(fit.theta) - len(fit.curvature.flat)
    if n <= known:
        raise ValueError(
            f"jackknife needs more parts than parameters; there are {n} parts and {known} "
            "parameters. Raise `parts`, or cluster by something finer."
        )
    if not fit.converged:
        raise ConvergenceError(f"the fit of all did not converge: {fit.reason}")
    return _corrected(model, fit, LeaveOut(model, fit, groups), cluster)


def _corrected(
    model: TrajectoryModel, fit: PointEstimate, refit: LeaveOut, by: str
) -> PointEstimate:
    """Return the corrected estimate from the fits without one part and without two."""
    n = len(refit.parts)
    found = [or_reason(functools.partial(refit, part)) for part in range(n)]
    failures = [reason for reason in found if isinstance(reason, str)]
    if failures:
        raise ConvergenceError(
            f"{len(failures)} of {n} fits without a part failed: {failures[0]}. Raise `parts`, so "
            "that less is left out at a time."
        )
    without = np.array(found)
    lost = np.isnan(without).any(0)
    if lost.any():
        raise ConvergenceError(
            f"{int(np.isnan(without).any(1).sum())} of {n} parts alone determine "
            f"{', '.join(map(repr, fit.params.index[lost]))}, as where they hold all agents whom "
            "it concerns: there is no fit without them. Choose other `parts`, another "
            "`random_seed`, or drop the term."
        )
    values = fit.params.to_numpy() + correction(fit.params.to_numpy(), without)
    corrections = _corrections(refit, without)
    centred = corrections - corrections.mean(0)
    covariance = (n - 1) / n * centred.T @ centred
    params = pd.Series(values, fit.params.index, name="estimate")
    theta, messages = _unconstrained(model, params)
    cost = record_of_bias(model, fit, refit, without, by)
    slope = fit.jacobian if np.isnan(theta).any() else constrained_at(density_of(model), theta)[1]
    return replace(
        fit,
        kind="jackknife",
        params=params,
        llf=density_of(model).evaluator(prior=0.0, jacobian=0.0)(theta)[0],
        reason=f"{n} parts",
        messages=messages + _doubts(cost),
        information=_information(covariance, slope, fit),
        jacobian=slope,
        scores=None,
        probes=None,
        theta=theta,
        counted_flow=cost,
        dof=float(n - 1),
    )


def _corrections(refit: LeaveOut, without: np.ndarray) -> np.ndarray:
    """Return the corrected estimate of the panel without each part (G, P).

    From the fits without two parts; a part takes part in as many pairs as have a fit.
    """
    n = len(without)
    pairs = np.full((n, n, without.shape[1]), np.nan)
    for g, h in combinations(range(n), 2):
        found = or_reason(functools.partial(refit, g, h))
        if not isinstance(found, str) and np.isfinite(found).all():
            pairs[g, h] = pairs[h, g] = found
    known = np.isfinite(pairs[..., :1]).sum(1)
    if not known.all():
        raise ConvergenceError(
            "no fit without two parts succeeded for some part, so that the estimate's variance is "
            "not known. Raise `parts`, so that less is left out at a time."
        )
    rest = np.nansum(pairs, axis=1) / known
    return without + (n - 2) * (without - rest)


def _doubts(cost: CountedFlow) -> tuple[str, ...]:
    """Say of which parameters the correction does not see the bias, or sees a part of it."""
    if cost.saturated:
        return cost.messages()
    if not cost.large:
        return ()
    each = ", ".join(
        f"{name} off by {cost.table['bias_se'].abs()[name]:.1f} standard errors"
        for name in cost.large
    )
    return (
        f"the counted flow puts {each}, of which the jackknife removes a part: a nominal 90% "
        "interval may hold the truth less often. See mfgppl.flows.efficient_pseudo_likelihood and "
        "mean_field='equilibrium'.",
    )


def _unconstrained(model: TrajectoryModel, params: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return unconstrained parameters (K,), and a message where these are out of support."""
    program = density_of(model).program
    try:
        return program.free(program.by_site(params.to_numpy(copy=True)), argument="estimate"), ()
    except ValueError as error:
        said = (
            str(error)
            .replace("`estimate` gives", "the correction leads", 1)
            .replace(" the value ", " to ", 1)
        )
        nothing = np.full(program.n_dim, np.nan)
        return nothing, (f"{said} The bias is too large for this remedy: see docs/flows.",)


def _information(covariance: np.ndarray, slope: np.ndarray, fit: PointEstimate) -> np.ndarray:
    """Return what information over unconstrained parameters gives a covariance (P, P).

    None where the likelihood of all has none.
    """
    inverse = np.linalg.pinv(slope)
    directions, bends = unit_curvature(fit.information, fit.sizes)
    back = np.linalg.inv(directions)
    standard = (back @ inverse @ covariance @ inverse.T @ back.T)[np.ix_(bends, bends)]
    duals = back.T[:, bends]
    return np.asarray(duals @ np.linalg.pinv(standard, hermitian=True) @ duals.T)
