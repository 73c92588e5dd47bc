"""Equilibria around an anchor to second order, and the linear systems there to first.

With J the derivative of the flow that a flow generates, taken along the equilibria `mu(theta)`,

    (I - J)^-1 = M + M dJ M + M dJ M dJ M + ...,  M = (I - J_0)^-1,  dJ = sum_k dtheta_k dJ_k

so that a few products serve far from the anchor as well as a factorisation there. All is by central
differences of equilibria, and but a help: what is found with it does not depend on it.
"""

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import scipy.linalg

from mfgppl.equilibrium.linearisation import SMALL_SYSTEM
from mfgppl.equilibrium.response_map import Array, Image

REACH = 0.01  # share by which an equilibrium moves for differences
MOST_SITES = 8  # parameters for which pairs are looked at
MOST_ENTRIES = 2**22  # of the drifts, 16 MB
TERMS, SHORTER = 2, 0.5  # of the series after its first, each shorter than the one before by this
BEND = 1.0  # size of what is of second order, relative to the first, beyond which it says nothing


class Expansion(NamedTuple):
    """What is known around an anchor.

    Attributes
    ----------
    bend : ndarray, shape (P, P, T, F)
        Second derivatives of the equilibrium in the constrained parameters.
    drifts : ndarray of float32, shape (P, n, n), or None
        `M dJ_k`, where the system is small and that of all of the flow.
    """

    bend: Array
    drifts: Array | None

    def curved(self, change: Array, straight: Array) -> Array:
        """Return the change of the flow (T, F) for a change (P,), `straight` to first order."""
        second = 0.5 * np.tensordot(np.outer(change, change), self.bend, 2)
        bends = np.abs(second).max() <= BEND * np.abs(straight).max()
        return straight + second if bends else straight

    def drift(self, change: Array) -> Array | None:
        """Return `M dJ` (n, n) for a change of the parameters (P,)."""
        if self.drifts is None:
            return None
        found: Array = np.tensordot(change.astype(np.float32), self.drifts, 1)
        return found


def continued(first: Array, drift: Array) -> Array:
    """Return the sum of a series (n,), from its first term on, while its terms become shorter."""
    total, term, size = first, first, float(np.abs(first).max())
    for _ in range(TERMS):
        term = drift @ term.astype(np.float32)
        length = float(np.abs(term).max())
        if not length <= SHORTER * size:
            break
        total, size = total + term, length
    return total


def expansion_of(
    at: Callable[[Array], Image | None],
    jacobian: Callable[[Array, Image], Array | None],
    values: Array,
    flow: Array,
    tangent: Array,
    factors: tuple[Array, Array] | None,
) -> Expansion | None:
    """Return what is known around an anchor; None where an equilibrium nearby is not found.

    Parameters
    ----------
    at : callable
        Constrained parameters (P,) to the equilibrium there.
    jacobian : callable
        Parameters and the equilibrium there to what each entry of its flow changes, a row each; or
        to None.
    values, flow, tangent, factors
        Of the anchor.
    """
    P, n = len(values), flow.size
    moved = np.abs(tangent).reshape(P, -1).max(1)
    if not 0 < P <= MOST_SITES or not (moved > 0).any():
        return None
    steps = np.diag(np.where(moved > 0, REACH / np.where(moved > 0, moved, 1.0), 0.0))
    points = [(values + step, values - step) for step in steps]
    sides = [(at(one), at(other)) for one, other in points]
    pairs = {
        (k, j): (at(values + steps[k] + steps[j]), at(values - steps[k] - steps[j]))
        for k, j in combinations(np.flatnonzero(moved > 0).tolist(), 2)
    }
    if any(image is None for both in (*sides, *pairs.values()) for image in both):
        return None
    own = [_summed(both, flow) for both in sides]
    bend = np.zeros((P, P, *flow.shape))
    for k in np.flatnonzero(moved > 0).tolist():
        bend[k, k] = own[k] / steps[k, k] ** 2
    for (k, j), both in pairs.items():
        mixed = 0.5 * (_summed(both, flow) - own[k] - own[j])
        bend[k, j] = bend[j, k] = mixed / (steps[k, k] * steps[j, j])
    drifts = None
    if factors is not None and len(factors[0]) == n <= SMALL_SYSTEM and P * n**2 <= MOST_ENTRIES:
        rows = [
            [
                jacobian(point, image)
                for point, image in zip(*both, strict=True)
                if image is not None
            ]
            for both in zip(points, sides, strict=True)
        ]
        drifts = _drifts(rows, np.diag(steps), factors)
    return Expansion(bend, drifts) if np.isfinite(bend).all() else None


def _summed(both: tuple[Image | None, Image | None], flow: Array) -> Array:
    """Return `mu_+ + mu_- - 2 mu_0`."""
    one, other = both
    assert one is not None
    assert other is not None
    return one.flow + other.flow - 2 * flow


def _drifts(
    rows: list[list[Array | None]], steps: Array, factors: tuple[Array, Array]
) -> Array | None:
    found = []
    for (ahead, behind), step in zip(rows, steps, strict=True):
        if ahead is None or behind is None:
            return None
        change = (ahead - behind).T / (2 * step) if step > 0 else np.zeros_like(ahead)
        found.append(scipy.linalg.lu_solve(factors, change).astype(np.float32))
    drifts = np.array(found)
    return drifts if np.isfinite(drifts).all() else None
