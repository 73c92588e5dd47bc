"""Fits of many panels from one world: what does not depend on the panel is worked out once."""

import numpy as np

from mfgppl.density.climb import HeldMaximum, Objective, climb_held, maximise_held, whitening
from mfgppl.density.curvature import TOUCHES, unit_curvature
from mfgppl.density.of_model import density_of
from mfgppl.estimation.newton import Slopes, bends_along
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel

NOTHING = 1e-4  # share of the fit's information that is none: errors a hundred times as large


def maximum_near(model: TrajectoryModel, fit: PointEstimate) -> np.ndarray | None:
    """Return the constrained estimates (P,) of `climb_near`, None where it did not converge.

    NaN where the panel does not determine what the fit's panel does.
    """
    maximum = climb_near(model, fit)
    return values_near(model, fit, maximum.theta) if maximum.converged else None


def values_near(model: TrajectoryModel, fit: PointEstimate, theta: np.ndarray) -> np.ndarray:
    """Return the constrained estimates (P,) at a maximum near a fit, as `maximum_near` does."""
    density = density_of(model)
    values = density.constrained(theta[None])[0]
    return determined(values, Objective(density, 0.0, 0.0), theta, fit)


def determined(
    values: np.ndarray, height: Slopes, theta: np.ndarray, fit: PointEstimate
) -> np.ndarray:
    """Return estimates (P,), NaN where a panel does not determine what a fit's panel does.

    These are parameters which move along a direction in which the panel's likelihood has all but
    none of the fit's curvature. A climb leaves them where it began, as where nobody is seen whom
    they concern, or goes on until the slope is lost, as where all of these choose alike.

    Parameters
    ----------
    values : ndarray, shape (P,)
        Constrained estimates.
    height : Slopes
        The panel's log likelihood.
    theta : ndarray, shape (K,)
        Its maximum.
    fit : PointEstimate
        The fit of a like panel.
    """
    directions, bends = unit_curvature(fit.information, fit.sizes)
    known = directions[:, bends]
    curvature = -bends_along(height, theta, known)
    if not np.isfinite(curvature).all():
        return np.full_like(values, np.nan)
    eigenvalues, vectors = np.linalg.eigh(curvature)
    moves = fit.jacobian @ known @ vectors
    variance, lost = (moves**2).sum(1), (moves[:, eigenvalues < NOTHING] ** 2).sum(1)
    return np.where(lost > TOUCHES * variance, np.nan, values)


def climb_near(model: TrajectoryModel, fit: PointEstimate) -> HeldMaximum:
    """Maximise the likelihood near a fit of a like panel.

    L-BFGS in coordinates in which the fit's curvature is that of the unit normal, down to a
    gradient that could move the estimate by a thousandth of a standard error; with the scale taken
    anew where that ends too early, as where the panel's maximum is far from the fit.
    """
    density = density_of(model)
    nothing = np.zeros(density.n_dim, dtype=bool)
    objective, directions = Objective(density, 0.0, 0.0), whitening(fit.information, fit.sizes)
    maximum = maximise_held(objective, fit.theta, nothing, directions)
    return maximum if maximum.converged else climb_held(objective, maximum.theta, nothing)
