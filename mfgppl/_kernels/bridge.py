"""Where torch meets numba: kernels with their workspaces, as NumPy functions and with autograd."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mfgppl._kernels import density, sweeps, tape
from mfgppl._kernels.density import Causal, Energy
from mfgppl._kernels.dynamics import Dense, Sparse, Tables, sliced
from mfgppl._kernels.tape import Tape

ArrayMap = Callable[[np.ndarray], np.ndarray]
# an array (a reward, or flat parameters) to a log density and its gradient, whose array is reused
Evaluator = Callable[[np.ndarray], tuple[float, np.ndarray]]


def tables_of(transition: Tensor) -> Tables:
    """Return a transition (n, S, A, S), dense or sparse COO, as the arrays that the sweeps read."""
    n, S, A, _ = transition.shape
    transition = transition.detach()
    if transition.layout == torch.strided:
        rows = transition.reshape(n, S * A, S).numpy()
        return Dense(np.ascontiguousarray(rows.transpose(0, 2, 1)))
    entries = transition.coalesce()
    table, state, action, following = entries.indices().numpy()
    row, entry = state * A + action, entries.values().numpy()
    after = sliced(table, row, following, entry, (n, S * A))
    return Sparse(*after, *sliced(table, following, row, entry, (n, S)))


def causal_law(
    tables: Tables, counts: np.ndarray, *, discount: float, temperature: float
) -> Causal:
    """Return the causal likelihood as arrays, with a workspace of its own."""
    shape = counts.shape
    constants = np.array([discount, temperature, 0.0])
    counts, visits = np.ascontiguousarray(counts), counts.sum(-1)
    return Causal(tables, constants, counts, visits, np.empty(shape[:2]), np.empty(shape))


def energy_law(
    tables: Tables,
    counts: np.ndarray,
    *,
    starts: np.ndarray,
    ends_seen: np.ndarray,
    ends_unseen: np.ndarray,
    entry: np.ndarray,
    marginal: bool,
    temperature: float,
) -> Energy:
    """Return the energy likelihood as arrays, with a workspace of its own."""
    shape = counts.shape
    tidy = np.ascontiguousarray
    return Energy(
        tables=tables,
        constants=np.array([1.0, temperature, float(marginal)]),
        counts=tidy(counts),
        starts=tidy(starts),
        ends_seen=tidy(ends_seen),
        ends_unseen=tidy(ends_unseen),
        entry=tidy(entry),
        log_partition=np.empty(shape[:2]),
        log_next=np.empty(shape),
        log_policy=np.empty(shape),
        gradient=np.empty(shape),
    )


def law_evaluator(law: density.Law) -> Evaluator:
    """Return a reward to its log likelihood and gradient; the gradient's array is reused."""
    return lambda reward: (density.likelihood(law, reward), law.gradient)


def soft_arrays(
    rewards: np.ndarray, tables: Tables, *, discount: float, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return soft values (..., T, S) and log policies (..., T, S, A) of rewards (..., T, S, A)."""
    lead, shape = rewards.shape[:-3], rewards.shape[-3:]
    many = np.ascontiguousarray(rewards).reshape(-1, *shape)
    soft_values, log_policies = np.empty(many.shape[:-1]), np.empty(many.shape)
    sweeps.soft_sweeps(many, tables, discount, temperature, soft_values, log_policies)
    return soft_values.reshape(*lead, *shape[:-1]), log_policies.reshape(rewards.shape)


def energy_arrays(
    rewards: np.ndarray, tables: Tables, *, temperature: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return W (..., T, S), `log sum_x P exp W` (..., T, S, A) and the energy law's log policy."""
    lead, shape = rewards.shape[:-3], rewards.shape[-3:]
    many = np.ascontiguousarray(rewards).reshape(-1, *shape)
    log_partition = np.empty(many.shape[:-1])
    log_next, log_policy = np.empty(many.shape), np.empty(many.shape)
    sweeps.energy_sweeps(many, tables, temperature, log_partition, log_next, log_policy)
    return (
        log_partition.reshape(*lead, *shape[:-1]),
        log_next.reshape(rewards.shape),
        log_policy.reshape(rewards.shape),
    )


class _WithGradient(torch.autograd.Function):
    """A value with the gradient that came with it."""

    @staticmethod
    def forward(ctx: Any, point: Tensor, evaluate: Evaluator) -> Tensor:
        value, gradient = evaluate(np.ascontiguousarray(point.detach().numpy()))
        ctx.save_for_backward(torch.from_numpy(gradient.copy()))
        return torch.tensor(value, dtype=torch.float64)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return cotangent * gradient, None


def differentiable(point: Tensor, evaluate: Evaluator) -> Tensor:
    """Return a NumPy function's value as a tensor that autograd can differentiate once."""
    return _WithGradient.apply(point, evaluate)


def tape_arrays(program: Tape) -> density.TapeArrays:
    """Return a tape of two stages, from theta and a cotangent, with a buffer of its own."""
    code, places, buffer, inputs, outputs, ends = program
    (theta, cotangent), (found, gradient) = inputs, outputs
    starts = [theta.start, cotangent.start, found.start, gradient.start]
    where = np.array([*starts, found.stop - found.start])
    first, second = code[: ends[0]].copy(), code[ends[0] : ends[1]].copy()
    return density.TapeArrays(first, second, places, buffer.copy(), where)


_C_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_uint64, *[ctypes.c_void_p] * 4
)  # lets go of the interpreter's lock


class NativeDensity:
    """A log density that runs without Python.

    Parameters
    ----------
    machine : TapeArrays
        Prior, transforms and reward.
    core : Affine or Itself
        How the tape's output is the reward.
    law : Causal or Energy
        The likelihood.
    prior, jacobian : float
        Weights of the log prior and of the log Jacobian.

    Attributes
    ----------
    function
        C function (dim, point, gradient, value, data), which returns 0 if all is finite.
    data : ndarray
        Its last argument.
    """

    def __init__(
        self,
        machine: density.TapeArrays,
        core: density.Core,
        law: density.Law,
        *,
        prior: float,
        jacobian: float,
    ) -> None:
        kinds: Any = type(law), type(law.tables)
        self.function = density.native(*kinds)
        self.data, self._alive = density.packed(np.array([prior, jacobian]), machine, core, law)
        self._call = _C_FUNCTION(self.function.address)
        self._value = np.empty(1)
        self._addresses = self._value.ctypes.data, self.data.ctypes.data

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log density and its gradient."""
        point, gradient = np.array(theta, dtype=np.float64), np.empty(theta.size)
        self._call(point.size, point.ctypes.data, gradient.ctypes.data, *self._addresses)
        return self._value.item(), gradient

    @property
    def keeper(self) -> Any:
        """C function (dim, n, point, kept, data), which keeps a point as it is."""
        return density.keeper()


def on_tape(program: Tape) -> tuple[ArrayMap, ArrayMap]:
    """Return the two stages of a tape as functions of a flat array, in a buffer of their own."""
    code, places, buffer, inputs, outputs, ends = program
    buffer = buffer.copy()
    first, second = code[: ends[0]], code[ends[0] : ends[1]]
    theta, cotangent = (buffer[where] for where in inputs)
    found, gradient = (buffer[where] for where in outputs)

    def forward(point: np.ndarray) -> np.ndarray:
        theta[:] = point
        tape.run(first, places, buffer)
        return found

    def pullback(weights: np.ndarray) -> np.ndarray:
        cotangent[:] = weights
        tape.run(second, places, buffer)
        return gradient

    return forward, pullback


def each_on_tape(program: Tape, points: np.ndarray) -> np.ndarray:
    """Return the output of a tape at each row of points."""
    code, places, buffer, inputs, outputs, ends = program
    results = np.empty((len(points), outputs[0].stop - outputs[0].start))
    where = inputs[0].start, outputs[0].start
    points = np.ascontiguousarray(points)
    tape.run_each(code[: ends[0]], places, buffer.copy(), *where, points, results)
    return results


def add_entries(
    table: np.ndarray, entry: np.ndarray, owner: np.ndarray, sign: float, totals: np.ndarray
) -> None:
    """Add `sign * table[entry]` to the total of each entry's owner, in place."""
    sweeps.add_entries(np.ascontiguousarray(table).reshape(-1), entry, owner, sign, totals)
