"""Files that a command will write, checked before its work."""

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mfgppl._commands.boundary import OneLine

PAGES = (".html", ".md")  # of a report
TABLES = (".md", ".html", ".tex", ".txt")  # of fits side by side
MADE_BY = ('<meta name="generator" content="mfgppl">', "<!-- generator: mfgppl -->")
ESTIMATES = ",estimate,std_err,z,p,"  # how a table of estimates begins


class Target(NamedTuple):
    """A file to write.

    Attributes
    ----------
    option : str
        The option that names it.
    path : Path
        Where.
    suffixes : tuple of str
        How its name may end.
    """

    option: str
    path: Path
    suffixes: tuple[str, ...]

    @property
    def files(self) -> list[Path]:
        """All files that are written: a report has its numbers beside it."""
        numbers = [self.path.with_suffix(".json")] if self.suffixes == PAGES else []
        return [self.path, *numbers]


def check_targets(targets: Sequence[Target], inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse files that cannot be written, that are inputs, or that another program wrote.

    Raises
    ------
    OneLine
        If one of them is refused.
    """
    taken: list[tuple[Path, str]] = [(path, "an input") for path in inputs]
    for target in targets:
        _check_name(target)
        for path in target.files:
            for other, what in taken:
                if _same(path, other):
                    raise OneLine(f"{target.option} would write over {path}, {what} of this run")
            _check_writable(target, path)
            if path.exists() and not overwrite and not is_ours(path):
                raise OneLine(
                    f"{target.option} would write over {path}, which mfgppl did not write; "
                    "name another file, or pass --overwrite"
                )
        taken += [(path, f"the file of {target.option}") for path in target.files]


def is_ours(path: Path) -> bool:
    """Return whether a file looks like one that this package writes."""
    try:
        if path.suffix == ".nc":
            import h5netcdf

            with h5netcdf.File(path, "r") as opened:
                return bool(opened.attrs.get("inference_library") == "mfgppl")
        with path.open(encoding="utf-8") as opened:
            if path.suffix == ".json":
                numbers = json.load(opened)
                return isinstance(numbers, dict) and {"mfgppl", "sections"} <= set(numbers)
            start = opened.read(1000)
    except Exception:  # whatever a reader raises of a file that is not its own
        return False
    if path.suffix == ".csv":
        return start.startswith(ESTIMATES)
    return any(mark in start for mark in MADE_BY)


def _check_name(target: Target) -> None:
    path = target.path
    if path.suffix not in target.suffixes:
        ends = " or ".join(target.suffixes)
        raise OneLine(f"{target.option} must end in {ends} here; got {path}")
    if not path.parent.is_dir():
        raise OneLine(f"no folder {path.parent} to write {path.name} in")


def _check_writable(target: Target, path: Path) -> None:
    """Refuse a folder, and a name that the file system does not take."""
    probe = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        if path.is_dir():
            raise OneLine(f"{target.option} names the folder {path}; name a file")
        if path.exists() and not os.access(path, os.W_OK):
            raise OneLine(f"{target.option}: {path} is write-protected")
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OneLine(f"{target.option}: cannot write {path}: {error.strerror}") from None
    except ValueError as error:  # a null byte
        raise OneLine(f"{target.option}: cannot write {str(path)!r}: {error}") from None


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them does not exist
        return os.path.abspath(path) == os.path.abspath(other)
