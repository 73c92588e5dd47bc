"""A small machine for traced arithmetic: instructions on strided views of one flat buffer.

A reward program's prior, transforms and reward, with their derivatives, are a few dozen operations
of fixed shapes. Written as rows of a table they run in one compiled loop, the same for all
programs, without Python, without the interpreter's lock and without allocation.
"""

import math
from enum import IntEnum, auto
from typing import NamedTuple

import numpy as np

from mfgppl._kernels import caching
from mfgppl._kernels.arithmetic import any_log, assign, exp
from mfgppl._kernels.dynamics import jit_options

N_DIMS = 4  # longest loop nest of an instruction
WIDTH = 5 + 5 * N_DIMS  # of a row: op, places of out, a, b, c; sizes; strides of the same four
ZERO = 0  # the place that holds 0.0


class Op(IntEnum):
    """What an instruction does with the entries of its operands a, b, c; comparisons give 0 or 1.

    The last nine go beyond one entry: `SUM`, `DOT`, `LARGEST` and `SMALLEST` gather in `out`, so
    that axes of stride zero are summed over; `RUNNING_SUM` and `RUNNING_PRODUCT` go along the last
    axis; `GATHER` and `SCATTER` go through a list of places.
    """

    COPY = 0
    NEGATE = auto()
    EXP = auto()
    ADD = auto()
    SUBTRACT = auto()
    MULTIPLY = auto()
    DIVIDE = auto()
    WHERE = auto()
    RECIPROCAL = auto()
    SQRT = auto()
    RSQRT = auto()
    LOG = auto()
    LOG1P = auto()
    EXPM1 = auto()
    TANH = auto()
    SIGMOID = auto()
    SIN = auto()
    COS = auto()
    ATAN = auto()
    ABS = auto()
    SIGN = auto()
    LGAMMA = auto()
    DIGAMMA = auto()
    ERF = auto()
    NOT = auto()
    ISNAN = auto()
    POW = auto()
    MAXIMUM = auto()
    MINIMUM = auto()
    EQUAL = auto()
    UNEQUAL = auto()
    LESS = auto()
    LESS_EQUAL = auto()
    SUM = auto()
    DOT = auto()
    LARGEST = auto()
    SMALLEST = auto()
    RUNNING_SUM = auto()
    RUNNING_PRODUCT = auto()
    GATHER = auto()
    SCATTER = auto()
    SCATTER_ADD = auto()


COPY, NEGATE, EXP, ADD, SUBTRACT, MULTIPLY, DIVIDE, WHERE = (int(k) for k in list(Op)[:8])
RECIPROCAL, SQRT, RSQRT, LOG, LOG1P, EXPM1, TANH, SIGMOID = (int(k) for k in list(Op)[8:16])
SIN, COS, ATAN, ABS, SIGN, LGAMMA, DIGAMMA, ERF, NOT, ISNAN = (int(k) for k in list(Op)[16:26])
POW, MAXIMUM, MINIMUM, EQUAL, UNEQUAL, LESS, LESS_EQUAL = (int(k) for k in list(Op)[26:33])
SUM, DOT, LARGEST, SMALLEST, RUNNING_SUM, RUNNING_PRODUCT = (int(k) for k in list(Op)[33:39])
GATHER, SCATTER, SCATTER_ADD = (int(k) for k in list(Op)[39:])


class Tape(NamedTuple):
    """A function of flat inputs, ready to run.

    Attributes
    ----------
    code, places : ndarray
        Instructions, and lists of places.
    buffer : ndarray
        Constants, with room for inputs and results.
    inputs : list of slice
        Where the inputs go.
    outputs : list of slice
        Where the outputs are found; outputs are contiguous.
    ends : list of int
        Number of instructions after which each output is there.
    """

    code: np.ndarray
    places: np.ndarray
    buffer: np.ndarray
    inputs: list[slice]
    outputs: list[slice]
    ends: list[int]


jit = caching.jit(**jit_options)
alone = caching.jit(alone=True, **jit_options)
inner = caching.jit(inner=True, **jit_options)
inner_alone = caching.jit(inner=True, alone=True, **jit_options)


@inner
def digamma(x):
    """Return the logarithmic derivative of the gamma function, for x > 0."""
    if not x > 0.0:
        return math.nan
    shift = 0.0
    while x < 10.0:
        shift -= 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    series = y * (
        1.0 / 12
        - y * (1.0 / 120 - y * (1.0 / 252 - y * (1.0 / 240 - y * (1.0 / 132 - y * 691.0 / 32760))))
    )
    return shift + math.log(x) - 0.5 / x - series


@inner
def one(op, x):
    """Return a function of one number."""
    if op == RECIPROCAL:
        return 1.0 / x
    if op == SQRT:
        return np.sqrt(x)
    if op == RSQRT:
        return 1.0 / np.sqrt(x)
    if op == LOG1P:
        return np.log1p(x)
    if op == EXPM1:
        return np.expm1(x)
    if op == TANH:
        return np.tanh(x)
    if op == SIGMOID:
        return 1.0 / (1.0 + np.exp(-x))
    if op == SIN:
        return np.sin(x)
    if op == COS:
        return np.cos(x)
    if op == ATAN:
        return np.arctan(x)
    if op == ABS:
        return abs(x)
    if op == SIGN:
        return 1.0 if x > 0.0 else (-1.0 if x < 0.0 else x)
    if op == LGAMMA:
        return math.lgamma(x)
    if op == DIGAMMA:
        return digamma(x)
    if op == ERF:
        return math.erf(x)
    if op == NOT:
        return 1.0 if x == 0.0 else 0.0
    return 1.0 if x != x else 0.0


@inner
def two(op, x, y):
    """Return a function of two numbers; NaN is kept, comparisons give 0 or 1."""
    if op == POW:
        return x**y
    if op == MAXIMUM:
        return x if x >= y or x != x else y
    if op == MINIMUM:
        return x if x <= y or x != x else y
    if op == EQUAL:
        return 1.0 if x == y else 0.0
    if op == UNEQUAL:
        return 1.0 if x != y else 0.0
    if op == LESS:
        return 1.0 if x < y else 0.0
    return 1.0 if x <= y else 0.0


@inner
def add_all(n, out, so, x, sx, y, sy):
    """Add entries; lines of neighbours are vectorised."""
    if sy == 0:
        number = y[0]
        if so == 1 and sx == 1:
            for i in range(n):
                out[i] = x[i] + number
        else:
            for i in range(n):
                out[i * so] = x[i * sx] + number
    elif so == 1 and sx == 1 and sy == 1:
        for i in range(n):
            out[i] = x[i] + y[i]
    else:
        for i in range(n):
            out[i * so] = x[i * sx] + y[i * sy]


@inner
def multiply_all(n, out, so, x, sx, y, sy):
    """Multiply entries, likewise."""
    if sy == 0:
        number = y[0]
        if so == 1 and sx == 1:
            for i in range(n):
                out[i] = x[i] * number
        else:
            for i in range(n):
                out[i * so] = x[i * sx] * number
    elif so == 1 and sx == 1 and sy == 1:
        for i in range(n):
            out[i] = x[i] * y[i]
    else:
        for i in range(n):
            out[i * so] = x[i * sx] * y[i * sy]


@inner
def copy_all(n, out, so, x, sx):
    """Copy entries, likewise."""
    if so == 1 and sx == 1:
        for i in range(n):
            out[i] = x[i]
    else:
        for i in range(n):
            out[i * so] = x[i * sx]


@inner
def subtract_all(n, out, so, x, sx, y, sy):
    """Subtract entries, likewise."""
    if so == 1 and sx == 1 and sy == 1:
        for i in range(n):
            out[i] = x[i] - y[i]
    else:
        for i in range(n):
            out[i * so] = x[i * sx] - y[i * sy]


@inner
def exp_all(n, out, so, x, sx):
    """Take exponentials, likewise."""
    if so == 1 and sx == 1:
        for i in range(n):
            out[i] = exp(x[i])
    else:
        for i in range(n):
            out[i * so] = exp(x[i * sx])


@inner
def log_all(n, out, so, x, sx):
    """Take logarithms, likewise."""
    if so == 1 and sx == 1:
        for i in range(n):
            out[i] = any_log(x[i])
    else:
        for i in range(n):
            out[i * so] = any_log(x[i * sx])


@inner
def dot_all(n, out, so, x, sx, y, sy):
    """Add products of entries to `out`, to one place or along a line."""
    if so == 0:
        total = out[0]
        if sx == 1 and sy == 1:
            for i in range(n):
                total += x[i] * y[i]
        else:
            for i in range(n):
                total += x[i * sx] * y[i * sy]
        out[0] = total
    elif sx == 0 and so == 1 and sy == 1:
        number = x[0]
        for i in range(n):
            out[i] += number * y[i]
    else:
        for i in range(n):
            out[i * so] += x[i * sx] * y[i * sy]


@inner
def sum_all(n, out, so, x, sx):
    """Add entries to `out`, to one place or along a line."""
    if so == 0:
        total = out[0]
        if sx == 1:
            for i in range(n):
                total += x[i]
        else:
            for i in range(n):
                total += x[i * sx]
        out[0] = total
    elif so == 1 and sx == 1:
        for i in range(n):
            out[i] += x[i]
    else:
        for i in range(n):
            out[i * so] += x[i * sx]


@inner_alone
def line(op, n, out, so, x, sx, y, sy, z, sz):
    """Run an operation along one line of its operands."""
    if op == ADD:
        add_all(n, out, so, x, sx, y, sy)
    elif op == MULTIPLY:
        multiply_all(n, out, so, x, sx, y, sy)
    elif op == SUM:
        sum_all(n, out, so, x, sx)
    elif op == DOT:
        dot_all(n, out, so, x, sx, y, sy)
    elif op == SUBTRACT:
        subtract_all(n, out, so, x, sx, y, sy)
    elif op == DIVIDE:
        for i in range(n):
            out[i * so] = x[i * sx] / y[i * sy]
    elif op == COPY:
        copy_all(n, out, so, x, sx)
    elif op == NEGATE:
        for i in range(n):
            out[i * so] = -x[i * sx]
    elif op == EXP:
        exp_all(n, out, so, x, sx)
    elif op == LOG:
        log_all(n, out, so, x, sx)
    elif op == WHERE:
        for i in range(n):
            out[i * so] = y[i * sy] if x[i * sx] != 0.0 else z[i * sz]
    elif op == LARGEST:
        for i in range(n):
            out[i * so] = two(MAXIMUM, out[i * so], x[i * sx])
    elif op == SMALLEST:
        for i in range(n):
            out[i * so] = two(MINIMUM, out[i * so], x[i * sx])
    elif op == RUNNING_SUM:
        total = 0.0
        for i in range(n):
            total += x[i * sx]
            out[i * so] = total
    elif op == RUNNING_PRODUCT:
        total = 1.0
        for i in range(n):
            total *= x[i * sx]
            out[i * so] = total
    elif op <= ISNAN:
        for i in range(n):
            out[i * so] = one(op, x[i * sx])
    else:
        for i in range(n):
            out[i * so] = two(op, x[i * sx], y[i * sy])


@alone
def run(code, places, buffer):
    """Run instructions in order.

    Parameters
    ----------
    code : ndarray of int64, shape (n, WIDTH)
        The instructions.
    places : ndarray of int64
        Lists that `GATHER` (in order of `out`) and `SCATTER` (of `a`) go through, from `b` on.
    buffer : ndarray, shape (n_buffer,)
        All constants, inputs and results.
    """
    for k in range(code.shape[0]):
        row = code[k]
        op, out, a, b, c = row[0], row[1], row[2], row[3], row[4]
        n0, n1, n2, n3 = row[5], row[6], row[7], row[8]
        if op == GATHER:
            for i in range(n3):
                buffer[out + i] = buffer[places[b + i]]
        elif op == SCATTER:
            for i in range(n3):
                buffer[places[b + i]] = buffer[a + i]
        elif op == SCATTER_ADD:
            for i in range(n3):
                buffer[places[b + i]] += buffer[a + i]
        else:
            for i0 in range(n0):
                for i1 in range(n1):
                    for i2 in range(n2):
                        line(
                            op,
                            n3,
                            buffer[out + i0 * row[9] + i1 * row[10] + i2 * row[11] :],
                            row[12],
                            buffer[a + i0 * row[13] + i1 * row[14] + i2 * row[15] :],
                            row[16],
                            buffer[b + i0 * row[17] + i1 * row[18] + i2 * row[19] :],
                            row[20],
                            buffer[c + i0 * row[21] + i1 * row[22] + i2 * row[23] :],
                            row[24],
                        )


@jit
def run_each(code, places, buffer, enters, found, points, results):
    """Run a tape at each row of points; `enters` and `found` are places of input and output."""
    for k in range(points.shape[0]):
        assign(buffer[enters : enters + points.shape[1]], points[k])
        run(code, places, buffer)
        assign(results[k], buffer[found : found + results.shape[1]])
