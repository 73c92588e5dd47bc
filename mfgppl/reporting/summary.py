"""The report in short, as Markdown: the answer, and whether to trust it."""

import math
from typing import Any

import numpy as np
import pandas as pd

from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.reporting.markdown import markdown_table, markdown_text
from mfgppl.reporting.subject import FOUND, PARTS, Section, Subject, lead_of, method_of_point

SUMMARY_MADE_BY = "<!-- generator: mfgppl -->"
SIGNS = {True: "✓", False: "✗", None: "·"}
MOST_ROWS = 20  # parameters in the table


def summary(
    heading: str, headline: str, trusted: bool, sections: list[Section], subject: Subject
) -> str:
    """Return a report in short."""
    method = method_of(subject)
    lines = [SUMMARY_MADE_BY, f"# {markdown_text(heading)}", "", f"**{headline}**",
             f"{method[0].upper()}{method[1:]}.", ""]  # fmt: skip
    lines += [f"- {markdown_text(sentence)}" for sentence in lead_of(sections)]
    lines += [f"- {markdown_text(message)}" for message in subject.messages]
    for part in PARTS:
        here = [section for section in sections if section.part == part]
        if here:
            lines += ["", f"## {part}", ""]
            lines += [line for section in here for line in _lines(section)]
    return "\n".join(lines) + "\n"


def _lines(section: Section) -> list[str]:
    """Return a section in a line; of what was found, its sentences and its short table too."""
    lines = [f"- {SIGNS[section.good]} **{section.title}** {markdown_text(section.verdict)}"]
    if section.part == FOUND:
        lines += [f"  - {markdown_text(sentence)}" for sentence in section.sentences]
        if section.short is not None:
            lines += ["", *_table(section.short.iloc[:MOST_ROWS]), ""]
    return lines


def _table(table: pd.DataFrame) -> list[str]:
    rows = [
        [str(name), *map(text_of, row)]
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return markdown_table(list(map(str, table.columns)), rows)


def method_of(subject: Subject) -> str:
    """Name what made the fit, with what it says of itself."""
    fit, record = subject.fit, subject.record
    if isinstance(fit, PointEstimate):
        return method_of_point(fit)
    sizes = fit["posterior"].sizes
    if "tuning_steps" in record:
        chains = f"{sizes['chain']} chains of {sizes['draw']} draws"
        return f"NUTS by {record['sampler']}, {chains} after {record['tuning_steps']} tuning steps"
    return f"{record['sampler']}, {sizes['draw']} independent draws"


def text_of(value: Any) -> str:
    """Return a cell as text, of four significant digits, empty where there is no number."""
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if not math.isfinite(number):
            return "" if math.isnan(number) else "∞" if number > 0 else "−∞"
        return f"{number:.1f}" if abs(number) >= 1000 else f"{number:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(v) for v in value) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
