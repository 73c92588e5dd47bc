"""A record of the tensor operations that a function runs, with autograd's among them.

Tensors are followed by their storage, so that views and operations in place need no special case:
an operand is a storage, an offset and strides.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
NEEDS_VALUES = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal)


class Untraceable(Exception):
    """A function whose operations depend on the values of its inputs."""


class Step(NamedTuple):
    """One operation with the tensors that it met.

    Attributes
    ----------
    func : OpOverload
        The operation.
    args, kwargs : tuple, dict
        Its arguments.
    outputs : list of Tensor
        What it returned, views included.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors among its arguments."""
        return tensors_in((self.args, self.kwargs))


class Trace(NamedTuple):
    """What a function did.

    Attributes
    ----------
    inputs : list of Tensor
        Its inputs.
    steps : list of Step
        Operations that depend on them, in order.
    outputs : list of Tensor
        Its results, one a stage.
    ends : list of int
        How many steps each stage had seen when it ended.
    snapshots : dict of int to Tensor
        Flat contents of constant storages before the function first wrote to them.
    """

    inputs: list[Tensor]
    steps: list[Step]
    outputs: list[Tensor]
    ends: list[int]
    snapshots: dict[int, Tensor]


def storage_of(tensor: Tensor) -> int:
    """Return what identifies a tensor's storage while it is alive."""
    return int(tensor.untyped_storage()._cdata)


def flat(tensor: Tensor) -> Tensor:
    """Return the whole storage of a tensor as a flat tensor of its type."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.detach().as_strided((size,), (1,), 0)


def tensors_in(values: Any) -> list[Tensor]:
    """Return the tensors in nested arguments."""
    return [v for v in tree_leaves(values) if isinstance(v, Tensor)]


def written_by(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an operation changes in place."""
    found = []
    for k, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[k] if k < len(args) else kwargs.get(argument.name)
            found += tensors_in(value)
    return found


def _aliases(func: Any) -> bool:
    """Return whether an operation returns a view of an argument, or the argument itself."""
    return any(r.alias_info is not None for r in func._schema.returns)


class Recorder(TorchDispatchMode):
    """Record the operations that depend on some tensors.

    Parameters
    ----------
    inputs : sequence of Tensor
        The tensors.
    known : collection of OpOverloadPacket
        Operations to record as they are; others are decomposed where torch knows how.
    """

    def __init__(self, inputs: Sequence[Tensor], known: Collection[Any]) -> None:
        super().__init__()
        self.known = known
        self.steps: list[Step] = []
        self.snapshots: dict[int, Tensor] = {}
        self._followed = {storage_of(t) for t in inputs}
        self._alive: list[Any] = list(inputs)  # a freed storage's place may be given again

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # true would import torch's compiler, a second of modules that nothing uses

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        met = tensors_in((args, kwargs))
        if not any(storage_of(t) in self._followed for t in met):
            result = func(*args, **kwargs)
            self._alive.append((met, result))
            return result
        packet = func.overloadpacket
        by_mask = packet is aten.index and any(t.dtype == torch.bool for t in met)
        if packet in NEEDS_VALUES or by_mask:
            raise Untraceable(f"{packet} needs the value of a parameter")
        if packet not in self.known and func in decomposition_table and not _aliases(func):
            with self:
                result = decomposition_table[func](*args, **kwargs)
            if result is not NotImplemented:
                return result
        written = written_by(func, args, kwargs)
        for tensor in written:
            if storage_of(tensor) not in self._followed:
                self.snapshots[storage_of(tensor)] = flat(tensor).clone()
        seen = tree_map(_as_it_is, tuple(args)), tree_map(_as_it_is, kwargs)
        result = func(*args, **kwargs)
        outputs = [_as_it_is(t) for t in tensors_in(result)]
        self._followed.update(storage_of(t) for t in (*outputs, *written))
        self.steps.append(Step(func, *seen, outputs))
        return result


def _as_it_is(value: Any) -> Any:
    """Return a view that keeps its shape where the tensor is reshaped in place."""
    if not isinstance(value, Tensor):
        return value
    return value.detach().as_strided(value.shape, value.stride(), value.storage_offset())


class _CumulativeProduct(torch.autograd.Function):
    """A cumulative product of numbers other than zero; torch's own asks where there are zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        out = x.cumprod(dim)
        ctx.save_for_backward(x, out)
        ctx.dim = dim
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        x, out = ctx.saved_tensors
        return (slope * out).flip(ctx.dim).cumsum(ctx.dim).flip(ctx.dim) / x, None


class _Simpler(TorchFunctionMode):
    """Call forms whose derivatives have no branches."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.cumprod, Tensor.cumprod) and not kwargs.get("dtype"):
            dim = kwargs["dim"] if "dim" in kwargs else args[1]
            return _CumulativeProduct.apply(args[0], dim)
        return func(*args, **kwargs)


def record(
    stages: Sequence[Callable[..., Tensor]], inputs: Sequence[Tensor], known: Collection[Any]
) -> Trace:
    """Run functions one after another and record what they do to their inputs.

    Parameters
    ----------
    stages : sequence of callable
        Each takes the inputs and the outputs of the stages before it.
    inputs : sequence of Tensor
        Flat tensors.
    known : collection of OpOverloadPacket
        Operations to record as they are.

    Raises
    ------
    Untraceable
        If a stage asks for the values of its inputs.
    """
    outputs: list[Tensor] = []
    ends = []
    with _Simpler(), Recorder(inputs, known) as recorder:
        for stage in stages:
            outputs.append(stage(*inputs, *outputs))
            ends.append(len(recorder.steps))
    return Trace(list(inputs), recorder.steps, outputs, ends, recorder.snapshots)


def replay(trace: Trace, stage: int) -> Callable[..., Tensor]:
    """Return a function that repeats a trace up to a stage on other inputs, in torch."""
    steps, output = trace.steps[: trace.ends[stage]], trace.outputs[stage]

    def repeated(*inputs: Tensor) -> Tensor:
        pairs = zip(trace.inputs, inputs, strict=False)
        held = {storage_of(before): now.clone() for before, now in pairs}
        held |= {k: v.clone() for k, v in trace.snapshots.items()}

        def current(value: Any) -> Any:
            if not isinstance(value, Tensor) or storage_of(value) not in held:
                return value
            where = value.shape, value.stride(), value.storage_offset()
            return held[storage_of(value)].as_strided(*where)

        with torch.no_grad():
            for step in steps:
                results = step.func(*tree_map(current, step.args), **tree_map(current, step.kwargs))
                for before, now in zip(step.outputs, tensors_in(results), strict=True):
                    held.setdefault(storage_of(before), now)
            found: Tensor = current(output)
            return found

    return repeated
