"""The record of a point fit, in statsmodels' words."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from mfgppl._arguments import one_of, real_between, strict_keywords
from mfgppl.density.curvature import Curvature, analyse_curvature
from mfgppl.estimation.counted_flow import CountedFlow
from mfgppl.estimation.latex import Table
from mfgppl.reward.parameters import Program
from mfgppl.reward.site_values import checked_values

REACHED = 0.01  # nats below the best maximum that count as reaching it


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
        Whether the maximum is within tolerance.
    residual : float
        How far it is, in standard errors: the largest entry of the gradient in directions of unit
        curvature.
    n_steps : int
        Steps of all algorithms.
    reason : str
        Why the fit ended.
    messages : tuple of str
        The warnings that the fit raised.
    information : ndarray, shape (K, K)
        Minus the second derivatives over unconstrained parameters.
    jacobian : ndarray, shape (P, K)
        Slope of the constrained in the unconstrained parameters.
    scores : ndarray, shape (J, K), or None
        Gradient of each trajectory's log likelihood over unconstrained parameters; None for a
        panel that is counted only.
    probes : ndarray, shape (n_points, J, K), or None
        The same at points nearby, which show what has no effect; None for a posterior mode.
    groups : dict of str to ndarray, shape (J,)
        Clusters by name; "agent" is there if trajectories are.
    theta : ndarray, shape (K,)
        The unconstrained estimate.
    n_trajectories : int
        Number of trajectories J.
    attained : tuple of float
        The maximum that each start led to, nats; the estimate is the largest.
    sizes : ndarray, shape (K,)
        Root of the largest information that each unconstrained parameter can have: what is below
        rounding of it is rounding.
    edge : ndarray of bool, shape (P,)
        Which parameters have no standard error where they lie: at the edge of their support, or at
        a kink, as where actions tie under behaviour="boltzmann".
    separated : ndarray, shape (K,), or None
        A direction along which the choices are separated, so that the likelihood rises for ever.
    counted_flow : CountedFlow or None
        What it costs that the flow is counted from the panel and taken as known; None where no
        term reads such a flow, or it was not asked for.
    dof : float
        Degrees of freedom of t quantiles in intervals and p values; infinite for normal ones. Where
        errors are clustered, `degrees` counts the clusters.
    mean_field : str
        The crowd's flow along which the likelihood is, as the model's: "empirical", "equilibrium"
        or "known".
    kinds : DataFrame or None
        Where agents are of unseen kinds, the posterior probability of each kind, one row per agent.
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
    scores: np.ndarray | None
    probes: np.ndarray | None
    groups: dict[str, np.ndarray]
    theta: np.ndarray
    n_trajectories: int
    attained: tuple[float, ...]
    sizes: np.ndarray
    edge: np.ndarray
    separated: np.ndarray | None
    counted_flow: CountedFlow | None = None
    dof: float = np.inf
    mean_field: str = "empirical"
    kinds: pd.DataFrame | None = None

    @property
    def aic(self) -> float:
        """Akaike's criterion, `2 K - 2 llf`, with K the directions that the data know."""
        return 2 * (len(self.theta) - len(self.curvature.flat)) - 2 * self.llf

    @property
    def bic(self) -> float:
        """Schwarz's criterion with the number of trajectories as sample size."""
        known = len(self.theta) - len(self.curvature.flat)
        return float(known * np.log(self.n_trajectories) - 2 * self.llf)

    @property
    def bse(self) -> pd.Series:
        """Standard errors from the observed information; NaN where the data do not identify."""
        return self.standard_errors()

    def n_clusters(self, groups: str | None = None) -> int:
        """Return how many clusters there are, by default agents."""
        groups = "agent" if groups is None else groups
        return len(pd.unique(self.groups[one_of("groups", groups, list(self.groups))]))

    def degrees(self, kind: str = "observed", *, groups: str | None = None) -> float:
        """Return the degrees of freedom of t quantiles by a kind of covariance.

        One less than there are clusters where errors are clustered; `dof` otherwise.
        """
        groups = clusters_for(kind, groups)
        return float(self.n_clusters(groups) - 1) if kind == "cluster" else self.dof

    def quantile(self, mass: float, kind: str = "observed", *, groups: str | None = None) -> float:
        """Return the quantile by which intervals are made: of t, or normal."""
        degrees = self.degrees(kind, groups=groups)
        return float(ndtri(mass) if np.isinf(degrees) else stdtrit(degrees, mass))

    def standard_errors(self, kind: str = "observed", *, groups: str | None = None) -> pd.Series:
        """Return standard errors of a kind of covariance; see `cov_params`."""
        covariance = self.cov_params(kind, groups=groups)
        return pd.Series(np.sqrt(np.diag(covariance)), self.params.index, name="std_err")

    def cov_params(self, kind: str = "observed", *, groups: str | None = None) -> pd.DataFrame:
        """Return the covariance of the estimates.

        Parameters
        ----------
        kind : {"observed", "opg", "cluster"}
            Inverse observed information; inverse outer product of the trajectories' gradients; or
            the sandwich of both, with gradients added up within clusters, times G / (G - 1) for G
            clusters. Intervals and p values are then of t with G - 1 degrees.
        groups : str, optional
            Of "cluster" alone: "agent", which is the default, or a column named in
            `Trajectories.from_frame(groups=)`.

        Returns
        -------
        DataFrame, shape (P, P)
            NaN in the rows and columns of parameters that the data do not identify.
        """
        groups = clusters_for(kind, groups)
        if kind != "observed" and np.isfinite(self.dof):
            raise ValueError(
                f"`kind` {kind!r} is of a likelihood; the covariance of this {self.kind} estimate "
                "is that of its parts, and counts what they share already."
            )
        if kind != "observed" and self.scores is None:
            raise ValueError(
                f"`kind` {kind!r} needs the trajectories one by one, which a counted panel does "
                "not keep; read the table with Trajectories.from_frame."
            )
        curvature = self.curvature
        covariance, known = curvature.covariance, curvature.known
        if kind == "opg" and self.scores is not None:
            opg = analyse_curvature(self.scores.T @ self.scores, sizes=self.sizes)
            covariance, known = opg.covariance, known & opg.known
        if kind == "cluster" and self.scores is not None:
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
        unknown |= self.edge
        matrix[unknown, :] = matrix[:, unknown] = np.nan
        return pd.DataFrame(matrix, self.params.index, self.params.index)

    @strict_keywords
    def conf_int(
        self, ci_prob: float = 0.9, *, kind: str = "observed", groups: str | None = None
    ) -> pd.DataFrame:
        """Return Wald intervals of a mass, columns lower and upper."""
        real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
        errors = self.standard_errors(kind, groups=groups)
        half = self.quantile(0.5 + ci_prob / 2, kind, groups=groups) * errors
        return pd.DataFrame({"lower": self.params - half, "upper": self.params + half})

    @strict_keywords
    def summary(
        self, ci_prob: float = 0.9, *, kind: str = "observed", groups: str | None = None
    ) -> pd.DataFrame:
        """Return estimates, standard errors, z, p and Wald intervals, one row per parameter.

        Where the flow is counted from the panel, `flow_bias` is the error that this is expected to
        cause in the estimate along it, in standard errors of that.
        """
        errors = self.standard_errors(kind, groups=groups)
        z = self.params / errors
        interval = self.conf_int(ci_prob, kind=kind, groups=groups)
        name = f"{100 * ci_prob:g}%"
        degrees = self.degrees(kind, groups=groups)
        chance = ndtr(-z.abs()) if np.isinf(degrees) else stdtr(degrees, -z.abs())
        counted = self.counted_flow
        biases = {} if counted is None else {"flow_bias": counted.table["bias_se"]}
        return Table(
            {
                "estimate": self.params,
                "std_err": errors,
                "z": z,
                "p": pd.Series(2 * np.asarray(chance), self.params.index),
                **biases,
                f"lower {name}": interval["lower"],
                f"upper {name}": interval["upper"],
            }
        )

    def __repr__(self) -> str:
        state = "converged" if self.converged else "NOT converged"
        lines = [
            f"{self.kind}: log likelihood {self.llf:.3f}, {self.nobs} decisions of "
            f"{self.n_trajectories} trajectories, {state} ({self.reason})",
            self.summary().to_string(float_format=lambda v: f"{v:.4g}"),
            self._basis(),
            *self._of_kinds(),
            *(f"warning: {m}" for m in self.messages),
        ]
        return "\n".join(lines)

    def _of_kinds(self) -> list[str]:
        """Return how many agents are of each kind, and how many starts found it so."""
        if self.kinds is None:
            return []
        expected = ", ".join(f"{n:.1f}" for n in self.kinds.sum())
        best = int((max(self.attained) - np.array(self.attained) < REACHED).sum())
        n = len(self.attained)
        starts = f"{best} of {n} starts reach this maximum" if n > 1 else "from one start"
        return [f"kinds: {expected} agents expected; {starts}"]

    def _basis(self) -> str:
        if np.isfinite(self.dof):
            return (
                f"std_err from the parts' estimates; 90% intervals of t with {self.dof:g} degrees"
            )
        lines = ["std_err from the observed information; 90% Wald intervals"]
        if self.counted_flow is not None and not self.counted_flow.messages():
            lines.append(str(self.counted_flow))
        return "\n".join(lines)

    @functools.cached_property
    def curvature(self) -> Curvature:
        """What the information says of each unconstrained direction."""
        return analyse_curvature(self.information, self.probes, self.sizes)


def clusters_for(kind: str, groups: str | None) -> str:
    """Return what the clusters of a kind of covariance are, else raise: others have none."""
    one_of("kind", kind, ["observed", "opg", "cluster"])
    if groups is not None and kind != "cluster":
        raise ValueError(
            f"`groups` belongs to kind='cluster'; got groups={groups!r} with kind={kind!r}, which "
            "does not cluster."
        )
    return "agent" if groups is None else groups


def point_values(
    program: Program, fit: PointEstimate | Mapping[str, Any], *, argument: str = "fit"
) -> dict[str, Any]:
    """Return constrained values by site of a point fit or of a mapping, else raise."""
    if not isinstance(fit, PointEstimate):
        return checked_values(argument, fit, program.sites, complete=True)
    if list(fit.params.index) != program.entry_names():
        raise ValueError(
            f"`{argument}` has the parameters {list(fit.params.index)}; the model has "
            f"{program.entry_names()}."
        )
    return program.by_site(fit.params.to_numpy())
