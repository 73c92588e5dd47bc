"""A network between types: who is whose neighbour, and with what weight."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse

from mfgppl._arguments import is_a, strict_keywords, suggestion
from mfgppl.data.edges import (
    SOURCE,
    TARGET,
    WEIGHT,
    Edges,
    edge_table,
    node_label,
    of_one_kind,
    read_edges,
)
from mfgppl.data.space import StateSpace
from mfgppl.exceptions import DataError, Fault


class Network:
    """A network whose nodes are types: regions, blocks, positions of a graphon.

    With weights `W[c, k]` of what type c sees of type k, of masses m and flows mu, agents of type c
    meet `sum_k W[c, k] m_k mu_k / sum_k W[c, k] m_k`: neighbours count by their numbers, so that
    the complete network is one crowd that all share. Not normalised, it is the numerator alone, as
    on a graphon, and its sum is the degree.

    Parameters
    ----------
    edges : table, labelled matrix, networkx graph or libpysal graph
        A table with the columns `from` (who sees), `to` (who is seen), `weight` (1 where there is
        none) and any others, numbers of each edge (`x.neighbours.edge("distance")`); a DataFrame
        or DataArray with the same labels on both sides, whose rows see columns; a scipy.sparse
        matrix with `labels`; a networkx graph, whose edges count both ways unless it is directed;
        a libpysal `Graph` or `W`. Edges of weight zero are no edges.
    of : str or list of str, optional
        The type, or types, whose labels the nodes have (tuples of labels, of several); by default
        the game's only one.
    normalise : "rows" or None
        Whether what is met sums to 1.
    self_loops : bool
        Whether a node may see itself: blocks and one's own crowd need it.
    isolates : bool
        Whether nodes may see nobody. Theirs is an empty crowd, all shares of it 0.
    labels : list, optional
        Labels of the nodes, of a sparse matrix, or of nodes without edges.

    Raises
    ------
    DataError
        With all faults of the edges in one table: missing ends, weights that are negative or no
        numbers, edges that come twice, nodes that see themselves.
    TypeError, ValueError
        If `edges` is no network, or an option is wrong.

    Notes
    -----
    Nodes are found by their labels, never by their order.
    """

    labels: tuple[Any, ...]
    normalise: str | None
    of: tuple[str, ...] | None
    isolates: bool

    @strict_keywords
    def __init__(
        self,
        edges: Any,
        *,
        of: str | Sequence[str] | None = None,
        normalise: str | None = "rows",
        self_loops: bool = False,
        isolates: bool = False,
        labels: Iterable[Any] | None = None,
    ) -> None:
        if normalise is not None and not (isinstance(normalise, str) and normalise == "rows"):
            raise ValueError(f"`normalise` must be 'rows' or None; got {normalise!r}.")
        self.of = _names(of)
        self.normalise = normalise
        self.isolates = is_a("isolates", isolates, bool)
        table, nodes = edge_table(edges, labels)
        self._put(read_edges(table, nodes, self_loops=is_a("self_loops", self_loops, bool)))

    def _put(self, edges: Edges) -> "Network":
        self._edges, self.labels = edges, edges.labels
        return self

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.labels)

    @property
    def n_edges(self) -> int:
        """Number of edges E, each way counted."""
        return len(self._edges.source)

    @property
    def weight(self) -> np.ndarray:
        """Weight of each edge, (E,)."""
        return self._edges.weight

    @property
    def attributes(self) -> dict[str, np.ndarray]:
        """Other numbers of each edge, by name, (E,) each."""
        return self._edges.attributes

    def to_frame(self) -> pd.DataFrame:
        """Return the edges as a table, one row per edge."""
        names = np.empty(self.n_nodes, dtype=object)
        names[:] = self.labels
        ends = {SOURCE: names[self._edges.source], TARGET: names[self._edges.target]}
        return pd.DataFrame({**ends, WEIGHT: self.weight, **self.attributes}).infer_objects()

    def to_scipy(self) -> scipy.sparse.csr_array:
        """Return the weights as a sparse matrix, in the order of `labels`; rows see columns."""
        where = self._edges.source, self._edges.target
        return scipy.sparse.csr_array((self.weight, where), shape=(self.n_nodes, self.n_nodes))

    def without(
        self, *, nodes: Iterable[Any] = (), edges: Iterable[tuple[Any, Any]] = ()
    ) -> "Network":
        """Return the network without some edges, or all edges of some nodes.

        The nodes stay, and see nobody where no edge is left: a world in which a link is closed or
        a hub removed, `counterfactual(..., game.replace(meets=network.without(nodes=["hub"])))`.

        Parameters
        ----------
        nodes : iterable of labels
            Nodes whose edges go, both ways.
        edges : iterable of pairs of labels
            Edges that go, (from, to) each.

        Raises
        ------
        ValueError
            If a node or an edge is not there.
        """
        position = {label: k for k, label in enumerate(self.labels)}
        _check_lists(nodes, edges)
        gone = [node_label(v) for v in nodes]
        pairs = [(node_label(a), node_label(b)) for a, b in edges]
        for label in [*gone, *(v for pair in pairs for v in pair)]:
            if label not in position:
                hint = suggestion(label, self.labels)
                raise ValueError(f"the network has no node {label!r}.{hint}")
        source, target = self._edges.source, self._edges.target
        isolated = [position[v] for v in gone]
        drop = np.isin(source, isolated) | np.isin(target, isolated)
        for a, b in pairs:
            this = (source == position[a]) & (target == position[b])
            if not this.any():
                raise ValueError(f"the network has no edge from {a!r} to {b!r}.")
            drop |= this
        return self._with(
            self._edges._replace(
                source=source[~drop],
                target=target[~drop],
                weight=self.weight[~drop],
                attributes={k: v[~drop] for k, v in self.attributes.items()},
            ),
            isolates=True,
        )

    def _with(self, edges: Edges, **changes: Any) -> "Network":
        """Return a network with other edges."""
        made = object.__new__(Network)
        vars(made).update(vars(self) | changes)
        return made._put(edges)

    def matched(self, space: StateSpace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the node of each cell of types, and the edges' ends as positions of such nodes.

        Parameters
        ----------
        space : StateSpace
            The types.

        Returns
        -------
        node : ndarray of int, shape (C,)
            Of each cell, in the order of the types' labels.
        source, target : ndarray of int, shape (E,)
            Ends of the edges in the same order.

        Raises
        ------
        DataError
            If a node is no label of the types, or a label sees nobody that may not.
        """
        of = self._types(space)
        cells = space.cells
        codes = dict(zip(cells.coordinates, cells.codes, strict=True))
        sizes = [len(space.coordinates[name]) for name in of]
        node = np.ravel_multi_index([codes[name] for name in of], sizes)
        names = StateSpace({name: space.coordinates[name] for name in of})
        labels = [label if len(of) > 1 else label[0] for label in names.tuples]
        position = {label: k for k, label in enumerate(labels)}
        where = np.array([position.get(label, -1) for label in self.labels])
        source, target = where[self._edges.source], where[self._edges.target]
        faults = []
        unknown = [label for label, k in zip(self.labels, where, strict=True) if k < 0]
        if unknown:
            faults.append(_unknown(unknown, labels))
        alone = np.setdiff1d(np.arange(len(labels)), source)
        if len(alone) and not self.isolates:
            faults.append(
                Fault(
                    "a type that sees nobody",
                    len(alone),
                    tuple(str(labels[k]) for k in alone[:3]),
                    "give it an edge, or isolates=True",
                )
            )
        if faults:
            raise DataError(faults, "the network")
        return node, source, target

    def placed(self, space: StateSpace) -> "Network":
        """Return the network with the types named that its nodes are of."""
        return self._with(self._edges, of=self._types(space))

    def _types(self, space: StateSpace) -> tuple[str, ...]:
        """Return the types whose labels the nodes have, else raise."""
        if self.of is None:
            if len(space.types) == 1:
                return space.types
            declared = f"the types {list(space.types)}" if space.types else "no types"
            raise ValueError(
                f"a game with {declared} needs to know whose labels a network's nodes have: "
                "declare types, and name one (or several) in Network(..., of=)."
            )
        for name in self.of:
            if name not in space.types:
                known = f"the types are {list(space.types)}" if space.types else "there are none"
                raise ValueError(
                    f"Network(of={name!r}) must name a type of the game; {known}."
                    f"{suggestion(name, space.types)}"
                )
        return self.of

    def __repr__(self) -> str:
        of = "" if self.of is None else f" of {' and '.join(self.of)}"
        kind = "normalised" if self.normalise else "not normalised"
        return f"Network({self.n_nodes} nodes{of}, {self.n_edges} edges, {kind})"


def _check_lists(nodes: Any, edges: Any) -> None:
    """Raise unless nodes are in a list, and edges pairs in one."""
    if isinstance(nodes, (str, bytes)) or not isinstance(nodes, Iterable):
        raise TypeError(f"`nodes` must be a list of labels, as [{nodes!r}]; got {nodes!r}.")
    whole = isinstance(edges, Iterable) and not isinstance(edges, (str, bytes))
    if not whole or not all(isinstance(e, (tuple, list)) and len(e) == 2 for e in edges):
        raise TypeError(f"`edges` must be a list of pairs (from, to); got {edges!r}.")


def _names(of: Any) -> tuple[str, ...] | None:
    if of is None:
        return None
    names = (of,) if isinstance(of, str) or not isinstance(of, Sequence) else tuple(of)
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"`of` must be the name of a type, or a list of them; got {of!r}.")
    return names


def _unknown(unknown: Sequence[Any], labels: Sequence[Any]) -> Fault:
    """Say which nodes are no labels of the types, and whether they are but for their kind."""
    listed = f"the labels are {', '.join(map(str, labels[:5]))}{', ...' * (len(labels) > 5)}"
    declare = listed + "; types={...: network.labels} declares the network's"
    remedy = of_one_kind(unknown, labels) or declare
    examples = tuple(repr(v) for v in unknown[:3])
    return Fault("a node that is no label of the types", len(unknown), examples, remedy)
