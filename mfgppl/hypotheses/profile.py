"""Intervals by profile likelihood: the other parameters are maximised anew at each value."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.optimize
from scipy.special import chdtri

from mfgppl._arguments import is_a, one_of, positive_int, real_between, strict_keywords
from mfgppl.density.climb import HeldMaximum, Objective, maximise_held, whitening
from mfgppl.density.curvature import describe_direction
from mfgppl.density.of_model import density_of
from mfgppl.density.protocol import LogDensity
from mfgppl.estimation.point_estimate import PointEstimate, point_values
from mfgppl.hypotheses.comparable import ROUNDING, check_mle
from mfgppl.likelihood.model import TrajectoryModel

FARTHEST = 50.0  # temperatures of a reward, or standard errors, that the search goes at most
PRECISION = 1e-6  # of an end of the interval, in standard errors
LOST = 1e-4  # nats of rounding at which a log likelihood says nothing of a fall


@dataclass(frozen=True, eq=False, repr=False)
class Profile:
    """The profile likelihood of a parameter and the interval that it gives.

    Attributes
    ----------
    parameter : str
        The parameter.
    estimate : float
        Its maximum likelihood estimate.
    lower, upper : float
        Ends of the interval; an edge of the support, or infinite, on an unbounded side.
    ci_prob : float
        Mass of the interval.
    curve : DataFrame
        By value of the parameter, from end to end: `log_likelihood`, `statistic` (twice the fall
        from the maximum) and the other parameters' estimates there.
    converged : bool
        Whether all re-fits converged and none rose above the fit.
    reason : str
        What each side ends at, or what went wrong.
    """

    parameter: str
    estimate: float
    lower: float
    upper: float
    ci_prob: float
    curve: pd.DataFrame
    converged: bool
    reason: str

    def __repr__(self) -> str:
        state = "converged" if self.converged else "NOT converged"
        return (
            f"profile likelihood of {self.parameter}: {self.estimate:.4g}, {100 * self.ci_prob:g}% "
            f"interval [{self.lower:.4g}, {self.upper:.4g}], {state} ({self.reason})"
        )


@strict_keywords
def profile_likelihood(
    model: TrajectoryModel,
    fit: PointEstimate,
    parameter: str,
    *,
    ci_prob: float = 0.9,
    points: int = 21,
) -> Profile:
    """Return the interval of values that a likelihood ratio test does not refuse.

    It holds the values at which twice the fall of the log likelihood, maximised over the other
    parameters, is at most the quantile of chi-squared with one degree of freedom. Unlike a Wald
    interval it does not depend on how the parameter is declared and stays within its support. The
    caveat of `likelihood_ratio_test` holds.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    fit : PointEstimate
        Its maximum likelihood estimate; where choices are separated, the interval has no end on the
        side to which the likelihood rises for ever.
    parameter : str
        A parameter of the fit; entries of vectors as "w[2]".
    ci_prob : float in (0, 1)
        Mass of the interval.
    points : int
        Points of the curve from end to end of the interval, at least 2, beside the estimate.

    Returns
    -------
    Profile
        `lower`, `upper`, `curve`, `converged` and `reason`.

    Raises
    ------
    ValueError
        If the data do not identify the parameter, or it cannot be held by itself.
    """
    is_a("model", model, TrajectoryModel)
    check_mle("fit", fit, or_separated=True)
    one_of("parameter", parameter, list(fit.params.index))
    real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
    positive_int("points", points, least=2)
    density = density_of(model)
    point_values(density.program, fit)
    walk = _Walk(density, fit, parameter)
    critical = float(chdtri(1, 1 - ci_prob))
    # a transform may turn the direction round
    ends = sorted([_search(walk, critical, sign) for sign in (-1.0, 1.0)], key=lambda e: e.value)
    curve = walk.curve(parameter, ends[0].at, ends[1].at, points)
    converged, reason = _judge(walk, ends)
    return Profile(
        parameter=parameter,
        estimate=float(fit.params[parameter]),
        lower=ends[0].value,
        upper=ends[1].value,
        ci_prob=ci_prob,
        curve=curve,
        converged=converged,
        reason=reason,
    )


class _End(NamedTuple):
    """Where a side of the interval ends: an unconstrained place, its value, and in words."""

    at: float
    value: float
    words: str


def _column(fit: PointEstimate, parameter: str) -> int:
    """Return the unconstrained parameter that is this parameter's own, else raise."""
    names = list(fit.params.index)
    row = fit.jacobian[names.index(parameter)]
    columns = np.flatnonzero(row)
    if len(columns) != 1:
        raise ValueError(
            f"`parameter` {parameter!r} is tied to others by its support (a simplex or an order): "
            "it cannot be held by itself; use delta_method or bootstrap."
        )
    column = int(columns[0])
    curvature, edge = fit.curvature, fit.edge
    separated = fit.separated is not None and fit.separated[column] != 0
    if edge[names.index(parameter)] or curvature.known[column] or separated:
        return column
    for direction in curvature.flat[np.argsort(-np.abs(curvature.flat[:, column]))][:1]:
        combination = np.where(edge, 0.0, fit.jacobian @ direction)
        raise ValueError(
            f"the data do not identify {describe_direction(combination, names)}: the profile of "
            f"{parameter!r} is flat."
        )
    return column


class _Walk:
    """Re-fits at values of one unconstrained parameter, each started at the nearest before."""

    def __init__(self, density: LogDensity, fit: PointEstimate, parameter: str) -> None:
        self.density, self.fit = density, fit
        self.row, self.column = list(fit.params.index).index(parameter), _column(fit, parameter)
        self.objective = Objective(density, 0.0, 0.0)
        self.held = np.arange(density.n_dim) == self.column
        free = ~self.held
        self.directions = whitening(fit.information[np.ix_(free, free)], fit.sizes[free])
        self.centre = float(fit.theta[self.column])
        self.maxima = {self.centre: HeldMaximum(fit.theta, fit.llf, 0.0)}
        bend = self._curvature(free)
        self.one = self._unit_step()
        self.unit = self.one if bend <= 0 else min(1.0 / np.sqrt(bend), self.one * FARTHEST / 10)

    def _curvature(self, free: np.ndarray) -> float:
        """Return the curvature of the profile at the estimate."""
        information = self.fit.information
        across = self.directions.T @ information[free, self.column]
        return float(information[self.column, self.column] - across @ across)

    def _unit_step(self) -> float:
        """Return the step that is of order one: of a parameter without an edge by its effect."""
        row = np.abs(self.fit.jacobian[self.row])
        effect = float(self.objective.effects(self.fit.theta).entries[self.row])
        return 1.0 / effect if row.max() == 1.0 and effect > 0 else 1.0

    def statistic(self, at: float) -> float:
        """Return twice the fall of the log likelihood at a place, re-fitting the others."""
        if at not in self.maxima:
            start = self.place(at)
            self.maxima[at] = maximise_held(self.objective, start, self.held, self.directions)
        return 2 * (self.fit.llf - self.maxima[at].value)

    def is_lost(self, at: float) -> bool:
        """Whether rewards are so large there that rounding hides the log likelihood."""
        table = self.density.rewards(self.density.constrained(self.place(at)[None]))
        size = np.abs(table[np.isfinite(table)]).max(initial=0.0)
        temperature = self.density.model.game.temperature
        return bool(size * self.fit.nobs * np.finfo(float).eps > LOST * temperature)

    def place(self, at: float) -> np.ndarray:
        """Return the unconstrained parameters of the nearest re-fit, moved to a place."""
        nearest = self.maxima[min(self.maxima, key=lambda t: abs(t - at))]
        theta = nearest.theta.copy()
        theta[self.column] = at
        return theta

    def value(self, at: float) -> float:
        """Return the parameter at a place of its unconstrained value."""
        return float(self.density.constrained(self.place(at)[None])[0, self.row])

    def curve(self, parameter: str, low: float, high: float, points: int) -> pd.DataFrame:
        """Return the profile at evenly spaced values between two places, and at the estimate."""
        ends = self.value(low), self.value(high)
        inside = [self._place_of(v, low, high) for v in np.linspace(*ends, points)[1:-1]]
        places = sorted({low, self.centre, high, *inside})
        for at in sorted(places, key=lambda t: abs(t - self.centre)):
            self.statistic(at)
        visited = [self.maxima[at] for at in places if np.isfinite(self.maxima[at].value)]
        values = self.density.constrained(np.stack([m.theta for m in visited]))
        table = pd.DataFrame(values, columns=self.fit.params.index).set_index(parameter)
        heights = np.array([m.value for m in visited])
        table.insert(0, "log_likelihood", heights)
        table.insert(1, "statistic", 2 * (self.fit.llf - heights))
        return table.sort_index()

    def _place_of(self, value: float, low: float, high: float) -> float:
        """Return the unconstrained place of a value between two places."""
        return float(scipy.optimize.brentq(lambda t: self.value(t) - value, low, high))


def _search(walk: _Walk, critical: float, sign: float) -> _End:
    """Go outwards in growing steps until the likelihood has fallen enough, then find where."""
    inner, step = walk.centre, np.sqrt(critical) * walk.unit
    limit = FARTHEST * max(walk.one, walk.unit)
    while abs(inner - walk.centre) < limit and not walk.is_lost(inner + sign * step):
        outer = _last_defined(walk, inner, inner + sign * step)
        if walk.statistic(outer) > critical:
            at = scipy.optimize.brentq(
                lambda t: walk.statistic(t) - critical, inner, outer, xtol=PRECISION * walk.unit
            )
            return _End(float(at), walk.value(float(at)), "falls enough")
        if outer != inner + sign * step:
            inner = outer
            break
        inner, step = outer, 1.5 * step
    edge = walk.value(sign * np.inf)
    if np.isfinite(edge):
        return _End(inner, edge, f"reaches the edge of the support at {edge:.4g}")
    shown = walk.centre + sign * np.sqrt(critical) * walk.unit  # of a side without an end
    return _End(float(shown), edge, "is unbounded: the likelihood does not fall enough")


def _last_defined(walk: _Walk, inner: float, outer: float) -> float:
    """Return the outer place, or the last one before it where the likelihood is defined."""
    if np.isfinite(walk.statistic(outer)):
        return outer
    while abs(outer - inner) > PRECISION * walk.unit:
        middle = 0.5 * (inner + outer)
        if np.isfinite(walk.statistic(middle)):
            inner = middle
        else:
            outer = middle
    return inner


def _judge(walk: _Walk, ends: list[_End]) -> tuple[bool, str]:
    """Say whether the curve can be relied on, and why."""
    reason = f"below, it {ends[0].words}; above, it {ends[1].words}"
    highest = max(m.value for m in walk.maxima.values())
    if highest - walk.fit.llf > max(1e-4, ROUNDING * abs(walk.fit.llf)):
        return False, f"a re-fit rises {highest - walk.fit.llf:.3g} nats above `fit`; fit it again"
    failed = [at for at, m in walk.maxima.items() if np.isfinite(m.value) and not m.converged]
    if failed:
        return False, f"{len(failed)} of {len(walk.maxima)} re-fits did not converge; {reason}"
    return True, reason
