"""What every panel knows, whether it keeps its rows or only their counts."""

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arguments import boolean, is_a, not_negative, one_of, strict_keywords
from mfgppl._keep import Keeper
from mfgppl.data.column_parts import column_names
from mfgppl.data.orders import bins_of
from mfgppl.data.periods import Clock, Periods
from mfgppl.data.space import StateSpace, check_labels, index_of, margin, state_labels
from mfgppl.data.transitions import Moves, TransitionEstimate, allowed_actions, frequencies

THIN, SHOWN = 5, 5  # decisions below which a cell is thin, and how many are named


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


class Panel(Keeper, abc.ABC):
    """Crowd, dynamics and audit of a panel, from its statistics.

    Attributes
    ----------
    space : StateSpace
        Types and state coordinates with their labels; types come first. Of S states and C
        combinations of types, all arrays have C * S states.
    actions : tuple
        Action labels, length A.
    first_time : int
        The time of the data that is `t = 0`; of dates, counted in the unit of `clock`.
    horizon : int
        Number of decision times T.
    clock : Clock
        From one time to the next: a step, in integers or a unit of dates.
    covariates : DataFrame
        One row for each label of the type that the covariates make.
    """

    space: StateSpace
    actions: tuple[Any, ...]
    first_time: int
    horizon: int
    clock: Clock
    covariates: pd.DataFrame

    if TYPE_CHECKING:
        # read only: one kind of panel stores them as fields, the other computes them

        @property
        def counts(self) -> Counts:
            """Sufficient statistics of the likelihoods."""

        @property
        def visits(self) -> np.ndarray:
            """Agents seen by time and state, shape (T + 1, S); row T follows the last decision.

            Those carried forward in an absorbing state are among them.
            """

        @property
        def carried_visits(self) -> np.ndarray:
            """Agents carried forward by time and state, shape (T + 1, S)."""

        @property
        def absorbed(self) -> np.ndarray:
            """Trajectories carried forward, by time and state of their last row, (T + 1, S)."""

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

    @abc.abstractmethod
    def transition_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct observed steps, rows (t, s, a, s'), and how often each was seen."""

    @abc.abstractmethod
    def recode(self, space: StateSpace, actions: Sequence[Any]) -> "Panel":
        """Return the same panel coded against another order of labels, all of them known there."""

    @abc.abstractmethod
    def pooled(self) -> "Panel":
        """Return the panel with all its times taken for one, as a stationary game sees it."""

    @property
    def periods(self) -> Periods:
        """What the decision times are called; `MeanFieldGame(horizon=panel.periods)` keeps it.

        Integers, years of yearly dates, and text of other dates.
        """
        return Periods(self.first_time, self.clock, self.horizon)

    def time_label(self, t: int) -> Any:
        """Return what a time from 0 is called."""
        return self.periods.label(t)

    @property
    def n_decisions(self) -> int:
        """Number of observed actions."""
        return int(self.counts.actions.sum())

    @property
    def n_early(self) -> int:
        """Number of trajectories that end before the last decision time and are not carried on."""
        return int(self.early_ends[:-1].sum())

    @property
    def early_ends(self) -> np.ndarray:
        """Trajectories that end early and are not carried forward, by their last row, (T, S).

        Those at T - 1 are seen at the last decision time and take no decision.
        """
        ends = self.counts.ends_seen + self.counts.ends_unseen.sum(-1)
        return np.maximum(ends - self.absorbed[: self.horizon], 0.0)

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

    @strict_keywords
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
                f"no agent is observed at time {self.time_label(empty[0])}: the mean field is not "
                "known there; give `prior_count` above 0."
            )
        return visits / totals

    @strict_keywords
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
                f"no decision is observed at time {self.time_label(empty[0])}: the mean field is "
                "not known there; give `prior_count` above 0."
            )
        return counts / totals

    @strict_keywords
    def initial_distribution(self, *, prior_count: float = 0.0) -> xr.DataArray:
        """Share of the observed agents in each state at the first time, dims (state,).

        With types the states are those of each type, and sum to 1 together.
        """
        named = {"types": self.space.types} if self.space.types else {}
        return xr.DataArray(
            self.mean_field(prior_count=prior_count)[0],
            dims="state",
            coords={"state": index_of(self.space.labels)},
            attrs={"coordinates": self.space.coordinates, **named},
        )

    @strict_keywords
    def estimate_transition(
        self,
        *,
        prior_count: float = 0.0,
        by: str | Sequence[str] | None = None,
        by_time: bool = False,
        available: Any = None,
        support: Any = "seen",
    ) -> TransitionEstimate:
        """Estimate the dynamics by (smoothed) frequencies.

        Smoothing invents no move: a next state is possible if each of its coordinates makes a move
        that was seen under the action, from its value here to its value there, by any agent at any
        time and whatever the other coordinates. So what never changes in the panel, the size of a
        firm say, keeps its value. A value of a coordinate that an action was never seen to lead
        from moves as under all actions together; one that nothing was seen to lead from may go to
        any. Moves are pairs of values, not steps along an order: from 2 to 3 is not from 1 to 2.
        States in which agents are carried forward (`from_frame(absorbing=)`) are never left.
        `TransitionEstimate.smoothing` says how much mass smoothing moves and which rows it decides.

        Parameters
        ----------
        prior_count : float, not negative
            Pseudo-count added to each possible next state of each row.
        by : str or list of str, optional
            Types of which each combination has a table of its own, with what is possible in it.
            By default one table is pooled over all types.
        by_time : bool
            Whether to estimate one table a step instead of one pooled over time, among them that of
            the move after the last decision where the state that follows is seen. What is possible
            is pooled all the same.
        available : array of bool, DataArray or DataFrame, shape (S, A), optional
            Which actions each state allows, by label or in the panel's order. The others need no
            data: their rows, which no game uses, are uniform over the next states possible.
        support : {"seen", "all"} or array of bool, shape (S, A, S) or (S, S)
            Which next states smoothing may reach: those whose moves were seen, all, or those of a
            table in the panel's order of labels (a DataArray in any); (S, S) holds for all actions.

        Returns
        -------
        TransitionEstimate
            Probabilities and counts over an agent's states, types left out, with dims (state,
            action, next_state), led by time (T-1, or T with the last move) if `by_time`, and these
            by the types in `by`.

        Raises
        ------
        DataError
            If `prior_count` is zero and some state and action were never followed, or an observed
            step lies outside a table `support`.
        """
        prior_count, by_time = not_negative("prior_count", prior_count), boolean("by_time", by_time)
        moves = self._moves(self._types_of("by", by), by_time)
        allowed = allowed_actions(available, moves.space, self.actions)
        return frequencies(moves, prior_count=prior_count, available=allowed, support=support)

    def absorbing_states(self) -> np.ndarray:
        """Return in which states (S,) of an agent some are carried forward, types left out."""
        seen: np.ndarray = self.absorbed.sum(0) > 0
        return np.asarray(seen.reshape(self.space.n_cells, -1).any(0))

    def _moves(self, types: tuple[str, ...], by_time: bool) -> Moves:
        """Return the steps over an agent's states, by some types and by time or pooled.

        A step occurs once for each combination of all types in which it was seen.
        """
        space, S = self.space.within, self.space.within.size
        steps, n = self.transition_counts()
        t, state, action, following = steps.T
        return Moves(
            space=space,
            actions=self.actions,
            types=StateSpace({name: self.space.coordinates[name] for name in types}),
            group=margin(self.space.cells, types)[state // S],
            steps=np.stack([t, state % S, action, following % S], axis=1),
            n=n,
            absorbing=self.absorbing_states(),
            periods=self.periods if by_time else None,
        )

    def _types_of(self, argument: str, value: Any) -> tuple[str, ...]:
        """Return the types that an argument names, in the panel's order."""
        names = [] if value is None else column_names(argument, value)
        if names and not self.space.types:
            raise ValueError(
                f"`{argument}` names {names[0]!r}, and the panel has no types; name the column when"
                f" reading it, from_frame(..., types=[{names[0]!r}])."
            )
        for name in names:
            one_of(argument, name, self.space.types)
        return tuple(name for name in self.space.types if name in names)

    def support(self) -> pd.DataFrame:
        """Return how many decisions were taken in each state (rows) by each action (columns).

        Types are added up. What a fit knows of a cell it knows from its decisions.
        """
        within = self.space.within
        taken = self.counts.actions.sum(0).reshape(-1, within.size, len(self.actions)).sum(0)
        return pd.DataFrame(
            taken.astype(int),
            index=pd.Index(state_labels(within), name="state"),
            columns=pd.Index(list(self.actions), name="action", dtype=object),
        )

    def audit(self) -> dict[str, Any]:
        """Describe the panel: sizes, times, shares, thin cells, and what bins have lost."""
        within, labels = self.space.within, self.space.coordinates
        taken = self.counts.actions.sum(0).reshape(-1, within.size, len(self.actions)).sum(0)
        seen = self.mean_field().mean(0).reshape(-1, within.size).sum(0)
        shares = taken.sum(0) / max(self.n_decisions, 1)
        types = {"types": {k: list(labels[k]) for k in self.space.types}}
        carried = {"trajectories carried forward": int(self.absorbed.sum())}
        return {
            "agents": self.n_agents,
            "trajectories": self.n_trajectories,
            "decisions": self.n_decisions,
            "decision times": self.horizon,
            "first time": self.time_label(0),
            **({"step between times": self.clock.step} if self.clock.step > 1 else {}),
            "decisions per trajectory": f"{self.lengths[0]} to {self.lengths[1]}",
            "trajectories entering late": self.n_late,
            "trajectories ending early": int(self.early_ends.sum()),
            **(carried if self.absorbed.any() else {}),
            **(types if self.space.types else {}),
            "state coordinates": {k: list(v) for k, v in within.coordinates.items()},
            "states": within.size,
            "states never visited": int((seen == 0).sum()),
            "state and action pairs never taken": int((taken == 0).sum()),
            **self._thin_cells(),
            "labels in fewer than 1 of 1,000 rows": self._rare_labels(),
            **self._lost_in_bins(),
            "action shares": {
                str(a): round(float(s), 4) for a, s in zip(self.actions, shares, strict=True)
            },
        }

    def _thin_cells(self) -> dict[str, Any]:
        """Say which pairs of state and action are known from few decisions."""
        taken = self.support()
        cells = [
            (n, f"{state}, {action}: {n}")
            for state, row in zip(taken.index, taken.to_numpy().tolist(), strict=True)
            for action, n in zip(taken.columns, row, strict=True)
            if 0 < n < THIN
        ]
        named = [text for _, text in sorted(cells, key=lambda cell: cell[0])[:SHOWN]]
        return {
            f"state and action pairs taken 1 to {THIN - 1} times": len(cells),
            **({"the thinnest of them": named} if named else {}),
        }

    def _lost_in_bins(self) -> dict[str, Any]:
        """Say what share of each binned column's variation lies within bins."""
        lost = {name: round(made.lost, 3) for name, made in bins_of(self.space).items()}
        return {"variation lost in bins": lost} if lost else {}

    def _rare_labels(self) -> list[str]:
        """Labels so rare that they may be misspelt."""
        rows = self.visits.sum(0)
        seen = {
            name: np.bincount(code, weights=rows, minlength=len(self.space.coordinates[name]))
            for name, code in zip(self.space.coordinates, self.space.codes, strict=True)
        }
        seen.pop(str(self.covariates.index.name), None)  # numbers, which no hand spells
        columns = [*((k, self.space.coordinates[k]) for k in seen), ("action", self.actions)]
        counted = [*seen.values(), self.counts.actions.sum((0, 1))]
        return [
            f"{name}={label!r}"
            for (name, labels), totals in zip(columns, counted, strict=True)
            for label, n in zip(labels, totals, strict=True)
            if 1000 * n < totals.sum()
        ]

    def _places(self, space: StateSpace, actions: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return where each state (S,) and each action (A,) of the panel stands among others.

        Raises
        ------
        ValueError
            If the panel has a coordinate or label that `space` or `actions` lacks.
        """
        is_a("space", space, StateSpace, " The game has one: game.space.")
        actions = check_labels("actions", actions)
        states = space.positions_of(self.space, whose="the panel")
        unknown = [a for a in self.actions if a not in actions]
        if unknown:
            raise ValueError(
                f"the panel has the action {unknown[0]!r}, which the game does not know; "
                f"it has {list(actions)}."
            )
        return states, np.array([list(actions).index(a) for a in self.actions])

    def __repr__(self) -> str:
        *others, last = self.space.types or ("",)
        named = f"{', '.join(others)} and {last}" if others else last
        types = f"{self.space.n_cells} types of {named}, "
        return (
            f"{type(self).__name__}({self.n_trajectories} trajectories, {self.n_decisions} "
            f"decisions at {self.horizon} times, {types if self.space.types else ''}"
            f"{self.space.within.size} states, {len(self.actions)} actions)"
        )


def flow_distance(panel: Panel, shares: np.ndarray) -> float:
    """Return the total variation between a panel's flow and shares (T, S), mean over time."""
    gap = 0.5 * np.abs(flow_shares(panel) - shares[: panel.horizon]).sum(-1)
    return float(np.nanmean(gap))


def flow_shares(panel: Panel) -> np.ndarray:
    """Return the share of the agents seen in each state (T, S), NaN at times without any."""
    visits = panel.visits[: panel.horizon]
    totals = visits.sum(-1, keepdims=True)
    return np.where(totals > 0, visits / np.maximum(totals, 1), np.nan)
