"""A panel in parts: random groups of agents, or of clusters that stay together."""

import numpy as np
import pandas as pd

from mfgppl._arguments import one_of, positive_int
from mfgppl.data.panel import Panel
from mfgppl.data.trajectories import Trajectories


def clusters_of(panel: Panel) -> dict[str, np.ndarray]:
    """Return what trajectories can be grouped by, (J,) each: agents, groups and types.

    Nothing where the panel is counted only.
    """
    if not isinstance(panel, Trajectories):
        return {}
    first, columns = panel.state[panel.offsets[:-1]], panel.space.columns
    types = {name: columns[name][first] for name in panel.space.types}
    return {"agent": panel.agents, **types, **panel.groups}


def random_parts(
    panel: Trajectories, by: str, n_parts: int | None, stream: int, *, what: str, argument: str
) -> list[np.ndarray]:
    """Return the trajectories of each part, else raise.

    Parameters
    ----------
    panel : Trajectories
        The panel.
    by : str
        What stays together: "agent", or one of the panel's groups or types.
    n_parts : int, optional
        Number of parts at most; with None each agent (group) is one.
    stream : int
        Seed of the parts.
    what, argument : str
        Who asks, and the name of `n_parts` there, for messages.
    """
    clusters = clusters_of(panel)
    one_of("by", by, list(clusters))
    codes, units = pd.factorize(clusters[by])
    n_units = len(units)
    if n_units < 2:
        raise ValueError(f"{what} needs two parts at least; `by` {by!r} has one value.")
    most = n_units if n_parts is None else positive_int(argument, n_parts, least=2)
    n_folds = min(most, n_units)
    fold = np.empty(n_units, dtype=int)
    fold[np.random.default_rng(stream).permutation(n_units)] = np.arange(n_units) % n_folds
    return [np.flatnonzero(fold[codes] == k) for k in range(n_folds)]
