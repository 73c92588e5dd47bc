"""Log densities as C functions, which samplers call by address from their own threads.

Between the sampler and the kernel there is no Python: all arrays are found from one that holds
their addresses.
"""

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mfgppl._kernels import caching
from mfgppl._kernels.density import (
    Affine,
    Causal,
    Core,
    Energy,
    Itself,
    Kinds,
    Law,
    Stationary,
    TapeArrays,
    log_density,
)
from mfgppl._kernels.dynamics import Dense, Sparse, jit_options

jit = caching.jit(inner=True, **jit_options)

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
def unsigned(data, k):
    """Return array `k` of the data as a flat array of uint32."""
    slot = data[k * SLOT :]
    return numba.carray(pointer(slot[0]), (slot[1],), np.uint32)


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
def endless(data, k, tables):
    """Return the causal likelihood without a horizon from slot `k` on."""
    return Stationary(
        tables, flat(data, k), cube(data, k + 1), flat(data, k + 2), cube(data, k + 3),
        cube(data, k + 4), cube(data, k + 5), cube(data, k + 6), whole(data, k + 7),
        cube(data, k + 8),
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
        tables, flat(data, k), unsigned(data, k + 1), whole(data, k + 2), narrow(data, k + 3),
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


def endless_dense(dim, point, slope, value, address):
    """Evaluate packed data of a game without a horizon with dense tables."""
    data = numba.carray(address, (SIZE,), np.int64)
    return answer(dim, point, slope, value, data, endless(data, LAW, dense(data, TABLES)))


def endless_sparse(dim, point, slope, value, address):
    """Evaluate packed data of a game without a horizon with sparse tables."""
    data = numba.carray(address, (SIZE,), np.int64)
    return answer(dim, point, slope, value, data, endless(data, LAW, sparse(data, TABLES)))


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
    (Stationary, Dense): endless_dense,
    (Stationary, Sparse): endless_sparse,
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
def function_for(law: Any, tables: Any) -> Any:
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
