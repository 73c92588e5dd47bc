"""Cross-fitting: the flow of other agents than those whose choices are explained."""

import warnings
from collections.abc import Sequence

import numpy as np

from mfgppl._arguments import Seed, is_a, positive_int, seed_of, strict_keywords
from mfgppl._progress import progress
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.density.climb import Objective
from mfgppl.density.of_model import density_of
from mfgppl.density.protocol import LogDensity
from mfgppl.density.sizes import Effects, climbing_units, constrained_at
from mfgppl.estimation.judgement import judged, warn_of, warned
from mfgppl.estimation.newton import climb
from mfgppl.estimation.parts import clusters_of, random_parts
from mfgppl.estimation.point import check_tolerance, mle, scores_of
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.estimation.starts import Start, starting_values
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.panels import flow_of


@strict_keywords
def cross_fit(
    model: TrajectoryModel,
    *,
    by: str = "agent",
    folds: int | None = 10,
    random_seed: Seed = 0,
    init: Start | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 100,
    progressbar: bool = True,
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
        Number of parts at most, drawn at random; with None, or where there are fewer agents
        (groups), each is a part.
    random_seed : int or SeedSequence
        Seed of the parts.
    init : mapping of str to value, Series, PointEstimate or DataTree, optional
        Where to start, as in `mle`; by default at the maximum likelihood estimate.
    tolerance : float, at most 0.1
        As in `mle`.
    max_steps : int
        Newton steps at most.
    progressbar : bool
        Whether to show on a terminal how many parts are ready to be fitted.

    Returns
    -------
    PointEstimate
        Of kind "cross-fit", its `llf` the sum above. Standard errors of the observed information
        hold where agents are independent and the flow's error is small beside theirs; "cluster"
        allows for dependence within agents too. Neither counts the error of the flow.

    Warns
    -----
    ConvergenceWarning
        If the maximum stays out of reach, the point is no maximum, or there is none.
    IdentificationWarning
        If some combination of parameters does not change the likelihood.

    Raises
    ------
    ValueError
        If there is one agent (group) only, or nobody of the rest is seen at some time.
    """
    is_a("model", model, TrajectoryModel)
    panel = with_rows(model.panel, "cross_fit")
    stream = seed_of(random_seed)
    parts = random_parts(panel, by, folds, stream, what="cross_fit", argument="folds")
    check_tolerance(tolerance)
    positive_int("max_steps", max_steps)
    shown = progress(parts, "cross-fit", progressbar, total=len(parts))
    densities = [density_of(_along_the_rest(model, panel, part)) for part in shown]
    total = SummedObjective(densities)
    start = _start(model, init, progressbar)
    slope = constrained_at(densities[0], start)[1]
    units = climbing_units(densities[0], total.effects(start), slope, prior=0.0)
    best = climb(total, start, units, tolerance=tolerance, max_steps=max_steps)
    theta = best.theta
    scores = np.zeros((panel.n_trajectories, len(theta)))
    for density, part in zip(densities, parts, strict=True):
        scores[part] = scores_of(density, theta)
    params, slope = constrained_at(densities[0], theta)
    found = judged(
        total, best, total.effects(theta), slope, None, list(params.index),
        tolerance=tolerance, with_prior=False,
    )  # fmt: skip
    return PointEstimate(
        kind="cross-fit",
        params=params,
        llf=best.value,
        nobs=panel.n_decisions,
        converged=found.converged,
        residual=best.residual,
        n_steps=best.n_steps,
        reason=found.reason,
        messages=warned(model.messages, stacklevel=4)
        + warn_of(found, params, slope, hierarchical=False, stacklevel=4),
        information=found.information,
        jacobian=slope,
        scores=scores,
        probes=None,
        groups=clusters_of(panel),
        theta=theta,
        n_trajectories=panel.n_trajectories,
        attained=(best.value,),
        sizes=found.sizes,
        edge=found.edge,
        separated=found.separated,
    )


class SummedObjective:
    """The sum of the log likelihoods of several models of one program, with two derivatives.

    Parameters
    ----------
    densities : sequence of Density
        Of models that share their parameters.
    """

    def __init__(self, densities: Sequence[LogDensity]) -> None:
        self.parts = [Objective(density, 0.0, 0.0) for density in densities]

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the value and its gradient (K,) at unconstrained parameters."""
        found = [part.value_and_gradient(theta) for part in self.parts]
        return sum(value for value, _ in found), np.sum([slope for _, slope in found], axis=0)

    def second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Return the second derivatives (K, K)."""
        return np.asarray(np.sum([p.second_derivatives(theta) for p in self.parts], axis=0))

    def effects(self, theta: np.ndarray) -> Effects:
        """Return what parameters do to rewards in all models together."""
        found = [part.effects(theta) for part in self.parts]
        entries = np.max([one.entries for one in found], axis=0)
        return Effects(entries, sum(one.n_decisions for one in found), found[0].n_steps)

    def sizes(self, theta: np.ndarray) -> np.ndarray:
        """Return the root of the largest information that each parameter can have (K,)."""
        return self.effects(theta).sizes(constrained_at(self.parts[0].density, theta)[1])


def _along_the_rest(
    model: TrajectoryModel, panel: Trajectories, part: np.ndarray
) -> TrajectoryModel:
    rest = panel.subset(np.setdiff1d(np.arange(panel.n_trajectories), part))
    try:
        flow = flow_of(rest, model.game)
    except ValueError as error:
        raise ValueError(
            f"cross_fit cannot take the flow of the rest of a part: {error}. All who are seen at "
            "that time are in one part: choose other `folds` or another `random_seed`, or leave "
            "out a time at which one agent alone is seen."
        ) from None
    return model.with_panel(panel.subset(part), mean_field=flow)


def _start(model: TrajectoryModel, init: Start | None, progressbar: bool) -> np.ndarray:
    """Return unconstrained parameters (K,) to start from."""
    if init is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the sum has messages of its own
            return mle(model, progressbar=progressbar, flow_bias=False).theta
    density = density_of(model)
    return density.program.free(starting_values(density, init, 0), argument="init")
