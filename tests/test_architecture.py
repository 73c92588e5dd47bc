"""The architecture page points at files and definitions that are there."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import mfgppl

PACKAGE = Path(mfgppl.__file__).parent
PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
POINTER = re.compile(r"`(?P<file>[\w/]+\.py)`(?: \((?P<names>`\w+`(?:, `\w+`)*)\))?")


def rows():
    """Return the rows of the table of theorems: what, and where."""
    section = PAGE.read_text("utf-8").split("## Where the theorems are")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    return [(what, where) for what, where in lines if what != "what"]


def definitions(file):
    """Return the names of all functions and classes of a file."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {n.name for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, kinds)}


@pytest.mark.parametrize(("what", "where"), rows())
def test_each_row_points_at_what_is_there(what, where):
    """A file without a folder lies beside the one named before it, or in the package itself."""
    beside = PACKAGE
    for pointer in POINTER.finditer(where):
        file = PACKAGE / pointer["file"]
        file = file if file.exists() else beside / pointer["file"]
        assert file.is_file(), f"{what}: no {pointer['file']}"
        lost = set(re.findall(r"\w+", pointer["names"] or "")) - definitions(file)
        assert not lost, f"{what}: {pointer['file']} lacks {sorted(lost)}"
        beside = file.parent


def test_the_table_names_files():
    """What the pattern finds: most rows name a file of the package."""
    named = [what for what, where in rows() if POINTER.search(where)]
    assert len(named) > 0.9 * len(rows()) > 40


def test_no_two_files_have_one_name():
    """A file is known by its name, whatever its room."""
    names = Counter(file.name for file in PACKAGE.rglob("*.py") if file.stem[:2] != "__")
    assert [name for name, n in names.items() if n > 1] == []


def test_all_files_that_the_page_names_are_there():
    """Also those of its other sections, which may leave out the room."""
    named = set(re.findall(r"`(?:mfgppl/)?([\w/]+\.py)`", PAGE.read_text("utf-8")))
    ours = [str(file.relative_to(PACKAGE.parent)) for file in PACKAGE.rglob("*.py")]
    ours += [f"tests/{file.name}" for file in Path(__file__).parent.rglob("*.py")]
    lost = [n for n in named if not any(f"/{file}".endswith(f"/{n}") for file in ours)]
    assert [n for n in lost if not (PAGE.parent.parent / n).exists()] == []
