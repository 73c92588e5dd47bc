"""The panel as trajectories, and the counts that the likelihoods need of it."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import one_of, strict_keywords
from mfgppl.data.panel import Counts, Panel, index_of
from mfgppl.data.panel import TransitionEstimate as TransitionEstimate
from mfgppl.data.reading import MISSING, parts_of, read_panel
from mfgppl.data.space import StateSpace, plain_label


@dataclass(frozen=True, eq=False, repr=False)
class Trajectories(Panel):
    """A panel of agents, coded against labelled states and actions; read it with `from_frame`.

    Rows are sorted by agent and time. A trajectory is a run of consecutive times of one agent.

    Attributes
    ----------
    space : StateSpace
        The state coordinates and their labels.
    actions : tuple
        Action labels, length A.
    first_time : int
        The time of the data that is `t = 0`.
    horizon : int
        Number of decision times T.
    agents : ndarray of object, shape (J,)
        The agent of each trajectory.
    offsets : ndarray of int, shape (J + 1,)
        Rows of trajectory `j` are `offsets[j]:offsets[j + 1]`.
    time, state, action : ndarray of int, shape (n_rows,)
        Codes of each row; `action` is -1 where a trajectory's last row has none.
    groups : dict of str to ndarray, shape (J,)
        Labels constant within an agent, for clustering.
    """

    space: StateSpace
    actions: tuple[Any, ...]
    first_time: int
    horizon: int
    agents: np.ndarray
    offsets: np.ndarray
    time: np.ndarray
    state: np.ndarray
    action: np.ndarray
    groups: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    @strict_keywords
    def from_frame(
        cls,
        frame: Any,
        *,
        agent: str = "agent",
        time: str = "time",
        state: str | Sequence[str] = "state",
        action: str = "action",
        state_labels: Mapping[str, Sequence[Any]] | None = None,
        action_labels: Sequence[Any] | None = None,
        groups: Sequence[str] = (),
        gaps: str = "error",
    ) -> "Trajectories":
        """Read a table with one row per agent and time.

        Parameters
        ----------
        frame : table or path
            A pandas, polars or pyarrow table, a DuckDB relation, anything else that narwhals
            reads, or the path of a CSV (also gzipped) or Parquet file.
        agent, time, action : str
            Column names. Times are integers, one step apart. The action may be empty in an
            agent's last row: a state is seen, no decision.
        state : str or list of str
            Column or columns whose product is the state.
        state_labels : mapping of str to list, optional
            Labels of each state column in order; by default those in the table, sorted.
        action_labels : list, optional
            Labels of the actions in order; by default those in the table, sorted.
        groups : list of str
            Columns constant within an agent (a category, a carrier), kept for clustering.
        gaps : {"error", "split"}
            Whether a missing time within an agent is a fault or starts a new trajectory.

        Returns
        -------
        Trajectories
            The panel, sorted by agent and time.

        Raises
        ------
        DataError
            With all faults of the table at once: missing columns or labels, unknown labels,
            non-integer times, duplicates, gaps, missing actions, too few agents or times.
        """
        columns = {"agent": agent, "time": time, "state": state, "action": action}
        labels = {"state": state_labels, "action": action_labels}
        parts = parts_of(columns, labels, groups, gaps)
        return cls(**read_panel(frame, parts, groups=groups, gaps=gaps))

    @functools.cached_property
    def n_trajectories(self) -> int:
        """Number of trajectories J."""
        return len(self.agents)

    @property
    def labels(self) -> np.ndarray:
        """One distinct label a trajectory: the agent, with the first time where it was split.

        Of pooled times, with a number.
        """
        first = self.time[self.offsets[:-1]] + self.first_time
        repeated = pd.Series(self.agents).duplicated(keep=False).to_numpy()
        start = first if self.horizon > 1 else self._runs
        word = "from" if self.horizon > 1 else "run"
        labels = [
            f"{a} {word} {t}" if r else a
            for a, t, r in zip(self.agents, start, repeated, strict=True)
        ]
        return np.array(labels, dtype=None if not repeated.any() else object)

    @property
    def _runs(self) -> np.ndarray:
        """Which of its agent's trajectories each is, counted from 1."""
        agents = pd.Series(self.agents)
        return agents.groupby(agents, sort=False).cumcount().to_numpy() + 1

    @functools.cached_property
    def trajectory(self) -> np.ndarray:
        """Trajectory of each row, shape (n_rows,)."""
        return np.repeat(np.arange(self.n_trajectories), np.diff(self.offsets))

    @functools.cached_property
    def counts(self) -> Counts:
        """Sufficient statistics of the panel."""
        T, S, A = self.horizon, self.space.size, len(self.actions)
        counts = Counts(
            np.zeros((T, S, A)), np.zeros((T, S)), np.zeros((T, S)), np.zeros((T, S, A))
        )
        acted = self.action >= 0
        rows = self.time[acted], self.state[acted], self.action[acted]
        np.add.at(counts.actions, rows, 1.0)
        first, last = self.offsets[:-1], self.offsets[1:] - 1
        first = first[acted[first]]
        np.add.at(counts.starts, (self.time[first], self.state[first]), 1.0)
        seen = last[~acted[last] & (self.time[last] < T) & ~np.isin(last, self.offsets[:-1])]
        np.add.at(counts.ends_seen, (self.time[seen], self.state[seen]), 1.0)
        unseen = last[acted[last] & (self.time[last] < T - 1)]
        rows = self.time[unseen], self.state[unseen], self.action[unseen]
        np.add.at(counts.ends_unseen, rows, 1.0)
        return counts

    @functools.cached_property
    def visits(self) -> np.ndarray:
        """Observed agents by time and state, shape (T + 1, S)."""
        visits = np.zeros((self.horizon + 1, self.space.size))
        np.add.at(visits, (self.time, self.state), 1.0)
        return visits

    @functools.cached_property
    def n_agents(self) -> int:
        """Number of distinct agents."""
        return len(set(self.agents.tolist()))

    @functools.cached_property
    def n_late(self) -> int:
        """Number of trajectories that begin after the first time."""
        return int((self.time[self.offsets[:-1]] > 0).sum())

    @functools.cached_property
    def lengths(self) -> tuple[int, int]:
        """Decisions in the shortest and in the longest trajectory."""
        lengths = np.add.reduceat(self.action >= 0, self.offsets[:-1], dtype=int)
        return int(lengths.min()), int(lengths.max())

    def transition_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct observed steps, rows (t, s, a, s'), and how often each was seen."""
        here = np.flatnonzero((self.action[:-1] >= 0) & (np.diff(self.trajectory) == 0))
        steps = np.stack(
            [self.time[here], self.state[here], self.action[here], self.state[here + 1]], axis=1
        )
        distinct, n = np.unique(steps, axis=0, return_counts=True)
        return distinct, n.astype(float)

    def recode(self, space: StateSpace, actions: Sequence[Any]) -> "Trajectories":
        """Return the same panel coded against another order of labels, all of them known there.

        Raises
        ------
        ValueError
            If the panel has a coordinate or label that `space` or `actions` lacks.
        """
        states, moves = self._places(space, actions)
        return replace(
            self,
            space=space,
            actions=tuple(actions),
            state=states[self.state],
            action=np.append(moves, MISSING)[self.action],
        )

    def pooled(self) -> "Trajectories":
        """Return the panel with all its times taken for one, as a stationary game sees it."""
        return replace(self, first_time=0, horizon=1, time=np.zeros_like(self.time))

    def to_frame(
        self, *, agent: str = "agent", time: str = "time", action: str = "action"
    ) -> pd.DataFrame:
        """Return the panel as a table with one row per agent and time, a column a coordinate."""
        codes = self.space.codes[:, self.state]
        columns = {agent: self.agents[self.trajectory], time: self.time + self.first_time}
        for row, (name, labels) in zip(codes, self.space.coordinates.items(), strict=True):
            columns[name] = index_of(labels)[row]
        moves = index_of([*self.actions, None])[self.action]
        columns[action] = pd.Series(moves).infer_objects().to_numpy()
        return pd.DataFrame(columns)

    def subset(self, keep: np.ndarray) -> "Trajectories":
        """Return the panel of some trajectories, by position; repeats are allowed (bootstrap)."""
        keep = np.arange(self.n_trajectories)[keep]
        if not len(keep):
            raise ValueError("`keep` selects no trajectory; keep at least one.")
        rows = np.concatenate([np.arange(self.offsets[j], self.offsets[j + 1]) for j in keep])
        lengths = np.diff(self.offsets)[keep]
        return replace(
            self,
            agents=self.agents[keep],
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            time=self.time[rows],
            state=self.state[rows],
            action=self.action[rows],
            groups={k: v[keep] for k, v in self.groups.items()},
        )

    def split(self, by: str) -> dict[Any, "Trajectories"]:
        """Return the panels of the groups, by label, sorted.

        Parameters
        ----------
        by : str
            A column named in `from_frame(groups=)`.

        Raises
        ------
        ValueError
            If the panel has no such groups.
        """
        if not self.groups:
            raise ValueError(
                f"the panel has no groups to split by; name the column when reading it, "
                f"Trajectories.from_frame(..., groups=[{by!r}])."
            )
        one_of("by", by, list(self.groups))
        codes, labels = pd.factorize(self.groups[by], sort=True)
        return {
            plain_label(label): self.subset(np.flatnonzero(codes == k))
            for k, label in enumerate(labels)
        }


def with_rows(panel: Panel, what: str) -> Trajectories:
    """Return a panel that has its rows, else raise a `ValueError` that says what needs them."""
    if not isinstance(panel, Trajectories):
        raise ValueError(
            f"{what} needs the trajectories one by one, which a {type(panel).__name__} does not "
            "keep; read the table with Trajectories.from_frame."
        )
    return panel
