"""What every panel knows, whether it keeps its rows or only their counts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from mfgppl._arguments import not_negative, strict_keywords
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


class Panel:
    """Crowd, dynamics and audit of a panel, from its statistics.

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
    """

    space: StateSpace
    actions: tuple[Any, ...]
    first_time: int
    horizon: int

    if TYPE_CHECKING:
        # read only: one kind of panel stores them as fields, the other computes them

        @property
        def counts(self) -> Counts:
            """Sufficient statistics of the likelihoods."""

        @property
        def visits(self) -> np.ndarray:
            """Agents seen by time and state, shape (T + 1, S); row T follows the last decision."""

        @property
        def n_agents(self) -> int:
            """Number of distinct agents."""

        @property
        def n_trajectories(self) -> int:
            """Number of runs of consecutive times of one agent."""

        @property
        def n_late(self) -> int:
            """Number of trajectories that begin after the first time."""

        @property
        def lengths(self) -> tuple[int, int]:
            """Decisions in the shortest and in the longest trajectory."""

    def transition_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct observed steps, rows (t, s, a, s'), and how often each was seen."""
        raise NotImplementedError

    def recode(self, space: StateSpace, actions: Sequence[Any]) -> "Panel":
        """Return the same panel coded against another order of labels, all of them known there."""
        raise NotImplementedError

    def pooled(self) -> "Panel":
        """Return the panel with all its times taken for one, as a stationary game sees it."""
        raise NotImplementedError

    @property
    def n_decisions(self) -> int:
        """Number of observed actions."""
        return int(self.counts.actions.sum())

    def counts_over(self, horizon: int) -> Counts:
        """Return the counts for a horizon not before the panel's, under which all end early."""
        if horizon == self.horizon:
            return self.counts
        wider = [(0, horizon - self.horizon)]
        padded = [np.pad(c, wider + [(0, 0)] * (c.ndim - 1)) for c in self.counts]
        counts = Counts(*padded)
        last = self.horizon - 1
        steps, n = self.transition_counts()
        here = steps[:, 0] == last
        _, state, action, following = steps[here].T
        np.add.at(counts.ends_seen[self.horizon], following, n[here])
        counts.ends_unseen[last] = counts.actions[last]
        np.subtract.at(counts.ends_unseen[last], (state, action), n[here])
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
        visits = self.visits[: self.horizon] + not_negative("prior_count", prior_count)
        totals = visits.sum(axis=1, keepdims=True)
        empty = np.flatnonzero(totals == 0)
        if len(empty):
            raise ValueError(
                f"no agent is observed at time {empty[0] + self.first_time}: the mean field is not "
                "known there; give `prior_count` above 0."
            )
        return visits / totals

    def occupancy(self, *, prior_count: float = 0.0) -> np.ndarray:
        """Share of the observed decisions in each state and action at each decision time.

        Parameters
        ----------
        prior_count : float, not negative
            Pseudo-count added to each state and action.

        Returns
        -------
        ndarray, shape (T, S, A)
            The shares of each time sum to 1.
        """
        counts = self.counts.actions + not_negative("prior_count", prior_count)
        totals = counts.sum(axis=(1, 2), keepdims=True)
        empty = np.flatnonzero(totals == 0)
        if len(empty):
            raise ValueError(
                f"no decision is observed at time {empty[0] + self.first_time}: the mean field is "
                "not known there; give `prior_count` above 0."
            )
        return counts / totals

    def initial_distribution(self, *, prior_count: float = 0.0) -> xr.DataArray:
        """Share of the observed agents in each state at the first time, dims (state,)."""
        return xr.DataArray(
            self.mean_field(prior_count=prior_count)[0],
            dims="state",
            coords={"state": index_of(self.space.labels)},
            attrs={"coordinates": self.space.coordinates},
        )

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

    def audit(self) -> dict[str, Any]:
        """Describe the panel: sizes, times, entries and exits, shares of actions and states."""
        taken = self.counts.actions.sum((0, 1))
        shares = taken / max(self.n_decisions, 1)
        ends = self.counts.ends_seen.sum() + self.counts.ends_unseen.sum()
        return {
            "agents": self.n_agents,
            "trajectories": self.n_trajectories,
            "decisions": self.n_decisions,
            "decision times": self.horizon,
            "first time": self.first_time,
            "decisions per trajectory": f"{self.lengths[0]} to {self.lengths[1]}",
            "trajectories entering late": self.n_late,
            "trajectories ending early": int(ends),
            "state coordinates": {k: list(v) for k, v in self.space.coordinates.items()},
            "states": self.space.size,
            "states never visited": int((self.mean_field().mean(0) == 0).sum()),
            "state and action pairs never taken": int((self.counts.actions.sum(0) == 0).sum()),
            "labels in fewer than 1 of 1,000 rows": self._rare_labels(),
            "action shares": {
                str(a): round(float(s), 4) for a, s in zip(self.actions, shares, strict=True)
            },
        }

    def _rare_labels(self) -> list[str]:
        """Labels so rare that they may be misspelt."""
        rows = self.visits.sum(0)
        seen = {
            name: np.bincount(code, weights=rows, minlength=len(self.space.coordinates[name]))
            for name, code in zip(self.space.coordinates, self.space.codes, strict=True)
        }
        columns = [*self.space.coordinates.items(), ("action", self.actions)]
        counted = [*seen.values(), self.counts.actions.sum((0, 1))]
        return [
            f"{name}={label!r}"
            for (name, labels), totals in zip(columns, counted, strict=True)
            for label, n in zip(labels, totals, strict=True)
            if 1000 * n < totals.sum()
        ]

    def _never_followed(self, empty: np.ndarray, by_time: bool) -> Fault:
        examples = tuple(
            f"state={self.space.labels[s]!r}, action={self.actions[a]!r}"
            + (f", time={self.first_time + t}" if by_time else "")
            for t, s, a in empty[:3]
        )
        remedy = "give `prior_count` above 0, or pass a known `transition` to the game"
        return Fault("state and action never followed by a next state", 0, examples, remedy)

    def _places(self, space: StateSpace, actions: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return where each state (S,) and each action (A,) of the panel stands among others.

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
        return states, np.array([list(actions).index(a) for a in self.actions])

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.n_trajectories} trajectories, {self.n_decisions} "
            f"decisions at {self.horizon} times, {self.space.size} states, "
            f"{len(self.actions)} actions)"
        )


def index_of(labels: Sequence[Any]) -> np.ndarray:
    """Labels as an index array, each of its own type."""
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return np.array(labels) if len({type(v) for v in labels}) == 1 else array
