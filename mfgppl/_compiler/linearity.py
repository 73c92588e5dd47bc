"""Whether a record of operations is affine in its inputs, by the operations themselves.

Each storage is constant, affine or curved in the inputs. An operation that is not listed makes a
curve of whatever depends on them, so that "affine" is a proof and "not affine" may be caution.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from mfgppl._compiler.operations import IN_PLACE
from mfgppl._compiler.tracing import Step, Trace, aten, storage_of, tensors_in, written_by


class Level(IntEnum):
    """How numbers depend on the inputs."""

    CONSTANT = 0
    AFFINE = 1
    CURVED = 2


Levels = Callable[[Any], Level]  # the highest of the tensors in nested arguments


def is_affine(trace: Trace) -> bool:
    """Return whether the outputs of a trace are affine in its inputs."""
    levels = {storage_of(t): Level.AFFINE for t in trace.inputs}

    def of(values: Any) -> Level:
        found = (levels.get(storage_of(t), Level.CONSTANT) for t in tensors_in(values))
        return max(found, default=Level.CONSTANT)

    for step in trace.steps:
        found = _level(step, of)
        for tensor in (*step.outputs, *written_by(step.func, step.args, step.kwargs)):
            # a storage written in part, or seen by a view, keeps what its other entries are
            key = storage_of(tensor)
            levels[key] = max(found, levels.get(key, Level.CONSTANT))
    return of(trace.outputs) <= Level.AFFINE


def _level(step: Step, of: Levels) -> Level:
    """Return how what an operation returns or writes depends on the inputs."""
    packet = IN_PLACE.get(step.func.overloadpacket, step.func.overloadpacket)
    if packet in CONSTANTS:
        return Level.CONSTANT
    highest = of((step.args, step.kwargs))
    if highest != Level.AFFINE:
        return highest
    if of(step.kwargs) or not all(map(_real, step.outputs)):
        return Level.CURVED
    if packet in RULES:
        return RULES[packet](of, step)
    return highest if _is_view(step) else Level.CURVED


def _real(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float64 and not tensor.is_neg()


def _is_view(step: Step) -> bool:
    """Return whether an operation only looks at the storages that it was given."""
    known = {storage_of(t) for t in step.inputs}
    return not written_by(step.func, step.args, step.kwargs) and all(
        storage_of(t) in known for t in step.outputs
    )


def _if_constant(condition: Any, of: Levels, result: Any) -> Level:
    """Return the level of a result that is affine where a condition is constant."""
    return Level.CURVED if of(condition) else of(result)


def _sum(of: Levels, step: Step) -> Level:
    return of(step.args)


def _picked(of: Levels, step: Step) -> Level:
    return _if_constant(step.args[1:], of, step.args[0])


def _product_of(of: Levels, a: Any, b: Any) -> Level:
    return Level.CURVED if of(a) and of(b) else max(of(a), of(b))


def _product(of: Levels, step: Step) -> Level:
    return _product_of(of, *step.args[:2])


def _quotient(of: Levels, step: Step) -> Level:
    if step.kwargs.get("rounding_mode") is not None:
        return Level.CURVED
    return _picked(of, step)


def _sum_and_product(of: Levels, step: Step) -> Level:
    return max(of(step.args[0]), _product_of(of, *step.args[1:3]))


def _chosen(of: Levels, step: Step) -> Level:
    return _if_constant(step.args[0], of, step.args[1:])


def _filled(of: Levels, step: Step) -> Level:
    return _if_constant(step.args[1], of, (step.args[0], step.args[2]))


def _put(of: Levels, step: Step) -> Level:
    """Return the level of `index_put`, whose places are its second argument."""
    return _if_constant(step.args[1], of, (step.args[0], step.args[2:]))


def _put_along(of: Levels, step: Step) -> Level:
    """Return the level of values put along an axis, at places that are the third argument."""
    return _if_constant(step.args[2], of, (step.args[0], step.args[3:]))


def _rules() -> dict[Any, Callable[[Levels, Step], Level]]:
    by_rule: dict[Callable[[Levels, Step], Level], Sequence[Any]] = {
        _sum: (
            aten.add, aten.sub, aten.neg, aten.sum, aten.mean, aten.cumsum, aten.clone,
            aten._to_copy, aten.copy, aten.fill, aten.cat, aten.stack, aten.flip, aten.roll,
            aten.repeat, aten.tril, aten.triu, aten.diag_embed, aten.constant_pad_nd,
            aten._reshape_copy,
            aten.select_scatter, aten.slice_scatter, aten.select_backward, aten.slice_backward,
            aten.diagonal_backward,
        ),
        _picked: (aten.index, aten.gather, aten.index_select, aten.take),
        _product: (aten.mul, aten.mm, aten.mv, aten.bmm, aten.dot),
        _quotient: (aten.div,),
        _sum_and_product: (aten.addmm,),
        _chosen: (aten.where,),
        _filled: (aten.masked_fill,),
        _put: (aten.index_put,),
        _put_along: (aten.scatter_add, aten.index_add),
    }  # fmt: skip
    return {packet: rule for rule, packets in by_rule.items() for packet in packets}


RULES = _rules()
# what takes only the shape of what it is given
CONSTANTS = (
    aten.zeros_like, aten.ones_like, aten.full_like, aten.new_zeros, aten.new_ones, aten.new_full,
    aten.new_empty, aten.empty_like, aten._new_zeros_with_same_feature_meta,
)  # fmt: skip
