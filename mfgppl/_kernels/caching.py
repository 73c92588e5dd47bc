"""Compiled kernels on disk: in the user's cache folder, keyed by all that they are made of.

A compiled kernel holds the code of the kernels that it calls, so a change of any source makes all
of them anew. What cannot be read is removed and compiled again; without a folder to write in,
kernels are compiled in each process.
"""

import functools
import hashlib
import multiprocessing
import os
import pickle
import secrets
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
import platformdirs
from numba.core.caching import _Cache
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from mfgppl._kernels import dispatchers
from mfgppl.exceptions import CompilationWarning

# settings of numba that change the code it makes
SETTINGS = (
    "BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX", "CPU_NAME",
    "CPU_FEATURES", "USING_SVML", "DISABLE_INTEL_SVML", "DEBUGINFO_DEFAULT", "LLVM_REFPRUNE_PASS",
    "LLVM_REFPRUNE_FLAGS",
)  # fmt: skip
FOLDER = "mfgppl-kernels-"
KEPT = 90 * 86400  # seconds that kernels of other sources or versions outlive their last use
SAID = "mfgppl: compiling kernels, once on this machine; up to a minute"
DIGEST = hashlib.sha256().digest_size


def fingerprint(sources: Path) -> str | None:
    """Return a hash of a folder's sources, of versions and of settings; None without sources."""
    found = sorted(p for p in sources.glob("*.py*") if p.suffix in (".py", ".pyc"))
    if not found:
        return None
    hashed = hashlib.sha256()
    for path in found:
        content = path.read_bytes()
        hashed.update(f"{path.name} {len(content)}\n".encode() + content)
    settings = [str(getattr(numba.config, name, None)) for name in SETTINGS]
    versions = [numba.__version__, llvmlite.__version__, np.__version__]
    hashed.update(repr((versions, sys.implementation.cache_tag, settings)).encode())
    return hashed.hexdigest()[:32]


class Store:
    """Files of compiled kernels in one folder, each with a digest of its content.

    Parameters
    ----------
    key : str or None
        What the kernels are made of, as a part of the folder's name; None keeps nothing.

    Attributes
    ----------
    usable : bool
        Whether kernels are kept; a folder that cannot be used ends it, with one warning.
    """

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.usable = True
        self._folder: Path | None = None

    def read(self, name: str) -> bytes | None:
        """Return what was written under a name, None if it is not there or damaged."""
        if not self.usable:
            return None
        try:
            content = (self.folder() / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._end(error)
            return None
        digest, payload = content[:DIGEST], content[DIGEST:]
        if hashlib.sha256(payload).digest() == digest:
            return payload
        self.drop(name)
        return None

    def write(self, name: str, payload: bytes) -> None:
        """Write a file whole or not at all; processes may write the same one at a time."""
        if not self.usable:
            return
        try:
            self._write(self.folder() / name, hashlib.sha256(payload).digest() + payload)
        except OSError as error:
            self._end(error)

    def drop(self, name: str) -> None:
        """Remove a file that cannot be used."""
        try:
            (self.folder() / name).unlink(missing_ok=True)
        except OSError as error:
            self._end(error)

    def folder(self) -> Path:
        """Return the folder, made and marked as used at the first call."""
        if self._folder is None:
            if self.key is None:
                raise OSError("the sources of the kernels cannot be read")
            path = parent() / f"{FOLDER}{self.key}"
            if not path.exists():
                path.mkdir(parents=True, exist_ok=True)
                prune(path)
            if os.access(path, os.W_OK):
                os.utime(path)
            self._folder = path
        return self._folder

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{secrets.token_hex(8)}.part")
        try:
            unfinished.write_bytes(content)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    def _end(self, error: OSError) -> None:
        self.usable = False
        warnings.warn(
            "compiled kernels cannot be kept on disk and are compiled in each process, which takes "
            "a minute or two; set NUMBA_CACHE_DIR to a folder that can be written. Reason: "
            f"{error}",
            CompilationWarning,
            stacklevel=2,
        )


def parent() -> Path:
    """Return the folder of caches: NUMBA_CACHE_DIR, or else the user's."""
    chosen = numba.config.CACHE_DIR
    path = Path(chosen) if chosen else platformdirs.user_cache_path("mfgppl", appauthor=False)
    if not chosen and not path.is_absolute():
        raise OSError("the user has no home folder")
    return path


def prune(current: Path) -> None:
    """Remove kernels beside the current ones that nobody has used for long."""
    for path in current.parent.glob(f"{FOLDER}*"):
        try:
            old = time.time() - path.stat().st_mtime > KEPT
        except OSError:  # another process removes it too
            continue
        if old and path != current:
            shutil.rmtree(path, ignore_errors=True)


# the hash is taken when kernels are imported: sources that change later are not those that run
STORE = Store(fingerprint(Path(__file__).parent))


@functools.cache
def _say_once() -> None:
    """Say what takes long on a terminal; a process that another started says nothing."""
    watched = getattr(sys.stderr, "isatty", None)
    if watched is not None and watched() and multiprocessing.parent_process() is None:
        sys.stderr.write(f"\r{SAID:<79}\n")  # over a bar that is drawn there


class KernelCache(_Cache):
    """One kernel's compiled forms on disk, as numba's dispatchers ask for them.

    Parameters
    ----------
    function : callable
        The kernel in Python.
    store : Store
        Where its forms are.
    """

    def __init__(self, function: Callable[..., Any], store: Store) -> None:
        code = function.__code__
        self.label = f"{function.__module__}.{function.__qualname__}-{code.co_firstlineno}"
        self.store = store

    @property
    def cache_path(self) -> str:
        """The folder, empty where nothing is kept."""
        return str(self.store.folder()) if self.store.usable else ""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled form for a signature, None if it has to be made."""
        target_context.refresh()
        name = self._name(sig, target_context.codegen())
        payload = self.store.read(name)
        if payload is None:
            _say_once()
            return None
        try:
            kept, calls, reduced = pickle.loads(payload)
            if kept != sig:
                return None
            dispatchers.define(calls)
            return CompileResult._rebuild(target_context, *reduced)
        except Exception:  # whatever a file raises that another process wrote
            self.store.drop(name)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compiled form for a signature."""
        if self.store.usable and not data.lifted and not data.library.has_dynamic_globals:
            calls = dispatchers.called_by(data.library.get_llvm_str())
            self.store.write(self._name(sig, data.codegen), dumps((sig, calls, data._reduce())))

    def enable(self) -> None:
        """Do nothing: a store ends by itself."""

    def disable(self) -> None:
        """Do nothing: a store ends by itself."""

    def flush(self) -> None:
        """Do nothing: kernels of other sources have another folder."""

    def _name(self, sig: Any, codegen: Any) -> str:
        made_for = hashlib.sha256(repr((str(sig), codegen.magic_tuple())).encode())
        return f"{self.label.replace('<', '').replace('>', '')}-{made_for.hexdigest()[:16]}.kernel"


def jit(
    *, alone: bool = False, inner: bool = False, **options: Any
) -> Callable[[Callable[..., Any]], Any]:
    """Return numba's decorator of compiled functions with some options, kept on disk.

    Where `alone`, kernels that call the function do not take in its code; where `inner`, kernels
    alone call it. See `dispatchers`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if numba.config.DISABLE_JIT:
            return function
        kind = dispatchers.Apart if alone else dispatchers.Kernel
        compiled = kind(function, options, inner=inner)
        compiled._cache = KernelCache(function, STORE)
        return compiled

    return decorate


def c_function(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a C function of a signature, kept on disk."""

    def decorate(function: Callable[..., Any]) -> Any:
        compiled: Any = CFunc(
            function,
            (signature.args, signature.return_type),
            locals={},
            options={"nopython": True},
        )
        compiled._cache = KernelCache(function, STORE)
        compiled.compile()
        return compiled

    return decorate
