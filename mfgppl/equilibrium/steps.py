"""A transition along a flow as two linear maps a step, in plain torch, dense or sparse."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class DenseSteps(NamedTuple):
    """One table for all steps, or one a step.

    Attributes
    ----------
    tables : Tensor, shape (1, S, A, S) or (T-1, S, A, S)
        Probability of the next state.
    """

    tables: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """(S, A, S)."""
        return tuple(self.tables.shape[1:])

    def expected(self, t: int, values: Tensor) -> Tensor:
        """Return the mean of values (S,) after each state and action of step t, (S, A)."""
        return self._at(t) @ values

    def pushed(self, t: int, weights: Tensor) -> Tensor:
        """Return where weights (S, A) on states and actions arrive after step t, (S,)."""
        return torch.einsum("sa,sax->x", weights, self._at(t))

    def under(self, t: int, policy: Tensor) -> Tensor:
        """Return the transition (S, S) of step t under a policy (S, A)."""
        return torch.einsum("sa,sax->sx", policy, self._at(t))

    def probability(self, moves: Tensor) -> Tensor:
        """Return the probability of moves, rows (t, s, a, x)."""
        t, s, a, x = moves.T
        return self.tables[t if len(self.tables) > 1 else torch.zeros_like(t), s, a, x]

    def draw(
        self, t: int, state: np.ndarray, action: np.ndarray, uniform: np.ndarray
    ) -> np.ndarray:
        """Return a next state for each state, action and number in [0, 1)."""
        upto = self._at(t).numpy()[state, action].cumsum(-1)
        reached = (uniform[:, None] * upto[:, -1:] >= upto).sum(-1)
        return np.minimum(reached, self.shape[2] - 1)

    def _at(self, t: int) -> Tensor:
        return self.tables[t if len(self.tables) > 1 else 0]


class SparseSteps(NamedTuple):
    """The same by stored entries; each is a row (s, a), a next state and a probability.

    Attributes
    ----------
    shape : tuple of int
        (S, A, S).
    row, following : Tensor of int, shape (n_entries,)
        `s * A + a`, and the next state.
    entries : Tensor, shape (n_entries,)
        Probabilities.
    bounds : list of int
        Entries of table k are `bounds[k]:bounds[k + 1]`.
    """

    shape: tuple[int, ...]
    row: Tensor
    following: Tensor
    entries: Tensor
    bounds: list[int]

    def expected(self, t: int, values: Tensor) -> Tensor:
        """Return the mean of values (S,) after each state and action of step t, (S, A)."""
        where = self._at(t)
        terms = self.entries[where] * values[self.following[where]]
        total = values.new_zeros(self.shape[0] * self.shape[1])
        return total.index_add(0, self.row[where], terms).reshape(self.shape[:2])

    def pushed(self, t: int, weights: Tensor) -> Tensor:
        """Return where weights (S, A) on states and actions arrive after step t, (S,)."""
        where = self._at(t)
        terms = self.entries[where] * weights.reshape(-1)[self.row[where]]
        total = weights.new_zeros(self.shape[2])
        return total.index_add(0, self.following[where], terms)

    def under(self, t: int, policy: Tensor) -> Tensor:
        """Return the transition (S, S) of step t under a policy (S, A), dense."""
        S, A, _ = self.shape
        where = self._at(t)
        row, following = self.row[where], self.following[where]
        weights = self.entries[where] * policy.reshape(-1)[row]
        flat = weights.new_zeros(S * S).index_add(0, row // A * S + following, weights)
        return flat.reshape(S, S)

    def probability(self, moves: Tensor) -> Tensor:
        """Return the probability of moves, rows (t, s, a, x)."""
        t, s, a, x = moves.T
        S, A, _ = self.shape
        sizes = torch.tensor(self.bounds).diff()
        table = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        stored = (table * S * A + self.row) * S + self.following
        asked = (((t if len(sizes) > 1 else 0) * S + s) * A + a) * S + x
        place = torch.searchsorted(stored, asked).clamp_max(len(stored) - 1)
        return self.entries[place] * (stored[place] == asked)

    def draw(
        self, t: int, state: np.ndarray, action: np.ndarray, uniform: np.ndarray
    ) -> np.ndarray:
        """Return a next state for each state, action and number in [0, 1)."""
        where = self._at(t)
        row, rows = state * self.shape[1] + action, self.row[where].numpy()
        upto = np.append(0.0, self.entries[where].numpy().cumsum())
        first, last = np.searchsorted(rows, row), np.searchsorted(rows, row, side="right")
        target = upto[first] + uniform * (upto[last] - upto[first])
        entry = np.searchsorted(upto[1:], target, side="right")
        following: np.ndarray = self.following[where].numpy()
        return following[np.minimum(np.maximum(entry, first), last - 1)]

    def _at(self, t: int) -> slice:
        k = t if len(self.bounds) > 2 else 0
        return slice(self.bounds[k], self.bounds[k + 1])


Steps = DenseSteps | SparseSteps


def as_steps(transition: Tensor, horizon: int) -> Steps:
    """Return a transition as its steps, else raise a `ValueError`.

    Parameters
    ----------
    transition : Tensor, shape (S, A, S), (1, S, A, S) or (T-1, S, A, S)
        Probability of the next state, dense or sparse COO.
    horizon : int
        Number of decision times T.
    """
    tables = transition if transition.ndim == 4 else transition[None]
    if tables.ndim != 4 or len(tables) not in (1, horizon - 1):
        raise ValueError(
            f"`transition` must have shape (S, A, S) or (T-1, S, A, S) with T-1 = {horizon - 1}; "
            f"got {tuple(transition.shape)}."
        )
    if tables.layout == torch.strided:
        return DenseSteps(tables)
    entries = tables.coalesce()
    table, state, action, following = entries.indices()
    n, S, A, _ = tables.shape
    bounds = torch.searchsorted(table.contiguous(), torch.arange(n + 1, device=table.device))
    row = state * A + action
    return SparseSteps((S, A, S), row, following, entries.values(), bounds.tolist())
