"""Dynamics by smoothed frequencies: which next states smoothing may reach, and what it decides."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from mfgppl._arguments import one_of
from mfgppl.data.labelled import Order, in_order
from mfgppl.data.space import StateSpace
from mfgppl.exceptions import DataError, Fault

SUPPORTS = ("seen", "all")  # that have a name
NAMED = 10  # rows that the sentence on smoothing names at most


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
