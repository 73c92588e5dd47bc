"""The source of a reward program, with the values that it takes from outside itself."""

import dis
import inspect
import tokenize
from collections.abc import Callable, Iterator
from numbers import Number
from types import CodeType, FunctionType
from typing import Any

import numpy as np
from torch import Tensor

LARGEST_ARRAY = 12  # entries of an array that is written out
LONGEST_TEXT = 120  # letters of a text that is written out


def reward_source(program: Callable[..., Any]) -> str:
    """Return the source of a reward program where Python knows it, else its name.

    Below it, as comments, stand the numbers, texts and small arrays that the program reads from
    outside itself.
    """
    if hasattr(program, "source"):
        return str(program.source)
    values = [f"# {name} = {value}" for name, value in sorted(values_read(program).items())]
    return (
        "\n".join([_own_source(program).rstrip("\n"), *values]) if values else _own_source(program)
    )


def _own_source(program: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(program)
    except (OSError, TypeError, SyntaxError, tokenize.TokenError):
        return getattr(program, "__doc__", None) or repr(program)


def values_read(program: Callable[..., Any]) -> dict[str, str]:
    """Return as text the small values that a function reads from a closure or its module."""
    function = inspect.unwrap(getattr(program, "__func__", program))
    if not isinstance(function, FunctionType):
        return {}
    asked = {
        step.argval
        for code in _with_inner(function.__code__)
        for step in dis.get_instructions(code)
        if step.opname == "LOAD_GLOBAL"
    }
    read = {name: function.__globals__.get(name) for name in asked}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            read[name] = cell.cell_contents
        except ValueError:  # has no value yet
            continue
    written = {name: _written(value) for name, value in read.items()}
    return {name: text for name, text in written.items() if text is not None}


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function and of those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)


def _written(value: Any) -> str | None:
    """Return a number, a short text or a small array as text of one line, another value as None."""
    if isinstance(value, str):
        return repr(value) if len(value) <= LONGEST_TEXT else None
    if isinstance(value, Tensor):
        small = value.numel() <= LARGEST_ARRAY and not value.is_sparse
        return repr(value.tolist()) if small else None
    if isinstance(value, (np.ndarray, np.generic)):
        small = value.size <= LARGEST_ARRAY and value.dtype.kind in "biufc"
        return repr(value.tolist()) if small else None
    return repr(value) if isinstance(value, Number) else None
