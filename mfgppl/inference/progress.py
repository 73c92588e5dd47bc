"""Progress bars that vanish off a terminal."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def on_terminal(wanted: bool) -> bool:
    """Return whether to show progress: it is wanted, and somebody watches standard error."""
    return wanted and sys.stderr.isatty()


def progress(items: Iterable[T], label: str, wanted: bool) -> Iterator[T]:
    """Iterate with a bar on standard error, gone when done and absent off a terminal."""
    return iter(tqdm(items, desc=label, leave=False, disable=not on_terminal(wanted)))
