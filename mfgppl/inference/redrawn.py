"""Fits of many panels from one world: what does not depend on the panel is worked out once."""

import copy

import numpy as np
import torch

from mfgppl.data.panel import Panel
from mfgppl.inference.compiled import density_of
from mfgppl.inference.estimate import PointEstimate
from mfgppl.inference.held import HeldMaximum, climb_held, maximise_held, whitening
from mfgppl.inference.point import Objective
from mfgppl.likelihood.model import TrajectoryModel


def redrawn(model: TrajectoryModel, panel: Panel) -> TrajectoryModel:
    """Return the model of a panel drawn from a model's own world, without checking it again.

    Where the flow is given or solved for, the new model shares dynamics, compiled reward program
    and anchor with the old one, for which alone they are worked out. Where it is the panel's own,
    this is `with_panel`.

    Parameters
    ----------
    model : TrajectoryModel
        A model with the causal likelihood.
    panel : Panel
        Simulated from the model's game, replayed from it, or resampled from its panel.
    """
    if model.flow_is_empirical:
        return model.with_panel(panel)
    found = copy.copy(model)
    found.panel = panel.pooled() if model.game.stationary else panel
    found.likelihood = model.likelihood_of(found.panel, model.likelihood.transition)
    vars(found.likelihood)["kernel_tables"] = model.likelihood.kernel_tables
    found.observed = torch.as_tensor(found.likelihood.counts.actions)
    density = copy.copy(density_of(model))
    density.model = found
    vars(found)["_density"] = density
    return found


def maximum_near(model: TrajectoryModel, fit: PointEstimate) -> np.ndarray | None:
    """Return the constrained estimates of `climb_near`, None where it did not converge."""
    found = climb_near(model, fit)
    return density_of(model).constrained(found.theta[None])[0] if found.converged else None


def climb_near(model: TrajectoryModel, fit: PointEstimate) -> HeldMaximum:
    """Maximise the likelihood near a fit of a like panel.

    L-BFGS in coordinates in which the fit's curvature is that of the unit normal, down to a
    gradient that could move the estimate by a thousandth of a standard error; with the scale taken
    anew where that ends too early, as where the panel's maximum is far from the fit.
    """
    density = density_of(model)
    nothing = np.zeros(density.n_dim, dtype=bool)
    objective, directions = Objective(density, 0.0, 0.0), whitening(fit.information)
    found = maximise_held(objective, fit.theta, nothing, directions)
    return found if found.converged else climb_held(objective, found.theta, nothing)
