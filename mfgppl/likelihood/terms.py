"""What one trajectory adds to a log likelihood: entries of a few tables, each with a sign."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mfgppl._kernels import bridge
from mfgppl.data.trajectories import Trajectories


class Term(NamedTuple):
    """Entries of one table that trajectories add to their log likelihoods.

    Attributes
    ----------
    table : int
        Which table of the likelihood.
    trajectory : ndarray of int
        The trajectory of each entry.
    entry : ndarray of int
        The flat position of each entry in the table.
    sign : float
        1 or -1.
    """

    table: int
    trajectory: np.ndarray
    entry: np.ndarray
    sign: float


class Units(NamedTuple):
    """What has a log likelihood of its own: trajectories, or agents whose kinds are not seen.

    Attributes
    ----------
    n : int
        How many there are.
    log_likelihoods : callable
        Returns that of each (n,), nats, at the law's tables at some parameters.
    """

    n: int
    log_likelihoods: Callable[[Sequence[np.ndarray]], np.ndarray]


def decisions(panel: Trajectories, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the trajectory and the flat (t, s, a) of each decision."""
    acted = panel.action >= 0
    taken = panel.time[acted], panel.state[acted], panel.action[acted]
    return panel.trajectory[acted], np.ravel_multi_index(taken, shape)


def moves(panel: Trajectories, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the trajectory of each move that has a table, and its place in that of a shape."""
    goes_on = (panel.action[:-1] >= 0) & (np.diff(panel.trajectory) == 0)
    here = np.flatnonzero(goes_on & (panel.time[:-1] < shape[0]))
    move = panel.time[here], panel.state[here], panel.action[here], panel.state[here + 1]
    return panel.trajectory[here], move_places(np.stack(move, axis=1), shape)


def move_places(steps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the flat places of moves, rows (t, s, a, x), in (T-1, S, A, S) or (T-1, C, S, A, S).

    In the second, the states of a move count through all cells, which it does not leave.
    """
    t, s, a, x = steps.T
    S = shape[-1]
    within = (s // S, s % S) if len(shape) == 5 else (s,)
    return np.ravel_multi_index((t, *within, a, x % S), shape)


def add_up(terms: Sequence[Term], tables: Sequence[np.ndarray], n_trajectories: int) -> np.ndarray:
    """Return the log likelihood of each trajectory, shape (J,), nats."""
    total = np.zeros(n_trajectories)
    for term in terms:
        bridge.add_entries(tables[term.table], term.entry, term.trajectory, term.sign, total)
    return total


def counted(counts: Tensor, logs: Tensor) -> Tensor:
    """Return `sum counts * logs`, where nothing counted adds nothing (also for log 0)."""
    return (counts * logs.masked_fill(counts == 0, 0.0)).sum()
