"""The one place where whatever goes wrong becomes a line and an exit code."""

import errno
import traceback
from typing import Any, TypeVar

import click

from mfgppl._commands import interrupts
from mfgppl.exceptions import DataError

DEBUG = "mfgppl.debug"  # of a click context's notes
PLAIN = (ValueError, TypeError, OSError)  # their messages are written for who reads them
C = TypeVar("C")


class OneLine(click.ClickException):
    """An error as one clear line."""

    def show(self, file: Any = None) -> None:
        """Write the line to standard error."""
        click.echo(f"mfgppl: {self.message}", err=True)


class Interrupted(OneLine):
    """An interrupt, with a word on what was kept."""

    exit_code = interrupts.EXIT_CODE

    def __init__(self, more: str = "") -> None:
        super().__init__(f"interrupted{more}")
        self.args = (more,)  # what a copy is made of

    def show(self, file: Any = None) -> None:
        """Write the line, unless it is there already."""
        if interrupts.first_word():
            super().show(file)


def line_of(error: BaseException) -> str:
    """Return an error as one line, or as the table that it brings."""
    if isinstance(error, PLAIN) and str(error):
        return words_of(error)
    if isinstance(error, MemoryError):
        return f"not enough memory. {words_of(error)}".rstrip()
    if isinstance(error, SystemExit):
        return f"the model ended the program by sys.exit({error.code!r}); nothing was written"
    return f"{named(error)} (--debug shows the traceback)"


def named(error: BaseException) -> str:
    """Return the kind of an error and what it says."""
    said = words_of(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def words_of(error: BaseException) -> str:
    """Return what an error says on one line; a table of faults as it stands."""
    return str(error) if isinstance(error, DataError) else " ".join(str(error).split())


class Boundary(click.Group):
    """A group of commands whose errors are one line each."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; no exception but click's own leaves it."""
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except BaseException as error:
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            if isinstance(error, Interrupted):
                raise
            if isinstance(error, KeyboardInterrupt) or interrupts.seen():
                raise Interrupted from None
            if isinstance(error, (click.ClickException, click.Abort)):
                raise
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of a pipe has left, which click ends quietly
            raise OneLine(line_of(error)) from None


def debuggable(command: C) -> C:
    """Give a command the option --debug."""

    def note(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            ctx.meta[DEBUG] = True

    option = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=note,
        help="Show the traceback of an error.",
    )
    return option(command)  # type: ignore[type-var]
