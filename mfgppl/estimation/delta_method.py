"""The covariance of functions of the estimates, and the delta method."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
import torch
from torch import Tensor

from mfgppl._arguments import is_a, real_between, strict_keywords
from mfgppl.density.curvature import describe_direction
from mfgppl.estimation.point_estimate import PointEstimate

STEP = 6e-6  # of central differences: the cube root of the rounding error
LEAK = 1e-4  # share of a function along a flat direction that is more than rounding
NO_EFFECT = 1e-12  # slope, relative to the largest, that is no more than rounding


@dataclass(frozen=True, eq=False, repr=False)
class DeltaEstimate:
    """Functions of a point fit's parameters with their uncertainty.

    Attributes
    ----------
    estimate : Series, shape (M,)
        The functions at the estimates.
    std_err : Series, shape (M,)
        Standard errors, in the functions' units.
    covariance : DataFrame, shape (M, M)
        Their covariance.
    lower, upper : Series, shape (M,)
        Wald interval.
    ci_prob : float
        Mass of the interval.
    kind : str
        Kind of covariance of the parameters.
    derivative : str
        "autograd" or "central differences".
    """

    estimate: pd.Series
    std_err: pd.Series
    covariance: pd.DataFrame
    lower: pd.Series
    upper: pd.Series
    ci_prob: float
    kind: str
    derivative: str

    def summary(self) -> pd.DataFrame:
        """Return estimates, standard errors and interval, one row per function."""
        name = f"{100 * self.ci_prob:g}%"
        return pd.DataFrame(
            {
                "estimate": self.estimate,
                "std_err": self.std_err,
                f"lower {name}": self.lower,
                f"upper {name}": self.upper,
            }
        )

    def __repr__(self) -> str:
        table = self.summary().to_string(float_format=lambda v: f"{v:.4g}")
        return (
            f"{table}\nstd_err by the delta method ({self.derivative}), {self.kind} covariance; "
            f"{100 * self.ci_prob:g}% Wald intervals"
        )


@strict_keywords
def delta_method(
    fit: PointEstimate,
    function: Callable[[Any], Any],
    *,
    kind: str = "observed",
    groups: str | None = None,
    ci_prob: float = 0.9,
) -> DeltaEstimate:
    """Return functions of the parameters with standard errors by the delta method.

    The covariance of `g(estimates)` is `G cov(estimates) G'`, with `G` the derivative of `g`.

    Parameters
    ----------
    fit : PointEstimate
        A point fit.
    function : callable
        Takes a mapping of parameter names (entries of vectors as "w[2]") to values and returns a
        number, a vector, or a mapping or Series of numbers by name. It is called with torch
        scalars and differentiated by autograd; where it takes no tensors or returns none, with a
        Series of floats and central differences.
    kind, groups
        As in `PointEstimate.cov_params`.
    ci_prob : float in (0, 1)
        Mass of the interval.

    Returns
    -------
    DeltaEstimate
        `estimate`, `std_err`, `covariance`, `lower`, `upper` and `summary()`.

    Raises
    ------
    ValueError
        If a function is not finite or moves along a direction that the data do not identify.
    """
    is_a("fit", fit, PointEstimate)
    real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
    if not callable(function):
        raise TypeError(f"`function` must be a function of the parameters; got {function!r}.")
    values, slope, derivative = differentiate(function, fit.params, fit.bse.to_numpy())
    if not (np.isfinite(values).all() and np.isfinite(slope).all()):
        raise ValueError(
            f"`function` must be finite and smooth at the estimates; its values are "
            f"{values.to_dict()}, its slopes {slope.tolist()}."
        )
    covariance = covariance_of(fit, slope, "`function`", kind=kind, groups=groups)
    errors = pd.Series(np.sqrt(np.diag(covariance)), values.index, name="std_err")
    half = fit.quantile(0.5 + ci_prob / 2, kind, groups=groups) * errors
    return DeltaEstimate(
        estimate=values,
        std_err=errors,
        covariance=pd.DataFrame(covariance, values.index, values.index),
        lower=(values - half).rename("lower"),
        upper=(values + half).rename("upper"),
        ci_prob=ci_prob,
        kind=kind,
        derivative=derivative,
    )


def variances_of(
    fit: PointEstimate, slope: np.ndarray, what: str, *, kind: str, groups: str | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the variance of each function (M,), NaN where the data do not identify it, and why.

    Arguments as of `covariance_of`.
    """
    known = np.isfinite(slope).all(1)
    found, reasons = np.full(len(slope), np.nan), []
    of = functools.partial(covariance_of, fit, what=what, kind=kind, groups=groups)
    try:
        found[known] = np.diag(of(slope[known]))
    except ValueError:
        for j in np.flatnonzero(known):
            try:
                found[j] = of(slope[[j]])[0, 0]
            except ValueError as error:
                reasons.append(str(error))
    return found, tuple(dict.fromkeys(reasons))


def covariance_of(
    fit: PointEstimate, slope: np.ndarray, what: str, *, kind: str, groups: str | None
) -> np.ndarray:
    """Return the covariance of functions of the constrained parameters.

    A combination that the data identify has one even if its parameters do not. Each flat direction
    is normalised by holding one of its parameters, which changes no such combination.

    Parameters
    ----------
    fit : PointEstimate
        A point fit.
    slope : ndarray, shape (M, P)
        Derivatives of the functions in the constrained parameters.
    what : str
        What the caller calls the functions.
    kind, groups
        As in `PointEstimate.cov_params`.

    Returns
    -------
    ndarray, shape (M, M)
        The covariance.

    Raises
    ------
    ValueError
        If a function moves along a flat direction, or a parameter at the edge of its support.
    """
    curvature = fit.curvature
    if curvature.saddle:
        raise ValueError(f"`fit` is not at a maximum ({fit.reason}): it has no covariance.")
    names = list(fit.params.index)
    edge = fit.edge
    for k in np.flatnonzero(edge & (np.abs(slope) > 0).any(0)):
        raise ValueError(
            f"{what} involves {names[k]!r}, which is at the edge of its support "
            f"({fit.params.iloc[k]:.3g}): it has no standard error. profile_likelihood gives a "
            "one-sided interval."
        )
    free = slope @ fit.jacobian
    for direction in curvature.flat:
        parts = np.abs(free * np.where(curvature.known, 0.0, direction))
        leak = np.abs(free[:, ~curvature.known] @ direction[~curvature.known])
        if (leak > LEAK * parts.sum(1)).any():
            combination = np.where(edge, 0.0, fit.jacobian @ direction)
            raise ValueError(
                f"{what} moves along {describe_direction(combination, names)}, which the data do "
                "not identify: there is no standard error. Restrict a combination that they "
                "identify, or drop a term of the reward."
            )
    kept = np.ones(len(fit.theta), dtype=bool)
    if len(curvature.flat):
        flat = curvature.flat * np.where(fit.sizes > 0, fit.sizes, 1.0)
        kept[scipy.linalg.qr(flat, pivoting=True)[2][: len(curvature.flat)]] = False
    return _covariance(fit, free, kept, kind, groups)


def _covariance(
    fit: PointEstimate, free: np.ndarray, kept: np.ndarray, kind: str, groups: str | None
) -> np.ndarray:
    """Return the covariance of functions of slope `free`, with some parameters held."""
    held = dataclasses.replace(
        fit,
        params=pd.Series(np.zeros(len(free))),
        information=fit.information[np.ix_(kept, kept)],
        jacobian=free[:, kept],
        scores=None if fit.scores is None else fit.scores[:, kept],
        probes=None if fit.probes is None else fit.probes[..., kept],
        theta=fit.theta[kept],
        sizes=fit.sizes[kept],
        edge=np.zeros(len(free), dtype=bool),
        separated=None,
    )
    # without slope a function is a constant, whose variance is zero
    moves = (np.abs(held.jacobian) > 0).any(1)
    covariance = held.cov_params(kind, groups=groups).to_numpy(copy=True)
    covariance[~moves, :] = covariance[:, ~moves] = 0.0
    if not np.isfinite(covariance).all():
        raise ValueError(
            f"the {kind} covariance does not identify what is asked: there are too few different "
            "trajectories; use kind='observed'."
        )
    return covariance


def differentiate(
    function: Callable[[Any], Any], params: pd.Series, errors: np.ndarray
) -> tuple[pd.Series, np.ndarray, str]:
    """Return values (M,), derivatives (M, P) and how these are taken.

    Differences are over steps in proportion to a parameter and its standard error.
    """
    derivative = _by_autograd(function, params)
    if derivative is not None:
        return *derivative, "autograd"
    values, names = _as_vector(function(params.copy()))
    slope = np.zeros((len(values), len(params)))
    widths = np.fmax(np.abs(params.to_numpy()), errors)
    widths[widths == 0] = 1.0
    for k, (value, width) in enumerate(zip(params, widths, strict=True)):
        step = STEP * width
        ends = []
        for sign in (1.0, -1.0):
            moved = params.copy()
            moved.iloc[k] = value + sign * step
            ends.append(np.asarray(_as_vector(function(moved))[0], dtype=float))
        slope[:, k] = (ends[0] - ends[1]) / (2 * step)
    effect = np.abs(slope) * widths
    slope[effect <= NO_EFFECT * effect.max(1, initial=0.0, keepdims=True)] = 0.0
    numbers = np.asarray(values, dtype=float)
    return pd.Series(numbers, names, name="estimate"), slope, "central differences"


def _by_autograd(
    function: Callable[[Any], Any], params: pd.Series
) -> tuple[pd.Series, np.ndarray] | None:
    """Return values and derivatives by autograd, None where the function leaves the graph."""
    point = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in params.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns where a tensor becomes a plain number
            values, names = _as_vector(function(point))
    except Exception:  # a function of plain numbers may fail in any way on tensors
        return None
    if not any(isinstance(v, Tensor) and v.requires_grad for v in values):
        return None
    rows = []
    for value in values:
        if not (isinstance(value, Tensor) and value.requires_grad):
            rows.append([0.0] * len(point))
            continue
        slopes = torch.autograd.grad(
            value, list(point.values()), retain_graph=True, allow_unused=True
        )
        rows.append([0.0 if s is None else float(s) for s in slopes])
    numbers = [float(v.detach()) if isinstance(v, Tensor) else float(v) for v in values]
    return pd.Series(numbers, names, name="estimate"), np.array(rows)


def _as_vector(value: Any) -> tuple[list[Any], list[str]]:
    """Return what a function gives as a list of numbers and their names."""
    if isinstance(value, pd.Series):
        value = dict(value.items())
    if isinstance(value, Mapping):
        return list(value.values()), [str(k) for k in value]
    listed = isinstance(value, (list, tuple))
    if listed:
        entries = list(value)
    else:
        entries = list(value.reshape(-1) if isinstance(value, Tensor) else np.ravel(value))
    if not listed and np.ndim(value) == 0:
        return entries, ["value"]
    return entries, [f"value[{k}]" for k in range(len(entries))]
