"""Progress on standard error that vanishes when done and is absent off a terminal."""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def on_terminal(wanted: bool) -> bool:
    """Return whether to show progress: it is wanted, and somebody watches standard error.

    A service has no standard error, and what stands in its place may lack `isatty`.
    """
    watched = getattr(sys.stderr, "isatty", None)
    return wanted and watched is not None and bool(watched())


def progress(
    items: Iterable[T], label: str, wanted: bool, *, total: int | None = None
) -> Iterator[T]:
    """Iterate with a bar."""
    hidden = not on_terminal(wanted)
    return iter(tqdm(items, desc=label, leave=False, disable=hidden, total=total))


@contextmanager
def stages(n: int, wanted: bool) -> Iterator[Callable[[str], None]]:
    """Show a bar of `n` stages; yield a function that begins the next one by its name."""
    bar = tqdm(total=n, leave=False, disable=not on_terminal(wanted), bar_format="{desc} {bar:20}")
    with bar:

        def begin(name: str) -> None:
            bar.set_description_str(name)
            bar.update()

        yield begin


class Watch(NamedTuple):
    """What a running chain reports of itself, in memory that its parent reads.

    Attributes
    ----------
    steps, divergences : shared array of int
        By chain.
    chain : int
        Which one this is.
    stopped : Event
        Set when a chain that runs in a thread should end with the draws that it has.
    show : callable
        Draws the progress bars, where the chain runs in the process that has them.
    """

    steps: Any
    divergences: Any
    chain: int
    stopped: threading.Event
    show: Callable[[], None] = lambda: None

    def at(self, steps: int, divergences: int) -> None:
        """Note how many draws are done, tuning included, and how many of those kept diverged."""
        self.steps[self.chain], self.divergences[self.chain] = steps, divergences


class ChainBars:
    """One bar a chain, with its state, its divergences and the time left.

    Parameters
    ----------
    watches : sequence of Watch
        The chains.
    draws, tune : int
        Draws and tuning steps of each.
    wanted : bool
        Whether to show progress.
    """

    def __init__(self, watches: Sequence[Watch], draws: int, tune: int, wanted: bool) -> None:
        self.watches, self.draws, self.tune = watches, draws, tune
        self.wanted = on_terminal(wanted)
        self.bars: list[Any] = []

    def __enter__(self) -> "ChainBars":
        if self.wanted:
            total = self.draws + self.tune
            self.bars = [tqdm(total=total, unit="draw", leave=False) for _ in self.watches]
            self.show()
        return self

    def __exit__(self, *_: Any) -> None:
        for bar in reversed(self.bars):
            bar.close()

    def show(self) -> None:
        """Draw the bars as the chains stand."""
        for watch, bar in zip(self.watches, self.bars, strict=False):
            done, diverged = watch.steps[watch.chain], watch.divergences[watch.chain]
            if done == 0:
                # the time left counts from when a chain starts; tqdm clears what it printed since
                bar.start_t = bar.last_print_t = bar._time()
            bar.set_description_str(f"chain {watch.chain}: {self.state(done)}", refresh=False)
            bar.set_postfix_str(f"{diverged} diverging", refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

    def state(self, done: int) -> str:
        """Name what a chain with some steps done is doing."""
        if done == 0:
            return "waiting "
        if done < self.tune:
            return "tuning  "
        return "sampling" if done < self.tune + self.draws else "done    "
