"""The order of labels that a table itself keeps: categories, enumerations, bins."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import narwhals as nw
import pandas as pd
import pyarrow as pa
from narwhals.dependencies import is_dask_dataframe

from mfgppl.data.bins import Bin, Bins
from mfgppl.data.columns import sorted_labels
from mfgppl.data.space import StateSpace, plain_label

Orders = dict[str, tuple[Any, ...]]


def orders_of(source: Any, wanted: Sequence[str]) -> Orders:
    """Return the labels in order of each column that keeps one.

    These are the categories of pandas and of ordered dictionaries of Arrow, the values of an Enum
    of polars or DuckDB, and the bins of `discretise`, also of a Parquet file.
    """
    native = nw.to_native(source, pass_through=True)
    if is_dask_dataframe(native):
        native = native._meta
    if isinstance(native, pd.DataFrame):
        held = _of_pandas(native, wanted)
    elif isinstance(native, pa.Table):
        held = _of_arrow(native, wanted)
        return held | bins_of_file(native.schema, held)
    else:
        return _of_enums(source, wanted)
    return held | _of_attributes(native.attrs.get("bins"), held)


def bins_of_file(schema: pa.Schema, orders: Mapping[str, Any] = MappingProxyType({})) -> Orders:
    """Return the bins that pandas left in the metadata of a table, where no column says them."""
    attributes = json.loads((schema.metadata or {}).get(b"PANDAS_ATTRS", b"{}"))
    return _of_attributes(attributes.get("bins"), orders)


def orders_of_files(dataset: Any, wanted: Sequence[str]) -> Orders:
    """Return the labels in order of the ordered dictionaries of Parquet files, and bins."""
    schema = dataset.schema
    kinds = {name: schema.field(name).type for name in wanted if name in schema.names}
    names = [k for k, kind in kinds.items() if pa.types.is_dictionary(kind) and kind.ordered]
    held: Orders = {}
    if names:
        heads = [part.head(1, columns=names) for part in dataset.get_fragments()]
        held = _of_arrow(pa.concat_tables(heads), names)
    return held | bins_of_file(schema, held)


def needs_order(labels: Sequence[Any]) -> bool:
    """Whether labels are bins, or in another order than a table without one would have."""
    if any(isinstance(label, Bin) for label in labels):
        return True
    return list(labels) != sorted_labels(labels)


def bins_of(space: StateSpace) -> dict[str, Bins]:
    """Return the bins of each coordinate that has them."""
    first = {name: labels[0] for name, labels in space.coordinates.items()}
    return {name: label.bins for name, label in first.items() if isinstance(label, Bin)}


def in_order_of(order: Sequence[Any], values: Sequence[Any]) -> list[Any] | None:
    """Return the labels of an order that occur, None where others do."""
    occurring = set(values)
    kept = [label for label in order if label in occurring]
    return kept if len(kept) == len(occurring) else None


def _of_pandas(frame: pd.DataFrame, wanted: Sequence[str]) -> Orders:
    kinds = {name: frame[name].dtype for name in wanted if name in frame.columns}
    levels = [name for name in wanted if name in frame.index.names and name not in kinds]
    kinds |= {name: frame.index.get_level_values(name).dtype for name in levels}
    return {
        str(name): _categories(kind.categories)
        for name, kind in kinds.items()
        if isinstance(kind, pd.CategoricalDtype)
    }


def _categories(categories: pd.Index) -> tuple[Any, ...]:
    if isinstance(categories, pd.IntervalIndex):
        return _bins_of(categories)
    return tuple(plain_label(v) for v in categories)


def _bins_of(intervals: pd.IntervalIndex) -> tuple[Any, ...]:
    """Return the intervals of `pandas.cut` as bins, with the middle for a centre."""
    labels = tuple(str(v) for v in intervals)
    try:
        ends = tuple((float(v.left), float(v.right)) for v in intervals)
    except TypeError:  # of dates
        return labels
    middle = tuple((a + b) / 2 for a, b in ends)
    if any(abs(m) == float("inf") or m != m for m in middle):
        return labels
    return Bins(labels, ends, middle, float("nan")).each


def _of_arrow(table: pa.Table, wanted: Sequence[str]) -> Orders:
    orders = {}
    for name in wanted:
        kind = table[name].type if name in table.column_names else None
        if kind is not None and pa.types.is_dictionary(kind) and kind.ordered:
            chunks = table[name].unify_dictionaries().chunks
            values = chunks[0].dictionary.to_pylist() if chunks else []
            orders[name] = tuple(plain_label(v) for v in values)
    return orders


def _of_enums(source: Any, wanted: Sequence[str]) -> Orders:
    try:
        schema = nw.from_native(source).collect_schema()
    except (TypeError, AttributeError):
        return {}
    kinds = {name: schema[name] for name in wanted if name in schema}
    return {name: tuple(kind.categories) for name, kind in kinds.items() if kind == nw.Enum}


def _of_attributes(held: Any, orders: Mapping[str, Any]) -> Orders:
    """Return the bins that the attributes of a table say, where its columns do not."""
    if not isinstance(held, Mapping):
        return {}
    known = {
        name for name, labels in orders.items() if any(isinstance(label, Bin) for label in labels)
    }
    return {name: Bins.from_dict(bins).each for name, bins in held.items() if name not in known}
