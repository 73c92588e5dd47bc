"""The density of a model, compiled at the first call and kept with the model."""

from typing import Any

import torch

from mfgppl._keep import keep
from mfgppl.data.panel import Panel
from mfgppl.density.at_equilibrium import CoupledDensity
from mfgppl.density.plug_in import PlugInDensity
from mfgppl.density.protocol import LogDensity
from mfgppl.likelihood.model import TrajectoryModel


def density_of(model: TrajectoryModel, *, progressbar: bool = False) -> LogDensity:
    """Return the log density of a model: along a flow that is given, or that it solves for."""
    kind = CoupledDensity if model.coupled else PlugInDensity
    return keep(model, "density", lambda: kind.of_model(model, progressbar=progressbar))


def of_panel(model: TrajectoryModel, panel: Panel, mean_field: Any) -> TrajectoryModel:
    """Return `model.with_panel`, which along the model's own flow shares its compiled program."""
    other = model.with_panel(panel, mean_field=mean_field)
    apart = model.coupled or other.coupled or model.samples_agents
    if not apart and torch.equal(other.mean_field, model.mean_field):
        keep(other, "density", lambda: density_of(model).for_model(other))
    return other


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
    other = model.redrawn(panel)
    keep(other, "density", lambda: density_of(model).for_model(other))
    return other
