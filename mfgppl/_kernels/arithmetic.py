"""Scalar functions that a compiled loop can hold in vector registers."""

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

jit = caching.jit(nogil=True, fastmath={"contract"}, error_model="numpy")


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

    `x = k log 2 + r` with |r| <= log(2) / 2, where the Taylor polynomial of degree 13 is exact to
    rounding; libm's `exp` is a call that keeps a loop scalar.
    """
    y = LEAST if x < LEAST else (LARGEST if x > LARGEST else x)
    shifted = y * LOG2_E + ROUNDING_SHIFT
    k = shifted - ROUNDING_SHIFT
    r = (y - k * LN2_HIGH) - k * LN2_LOW
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    half_scale = float_of((bits_of(shifted) + 1022) << 52)  # 2**(k-1), so that k = 1024 fits
    value = 2.0 * (p * half_scale)
    return 0.0 if x < LEAST else (np.inf if x > LARGEST else value)


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
