"""Which column of a table plays which part, as the arguments of `from_frame` say."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mfgppl._arguments import is_a, names_of, one_of
from mfgppl.data.space import check_labels

COVARIATES = "covariates"  # the type that several covariates make


class Parts(NamedTuple):
    """Which column plays which part.

    Attributes
    ----------
    agent, time, action : str
        Column names.
    types, covariates : list of str
        What never changes in an agent: labels, and numbers.
    states : list of str
        The other state coordinates, in order.
    labels : dict of str to tuple
        Declared labels of types and states.
    actions : tuple or None
        Declared labels of the actions.
    absorbing : dict of str to tuple
        Labels of states that nobody leaves, by coordinate.
    text : tuple of str
        Columns of a CSV file whose cells are text as they stand.
    wanted : list of str
        All columns to read.
    """

    agent: str
    time: str
    action: str
    types: list[str]
    covariates: list[str]
    states: list[str]
    labels: dict[str, tuple[Any, ...]]
    actions: tuple[Any, ...] | None
    absorbing: dict[str, tuple[Any, ...]]
    text: tuple[str, ...]
    wanted: list[str]

    @property
    def fixed(self) -> list[str]:
        """The columns that never change in an agent."""
        return [*self.types, *self.covariates]

    @property
    def coordinates(self) -> list[str]:
        """All columns that say where an agent stands, those that never change first."""
        return [*self.fixed, *self.states]

    @property
    def words(self) -> dict[str, frozenset[str]]:
        """Declared labels of the columns whose labels are all text."""
        declared = {**self.labels, self.action: self.actions or ()}
        return {
            name: frozenset(labels)
            for name, labels in declared.items()
            if labels and all(isinstance(label, str) for label in labels)
        }


def parts_of(
    columns: Mapping[str, Any],
    labels: Mapping[str, Any],
    *,
    gaps: str,
    text: Sequence[str],
    groups: Sequence[str] = (),
    absorbing: Mapping[str, Any] | None = None,
) -> Parts:
    """Check the arguments of `from_frame`."""
    one_of("gaps", gaps, ["error", "split"])
    types, covariates = (_column_list(k, columns[k]) for k in ("types", "covariates"))
    named = column_names("state", columns["state"])
    states = [name for name in named if name not in types]
    if not states:
        which = " that is no type" if named else ""
        raise ValueError(f"`state` must name at least one column{which}; got {named or 'none'}.")
    _check_covariates(covariates, types, states)
    agent, time, action = (_column_name(k, columns[k]) for k in ("agent", "time", "action"))
    fixed = [*types, *covariates]
    clusters = [name for name in _column_list("groups", groups) if name not in fixed]
    wanted = [agent, time, *fixed, *states, action, *clusters]
    as_text = _column_list("text", text)
    absent = [name for name in as_text if name not in wanted]
    if absent:
        raise ValueError(f"`text` names {absent[0]!r}, which is none of the columns {wanted}.")
    declared = _declared("state", labels["state"], named) | _declared(
        "types", labels["types"], types
    )
    actions = labels["action"]
    moves = None if actions is None else check_labels(f"labels of {action}", actions)
    return Parts(
        agent=agent,
        time=time,
        action=action,
        types=types,
        covariates=covariates,
        states=states,
        labels=declared,
        actions=moves,
        absorbing=_absorbing_labels(absorbing, states),
        text=tuple(as_text),
        wanted=wanted,
    )


def _check_covariates(
    covariates: Sequence[str], types: Sequence[str], states: Sequence[str]
) -> None:
    both = [name for name in covariates if name in types or name in states]
    if both:
        raise ValueError(f"`covariates` names {both[0]!r}, which is a type or state as well.")
    if len(covariates) > 1 and COVARIATES in (*types, *states):
        raise ValueError(
            f"several `covariates` make one type called {COVARIATES!r}; give the type or state of "
            "that name another one."
        )


def _declared(argument: str, labels: Any, names: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the declared labels of the columns of one argument."""
    door = {"state": "state_labels", "types": "type_labels"}[argument]
    if labels is not None:
        is_a(door, labels, Mapping, " Write {column: [labels]}.")
    declared = labels or {}
    unknown = [name for name in declared if name not in names]
    if unknown:
        raise ValueError(
            f"`{door}` names {unknown[0]!r}, which is not in `{argument}` ({list(names)})."
        )
    return {k: check_labels(f"labels of {k}", v) for k, v in declared.items()}


def _absorbing_labels(absorbing: Any, states: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the labels of each coordinate that make a state absorbing."""
    if absorbing is None:
        return {}
    is_a("absorbing", absorbing, Mapping, " Write {column: label}.")
    if not absorbing:
        raise ValueError("`absorbing` must name at least one column; got an empty mapping.")
    unknown = [name for name in absorbing if name not in states]
    if unknown:
        raise ValueError(
            f"`absorbing` names {unknown[0]!r}, which is no column of `state` that may change "
            f"({list(states)})."
        )
    several = (list, tuple, np.ndarray, pd.Index, pd.Series)
    return {
        name: check_labels(f"absorbing[{name!r}]", v if isinstance(v, several) else [v])
        for name, v in absorbing.items()
    }


def column_names(argument: str, value: Any) -> list[str]:
    """Return one column name, or a list of them, as a list."""
    return names_of(argument, value, "column name")


def _column_name(argument: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"`{argument}` must be a column name; got {value!r}.")
    return str(value)


def _column_list(argument: str, value: Any) -> list[str]:
    """Return a list of column names; one name alone is a slip."""
    if isinstance(value, str):
        raise TypeError(
            f"`{argument}` must be a list of column names; got {value!r}: write [{value!r}]."
        )
    several = isinstance(value, (list, tuple, np.ndarray, pd.Index, pd.Series))
    if not several or getattr(value, "ndim", 1) != 1:
        raise TypeError(f"`{argument}` must be a list of column names; got {value!r}.")
    return column_names(argument, value)
