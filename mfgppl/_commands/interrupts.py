"""Ctrl-C on the command line: one line and exit code 130 within two seconds.

Compiled code runs on after an interrupt, worker threads are waited for, and libraries swallow it
while they load or compile. What has not ended by itself a second later is ended by a thread.
"""

import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

EXIT_CODE = 130
PATIENCE = 1.0  # seconds in which an interrupt may reach the command line's boundary

_seen, _awaited, _said = threading.Event(), threading.Event(), threading.Event()


def watch() -> None:
    """Watch for interrupts from now on; to be called once, by the main thread."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # a shell's background job ignores them
    signal.signal(signal.SIGINT, _note)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):
        # the socket is the parent's too: an interrupt of a forked chain is the chain's own
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_end_late, args=(reader, writer), daemon=True).start()


def seen() -> bool:
    """Return whether there was an interrupt, whatever became of its exception."""
    return _seen.is_set()


@contextmanager
def awaited() -> Iterator[None]:
    """Let a step end by itself after a first interrupt, with what it has; a second ends it."""
    _awaited.set()
    try:
        yield
    finally:
        _awaited.clear()


def first_word() -> bool:
    """Return whether the line on an interrupt is still to be written, and count it as written."""
    if not seen():
        return True
    written = _said.is_set()
    _said.set()
    return not written


def end() -> NoReturn:
    """End the process at once, with its children."""
    if first_word():
        with suppress(OSError):  # no standard error
            os.write(2, b"mfgppl: interrupted\n")
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            child.terminate()
    os._exit(EXIT_CODE)


def _note(_: int, __: FrameType | None) -> None:
    _seen.set()
    raise KeyboardInterrupt


def _end_late(reader: socket.socket, writer: socket.socket) -> None:
    """End the process a little after an interrupt, unless a step ends by itself."""
    for count in itertools.count(1):
        signals = reader.recv(1)
        if signals != bytes([signal.SIGINT]) or (count == 1 and _awaited.is_set()):
            continue
        time.sleep(PATIENCE)
        end()
