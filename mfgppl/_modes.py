"""Modes of torch and Pyro that are global: our own within our calls, the caller's after them.

Gradients, inference and the default device are modes of a thread. The default type, torch's
generator, Pyro's handlers and its checks are modes of the process, which threads change in turn.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import pyro
import torch
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor


class _Before(NamedTuple):
    """Modes of the process when a thread took its turn."""

    thread: int
    dtype: torch.dtype
    validates: bool
    handlers: list[Any]


_turn = threading.RLock()
_before: _Before | None = None


@contextmanager
def own_modes(*, gradients: bool = False) -> Iterator[None]:
    """Leave inference mode and default devices within the block.

    Gradients are on if `gradients`, else as the caller has them. A tensor made in inference mode
    would fail wherever it is differentiated later, and one on a default device beside ours.
    """
    on = gradients or torch.is_grad_enabled()
    inside = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    moved = torch.get_default_device().type != "cpu"
    with inside, torch.device("cpu") if moved else nullcontext(), torch.set_grad_enabled(on):
        yield


@contextmanager
def own_turn() -> Iterator[None]:
    """Keep other threads from changing the modes of the process within the block."""
    global _before
    with _turn:
        outermost = _before is None
        if outermost:
            validates = pyro.distributions.is_validation_enabled()
            _before = _Before(
                threading.get_ident(), torch.get_default_dtype(), validates, list(_PYRO_STACK)
            )
        try:
            yield
        finally:
            if outermost:
                _before = None


@contextmanager
def double_precision() -> Iterator[None]:
    """Make new tensors normal ones of float64 within the block, one thread at a time."""
    with own_modes(), own_turn():
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's generator of the CPU as if freshly seeded within the block.

    `torch.manual_seed` seeds those of graphics cards too, which are the caller's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def own_generator(state: Tensor) -> Iterator[None]:
    """Let torch draw from a state of one's own, which moves on; other threads wait meanwhile."""
    with own_turn():
        outside = torch.get_rng_state()
        torch.set_rng_state(state)
        try:
            yield
        finally:
            state.copy_(torch.get_rng_state())
            torch.set_rng_state(outside)


def _after_fork() -> None:
    """Take back, in a forked process, what a thread that is not there had changed."""
    global _turn, _before
    if _before is not None and _before.thread != threading.get_ident():
        torch.set_default_dtype(_before.dtype)
        pyro.enable_validation(_before.validates)
        _PYRO_STACK[:] = _before.handlers
    _turn, _before = threading.RLock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
