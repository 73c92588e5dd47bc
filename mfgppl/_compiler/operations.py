"""The tensor operations that the tape machine knows; how each is run stands in `lowering`."""

from collections.abc import Iterable
from typing import Any

from mfgppl._compiler.tracing import aten
from mfgppl._kernels.tape import Op

ELEMENTWISE = {
    aten.add: Op.ADD, aten.sub: Op.SUBTRACT, aten.mul: Op.MULTIPLY, aten.div: Op.DIVIDE,
    aten.pow: Op.POW, aten.maximum: Op.MAXIMUM, aten.minimum: Op.MINIMUM, aten.eq: Op.EQUAL,
    aten.ne: Op.UNEQUAL, aten.lt: Op.LESS, aten.le: Op.LESS_EQUAL, aten.neg: Op.NEGATE,
    aten.exp: Op.EXP, aten.log: Op.LOG, aten.log1p: Op.LOG1P, aten.expm1: Op.EXPM1,
    aten.sqrt: Op.SQRT, aten.rsqrt: Op.RSQRT, aten.reciprocal: Op.RECIPROCAL, aten.tanh: Op.TANH,
    aten.sigmoid: Op.SIGMOID, aten.sin: Op.SIN, aten.cos: Op.COS, aten.atan: Op.ATAN,
    aten.abs: Op.ABS, aten.sign: Op.SIGN, aten.lgamma: Op.LGAMMA, aten.digamma: Op.DIGAMMA,
    aten.erf: Op.ERF, aten.logical_not: Op.NOT, aten.bitwise_not: Op.NOT, aten.isnan: Op.ISNAN,
    aten.bitwise_and: Op.MULTIPLY, aten.logical_and: Op.MULTIPLY, aten.bitwise_or: Op.MAXIMUM,
    aten.logical_or: Op.MAXIMUM, aten.where: Op.WHERE, aten.clone: Op.COPY, aten._to_copy: Op.COPY,
    aten.contiguous: Op.COPY,
    aten.relu: Op.MAXIMUM, aten.clamp_min: Op.MAXIMUM, aten.clamp_max: Op.MINIMUM,
    aten.copy: Op.COPY, aten.fill: Op.COPY,
}  # fmt: skip
# those run with their operands exchanged
SWAPPED = {aten.gt: Op.LESS, aten.ge: Op.LESS_EQUAL}
COMMUTES = (Op.ADD, Op.MULTIPLY)
# operations that only move entries (or put zeros), and are run on places
MOVES = (
    aten.index, aten.gather, aten.index_select, aten.flip, aten.roll, aten.repeat, aten.cat,
    aten.stack, aten.select_backward, aten.slice_backward, aten.constant_pad_nd, aten.tril,
    aten.triu, aten.diag_embed, aten.embedding, aten.take, aten.select_scatter, aten.slice_scatter,
    aten.diagonal_backward, aten._reshape_copy, aten.new_zeros, aten.zeros_like,
)  # fmt: skip
# operations with a method of their own in `lowering`
OTHERS = (
    aten.sum, aten.mean, aten.amax, aten.amin, aten.cumsum, aten.cumprod, aten.mm, aten.mv,
    aten.bmm, aten.dot, aten.addmm, aten.clamp, aten.masked_fill, aten.index_put, aten.ones_like,
    aten.full_like, aten.zero_, aten.scatter_add, aten.index_add,
    aten._new_zeros_with_same_feature_meta,
)  # fmt: skip


def _in_place(packets: Iterable[Any]) -> dict[Any, Any]:
    """Return the variants that write to their first argument."""
    names = {p: f"{p.__name__}_" for p in packets}
    return {getattr(aten, name): p for p, name in names.items() if hasattr(aten, name)}


IN_PLACE = _in_place(
    [*ELEMENTWISE, *SWAPPED, aten.masked_fill, aten.index_put, aten.scatter_add, aten.index_add]
)
# all that a recorder keeps as they are
KNOWN = {*ELEMENTWISE, *SWAPPED, *MOVES, *OTHERS, *IN_PLACE}
