"""The package's own errors and warnings."""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "CompilationWarning",
    "ConvergenceError",
    "ConvergenceWarning",
    "DataError",
    "Fault",
    "IdentificationWarning",
]


class Fault(NamedTuple):
    """One kind of fault found in a panel.

    Attributes
    ----------
    what : str
        What is wrong.
    n_rows : int
        How many rows show it.
    examples : tuple of str
        The first three of them.
    remedy : str
        What to do about it.
    """

    what: str
    n_rows: int
    examples: tuple[str, ...]
    remedy: str


class DataError(ValueError):
    """All faults of a panel or a network, reported together.

    Parameters
    ----------
    faults : sequence of Fault
        The faults found; nothing was repaired.
    subject : str
        What has them.
    """

    def __init__(self, faults: Sequence[Fault], subject: str = "the panel") -> None:
        self.faults, self.subject = tuple(faults), subject
        super().__init__(self.faults, subject)  # what copies and pickles are made from

    def __str__(self) -> str:
        return fault_table(self.faults, self.subject)


def fault_table(faults: Sequence[Fault], subject: str = "the panel") -> str:
    """Lay out faults as a text table: what, rows, the first three, remedy."""
    header = ("fault", "rows", "first three", "remedy")
    rows = [(f.what, str(f.n_rows), "; ".join(f.examples), f.remedy) for f in faults]
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(3)]
    lines = [
        "  " + "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]])
        for row in [header, *rows]
    ]
    count = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}"
    return "\n".join([f"{subject} has {count}; nothing was changed.", *lines])


class ConvergenceError(RuntimeError):
    """An iteration ended without reaching its tolerance."""


class ConvergenceWarning(UserWarning):
    """A fit whose numbers should not be trusted yet."""


class IdentificationWarning(UserWarning):
    """A combination of parameters that the data cannot identify."""


class CompilationWarning(UserWarning):
    """What runs slower: a reward program that stays Python, or kernels that cannot be kept."""
