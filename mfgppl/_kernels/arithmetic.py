"""Scalar functions that a compiled loop can hold in vector registers, and copies."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mfgppl._kernels import caching

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ROUNDING_SHIFT = 6755399441055744.0  # 1.5 * 2**52: adding it leaves the nearest integer in the bits
LEAST, LARGEST = -708.0, 709.782712893384
HALF_ROOT = 0x3FE6A09E667F3BCD  # the bits of sqrt(1/2)
LEAST_NORMAL, TO_NORMAL, TO_NORMAL_LOG = 2.0**-1022, 2.0**54, 37.42994775023705

jit = caching.jit(inner=True, nogil=True, fastmath={"contract"}, error_model="numpy")


@jit
def assign(out, values):
    """Copy values; numba's own assignment brings the code of a message about shapes."""
    for i in range(out.size):
        out[i] = values[i]


@intrinsic
def bits_of(context, x):
    """Return the bits of a float64 as an int64."""
    return types.int64(types.float64), lambda _, builder, __, args: builder.bitcast(
        args[0], ir.IntType(64)
    )


@intrinsic
def float_of(context, bits):
    """Return the float64 with the given bits."""
    return types.float64(types.int64), lambda _, builder, __, args: builder.bitcast(
        args[0], ir.DoubleType()
    )


@jit
def exp(x):
    """Return e**x within a few rounding errors, zero below e**-708; a loop of it is vectorised.

    libm's `exp` is a call that keeps a loop scalar.
    """
    y = LEAST if x < LEAST else (LARGEST if x > LARGEST else x)
    shifted = y * LOG2_E + ROUNDING_SHIFT
    half_scale = float_of((bits_of(shifted) + 1022) << 52)  # 2**(k-1), so that k = 1024 fits
    value = 2.0 * (exp_rest(y, shifted) * half_scale)
    return 0.0 if x < LEAST else (np.inf if x > LARGEST else value)


@jit
def exp_down(x):
    """Return e**x of an x <= 0 as `exp` does, with fewer steps."""
    y = LEAST if x < LEAST else x
    shifted = y * LOG2_E + ROUNDING_SHIFT
    value = exp_rest(y, shifted) * float_of((bits_of(shifted) + 1023) << 52)
    return 0.0 if x < LEAST else value


@jit
def exp_rest(y, shifted):
    """Return e**r of `y = k log 2 + r`, |r| <= log(2) / 2, where k stands in the bits of `shifted`.

    The polynomial interpolates `(e**r - 1 - r) / r**2` at Chebyshev's nodes; relative to e**r it is
    within 2e-17. Its terms are paired, so that they do not wait for each other.
    """
    k = shifted - ROUNDING_SHIFT
    r = (y - k * LN2_HIGH) - k * LN2_LOW
    r2 = r * r
    r4 = r2 * r2
    low = (0.5000000000000001 + 0.16666666666666669 * r) + (
        0.04166666666662413 + 0.008333333333330062 * r
    ) * r2
    middle = (0.0013888888917213717 + 0.00019841269863053618 * r) + (
        2.4801521295954376e-05 + 2.7557268459997064e-06 * r
    ) * r2
    high = 2.7620088445409746e-07 + 2.510038549551032e-08 * r
    return (1.0 + r) + r2 * (low + r4 * (middle + r4 * high))


@jit
def log(x):
    """Return the logarithm of a finite x >= 2**-1022 within a few rounding errors.

    `x = 2**k m` with m in [sqrt(1/2), sqrt(2)), and `log m = 2 artanh((m - 1) / (m + 1))`.
    """
    bits = bits_of(x)
    k = ((bits - HALF_ROOT) >> 52) + 0.0
    m = float_of(bits - (((bits - HALF_ROOT) >> 52) << 52))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 1.0 / 23.0
    p = p * z + 1.0 / 21.0
    p = p * z + 1.0 / 19.0
    p = p * z + 1.0 / 17.0
    p = p * z + 1.0 / 15.0
    p = p * z + 1.0 / 13.0
    p = p * z + 1.0 / 11.0
    p = p * z + 1.0 / 9.0
    p = p * z + 1.0 / 7.0
    p = p * z + 1.0 / 5.0
    p = p * z + 1.0 / 3.0
    return k * LN2_HIGH + (2.0 * s + (2.0 * s * z * p + k * LN2_LOW))


@jit
def any_log(x):
    """Return the logarithm of any x as IEEE has it; a loop of it is vectorised too."""
    small = x < LEAST_NORMAL
    value = log(x * TO_NORMAL if small else x) - (TO_NORMAL_LOG if small else 0.0)
    value = value if x < np.inf else x
    return value if x > 0.0 else (-np.inf if x == 0.0 else np.nan)
