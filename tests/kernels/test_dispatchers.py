"""Kernels that others call by a symbol, and kernels that Python does not call."""

import os
import re
import subprocess
import sys

import numba
import numpy as np
import pytest

from mfgppl._kernels import caching, dispatchers

PROGRAM = """
import numpy as np
from mfgppl._kernels import caching


@caching.jit(alone=True)
def scaled(x, factor):
    if factor < 0:
        raise ValueError("below zero")
    total = 0.0
    for i in range(x.size):
        total += x[i] * factor
    return total


@caching.jit(inner=True)
def twice(x):
    return scaled(x, 2) + scaled(x, 0.5)


@caching.jit()
def outer(x):
    return twice(x) + 1.0
"""
RUN = """
import numpy as np
from program import outer, scaled
print(outer(np.arange(4.0)), sum(outer.stats.cache_hits.values()), len(scaled.overloads))
"""


@pytest.fixture
def ran(tmp_path):
    """Return what a process of its own prints that calls the kernels of `PROGRAM`."""
    (tmp_path / "program.py").write_text(PROGRAM)

    def run() -> str:
        settings = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-c", RUN]
        done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.mark.parametrize("harm", ["none", "gone", "cut"])
def test_a_loaded_kernel_finds_those_that_it_calls(ran, tmp_path, harm):
    """What calls by a symbol is loaded after the symbol is defined, whatever befell its file."""
    assert ran() == "16.0 0 2"
    files = list((tmp_path / "cache").glob("*/program.scaled-*"))
    assert len(files) == 2  # a form for whole factors, one for others
    for file in files:
        if harm == "gone":
            file.unlink()
        if harm == "cut":
            file.write_bytes(file.read_bytes()[:100])
    assert ran() == "16.0 1 2"


def test_the_code_of_a_kernel_apart_is_made_once(tmp_path, monkeypatch):
    """What calls it holds a declaration of its symbol and nothing else of it."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(caching, "STORE", caching.Store("test"))  # what is loaded shows no code

    @caching.jit(alone=True)
    def apart(x):
        return np.sin(x)

    @caching.jit()
    def caller(x):
        return apart(x) + apart(2.0 * x)

    assert caller(0.3) == np.sin(0.3) + np.sin(0.6)
    (code,) = caller.inspect_llvm().values()
    ((name, kinds),) = dispatchers.called_by(code)
    assert name.endswith("apart")
    assert len(kinds) == 1
    (own,) = apart.inspect_llvm().values()
    sine = re.compile(r"call double @[\w.]*\bsin\b")
    assert sine.search(own)
    assert not sine.search(code)


def test_an_error_of_a_kernel_apart_reaches_the_caller():
    """A kernel apart raises through the one that calls it."""

    @caching.jit(alone=True)
    def apart(x):
        if x < 0.0:
            raise ValueError("below zero")
        return x

    @caching.jit()
    def caller(x):
        return 2.0 * apart(x)

    assert caller(1.0) == 2.0
    with pytest.raises(ValueError, match="below zero"):
        caller(-1.0)


def test_python_does_not_call_inner_kernels():
    """An inner kernel has no way in from Python, and says so."""

    @caching.jit(inner=True)
    def inner(x):
        return x

    with pytest.raises(TypeError, match="inner is called by kernels alone"):
        inner(1.0)
