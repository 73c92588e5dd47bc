"""A record of the tensor operations that a function runs, with autograd's among them.

Tensors are followed by their storage, so that views and operations in place need no special case:
an operand is a storage, an offset and strides. Calls that hand values to Python or NumPy are
watched too, since nothing that happens there can be recorded.
"""

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# of operations whose result, or its shape, is a matter of values
BY_VALUE = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
# calls that copy values out of tensors, into numbers, arrays or tensors of their own
READS = frozenset(
    (
        "item", "tolist", "numpy", "__float__", "__int__", "__bool__", "__index__", "__complex__",
        "__array__", "__dlpack__", "__contains__", "__deepcopy__", "__reduce_ex__", "__format__",
        "__repr__", "data_ptr", "storage", "untyped_storage", "apply_", "map_", "map2_", "tensor",
    )
)  # fmt: skip
COPIES = {"as_tensor": 0, "asarray": 0, "new_tensor": 1, "new": 1}  # and the place of their data


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
    inputs, outputs : list of Tensor
        The tensors among its arguments, and what it returned, views included.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]


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
    with torch._C.DisableTorchFunction():  # this look at it is none of the function's
        return int(tensor.untyped_storage()._cdata)


def entries_of(tensor: Tensor) -> int:
    """Return how many entries of a tensor's type its whole storage holds."""
    with torch._C.DisableTorchFunction():
        return int(tensor.untyped_storage().nbytes() // tensor.element_size())


def flat(tensor: Tensor) -> Tensor:
    """Return the whole storage of a tensor as a flat tensor of its type."""
    return tensor.detach().as_strided((entries_of(tensor),), (1,), 0)


def tensors_in(values: Any) -> list[Tensor]:
    """Return the tensors in nested arguments."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, (tuple, list)):
        return []
    return [tensor for value in values for tensor in tensors_in(value)]


def mapped(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    """Return nested arguments with a function of each tensor in its place."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, dict):
        return {k: mapped(function, v) for k, v in values.items()}
    if isinstance(values, (tuple, list)):
        found = [mapped(function, v) for v in values]
        return found if isinstance(values, list) else tuple(found)
    return values


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
        self.lost: str | None = None  # why what follows is no record
        self._followed = {storage_of(t) for t in inputs}
        self._alive: list[Any] = list(inputs)  # a freed storage's place may be given again

    def follows(self, tensor: Tensor) -> bool:
        """Return whether a tensor depends on the inputs, or shares memory with one that does."""
        return tensor.layout == torch.strided and storage_of(tensor) in self._followed

    def refuse(self, reason: str) -> NoReturn:
        """Raise that the function cannot be followed, and keep it in mind if it goes on."""
        self.lost = reason
        raise Untraceable(reason)

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
        if packet is aten.index:
            by_value = any(t.dtype == torch.bool for t in met)
        else:
            by_value = not BY_VALUE.isdisjoint(func.tags)
        if by_value:
            self.refuse(f"{packet} needs the value of a parameter")
        if packet not in self.known and func in decomposition_table and not _aliases(func):
            with self:
                result = decomposition_table[func](*args, **kwargs)
            if result is not NotImplemented:
                return result
        written = written_by(func, args, kwargs)
        for tensor in written:
            if storage_of(tensor) not in self._followed:
                self.snapshots[storage_of(tensor)] = flat(tensor).clone()
        seen = mapped(_as_it_is, tuple(args)), mapped(_as_it_is, kwargs)
        result = func(*args, **kwargs)
        outputs = [_as_it_is(t) for t in tensors_in(result)]
        self._followed.update(storage_of(t) for t in (*outputs, *written))
        self.steps.append(Step(func, *seen, tensors_in(seen), outputs))
        return result


def _as_it_is(value: Tensor) -> Tensor:
    """Return a view that keeps its shape where the tensor is reshaped in place."""
    return value.detach().as_strided(value.shape, value.stride(), value.storage_offset())


def read_by(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors whose values a call copies out of them."""
    name = getattr(func, "__name__", "")
    if name in READS:
        return tensors_in((args, kwargs))
    if name not in COPIES:
        return []
    place = COPIES[name]
    data = args[place] if len(args) > place else next(iter(kwargs.values()), None)
    # from a tensor, these two return itself or a copy that can be followed
    return [] if place == 0 and isinstance(data, Tensor) else tensors_in(data)


class GradientWatch(TorchFunctionMode):
    """Note the calls by which tensors that need gradients go on without them.

    Attributes
    ----------
    calls : list of str
        Names of the calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("detach", "detach_") or func == _DATA or not torch.is_grad_enabled():
            read = tensors_in((args, kwargs))
        else:
            read = read_by(func, args, kwargs)
        if any(t.requires_grad for t in read):
            self.calls.append("data" if func == _DATA else name)
        return func(*args, **kwargs)


_DATA = Tensor.data.__get__  # type: ignore[attr-defined]


class _Watch(TorchFunctionMode):
    """Refuse calls that read what a recorder follows, and call forms without branches."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(map(self._recorder.follows, read_by(func, args, kwargs))):
            self._recorder.refuse(f"`{func.__name__}` needs the value of a parameter")
        if func in (torch.cumprod, Tensor.cumprod) and not kwargs.get("dtype"):
            dim = kwargs["dim"] if "dim" in kwargs else args[1]
            return _cumulative_product(args[0], dim)
        return func(*args, **kwargs)


def _cumulative_product(x: Tensor, dim: int) -> Tensor:
    """Return products along an axis, one after another.

    The derivative of torch's own branches where there are zeros, or divides by them.
    """
    if not x.is_floating_point() or x.ndim == 0 or x.shape[dim] == 0:
        return x.cumprod(dim)
    return torch.stack(list(itertools.accumulate(x.unbind(dim), torch.mul)), dim)


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
    recorder = Recorder(inputs, known)
    with _Watch(recorder), recorder:
        for stage in stages:
            outputs.append(stage(*inputs, *outputs))
            ends.append(len(recorder.steps))
    if recorder.lost is not None:
        raise Untraceable(recorder.lost)
    return Trace(list(inputs), recorder.steps, outputs, ends, recorder.snapshots)


def useful_steps(trace: Trace) -> list[bool]:
    """Return which steps an output depends on."""
    needed = {storage_of(t) for t in trace.outputs}
    useful = []
    for step in reversed(trace.steps):
        written = written_by(step.func, step.args, step.kwargs)
        useful.append(any(storage_of(t) in needed for t in (*step.outputs, *written)))
        if useful[-1]:
            needed.update(storage_of(t) for t in step.inputs)
    return useful[::-1]


def pruned(trace: Trace) -> Trace:
    """Return a trace of one stage without the steps that its output does not depend on."""
    steps = [step for step, keep in zip(trace.steps, useful_steps(trace), strict=True) if keep]
    return trace._replace(steps=steps, ends=[len(steps)])


def replay(trace: Trace, stage: int) -> Callable[..., Tensor]:
    """Return a function that repeats a trace up to a stage on other inputs, in torch."""
    steps, output = trace.steps[: trace.ends[stage]], trace.outputs[stage]

    def repeated(*inputs: Tensor) -> Tensor:
        pairs = zip(trace.inputs, inputs, strict=False)
        held = {storage_of(before): now.clone() for before, now in pairs}
        held |= {k: v.clone() for k, v in trace.snapshots.items()}

        def current(value: Tensor) -> Tensor:
            if storage_of(value) not in held:
                return value
            where = value.shape, value.stride(), value.storage_offset()
            return held[storage_of(value)].as_strided(*where)

        with torch.no_grad():
            for step in steps:
                results = step.func(*mapped(current, step.args), **mapped(current, step.kwargs))
                for before, now in zip(step.outputs, tensors_in(results), strict=True):
                    held.setdefault(storage_of(before), now)
            found: Tensor = current(output)
            return found

    return repeated
