"""Point estimates: maximum likelihood and maximum a posteriori, with standard errors."""

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyro
import scipy.optimize
import scipy.stats
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, init_to_value
from pyro.optim import ClippedAdam
from pyro.poutine.messenger import Messenger
from torch import Tensor

from mfgppl._arguments import is_a, one_of, positive_int, real_between, strict_keywords
from mfgppl.exceptions import ConvergenceWarning, IdentificationWarning
from mfgppl.inference.compiled import Density, density_of
from mfgppl.inference.progress import progress
from mfgppl.likelihood.model import TrajectoryModel, double_precision
from mfgppl.likelihood.terms import Term, add_up

FLAT = 1e-8  # curvature, relative to its diagonal, below which a direction counts as flat
TOUCHES = 1e-6  # share of a parameter within flat directions that refuses its standard error
ROUNDING = 1e-13  # curvature, relative to the largest, that is no more than rounding
EDGE = 1e-5  # slope of the constraint below which a parameter counts as at its edge


class Curvature(NamedTuple):
    """What the second derivatives at an estimate say of each direction.

    Attributes
    ----------
    covariance : ndarray, shape (K, K)
        Inverse on the directions that are known, zero on the others; unconstrained space.
    known : ndarray of bool, shape (K,)
        Which unconstrained parameters lie outside all flat directions.
    flat : ndarray, shape (n_flat, K)
        The flat directions.
    saddle : bool
        Whether some direction bends upwards: the point is no maximum.
    """

    covariance: np.ndarray
    known: np.ndarray
    flat: np.ndarray
    saddle: bool


@dataclass(frozen=True, eq=False, repr=False)
class PointEstimate:
    """A point fit, in statsmodels' words.

    Attributes
    ----------
    kind : str
        "mle", or "map" with the space in which the density is maximised.
    params : Series
        Estimates by parameter, constrained (reward units a unit of the feature).
    llf : float
        Log likelihood at the estimate, nats.
    nobs : int
        Number of decisions.
    converged : bool
        Whether the gradient is within tolerance at a maximum.
    residual : float
        Largest entry of the gradient over unconstrained parameters.
    n_steps : int
        Steps of all stages.
    reason : str
        Why the fit ended.
    messages : tuple of str
        The warnings that the fit raised.
    information : ndarray, shape (K, K)
        Minus the second derivatives over unconstrained parameters.
    jacobian : ndarray, shape (P, K)
        Slope of the constrained in the unconstrained parameters.
    scores : ndarray, shape (J, K)
        Gradient of each trajectory's log likelihood over unconstrained parameters.
    groups : dict of str to ndarray, shape (J,)
        Clusters by name; "agent" is always there.
    theta : ndarray, shape (K,)
        The unconstrained estimate.
    """

    kind: str
    params: pd.Series
    llf: float
    nobs: int
    converged: bool
    residual: float
    n_steps: int
    reason: str
    messages: tuple[str, ...]
    information: np.ndarray
    jacobian: np.ndarray
    scores: np.ndarray
    groups: dict[str, np.ndarray]
    theta: np.ndarray

    @property
    def aic(self) -> float:
        """Akaike's criterion, `2 K - 2 llf`, with K the directions that the data know."""
        return 2 * (len(self.theta) - len(self._curvature.flat)) - 2 * self.llf

    @property
    def bic(self) -> float:
        """Schwarz's criterion with the number of trajectories as sample size."""
        known = len(self.theta) - len(self._curvature.flat)
        return float(known * np.log(len(self.scores)) - 2 * self.llf)

    @property
    def bse(self) -> pd.Series:
        """Standard errors from the observed information; NaN where the data do not tell."""
        return self.standard_errors()

    def standard_errors(self, kind: str = "observed", *, groups: str = "agent") -> pd.Series:
        """Return standard errors of a kind of covariance; see `cov_params`."""
        covariance = self.cov_params(kind, groups=groups)
        return pd.Series(np.sqrt(np.diag(covariance)), self.params.index, name="std_err")

    def cov_params(self, kind: str = "observed", *, groups: str = "agent") -> pd.DataFrame:
        """Return the covariance of the estimates.

        Parameters
        ----------
        kind : {"observed", "opg", "cluster"}
            Inverse observed information; inverse outer product of the trajectories' gradients; or
            the sandwich of both, with gradients added up within clusters.
        groups : str
            For "cluster": "agent", or a column named in `Trajectories.from_frame(groups=)`.

        Returns
        -------
        DataFrame, shape (P, P)
            NaN in the rows and columns of parameters that the data do not tell.
        """
        one_of("kind", kind, ["observed", "opg", "cluster"])
        curvature = self._curvature
        covariance, known = curvature.covariance, curvature.known
        if kind == "opg":
            opg = analyse_curvature(self.scores.T @ self.scores)
            covariance, known = opg.covariance, known & opg.known
        if kind == "cluster":
            one_of("groups", groups, list(self.groups))
            codes, clusters = pd.factorize(self.groups[groups])
            if len(clusters) < 2:
                raise ValueError(f"`groups` {groups!r} has one cluster; at least two are needed.")
            summed = np.zeros((len(clusters), self.scores.shape[1]))
            np.add.at(summed, codes, self.scores)
            small = len(clusters) / (len(clusters) - 1)
            covariance = small * covariance @ (summed.T @ summed) @ covariance
        matrix = self.jacobian @ covariance @ self.jacobian.T
        unknown = (np.abs(self.jacobian[:, ~known]) > 0).any(1)
        unknown |= np.abs(self.jacobian).max(1) < EDGE
        matrix[unknown, :] = matrix[:, unknown] = np.nan
        return pd.DataFrame(matrix, self.params.index, self.params.index)

    def conf_int(
        self, level: float = 0.9, *, kind: str = "observed", groups: str = "agent"
    ) -> pd.DataFrame:
        """Return Wald intervals of a level, columns lower and upper."""
        real_between("level", level, above=0.0, upto=1.0, strict=True)
        half = scipy.stats.norm.ppf(0.5 + level / 2) * self.standard_errors(kind, groups=groups)
        return pd.DataFrame({"lower": self.params - half, "upper": self.params + half})

    def summary(
        self, level: float = 0.9, *, kind: str = "observed", groups: str = "agent"
    ) -> pd.DataFrame:
        """Return estimates, standard errors, z, p and Wald intervals, a row a parameter."""
        errors = self.standard_errors(kind, groups=groups)
        z = self.params / errors
        interval = self.conf_int(level, kind=kind, groups=groups)
        name = f"{100 * level:g}%"
        return pd.DataFrame(
            {
                "estimate": self.params,
                "std_err": errors,
                "z": z,
                "p": pd.Series(2 * scipy.stats.norm.sf(z.abs()), self.params.index),
                f"lower {name}": interval["lower"],
                f"upper {name}": interval["upper"],
            }
        )

    def __repr__(self) -> str:
        state = "converged" if self.converged else "NOT converged"
        lines = [
            f"{self.kind}: log likelihood {self.llf:.3f}, {self.nobs} decisions of "
            f"{len(self.scores)} trajectories, {state} ({self.reason})",
            self.summary().to_string(float_format=lambda v: f"{v:.4g}"),
            "std_err from the observed information; 90% Wald intervals",
            *(f"warning: {m}" for m in self.messages),
        ]
        return "\n".join(lines)

    @functools.cached_property
    def _curvature(self) -> Curvature:
        return analyse_curvature(self.information)


@strict_keywords
def mle(
    model: TrajectoryModel,
    *,
    init: Mapping[str, Any] | None = None,
    svi_steps: int = 200,
    learning_rate: float = 0.05,
    tolerance: float = 1e-8,
    max_steps: int = 100,
    random_seed: int = 0,
    progressbar: bool = True,
) -> PointEstimate:
    """Maximise the likelihood: SVI with a point guide, then Newton; the prior plays no part.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    init : mapping of str to value, optional
        Where to start, by site; by default the median of draws from the prior.
    svi_steps : int
        Steps of SVI, not negative.
    learning_rate : float
        Step size of its optimiser.
    tolerance : float
        Largest entry of the gradient, per nat of the log likelihood, that counts as zero.
    max_steps : int
        Newton steps at most.
    random_seed : int
        Seed of the starting point.
    progressbar : bool
        Whether to show progress on a terminal.

    Returns
    -------
    PointEstimate
        Invariant to how the program is parametrised.

    Warns
    -----
    ConvergenceWarning
        If the gradient stays above the tolerance, or the point is no maximum.
    IdentificationWarning
        If some combination of parameters does not change the likelihood; its parameters get no
        standard error.
    """
    settings = _Settings(svi_steps, learning_rate, tolerance, max_steps, random_seed, progressbar)
    return _maximise(model, init, settings, kind="mle", prior=0.0, jacobian=0.0)


@strict_keywords
def map_estimate(
    model: TrajectoryModel,
    *,
    space: str = "constrained",
    init: Mapping[str, Any] | None = None,
    svi_steps: int = 200,
    learning_rate: float = 0.05,
    tolerance: float = 1e-8,
    max_steps: int = 100,
    random_seed: int = 0,
    progressbar: bool = True,
) -> PointEstimate:
    """Maximise the posterior density, which depends on the space in which it is a density.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    space : {"constrained", "unconstrained"}
        Whether the density is over the parameters as declared or over their unconstrained values.
    init, svi_steps, learning_rate, tolerance, max_steps, random_seed, progressbar
        As in `mle`.

    Returns
    -------
    PointEstimate
        With the curvature of the posterior in place of the likelihood's.
    """
    one_of("space", space, ["constrained", "unconstrained"])
    settings = _Settings(svi_steps, learning_rate, tolerance, max_steps, random_seed, progressbar)
    jacobian = float(space == "unconstrained")
    return _maximise(model, init, settings, kind=f"map ({space})", prior=1.0, jacobian=jacobian)


class _Settings(NamedTuple):
    svi_steps: int
    learning_rate: float
    tolerance: float
    max_steps: int
    random_seed: int
    progressbar: bool


def _maximise(
    model: TrajectoryModel,
    init: Mapping[str, Any] | None,
    settings: _Settings,
    *,
    kind: str,
    prior: float,
    jacobian: float,
) -> PointEstimate:
    is_a("model", model, TrajectoryModel)
    positive_int("svi_steps", settings.svi_steps, least=0)
    positive_int("max_steps", settings.max_steps)
    positive_int("random_seed", settings.random_seed, least=0)
    real_between("learning_rate", settings.learning_rate, above=0.0)
    real_between("tolerance", settings.tolerance, above=0.0)
    density = density_of(model)
    start = starting_values(density, init, settings.random_seed)
    start = _run_svi(model, start, settings, prior)
    objective = _Objective(density, prior, jacobian)
    theta, n_newton, residual = _polish(objective, density.program.free(start), settings)
    information = -objective.second_derivatives(theta)
    curvature = analyse_curvature(information)
    llf = density.evaluator(prior=0.0, jacobian=0.0)(theta)[0]
    small = residual <= settings.tolerance * max(1.0, abs(llf))
    reason = f"largest gradient {residual:.1e}"
    if curvature.saddle:
        reason += ", but the point is not a maximum"
    params, slope = _constrained(density, theta)
    messages = _warn(params, slope, curvature, small, reason)
    panel = model.panel
    return PointEstimate(
        kind=kind,
        params=params,
        llf=llf,
        nobs=panel.n_decisions,
        converged=small and not curvature.saddle,
        residual=residual,
        n_steps=settings.svi_steps + n_newton,
        reason=reason,
        messages=messages,
        information=information,
        jacobian=slope,
        scores=_scores(density, theta),
        groups={"agent": panel.agents, **panel.groups},
        theta=theta,
    )


def starting_values(
    density: Density, init: Mapping[str, Any] | None, random_seed: int
) -> dict[str, Any]:
    """Return where to start, by site: the given values, else medians of draws from the prior."""
    given = density.program.check_values("init", init or {}, complete=False)
    draws = np.stack([density.program.draw(random_seed + k) for k in range(15)])
    values = density.record(np.median(draws, axis=0))[0]
    start = {**values, **given}
    density.program.free(start, argument="init")
    return start


class _OnlyLikelihood(Messenger):
    """Leave out all sites of a model but its observed actions."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] != "actions":
            msg["mask"] = False


def _run_svi(
    model: TrajectoryModel, start: dict[str, Any], settings: _Settings, prior: float
) -> dict[str, Any]:
    """Take SVI steps with a point guide, in a parameter store of their own."""
    target = model if prior else _OnlyLikelihood()(model)
    init = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in start.items()}
    with double_precision(), pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.random_seed)
        guide = AutoDelta(target, init_loc_fn=init_to_value(values=init))
        svi = SVI(target, guide, ClippedAdam({"lr": settings.learning_rate}), Trace_ELBO())
        for _ in progress(range(settings.svi_steps), "SVI", settings.progressbar):
            svi.step()
        return {k: v.detach().numpy().copy() for k, v in guide().items()}


class _Objective:
    """A weighted log density over unconstrained parameters with two derivatives."""

    def __init__(self, density: Density, prior: float, jacobian: float) -> None:
        self.density, self.prior, self.jacobian = density, prior, jacobian
        self.evaluate = density.evaluator(prior=prior, jacobian=jacobian)

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        with np.errstate(all="ignore"):
            value, gradient = self.evaluate(theta)
        return float(value), gradient.copy()

    def second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Differentiate the plain torch twin twice."""
        program, likelihood = self.density.program, self.density.model.likelihood

        def value(free: Tensor) -> Tensor:
            run = program.run(program.split(free))
            weighted = self.prior * run.log_prior + self.jacobian * run.log_jacobian
            return likelihood.log_likelihood(run.reward) + weighted

        with double_precision(), pyro.validation_enabled(False):
            hessian = torch.autograd.functional.hessian(value, torch.from_numpy(theta.copy()))
        return hessian.numpy()


def _polish(
    objective: _Objective, theta: np.ndarray, settings: _Settings
) -> tuple[np.ndarray, int, float]:
    """Run L-BFGS to the neighbourhood, then damped Newton; return point, steps, residual."""
    first = scipy.optimize.minimize(
        lambda x: tuple(-v for v in objective.value_and_gradient(x)),
        theta,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 50 * settings.max_steps},
    )
    theta, n_steps = first.x, int(first.nit)
    value, gradient = objective.value_and_gradient(theta)
    for _ in range(settings.max_steps):
        if np.abs(gradient).max() <= 0.01 * settings.tolerance * max(1.0, abs(value)):
            break
        step = _newton_step(objective.second_derivatives(theta), gradient)
        for halving in range(30):
            trial = theta + 0.5**halving * step
            new_value, new_gradient = objective.value_and_gradient(trial)
            slack = 1e-12 * max(1.0, abs(value))
            if np.isfinite(new_value) and new_value >= value - slack:
                break
        else:
            break
        stalled = np.abs(new_gradient).max() >= np.abs(gradient).max() and new_value <= value
        if stalled:
            break
        theta, value, gradient, n_steps = trial, new_value, new_gradient, n_steps + 1
    return theta, n_steps, float(np.abs(gradient).max())


def _newton_step(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return an ascent step that flips upward curvature and stays put in flat directions."""
    standard, scale = equilibrate(-hessian)
    eigenvalues, vectors = np.linalg.eigh(standard)
    bend = np.abs(eigenvalues)
    inverse = np.where(bend > FLAT, 1.0 / np.maximum(bend, FLAT), 0.0)
    return vectors @ (inverse * (vectors.T @ (gradient / scale))) / scale


def equilibrate(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale a symmetric matrix so that each row's largest entry is 1, or the row is zero.

    Returns
    -------
    standard : ndarray, shape (K, K)
        The matrix without the parameters' units; rows below rounding are zero.
    scale : ndarray, shape (K,)
        Its rows and columns are divided by this.
    """
    standard = 0.5 * (matrix + matrix.T)
    largest = np.abs(standard).max(1)
    idle = largest <= ROUNDING * max(float(largest.max()), 1e-300)
    standard[idle, :] = standard[:, idle] = 0.0
    scale = np.ones(len(matrix))
    for _ in range(30):
        step = np.sqrt(np.abs(standard).max(1))
        step[step == 0] = 1.0
        standard = standard / np.outer(step, step)
        scale *= step
    return standard, scale


def analyse_curvature(information: np.ndarray) -> Curvature:
    """Split directions into known and flat ones by an eigen-analysis free of units.

    Parameters
    ----------
    information : ndarray, shape (K, K)
        Minus the second derivatives of a log density.

    Returns
    -------
    Curvature
        Covariance on the known directions, and the flat ones.
    """
    standard, scale = equilibrate(information)
    eigenvalues, vectors = np.linalg.eigh(standard)
    flat = np.abs(eigenvalues) <= FLAT
    known = eigenvalues > FLAT
    unscaled = vectors / scale[:, None]
    covariance = (unscaled[:, known] / eigenvalues[known]) @ unscaled[:, known].T
    inside = (vectors[:, ~known] ** 2).sum(1)
    saddle = bool((eigenvalues < -FLAT).any())
    return Curvature(covariance, inside < TOUCHES, unscaled[:, flat].T, saddle)


def _constrained(density: Density, theta: np.ndarray) -> tuple[pd.Series, np.ndarray]:
    """Return the constrained parameters by name and their slope in the unconstrained ones."""
    program = density.program

    def values(free: Tensor) -> Tensor:
        run = program.run(program.split(free))
        return torch.cat([v.reshape(-1) for v in run.values.values()])

    with double_precision(), pyro.validation_enabled(False):
        point = torch.from_numpy(theta.copy())
        slope = torch.autograd.functional.jacobian(values, point).numpy()
        flat = values(point).numpy()
    return pd.Series(flat, program.entry_names(), name="estimate"), slope


def _scores(density: Density, theta: np.ndarray) -> np.ndarray:
    """Return the gradient of each trajectory's log likelihood, shape (J, K)."""
    program, model = density.program, density.model

    def tables(free: Tensor) -> tuple[Tensor, ...]:
        return model.likelihood.tables(program.run(program.split(free)).reward)

    terms: list[Term] = model.likelihood.terms(model.panel)
    scores = np.zeros((model.panel.n_trajectories, len(theta)))
    point = torch.from_numpy(theta.copy())
    with double_precision(), pyro.validation_enabled(False):
        for k in range(len(theta)):
            along = torch.zeros_like(point)
            along[k] = 1.0
            slopes = torch.func.jvp(tables, (point,), (along,))[1]
            arrays = [s.nan_to_num(0.0).numpy() for s in slopes]
            scores[:, k] = add_up(terms, arrays, model.panel.n_trajectories)
    return scores


def _warn(
    params: pd.Series, slope: np.ndarray, curvature: Curvature, small: bool, reason: str
) -> tuple[str, ...]:
    """Warn of what makes the numbers unusable; return the messages for the record."""
    messages = []
    if not small or curvature.saddle:
        messages.append(f"the fit did not converge: {reason}")
        warnings.warn(messages[-1], ConvergenceWarning, stacklevel=5)
    edge = np.abs(slope).max(1) < EDGE
    for name in params.index[edge]:
        messages.append(
            f"{name!r} is at the edge of its support ({params[name]:.3g}); it has no standard error"
        )
        warnings.warn(messages[-1], IdentificationWarning, stacklevel=5)
    for direction in curvature.flat:
        combination = slope @ direction
        if np.abs(combination[~edge]).max(initial=0.0) == 0.0:
            continue
        messages.append(
            f"the data do not tell {describe_direction(combination, list(params.index))}; "
            "its parameters have no standard error"
        )
        warnings.warn(messages[-1], IdentificationWarning, stacklevel=5)
    return tuple(messages)


def describe_direction(direction: np.ndarray, names: list[str]) -> str:
    """Name a direction of parameters, its largest entry 1: "level + 0.5 crowd"."""
    direction = direction / direction[np.abs(direction).argmax()]
    parts: list[str] = []
    for weight, name in zip(direction, names, strict=True):
        if abs(weight) > 1e-3:
            size = "" if abs(abs(weight) - 1) < 5e-4 else f"{abs(weight):.3g} "
            sign = ("- " if weight < 0 else "+ ") if parts else ("-" if weight < 0 else "")
            parts.append(f"{sign}{size}{name}")
    return " ".join(parts)
