"""What an agent's own few neighbours do, as a coordinate of its state.

Where each agent has few neighbours they do not average out, and there is no flow to meet. The share
of the neighbours in given states at a time, in bins, is then part of the state: it is seen before
the agent acts, so that nothing is decided at once by both sides.
"""

import keyword
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse

from mfgppl._arguments import suggestion
from mfgppl.data.coded_rows import Rows
from mfgppl.data.edges import edge_table, node_label, read_edges
from mfgppl.data.exposure import Exposure
from mfgppl.data.periods import Periods
from mfgppl.data.space import StateSpace, check_labels, plain_label
from mfgppl.exceptions import DataError, Fault

TIME = "time"
TAKEN = ("action", "agent", "density", "mean_field", "state", "time", "type")
DIGITS = 3  # of a bin's mean share, by which it is called


def expose(
    panel: Rows, edges: Any, *, of: Mapping[str, Any], bins: Any, name: str, alone: Any
) -> Rows:
    """Return a panel with what neighbours do as a coordinate; see `Trajectories.exposure`."""
    _check_new_name(name, panel.space)
    alone = plain_label(alone)
    who, agents = pd.factorize(panel.agents)
    weights = _weights_of(edges, list(agents), panel.periods.resized(panel.horizon + 1))
    met = _states_met(of, panel.space)
    draft = Exposure(weights, met, np.zeros(0), (), alone=alone is not None)
    present = panel.present(who, len(agents))
    around = np.stack([draft.shares(state, t) for t, state in enumerate(present)])
    shares = around[panel.time, who[panel.trajectory]]
    nobody = np.isnan(shares)
    if nobody.any() and alone is None:
        rows = np.flatnonzero(nobody)
        times = panel.times_called()[panel.time[rows]].tolist()
        raise _note_alone(panel.agents[panel.trajectory[rows]].tolist(), times)
    ends = _bin_ends(bins, shares)
    labels = _bin_labels(shares, ends)
    if alone is not None:
        labels = check_labels("labels of the bins and `alone`", [*labels, alone])
    made = draft._replace(ends=ends, labels=labels)
    space = StateSpace({**panel.space.coordinates, str(name): labels}, panel.space.types)
    state = panel.state * len(labels) + made.codes(shares)
    return replace(panel, space=space, state=state, exposures={**panel.exposures, name: made})


def _weights_of(edges: Any, agents: Sequence[Any], periods: Periods) -> list[Any]:
    """Return the weights of neighbours among agents, by time where the edges have times.

    Raises
    ------
    DataError
        With all faults of the edges.
    """
    labels = [node_label(v) for v in agents]
    table, _ = edge_table(edges.to_frame() if hasattr(edges, "to_scipy") else edges, None)
    n = len(labels)
    if not len(table):
        raise DataError([Fault("no edge", 0, (), "give at least one")], "the edge table")

    def matrix(rows: pd.DataFrame) -> Any:
        if not len(rows):
            return scipy.sparse.csr_array((n, n))
        found = read_edges(rows, labels, subject="the edge table", known=True)
        where = found.source, found.target
        return scipy.sparse.csr_array((found.weight, where), shape=(n, n))

    if TIME not in table:
        return [matrix(table)]
    when = _times(table[TIME], periods)
    rest = table.drop(columns=TIME)
    return [matrix(rest[when == t]) for t in range(len(periods))]


def _times(column: pd.Series, periods: Periods) -> np.ndarray:
    """Return which of the panel's times from 0 each edge is of, else raise."""
    plain = column if column.dtype != bool else column.astype(str)
    if pd.api.types.is_datetime64_any_dtype(column) and periods.clock.unit is None:
        plain = column.astype(str)
    places = [periods.position(v) for v in plain]
    when = np.array([-1 if k is None or k >= len(periods) else k for k in places])
    wrong = when < 0
    if wrong.any():
        shown = tuple(str(v) for v in column[wrong].iloc[:3])
        ends = f"{periods.label(0)} to {periods.label(len(periods) - 1)}"
        remedy = f"times are those of the panel, {ends}; drop other rows"
        fault = Fault("a time that the panel does not have", int(wrong.sum()), shown, remedy)
        raise DataError([fault], "the edge table")
    return when


def _states_met(of: Any, space: StateSpace) -> np.ndarray:
    """Return which states (S,) have the labels asked for, else raise.

    Parameters
    ----------
    of : mapping of str to label or list of labels
        Labels of some coordinates or types.
    space : StateSpace
        The states.
    """
    if not isinstance(of, Mapping) or not of:
        raise TypeError(
            "`of` must say which states of neighbours count, as in {'capacity': [0, 1]}; got "
            f"{of!r}."
        )
    met = np.ones(space.size, dtype=bool)
    for name, wanted in of.items():
        if name not in space.coordinates:
            known = list(space.coordinates)
            raise ValueError(
                f"`of` names {name!r}; the coordinates are {known}.{suggestion(name, known)}"
            )
        labels = space.coordinates[name]
        listed = wanted if isinstance(wanted, (list, tuple, set, range)) else [wanted]
        asked = {plain_label(label) for label in listed}
        unknown = sorted(map(repr, asked - set(labels)))
        if unknown or not asked:
            came = unknown[0] if unknown else "no label"
            raise ValueError(f"`of` asks for {name} = {came}; it has {list(labels)}.")
        codes = space.codes[list(space.coordinates).index(name)]
        met &= np.isin(codes, [k for k, label in enumerate(labels) if label in asked])
    return met


def _check_new_name(name: Any, space: StateSpace) -> None:
    """Raise unless a name can be that of one more coordinate."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"`name` must be a plain Python name, which programs read; got {name!r}.")
    if name in space.coordinates or name in TAKEN:
        raise ValueError(f"`name` must be new; {name!r} is a coordinate, or an input of programs.")
    if "state" in space.coordinates:
        raise ValueError(
            "a game of several state coordinates cannot call one 'state', as reward programs do: "
            "rename the column before from_frame(..., state=)."
        )


def _bin_ends(bins: Any, shares: np.ndarray) -> np.ndarray:
    """Return the upper ends of all bins but the last: of as many, or of those given."""
    known = shares[~np.isnan(shares)]
    if np.ndim(bins) == 0:
        if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 2:
            raise ValueError(f"`bins` must be at least 2, or ends of bins; got {bins!r}.")
        inner = np.unique(np.quantile(known, np.arange(1, bins) / bins))
        ends = inner[inner < known.max(initial=-np.inf)]
    else:
        given = np.asarray(bins, dtype=float)
        if len(given) < 3 or (np.diff(given) <= 0).any():
            raise ValueError(f"`bins` must be at least three ascending ends; got {list(bins)}.")
        ends, outer = given[1:-1], given[[0, -1]]
        if len(known) and (known.min() < outer[0] or known.max() > outer[1]):
            raise ValueError(
                f"`bins` must hold all shares; they lie in [{known.min():.3g}, {known.max():.3g}]."
            )
    if not len(ends):
        raise ValueError("all agents have neighbours alike: the share does not vary; no bins.")
    return ends


def _bin_labels(shares: np.ndarray, ends: np.ndarray) -> tuple[Any, ...]:
    """Return the mean share of each bin, with as many digits as keep them apart."""
    known = shares[~np.isnan(shares)]
    code = np.searchsorted(ends, known, side="left")
    n = len(ends) + 1
    size = np.bincount(code, minlength=n)
    edges = np.concatenate([[0.0], ends, [1.0]])
    middle = (edges[:-1] + edges[1:]) / 2
    mean = np.where(size > 0, np.bincount(code, known, minlength=n) / np.maximum(size, 1), middle)
    for digits in range(DIGITS, 17):
        labels = tuple(plain_label(float(f"{m:.{digits}g}")) for m in mean)
        if len(set(labels)) == n:
            return labels
    raise ValueError("`bins` lie too close to be distinguished.")


def _note_alone(agents: Sequence[Any], times: Sequence[int]) -> DataError:
    """Return the fault of agents without a neighbour at a time."""
    examples = tuple(f"{a!r} at {t}" for a, t in zip(agents[:3], times[:3], strict=True))
    remedy = "give edges, or alone='none', a label of its own"
    return DataError([Fault("nobody around", len(agents), examples, remedy)], "the edge table")
