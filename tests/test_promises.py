"""The page of promises rests on tests that are there."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "promises.md"


def test_each_promise_names_a_test_that_exists():
    """Every test that the page names is defined, and every file that it names is there."""
    page = PAGE.read_text("utf-8")
    defined = {
        name
        for file in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", file.read_text("utf-8"), re.MULTILINE)
    }
    named = re.findall(r"`(test_\w+)`", page)
    assert len(named) > 20
    assert set(named) <= defined
    assert all((TESTS.parent / file).exists() for file in re.findall(r"`(tests/\w[^`]*)`", page))
