"""The density of a model, compiled at the first call and kept with the model."""

from typing import Any

import numpy as np
import torch

from mfgppl._keep import keep
from mfgppl._quasi_newton import maximise
from mfgppl.data.panel import Panel
from mfgppl.density.coupled import CoupledDensity
from mfgppl.density.groups import start_from_groups
from mfgppl.density.kinds import sites_of
from mfgppl.density.plug_in import PlugInDensity
from mfgppl.density.protocol import LogDensity
from mfgppl.density.sizes import climbing_units, effects_of, slope_at
from mfgppl.likelihood.action_counts import FixedFlow
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.model import TrajectoryModel

GROUPINGS = 4  # of agents, from which a coupled model's first fit climbs


def density_of(model: TrajectoryModel, *, progressbar: bool = False) -> LogDensity:
    """Return the log density of a model."""
    return keep(model, "density", lambda: _compiled(model, model.law, progressbar))


def _compiled(
    model: TrajectoryModel, law: FixedFlow | CoupledLikelihood, progressbar: bool
) -> LogDensity:
    if model.coupled:
        assert isinstance(law, (CoupledLikelihood, KindsLikelihood))
        return CoupledDensity(model, law, *_plug_in_mode(model, progressbar))
    assert not isinstance(law, CoupledLikelihood)
    return PlugInDensity(model, law, progressbar=progressbar)


def _plug_in_mode(model: TrajectoryModel, progressbar: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the posterior's mode (K,) along the flow where a coupled model's search begins.

    And the steps of parameters that are of order one. Where kinds are not seen it is the highest of
    those that several groupings of the agents lead to.
    """
    density = density_of(model.uncoupled(), progressbar=progressbar)
    start = density.start(0)
    slope = slope_at(density.program, start)[1]
    units = climbing_units(density, effects_of(density, start), slope, prior=1.0)
    starts = [start]
    if model.nodes is not None and sites_of(model, kinds=True):
        starts = [start_from_groups(density, start, units, seed) for seed in range(GROUPINGS)]
    evaluate = density.evaluator()
    ends = [maximise(evaluate, begun, units=units).point for begun in starts]
    return max(ends, key=lambda end: evaluate(end)[0]), units


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
