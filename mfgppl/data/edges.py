"""Edges of a network as people have them, read into codes, with all faults found together."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
import xarray as xr

from mfgppl.data.space import plain_label
from mfgppl.exceptions import DataError, Fault

SOURCE, TARGET, WEIGHT = "from", "to", "weight"


class Edges(NamedTuple):
    """Edges between labelled nodes, in order of their ends.

    Attributes
    ----------
    labels : tuple
        Labels of the nodes.
    source, target : ndarray of int, shape (E,)
        Positions of the node that sees and of the one that is seen.
    weight : ndarray, shape (E,)
        Weights, positive.
    attributes : dict of str to ndarray, shape (E,)
        Other numbers of each edge.
    """

    labels: tuple[Any, ...]
    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    attributes: dict[str, np.ndarray]


def node_label(value: Any) -> Any:
    """Return the label of a node, or of several types, as plain values."""
    return tuple(map(plain_label, value)) if isinstance(value, tuple) else plain_label(value)


def edge_table(edges: Any, labels: Iterable[Any] | None) -> tuple[pd.DataFrame, list[Any]]:
    """Return a network in any of its forms as a table of edges, and the nodes that it names.

    Raises
    ------
    TypeError, ValueError
        If it is no network, or a matrix has no labels.
    """
    if labels is not None and not isinstance(labels, Iterable):
        raise TypeError(f"`labels` must be a list of labels; got {labels!r}.")
    given = None if labels is None else [node_label(v) for v in labels]
    if all(hasattr(edges, name) for name in ("is_directed", "edges", "nodes")):
        return _of_networkx(edges), given or [node_label(v) for v in edges.nodes]
    if hasattr(edges, "adjacency") and hasattr(edges, "unique_ids"):
        adjacency = edges.adjacency
        table = adjacency.rename(WEIGHT).rename_axis([SOURCE, TARGET]).reset_index()
        return table, given or [node_label(v) for v in edges.unique_ids]
    if hasattr(edges, "neighbors") and hasattr(edges, "id_order"):
        return _of_weights(edges), given or [node_label(v) for v in edges.id_order]
    if scipy.sparse.issparse(edges):
        return _of_sparse(edges, given), list(given or ())
    if isinstance(edges, xr.DataArray):
        edges = _matrix_of(edges)
    if isinstance(edges, np.ndarray) or not hasattr(edges, "columns"):
        raise TypeError(
            "`edges` must be a table with the columns 'from' and 'to', a labelled matrix, a sparse "
            "matrix with `labels`, a networkx graph, or a libpysal graph; got "
            f"{type(edges).__name__}. Of an array, pd.DataFrame(array, labels, labels) is one; of "
            "a Series, series.reset_index() with such names."
        )
    frame = edges if isinstance(edges, pd.DataFrame) else _in_pandas(edges)
    levels = [name for name in (SOURCE, TARGET) if name in frame.index.names]
    frame = frame.reset_index(levels) if levels else frame
    if SOURCE in frame.columns and TARGET in frame.columns:
        return frame.reset_index(drop=True), list(given or ())
    if set(map(node_label, frame.columns)) == set(map(node_label, frame.index)):
        return _of_matrix(frame), given or [node_label(v) for v in frame.index]
    raise ValueError(
        "`edges` must have the columns 'from' and 'to', or the same labels on both sides; got the "
        f"columns {list(frame.columns)[:8]}."
    )


def read_edges(
    table: pd.DataFrame,
    nodes: Sequence[Any],
    *,
    self_loops: bool = False,
    subject: str = "the network",
    known: bool = False,
) -> Edges:
    """Return a table of edges as codes, without edges of weight zero, in order of their ends.

    Parameters
    ----------
    table : DataFrame
        Columns `from` and `to`, by default of weight 1, and others, which are attributes.
    nodes : sequence
        Nodes that are known to be there beside those of the table.
    self_loops : bool
        Whether a node may see itself.
    subject : str
        What is read, for errors.
    known : bool
        Whether all nodes are known, and others a fault.

    Raises
    ------
    DataError
        If an end is missing, a weight is negative or no number, an edge comes twice, a node sees
        itself that may not, or is not known.
    """
    _check_columns(table)
    ends = {side: [node_label(v) for v in table[side]] for side in (SOURCE, TARGET)}
    weight = _numbers(table, WEIGHT) if WEIGHT in table else np.ones(len(table))
    others = [name for name in table.columns if name not in (SOURCE, TARGET, WEIGHT)]
    attributes = {str(n): v for n in others if (v := _numbers(table, n)) is not None}
    pairs = list(zip(ends[SOURCE], ends[TARGET], strict=True))
    missing = np.array([_is_missing(a) or _is_missing(b) for a, b in pairs])
    if weight is None:
        came = table[WEIGHT].iloc[0]
        raise TypeError(f"`edges` must have numbers in the column {WEIGHT!r}; got {came!r} first.")
    there = {*ends[SOURCE], *ends[TARGET]}
    labels = list(dict.fromkeys([*nodes, *([] if known else _ordered(there - set(nodes)))]))
    position = {label: k for k, label in enumerate(labels)}
    source, target = (np.array([position.get(v, -1) for v in ends[s]], dtype=int) for s in ends)
    unknown = ((source < 0) | (target < 0)) & ~missing if len(table) else np.zeros(0, bool)
    shown = pd.Series([f"{a} -> {b}" for a, b in pairs], dtype=object)
    faults: list[Fault] = []

    def note(wrong: Any, what: str, remedy: str) -> None:
        wrong = np.asarray(wrong, dtype=bool)
        if wrong.any():
            found = shown[wrong]
            faults.append(Fault(what, int(wrong.sum()), tuple(found.iloc[:3]), remedy))

    if not (weight != 0).any():
        what = "no edge of a weight above zero" if len(table) else "no edge"
        faults.append(Fault(what, len(table), (), "give at least one, or meets='everyone'"))
    if len(table):
        note(missing, "an end is missing", "drop these rows or name both nodes")
        named = [*ends[SOURCE], *ends[TARGET]]
        remedy = of_one_kind(named, nodes) or "name nodes as the panel names its agents"
        note(unknown, "an unknown node", remedy)
        note(~np.isfinite(weight), "a weight is no finite number", "give each edge a weight")
        note(weight < 0, "a negative weight", "weights are shares of attention, at least 0")
        twice = "add up or drop them" + "; edges of one time make a network" * ("time" in table)
        note(shown.duplicated(keep=False), "an edge that comes twice", twice)
        if not self_loops:
            itself = np.array([a == b for a, b in pairs]) & (weight != 0)
            remedy = "drop them" if known else "drop them, or self_loops=True"
            note(itself, "a node that sees itself", remedy)
        for name, values in attributes.items():
            note(~np.isfinite(values), f"{name!r} is missing", "give each edge a number")
    if faults:
        raise DataError(faults, subject)
    kept = np.flatnonzero(weight > 0)
    kept = kept[np.lexsort((target[kept], source[kept]))]
    return Edges(
        tuple(labels),
        source[kept],
        target[kept],
        weight[kept],
        {name: values[kept] for name, values in attributes.items()},
    )


def _check_columns(table: pd.DataFrame) -> None:
    """Raise where a column comes twice, or one seems to be meant for weights."""
    names = [str(name) for name in table.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"`edges` has the column {twice[0]!r} twice.")
    close = difflib.get_close_matches(WEIGHT, [n.lower() for n in names], n=1, cutoff=0.8)
    if WEIGHT not in names and close:
        meant = next(n for n in names if n.lower() == close[0])
        raise ValueError(f"`edges` has the column {meant!r}; did you mean {WEIGHT!r}?")


def of_one_kind(labels: Iterable[Any], known: Iterable[Any]) -> str | None:
    """Return the remedy where labels are numbers and the known ones text, or the other way."""
    twins = {str(label): label for label in known}
    for label in labels:
        twin = twins.get(str(label), label)
        if twin != label:
            return f"{label!r} is not {twin!r}: give both the same kind, numbers or text"
    return None


def _numbers(table: pd.DataFrame, name: Any) -> np.ndarray | None:
    """Return a column as floats, None where it holds something else."""
    if getattr(table[name].dtype, "kind", "O") in "cmM":
        return None
    try:
        return np.asarray(table[name].to_numpy(dtype=float, na_value=np.nan))
    except (TypeError, ValueError):
        return None


def _is_missing(label: Any) -> bool:
    return label is None or (not isinstance(label, tuple) and bool(pd.isna(label)))


def _ordered(labels: Iterable[Any]) -> list[Any]:
    """Return labels in order, whatever the order of the rows that name them."""
    return sorted(labels, key=lambda v: (isinstance(v, str), str(type(v)), v))


def _in_pandas(edges: Any) -> pd.DataFrame:
    if hasattr(edges, "collect"):  # of a lazy polars table
        edges = edges.collect()
    frame: pd.DataFrame = edges.to_pandas() if hasattr(edges, "to_pandas") else edges.df()
    return frame


def _of_networkx(graph: Any) -> pd.DataFrame:
    found = list(graph.edges(data=True))
    missing = np.nan if any(WEIGHT in data for _, _, data in found) else 1.0
    rows = [(a, b, *_weight_and_rest(data, missing)) for a, b, data in found]
    if not graph.is_directed():
        rows += [(b, a, weight, rest) for a, b, weight, rest in rows if a != b]
    rest = pd.DataFrame([row[3] for row in rows])
    ends = pd.DataFrame([row[:3] for row in rows], columns=[SOURCE, TARGET, WEIGHT])
    return pd.concat([ends, rest], axis=1)


def _weight_and_rest(data: dict[str, Any], missing: float) -> tuple[float, dict[str, Any]]:
    return data.get(WEIGHT, missing), {k: v for k, v in data.items() if k != WEIGHT}


def _of_weights(weights: Any) -> pd.DataFrame:
    rows = [
        (a, b, value)
        for a, others in weights.neighbors.items()
        for b, value in zip(others, weights.weights[a], strict=True)
    ]
    return pd.DataFrame(rows, columns=[SOURCE, TARGET, WEIGHT])


def _of_sparse(matrix: Any, labels: list[Any] | None) -> pd.DataFrame:
    found = matrix.tocoo()
    if labels is None or found.shape != (len(labels), len(labels)):
        came = "none" if labels is None else f"{len(labels)}"
        raise ValueError(
            f"a sparse matrix of shape {found.shape} needs `labels`, one for each node; got {came}."
        )
    names = np.empty(len(labels), dtype=object)
    names[:] = labels
    return pd.DataFrame({SOURCE: names[found.row], TARGET: names[found.col], WEIGHT: found.data})


def _matrix_of(array: xr.DataArray) -> pd.DataFrame:
    if array.ndim != 2 or any(dim not in array.coords for dim in array.dims):
        raise ValueError(
            "`edges` as a DataArray must have two dimensions, whoever sees first, with labels of "
            f"both; got the dimensions {array.dims} and labels of {list(array.coords)}."
        )
    first, second = array.dims
    values = np.asarray(array.values, dtype=float)
    return pd.DataFrame(values, index=list(array[first].values), columns=list(array[second].values))


def _of_matrix(frame: pd.DataFrame) -> pd.DataFrame:
    values = frame.to_numpy(dtype=float)
    row, column = np.nonzero(values)
    return pd.DataFrame(
        {
            SOURCE: frame.index.to_numpy()[row],
            TARGET: frame.columns.to_numpy()[column],
            WEIGHT: values[row, column],
        }
    )
