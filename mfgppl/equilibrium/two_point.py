"""Linear systems of a response as sweeps over time, where a time's flow is read at that time alone.

`(I - J) x = gap`, J the derivative of the flow that a flow generates, is then a boundary problem
with the dynamics of flows forwards and of values backwards (`_kernels/two_point.py`). What each
time's flow is read through is found by derivatives of reward and dynamics: n numbers of it.
"""

from typing import NamedTuple

import numpy as np

from mfgppl._kernels import crowd, two_point
from mfgppl._kernels.dynamics import Dense

Array = np.ndarray
N_POINTS = 3  # flows, values and parameters at which derivatives are looked at
APART = 0.3  # of parameters from those given, relative
NEGLIGIBLE = 1e-10  # singular value of derivatives, relative to the largest
MOST_STATES = 128  # up to which matrices over the states are worth it


class Reads(NamedTuple):
    """What is read of the flow of a time.

    Attributes
    ----------
    reads : ndarray, shape (n, S)
        Weights of the states in each number that is read.
    units : ndarray, shape (n, S)
        Changes of a flow that change one of them by one each.
    """

    reads: Array
    units: Array


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
    known: Reads,
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
    known : Reads
        What is read of flows.
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
        arrays, *slopes, known.reads, known.units, flow, temperature, values, policy, generated,
        system,
    )  # fmt: skip
    return Sweeps(system)


def reads_of(
    arrays: crowd.Arrays,
    slopes: tuple[crowd.Played, crowd.Played],
    parameters: Array,
    shape: tuple[int, int, int],
) -> Reads | None:
    """Return what rewards and dynamics read of the flow of their time; None where that is not all.

    And where dynamics are sparse, or states more than `MOST_STATES`.

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
        reward_slope, moves_slope = (_put(played, at) for played in slopes)
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
    if len(kept) == S:
        return Reads(units, units)
    return Reads(np.ascontiguousarray(kept), np.ascontiguousarray(kept))  # orthonormal rows


def _is_local(reward_slope: crowd.Played, flow: Array, shape: tuple[int, int, int]) -> bool:
    """Return whether the reward of a time is moved by the flow of that time alone.

    Times are told apart by the digits of their numbers: half of them change, the others' rewards
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


def _put(played: crowd.Played, parameters: Array) -> crowd.Played:
    """Return a tape with a buffer of its own that holds parameters, its last input."""
    buffer = played.buffer.copy()
    if played.inputs.size:
        buffer[played.inputs[-1] : played.inputs[-1] + len(parameters)] = parameters
    return played._replace(buffer=buffer)
