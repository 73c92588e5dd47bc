"""Text of figures as it is written: no label is a formula, whatever Matplotlib's settings."""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
SETTINGS = {
    "text.usetex": False,
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
}


@contextmanager
def plain_text() -> Iterator[bool]:
    """Let text be text within the block; say whether it would go through LaTeX outside."""
    import matplotlib as mpl  # slow to import

    by_latex = bool(mpl.rcParams["text.usetex"])
    with mpl.rc_context(SETTINGS):
        yield by_latex


def in_plain_text(draw: Callable[P, "Figure"]) -> Callable[P, "Figure"]:
    """Make a function draw its figure in plain text."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        with plain_text() as by_latex:
            figure = draw(*args, **kwargs)
            if by_latex:  # ticks that are made when it is shown would be LaTeX's
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of glyphs, which come again when it is shown
                    figure.draw_without_rendering()
        return figure

    return drawn


def legend_of(owner: Any, handles: Sequence[Any], names: Sequence[str], **place: Any) -> None:
    """Give an axis or a figure a legend, in which names may begin with an underscore."""
    legend = owner.legend(handles, ["name"] * len(names), frameon=False, fontsize=8, **place)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
