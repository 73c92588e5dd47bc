"""Bins: the intervals that numbers were put into, each a label that knows its centre."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bins:
    """The bins of a column of numbers.

    Attributes
    ----------
    labels : tuple of str
        What each bin is called, in order.
    ends : tuple of (float, float)
        The ends of each bin; the first and last may be infinite.
    centres : tuple of float
        The number that stands for each bin.
    lost : float
        Share of the numbers' variation that lies within bins, NaN where it is not known.
    """

    labels: tuple[str, ...]
    ends: tuple[tuple[float, float], ...]
    centres: tuple[float, ...]
    lost: float

    @property
    def each(self) -> tuple["Bin", ...]:
        """The bins as labels."""
        return tuple(Bin(text, self, k) for k, text in enumerate(self.labels))

    def as_dict(self) -> dict[str, Any]:
        """Return the bins in lists and numbers, as the attributes of a table hold them."""
        ends = [list(pair) for pair in self.ends]
        return {
            "labels": list(self.labels),
            "ends": ends,
            "centres": list(self.centres),
            "lost": self.lost,
        }

    @classmethod
    def from_dict(cls, held: dict[str, Any]) -> "Bins":
        """Return the bins that `as_dict` gave."""
        ends = tuple((float(a), float(b)) for a, b in held["ends"])
        centres = tuple(map(float, held["centres"]))
        return cls(tuple(held["labels"]), ends, centres, float(held["lost"]))


class Bin(str):
    """The label of a bin: its text, which is all that comparisons see, and where it lies.

    Parameters
    ----------
    text : str
        What the bin is called.
    bins : Bins
        The bins that it is one of.
    position : int
        Which of them.
    """

    __slots__ = ("bins", "position")
    bins: Bins
    position: int

    def __new__(cls, text: str, bins: Bins, position: int) -> "Bin":
        """Make a label."""
        made = super().__new__(cls, text)
        made.bins, made.position = bins, position
        return made

    def __reduce__(self) -> Any:
        """Travel with the bins."""
        return Bin, (str(self), self.bins, self.position)

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end."""
        return self.bins.ends[self.position]

    @property
    def centre(self) -> float:
        """The number that stands for the bin."""
        return self.bins.centres[self.position]
