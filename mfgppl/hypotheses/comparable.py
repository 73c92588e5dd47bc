"""What tests ask of the fits that they are given."""

from typing import Any

import numpy as np

from mfgppl._arguments import is_a
from mfgppl.estimation.point_estimate import PointEstimate

ROUNDING = 1e-9  # of a log likelihood, relative


def check_mle(name: str, fit: Any, *, or_separated: bool = False) -> None:
    """Raise unless a fit is a converged maximum of the likelihood, or has none at all."""
    is_a(name, fit, PointEstimate, " Fit the model with mle.")
    if fit.kind != "mle":
        raise ValueError(
            f"`{name}` must be a maximum likelihood estimate; got {fit.kind!r}, whose prior enters "
            "the test. Fit the model with mle."
        )
    if not fit.converged and not (or_separated and fit.separated is not None):
        raise ValueError(
            f"`{name}` has not converged ({fit.reason}); fit it again with init= or restarts=."
        )


def check_estimate(name: str, fit: Any) -> None:
    """Raise unless a fit is a converged estimate of the panel alone, with errors of its own."""
    is_a(name, fit, PointEstimate, " Fit the model with mle.")
    if fit.kind.startswith("map"):
        check_mle(name, fit)
    if not fit.converged:
        raise ValueError(
            f"`{name}` has not converged ({fit.reason}); fit it again with init= or restarts=."
        )


def check_same_data(a: PointEstimate, b: PointEstimate, names: str) -> None:
    """Raise unless two fits are of the same decisions of the same trajectories."""
    same = a.nobs == b.nobs and a.n_trajectories == b.n_trajectories
    if same and "agent" in a.groups and "agent" in b.groups:
        same = np.array_equal(a.groups["agent"], b.groups["agent"])
    if not same:
        raise ValueError(
            f"{names} must be fits of the same data; got {a.nobs} decisions of {a.n_trajectories} "
            f"trajectories and {b.nobs} decisions of {b.n_trajectories}, or other agents."
        )


def n_known(fit: PointEstimate) -> int:
    """Return how many directions of the parameters the data identify."""
    return len(fit.theta) - len(fit.curvature.flat)
