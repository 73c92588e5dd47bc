"""Dynamics by smoothed frequencies: which next states smoothing may reach, and what it decides."""

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from mfgppl._arguments import one_of
from mfgppl.data.labelled import Order, in_order
from mfgppl.data.periods import Periods
from mfgppl.data.space import StateSpace, index_of
from mfgppl.exceptions import DataError, Fault

SUPPORTS = ("seen", "all")  # that have a name
NAMED = 10  # rows that the sentence on smoothing names at most


class Moves(NamedTuple):
    """What a panel shows of its dynamics.

    Attributes
    ----------
    space : StateSpace
        The S states of an agent, types left out.
    actions : tuple
        Action labels, length A.
    types : StateSpace
        The types whose G combinations have a table each.
    group : ndarray of int, shape (n_steps,)
        The combination of each step.
    steps : ndarray of int, shape (n_steps, 4)
        Observed steps (t, s, a, s').
    n : ndarray, shape (n_steps,)
        How often each was seen.
    absorbing : ndarray of bool, shape (S,)
        States in which agents are carried forward.
    periods : Periods or None
        The decision times, of which each has a table; None where all share one.
    """

    space: StateSpace
    actions: tuple[Any, ...]
    types: StateSpace
    group: np.ndarray
    steps: np.ndarray
    n: np.ndarray
    absorbing: np.ndarray
    periods: Periods | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of states, actions and next states."""
        return self.space.size, len(self.actions), self.space.size


class TransitionEstimate(NamedTuple):
    """Smoothed transition frequencies with the counts behind them.

    Attributes
    ----------
    probabilities : DataArray
        Dims (state, action, next_state), with a leading time of length T-1 or T if `by_time`, and
        before it one axis for each type in `by`.
    counts : DataArray
        Observed transitions, same dims.
    prior_count : float
        Pseudo-count added to each next state in the support.
    space : StateSpace
        The states of an agent, by coordinate, types left out.
    pseudo_counts : DataArray
        Pseudo-counts, dims (state, action, next_state), led by the types in `by`, 0 outside the
        support: the posterior of a row is Dirichlet(counts + pseudo_counts).
    available : DataArray of bool
        Dims (state, action): rows that a game uses.
    """

    probabilities: xr.DataArray
    counts: xr.DataArray
    prior_count: float
    space: StateSpace
    pseudo_counts: xr.DataArray
    available: xr.DataArray

    def smoothing(self) -> "Smoothing":
        """Return how much mass the pseudo-counts move, and where they decide."""
        n = self.counts.sum("next_state")
        pseudo = self.pseudo_counts.sum("next_state")
        total = n + pseudo
        weight = (pseudo / total.where(total > 0, 1.0)).transpose(*n.dims)
        frequencies = self.counts / n.where(n > 0, 1.0)
        # half the sum of |p - f|; a row without steps has no frequencies, and is all smoothing
        moved = abs(self.probabilities - frequencies).sum("next_state") / 2
        moved = moved.where(n > 0, weight)
        used = self.available
        steps = float(n.where(used, 0.0).sum())
        share = float((moved * n).where(used, 0.0).sum()) / steps if steps else 1.0
        return Smoothing(moved.where(used), weight.where(used), share)


class Smoothing(NamedTuple):
    """What the pseudo-counts of a transition estimate do; its text says it in a sentence.

    Attributes
    ----------
    moved : DataArray
        Mass that smoothing moves in each row: the total variation between the row's frequencies
        and its probabilities, 1 for a row without steps. Dims (state, action), led by types and
        time if the estimate is; NaN where the action is not available.
    weight : DataArray
        Share of the pseudo-counts in each row's total, same dims.
    share : float
        `moved`, averaged over the observed steps.
    """

    moved: xr.DataArray
    weight: xr.DataArray
    share: float

    @property
    def decided(self) -> tuple[str, ...]:
        """Rows where the pseudo-counts weigh at least as much as the steps, the largest first."""
        weight = self.weight.values
        rows = np.argwhere(np.nan_to_num(weight) >= 0.5)
        rows = rows[np.argsort(-weight[tuple(rows.T)], kind="stable")]
        labels = {d: self.weight[d].values.tolist() for d in self.weight.dims}
        return tuple(
            ", ".join(f"{d}={labels[d][k]!r}" for d, k in zip(labels, row, strict=True))
            for row in rows
        )

    def __str__(self) -> str:
        n_rows, decided = int(self.weight.notnull().sum()), self.decided
        text = f"smoothing moves {self.share:.2%} of the mass of the observed steps' rows; "
        text += f"it decides {len(decided)} of {n_rows} rows"
        listed = "; ".join(decided[:NAMED]) + ("; ..." if len(decided) > NAMED else "")
        return text + (f" ({listed})." if decided else ".")


def frequencies(
    moves: Moves, *, prior_count: float, available: np.ndarray, support: Any
) -> TransitionEstimate:
    """Return the (smoothed) frequencies of next states; see `Panel.estimate_transition`.

    Parameters
    ----------
    available : ndarray of bool, shape (S, A)
        Which actions each state allows.

    Raises
    ------
    DataError
        If a row has neither steps nor pseudo-counts, or a step lies outside a table `support`.
    """
    counts = _counts(moves)
    pseudo = _pseudo_counts(moves, prior_count, available, support)
    if _is_last_move_unknown(moves, (counts + pseudo[:, None]).sum(-1)):
        counts = counts[:, :-1]  # a move that only a terminal value needs
    totals = (counts + pseudo[:, None]).sum(-1, keepdims=True)
    empty = np.argwhere(totals[..., 0] == 0)
    if len(empty):
        raise DataError([_unfollowed_pairs(moves, empty)])
    shares = (counts + pseudo[:, None]) / totals
    if moves.periods is None:
        shares, counts = shares[:, 0], counts[:, 0]
    by_type = {k: index_of(labels) for k, labels in moves.types.coordinates.items()}
    states = index_of(moves.space.labels)
    coords = {"state": states, "action": index_of(moves.actions), "next_state": states}

    def labelled(table: np.ndarray) -> xr.DataArray:
        dims = ("time", "state", "action", "next_state")[5 - table.ndim :]
        table = table.reshape(moves.types.shape + table.shape[1:])
        return xr.DataArray(table, dims=(*by_type, *dims), coords=by_type | coords)

    usable = xr.DataArray(
        available, dims=("state", "action"), coords={k: coords[k] for k in ("state", "action")}
    )
    return TransitionEstimate(
        labelled(shares), labelled(counts), prior_count, moves.space, labelled(pseudo), usable
    )


def _counts(moves: Moves) -> np.ndarray:
    """Return how often each move was seen (G, n_tables, S, A, S), with the last move if it was."""
    n_tables = 1
    time = np.zeros(len(moves.steps), dtype=np.int64)
    if moves.periods is not None:
        time = moves.steps[:, 0]
        n_tables = len(moves.periods) - 1 + _has_last_move(moves)
    counts = np.zeros((math.prod(moves.types.shape), n_tables, *moves.shape))
    kept = time < n_tables
    np.add.at(counts, (moves.group[kept], time[kept], *moves.steps[kept, 1:].T), moves.n[kept])
    return counts


def _has_last_move(moves: Moves) -> bool:
    """Return whether a move after the last decision was seen, where each time has a table."""
    times = moves.steps[:, 0]
    return moves.periods is not None and bool((times == len(moves.periods) - 1).any())


def _pseudo_counts(
    moves: Moves, prior_count: float, available: np.ndarray, support: Any
) -> np.ndarray:
    """Return the pseudo-counts of next states (G, S, A, S); rows that need no data have some."""
    n_groups = math.prod(moves.types.shape)
    seen = [moves.steps]
    if isinstance(support, str) and support == "seen":
        seen = [moves.steps[moves.group == g] for g in range(n_groups)]
    possible = np.stack([next_states(support, rows, moves.space, moves.actions) for rows in seen])
    S = moves.space.size
    stays = moves.absorbing if isinstance(support, str) else np.zeros(S, dtype=bool)
    possible[:, stays] = np.eye(S, dtype=bool)[stays][:, None]
    sure = ~available | stays[:, None]
    pseudo = np.where(sure, max(prior_count, 1.0), prior_count)[..., None] * possible
    return np.broadcast_to(pseudo, (n_groups, *moves.shape))


def _is_last_move_unknown(moves: Moves, totals: np.ndarray) -> bool:
    """Return whether the last move, and no other, has rows without steps and pseudo-counts."""
    empty = np.argwhere(totals == 0)[:, 1]
    last = totals.shape[1] - 1
    return _has_last_move(moves) and len(empty) > 0 and bool((empty == last).all())


def _unfollowed_pairs(moves: Moves, empty: np.ndarray) -> Fault:
    """Return the fault of rows (group, time, state, action) that nothing is known of."""
    states, kinds = moves.space.labels, moves.types

    def of_group(g: int) -> str:
        named = zip(kinds.coordinates.items(), kinds.codes[:, g], strict=True)
        return "".join(f"{name}={labels[k]!r}, " for (name, labels), k in named)

    examples = tuple(
        f"{of_group(g)}state={states[s]!r}, action={moves.actions[a]!r}"
        + ("" if moves.periods is None else f", time={moves.periods.label(t)}")
        for g, t, s, a in empty[:3]
    )
    remedy = "give `prior_count` above 0, or pass a known `transition` to the game"
    return Fault("state and action never followed by a next state", 0, examples, remedy)


def allowed_actions(available: Any, space: StateSpace, actions: tuple[Any, ...]) -> np.ndarray:
    """Return which actions each state allows, shape (S, A), all where None is given.

    Raises
    ------
    ValueError, TypeError
        If `available` is no such table.
    """
    shape = space.size, len(actions)
    if available is None:
        return np.ones(shape, dtype=bool)
    allowed = np.asarray(
        in_order("available", available, ("state", "action"), Order(space, actions))
    )
    if allowed.shape != shape:
        message = f"`available` must have shape (S, A) = {shape}"
        raise ValueError(f"{message}; got {allowed.shape}.")
    if not np.isin(allowed, [0, 1]).all():
        raise TypeError(f"`available` must hold booleans; got {allowed.dtype} values.")
    return allowed.astype(bool)


def next_states(
    support: Any, steps: np.ndarray, space: StateSpace, actions: tuple[Any, ...]
) -> np.ndarray:
    """Return which next states are possible from each state by each action.

    Parameters
    ----------
    support : "seen", "all" or array of bool
        As `Panel.estimate_transition` takes it.
    steps : ndarray of int, shape (n_steps, 4)
        The distinct observed steps (t, s, a, s').
    space : StateSpace
        The states.
    actions : tuple
        Action labels.

    Returns
    -------
    ndarray of bool, shape (S, A, S)
        True where the next state is possible.

    Raises
    ------
    DataError
        If an observed step lies outside a table.
    ValueError, TypeError
        If `support` is no such word or table.
    """
    S, A = space.size, len(actions)
    if isinstance(support, str):
        one_of("support", support, SUPPORTS)
        return (
            _reachable_states(steps, space, A)
            if support == "seen"
            else np.ones((S, A, S), dtype=bool)
        )
    table = _table(support, space, actions)
    _, s, a, following = steps.T
    outside = steps[~table[s, a, following]]
    if len(outside):
        examples = tuple(
            f"{space.labels[s]!r} to {space.labels[x]!r} by {actions[a]!r}"
            for _, s, a, x in outside[:3]
        )
        remedy = "allow it in `support`, or correct the rows"
        raise DataError([Fault("step outside `support`", len(outside), examples, remedy)])
    return table


def _reachable_states(steps: np.ndarray, space: StateSpace, n_actions: int) -> np.ndarray:
    """Return the next states whose coordinates each make a move that the action was seen to make.

    A value that an action was never seen to lead from moves as under all actions together, and one
    that nothing was seen to lead from may go to any.
    """
    _, s, a, following = steps.T
    possible = np.ones((space.size, n_actions, space.size), dtype=bool)
    for code, n_labels in zip(space.codes, space.shape, strict=True):
        moves = np.zeros((n_actions, n_labels, n_labels), dtype=bool)
        moves[a, code[s], code[following]] = True
        under_any: np.ndarray = np.any(moves, axis=0)
        under_any[~under_any.any(1)] = True
        moves = np.where(moves.any(2, keepdims=True), moves, under_any)
        possible &= moves[:, code[:, None], code].swapaxes(0, 1)
    return possible


def _table(support: Any, space: StateSpace, actions: tuple[Any, ...]) -> np.ndarray:
    """Return a table of booleans (S, A, S), in the panel's order of labels."""
    S, A = space.size, len(actions)
    dims: tuple[str, ...] = ("state", "action", "next_state")
    if isinstance(support, xr.DataArray) and "action" not in support.dims:
        dims = ("state", "next_state")
    support = in_order("support", support, dims, Order(space, actions))
    table: np.ndarray = np.asarray(support)
    if table.dtype != bool:
        raise TypeError(
            f"`support` must be 'seen', 'all' or a table of booleans; got {table.dtype} values."
        )
    table = table[:, None] if table.shape == (S, S) else table
    if table.shape not in {(S, A, S), (S, 1, S)}:
        message = f"`support` must have shape (S, A, S) = {(S, A, S)}, or (S, S) for all actions"
        raise ValueError(f"{message}; got {np.shape(support)}.")
    table = np.broadcast_to(table, (S, A, S))
    closed = np.argwhere(~table.any(-1))
    if len(closed):
        s, a = closed[0]
        raise ValueError(
            f"`support` must allow a next state in each row; it has none for "
            f"state={space.labels[s]!r}, action={actions[a]!r}."
        )
    return table
