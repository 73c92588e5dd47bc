"""A whole log density in one compiled call, from Python or from a sampler's own threads.

Between the sampler and the kernel there is no Python: parameters go through the tape to the reward,
the reward through the kernel, and its gradient back through the tape.
"""

import functools
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from mfgppl._kernels import caching, mixtures, sweeps, tape
from mfgppl._kernels.dynamics import Dense, Sparse, Tables, is_tuple, jit_options

jit = caching.jit(**jit_options)


class TapeArrays(NamedTuple):
    """A tape with a buffer of its own.

    Attributes
    ----------
    forward, backward : ndarray of int64
        Instructions of the two stages.
    places : ndarray of int64
        Lists of the instructions.
    buffer : ndarray
        Constants and workspace.
    where : ndarray of int64, shape (5,)
        Places of theta, cotangents, what is found and the gradient; size of what is found.
    """

    forward: np.ndarray
    backward: np.ndarray
    places: np.ndarray
    buffer: np.ndarray
    where: np.ndarray


class Itself(NamedTuple):
    """The tape finds the reward itself.

    Attributes
    ----------
    shape : ndarray of int64, shape (3,)
        (T, S, A).
    """

    shape: np.ndarray


class Affine(NamedTuple):
    """The tape finds the weights of features.

    Attributes
    ----------
    matrix, offset : ndarray, shape (K, T * S * A) and (T * S * A,)
        The reward is `offset + weights @ matrix`.
    reward : ndarray, shape (T, S, A)
        Workspace.
    """

    matrix: np.ndarray
    offset: np.ndarray
    reward: np.ndarray


class Causal(NamedTuple):
    """Arrays of the causal likelihood and its workspace; see `sweeps`.

    The value is the sum over parts of the cells, which begin where `parts` has it.
    """

    tables: Tables
    constants: np.ndarray
    counts: np.ndarray
    visits: np.ndarray
    soft_values: np.ndarray
    gradient: np.ndarray
    parts: np.ndarray


class Energy(NamedTuple):
    """Arrays of the energy likelihood and its workspace; see `sweeps`."""

    tables: Tables
    constants: np.ndarray
    counts: np.ndarray
    starts: np.ndarray
    ends_seen: np.ndarray
    ends_unseen: np.ndarray
    entry: np.ndarray
    log_partition: np.ndarray
    log_next: np.ndarray
    log_policy: np.ndarray
    gradient: np.ndarray


class Kinds(NamedTuple):
    """Arrays of the causal likelihood of agents whose kind is not seen, and its workspace.

    See `mixtures.value_and_gradient`; the gradient has the shape (1, 1, n).
    """

    tables: Tables
    constants: np.ndarray
    entry: np.ndarray
    offsets: np.ndarray
    start: np.ndarray
    weight: np.ndarray
    known: np.ndarray
    pairs: np.ndarray
    seen: np.ndarray
    policies: np.ndarray
    logs: np.ndarray
    apart: np.ndarray
    posterior: np.ndarray
    counts: np.ndarray
    gradient: np.ndarray


Core = Itself | Affine
Law = Causal | Energy | Kinds


def evaluate(law, reward):
    """Return the log likelihood of a reward and fill `law.gradient`."""


def reward_of(core, found):
    """Return the reward (T, S, A) of what the tape found."""


def slope_of(core, slope, cotangent):
    """Fill the cotangent of what the tape found from the gradient in the reward."""


@overload(evaluate, jit_options=jit_options)
def _evaluate(law, reward):
    if is_tuple(Causal, law):
        return _by_parts
    if is_tuple(Kinds, law):
        return lambda law, reward: mixtures.value_and_gradient(
            reward.reshape(reward.size), law.tables, law.constants[0], law.constants[1], law.entry,
            law.offsets, law.start, law.weight, law.known, law.pairs, law.seen, law.policies,
            law.logs, law.apart, law.posterior, law.counts,
            law.gradient.reshape(law.gradient.size),
        )  # fmt: skip
    return lambda law, reward: sweeps.energy_value_and_gradient(
        reward, law.tables, law.constants[1], law.counts, law.starts, law.ends_seen,
        law.ends_unseen, law.entry, int(law.constants[2]), law.log_partition, law.log_next,
        law.log_policy, law.gradient,
    )  # fmt: skip


def _by_parts(law, reward):
    value = 0.0
    for k in range(law.parts.size - 1):
        value += sweeps.causal_value_and_gradient(
            reward, law.tables, law.constants[0], law.constants[1], law.counts, law.visits,
            law.soft_values, law.gradient, law.parts[k], law.parts[k + 1],
        )  # fmt: skip
    return value


@overload(reward_of, jit_options=jit_options)
def _reward_of(core, found):
    if is_tuple(Affine, core):
        return _by_features
    return lambda core, found: found.reshape((core.shape[0], core.shape[1], core.shape[2]))


def _by_features(core, found):
    sweeps.affine(core.matrix, core.offset, found, core.reward.reshape(core.reward.size))
    return core.reward


@overload(slope_of, jit_options=jit_options)
def _slope_of(core, slope, cotangent):
    if is_tuple(Affine, core):
        return lambda core, slope, cotangent: sweeps.affine_pullback(
            core.matrix, slope.reshape(slope.size), cotangent
        )
    return _copied


def _copied(core, slope, cotangent):
    cotangent[:] = slope.reshape(slope.size)


@jit
def log_density(theta, weights, machine, core, law, gradient):
    """Return a log density, with `weights` of log prior and log Jacobian, and fill its gradient."""
    buffer, where = machine.buffer, machine.where
    buffer[where[0] : where[0] + theta.size] = theta
    tape.run(machine.forward, machine.places, buffer)
    found = buffer[where[2] : where[2] + where[4]]
    value = evaluate(law, reward_of(core, found[2:]))
    cotangent = buffer[where[1] : where[1] + where[4]]
    cotangent[:2] = weights
    slope_of(core, law.gradient, cotangent[2:])
    tape.run(machine.backward, machine.places, buffer)
    gradient[:] = buffer[where[3] : where[3] + theta.size]
    for k in range(2):
        if weights[k] != 0.0:  # what has no weight plays no part, whatever it is
            value += weights[k] * found[k]
    return value


# what a sampler calls: dimension, point, gradient, value, data; returns 0, or why it cannot
SIGNATURE = types.int64(
    types.uint64,
    types.CPointer(types.double),
    types.CPointer(types.double),
    types.CPointer(types.double),
    types.voidptr,
)
NOT_FINITE = 1
SLOT = 5  # numbers of an array among the data: its address and its lengths, padded with ones
TABLES, LAW, REWARD, SIZE = 8, 14, 28, 29 * SLOT  # slots, and how many numbers there are


@intrinsic
def pointer(context, address):
    """Return an address as a pointer."""
    return types.voidptr(types.int64), lambda _, builder, __, args: builder.inttoptr(
        args[0], ir.IntType(8).as_pointer()
    )


@jit
def flat(data, k):
    """Return array `k` of the data as a flat array of float64."""
    slot = data[k * SLOT :]
    n = slot[1] * slot[2] * slot[3] * slot[4]
    return numba.carray(pointer(slot[0]), (n,), np.float64)


@jit
def whole(data, k):
    """Return array `k` of the data as a flat array of int64."""
    slot = data[k * SLOT :]
    return numba.carray(pointer(slot[0]), (slot[1] * slot[2],), np.int64)


@jit
def narrow(data, k):
    """Return array `k` of the data as a flat array of int32."""
    slot = data[k * SLOT :]
    return numba.carray(pointer(slot[0]), (slot[1],), np.int32)


@jit
def rows(data, k):
    """Return array `k` of the data with its first two axes."""
    return flat(data, k).reshape((data[k * SLOT + 1], data[k * SLOT + 2]))


@jit
def cube(data, k):
    """Return array `k` of the data with its first three axes."""
    slot = data[k * SLOT :]
    return flat(data, k).reshape((slot[1], slot[2], slot[3]))


@jit
def solid(data, k):
    """Return array `k` of the data with its four axes."""
    slot = data[k * SLOT :]
    return flat(data, k).reshape((slot[1], slot[2], slot[3], slot[4]))


@jit
def int_rows(data, k):
    """Return array `k` of the data, of int64, with its first two axes."""
    return whole(data, k).reshape((data[k * SLOT + 1], data[k * SLOT + 2]))


@jit
def dense(data, k):
    """Return the dense tables from slot `k` on."""
    return Dense(solid(data, k), whole(data, k + 1))


@jit
def sparse(data, k):
    """Return the sparse tables from slot `k` on."""
    return Sparse(
        flat(data, k), narrow(data, k + 1), int_rows(data, k + 2),
        flat(data, k + 3), narrow(data, k + 4), int_rows(data, k + 5),
    )  # fmt: skip


@jit
def causal(data, k, tables):
    """Return the causal likelihood from slot `k` on."""
    return Causal(
        tables, flat(data, k), cube(data, k + 1), rows(data, k + 2), rows(data, k + 3),
        cube(data, k + 4), whole(data, k + 5),
    )  # fmt: skip


@jit
def energy(data, k, tables):
    """Return the energy likelihood from slot `k` on."""
    return Energy(
        tables, flat(data, k), cube(data, k + 1), rows(data, k + 2), rows(data, k + 3),
        cube(data, k + 4), rows(data, k + 5), rows(data, k + 6), cube(data, k + 7),
        cube(data, k + 8), cube(data, k + 9),
    )  # fmt: skip


@jit
def kinds(data, k, tables):
    """Return the likelihood of unseen kinds from slot `k` on."""
    return Kinds(
        tables, flat(data, k), narrow(data, k + 1), whole(data, k + 2), narrow(data, k + 3),
        flat(data, k + 4), rows(data, k + 5), int_rows(data, k + 6), flat(data, k + 7),
        solid(data, k + 8), flat(data, k + 9), rows(data, k + 10), rows(data, k + 11),
        rows(data, k + 12), cube(data, k + 13),
    )  # fmt: skip


@jit
def with_core(theta, gradient, data, law):
    """Evaluate with the core that the data say."""
    machine = TapeArrays(
        int_rows(data, 1), int_rows(data, 2), whole(data, 3), flat(data, 4), whole(data, 5)
    )
    weights = flat(data, 0)
    if weights[2] != 0.0:
        core = Affine(rows(data, 6), flat(data, 7), cube(data, REWARD))
        return log_density(theta, weights[:2], machine, core, law, gradient)
    return log_density(theta, weights[:2], machine, Itself(whole(data, 6)), law, gradient)


@jit
def status(value, gradient):
    """Return 0 for a finite value and gradient."""
    if not np.isfinite(value):
        return NOT_FINITE
    for k in range(gradient.size):
        if not np.isfinite(gradient[k]):
            return NOT_FINITE
    return 0


@jit
def answer(dim, point, slope, value, data, law):
    """Evaluate packed data with their law at a sampler's pointers."""
    theta, gradient = numba.carray(point, (dim,)), numba.carray(slope, (dim,))
    value[0] = with_core(theta, gradient, data, law)
    return status(value[0], gradient)


def causal_dense(dim, point, slope, value, address):
    """Evaluate packed data of the causal likelihood with dense tables."""
    data = numba.carray(address, (SIZE,), np.int64)
    return answer(dim, point, slope, value, data, causal(data, LAW, dense(data, TABLES)))


def causal_sparse(dim, point, slope, value, address):
    """Evaluate packed data of the causal likelihood with sparse tables."""
    data = numba.carray(address, (SIZE,), np.int64)
    return answer(dim, point, slope, value, data, causal(data, LAW, sparse(data, TABLES)))


def energy_dense(dim, point, slope, value, address):
    """Evaluate packed data of the energy likelihood with dense tables."""
    data = numba.carray(address, (SIZE,), np.int64)
    return answer(dim, point, slope, value, data, energy(data, LAW, dense(data, TABLES)))


def energy_sparse(dim, point, slope, value, address):
    """Evaluate packed data of the energy likelihood with sparse tables."""
    data = numba.carray(address, (SIZE,), np.int64)
    return answer(dim, point, slope, value, data, energy(data, LAW, sparse(data, TABLES)))


def kinds_dense(dim, point, slope, value, address):
    """Evaluate packed data of the likelihood of unseen kinds with dense tables."""
    data = numba.carray(address, (SIZE,), np.int64)
    return answer(dim, point, slope, value, data, kinds(data, LAW, dense(data, TABLES)))


def kinds_sparse(dim, point, slope, value, address):
    """Evaluate packed data of the likelihood of unseen kinds with sparse tables."""
    data = numba.carray(address, (SIZE,), np.int64)
    return answer(dim, point, slope, value, data, kinds(data, LAW, sparse(data, TABLES)))


CALLS = {
    (Causal, Dense): causal_dense,
    (Causal, Sparse): causal_sparse,
    (Energy, Dense): energy_dense,
    (Energy, Sparse): energy_sparse,
    (Kinds, Dense): kinds_dense,
    (Kinds, Sparse): kinds_sparse,
}


EXPANSION = types.int64(
    types.uint64,
    types.uint64,
    types.CPointer(types.double),
    types.CPointer(types.double),
    types.voidptr,
)


def copied(dim, n, point, out, address):
    """Keep a point as it is, where a sampler asks for what to record of it."""
    for k in range(dim):
        out[k] = point[k]
    return 0


@functools.cache
def keeper() -> Any:
    """Return `copied` as a C function."""
    return caching.c_function(EXPANSION)(copied)


@functools.cache
def native(law: Any, tables: Any) -> Any:
    """Return the C function for a kind of law and of tables, compiled or found on disk."""
    return caching.c_function(SIGNATURE)(CALLS[law, tables])


def packed(
    weights: np.ndarray, machine: TapeArrays, core: Core, law: Law
) -> tuple[np.ndarray, list[Any]]:
    """Return the data that a function of `CALLS` reads, and the arrays that must live as long."""
    tables, *arrays = law
    empty = np.zeros(1)
    cores = [*core, empty, empty][:3]
    tabled = [*tables, *[empty] * 6][:6]
    weights = np.append(weights, float(isinstance(core, Affine)))
    slots = [weights, *machine, *cores[:2], *tabled, *[*arrays, *[empty] * 14][:14], cores[2]]
    data = np.zeros(SIZE, dtype=np.int64)
    for k, array in enumerate(slots):
        if not array.flags.c_contiguous:
            raise ValueError("packed arrays must be contiguous")
        lengths = (*array.shape, 1, 1, 1, 1)[:4]
        data[k * SLOT : (k + 1) * SLOT] = (array.ctypes.data, *lengths)
    return data, slots
