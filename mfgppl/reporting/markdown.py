"""Text and tables in Markdown, with its own characters escaped."""

from collections.abc import Sequence

SPECIAL = "\\`*_[]<>|"


def markdown_text(text: str) -> str:
    """Return text that Markdown shows as it is written, on one line: another would end a row."""
    escaped = "".join(f"\\{c}" if c in SPECIAL else c for c in text)
    return " ".join(escaped.split()) if any(c.isspace() and c != " " for c in text) else escaped


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, whose rows begin with their names."""
    ruler = "| " + " | ".join(["---", *["---:"] * len(columns)]) + " |"
    lines = ["| " + " | ".join(map(markdown_text, row)) + " |" for row in (("", *columns), *rows)]
    return [lines[0], ruler, *lines[1:]]
