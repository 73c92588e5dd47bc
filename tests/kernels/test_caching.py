"""Compiled kernels on disk: what their key holds, and folders and files that cannot be used."""

import ast
import errno
import os
import pty
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numba
import pytest

import mfgppl
from mfgppl._kernels import caching
from mfgppl._kernels.caching import DIGEST, FOLDER, Store, fingerprint
from mfgppl.exceptions import CompilationWarning

PACKAGE = Path(mfgppl.__file__).parent
KERNELS = PACKAGE / "_kernels"


@pytest.fixture
def sources(tmp_path) -> Path:
    """A copy of the kernels' sources."""
    return Path(shutil.copytree(KERNELS, tmp_path / "sources"))


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """An empty store in a folder of its own, where new kernels go."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    made = Store("key")
    monkeypatch.setattr(caching, "STORE", made)
    return made


def test_the_key_changes_with_each_source_even_at_the_same_size_and_time(sources):
    """One byte of any file counts, whatever the file's stamp; the stamp alone does not."""
    before = fingerprint(sources)
    files = sorted(sources.glob("*.py"))
    assert len(files) > 5
    for path in files:
        text, stamp = path.read_bytes(), path.stat()
        path.write_bytes(text[:-1] + b" ")
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert fingerprint(sources) != before, path.name
        path.write_bytes(text)
        os.utime(path, ns=(1, 1))
        assert fingerprint(sources) == before


@pytest.mark.parametrize("setting", ["BOUNDSCHECK", "OPT", "CPU_NAME"])
def test_the_key_changes_with_settings_that_change_the_code(setting, monkeypatch):
    """NUMBA_BOUNDSCHECK=1 and the like have kernels of their own."""
    before = fingerprint(KERNELS)
    monkeypatch.setattr(numba.config, setting, "another")
    assert fingerprint(KERNELS) != before


def test_kernels_are_made_of_nothing_outside_their_folder():
    """What the key does not hash is not compiled in."""
    for path in KERNELS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mfgppl"):
                assert node.module.startswith(("mfgppl._kernels", "mfgppl.exceptions"))


INNER = "from mfgppl._kernels import caching\n\n\n@caching.jit()\ndef inner(x):\n    return x + 1\n"
OUTER = (
    "from mfgppl._kernels import caching\nfrom mfgppl._kernels.inner import inner\n\n\n"
    "@caching.jit()\ndef outer(x):\n    return 10 * inner(x)\n"
)


def test_a_changed_inner_kernel_runs(tmp_path):
    """The outer kernel on disk holds the inner one's code, so a change of the inner one counts."""
    package = tmp_path / "mfgppl"
    (package / "_kernels").mkdir(parents=True)
    kernels = [f"_kernels/{name}" for name in ("__init__", "caching", "dispatchers")]
    for name in ("__init__", "_version", "exceptions", *kernels):
        shutil.copy(PACKAGE / f"{name}.py", package / f"{name}.py")
    shutil.copy(PACKAGE / "__init__.pyi", package / "__init__.pyi")
    (package / "_kernels/outer.py").write_text(OUTER)
    inner = package / "_kernels/inner.py"

    def ran(text: str) -> str:
        inner.write_text(text)
        os.utime(inner, (1e9, 1e9))
        program = "from mfgppl._kernels.outer import outer as f; print(f(1), *f.stats.cache_hits)"
        settings = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        settings |= {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert ran(INNER) == "20"
    assert ran(INNER) == "20 (int64,)"  # found on disk
    assert ran(INNER.replace("+ 1", "+ 2")) == "30"
    assert not list(package.rglob("*.nb*"))


def test_a_second_process_finds_a_kernel(store):
    """A dispatcher made anew loads what the first one kept."""
    assert compiled()(2.0) == 5.0
    assert len(list(store.folder().iterdir())) == 1
    again = compiled()
    assert again(2.0) == 5.0
    assert sum(again.stats.cache_hits.values()) == 1


@pytest.mark.parametrize("watched", [True, False])
def test_a_terminal_is_told_once_that_kernels_are_compiled(watched, tmp_path):
    """And a file or a pipe is not; nor is a process that finds them on disk."""
    text = INNER + "inner(1)\ninner(1.0)\n"
    settings = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    (tmp_path / "program.py").write_text(text)

    def heard() -> str:
        end, stream = pty.openpty() if watched else os.pipe()
        try:
            subprocess.run([sys.executable, tmp_path / "program.py"], env=settings, stderr=stream,
                           check=True)  # fmt: skip
            os.close(stream)
            return os.read(end, 10_000).decode()
        except OSError:  # a terminal whose other end is closed
            return ""
        finally:
            os.close(end)

    assert heard().count("compiling kernels") == (1 if watched else 0)
    assert "compiling kernels" not in heard()


def compiled():
    """Return a kernel whose form lies in the store, or is put there at the first call."""

    def kernel(x):
        return 2.0 * x + 1.0

    return caching.jit(error_model="numpy")(kernel)


@pytest.mark.parametrize("kept", [0, 10, DIGEST, 500])
def test_a_cut_file_is_removed_and_made_again(store, kept):
    """Whatever is left of a file, the kernel is compiled and the file is whole again."""
    compiled()(2.0)
    (path,) = store.folder().iterdir()
    path.write_bytes(path.read_bytes()[:kept])
    assert compiled()(2.0) == 5.0
    again = compiled()
    assert again(2.0) == 5.0
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_changed_byte_never_reaches_the_machine(store):
    """Object code with a flipped bit would end the process, so its digest is compared."""
    compiled()(2.0)
    (path,) = store.folder().iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert store.read(path.name) is None
    assert not path.exists()


def test_a_whole_file_of_something_else_is_made_again(store):
    """A digest that fits says nothing of what the file holds."""
    compiled()(2.0)
    (path,) = store.folder().iterdir()
    store.write(path.name, b"no pickle")
    assert compiled()(2.0) == 5.0
    assert path.stat().st_size > 1000


def test_without_a_folder_kernels_run_with_one_warning(store, tmp_path, monkeypatch):
    """A file in the place of the folder: compiled in the process, and said once."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(CompilationWarning, match="NUMBA_CACHE_DIR"):
        assert compiled()(2.0) == 5.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled()(2.0) == 5.0
    assert not store.usable


def test_a_full_disk_is_one_warning_and_leaves_no_part(store, monkeypatch):
    """Nothing half-written stays."""

    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(CompilationWarning, match="No space left"):
        assert compiled()(2.0) == 5.0
    assert list(store.folder().iterdir()) == []


def test_a_user_without_a_home_has_no_folder(monkeypatch):
    """No folder named ~ is made in the working folder."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(
        caching.platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/mfgppl")
    )
    with pytest.warns(CompilationWarning, match="home"):
        assert Store("key").read("kernel") is None


def test_kernels_without_sources_are_not_kept(tmp_path):
    """Nothing distinguishes an old form from a new one."""
    assert fingerprint(tmp_path) is None
    with pytest.warns(CompilationWarning, match="sources"):
        Store(None).write("kernel", b"")


def test_processes_that_write_one_file_leave_it_whole(store):
    """A reader sees one writer's content or the other's, never parts of both."""
    contents = [bytes([k]) * 200_000 for k in range(4)]
    store.write("kernel", contents[0])
    writers = [
        threading.Thread(target=lambda c=c: [store.write("kernel", c) for _ in range(5)])
        for c in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert store.read("kernel") in contents
    assert [p.name for p in store.folder().iterdir()] == ["kernel"]


def test_folders_that_nobody_used_for_long_are_removed(store, tmp_path):
    """Those of other sources go after their time; recent ones and other programs' stay."""
    parent = tmp_path / "cache"
    names = {"old": f"{FOLDER}old", "recent": f"{FOLDER}recent", "other": "numba-old"}
    for name in names.values():
        (parent / name).mkdir(parents=True)
    long_ago = time.time() - caching.KEPT - 60
    for key in ("old", "other"):
        os.utime(parent / names[key], (long_ago, long_ago))
    current = store.folder()
    assert {p.name for p in parent.iterdir()} == {names["recent"], names["other"], current.name}


def test_the_users_folder_is_outside_the_package(monkeypatch):
    """An uninstall leaves no compiled file in the place of the package."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    assert PACKAGE not in caching.parent().parents
    monkeypatch.setattr(numba.config, "CACHE_DIR", "elsewhere")
    assert caching.parent() == Path("elsewhere")
