"""Processes of tests, forked: they start at once, with all that is loaded."""

import os
import warnings
from collections.abc import Callable
from typing import Any


def forked(task: Callable[[], Any]) -> int:
    """Return the number of a process, leader of a group of its own, that runs a task."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which hold nothing
        process = os.fork()
    if not process:
        try:
            os.setsid()
            task()
        finally:
            os._exit(1)
    return process
