"""Tests of hypotheses on point fits: Wald, likelihood ratio and score."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import chdtrc, fdtrc

from mfgppl._arguments import Seed, is_a, positive_int, seed_of, strict_keywords
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.density.climb import HeldMaximum, Objective, climb_held
from mfgppl.density.curvature import describe_direction
from mfgppl.density.of_model import density_of
from mfgppl.density.protocol import LogDensity
from mfgppl.density.sizes import constrained_at
from mfgppl.estimation.delta_method import covariance_of
from mfgppl.estimation.point import scores_of
from mfgppl.estimation.point_estimate import PointEstimate, clusters_for
from mfgppl.estimation.starts import Start, starting_values
from mfgppl.hypotheses.comparable import (
    ROUNDING,
    check_estimate,
    check_mle,
    check_same_data,
    n_known,
)
from mfgppl.hypotheses.restrictions import restrictions_of
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.site_values import checked_values

WEBB = np.sqrt([0.5, 1.0, 1.5])  # sizes of the weights of a wild bootstrap
TIED = 1e-9  # slope of a restriction, relative to its terms', that is no more than rounding
REFLECTION = (
    "where the panel's own flow is plugged in and the reward couples agents through the future "
    "flow, the chi-squared law does not hold: see coupling_test"
)


@dataclass(frozen=True, eq=False, repr=False)
class HypothesisTest:
    """A test of a hypothesis against a chi-squared law.

    Attributes
    ----------
    name : str
        "Wald", "likelihood ratio" or "score".
    hypothesis : str
        What is tested.
    statistic : float
        Its value.
    df : int
        Degrees of freedom.
    p : float
        Chance of a larger statistic under the hypothesis.
    kind : str
        Kind of covariance or information; "" for the likelihood ratio.
    notes : tuple of str
        When the chi-squared law does not hold.
    """

    name: str
    hypothesis: str
    statistic: float
    df: int
    p: float
    kind: str
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        by = f" ({self.kind})" if self.kind else ""
        line = (
            f"{self.name} test{by} of {self.hypothesis}: chi-squared({self.df}) = "
            f"{self.statistic:.4g}, p = {self.p:.3g}"
        )
        return "\n".join([line, *(f"note: {n}" for n in self.notes)])


@strict_keywords
def wald_test(
    fit: PointEstimate,
    restrictions: str | Sequence[str] | np.ndarray,
    values: Any = None,
    *,
    kind: str = "observed",
    groups: str | None = None,
) -> HypothesisTest:
    """Test linear restrictions `R params = q` by their distance from the estimates.

    The statistic is `(R params - q)' (R cov R')^-1 (R params - q)`, chi-squared with the rank of R
    degrees of freedom. Of a jackknife's estimate, whose covariance is that of its parts, and of
    clusters, it is Hotelling's T squared.

    Parameters
    ----------
    fit : PointEstimate
        An estimate that has converged, of `mle`, `jackknife` or one of `mfg.flows`.
    restrictions : str, or array of shape (M, P)
        Equations between sums of numbers times parameters, separated by commas, as in
        "a = 0, b - 2 c = 1, w[0] = w[1]"; or the matrix R, one column per parameter.
    values : array, shape (M,), optional
        The right-hand side q of a matrix, by default 0.
    kind, groups
        As in `PointEstimate.cov_params`.

    Returns
    -------
    HypothesisTest
        `statistic`, `df` and `p`.

    Raises
    ------
    ValueError
        If a restriction moves along a direction that the data do not identify, or a parameter is at
        the edge of its support.
    """
    check_estimate("fit", fit)
    tested = restrictions_of(restrictions, values, list(fit.params.index))
    _check_tied(fit, tested.matrix)
    covariance = covariance_of(fit, tested.matrix, "`restrictions`", kind=kind, groups=groups)
    gap = tested.matrix @ fit.params.to_numpy() - tested.values
    statistic = _quadratic(covariance, gap, "restrictions")
    df, degrees = len(gap), fit.degrees(kind, groups=groups)
    p, notes = float(chdtrc(df, statistic)), (REFLECTION,) if fit.kind == "mle" else ()
    if np.isfinite(degrees):
        left = degrees - df + 1
        p = float(fdtrc(df, left, statistic * left / (degrees * df)))
        notes = (f"p of Hotelling's T squared with {degrees:g} degrees", *notes)
    return HypothesisTest(
        "Wald", tested.text, statistic, df, p, fit.kind if np.isfinite(fit.dof) else kind, notes
    )


@strict_keywords
def likelihood_ratio_test(restricted: PointEstimate, full: PointEstimate) -> HypothesisTest:
    """Test a restricted model against the model that nests it: twice the rise of `llf`.

    The statistic is chi-squared with as many degrees of freedom as the full model has more
    directions that the data identify, where the restricted model lies inside the full one, not at
    an edge of its support. The law does not hold where the panel's own flow is plugged in and the
    reward couples agents through the future flow: that flow is the outcome of the very actions
    being explained, and likelihood ratios come out too large (reflection). Compare the ratio with
    those of panels simulated under the restricted model.

    Parameters
    ----------
    restricted, full : PointEstimate
        Maximum likelihood estimates on the same panel. Whether the models are nested is the
        caller's knowledge; a lower `llf` of the full one is refused.

    Returns
    -------
    HypothesisTest
        `statistic`, `df` and `p`.

    Raises
    ------
    ValueError
        If the data differ, a fit has not converged, or the fits cannot be nested.
    """
    check_mle("restricted", restricted)
    check_mle("full", full)
    check_same_data(restricted, full, "`restricted` and `full`")
    more, fewer = n_known(full), n_known(restricted)
    if more <= fewer:
        raise ValueError(
            f"`full` must have more directions that the data identify than `restricted`; got "
            f"{more} and {fewer}. Pass the restricted fit first."
        )
    statistic = 2 * (full.llf - restricted.llf)
    if statistic < -ROUNDING * max(1.0, abs(full.llf)):
        raise ValueError(
            f"`full` has a lower log likelihood ({full.llf:.6g}) than `restricted` "
            f"({restricted.llf:.6g}): the models are not nested, or `full` stopped at a local "
            "maximum; fit it again with init= or restarts=."
        )
    df, statistic = more - fewer, max(statistic, 0.0)
    notes = [REFLECTION]
    at_edge = [m for m in restricted.messages + full.messages if "edge of its support" in m]
    if at_edge:
        notes.append(f"{at_edge[0]}: there the chi-squared law is not exact")
    hypothesis = f"{df} restriction{'s' if df > 1 else ''}"
    p = float(chdtrc(df, statistic))
    return HypothesisTest("likelihood ratio", hypothesis, statistic, df, p, "", tuple(notes))


@strict_keywords
def score_test(
    model: TrajectoryModel,
    values: Mapping[str, Any],
    *,
    kind: str = "observed",
    groups: str | None = None,
    replications: int | None = None,
    init: Start | None = None,
    random_seed: Seed = 0,
) -> HypothesisTest:
    """Test values of some sites by the slope of the log likelihood there (Rao, Lagrange).

    The other parameters are estimated by maximum likelihood under the hypothesis, so that the full
    model need not be fitted. With the gradient `s` and information `I` of the full model there, the
    statistic is `s' I^-1 s`; for "cluster" the sandwich takes the place of the information.

    Parameters
    ----------
    model : TrajectoryModel
        The full model.
    values : mapping of str to value
        The hypothesis, by site, as in {"gap2": 0.0}; all entries of a site.
    kind : {"observed", "opg", "cluster"}
        Minus the second derivatives, the outer product of the trajectories' gradients, or the
        sandwich of both with gradients added up within clusters.
    groups : str
        For "cluster", as in `PointEstimate.cov_params`.
    replications : int, optional
        For "cluster": p by the wild score bootstrap with so many replications, which multiply the
        scores of each cluster by a random weight of mean zero (Webb's six points). It is the test
        for few clusters, or clusters of unequal weight.
    init : mapping of str to value, or PointEstimate, optional
        Where to start the other parameters, as in `mle`.
    random_seed : int or SeedSequence
        Seed of the starting point, and of the weights.

    Returns
    -------
    HypothesisTest
        `statistic`, `df` and `p`; the caveat of `likelihood_ratio_test` holds.

    Raises
    ------
    ValueError
        If a value is at the edge of its support, the data do not identify a tested direction, the
        second derivatives have no definite sign there (far from the maximum; "opg" has none of
        this), or the other parameters' estimates do not converge.

    References
    ----------
    .. [1] Kline and Santos (2012), *A score based approach to wild bootstrap inference*, Journal of
       Econometric Methods 1(1), 23-41, doi:10.1515/2156-6674.1006.
    .. [2] Webb (2023), *Reworking wild bootstrap-based inference for clustered errors*, Canadian
       Journal of Economics 56(3), 839-858, doi:10.1111/caje.12661.
    """
    is_a("model", model, TrajectoryModel)
    by = clusters_for(kind, groups)
    if replications is not None:
        positive_int("replications", replications, least=19)
        if kind != "cluster":
            raise ValueError(
                "`replications` belong to kind='cluster', whose scores are drawn again by cluster; "
                f"got kind={kind!r}."
            )
    random_seed = seed_of(random_seed)
    density = density_of(model)
    program = density.program
    given = checked_values("values", values, program.sites, complete=False)
    if not given:
        raise ValueError("`values` must name a site and its value, as in {'gap2': 0.0}.")
    if kind != "observed":
        with_rows(model.panel, f"score_test(kind={kind!r})")
    start = {**starting_values(density, init, random_seed), **given}
    theta, held = program.free(start), np.zeros(density.n_dim, dtype=bool)
    for site in program.sites:
        held[site.start : site.stop] = site.name in given
    _check_held(density, theta, held, list(given))
    objective = Objective(density, 0.0, 0.0)
    maximum = climb_held(objective, theta, held)
    if not maximum.converged:
        raise ValueError(
            "the other parameters' estimates under `values` do not converge (gradient "
            f"{maximum.residual:.1e} standard errors); pass `init`."
        )
    fit = _record_at(density, objective, maximum, kind)
    statistic, df = _score_statistic(fit, objective, held, kind, groups), int(held.sum())
    hypothesis = ", ".join(f"{k} = {np.asarray(v).tolist()}" for k, v in given.items())
    p = float(chdtrc(df, statistic))
    notes = (REFLECTION,) if model.flow_is_empirical else ()
    if replications is not None:
        parts = _by_cluster(fit, held, by)
        p = _wild_p(parts, replications, np.random.default_rng(random_seed))
        how = f"p by the wild score bootstrap, {replications} replications, {len(parts)} clusters"
        notes = (how, *notes)
    return HypothesisTest("score", hypothesis, statistic, df, p, kind, notes)


def _by_cluster(fit: PointEstimate, held: np.ndarray, groups: str) -> np.ndarray:
    """Return what each cluster adds to the step of the tested parameters, (G, n_held)."""
    assert fit.scores is not None
    codes, clusters = pd.factorize(fit.groups[groups])
    summed = np.zeros((len(clusters), fit.scores.shape[1]))
    np.add.at(summed, codes, fit.scores)
    return (summed @ fit.curvature.covariance)[:, held]


def _wild_p(parts: np.ndarray, replications: int, rng: np.random.Generator) -> float:
    """Return how often scores with signs and sizes at random are as large as those seen."""
    signs = rng.choice([-1.0, 1.0], size=(replications, len(parts)))
    sizes = rng.choice(WEBB, size=(replications, len(parts)))
    seen = _studentised(parts[None])
    drawn = _studentised((signs * sizes)[:, :, None] * parts)
    return float((1 + (drawn >= seen * (1 - ROUNDING)).sum()) / (1 + replications))


def _studentised(parts: np.ndarray) -> np.ndarray:
    """Return `s' (sum_g e_g e_g')^-1 s` with `s = sum_g e_g`, of parts (B, G, n_held)."""
    total, spread = parts.sum(1), np.einsum("bgi,bgj->bij", parts, parts)
    return np.einsum("bi,bij,bj->b", total, np.linalg.pinv(spread, hermitian=True), total)


def _check_tied(fit: PointEstimate, matrix: np.ndarray) -> None:
    """Raise where the support alone ties restrictions together, as entries of a simplex."""
    moves = matrix @ fit.jacobian
    size = np.abs(moves).max(1)
    largest = np.abs(matrix) @ np.abs(fit.jacobian).max(1)
    fixed = size <= TIED * largest
    free = moves[~fixed] / size[~fixed, None]
    rank = int(np.linalg.matrix_rank(free, tol=TIED * max(free.shape))) if len(free) else 0
    if rank < len(matrix):
        raise ValueError(
            f"`restrictions` are {len(matrix)}, but the support of the parameters leaves {rank} of "
            "them free to fail: the rest holds by itself, as that the entries of a simplex sum to "
            "1. Leave out those that follow from the others, such as one entry of a simplex."
        )


def _quadratic(covariance: np.ndarray, gap: np.ndarray, what: str) -> float:
    """Return `gap' covariance^-1 gap`, else raise where the covariance is singular."""
    size = np.sqrt(np.diag(covariance))
    size[size == 0] = 1.0
    rank = np.linalg.matrix_rank(covariance / np.outer(size, size), hermitian=True)
    if rank < len(gap):
        raise ValueError(
            f"the covariance of the {len(gap)} {what} has rank {rank}: there are too few clusters "
            "or different trajectories; use kind='observed', or test fewer at a time."
        )
    scaled = gap / size
    return float(scaled @ np.linalg.solve(covariance / np.outer(size, size), scaled))


def _check_held(density: LogDensity, theta: np.ndarray, held: np.ndarray, names: list[str]) -> None:
    """Raise unless values can be held by holding their unconstrained parameters."""
    if not np.isfinite(theta).all():
        raise ValueError(
            f"`values` of {', '.join(names)} lie at the edge of the support, where the chi-squared "
            "law does not hold; declare a prior whose support holds them inside."
        )
    slope = constrained_at(density, theta)[1]
    entries = density.program.entry_names()
    rows = np.array([n.split("[")[0] in names for n in entries])
    if np.abs(slope[np.ix_(rows, ~held)]).max(initial=0.0) > 0:
        raise ValueError(
            f"the support of {', '.join(names)} depends on other parameters; test a site whose "
            "support is fixed."
        )


def _record_at(
    density: LogDensity, objective: Objective, maximum: HeldMaximum, kind: str
) -> PointEstimate:
    """Return the curvature and the scores at a point as a record over unconstrained parameters."""
    panel, theta, groups = density.model.panel, maximum.theta, {}
    if isinstance(panel, Trajectories):
        groups = {"agent": panel.agents, **panel.groups}
    return PointEstimate(
        kind="mle",
        params=pd.Series(theta, _free_names(density)),
        llf=maximum.value,
        nobs=panel.n_decisions,
        converged=True,
        residual=0.0,
        n_steps=0,
        reason="held",
        messages=(),
        information=-objective.second_derivatives(theta),
        jacobian=np.eye(len(theta)),
        scores=None if kind == "observed" else scores_of(density, theta),
        probes=None,
        groups=groups,
        theta=theta,
        n_trajectories=panel.n_trajectories,
        attained=(),
        sizes=objective.sizes(theta),
        edge=np.zeros(len(theta), dtype=bool),
        separated=None,
    )


def _free_names(density: LogDensity) -> list[str]:
    """Return a name for each unconstrained parameter: its entry's where these correspond."""
    sites, entries = density.program.sites, density.program.entry_names()
    if len(entries) == density.n_dim:
        return entries
    return [f"{s.name}[{k}]" if s.size > 1 else s.name for s in sites for k in range(s.size)]


def _score_statistic(
    fit: PointEstimate, objective: Objective, held: np.ndarray, kind: str, groups: str | None
) -> float:
    """Return the Wald statistic of one Newton step from the hypothesis, which is the score's."""
    matrix = fit.information
    if kind == "opg" and fit.scores is not None:
        matrix = fit.scores.T @ fit.scores
        fit = dataclasses.replace(fit, information=matrix)
    curvature, units = fit.curvature, np.where(fit.sizes > 0, fit.sizes, 1.0)
    for direction in curvature.flat * units:
        if np.abs(direction[held]).max() > ROUNDING * np.abs(direction).max():
            moved = describe_direction(direction / units, list(fit.params.index))
            raise ValueError(
                f"`values` move along {moved}, which the data do not identify: there is nothing to "
                "test."
            )
    if curvature.saddle:
        raise ValueError(
            "the second derivatives under `values` have no definite sign, so that the observed "
            "information gives no statistic; use kind='opg'."
        )
    step = curvature.covariance @ objective.value_and_gradient(fit.theta)[1]
    covariance = covariance_of(fit, np.eye(len(held))[held], "`values`", kind=kind, groups=groups)
    return _quadratic(covariance, step[held], "values")
