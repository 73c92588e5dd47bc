"""The record of a point fit, in statsmodels' words."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from mfgppl._arguments import one_of, real_between
from mfgppl.inference.curvature import Curvature, analyse_curvature
from mfgppl.inference.program import Program

EDGE = 1e-5  # slope of the constraint below which a parameter counts as at its edge


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

    @property
    def aic(self) -> float:
        """Akaike's criterion, `2 K - 2 llf`, with K the directions that the data know."""
        return 2 * (len(self.theta) - len(self._curvature.flat)) - 2 * self.llf

    @property
    def bic(self) -> float:
        """Schwarz's criterion with the number of trajectories as sample size."""
        known = len(self.theta) - len(self._curvature.flat)
        return float(known * np.log(self.n_trajectories) - 2 * self.llf)

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
        if kind != "observed" and self.scores is None:
            raise ValueError(
                f"`kind` {kind!r} needs the trajectories one by one, which a counted panel does "
                "not keep; read the table with Trajectories.from_frame."
            )
        curvature = self._curvature
        covariance, known = curvature.covariance, curvature.known
        if kind == "opg" and self.scores is not None:
            opg = analyse_curvature(self.scores.T @ self.scores)
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
        unknown |= np.abs(self.jacobian).max(1) < EDGE
        matrix[unknown, :] = matrix[:, unknown] = np.nan
        return pd.DataFrame(matrix, self.params.index, self.params.index)

    def conf_int(
        self, level: float = 0.9, *, kind: str = "observed", groups: str = "agent"
    ) -> pd.DataFrame:
        """Return Wald intervals of a level, columns lower and upper."""
        real_between("level", level, above=0.0, upto=1.0, strict=True)
        half = ndtri(0.5 + level / 2) * self.standard_errors(kind, groups=groups)
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
                "p": pd.Series(2 * ndtr(-z.abs()), self.params.index),
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
            "std_err from the observed information; 90% Wald intervals",
            *(f"warning: {m}" for m in self.messages),
        ]
        return "\n".join(lines)

    @functools.cached_property
    def _curvature(self) -> Curvature:
        return analyse_curvature(self.information, self.probes)


def point_values(
    program: Program, fit: PointEstimate | Mapping[str, Any], *, argument: str = "fit"
) -> dict[str, Any]:
    """Return constrained values by site of a point fit or of a mapping, else raise."""
    if not isinstance(fit, PointEstimate):
        return program.check_values(argument, fit, complete=True)
    if list(fit.params.index) != program.entry_names():
        raise ValueError(
            f"`{argument}` has the parameters {list(fit.params.index)}; the model has "
            f"{program.entry_names()}."
        )
    return program.by_site(fit.params.to_numpy())
