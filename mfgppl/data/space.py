"""Labelled product spaces: what a state is called and where it stands."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfgppl._arguments import suggestion


def plain_label(value: Any) -> Any:
    """Return a label as a plain Python value, whole floats as integers."""
    value = value.item() if isinstance(value, np.generic) else value
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def check_labels(name: str, labels: Iterable[Any]) -> tuple[Any, ...]:
    """Return labels as a tuple of distinct, sortable-by-position plain values, else raise."""
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise TypeError(f"`{name}` must be a list of labels; got {labels!r}.")
    plain = tuple(plain_label(v) for v in labels)
    if not plain:
        raise ValueError(f"`{name}` must have at least one label; got none.")
    for label in plain:
        number = isinstance(label, (int, float)) and math.isfinite(label)
        if not (isinstance(label, str) or number):
            raise TypeError(f"`{name}` takes strings and finite numbers as labels; got {label!r}.")
    repeated = sorted({str(v) for v in plain if plain.count(v) > 1})
    if repeated:
        raise ValueError(f"`{name}` repeats the label {', '.join(repeated)}; labels must differ.")
    return plain


@dataclass(frozen=True)
class StateSpace:
    """A product of labelled coordinates, flattened in row-major order.

    Attributes
    ----------
    coordinates : dict of str to tuple
        Name of each coordinate and its labels, in order.
    """

    coordinates: dict[str, tuple[Any, ...]]

    @classmethod
    def from_labels(cls, states: Any, *, name: str = "states") -> "StateSpace":
        """Build a space from a mapping of names to labels, or from one list of labels."""
        if not isinstance(states, Mapping):
            states = {"state": states}
        if not states:
            raise ValueError(f"`{name}` must name at least one coordinate; got an empty mapping.")
        return cls({str(k): check_labels(f"{name}[{k!r}]", v) for k, v in states.items()})

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of labels of each coordinate."""
        return tuple(len(v) for v in self.coordinates.values())

    @property
    def size(self) -> int:
        """Number of states."""
        return math.prod(self.shape)

    @property
    def codes(self) -> np.ndarray:
        """Position of each state in each coordinate, shape (n_coordinates, S)."""
        return np.stack(np.unravel_index(np.arange(self.size), self.shape))

    @property
    def labels(self) -> tuple[Any, ...]:
        """One label a state: the coordinate's own, or the joined ones of a product space."""
        values = list(self.coordinates.values())
        if len(values) == 1:
            return values[0]
        return tuple(
            ", ".join(str(v[c]) for v, c in zip(values, row, strict=True)) for row in self.codes.T
        )

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
