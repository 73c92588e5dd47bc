"""Panels of any size, counted where their table lives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from mfgppl._arguments import is_a, strict_keywords
from mfgppl.data.arrow_columns import one_type_a_column
from mfgppl.data.column_parts import parts_of
from mfgppl.data.engines import open_source, select_columns
from mfgppl.data.orders import orders_of
from mfgppl.data.panel import Counts, Panel
from mfgppl.data.periods import Clock
from mfgppl.data.queries import count_rows
from mfgppl.data.reading import read_panel
from mfgppl.data.space import StateSpace, check_types
from mfgppl.data.trajectories import Trajectories


@dataclass(frozen=True, eq=False, repr=False)
class CountedPanel(Panel):
    """A panel reduced to its counts where its table lives; read it with `from_frame`.

    It has no rows: what needs the trajectories one by one (scores by trajectory, clustered
    standard errors, the bootstrap) needs `Trajectories`.

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
    counts : Counts
        Sufficient statistics of the likelihoods.
    visits : ndarray, shape (T + 1, S)
        Agents seen by time and state, deciding or not, and those carried forward; row T follows
        the last decision.
    carried_visits : ndarray, shape (T + 1, S)
        Those of them who are carried forward in an absorbing state.
    absorbed : ndarray, shape (T + 1, S)
        Trajectories that are carried forward, by time and state of their last row.
    steps : ndarray of int, shape (n_steps, 4)
        The distinct observed steps (t, s, a, s'), sorted.
    step_counts : ndarray, shape (n_steps,)
        How often each step was seen.
    n_agents, n_trajectories : int
        Distinct agents, and runs of consecutive times of one agent.
    n_late : int
        Trajectories that begin after the first time.
    lengths : tuple of int
        Decisions in the shortest and in the longest trajectory.
    covariates : DataFrame
        One row for each label of the type that the covariates make; see `Trajectories`.
    clock : Clock
        From one time to the next.
    """

    space: StateSpace
    actions: tuple[Any, ...]
    first_time: int
    horizon: int
    counts: Counts
    visits: np.ndarray
    carried_visits: np.ndarray
    absorbed: np.ndarray
    steps: np.ndarray
    step_counts: np.ndarray
    n_agents: int
    n_trajectories: int
    n_late: int
    lengths: tuple[int, int]
    covariates: pd.DataFrame = field(default_factory=pd.DataFrame)
    clock: Clock = field(default_factory=Clock)

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
        types: Sequence[str] = (),
        covariates: Sequence[str] = (),
        state_labels: Mapping[str, Sequence[Any]] | None = None,
        action_labels: Sequence[Any] | None = None,
        type_labels: Mapping[str, Sequence[Any]] | None = None,
        absorbing: Mapping[str, Any] | None = None,
        text: Sequence[str] = (),
        gaps: str = "error",
    ) -> "CountedPanel":
        """Check and count a table with one row per agent and time, on the table's own engine.

        Only small tables of counts leave the engine; they equal those of
        `Trajectories.from_frame`. Files are read by DuckDB, or else polars, in bounded memory.

        Parameters
        ----------
        frame : table or path
            A lazy table that narwhals reads (a polars LazyFrame, a DuckDB relation, a Dask or
            Spark dataframe), a table in memory, or the path of a Parquet file, a folder of them, a
            CSV file (also compressed) or a pattern of such files.
        agent, time, action : str
            Column names. Times are integers, one step apart. The action may be empty in an
            agent's last row: a state is seen, no decision.
        state : str or list of str
            Column or columns whose product is the state.
        types, covariates : list of str
            Columns that never change in an agent; see `Trajectories.from_frame`.
        state_labels, type_labels : mapping of str to list, optional
            Labels of each such column in order; by default those in the table, sorted.
        action_labels : list, optional
            Labels of the actions in order; by default those in the table, sorted.
        absorbing : mapping of str to label or list, optional
            States that nobody leaves; see `Trajectories.from_frame`.
        text : list of str
            Columns of a CSV file to be read as text; see `Trajectories.from_frame`.
        gaps : {"error", "split"}
            Whether a missing time within an agent is a fault or starts a new trajectory.

        Returns
        -------
        CountedPanel
            The counts of the panel.

        Raises
        ------
        DataError
            With all faults of the table at once, as `Trajectories.from_frame` finds them.
        ImportError
            If `frame` is a path and neither DuckDB nor polars is installed.
        """
        columns = {
            "agent": agent, "time": time, "state": state, "action": action,
            "types": types, "covariates": covariates,
        }  # fmt: skip
        labels = {"state": state_labels, "action": action_labels, "types": type_labels}
        parts = parts_of(columns, labels, gaps=gaps, text=text, absorbing=absorbing)
        with open_source(frame, parts) as given, one_type_a_column():
            rows = select_columns(given, parts)
            if isinstance(rows, nw.DataFrame):
                in_memory = read_panel(given.table, parts, groups=(), gaps=gaps)
                return cls.from_trajectories(Trajectories(**in_memory))
            orders = {**given.orders, **orders_of(given.table, parts.wanted)}
            given = given._replace(orders=orders)
            return cls(**count_rows(rows, given, parts, gaps))

    @classmethod
    @strict_keywords
    def from_trajectories(cls, panel: Trajectories) -> "CountedPanel":
        """Reduce a panel in memory to its counts."""
        is_a("panel", panel, Trajectories, " Read a table with from_frame.")
        steps, n = panel.transition_counts()
        shared = ("space", "actions", "first_time", "horizon", "counts", "covariates", "clock")
        visits = ("visits", "carried_visits", "absorbed")
        sizes = ("n_agents", "n_trajectories", "n_late", "lengths")
        fields = {name: getattr(panel, name) for name in shared + visits + sizes}
        return cls(steps=steps, step_counts=n, **fields)

    def transition_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct observed steps, rows (t, s, a, s'), and how often each was seen."""
        return self.steps, self.step_counts

    def pooled(self) -> "CountedPanel":
        """Return the panel with all its times taken for one, as a stationary game sees it."""
        steps, which = np.unique(self.steps[:, 1:], axis=0, return_inverse=True)
        counts = Counts(*(n.sum(0, keepdims=True) for n in self.counts))
        last = self.steps[:, 0] == self.horizon - 1  # seen after the last decision
        np.add.at(counts.ends_seen[0], self.steps[last, 3], self.step_counts[last])
        counts.ends_unseen[0] = 0.0
        return replace(
            self,
            first_time=0,
            clock=Clock(),
            horizon=1,
            counts=counts,
            n_late=0,
            visits=_at_one_time(self.visits),
            carried_visits=_at_one_time(self.carried_visits),
            absorbed=_at_one_time(self.absorbed),
            steps=np.insert(steps, 0, 0, axis=1),
            step_counts=np.bincount(which.ravel(), self.step_counts, minlength=len(steps)),
        )

    @strict_keywords
    def recode(self, space: StateSpace, actions: Sequence[Any]) -> "CountedPanel":
        """Return the same panel coded against another order of labels, all of them known there.

        Raises
        ------
        ValueError
            If the panel has a coordinate or label that `space` or `actions` lacks, or a type of
            `space` changes within an agent.
        """
        states, moves = self._places(space, actions)
        by_state = partial(_spread, size=space.size, places=states, axis=1)
        by_action = partial(_spread, size=len(actions), places=moves, axis=2)
        counts = [by_state(n) if n.ndim == 2 else by_action(by_state(n)) for n in self.counts]
        t, s, a, following = self.steps.T
        steps = np.stack([t, states[s], moves[a], states[following]], axis=1)
        check_types(space, steps[:, 1], steps[:, 3], lambda k: f"at time {self.time_label(t[k])}")
        order = np.lexsort(steps.T[::-1])
        return replace(
            self,
            space=space,
            actions=tuple(actions),
            counts=Counts(*counts),
            visits=by_state(self.visits),
            carried_visits=by_state(self.carried_visits),
            absorbed=by_state(self.absorbed),
            steps=steps[order],
            step_counts=self.step_counts[order],
        )


def _at_one_time(n: np.ndarray) -> np.ndarray:
    """Return what was counted at all times (T + 1, S) as counted at the first of two (2, S)."""
    total = n.sum(0, keepdims=True)
    return np.concatenate([total, np.zeros_like(total)])


def _spread(n: np.ndarray, *, size: int, places: np.ndarray, axis: int) -> np.ndarray:
    """Return counts moved to other places of a longer axis, zero elsewhere."""
    shape = list(n.shape)
    shape[axis] = size
    wide = np.zeros(shape)
    wide[(slice(None),) * axis + (places,)] = n
    return wide
