"""Flows of many cells as the few that agents meet: what a response reads of the crowd.

Where all agents of several cells count alike for whoever meets them, rewards and dynamics read the
sum of these cells alone; of a network or an exposure matrix of rank R they read R combinations of
the cells' flows, as two of the graphon `1 - x y`. A flow w over all cells is then read through
`z = L w`, whose number does not grow with the cells, and linear systems are solved for changes of
z: with the response `F(w) = G(L w)` and any right inverse of L,

    (I - F_w)^-1 b = b + G_z y,  where  (I - L G_z) y = L b.

Changes of a flow leave the mass of each cell as it is. Where the cells' own distributions are read,
their changes are kept in coordinates of what sums to zero.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse

from mfgppl._meeting import Meeting
from mfgppl.game import MeanFieldGame

Array = np.ndarray
LARGEST_SYSTEM = 3000  # up to which a dense matrix is worth its room
MOST_OF_IT = 1000  # size of a system that leaves out what is read least, where all is larger
NEGLIGIBLE = 1e-12  # singular value of an exposure matrix, relative to the largest


class Exposures(NamedTuple):
    """What is read of the flows of cells, P numbers where each of C cells has one.

    Attributes
    ----------
    reads : ndarray, shape (P, C)
        Weights of the cells in what is read: L.
    spreads : ndarray, shape (C, P)
        A right inverse: how a change of what is read may come about.
    basis : ndarray, shape (M - 1, M), or None
        Orthonormal coordinates of what sums to zero over the states, where masses do not count.
    exact : bool
        Whether this is all that is read; else most of it, and systems so reduced are a help alone.
    """

    reads: Array
    spreads: Array
    basis: Array | None
    exact: bool = True

    def size(self, flow: Array) -> int:
        """Return how many numbers are read of a flow (T, C * M)."""
        T, C = len(flow), self.reads.shape[1]
        width = flow.size // (T * C) if self.basis is None else len(self.basis)
        return T * len(self.reads) * width

    def sums(self, flow: Array) -> Array:
        """Return what is read (T, P * M) of a change of a flow (T, C * M): L."""
        return self._flat(self._narrowed(self.reads @ self._by_cell(flow)))

    def spread(self, sums: Array) -> Array:
        """Return a change of a flow (T, C * M) of which this is read."""
        return self._flat(self.spreads @ self._widened(sums))

    def sums_transposed(self, weights: Array) -> Array:
        """Return weights of a flow (T, C * M) from those of what is read of it: L'."""
        return self._flat(self.reads.T @ self._widened(weights))

    def spread_transposed(self, weights: Array) -> Array:
        """Return weights of what is read from those of the flow that has it."""
        return self._flat(self._narrowed(self.spreads.T @ self._by_cell(weights)))

    def _by_cell(self, flow: Array) -> Array:
        return flow.reshape(len(flow), self.reads.shape[1], -1)

    def _narrowed(self, read: Array) -> Array:
        return read if self.basis is None else read @ self.basis.T

    def _widened(self, sums: Array) -> Array:
        read = sums.reshape(len(sums), len(self.reads), -1)
        return read if self.basis is None else read @ self.basis

    def _flat(self, table: Array) -> Array:
        return np.ascontiguousarray(table.reshape(len(table), -1))


def exposures_of(game: MeanFieldGame, *, by_cell: bool) -> Exposures | None:
    """Return what is read of a game's flows, None where it is no less than the flow itself.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    by_cell : bool
        Whether the reward reads cells of the crowd apart.
    """
    if game.n_cells == 1 or by_cell:
        return None
    mass = game.initial.detach().numpy().reshape(game.n_cells, -1).sum(1)
    meeting: Meeting = game.meets
    if scipy.sparse.issparse(meeting.matrix):
        return None  # as good as none of its combinations can be left out
    if meeting.by_mass and meeting.network is None:
        return _sums(meeting, mass)
    return _combinations(game, mass)


def _sums(meeting: Meeting, mass: Array) -> Exposures | None:
    """Return the sums of cells that nobody distinguishes, each cell with its share."""
    distinct, part = np.unique(meeting.weights.numpy().T, axis=0, return_inverse=True)
    part, n = part.reshape(-1), len(distinct)
    if n == len(mass):
        return None
    belongs = (part == np.arange(n)[:, None]).astype(float)
    total = (belongs @ mass)[:, None]
    weights = np.where(total > 0, belongs * mass, belongs)  # all alike where there is nobody
    return Exposures(belongs, (weights / weights.sum(1, keepdims=True)).T, None)


def _combinations(game: MeanFieldGame, mass: Array) -> Exposures | None:
    """Return the combinations of the cells' flows that weights of low rank read.

    Weights multiply masses, which a flow has in it; or they multiply distributions, for which each
    cell's flow is divided by its mass.
    """
    n_cells = game.n_cells
    width = game.n_states // n_cells * (game.n_actions if game.joint else 1)
    per_mass = np.divide(1.0, mass, out=np.zeros_like(mass), where=mass > 0)
    per_mass = np.where(mass > 0, 1.0, 0.0) if game.meets.by_mass else per_mass
    _, sizes, rows = np.linalg.svd(game.meets.matrix * (mass > 0), full_matrices=False)
    kept = rows[sizes > NEGLIGIBLE * sizes.max(initial=0.0)]
    if not len(kept) or width < 2:
        return None
    each = game.shape[0] * (width - 1)
    exact = each * len(kept) <= LARGEST_SYSTEM
    if exact and len(kept) == n_cells:
        return None
    kept = kept if exact else kept[: MOST_OF_IT // each]
    if not len(kept):
        return None
    reads = kept * per_mass
    return Exposures(reads, np.linalg.pinv(reads), scipy.linalg.helmert(width), exact)
