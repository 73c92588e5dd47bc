"""The one reader of labelled arrays: whatever order they come in, they leave in the game's.

An array is labelled if it is a DataArray, a Series or a DataFrame. Others are taken by position.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arguments import suggestion
from mfgppl._arrays import is_labelled
from mfgppl.data.space import StateSpace, plain_label
from mfgppl.data.type_axis import stacked

NEXT = "next_"  # what a move leads to, before the name of a coordinate


class Level(NamedTuple):
    """One way in which the entries along an axis of an array are labelled.

    Attributes
    ----------
    axis : int
        The axis.
    name : object
        What it is called; None if nothing.
    labels : list, or None
        A label for each entry; None where they are known by position only.
    size : int
        Number of entries.
    """

    axis: int
    name: Any
    labels: list[Any] | None
    size: int


class Order(NamedTuple):
    """What the axes of an array are called, and in which order.

    Attributes
    ----------
    space : StateSpace
        The states.
    actions : tuple
        Action labels.
    """

    space: StateSpace
    actions: tuple[Any, ...]

    def parts(self, dim: str) -> list[str]:
        """Return the axes that make up a dim: a coordinate each of a state, else itself."""
        names = list(self.space.coordinates)
        by_dim = {"state": names, f"{NEXT}state": [f"{NEXT}{n}" for n in names]}
        return by_dim.get(dim, [dim])

    def labels(self, part: str) -> Sequence[Any]:
        """Return the labels of a part other than time: of actions or of one coordinate."""
        if part == "action":
            return self.actions
        return self.space.coordinates[part if part in self.space.coordinates else part[len(NEXT) :]]

    def joined(self, names: set[Any]) -> set[str]:
        """Return which axes among some stand for whole states, their labels joined.

        A coordinate may be called "state" too: beside others an axis of that name is its own.
        """
        found = set()
        for dim in {"state", f"{NEXT}state"} & names:
            parts = set(self.parts(dim))
            if dim not in parts or not names & (parts - {dim}):
                found.add(dim)
        return found


def in_order(name: str, value: Any, dims: tuple[str, ...], order: Order) -> Any:
    """Return a labelled array's values along given dims; anything else as it came.

    Parameters
    ----------
    name : str
        What the caller calls it.
    value : object
        A DataArray, Series or DataFrame, or an array without labels. States may stand on one axis,
        by their labels, or on one axis or level for each coordinate. Times are put in order and
        must count up by 1. Labels are the game's or their text.
    dims : tuple of str
        Axes of the result, among "time", "state", "action" and "next_state".
    order : Order
        The game's labels.

    Raises
    ------
    ValueError
        If axes or labels are missing, repeated or unknown.
    TypeError
        If it is a table of several arrays.
    """
    if isinstance(value, (xr.Dataset, xr.DataTree)):
        held = ", ".join(map(str, value))
        raise TypeError(
            f"`{name}` must be one array; got a {type(value).__name__}. Pick one of {held}."
        )
    if not is_labelled(value):
        return value
    if isinstance(value, xr.DataArray) and order.space.types and "state" in dims:
        value = stacked(value)  # results have an axis of types
    levels = _name_levels(name, _levels(value, order), dims, order)
    other = value.attrs.get("coordinates") if isinstance(value, xr.DataArray) else None
    by_part: dict[str, tuple[int, np.ndarray]] = {}
    joined = order.joined({level.name for level in levels})
    for level in levels:
        for part, codes in _codes(name, level, order, other, level.name in joined).items():
            if part in by_part:
                raise ValueError(f"`{name}` has two axes for {part!r}; one must hold it.")
            by_part[part] = level.axis, codes
    parts = [part for dim in dims for part in order.parts(dim)]
    if set(by_part) != set(parts):
        came = tuple(level.name for level in levels)
        raise ValueError(f"`{name}` must have the dims {dims}; got {came}.")
    n_times = int(by_part["time"][1].max(initial=-1)) + 1 if "time" in by_part else 0
    sizes = {p: n_times if p == "time" else len(order.labels(p)) for p in parts}
    placed = _place(name, value.to_numpy(), [by_part[p] for p in parts], list(sizes.values()))
    return placed.reshape([math.prod(sizes[p] for p in order.parts(dim)) for dim in dims])


def named_axes(name: str, value: pd.Series | pd.DataFrame, dims: Sequence[str]) -> xr.DataArray:
    """Return a pandas object whose axes are all called one of some dims as a DataArray."""
    for index in value.axes:
        strange = [n for n in index.names if n not in dims]
        if strange:
            raise ValueError(
                f"{name} has an axis called {strange[0]!r}; the game's axes are {', '.join(dims)}. "
                "Name the index (and columns) after them."
            )
    return as_data_array(value)


def as_data_array(value: pd.Series | pd.DataFrame) -> xr.DataArray:
    """Return a pandas object with named axes as a DataArray with an axis for each level."""
    if any(index.nlevels > 1 for index in value.axes):
        table = isinstance(value, pd.DataFrame)
        whole: Any = value.stack(future_stack=True) if table else value  # noqa: PD013, keeps names
        return xr.DataArray(whole.to_xarray())
    return xr.DataArray(value)


def _levels(value: Any, order: Order) -> list[Level]:
    """Return how the axes of an array are labelled."""
    if isinstance(value, xr.DataArray):
        return [level for k in range(value.ndim) for level in _of_dim(value, k, order)]
    return [level for k, index in enumerate(value.axes) for level in _of_index(index, k)]


def _of_dim(array: xr.DataArray, axis: int, order: Order) -> list[Level]:
    dim, size = array.dims[axis], array.shape[axis]
    if isinstance(array.indexes.get(dim), pd.MultiIndex):
        return _of_index(array.indexes[dim], axis)
    if dim in array.coords:
        return [Level(axis, dim, array[dim].values.tolist(), size)]
    beside = [n for n in order.space.coordinates if n in array.coords and array[n].dims == (dim,)]
    if len(beside) == len(order.space.coordinates):
        return [Level(axis, n, array[n].values.tolist(), size) for n in beside]
    return [Level(axis, dim, None, size)]


def _of_index(index: pd.Index, axis: int) -> list[Level]:
    if isinstance(index, pd.MultiIndex):
        each = [index.get_level_values(k) for k in range(index.nlevels)]
        return [Level(axis, i.name, i.tolist(), len(index)) for i in each]
    # rows that nobody labelled are numbered by pandas
    bare = isinstance(index, pd.RangeIndex) and index.name is None
    return [Level(axis, index.name, None if bare else index.tolist(), len(index))]


def _name_levels(
    name: str, levels: list[Level], dims: tuple[str, ...], order: Order
) -> list[Level]:
    """Return levels called after dims or their parts, in order where they have no such name."""
    known = {part for dim in dims for part in (dim, *order.parts(dim))}
    used = {level.name for level in levels if level.name in known}
    open_dims = [d for d in dims if d not in used and not used & set(order.parts(d))]
    nameless = [level for level in levels if level.name not in known]
    open_parts = [part for dim in open_dims for part in order.parts(dim)]
    names = open_dims if len(nameless) == len(open_dims) else open_parts
    if len(nameless) != len(names):
        came = tuple(level.name for level in levels)
        raise ValueError(f"`{name}` must have the dims {dims}; got {came}.")
    given = iter(names)
    return [v if v.name in known else v._replace(name=next(given)) for v in levels]


def _codes(
    name: str, level: Level, order: Order, other: dict[str, Any] | None, joined: bool
) -> dict[str, np.ndarray]:
    """Return where each entry of a level stands, by part; `joined` if it is of whole states."""
    if level.name == "time":
        return {"time": _times(name, level)}
    labels = order.space.labels if joined else order.labels(level.name)
    if level.labels is None:
        if level.size != len(labels):
            raise ValueError(
                f"`{name}` has {level.size} entries along {level.name!r}; the game has "
                f"{len(labels)}."
            )
        codes = np.arange(level.size)
    else:
        codes = _positions(name, level, order, other, joined)
    if joined:
        each = np.unravel_index(codes, order.space.shape)
        return dict(zip(order.parts(level.name), each, strict=True))
    return {level.name: codes}


def _positions(
    name: str, level: Level, order: Order, other: dict[str, Any] | None, joined: bool
) -> np.ndarray:
    """Return the position of each label, or of its text, among the game's."""
    assert level.labels is not None
    known: Sequence[Any] = order.space.labels if joined else order.labels(level.name)
    there = [plain_label(v) for v in level.labels]
    places = {label: k for k, label in enumerate(known)}
    if joined:
        places |= order.space.tuples
        # joined labels of coordinates in another order may be others of the game
        names, ours = list(other or ()), list(order.space.coordinates)
        moved = names != ours and set(names) == set(ours)
        if other is not None and (moved or set(there).isdisjoint(places)):
            space = StateSpace({k: tuple(v) for k, v in other.items()})
            where = order.space.positions_of(space, whose=f"`{name}`")
            places = dict(zip(space.labels, where.tolist(), strict=True))
    if any(label not in places for label in there):
        texts = {str(label): k for label, k in places.items()}
        if len(texts) == len(places):
            there, places = [str(v) for v in there], texts
    places_of = [places.get(label) for label in there]
    seen = set(places_of)
    absent = [label for k, label in enumerate(known) if k not in seen]
    strange = [v for v, k in zip(level.labels, places_of, strict=True) if k is None]
    if absent or strange:
        odd = f"lacks {absent[0]!r}" if absent else f"has the unknown {strange[0]!r}"
        hint = suggestion(absent[0], strange) if absent else suggestion(strange[0], known)
        listed = f"the game has {list(known)}; got {list(dict.fromkeys(level.labels))[:10]}"
        raise ValueError(f"`{name}` {odd} along {level.name!r}; {listed}.{hint}")
    return np.array(places_of, dtype=np.int64)


def _times(name: str, level: Level) -> np.ndarray:
    """Return the rank of each time; several entries may share one."""
    if level.labels is None:
        return np.arange(level.size)
    plain: list[Any] = [
        v.ordinal if isinstance(v, pd.Period) else plain_label(v) for v in level.labels
    ]
    if all(isinstance(v, str) for v in plain):
        plain = [_time_of(v) for v in plain]
    try:
        distinct = sorted(set(plain))
        steps = {b - a for a, b in itertools.pairwise(distinct)}
    except TypeError:  # words, or several kinds
        distinct, steps = [], {None}
    if len(steps) > 1 or None in steps:
        raise ValueError(f"`{name}` has times that do not count up by 1, or all by the same.")
    rank = {v: k for k, v in enumerate(distinct)}
    return np.array([rank[v] for v in plain], dtype=np.int64)


def _time_of(text: str) -> Any:
    """Return a time as results label it, an integer or a date, as a number; other text as it is."""
    if text.lstrip("-").isdigit():
        return int(text)
    try:
        return pd.Period(text).ordinal
    except ValueError:
        return text


def _place(
    name: str, values: np.ndarray, parts: list[tuple[int, np.ndarray]], sizes: list[int]
) -> np.ndarray:
    """Return values at their places; each part says along which axis and where it puts them."""
    where = []
    for axis, codes in parts:
        shape = [1] * values.ndim
        shape[axis] = len(codes)
        where.append(codes.reshape(shape))
    times = np.zeros(sizes, dtype=np.int64)
    np.add.at(times, tuple(where), np.ones(values.shape, dtype=np.int64))
    wrong = np.argwhere(times != 1)
    if len(wrong):
        how = "no entry" if times[tuple(wrong[0])] == 0 else "several entries"
        raise ValueError(
            f"`{name}` must have one entry for each combination of labels; the one at the "
            f"positions {tuple(wrong[0].tolist())} has {how}."
        )
    out = np.empty(sizes, dtype=values.dtype)
    out[tuple(where)] = values
    return out
