"""The rows of a panel in codes, and the counts that the likelihoods need of them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import numpy as np
import pandas as pd

from mfgppl._arguments import strict_keywords
from mfgppl.data.columns import MISSING
from mfgppl.data.exposure import Exposure
from mfgppl.data.panel import Counts, Panel
from mfgppl.data.periods import Clock
from mfgppl.data.space import StateSpace, check_types, index_of, plain_label
from mfgppl.data.statistics import carried_forward


@dataclass(frozen=True, eq=False, repr=False)
class CodedRows(Panel):
    """Rows of agents, sorted by agent and time; `Trajectories` says what each attribute is."""

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
    covariates: pd.DataFrame = field(default_factory=pd.DataFrame)
    carried: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pooled_times: bool = False
    owner: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    exposures: dict[str, Exposure] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Carry nobody, and number agents by their labels, where nothing is said of it."""
        if not len(self.carried):
            object.__setattr__(self, "carried", np.zeros(len(self.agents), dtype=np.int64))
        if not len(self.owner):
            object.__setattr__(self, "owner", pd.factorize(self.agents)[0])

    @functools.cached_property
    def n_trajectories(self) -> int:
        """Number of trajectories J."""
        return len(self.agents)

    @property
    def labels(self) -> np.ndarray:
        """One label per trajectory: the agent, with its first time where an agent has several.

        Where there is one time alone, with a number. Copies of a trajectory have one label.
        """
        agents = pd.Series(self.agents)
        repeated = agents.duplicated(keep=False).to_numpy()
        word, start = "from", self.times_called()[self.time[self.offsets[:-1]]]
        if self.horizon == 1:
            word, start = "run", agents.groupby(agents, sort=False).cumcount().to_numpy() + 1
        labels = [
            f"{a} {word} {t}" if r else a
            for a, t, r in zip(self.agents, start, repeated, strict=True)
        ]
        return index_of(labels) if not repeated.any() else np.array(labels, dtype=object)

    def times_called(self) -> np.ndarray:
        """Return what each time is called, also those after the last decision."""
        return index_of(self.periods.resized(int(self.time.max(initial=0)) + 1).labels)

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
        seen = last[~acted[last] & (self.time[last] < T) & (last > first)]
        first = first[acted[first]]
        np.add.at(counts.starts, (self.time[first], self.state[first]), 1.0)
        np.add.at(counts.ends_seen, (self.time[seen], self.state[seen]), 1.0)
        unseen = last[acted[last] & (self.time[last] < T - 1)]
        rows = self.time[unseen], self.state[unseen], self.action[unseen]
        np.add.at(counts.ends_unseen, rows, 1.0)
        return counts

    @functools.cached_property
    def visits(self) -> np.ndarray:
        """Observed agents by time and state, shape (T + 1, S), with those carried forward."""
        visits = self.carried_visits.copy()
        np.add.at(visits, (self.time, self.state), 1.0)
        return visits

    @functools.cached_property
    def carried_visits(self) -> np.ndarray:
        """Agents carried forward by time and state, shape (T + 1, S)."""
        last, periods = self._carried_rows
        time, state = self.time[last], self.state[last]
        if not self.pooled_times:
            return carried_forward(self.horizon, self.space.size, time, state, time + periods)
        visits = np.zeros((self.horizon + 1, self.space.size))
        np.add.at(visits, (time, state), periods)
        return visits

    @functools.cached_property
    def absorbed(self) -> np.ndarray:
        """Trajectories carried forward, by time and state of their last row, shape (T + 1, S)."""
        last, _ = self._carried_rows
        absorbed = np.zeros((self.horizon + 1, self.space.size))
        np.add.at(absorbed, (self.time[last], self.state[last]), 1.0)
        return absorbed

    @property
    def _carried_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The last rows of the trajectories that are carried forward, and for how many periods."""
        on = (self.carried > 0) & (np.diff(self.offsets) > 0)
        return self.offsets[1:][on] - 1, self.carried[on]

    @functools.cached_property
    def n_agents(self) -> int:
        """Number of distinct agents."""
        return len(set(self.agents.tolist()))

    @property
    def n_owners(self) -> int:
        """Number of agents, of one who is drawn twice two."""
        return int(self.owner.max()) + 1

    @functools.cached_property
    def first_of_owner(self) -> np.ndarray:
        """The first trajectory of each owner, shape (n_owners,)."""
        return np.unique(self.owner, return_index=True)[1]

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
        S, A = self.space.size, len(self.actions)
        move = self.time[here], self.state[here], self.action[here], self.state[here + 1]
        shape = (int(self.time.max(initial=0)) + 1, S, A, S)
        which, codes = pd.factorize(np.ravel_multi_index(move, shape))
        n = np.bincount(which, minlength=len(codes)).astype(float)
        order = np.argsort(codes)
        return np.stack(np.unravel_index(codes[order], shape), axis=1), n[order]

    @strict_keywords
    def recode(self, space: StateSpace, actions: Sequence[Any]) -> Self:
        """Return the same panel coded against another order of labels, all of them known there.

        Raises
        ------
        ValueError
            If the panel has a coordinate or label that `space` or `actions` lacks, or a type of
            `space` changes within an agent.
        """
        states, moves = self._places(space, actions)
        if set(space.types) - set(self.space.types):
            owner = pd.factorize(self.agents)[0][self.trajectory]
            first = np.unique(owner, return_index=True)[1][owner]
            rows, who = states[self.state], self.agents[self.trajectory]
            check_types(space, rows[first], rows, lambda k: f"within agent {plain_label(who[k])!r}")
        return replace(
            self,
            space=space,
            actions=tuple(actions),
            state=states[self.state],
            action=np.append(moves, MISSING)[self.action],
        )

    def pooled(self) -> Self:
        """Return the panel with all its times taken for one, as a stationary game sees it."""
        time = np.zeros_like(self.time)
        return replace(self, first_time=0, clock=Clock(), horizon=1, time=time, pooled_times=True)

    def present(self, who: np.ndarray, n_agents: int) -> np.ndarray:
        """Return the state of each agent at each time, (T + 1, n_agents), -1 where absent."""
        present = np.full((self.horizon + 1, n_agents), -1)
        present[self.time, who[self.trajectory]] = self.state
        for j in np.flatnonzero(self.carried):
            last = self.offsets[j + 1] - 1
            until = self.time[last] + 1 + self.carried[j]
            present[self.time[last] + 1 : until, who[j]] = self.state[last]
        return present

    def redrawn(self, state: np.ndarray, action: np.ndarray) -> Self:
        """Return the same agents and times with other states and actions (n_rows,)."""
        return replace(self, state=state, action=action)


Rows = TypeVar("Rows", bound=CodedRows)  # of which a panel of the same class is made
