"""From groups of like rows, which an engine has counted, to the statistics of a panel."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from mfgppl.data.column_parts import Parts
from mfgppl.data.columns import MISSING, UNKNOWN, code
from mfgppl.data.panel import Counts
from mfgppl.data.reading import absorbing_rows, stacked
from mfgppl.data.space import StateSpace

FIRST = -1  # in place of the time since the previous row where there is none


class Coded(NamedTuple):
    """Groups of like rows, by their codes, shape (n_groups,) each; `n` is the size of a group.

    `back`, `step` and `ahead` are FIRST where there is no earlier and no later row. `ahead` is the
    time to the next row where `step` is 2 for more; `absorbed` says whether the state is absorbing,
    and `left` whether a later state is not.
    """

    time: np.ndarray
    state: np.ndarray
    action: np.ndarray
    following: np.ndarray
    back: np.ndarray
    step: np.ndarray
    ahead: np.ndarray
    lasted: np.ndarray
    absorbed: np.ndarray
    left: np.ndarray
    n: np.ndarray


def coded(
    groups: pa.Table, parts: Parts, labels: Mapping[str, tuple[Any, ...]], actions: Sequence[Any]
) -> tuple[StateSpace, Coded, pd.DataFrame]:
    """Return the space, the coded groups and the covariates.

    States that are missing or unknown count as the first.
    """
    here, there = (
        {
            name: _positions(groups[f"{prefix}state {k}"], name, labels[name])
            for k, name in enumerate(parts.coordinates)
            if not prefix or name in parts.states
        }
        for prefix in ("", "next ")
    )
    there = {k: v for k, v in here.items() if k in parts.fixed} | there
    absorbed, _ = absorbing_rows(parts, labels, here)
    _, elsewhere = absorbing_rows(parts, labels, there)
    space, state, covariates = stacked(parts, labels, _clipped(here))
    _, following, _ = stacked(parts, labels, _clipped(there))
    time, back, step, ahead, lasted, n = (
        groups[k].cast(pa.int64()).fill_null(FIRST).to_numpy()
        for k in ("period", "back", "step", "ahead", "lasted", "n")
    )
    move = _positions(groups["action"], parts.action, actions)
    left = absorbed & elsewhere & (step >= 1)
    rows = Coded(time, state, move, following, back, step, ahead, lasted, absorbed, left, n)
    return space, rows, covariates


def _clipped(codes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.maximum(position, 0) for name, position in codes.items()}


def _positions(column: pa.ChunkedArray, name: str, labels: Sequence[Any]) -> np.ndarray:
    """Return where each cell stands among labels, MISSING or UNKNOWN where it does not."""
    values, position = code(column, name)
    here = {v: k for k, v in enumerate(labels)}
    return np.array([here.get(v, UNKNOWN) for v in values] + [MISSING], dtype=np.int64)[position]


def statistics(rows: Coded, S: int, A: int) -> dict[str, Any]:
    """Add up what a panel without rows keeps."""
    first_time = int(rows.time.min())
    t, s, a, n = rows.time - first_time, rows.state, rows.action, rows.n
    acted, begins, ends = a >= 0, rows.back != 1, rows.step != 1
    T = int(t[acted].max()) + 1

    def total(where: np.ndarray, *codes: np.ndarray) -> np.ndarray:
        sums = np.zeros((T, S, A)[: len(codes)])
        np.add.at(sums, tuple(code[where] for code in codes), n[where])
        return sums

    visits = np.zeros((T + 1, S))
    np.add.at(visits, (t, s), n)
    until = np.where(rows.ahead == FIRST, t.max(), t + rows.ahead - 1)
    stays = ends & rows.absorbed & (until > t)
    absorbed = np.zeros((T + 1, S))
    np.add.at(absorbed, (t[stays], s[stays]), n[stays])
    carried = carried_forward(T, S, t[stays], s[stays], until[stays], n[stays])
    follows = acted & ~ends
    steps = np.stack([t, s, a, rows.following], axis=1)[follows]
    steps, which = np.unique(steps, axis=0, return_inverse=True)
    lengths = (rows.lasted + acted)[ends]
    return {
        "first_time": first_time,
        "horizon": T,
        "counts": Counts(
            actions=total(acted, t, s, a),
            starts=total(begins & acted, t, s),
            ends_seen=total(ends & ~acted & ~begins & (t < T), t, s),
            ends_unseen=total(ends & acted & (t < T - 1), t, s, a),
        ),
        "visits": visits + carried,
        "carried_visits": carried,
        "absorbed": absorbed,
        "steps": steps,
        "step_counts": np.bincount(which.ravel(), weights=n[follows], minlength=len(steps)),
        "n_agents": int(n[rows.back == FIRST].sum()),
        "n_trajectories": int(n[begins].sum()),
        "n_late": int(n[begins & (t > 0)].sum()),
        "lengths": (int(lengths.min()), int(lengths.max())),
    }


def carried_forward(
    horizon: int,
    n_states: int,
    time: np.ndarray,
    state: np.ndarray,
    until: np.ndarray,
    n: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Return the visits (T + 1, S) of agents who stay after a time, in a state, until another."""
    change = np.zeros((horizon + 2, n_states))
    np.add.at(change, (time + 1, state), n)
    np.subtract.at(change, (np.minimum(until, horizon) + 1, state), n)
    return change.cumsum(0)[:-1]
