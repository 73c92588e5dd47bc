"""Flows of many cells as the few that agents meet: what a response reads of the crowd.

Where all agents of several cells count alike for whoever meets them, rewards and dynamics read the
sum of these cells alone. A flow w over all cells is then read through its sums `z = L w`, whose
number does not grow with the cells, and linear systems are solved for changes of z: with the
response `F(w) = G(L w)`,

    (I - F_w)^-1 b = b + G_z y,  where  (I - L G_z) y = L b.
"""

from typing import NamedTuple

import numpy as np

from mfgppl._meeting import Meeting
from mfgppl.game import MeanFieldGame

Array = np.ndarray


class Exposures(NamedTuple):
    """Sums of the flows of cells that nobody distinguishes.

    Attributes
    ----------
    part : ndarray of int, shape (C,)
        The sum to which each cell belongs.
    share : ndarray, shape (C,)
        The share of each cell in the mass of its sum.
    n_parts : int
        Number of sums.
    """

    part: Array
    share: Array
    n_parts: int

    def size(self, flow: Array) -> int:
        """Return how many numbers the sums of a flow (T, F) have."""
        return flow.size // len(self.part) * self.n_parts

    def sums(self, flow: Array) -> Array:
        """Return the sums (T, P * M) of a flow (T, C * M): L."""
        by_cell = flow.reshape(len(flow), len(self.part), -1)
        out = np.zeros((len(flow), self.n_parts, by_cell.shape[2]))
        for cell, part in enumerate(self.part.tolist()):
            out[:, part] += by_cell[:, cell]
        return out.reshape(len(flow), -1)

    def spread(self, sums: Array) -> Array:
        """Return a flow (T, C * M) that has given sums (T, P * M), each cell its share."""
        by_part = sums.reshape(len(sums), self.n_parts, -1)[:, self.part]
        return np.ascontiguousarray((by_part * self.share[:, None]).reshape(len(sums), -1))

    def sums_transposed(self, weights: Array) -> Array:
        """Return weights of a flow (T, C * M) from those of its sums (T, P * M): L'."""
        by_part = weights.reshape(len(weights), self.n_parts, -1)
        return np.ascontiguousarray(by_part[:, self.part].reshape(len(weights), -1))

    def spread_transposed(self, weights: Array) -> Array:
        """Return weights of sums (T, P * M) from those of the flow that has them."""
        by_cell = weights.reshape(len(weights), len(self.part), -1) * self.share[:, None]
        return self.sums(by_cell.reshape(len(weights), -1))


def exposures_of(game: MeanFieldGame, *, by_cell: bool) -> Exposures | None:
    """Return what is read of a game's flows, None where it is no less than the flow itself.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    by_cell : bool
        Whether the reward reads cells of the crowd apart.
    """
    meeting: Meeting = game.meets
    if game.n_cells == 1 or by_cell or not meeting.by_mass:
        return None
    columns = meeting.weights.numpy().T
    distinct, part = np.unique(columns, axis=0, return_inverse=True)
    part = part.reshape(-1)
    if len(distinct) == game.n_cells:
        return None
    mass = game.initial.numpy().reshape(game.n_cells, -1).sum(1)
    total = np.bincount(part, mass, len(distinct))[part]
    alike = np.bincount(part, minlength=len(distinct))[part]
    share = np.where(total > 0, mass / np.where(total > 0, total, 1.0), 1.0 / alike)
    return Exposures(part, share, len(distinct))
