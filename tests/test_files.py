"""Files are written whole or not at all: by kills, full disks and errors at every step."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import full_disk

from mfgppl import _files

# kills itself at its n-th call to the system, for n = 0, 1, ... in a process each
KILLED = """
import importlib.util, os, pathlib, signal, sys
spec = importlib.util.spec_from_file_location("_files", sys.argv[2])
_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_files)

def build(part):
    part.mkdir()
    (part / "a").write_text("new")
    (part / "b").write_text("new")

def kill_at(n):
    count = iter(range(1000))
    for name in ("fsync", "rename", "replace"):
        def counted(*args, call=getattr(os, name), **options):
            if next(count) == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)
        setattr(os, name, counted)

for n in range(1000):
    folder = pathlib.Path(sys.argv[1], str(n))
    folder.mkdir()
    (folder / "page").write_text("old")
    (folder / "page.json").write_text("old")
    (folder / "store").mkdir()
    for name in "ab":
        (folder / "store" / name).write_text("old")
    child = os.fork()
    if not child:
        kill_at(n)
        _files.write_files({folder / "page": b"new", folder / "page.json": b"new"})
        _files.write_folder(folder / "store", build, replace=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folders that a writer left, killed at each of its steps in turn; the last is whole."""
    folder = tmp_path_factory.mktemp("killed")
    code = [sys.executable, "-S", "-c", KILLED, str(folder), _files.__file__]
    subprocess.run(code, check=True, timeout=60)
    found = sorted(folder.iterdir(), key=lambda p: int(p.name))
    assert len(found) > 10
    return found


def test_a_kill_leaves_each_file_old_or_new(killed):
    """At no step is a file half written, and after the last both are new."""
    pages = [(folder / "page").read_text() for folder in killed]
    assert set(pages) == {"old", "new"}
    assert pages == sorted(pages, reverse=True)
    assert sorted(p.name for p in killed[-1].iterdir()) == ["page", "page.json", "store"]


def test_a_kill_never_pairs_a_page_with_anothers_numbers(killed):
    """The second file is that of the first, or is not there, its old text beside it."""
    for folder in killed:
        page, numbers = folder / "page", folder / "page.json"
        if numbers.exists():
            assert numbers.read_text() == page.read_text()
        else:
            assert (folder / "page.json.before").read_text() == "old"


def test_a_kill_leaves_a_folder_that_is_whole(killed):
    """What stands for a folder has all of its files, of one kind; the first to be preferred."""
    for folder in killed:
        first = _files.recoverable(folder / "store")[0]
        words = [p.read_text() for p in sorted(first.iterdir())]
        assert words in (["old", "old"], ["new", "new"])


def test_a_full_disk_leaves_all_files(tmp_path):
    """Where the second of two cannot be built, neither is replaced, and nothing is left over."""
    for name in ("page", "page.json"):
        (tmp_path / name).write_text("old")
    with (
        full_disk(),
        pytest.raises(OSError, match="page was not written, what was there is left") as caught,
    ):
        _files.write_files({tmp_path / "page": b"new", tmp_path / "page.json": bytes(5000)})
    assert caught.value.errno == errno.EFBIG
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys(
        ("page", "page.json"), "old"
    )


@pytest.mark.parametrize("step", range(3))
def test_a_rename_that_fails_leaves_the_folder(tmp_path, monkeypatch, step):
    """At each of the three renames of a swap an error leaves the old folder, and no other."""
    old = tmp_path / "store"
    old.mkdir()
    (old / "a").write_text("old")
    count, rename = iter(range(9)), os.rename

    def failing(*args):
        if next(count) == step:
            raise OSError(errno.EIO, "input/output error")
        return rename(*args)

    def build(part):
        part.mkdir()
        (part / "a").write_text("new")

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="was not written"):
        _files.write_folder(old, build, replace=True)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    assert (old / "a").read_text() == "old"


def test_links_modes_and_long_names_are_kept(tmp_path):
    """A link goes on pointing at its file, which keeps its mode; 255 letters are no fault."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    long = tmp_path / ("x" * 255)
    _files.write_files({link: b"new"})
    _files.write_files({long: b"new"})
    assert link.is_symlink()
    assert target.read_text() == long.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_targets_that_no_file_can_replace(tmp_path):
    """A folder, a device and a folder that is not there are refused, each by its kind."""
    with pytest.raises(IsADirectoryError, match="is a folder"):
        _files.check_target(tmp_path)
    with pytest.raises(FileExistsError, match="no file that can be replaced"):
        _files.check_target(Path(os.devnull))
    (tmp_path / "file").write_text("")
    for folder in ("none", "file"):
        with pytest.raises(FileNotFoundError, match="no folder"):
            _files.check_target(tmp_path / folder / "x")


def test_paths_and_what_is_none(monkeypatch):
    """~ is the home folder; numbers, bytes and empty texts are refused."""
    monkeypatch.setenv("HOME", "/somewhere")
    assert _files.path_of("path", "~/a.nc") == _files.path_of("path", Path("~/a.nc"))
    assert _files.path_of("path", "~/a.nc") == Path("/somewhere/a.nc")
    for wrong in (3, None, b"a.nc"):
        with pytest.raises(TypeError, match="`path` must be a path"):
            _files.path_of("path", wrong)
    with pytest.raises(ValueError, match="empty"):
        _files.path_of("path", "")
    with pytest.raises(ValueError, match="~nobody_of_this_name"):
        _files.path_of("path", "~nobody_of_this_name/a")
