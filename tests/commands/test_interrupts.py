"""Interrupts of the command line: one line and exit code 130, wherever they come."""

import os
import subprocess
import sys
import time

import pytest

# sends Ctrl-C to itself when a module is about to be imported
AT_IMPORT = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["mfgppl", *{arguments!r}]
from mfgppl.__main__ import main
main()
"""
# the same from inside a callback of C, which swallows the exception, before a long compiled call
SWALLOWED = """
import ctypes, os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from mfgppl._commands import interrupts
interrupts.watch()
callback = ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGINT))
sys.unraisablehook = lambda _: None
callback()
print("swallowed", flush=True)
threading.Event().wait(60)
"""
AWAITED = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from mfgppl._commands import interrupts
interrupts.watch()
with interrupts.awaited():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass
    threading.Event().wait(1.5 * interrupts.PATIENCE)
    print("kept", flush=True)
    {again}
"""


def ran(program: str, folder) -> subprocess.CompletedProcess:
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("module", ["mfgppl.cli", "torch", "numba", "pandas"])
def test_an_interrupt_while_libraries_load_is_one_line(module, tmp_path):
    """Wherever in the imports it comes, no traceback and exit code 130."""
    done = ran(AT_IMPORT.format(module=module, arguments=["demo"]), tmp_path)
    assert (done.returncode, done.stderr) == (130, "mfgppl: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_is_swallowed_ends_the_process(tmp_path):
    """A callback drops the exception; a thread ends the process all the same."""
    began = time.monotonic()
    done = ran(SWALLOWED, tmp_path)
    assert (done.returncode, done.stdout) == (130, "swallowed\n")
    assert done.stderr == "mfgppl: interrupted\n"
    assert time.monotonic() - began < 30.0  # and not the minute that the program waits


def test_a_step_that_keeps_its_results_is_awaited_once(tmp_path):
    """The first interrupt lets it end by itself, the second does not."""
    assert ran(AWAITED.format(again=""), tmp_path).returncode == 0
    again = "os.kill(os.getpid(), signal.SIGINT)"
    swallow = "\n    try: " + again + "\n    except KeyboardInterrupt: threading.Event().wait(60)"
    done = ran(AWAITED.format(again=swallow), tmp_path)
    assert (done.returncode, done.stdout) == (130, "kept\n")


def test_no_heavy_library_is_loaded_for_the_version():
    """`mfgppl --version` works where torch takes seconds, or cannot be loaded."""
    program = (
        "import sys; sys.argv = ['mfgppl', '--version']\n"
        "from mfgppl.__main__ import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'numba', 'pandas', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mfgppl, version")


def test_a_background_job_keeps_ignoring_interrupts():
    """A shell starts a background job with Ctrl-C ignored, and so it stays."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from mfgppl._commands import interrupts; interrupts.watch()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="chains are forked where there is fork")
def test_an_interrupt_of_a_forked_chain_is_its_own():
    """The parent of a chain that is interrupted runs on."""
    program = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from mfgppl._commands import interrupts; interrupts.watch()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n        os._exit(7)\n"
        "_, status = os.waitpid(child, 0)\n"
        "time.sleep(1.5 * interrupts.PATIENCE)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(status))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
