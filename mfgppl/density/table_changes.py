"""How the reward changes with its parameters, in one direction after another."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyro
import torch

from mfgppl._compiler.forward_mode import load_rules
from mfgppl._compiler.lowering import lower
from mfgppl._compiler.operations import KNOWN
from mfgppl._compiler.tracing import pruned, record
from mfgppl._keep import keep
from mfgppl._kernels import bridge
from mfgppl.equilibrium.recording import NOT_RECORDED, pushed_forward
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import double_precision

AGREEMENT = 1e-9  # relative to the largest entry, of what is recorded with the program itself
FEW = 3  # directions that are not worth a recording

# flat constrained parameters (P,) and a direction (P,) to the change of the flat reward
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


def table_changes(
    program: Program, values: np.ndarray, directions: Iterable[np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield the change of the flat reward (T * S * A,) in each direction.

    Parameters
    ----------
    program : Program
        The reward program.
    values : ndarray, shape (P,)
        Flat constrained parameters.
    directions : iterable of ndarray, shape (P,)
        Changes of them.
    """
    load_rules()
    along = list(directions)
    if not along:
        return
    change = None
    if len(along) > FEW:
        change = keep(program, "recorded_change", lambda: _recorded(program, values))
    first = _by_program(program, values, along[0])
    if change is not None and not _close(first, change(values, along[0])):
        change = None
    yield first
    for direction in along[1:]:
        yield (_by_program(program, values, direction) if change is None
               else change(values, direction))  # fmt: skip


def _by_program(program: Program, values: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return a change by running the program."""
    at, along = (torch.from_numpy(np.array(v, dtype=float)) for v in (values, direction))
    with double_precision(), pyro.validation_enabled(False):
        found = torch.func.jvp(program.flat_core, (at,), (along,))[1]
    return np.asarray(found.detach().nan_to_num(0.0, 0.0, 0.0).numpy())


def _recorded(program: Program, values: np.ndarray) -> Change | None:
    """Return the same on the tape machine; None where it cannot be recorded."""
    size = len(values)

    def change(both: torch.Tensor) -> torch.Tensor:
        return pushed_forward(program.flat_core, both[:size], both[size:]).contiguous()

    both = torch.from_numpy(np.concatenate([values, np.ones(size)]))
    try:
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            tape = lower(pruned(record([change], [both], KNOWN)))
    except NOT_RECORDED:
        return None

    def played(at: np.ndarray, direction: np.ndarray) -> np.ndarray:
        found = bridge.each_on_tape(tape, np.concatenate([at, direction])[None])[0]
        return np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)

    return played


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    size = max(float(np.abs(one).max(initial=0.0)), 1e-300)
    return bool(np.abs(one - other).max(initial=0.0) <= AGREEMENT * size)
