"""How kernels call kernels: one form for each type of arguments, taken in or called by address.

A compiled kernel takes in the code of the kernels that it calls, and the compiler works on all of
it again, at each storey. A kernel apart is called as it stands: those that call it know it by a
symbol, which is to be defined before their code is loaded.
"""

import copy
import hashlib
import re
from typing import Any

from llvmlite import binding
from numba import types
from numba.core.registry import CPUDispatcher

PREFIX = "mfgppl_apart_"
CALLED = re.compile(rf"^declare .*@({PREFIX}\w+)\(", re.MULTILINE)
KERNELS: dict[str, Any] = {}  # those apart, by module and name
DEFINED: dict[str, tuple[str, Any]] = {}  # symbols of this process: which kernel, and its types


class Kernel(CPUDispatcher):
    """A compiled function that others call; a number in their code makes no form of its own.

    Parameters
    ----------
    function : callable
        What is compiled.
    options : dict
        Of numba.
    inner : bool
        Whether kernels alone call it, so that it needs no way in from Python.
    """

    def __init__(self, function: Any, options: dict[str, Any], *, inner: bool) -> None:
        fixed = {"nopython": True, "boundscheck": None, "no_cfunc_wrapper": True}
        self.inner = inner
        super().__init__(function, targetoptions={**fixed, "no_cpython_wrapper": inner, **options})

    def add_overload(self, made: Any) -> None:
        """Keep a form that was compiled or loaded; Python finds none of an inner kernel."""
        if self.inner:
            self.overloads[tuple(made.signature.args)] = made
        else:
            super().add_overload(made)

    def _compile_for_args(self, *args: Any, **kws: Any) -> Any:
        if self.inner:
            raise TypeError(f"{label(self.py_func)} is called by kernels alone")
        return super()._compile_for_args(*args, **kws)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return how a call is typed, whose form is compiled or loaded by then."""
        kinds = {name: types.unliteral(kind) for name, kind in dict(kws).items()}
        return super().get_call_template(tuple(types.unliteral(kind) for kind in args), kinds)


class Apart(Kernel):
    """A kernel whose forms are called by symbols, from Python as any other."""

    def __init__(self, function: Any, options: dict[str, Any], *, inner: bool) -> None:
        super().__init__(function, options, inner=inner)
        KERNELS[label(function)] = self

    def add_overload(self, made: Any) -> None:
        """Define the symbol of a form that was compiled or loaded."""
        super().add_overload(made)
        kinds = tuple(made.signature.args)
        name, called = symbol(self.py_func, kinds), copy.copy(made.fndesc)
        binding.add_symbol(name, made.library.get_pointer_to_function(called.mangled_name))
        DEFINED[name] = label(self.py_func), kinds
        called.mangled_name = name
        self.targetctx.insert_user_function(name, called)

    def get_overload(self, sig: Any) -> str:
        """Return what names a form where code calls it."""
        super().get_overload(sig)
        return symbol(self.py_func, tuple(sig))


def label(function: Any) -> str:
    """Return the module and the name of a kernel."""
    return f"{function.__module__}.{function.__qualname__}"


def symbol(function: Any, kinds: Any) -> str:
    """Return the symbol of a kernel's form for some types."""
    name = label(function).rpartition(".")[2]
    made_for = hashlib.sha256(repr((label(function), str(kinds))).encode()).hexdigest()[:16]
    return f"{PREFIX}{name}_{made_for}"


def called_by(code: str) -> list[tuple[str, Any]]:
    """Return the kernels apart that some code calls, with the types of each form."""
    return [DEFINED[name] for name in sorted(set(CALLED.findall(code)))]


def define(calls: list[tuple[str, Any]]) -> None:
    """Compile or load kernels apart, before code is loaded that calls them."""
    for name, kinds in calls:
        KERNELS[name].compile(kinds)
