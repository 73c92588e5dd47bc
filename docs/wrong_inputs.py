"""Write the table of wrong inputs and their errors, from the table that the tests run.

`python docs/wrong_inputs.py` writes `docs/results/wrong_inputs.md`.
"""

import contextlib
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from test_bad_inputs import TABLES  # noqa: E402

LONGEST = 150


def message_of(wrong) -> tuple[str, str]:
    """Return the kind and the message of the error that a wrong call raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wrong()
        except Exception as error:
            return type(error).__name__, str(error)
    raise RuntimeError("no error was raised")


def one_line(text: str) -> str:
    """Return a message as one short cell; of a table of faults, its first row."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]
    if "nothing was changed" in lines[0]:
        lines = lines[2:]
    text = lines[0] if len(lines[0]) <= LONGEST else lines[0][: LONGEST - 3] + "..."
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Run every row and write the table."""
    rows = ["| wrong input | error | what it says |", "|---|---|---|"]
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        os.chdir(folder)
        stack.callback(os.chdir, before)
        for room, table in TABLES.items():
            for name, wrong, *_ in table:
                kind, text = message_of(wrong)
                text = text.replace(folder, "")
                rows.append(f"| {room}: {name} | `{kind}` | {one_line(text)} |")
    (DOCS / "results" / "wrong_inputs.md").write_text("\n".join(rows) + "\n")
    print(f"{len(rows) - 2} wrong inputs")


if __name__ == "__main__":
    main()
