"""Strided views of the tape machine's buffer, and the loops over several of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mfgppl._kernels.tape import N_DIMS

SHORT_LINE = 16  # entries of an innermost loop below which a longer one takes its place


class Unlowered(Exception):
    """What has no instruction."""


class Operand(NamedTuple):
    """A strided view of the buffer.

    Attributes
    ----------
    place : int
        Its first entry.
    shape, strides : tuple of int
        As a tensor has them, in entries.
    """

    place: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def to(self, shape: Sequence[int]) -> "Operand":
        """Broadcast to a shape."""
        missing = len(shape) - len(self.shape)
        sizes = (1,) * missing + self.shape
        strides = (0,) * missing + self.strides
        stretched = [0 if n == 1 else d for n, d in zip(sizes, strides, strict=True)]
        return Operand(self.place, tuple(shape), tuple(stretched))

    def unsqueeze(self, axis: int) -> "Operand":
        """Insert an axis of length one."""
        shape = (*self.shape[:axis], 1, *self.shape[axis:])
        return Operand(self.place, shape, (*self.strides[:axis], 0, *self.strides[axis:]))

    def last(self, axis: int) -> "Operand":
        """Move an axis to the end."""
        order = [k for k in range(len(self.shape)) if k != axis] + [axis]
        shape, strides = ([v[k] for k in order] for v in (self.shape, self.strides))
        return Operand(self.place, tuple(shape), tuple(strides))


def packed_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of entries that lie one after another."""
    return tuple(int(np.prod(shape[k + 1 :], dtype=int)) for k in range(len(shape)))


def loop_axes(
    shape: Sequence[int], strides: Sequence[Sequence[int]], *, in_line: bool
) -> list[tuple[int, list[int]]]:
    """Return the axes of a loop nest, (length, stride of each view), as the machine takes them.

    Axes of length one are dropped, axes that run on are joined, and the rest is padded in front.
    """
    axes = [(n, [s[k] for s in strides]) for k, n in enumerate(shape)]
    last = [axes.pop()] if in_line else []
    # neighbours innermost, whatever the order of the axes: a stable sort by their strides
    axes.sort(key=lambda axis: -sum(map(abs, axis[1])))
    joined: list[tuple[int, list[int]]] = []
    for n, steps in axes:
        if n == 1:
            continue
        if joined and joined[-1][1] == [n * d for d in steps]:
            joined[-1] = (joined[-1][0] * n, steps)
        else:
            joined.append((n, steps))
    if joined and not in_line and joined[-1][0] < SHORT_LINE:
        longest = max(range(len(joined)), key=lambda k: joined[k][0])
        joined.append(joined.pop(longest))
    joined += last
    if len(joined) > N_DIMS:
        raise Unlowered(f"{len(joined)} axes")
    return [(1, [0] * len(strides))] * (N_DIMS - len(joined)) + joined
