"""From recorded tensor operations to instructions of the tape machine.

Each storage becomes a stretch of one flat buffer, so that views cost nothing. An operation that
only moves entries is run once, on their places. A function with one that is not listed stays in
torch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfgppl._compiler.operands import Operand, Unlowered, loop_axes, packed_strides
from mfgppl._compiler.operations import COMMUTES, ELEMENTWISE, IN_PLACE, KNOWN, MOVES, SWAPPED
from mfgppl._compiler.shortening import shortened
from mfgppl._compiler.tracing import Step, Trace, aten, entries_of, flat, storage_of, useful_steps
from mfgppl._kernels import tape
from mfgppl._kernels.tape import N_DIMS, ZERO, Op, Tape

LONGEST_LIST = 2**24  # places of a gather worth keeping
LARGE_BLOCK = 64  # entries from which a copy beats a list of places


def lower(trace: Trace) -> Tape:
    """Return a trace of flat inputs and contiguous outputs as a tape.

    Raises
    ------
    Unlowered
        If an operation has no instruction.
    """
    return shortened(_Lowering(trace).tape())


class _Lowering:
    """Lays out the buffer and writes instructions."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.rows: list[list[int]] = []
        self.lists: list[np.ndarray] = []
        self.n_places = 0
        self.size = 1  # place 0 holds 0.0
        self.constants: list[tuple[int, np.ndarray]] = []
        self.stretch: dict[int, int] = {}
        self.numbers: dict[float, Operand] = {}
        self.free: dict[int, list[int]] = {}

    def tape(self) -> Tape:
        """Lower all steps."""
        for tensor in self.trace.inputs:
            self._place(tensor)
        last = self._last_uses()
        n_rows = [0]
        useful = useful_steps(self.trace)
        for k, step in enumerate(self.trace.steps):
            if not useful[k]:
                n_rows.append(len(self.rows))
                continue
            for key, content in self.trace.snapshots.items():
                if key not in self.stretch and key in map(storage_of, step.inputs):
                    self._restore(key, content)
            self._step(step)
            n_rows.append(len(self.rows))
            for key, size in last.get(k, []):
                if key in self.stretch:
                    self.free.setdefault(size, []).append(self.stretch[key])
        inputs, outputs = map(self._slices, (self.trace.inputs, self.trace.outputs))
        buffer = np.zeros(self.size)
        for place, values in self.constants:
            buffer[place : place + values.size] = values
        code = np.array(self.rows, dtype=np.int64).reshape(-1, tape.WIDTH)
        places = np.concatenate([np.zeros(0, np.int64), *self.lists])
        ends = [n_rows[n] for n in self.trace.ends]
        return Tape(code, places, buffer, inputs, outputs, ends)

    def _slices(self, tensors: Sequence[Tensor]) -> list[slice]:
        starts = [self._operand(t).place for t in tensors]
        return [slice(n, n + t.numel()) for n, t in zip(starts, tensors, strict=True)]

    def _last_uses(self) -> dict[int, list[tuple[int, int]]]:
        """Return, by step, the storages of intermediate results that nothing reads later."""
        ends = (*self.trace.inputs, *self.trace.outputs)
        keep = {storage_of(t) for t in ends} | set(self.trace.snapshots)
        last: dict[int, int] = {}
        sizes: dict[int, int] = {}
        made: set[int] = set()
        for k, step in enumerate(self.trace.steps):
            for t in (*step.inputs, *step.outputs):
                key = storage_of(t)
                last[key], sizes[key] = k, entries_of(t)
            made.update(map(storage_of, step.outputs))
        by_step: dict[int, list[tuple[int, int]]] = {}
        for key in made - keep:
            by_step.setdefault(last[key], []).append((key, sizes[key]))
        return by_step

    def _place(self, tensor: Tensor) -> int:
        """Return where a tensor's storage starts, giving it a stretch at first."""
        key = storage_of(tensor)
        if key not in self.stretch:
            self.stretch[key] = self._room(entries_of(tensor))
        return self.stretch[key]

    def _room(self, size: int) -> int:
        if self.free.get(size):
            return self.free[size].pop()
        place, self.size = self.size, self.size + size
        return place

    def _constant(self, values: np.ndarray) -> int:
        place, self.size = self.size, self.size + values.size
        self.constants.append((place, values))
        return place

    def _restore(self, key: int, content: Tensor) -> None:
        """Write a constant storage anew, since the function goes on to change it."""
        shape = tuple(content.shape)
        source = Operand(self._constant(_numbers(content)), shape, (1,))
        self.stretch[key] = self._room(content.numel())
        self._write(Op.COPY, Operand(self.stretch[key], shape, (1,)), source)

    def _operand(self, value: Any) -> Operand:
        """Return a tensor or a number as a view of the buffer."""
        if not isinstance(value, Tensor):
            number = float(value)
            if number not in self.numbers:
                self.numbers[number] = Operand(self._constant(np.array([number])), (), ())
            return self.numbers[number]
        key = storage_of(value)
        if key not in self.stretch:
            self.stretch[key] = self._constant(_numbers(flat(value)))
        place = self.stretch[key] + int(value.storage_offset())
        return Operand(place, tuple(value.shape), tuple(value.stride()))

    def _step(self, step: Step) -> None:
        packet = step.func.overloadpacket
        if packet is aten.zero_:
            return self._write(Op.COPY, self._operand(step.args[0]), self._operand(0.0))
        if packet in IN_PLACE:
            return self._compute(IN_PLACE[packet], step, step.args[0])
        if not step.outputs:
            raise Unlowered(str(step.func))
        out = step.outputs[0]
        if len(step.outputs) == 1 and packet in KNOWN and storage_of(out) not in self.stretch:
            self._place(out)
            return self._compute(packet, step, out)
        if all(storage_of(t) in self.stretch for t in step.outputs):
            return None  # views of what is there
        raise Unlowered(str(step.func))

    def _compute(self, packet: Any, step: Step, out: Tensor) -> None:
        args, kwargs = step.args, step.kwargs
        if packet in (aten.copy, aten.fill):
            return self._entries(Op.COPY, out, args[1:2])
        if packet in (aten.cat, aten.stack, aten.repeat) and self._in_blocks(step, out):
            return None
        if packet in MOVES:
            return self._move(step, out)
        if packet in (aten._to_copy, aten.clone, aten.contiguous):
            if out.dtype.is_floating_point or args[0].dtype == out.dtype:
                return self._entries(Op.COPY, out, args[:1])
            raise Unlowered(str(step.func))
        if packet is aten.div and kwargs.get("rounding_mode") is not None:
            raise Unlowered(str(step.func))
        if packet in (aten.add, aten.sub) and kwargs.get("alpha", 1) != 1:
            return self._scaled(ELEMENTWISE[packet], out, args[0], args[1], kwargs["alpha"])
        if packet in SWAPPED:
            return self._entries(SWAPPED[packet], out, (args[1], args[0]))
        if packet is aten.relu:
            return self._entries(Op.MAXIMUM, out, (args[0], 0.0))
        if packet is aten.pow and isinstance(args[1], (int, float)) and args[1] == 2:
            return self._entries(Op.MULTIPLY, out, (args[0], args[0]))
        if packet in ELEMENTWISE:
            return self._entries(ELEMENTWISE[packet], out, args)
        return OTHER_STEPS[packet](self, out, *args, **kwargs)

    def _entries(self, op: Op, out: Tensor, args: Sequence[Any]) -> None:
        self._write(op, self._operand(out), *map(self._operand, args))

    def _scaled(self, op: Op, out: Tensor, a: Any, b: Any, alpha: float) -> None:
        """Write `a + alpha * b`, or the difference."""
        shape = self._operand(b).shape
        scaled = Operand(self._room(int(np.prod(shape, dtype=int))), shape, packed_strides(shape))
        self._write(Op.MULTIPLY, scaled, self._operand(b), self._operand(alpha))
        self._write(op, self._operand(out), self._operand(a), scaled)

    def _write(self, op: Op, out: Operand, *operands: Operand) -> None:
        """Append an instruction over the shape of `out`."""
        views = [o.to(out.shape) for o in operands]
        if op in COMMUTES and views[0].strides != views[1].strides:
            # the machine looks for a number in the second place
            views.sort(key=lambda view: -sum(map(abs, view.strides)))
        self._append(op, out, *views)

    def _gather(self, op: Op, out: Operand, start: float, *operands: Operand) -> None:
        """Set `out`, whose strides are zero along the axes gathered over, and add to it."""
        kept = [1 if d == 0 else n for n, d in zip(out.shape, out.strides, strict=True)]
        self._write(Op.COPY, Operand(out.place, tuple(kept), out.strides), self._operand(start))
        self._append(op, out, *(o.to(out.shape) for o in operands))

    def _append(self, op: Op, *views: Operand, in_line: bool = False) -> None:
        """Append a row for views of one shape; `in_line` keeps the last axis for the machine."""
        shape = views[0].shape
        if 0 in shape:
            return
        four = [*views, *[Operand(ZERO, shape, (0,) * len(shape))] * (4 - len(views))]
        axes = loop_axes(shape, [v.strides for v in four], in_line=in_line)
        sizes = [n for n, _ in axes]
        strides = [steps[k] for k in range(4) for _, steps in axes]
        self.rows.append([int(op), *(v.place for v in four), *sizes, *strides])

    def _in_blocks(self, step: Step, out: Tensor) -> bool:
        """Copy what is put side by side or repeated as whole blocks, if there are few and large."""
        packet, first = step.func.overloadpacket, step.args[0]
        if not out.is_floating_point():
            return False
        if packet is aten.repeat:
            ones = (1,) * (out.ndim - first.ndim)
            sizes, strides = (*ones, *first.shape), (*ones, *first.stride())
            axes = [pair for n, size in zip(step.args[1], sizes, strict=True) for pair in (n, size)]
            steps = [pair for stride in strides for pair in (0, stride)]
            source = first.as_strided(axes, steps, first.storage_offset())
            pairs = [(out.view(axes), source)]
        else:
            dim = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim", 0)
            if packet is aten.stack:
                blocks = out.unbind(dim)
            else:
                blocks = out.split([t.shape[dim] for t in first], dim)
            pairs = list(zip(blocks, first, strict=True))
        if out.numel() < LARGE_BLOCK * len(pairs):
            return False
        try:
            for block, source in pairs:
                self._entries(Op.COPY, block, (source,))
        except Unlowered:  # too many axes: by a list of places
            return False
        return True

    def _move(self, step: Step, out: Tensor) -> None:
        """Run a step that moves entries on their places, and keep the list."""

        def places(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            operand = self._operand(value)
            size = operand.place + entries_of(value)
            return torch.arange(size).as_strided(value.shape, value.stride(), operand.place)

        def moved(value: Any) -> Any:
            return [places(v) for v in value] if isinstance(value, (list, tuple)) else places(value)

        if out.numel() > LONGEST_LIST:
            raise Unlowered(f"{step.func} of {out.numel()} entries")
        followed = [t for t in step.inputs if not t.is_floating_point()]
        if any(storage_of(t) in self.stretch for t in followed):
            raise Unlowered(f"{step.func} at places that depend on parameters")
        args = list(map(moved, step.args))
        kwargs = {k: v for k, v in step.kwargs.items() if k not in ("dtype", "layout", "device")}
        if step.func.overloadpacket is aten.constant_pad_nd and len(args) == 3:
            args[2] = self._operand(args[2]).place  # the place of what it pads with
        found = step.func(*args, **kwargs)
        if found.dtype != torch.int64:
            raise Unlowered(str(step.func))
        ordered = torch.empty_strided(out.shape, out.stride(), dtype=torch.int64).copy_(found)
        self._listed(Op.GATHER, self._place(out), ZERO, flat(ordered).numpy())

    def _listed(self, op: Op, out: int, a: int, places: np.ndarray) -> None:
        self.lists.append(places)
        sizes, strides = [1] * (N_DIMS - 1) + [places.size], [0] * (4 * N_DIMS)
        self.rows.append([int(op), out, a, self.n_places, ZERO, *sizes, *strides])
        self.n_places += places.size

    def _sum(
        self, out: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any
    ) -> None:
        self._reduce(Op.SUM, 0.0, out, x, dim, keepdim)

    def _mean(
        self, out: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any
    ) -> None:
        self._reduce(Op.SUM, 0.0, out, x, dim, keepdim)
        self._entries(Op.DIVIDE, out, (out, x.numel() / out.numel()))

    def _amax(self, out: Tensor, x: Tensor, dim: Any = (), keepdim: bool = False) -> None:
        self._reduce(Op.LARGEST, -np.inf, out, x, dim, keepdim)

    def _amin(self, out: Tensor, x: Tensor, dim: Any = (), keepdim: bool = False) -> None:
        self._reduce(Op.SMALLEST, np.inf, out, x, dim, keepdim)

    def _reduce(
        self, op: Op, start: float, out: Tensor, x: Tensor, dim: Any, keepdim: bool
    ) -> None:
        dims = [dim] if isinstance(dim, int) else list(dim or range(x.ndim))
        gone = {d % x.ndim for d in dims} if x.ndim else set()
        kept = iter(zip(out.shape, out.stride(), strict=True))
        strides = []
        for axis in range(x.ndim):
            if axis in gone:
                strides.append(0)
                if keepdim:
                    next(kept)
            else:
                strides.append(next(kept)[1])
        # an axis of length one that stays has a stride, but nothing is gathered along it
        target = Operand(self._operand(out).place, tuple(x.shape), tuple(strides))
        self._gather(op, target, start, self._operand(x))

    def _cumsum(self, out: Tensor, x: Tensor, dim: int, **_: Any) -> None:
        self._run_along(Op.RUNNING_SUM, out, x, dim)

    def _cumprod(self, out: Tensor, x: Tensor, dim: int, **_: Any) -> None:
        self._run_along(Op.RUNNING_PRODUCT, out, x, dim)

    def _run_along(self, op: Op, out: Tensor, x: Tensor, dim: int) -> None:
        if x.ndim == 0:
            return self._entries(Op.COPY, out, (x,))
        target, source = (self._operand(t).last(dim % x.ndim) for t in (out, x))
        return self._append(op, target, source, in_line=True)

    def _product(self, out: Tensor, a: Tensor, b: Tensor) -> None:
        """Multiply matrices, vectors or batches of matrices."""
        left, right, target = map(self._operand, (a, b, out))
        if b.ndim == 1:
            right = right.unsqueeze(1)
            target = target.unsqueeze(len(target.shape))
        if a.ndim == 1:
            left, target = left.unsqueeze(0), target.unsqueeze(0)
        # (..., i, j, k): rows, what is summed over, columns
        end = len(left.shape)
        shape = (*left.shape, right.shape[-1])
        out_view = target.unsqueeze(end - 1)
        views = [out_view, left.unsqueeze(end), right.unsqueeze(end - 2)]
        views = [v.to(shape) for v in views]
        self._gather(Op.DOT, views[0], 0.0, views[1], views[2])

    def _addmm(self, out: Tensor, c: Tensor, a: Tensor, b: Tensor, **kwargs: Any) -> None:
        if kwargs:
            raise Unlowered("addmm with weights")
        self._product(out, a, b)
        self._entries(Op.ADD, out, (out, c))

    def _clamp(self, out: Tensor, x: Tensor, low: Any = None, high: Any = None) -> None:
        for op, bound in ((Op.MAXIMUM, low), (Op.MINIMUM, high)):
            if bound is not None:
                self._entries(op, out, (x, bound))
                x = out

    def _masked_fill(self, out: Tensor, x: Tensor, mask: Tensor, value: Any) -> None:
        self._entries(Op.WHERE, out, (mask, value, x))

    def _index_put(
        self, out: Tensor, x: Tensor, where: Any, values: Tensor, accumulate: bool = False
    ) -> None:
        op = Op.SCATTER_ADD if accumulate else Op.SCATTER
        self._put(op, out, x, [t for t in where if t is not None], values, aten.index, where)

    def _scatter_add(self, out: Tensor, x: Tensor, dim: int, index: Tensor, values: Tensor) -> None:
        self._put(Op.SCATTER_ADD, out, x, [index], values, aten.gather, dim, index)

    def _index_add(
        self, out: Tensor, x: Tensor, dim: int, index: Tensor, values: Tensor, **_: Any
    ) -> None:
        self._put(Op.SCATTER_ADD, out, x, [index], values, aten.index_select, dim, index)

    def _put(
        self, op: Op, out: Tensor, x: Tensor, index: Sequence[Tensor], values: Tensor,
        find: Any, *args: Any,
    ) -> None:  # fmt: skip
        """Write a copy of `x` with values put at the places that `find` picks of it."""
        if storage_of(out) != storage_of(x):
            self._entries(Op.COPY, out, (x,))
        if any(storage_of(t) in self.stretch for t in index):
            raise Unlowered("entries put where parameters say")
        operand = self._operand(out)
        size = operand.place + entries_of(out)
        target = find(torch.arange(size).as_strided(out.shape, out.stride(), operand.place), *args)
        spread = self._operand(values).to(tuple(target.shape))
        source = Operand(self._room(target.numel()), spread.shape, packed_strides(spread.shape))
        self._write(Op.COPY, source, spread)
        self._listed(op, ZERO, source.place, target.reshape(-1).numpy())

    def _zeros(self, out: Tensor, *_: Any, **__: Any) -> None:
        self._entries(Op.COPY, out, (0.0,))

    def _fill(self, out: Tensor, x: Tensor, value: float = 1.0, **_: Any) -> None:
        self._entries(Op.COPY, out, (value,))


OTHER_STEPS: dict[Any, Callable[..., None]] = {
    aten.sum: _Lowering._sum, aten.mean: _Lowering._mean, aten.amax: _Lowering._amax,
    aten.amin: _Lowering._amin, aten.scatter_add: _Lowering._scatter_add,
    aten.index_add: _Lowering._index_add,
    aten.cumsum: _Lowering._cumsum, aten.cumprod: _Lowering._cumprod, aten.mm: _Lowering._product,
    aten.mv: _Lowering._product, aten.bmm: _Lowering._product, aten.dot: _Lowering._product,
    aten.addmm: _Lowering._addmm, aten.clamp: _Lowering._clamp,
    aten.masked_fill: _Lowering._masked_fill, aten.index_put: _Lowering._index_put,
    aten._new_zeros_with_same_feature_meta: _Lowering._zeros,
    aten.ones_like: _Lowering._fill, aten.full_like: _Lowering._fill,
}  # fmt: skip


def _numbers(content: Tensor) -> np.ndarray:
    return content.detach().to(torch.float64).numpy().copy()
