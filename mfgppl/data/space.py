"""Labelled product spaces: what a state is called and where it stands.

Types are coordinates that never change in an agent. They lead: with C combinations of types
(cells) and S states of each, the state s of cell c stands at c * S + s.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import suggestion


def plain_label(value: Any) -> Any:
    """Return a label as a plain Python value: whole floats as integers, intervals as text."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    value = str(value) if isinstance(value, pd.Interval) else value
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def check_labels(name: str, labels: Iterable[Any]) -> tuple[Any, ...]:
    """Return labels as a tuple of distinct, sortable-by-position plain values, else raise."""
    listed = isinstance(labels, Iterable) and getattr(labels, "ndim", 1) == 1
    if isinstance(labels, (str, bytes, set, frozenset)) or not listed:
        raise TypeError(f"`{name}` must be a list of labels; got {labels!r}.")
    plain = tuple(plain_label(v) for v in labels)
    if not plain:
        raise ValueError(f"`{name}` must have at least one label; got none.")
    for label in plain:
        number = isinstance(label, (int, float)) and math.isfinite(label)
        if not (isinstance(label, str) or number):
            raise TypeError(f"`{name}` takes strings and finite numbers as labels; got {label!r}.")
    repeated = sorted(str(v) for v, n in Counter(plain).items() if n > 1)
    if repeated:
        raise ValueError(f"`{name}` repeats the label {', '.join(repeated)}; labels must differ.")
    return plain


def index_of(labels: Sequence[Any]) -> np.ndarray:
    """Return labels as an index array, each of its own type."""
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    if len({type(v) for v in labels}) != 1:
        return array
    typed = np.array(labels)
    # integers beyond 64 bits would become floats
    return array if isinstance(labels[0], int) and typed.dtype.kind not in "biu" else typed


def text_labels(labels: Iterable[Any]) -> list[str]:
    """Return labels as text, as Python writes them where 1 and "1" would be the same."""
    labels = list(labels)
    text = [str(label) for label in labels]
    return text if len(set(text)) == len(text) else [repr(plain_label(v)) for v in labels]


@dataclass(frozen=True)
class StateSpace:
    """A product of labelled coordinates, flattened in row-major order.

    Attributes
    ----------
    coordinates : dict of str to tuple
        Name of each coordinate and its labels, in order; types come first.
    types : tuple of str
        The coordinates that never change in an agent.
    """

    coordinates: dict[str, tuple[Any, ...]]
    types: tuple[str, ...] = ()

    @classmethod
    def from_labels(
        cls, states: Any, types: Mapping[str, Any] | None = None, *, name: str = "states"
    ) -> "StateSpace":
        """Build a space from a mapping of names to labels, from one list of labels, or of another.

        Parameters
        ----------
        states : mapping of str to list, list or StateSpace
            Labels of each state coordinate; of a space its types too, unless they are given.
        types : mapping of str to list, optional
            Labels of each type.
        name : str
            What the caller calls the states.

        Raises
        ------
        TypeError, ValueError
            If labels are wrong, or a name is both a state's and a type's.
        """
        if isinstance(states, StateSpace):
            types = {k: states.coordinates[k] for k in states.types} if types is None else types
            states = states.within.coordinates
        if not isinstance(states, Mapping):
            states = {"state": states}
        if not states:
            raise ValueError(f"`{name}` must name at least one coordinate; got an empty mapping.")
        types = {} if types is None else types
        if not isinstance(types, Mapping):
            raise TypeError(
                f"`types` must be a mapping of names to lists of labels; got {types!r}: write "
                "{'size': ['small', 'large']}."
            )
        both = sorted(set(map(str, types)) & set(map(str, states)))
        if both:
            raise ValueError(
                f"{both[0]!r} is a type and a coordinate of `{name}`; a type can be read as a "
                "state can, so name it in `types` alone."
            )
        coordinates = {str(k): check_labels(f"types[{k!r}]", v) for k, v in types.items()}
        kinds = tuple(coordinates)
        coordinates |= {str(k): check_labels(f"{name}[{k!r}]", v) for k, v in states.items()}
        return cls(coordinates, kinds)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of labels of each coordinate."""
        return tuple(len(v) for v in self.coordinates.values())

    @property
    def size(self) -> int:
        """Number of states."""
        return math.prod(self.shape)

    @property
    def n_cells(self) -> int:
        """Number of combinations of types C; 1 without types."""
        return math.prod(len(self.coordinates[name]) for name in self.types)

    @property
    def cells(self) -> "StateSpace":
        """The space of the types alone; without types it has no coordinate and one entry."""
        return StateSpace({name: self.coordinates[name] for name in self.types}, self.types)

    @property
    def within(self) -> "StateSpace":
        """The space of an agent's states, whatever its types."""
        return StateSpace({k: v for k, v in self.coordinates.items() if k not in self.types})

    @property
    def codes(self) -> np.ndarray:
        """Position of each state in each coordinate, shape (n_coordinates, S)."""
        if not self.coordinates:
            return np.zeros((0, 1), dtype=np.int64)
        return np.stack(np.unravel_index(np.arange(self.size), self.shape))

    def codes_of(self, name: str) -> np.ndarray:
        """Return the position of each state in one coordinate, (S,)."""
        return self.codes[list(self.coordinates).index(name)]

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Label of each state in each coordinate, (S,) each."""
        named = zip(self.coordinates.items(), self.codes, strict=True)
        return {name: index_of(labels)[codes] for (name, labels), codes in named}

    @property
    def labels(self) -> tuple[Any, ...]:
        """One label a state: the coordinate's own, or the joined ones of a product space."""
        values = list(self.coordinates.values())
        if len(values) == 1:
            return values[0]
        return tuple(
            ", ".join(str(v[c]) for v, c in zip(values, row, strict=True)) for row in self.codes.T
        )

    @property
    def tuples(self) -> dict[tuple[Any, ...], int]:
        """Position of each state, called by the tuple of its labels."""
        values = list(self.coordinates.values())
        rows = (tuple(v[c] for v, c in zip(values, row, strict=True)) for row in self.codes.T)
        return {row: k for k, row in enumerate(rows)}

    def positions_of(self, other: "StateSpace", *, whose: str) -> np.ndarray:
        """Return where each state of `other` stands here, shape (other.size,).

        Raises
        ------
        ValueError
            If a coordinate or a label of `other` is not known here.
        """
        if set(other.coordinates) != set(self.coordinates):
            raise ValueError(
                f"{whose} has the state coordinates {sorted(other.coordinates)}; the game has "
                f"{sorted(self.coordinates)}. Give both the same names."
            )
        parts = []
        for name, labels in self.coordinates.items():
            here = {label: k for k, label in enumerate(labels)}
            position = list(other.coordinates).index(name)
            there = other.coordinates[name]
            unknown = [label for label in there if label not in here]
            if unknown:
                raise ValueError(
                    f"{whose} has the label {unknown[0]!r} of {name!r}, which the game does not "
                    f"know; it has {list(labels)}.{suggestion(unknown[0], labels)}"
                )
            parts.append(np.array([here[label] for label in there])[other.codes[position]])
        return np.ravel_multi_index(parts, self.shape)


def state_labels(space: StateSpace) -> list[str]:
    """Return one text a state, which differ: parts are quoted where joined ones would meet."""
    text = text_labels(space.labels)
    if len(set(text)) == len(text):
        return text
    values = space.coordinates.values()
    return [
        ", ".join(repr(v[c]) for v, c in zip(values, row, strict=True)) for row in space.codes.T
    ]


def margin(cells: StateSpace, names: Sequence[str]) -> np.ndarray:
    """Return where each combination of types stands among those of some of them, (C,)."""
    kept = [k for k, name in enumerate(cells.coordinates) if name in names]
    if not kept:
        return np.zeros(cells.size, dtype=np.int64)
    shape = [cells.shape[k] for k in kept]
    return np.ravel_multi_index(tuple(cells.codes[kept]), shape)


def check_types(
    space: StateSpace, here: np.ndarray, there: np.ndarray, where: Callable[[int], str]
) -> None:
    """Raise where a type differs between one state and a later one of the same agent.

    Parameters
    ----------
    space : StateSpace
        The game's.
    here, there : ndarray of int, shape (n,)
        Positions of the two states.
    where : callable
        Says whose the k-th pair is.

    Raises
    ------
    ValueError
        If a type changes.
    """
    for name, codes in zip(space.coordinates, space.codes, strict=True):
        changed = np.flatnonzero(codes[here] != codes[there])
        if name in space.types and len(changed):
            k, labels = int(changed[0]), space.coordinates[name]
            before, after = labels[codes[here[k]]], labels[codes[there[k]]]
            raise ValueError(
                f"{name!r} is a type of the game and changes in the panel {where(k)}, from "
                f"{before!r} to {after!r}; make it a coordinate of the game's `states`, or correct "
                "the rows."
            )
