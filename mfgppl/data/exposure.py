"""How the share of an agent's neighbours in given states becomes a label of its own state."""

from typing import Any, NamedTuple

import numpy as np


class Exposure(NamedTuple):
    """How the share of neighbours in given states becomes a label.

    Attributes
    ----------
    weights : list of sparse array (n, n)
        Weights of neighbours, rows see columns, at each time of the panel or once for all.
    met : ndarray of bool, shape (S,)
        The states, of those before the coordinate is added, that count.
    ends : ndarray, shape (B - 1,)
        Upper ends of the bins but the last.
    labels : tuple
        Labels of the bins, then that of those without neighbours, if there are any.
    alone : bool
        Whether there is such a label.
    """

    weights: list[Any]
    met: np.ndarray
    ends: np.ndarray
    labels: tuple[Any, ...]
    alone: bool

    def shares(self, state: np.ndarray, time: int) -> np.ndarray:
        """Return the share (n,) of each agent's neighbours that counts, NaN where there is none.

        Parameters
        ----------
        state : ndarray of int, shape (n,)
            The agents' states at a time, -1 where absent.
        time : int
            The time.
        """
        there = state >= 0
        counts = there & self.met[np.where(there, state, 0)]
        weights = self.weights[min(time, len(self.weights) - 1)]
        around = weights @ there.astype(float)
        share = weights @ counts.astype(float)
        return np.divide(share, around, out=np.full(len(state), np.nan), where=around > 0)

    def codes(self, shares: np.ndarray) -> np.ndarray:
        """Return the bin of each share."""
        bins = np.searchsorted(self.ends, shares, side="left")
        return np.where(np.isnan(shares), len(self.ends) + 1, bins)
