"""Where a coupled model's search begins: the plug-in posterior's mode."""

import numpy as np

from mfgppl._quasi_newton import maximise
from mfgppl.density.groups_of_agents import start_from_groups
from mfgppl.density.plug_in import PlugInDensity
from mfgppl.density.sizes import climbing_units, effects_of, slope_at
from mfgppl.density.who_is_who import sites_of
from mfgppl.likelihood.model import TrajectoryModel

GROUPINGS = 4  # of agents, from which a coupled model's first fit climbs


def plug_in_mode(model: TrajectoryModel, *, progressbar: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the posterior's mode (K,) along the flow where a coupled model's search begins.

    And the steps of parameters that are of order one. Where kinds are not seen it is the highest of
    those that several groupings of the agents lead to.
    """
    density = PlugInDensity.of_model(model.uncoupled(), progressbar=progressbar)
    start = density.start(0)
    slope = slope_at(density.program, start)[1]
    units = climbing_units(density, effects_of(density, start), slope, prior=1.0)
    starts = [start]
    if model.nodes is not None and sites_of(model, kinds=True):
        starts = [start_from_groups(density, start, units, seed) for seed in range(GROUPINGS)]
    evaluate = density.evaluator()
    ends = [maximise(evaluate, begun, units=units).point for begun in starts]
    return max(ends, key=lambda end: evaluate(end)[0]), units
