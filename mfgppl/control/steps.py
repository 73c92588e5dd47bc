"""A transition along a flow as two linear maps a step, in plain torch, dense or sparse.

Where agents are of several kinds, states are stacked, cells leading: state s of cell c stands at
c * S + s. Nobody changes its cell. Below, S counts all of them.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LARGEST_LOG = 700.0  # keeps exp() finite for states that are not reached, whose weight is 0


class Factors(NamedTuple):
    """Factors of `I - discount P`, with P a transition under a policy, cell by cell.

    Attributes
    ----------
    lower_upper : Tensor, shape (C, S / C, S / C)
        Both triangles.
    pivots : Tensor of int, shape (C, S / C)
        The rows that were exchanged.
    """

    lower_upper: Tensor
    pivots: Tensor

    def solved(self, right: Tensor, *, back: bool = False) -> Tensor:
        """Return the solution (S,) for a right-hand side (S,); `back` takes the transposed."""
        columns = right.reshape(*self.pivots.shape, 1)
        return torch.linalg.lu_solve(*self, columns, adjoint=back).reshape(-1)


class DenseSteps(NamedTuple):
    """One table for all steps, or one a step.

    Attributes
    ----------
    tables : Tensor, shape (1, C, S / C, A, S / C) or (T-1, C, S / C, A, S / C)
        Probability of the next state, within each of C cells.
    """

    tables: Tensor

    @property
    def entries(self) -> Tensor:
        """Probabilities."""
        return self.tables

    @property
    def shape(self) -> tuple[int, ...]:
        """(S, A, S)."""
        _, C, S, A, _ = self.tables.shape
        return C * S, A, C * S

    def expected(self, t: int, values: Tensor) -> Tensor:
        """Return the mean of values (S,) after each state and action of step t, (S, A)."""
        table = self._at(t)
        C, S, A, _ = table.shape
        if C == 1:  # where this is faster
            return table[0] @ values
        return (table.flatten(1, 2) @ values.reshape(C, S, 1)).reshape(C * S, A)

    def expected_each(self, t: int, values: Tensor) -> Tensor:
        """Return what `expected` does for rows of values (K, S), (K, S, A)."""
        table = self._at(t)
        C, S, A, _ = table.shape
        found = table.flatten(1, 2) @ values.reshape(-1, C, S).permute(1, 2, 0)
        return found.permute(2, 0, 1).reshape(-1, C * S, A)

    def log_expected(self, t: int, logs: Tensor) -> Tensor:
        """Return the log of the mean of `exp(logs)`, logs (S,), after each state and action."""
        table = self._at(t)
        C, S, A, _ = table.shape
        logs = logs.reshape(C, 1, 1, S)
        peak = logs.detach().where(table.detach() > 0, -torch.inf).amax(-1)
        above = (logs - peak[..., None]).clamp_max(LARGEST_LOG)
        return (peak + (table * above.exp()).sum(-1).log()).reshape(C * S, A)

    def pushed(self, t: int, weights: Tensor) -> Tensor:
        """Return where weights (S, A) on states and actions arrive after step t, (S,)."""
        table = self._at(t)
        C, S, A, _ = table.shape
        return (weights.reshape(C, 1, S * A) @ table.flatten(1, 2)).reshape(C * S)

    def under(self, t: int, policy: Tensor) -> Tensor:
        """Return the transition (S, S) of step t under a policy (S, A)."""
        table = self._at(t)
        C, S, A, _ = table.shape
        within = torch.einsum("csa,csax->csx", policy.reshape(C, S, A), table)
        if C == 1:
            return within[0]
        stacked = torch.diag_embed(within.permute(1, 2, 0), dim1=0, dim2=2)
        return stacked.reshape(C * S, C * S)

    def carried(
        self, t: int, policy: Tensor, right: Tensor, *, discount: float | Tensor, back: bool = False
    ) -> Tensor:
        """Return `(I - discount P)^-1 right`, (S,), with P the transition under a policy (S, A).

        Cell by cell, as nobody changes it; `back` takes the transposed of P.
        """
        system = self._system(t, policy, discount)
        system = system.transpose(1, 2) if back else system
        return torch.linalg.solve(system, right.reshape(*system.shape[:2], 1)).reshape(-1)

    def factors(self, t: int, policy: Tensor, *, discount: float | Tensor) -> Factors:
        """Return the factors of `I - discount P`, with P the transition under a policy (S, A)."""
        return Factors(*torch.linalg.lu_factor(self._system(t, policy, discount)))

    def _system(self, t: int, policy: Tensor, discount: float | Tensor) -> Tensor:
        """Return `I - discount P` cell by cell, (C, S / C, S / C)."""
        table = self._at(t)
        C, S, A, _ = table.shape
        within = torch.einsum("csa,csax->csx", -discount * policy.reshape(C, S, A), table)
        return within + torch.eye(S, dtype=within.dtype, device=within.device)

    def probability(self, moves: Tensor) -> Tensor:
        """Return the probability of moves, rows (t, s, a, x)."""
        t, s, a, x = moves.T
        S, k = self.tables.shape[2], t if len(self.tables) > 1 else torch.zeros_like(t)
        return self.tables[k, s // S, s % S, a, x % S] * (s // S == x // S)

    def draw(
        self, t: int, state: np.ndarray, action: np.ndarray, uniform: np.ndarray
    ) -> np.ndarray:
        """Return a next state for each state, action and number in [0, 1)."""
        S, A = self.tables.shape[2:4]
        chances, row = self._at(t).numpy().reshape(-1, S), state * A + action
        # either way is the same; the one that adds up fewer rows
        few = len(row) < len(chances)
        upto = chances[row].cumsum(-1) if few else chances.cumsum(-1).take(row, axis=0)
        reached = (uniform[:, None] * upto[:, -1:] >= upto).sum(-1)
        within: np.ndarray = np.minimum(reached, S - 1)
        return state - state % S + within

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

    def expected_each(self, t: int, values: Tensor) -> Tensor:
        """Return what `expected` does for rows of values (K, S), (K, S, A)."""
        where = self._at(t)
        terms = self.entries[where, None] * values.T[self.following[where]]
        total = values.new_zeros(self.shape[0] * self.shape[1], len(values))
        return total.index_add(0, self.row[where], terms).T.reshape(-1, *self.shape[:2])

    def log_expected(self, t: int, logs: Tensor) -> Tensor:
        """Return the log of the mean of `exp(logs)`, logs (S,), after each state and action."""
        where = self._at(t)
        row, chances, ahead = self.row[where], self.entries[where], logs[self.following[where]]
        total = logs.new_zeros(self.shape[0] * self.shape[1])
        reached = ahead.detach().where(chances.detach() > 0, -torch.inf)
        peak = torch.full_like(total, -torch.inf).scatter_reduce(0, row, reached, "amax")
        terms = chances * (ahead - peak[row]).clamp_max(LARGEST_LOG).exp()
        return (peak + total.index_add(0, row, terms).log()).reshape(self.shape[:2])

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

    def carried(
        self, t: int, policy: Tensor, right: Tensor, *, discount: float | Tensor, back: bool = False
    ) -> Tensor:
        """Return `(I - discount P)^-1 right`, (S,), with P under a policy; `back` transposes P."""
        system = self._system(t, policy, discount)
        return torch.linalg.solve(system.T if back else system, right)

    def factors(self, t: int, policy: Tensor, *, discount: float | Tensor) -> Factors:
        """Return the factors of `I - discount P`, with P the transition under a policy (S, A)."""
        return Factors(*torch.linalg.lu_factor(self._system(t, policy, discount)[None]))

    def _system(self, t: int, policy: Tensor, discount: float | Tensor) -> Tensor:
        """Return `I - discount P`, (S, S)."""
        moved = self.under(t, policy)
        eye = torch.eye(len(moved), dtype=moved.dtype, device=moved.device)
        return eye - discount * moved

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
        Probability of the next state, dense or sparse COO; or, dense, with an axis of cells before
        the states of each, (1, C, S, A, S) or (T-1, C, S, A, S).
    horizon : int
        Number of decision times T.
    """
    tables, dense = transition, transition.layout == torch.strided
    tables = tables[None] if tables.ndim == 3 else tables
    if tables.ndim not in ((4, 5) if dense else (4,)) or len(tables) not in (1, horizon - 1):
        raise ValueError(
            f"`transition` must have shape (S, A, S) or (T-1, S, A, S) with T-1 = {horizon - 1}, "
            f"or by cell (T-1, C, S, A, S) if it is dense; got {tuple(transition.shape)}."
        )
    if dense:
        return DenseSteps(tables if tables.ndim == 5 else tables[:, None])
    entries = tables.coalesce()
    table, state, action, following = entries.indices()
    n, S, A, _ = tables.shape
    bounds = torch.searchsorted(table.contiguous(), torch.arange(n + 1, device=table.device))
    row = state * A + action
    return SparseSteps((S, A, S), row, following, entries.values(), bounds.tolist())
