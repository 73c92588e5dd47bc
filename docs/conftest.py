"""Run the Python blocks of each page from top to bottom in one namespace, in an empty folder."""

import os
import tempfile
from typing import Any

from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser


def enter(namespace: dict[str, Any]) -> None:
    """Leave the checkout, so that the files a page writes vanish with it."""
    namespace["_before"] = os.getcwd()
    namespace["_folder"] = tempfile.TemporaryDirectory()
    os.chdir(namespace["_folder"].name)


def leave(namespace: dict[str, Any]) -> None:
    """Go back and remove what was written."""
    os.chdir(namespace["_before"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    pattern="*.md",
    excludes=["results/**", "_build/**"],
    setup=enter,
    teardown=leave,
).pytest()
