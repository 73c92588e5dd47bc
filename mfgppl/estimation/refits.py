"""Fits of many panels from one world: what does not depend on the panel is worked out once."""

import numpy as np

from mfgppl.density.climb import HeldMaximum, Objective, climb_held, maximise_held, whitening
from mfgppl.density.of_model import density_of
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel


def maximum_near(model: TrajectoryModel, fit: PointEstimate) -> np.ndarray | None:
    """Return the constrained estimates of `climb_near`, None where it did not converge."""
    maximum = climb_near(model, fit)
    return density_of(model).constrained(maximum.theta[None])[0] if maximum.converged else None


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
