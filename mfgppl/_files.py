"""Files that are written whole or not at all.

Everything is built aside, synced to the disk, and put in the place of what was there by a rename.
A kill or a full disk leaves what was there.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WHOLE, BEFORE = ".whole", ".before"  # ends of the names of the new and the old during a swap


def path_of(name: str, value: Any) -> Path:
    """Return an argument that names a file as a path, with the home folder for ~; else raise."""
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"`{name}` must be a path, as text or Path; got {type(value).__name__}.")
    if not str(value):
        raise ValueError(f"`{name}` must name a file; got an empty text.")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"`{name}` is {str(value)!r}: {error}") from None


def check_target(path: Path) -> None:
    """Raise unless a file can be put at a path: its folder is there, and nothing but a file."""
    _check_folder(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is no file that can be replaced; name another")


def check_new_folder(path: Path) -> None:
    """Raise unless a folder can be made at a path, without one that an earlier kill left there."""
    _check_folder(path)
    left = [p for p in _around(path) if p.exists()]
    if left:
        raise FileExistsError(
            f"{left[0]} exists, left where the write of {path.name} was killed; load "
            f"{path.name} to recover it, save it elsewhere and remove {left[0].name}"
        )


def recoverable(path: Path) -> list[Path]:
    """Return the folders that stand for `path`, the one to be preferred first."""
    return [p for p in (path, *_around(path)) if p.is_dir()]


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files, each whole or not at all; none of them where one cannot be built.

    The first is put in place between removing the old others and placing the new ones, so that it
    never stands beside another's.

    Raises
    ------
    OSError
        If a file cannot be written; what was there is as it was.
    """
    parts: list[tuple[Path, Path]] = []
    with _explained(next(iter(contents))):
        try:
            for path, content in contents.items():
                target = Path(os.path.realpath(path))  # a link goes on pointing at its file
                parts.append((_aside(target), target))
                _build_file(*parts[-1], content)
            _place_files(parts)
        finally:
            for part, _ in parts:
                part.unlink(missing_ok=True)


def write_folder(path: Path, build: Callable[[Path], None], *, replace: bool = False) -> None:
    """Have a folder built aside and put it at a path, in the place of what is there if `replace`.

    Raises
    ------
    OSError
        If it cannot be written; what was there is as it was.
    """
    path = Path(os.path.realpath(path))
    part = _aside(path)
    with _explained(path):
        try:
            build(part)
            _sync_below(part)
            _swap(part, path) if replace and path.exists() else part.rename(path)
            _sync(path.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = f"{path} was not written, what was there is left: {error.strerror or error}"
        raise (OSError(why) if error.errno is None else OSError(error.errno, why)) from error


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} in")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"the folder {path.parent} may not be written in")


def _around(path: Path) -> list[Path]:
    """Return the names of the new and the old folder during a swap; the working folder has none."""
    return [path.with_name(path.name + end) for end in (WHOLE, BEFORE) if path.name]


def _aside(path: Path) -> Path:
    """Return a name beside a path that nobody has, short where that of the path is long."""
    return path.with_name(f".mfgppl-{secrets.token_hex(4)}.part")


def _build_file(part: Path, target: Path, content: bytes) -> None:
    with part.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if target.exists():
        shutil.copymode(target, part)


def _place_files(parts: list[tuple[Path, Path]]) -> None:
    (part, first), *others = parts
    old = [(path, path.with_name(path.name + BEFORE)) for _, path in others if path.exists()]
    for path, before in old:
        os.replace(path, before)
    try:
        os.replace(part, first)
    except OSError:
        for path, before in old:
            os.replace(before, path)
        raise
    for part, path in others:
        os.replace(part, path)
    _sync(first.parent)
    for _, before in old:
        before.unlink()


def _swap(part: Path, path: Path) -> None:
    """Put a folder in the place of another, so that one of both is whole at any moment."""
    whole, before = _around(path)
    part.rename(whole)
    try:
        path.rename(before)
        whole.rename(path)
    except OSError:
        if before.exists():
            before.rename(path)
        shutil.rmtree(whole)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _sync_below(folder: Path) -> None:
    for found, _, names in os.walk(folder):
        for name in names:
            _sync(Path(found, name))
        _sync(Path(found))


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk."""
    if os.name == "nt":  # syncs only what is open for writing
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError:
        if not path.is_dir():  # some file systems sync no folders
            raise
    finally:
        os.close(number)
