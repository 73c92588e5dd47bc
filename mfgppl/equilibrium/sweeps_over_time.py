"""Linear systems of a response as sweeps over time, where a time's flow is read at that time alone.

`(I - J) x = gap`, J the derivative of the flow that a flow generates, is then a boundary problem
with the dynamics of flows forwards and of values backwards (`_kernels/two_point.py`). What each
time's flow is read through is found by derivatives of reward and dynamics: n numbers of it.
"""

from typing import NamedTuple

import numpy as np

from mfgppl._kernels import crowd, two_point
from mfgppl._kernels.dynamics import Dense
from mfgppl.equilibrium.recording import tape_with

Array = np.ndarray
N_POINTS = 3  # flows, values and parameters at which derivatives are looked at
APART = 0.3  # of parameters from those given, relative
NEGLIGIBLE = 1e-10  # singular value of derivatives, relative to the largest
MOST_STATES = 128  # up to which matrices over the states are worth it


class Sweeps(NamedTuple):
    """`(I - J)^-1` at a flow, as one sweep each way.

    Attributes
    ----------
    system : TwoPoint
        The matrices of the sweeps.
    """

    system: two_point.TwoPoint

    def closed(self, gap: Array) -> Array:
        """Return the change of a flow (T, S) of which a gap is left."""
        out = np.empty_like(gap)
        two_point.solve(self.system, np.ascontiguousarray(gap), out)
        return out

    def weighed(self, weights: Array) -> Array:
        """Return the transpose: weights (T, S) of a gap from those of the change that closes it."""
        out = np.empty_like(weights)
        two_point.solve_back(self.system, np.ascontiguousarray(weights), out)
        return out

    def start(self, weights: Array) -> Array:
        """Return the same: it needs no better start."""
        return self.weighed(weights)


def sweeps_at(
    arrays: crowd.Arrays,
    slopes: tuple[crowd.Played, crowd.Played],
    reads: Array,
    response: tuple[Array, Array, Array, Array],
    temperature: float,
    room: Sweeps | None,
) -> Sweeps:
    """Return the system at a response, along tables as they are; in the room of another, if given.

    Parameters
    ----------
    arrays : Arrays
        The game.
    slopes : tuple of Played
        Its derivatives in the flow.
    reads : ndarray, shape (n, S)
        What is read of flows, by `reads_of`.
    response : tuple of ndarray
        Flow (T, S), values (T, S), policy (T, S, A), and the flow generated (T, S).
    temperature : float
        Of the response.
    room : Sweeps, optional
        A system of the game that is no longer needed.
    """
    flow, values, policy, generated = response
    system = two_point.room(*flow.shape) if room is None else room.system
    two_point.linearise(
        arrays, *slopes, reads, flow, temperature, values, policy, generated,
        system,
    )  # fmt: skip
    return Sweeps(system)


def reads_of(
    arrays: crowd.Arrays,
    slopes: tuple[crowd.Played, crowd.Played],
    parameters: Array,
    shape: tuple[int, int, int],
) -> Array | None:
    """Return what rewards and dynamics read of the flow of their time; None where that is not all.

    And where dynamics are sparse, or states more than `MOST_STATES`. Each row, (n, S), holds the
    weights of the states in a number that is read; rows are orthonormal, so that each is also a
    change of a flow that changes its number alone.

    Parameters
    ----------
    arrays : Arrays
        The game.
    slopes : tuple of Played
        Derivatives of reward and dynamics in the flow.
    parameters : ndarray, shape (P,)
        Parameters around which they are looked at.
    shape : tuple of int
        T, S, A.
    """
    T, S, A = shape
    if not isinstance(arrays.tables, Dense) or S > MOST_STATES:
        return None
    rng = np.random.default_rng(0)
    units, rows = np.eye(S), []
    for k in range(N_POINTS):
        at = parameters * (1 + APART * rng.standard_normal(len(parameters)) * (k > 0))
        reward_slope, moves_slope = (tape_with(played, at) for played in slopes)
        flow, values = rng.dirichlet(np.ones(S), size=T), rng.standard_normal((T, S))
        policy = rng.dirichlet(np.ones(A), size=(T, S))
        if not _is_local(reward_slope, flow, shape):
            return None
        found, moved = np.empty((T, S * A, S)), np.empty((T, S, S))
        two_point.slopes_of_q(
            arrays, reward_slope, moves_slope, flow, units, values, policy, flow, found, moved
        )
        sound = np.isfinite(found).all(-1)
        rows.append(found[sound])
    _, sizes, basis = np.linalg.svd(np.concatenate(rows), full_matrices=False)
    kept = basis[sizes > NEGLIGIBLE * sizes.max(initial=0.0)]
    return units if len(kept) == S else np.ascontiguousarray(kept)


def _is_local(reward_slope: crowd.Played, flow: Array, shape: tuple[int, int, int]) -> bool:
    """Return whether the reward of a time is moved by the flow of that time alone.

    Half of the times change, by each binary digit of their numbers in turn; the others' rewards
    must not.
    """
    change, out = np.random.default_rng(1).standard_normal(flow.shape), np.empty(shape)
    times = np.arange(len(flow))
    for digit in range(int(times[-1]).bit_length()):
        for half in (0, 1):
            changes = (times >> digit) & 1 == half
            two_point.reward_change(reward_slope, flow, change * changes[:, None], out)
            if np.nan_to_num(out[~changes]).any():
                return False
    return True
