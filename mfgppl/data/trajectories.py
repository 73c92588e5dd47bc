"""The panel as trajectories, and the counts that the likelihoods need of it."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arguments import not_negative, strict_keywords
from mfgppl.data.reading import read_panel
from mfgppl.data.space import StateSpace
from mfgppl.exceptions import DataError, Fault


class Counts(NamedTuple):
    """Sufficient statistics of a panel for both likelihoods.

    Attributes
    ----------
    actions : ndarray, shape (T, S, A)
        Decisions taken, `N_t(s, a)`.
    starts : ndarray, shape (T, S)
        Trajectories by time and state of their first decision.
    ends_seen : ndarray, shape (T, S)
        Trajectories that stop before the horizon, by the time and state after their last action.
    ends_unseen : ndarray, shape (T, S, A)
        Trajectories that stop before the horizon with the next state not recorded, by their last
        decision.
    """

    actions: np.ndarray
    starts: np.ndarray
    ends_seen: np.ndarray
    ends_unseen: np.ndarray


class TransitionEstimate(NamedTuple):
    """Smoothed transition frequencies with the counts behind them.

    Attributes
    ----------
    probabilities : DataArray
        Dims (state, action, next_state), with a leading time of length T-1 if `by_time`.
    counts : DataArray
        Observed transitions, same dims.
    prior_count : float
        Pseudo-count added to each next state: the posterior of a row is Dirichlet(counts + it).
    space : StateSpace
        The states, by coordinate.
    """

    probabilities: xr.DataArray
    counts: xr.DataArray
    prior_count: float
    space: StateSpace


@dataclass(frozen=True, eq=False)
class Trajectories:
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
        return cls(**read_panel(frame, columns=columns, labels=labels, groups=groups, gaps=gaps))

    @property
    def n_trajectories(self) -> int:
        """Number of trajectories J."""
        return len(self.agents)

    @property
    def n_decisions(self) -> int:
        """Number of observed actions."""
        return int((self.action >= 0).sum())

    @property
    def labels(self) -> np.ndarray:
        """One distinct label a trajectory: the agent, with the first time where it was split."""
        first = self.time[self.offsets[:-1]] + self.first_time
        repeated = pd.Series(self.agents).duplicated(keep=False).to_numpy()
        labels = [
            f"{a} from {t}" if r else a
            for a, t, r in zip(self.agents, first, repeated, strict=True)
        ]
        return np.array(labels, dtype=None if not repeated.any() else object)

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

    def mean_field(self, *, prior_count: float = 0.0) -> np.ndarray:
        """Share of the observed agents in each state at each decision time.

        Parameters
        ----------
        prior_count : float, not negative
            Pseudo-count added to each state.

        Returns
        -------
        ndarray, shape (T, S)
            Rows sum to 1.
        """
        prior_count = not_negative("prior_count", prior_count)
        visits = np.full((self.horizon, self.space.size), prior_count)
        inside = self.time < self.horizon
        np.add.at(visits, (self.time[inside], self.state[inside]), 1.0)
        totals = visits.sum(axis=1, keepdims=True)
        empty = np.flatnonzero(totals == 0)
        if len(empty):
            raise ValueError(
                f"no agent is observed at time {empty[0] + self.first_time}: the mean field is not "
                "known there; give `prior_count` above 0."
            )
        return visits / totals

    def initial_distribution(self, *, prior_count: float = 0.0) -> xr.DataArray:
        """Share of the observed agents in each state at the first time, dims (state,)."""
        return xr.DataArray(
            self.mean_field(prior_count=prior_count)[0],
            dims="state",
            coords={"state": index_of(self.space.labels)},
            attrs={"coordinates": self.space.coordinates},
        )

    def transition_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct observed steps, rows (t, s, a, s'), and how often each was seen."""
        here = np.flatnonzero((self.action[:-1] >= 0) & (np.diff(self.trajectory) == 0))
        steps = np.stack(
            [self.time[here], self.state[here], self.action[here], self.state[here + 1]], axis=1
        )
        distinct, n = np.unique(steps, axis=0, return_counts=True)
        return distinct, n.astype(float)

    @strict_keywords
    def estimate_transition(
        self, *, prior_count: float = 0.0, by_time: bool = False, available: Any = None
    ) -> TransitionEstimate:
        """Estimate the dynamics by (smoothed) frequencies.

        Parameters
        ----------
        prior_count : float, not negative
            Pseudo-count added to each next state of each row.
        by_time : bool
            Whether to estimate one table a step instead of one pooled over time.
        available : array of bool, shape (S, A), optional
            Which actions each state allows, in the panel's order of labels. The others need no
            data: their rows, which no game uses, are uniform.

        Returns
        -------
        TransitionEstimate
            Probabilities and counts with dims (state, action, next_state), led by time (T-1) if
            `by_time`.

        Raises
        ------
        DataError
            If `prior_count` is zero and some state and action were never followed.
        """
        prior_count = not_negative("prior_count", prior_count)
        S, A = self.space.size, len(self.actions)
        steps, n = self.transition_counts()
        counts = np.zeros((self.horizon - 1 if by_time else 1, S, A, S))
        kept = steps[:, 0] < len(counts) if by_time else np.ones(len(steps), dtype=bool)
        time = steps[kept, 0] if by_time else 0
        np.add.at(counts, (time, *steps[kept, 1:].T), n[kept])
        pseudo = np.full((S, A, 1), prior_count)
        if available is not None:
            allowed = np.asarray(available)
            if allowed.shape != (S, A):
                message = f"`available` must have shape (S, A) = {(S, A)}"
                raise ValueError(f"{message}; got {allowed.shape}.")
            pseudo = np.where(allowed.astype(bool)[..., None], pseudo, max(prior_count, 1.0))
        totals = counts.sum(-1, keepdims=True) + pseudo * S
        empty = np.argwhere(totals[..., 0] == 0)
        if len(empty):
            raise DataError([self._never_followed(empty, by_time)])
        probabilities = (counts + pseudo) / totals
        states = index_of(self.space.labels)
        coords = {"state": states, "action": index_of(self.actions), "next_state": states}
        dims = ("time", "state", "action", "next_state")
        arrays = [
            xr.DataArray(a if by_time else a[0], dims=dims if by_time else dims[1:], coords=coords)
            for a in (probabilities, counts)
        ]
        return TransitionEstimate(arrays[0], arrays[1], prior_count, self.space)

    def _rare_labels(self) -> list[str]:
        """Labels so rare that they may be misspelt."""
        columns = dict(self.space.coordinates) | {"action": self.actions}
        codes = [*self.space.codes[:, self.state], self.action[self.action >= 0]]
        found = []
        for code, (name, labels) in zip(codes, columns.items(), strict=True):
            seen = np.bincount(code, minlength=len(labels))
            few = [v for v, n in zip(labels, seen, strict=True) if 1000 * n < seen.sum()]
            found += [f"{name}={v!r}" for v in few]
        return found

    def _never_followed(self, empty: np.ndarray, by_time: bool) -> Fault:
        examples = tuple(
            f"state={self.space.labels[s]!r}, action={self.actions[a]!r}"
            + (f", time={self.first_time + t}" if by_time else "")
            for t, s, a in empty[:3]
        )
        remedy = "give `prior_count` above 0, or pass a known `transition` to the game"
        return Fault("state and action never followed by a next state", 0, examples, remedy)

    def recode(self, space: StateSpace, actions: Sequence[Any]) -> "Trajectories":
        """Return the same panel coded against another order of labels, all of them known there.

        Raises
        ------
        ValueError
            If the panel has a coordinate or label that `space` or `actions` lacks.
        """
        states = space.positions_of(self.space, whose="the panel")
        unknown = [a for a in self.actions if a not in actions]
        if unknown:
            raise ValueError(
                f"the panel has the action {unknown[0]!r}, which the game does not know; "
                f"it has {list(actions)}."
            )
        moves = np.array([list(actions).index(a) for a in self.actions] + [-1])
        return replace(
            self,
            space=space,
            actions=tuple(actions),
            state=states[self.state],
            action=moves[self.action],
        )

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

    def audit(self) -> dict[str, Any]:
        """Describe the panel: sizes, times, entries and exits, shares of actions and states."""
        lengths = np.array([int((a >= 0).sum()) for a in np.split(self.action, self.offsets[1:-1])])
        shares = self.counts.actions.sum((0, 1)) / max(self.n_decisions, 1)
        visited = self.mean_field().mean(0)
        first = self.time[self.offsets[:-1]]
        return {
            "agents": len(set(self.agents.tolist())),
            "trajectories": self.n_trajectories,
            "decisions": self.n_decisions,
            "decision times": self.horizon,
            "first time": self.first_time,
            "decisions per trajectory": f"{lengths.min()} to {lengths.max()}",
            "trajectories entering late": int((first > 0).sum()),
            "trajectories ending early": int(
                self.counts.ends_seen.sum() + self.counts.ends_unseen.sum()
            ),
            "state coordinates": {k: list(v) for k, v in self.space.coordinates.items()},
            "states": self.space.size,
            "states never visited": int((visited == 0).sum()),
            "state and action pairs never taken": int((self.counts.actions.sum(0) == 0).sum()),
            "labels in fewer than 1 of 1,000 rows": self._rare_labels(),
            "action shares": {
                str(a): round(float(s), 4) for a, s in zip(self.actions, shares, strict=True)
            },
        }

    def __repr__(self) -> str:
        return (
            f"Trajectories({self.n_trajectories} trajectories, {self.n_decisions} decisions at "
            f"{self.horizon} times, {self.space.size} states, {len(self.actions)} actions)"
        )


def index_of(labels: Sequence[Any]) -> np.ndarray:
    """Labels as an index array, each of its own type."""
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return np.array(labels) if len({type(v) for v in labels}) == 1 else array
