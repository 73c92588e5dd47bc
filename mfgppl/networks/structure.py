"""What a network can show, before any fit.

Effects of neighbours are separated from other causes by differences between neighbourhoods: of
those who act at one time some must meet another crowd than others, and neighbours of neighbours
must not all be neighbours.

References
----------
.. [1] Bramoulle, Djebbari and Fortin (2009), *Identification of peer effects through social
   networks*, Journal of Econometrics 150, proposition 1: linear-in-means models are identified if
   I, G and G^2 are linearly independent, with G the network whose rows sum to 1.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
import torch
import xarray as xr
from scipy.sparse.csgraph import connected_components

from mfgppl._arguments import is_a, strict_keywords
from mfgppl._meeting import meeting_of, ratio
from mfgppl.data.space import state_labels, text_labels
from mfgppl.data.trajectories import Trajectories
from mfgppl.network import Network

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
DEPENDENT = 1e-10  # eigenvalue of the matrices' cosines below which they are linearly dependent
NARROW = 0.1  # spread within a time, relative to that over all times, which is little


class NetworkAudit(NamedTuple):
    """What a network looks like, and what it can show.

    Attributes
    ----------
    n_nodes, n_edges : int
        Numbers of nodes and of edges, each way counted.
    isolates : tuple
        Labels of the nodes that see nobody and are seen by nobody but themselves.
    components : tuple of int
        Sizes of the parts that no edge joins, the largest first.
    degrees : DataFrame
        Quantiles of how many others a node sees, and by how many it is seen.
    reciprocity : float
        Share of edges between two nodes that go both ways.
    rank : int
        Number of linearly independent matrices among I, G and G^2.
    condition : float
        Ratio of the largest to the smallest singular value of the three, each of length one.
    intransitive : float
        Share of paths of two edges whose ends no edge joins.
    exposure : DataFrame or None
        Of each label of the states: the mean share met, its standard deviation over those who
        decide at a time, on average over times, and that over all; of a panel.
    verdict : str
        All of it in words.
    network : Network
        The network.
    met : DataArray or None
        Shares of states that each type meets, dims (type, time, state), of a panel.
    """

    n_nodes: int
    n_edges: int
    isolates: tuple[Any, ...]
    components: tuple[int, ...]
    degrees: pd.DataFrame
    reciprocity: float
    rank: int
    condition: float
    intransitive: float
    exposure: pd.DataFrame | None
    verdict: str
    network: Network
    met: xr.DataArray | None

    def summary(self) -> pd.Series:
        """Return the numbers as one column."""
        return pd.Series(
            {
                "nodes": self.n_nodes,
                "edges": self.n_edges,
                "isolates": len(self.isolates),
                "components": len(self.components),
                "largest component": self.components[0],
                "median degree": self.degrees["sees"].loc[0.5],
                "largest degree": self.degrees["sees"].loc[1.0],
                "reciprocity": self.reciprocity,
                "rank of I, G, G^2": self.rank,
                "condition of I, G, G^2": self.condition,
                "intransitive pairs": self.intransitive,
            },
            name="network",
            dtype=object,
        )

    def __str__(self) -> str:
        return self.verdict


@strict_keywords
def audit(network: Network, panel: Trajectories | None = None) -> NetworkAudit:
    """Look at what a network can show of those who meet through it, before any fit.

    Parameters
    ----------
    network : Network
        The network.
    panel : Trajectories, optional
        A panel with the types that the network joins: how much do neighbourhoods differ at a time?

    Returns
    -------
    NetworkAudit
        Numbers, and a verdict in words.

    Raises
    ------
    TypeError
        If `network` is no Network, or `panel` no panel.
    DataError, ValueError
        If the network does not fit the panel's types.
    """
    is_a("network", network, Network)
    weights = network.to_scipy()
    between = scipy.sparse.csr_array(weights - scipy.sparse.diags_array(weights.diagonal()))
    between.eliminate_zeros()
    there = (between > 0).astype(float)
    sees, seen = there.sum(1), there.sum(0)
    degrees = pd.DataFrame(
        {"sees": np.quantile(sees, SHARES), "seen by": np.quantile(seen, SHARES)}, index=SHARES
    )
    degrees.index.name = "quantile"
    _, part = connected_components(there, directed=False)
    sizes = np.sort(np.bincount(part))[::-1]
    isolates = tuple(network.labels[k] for k in np.flatnonzero(sees + seen == 0))
    rank, condition = _independence(weights)
    both = there.multiply(there.T).sum()
    met = None if panel is None else _shares_met(network, is_a("panel", panel, Trajectories))
    exposure = None if panel is None or met is None else _spread(met, panel)
    found = NetworkAudit(
        n_nodes=network.n_nodes,
        n_edges=network.n_edges,
        isolates=isolates,
        components=tuple(int(n) for n in sizes),
        degrees=degrees,
        reciprocity=float(both / there.sum()) if there.nnz else np.nan,
        rank=rank,
        condition=condition,
        intransitive=_intransitive(there),
        exposure=exposure,
        verdict="",
        network=network,
        met=met,
    )
    return found._replace(verdict=" ".join(_sentences(found)))


def _independence(weights: scipy.sparse.csr_array) -> tuple[int, float]:
    """Return how many of I, G and G^2 are independent, and the condition of all three."""
    total = np.asarray(weights.sum(1)).reshape(-1)
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    once = scipy.sparse.csr_array(scipy.sparse.diags_array(scale) @ weights)
    three = [scipy.sparse.eye_array(len(total), format="csr"), once, once @ once]
    inner = np.array([[a.multiply(b).sum() for b in three] for a in three])
    size = np.sqrt(np.diag(inner))
    size[size == 0] = 1.0
    eigenvalues = np.linalg.eigvalsh(inner / np.outer(size, size))
    rank = int((eigenvalues > DEPENDENT).sum())
    if rank < 3:
        return rank, np.inf
    return rank, float(np.sqrt(eigenvalues[-1] / eigenvalues[0]))


def _intransitive(there: scipy.sparse.csr_array) -> float:
    """Return the share of paths i -> j -> k of different nodes without an edge i -> k."""
    paths = scipy.sparse.csr_array(there @ there)
    ends = paths.sum() - paths.diagonal().sum()
    if not ends:
        return float("nan")
    return float(1 - paths.multiply(there).sum() / ends)


def _by_cell(panel: Trajectories) -> torch.Tensor:
    flow = torch.from_numpy(np.asarray(panel.mean_field(), dtype=float))
    return flow.reshape(len(flow), panel.space.n_cells, -1)


def _shares_met(network: Network, panel: Trajectories) -> xr.DataArray:
    """Return the shares of states that each type meets at each time."""
    meeting = meeting_of(network, panel.space)
    met = meeting.seen(_by_cell(panel))
    if meeting.normalised:
        met = ratio(met, met.sum(2, keepdim=True))
    coords = {
        "type": text_labels(panel.space.cells.labels),
        "time": list(panel.periods.resized(met.shape[1])),
        "state": state_labels(panel.space.within),
    }
    return xr.DataArray(met.numpy(), coords, ("type", "time", "state"))


def _spread(met: xr.DataArray, panel: Trajectories) -> pd.DataFrame:
    """Return how the shares met vary, at a time and over all, weighed by those who are there."""
    space = panel.space
    weights = _by_cell(panel).sum(2).T.numpy()  # (C, T)
    weights = weights / weights.sum()
    rows = {}
    inner = space.within
    for code, (name, labels) in zip(inner.codes, inner.coordinates.items(), strict=True):
        for k, label in enumerate(labels):
            share = met.values[..., code == k].sum(-1)
            rows[name, label] = _deviations(share, weights)
    columns = ["mean", "within a time", "over all"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    table.index = pd.MultiIndex.from_tuples(table.index, names=["coordinate", "label"])
    return table


def _deviations(share: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """Return a mean, the standard deviation within columns and that over all entries (C, T)."""
    mean = (weights * share).sum()
    at_time = weights.sum(0)
    each = np.divide(
        (weights * share).sum(0), at_time, out=np.zeros_like(at_time), where=at_time > 0
    )
    within = (weights * (share - each) ** 2).sum()
    return (
        float(mean),
        float(np.sqrt(within)),
        float(np.sqrt((weights * (share - mean) ** 2).sum())),
    )


def _sentences(found: NetworkAudit) -> list[str]:
    """Return what follows from the numbers, a sentence each."""
    said = [f"{found.n_nodes} nodes, {found.n_edges} edges."]
    if found.isolates:
        shown = ", ".join(map(str, found.isolates[:3]))
        said.append(
            f"Nodes without an edge to another: {len(found.isolates)} ({shown}); they are "
            "informative about everything but the crowd."
        )
    if len(found.components) - len(found.isolates) > 1:
        said.append(
            f"There are {len(found.components)} parts that no edge joins, the largest with "
            f"{found.components[0]} nodes: each has a crowd of its own."
        )
    if found.rank < 3:
        said.append(
            "I, G and G^2 are linearly dependent: the network alone does not separate what "
            "neighbours do from what they are, as in groups of equal size that all meet."
        )
    else:
        said.append(
            f"I, G and G^2 are linearly independent (condition {found.condition:.3g}): neighbours "
            "of neighbours separate what neighbours do from what they are."
        )
    if np.isfinite(found.intransitive):
        said.append(
            f"Of paths of two edges, {100 * found.intransitive:.0f} % join nodes that are no "
            "neighbours."
        )
    if found.exposure is not None:
        said.append(_of_exposure(found.exposure))
    return said


def _of_exposure(table: pd.DataFrame) -> str:
    largest = int(table["within a time"].argmax())
    row, (name, label) = table.iloc[largest], list(table.index)[largest]
    said = (
        f"At one time the share met with {name} = {label} varies by {row['within a time']:.3g} "
        f"(standard deviation; {row['over all']:.3g} over all times)"
    )
    if row["within a time"] <= NARROW * row["over all"] or row["over all"] == 0:
        return said + ": beside effects of time almost nothing of the crowd is left to see."
    return said + ": this is what is left of the crowd beside effects of time."
