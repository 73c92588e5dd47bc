"""Tables of benchmark results as Markdown, and the machine that they come from."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

LIBRARIES = ("mfgppl", "numpy", "numba", "torch", "pyro-ppl", "nutpie", "jax", "numpyro", "mfglib")


def markdown(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a titled table, padded so that it also reads as text."""
    table = [list(columns), *map(list, rows)]
    widths = [max(len(row[k]) for row in table) for k in range(len(columns))]
    lines = [
        "| " + " | ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([f"### {title}", "", lines[0], rule, *lines[1:], ""])


def ratio(a: float, b: float) -> str:
    """Return a / b with three significant digits at most."""
    return f"{a / b:.2f}" if a < 10 * b else f"{a / b:,.0f}"


def machine() -> str:
    """Describe processor, Python and libraries, without which times say nothing."""
    cpu = platform.processor() or platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        names = [v for v in listed.read_text().splitlines() if v.startswith("model name")]
        cpu = names[0].partition(": ")[2] if names else cpu
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    load = f"; load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{cpu}, {os.cpu_count()} cores{load}; Python {platform.python_version()}; {versions}."
