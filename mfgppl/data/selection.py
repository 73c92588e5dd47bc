"""Some trajectories of a panel: by position, group, type or time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import one_of
from mfgppl.data.coded_rows import Rows
from mfgppl.data.space import StateSpace, plain_label


def select(panel: Rows, keep: Any) -> Rows:
    """Return the panel of the trajectories at some positions, or under a mask.

    Raises
    ------
    ValueError, TypeError
        If `keep` selects nothing, or what is not there.
    """
    keep = _positions(keep, panel.n_trajectories)
    offsets, lengths = panel.offsets, np.diff(panel.offsets)[keep]
    ends = np.append(0, np.cumsum(lengths))
    rows = np.arange(ends[-1]) + np.repeat(offsets[keep] - ends[:-1], lengths)
    return replace(
        panel,
        agents=panel.agents[keep],
        offsets=ends,
        time=panel.time[rows],
        state=panel.state[rows],
        action=panel.action[rows],
        groups={k: v[keep] for k, v in panel.groups.items()},
        carried=panel.carried[keep],
        owner=_copies(panel.owner[keep], keep),
    )


def split(panel: Rows, by: str) -> dict[Any, Rows]:
    """Return the panels of the groups, by label, or of the labels of a type that occur.

    Raises
    ------
    ValueError
        If the panel has no such type or groups.
    """
    types = panel.space.types
    if not (panel.groups or types):
        raise ValueError(
            f"the panel has no groups or types to split by; name the column when reading it, "
            f"Trajectories.from_frame(..., groups=[{by!r}])."
        )
    one_of("by", by, [*types, *(name for name in panel.groups if name not in types)])
    if by in types:
        return _split_by_type(panel, by)
    codes, labels = pd.factorize(panel.groups[by], sort=True)
    return {
        plain_label(label): select(panel, np.flatnonzero(codes == k))
        for k, label in enumerate(labels)
    }


def without_type(panel: Rows, name: str) -> Rows:
    """Return the panel as it is where nobody sees a type.

    Raises
    ------
    ValueError
        If the panel has no such type.
    """
    one_of("name", name, list(panel.space.types))
    coordinates = panel.space.coordinates
    space = StateSpace(
        {k: v for k, v in coordinates.items() if k != name},
        tuple(k for k in panel.space.types if k != name),
    )
    codes = np.delete(panel.space.codes, list(coordinates).index(name), axis=0)
    place = np.ravel_multi_index(tuple(codes), space.shape)
    covariates = pd.DataFrame() if panel.covariates.index.name == name else panel.covariates
    return replace(panel, space=space, state=place[panel.state], covariates=covariates)


def before(panel: Rows, time: int) -> Rows:
    """Return the rows of a panel before a time, counted from its first.

    Trajectories that begin later are left out; the decision times that stay are `time` at most.
    """
    kept = panel.time < time
    rows = np.add.reduceat(kept, panel.offsets[:-1], dtype=int)
    there = rows > 0
    left = time - 1 - panel.time[panel.offsets[1:] - 1]  # below 0 where the last rows are cut off
    return replace(
        panel,
        horizon=min(time, panel.horizon),
        agents=panel.agents[there],
        offsets=np.append(0, rows[there].cumsum()),
        groups={k: v[there] for k, v in panel.groups.items()},
        carried=np.clip(panel.carried, 0, np.maximum(left, 0))[there],
        owner=pd.factorize(panel.owner[there])[0],
        **{k: getattr(panel, k)[kept] for k in ("time", "state", "action")},
    )


def _positions(keep: Any, n: int) -> np.ndarray:
    """Return the positions below n that a list of them or a mask selects, at least one."""
    chosen = np.asarray(keep)
    if chosen.size == 0:
        raise ValueError("`keep` selects no trajectory; keep at least one.")
    if chosen.ndim != 1 or chosen.dtype.kind not in "biu":
        came = f"{chosen.dtype} of shape {chosen.shape}"
        raise TypeError(f"`keep` must be a list of positions, or a mask of booleans; got {came}.")
    if chosen.dtype == bool:
        if len(chosen) != n:
            message = f"`keep` as a mask must have one entry per trajectory, {n}"
            raise ValueError(f"{message}; got {len(chosen)}.")
        return _positions(np.flatnonzero(chosen), n)
    outside = chosen[(chosen < -n) | (chosen >= n)]
    if len(outside):
        raise ValueError(f"`keep` must hold positions below {n}; got {outside[0]}.")
    return np.arange(n)[chosen]


def _copies(owner: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Return the owners (n,) of trajectories that were selected, each copy of one by itself."""
    if np.unique(keep).size == keep.size:
        return np.asarray(pd.factorize(owner)[0])
    order = np.argsort(keep, kind="stable")
    copy = np.empty_like(keep)
    copy[order] = np.arange(len(keep)) - np.searchsorted(keep[order], keep[order])
    return np.asarray(pd.factorize(owner * (copy.max() + 1) + copy)[0])


def _split_by_type(panel: Rows, name: str) -> dict[Any, Rows]:
    """Return the panels of the labels of a type that occur, without that type."""
    ours = panel.space.codes_of(name)[panel.state[panel.offsets[:-1]]]
    whole = without_type(panel, name)
    return {
        label: select(whole, np.flatnonzero(ours == k))
        for k, label in enumerate(panel.space.coordinates[name])
        if (ours == k).any()
    }
