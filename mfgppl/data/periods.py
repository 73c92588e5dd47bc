"""What the times of a panel are called: integers or dates, evenly spaced."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

UNITS = ["Y", "Q", "M", "W", "D", "h", "min", "s"]  # of dates, the coarsest first


class Clock(NamedTuple):
    """From one time to the next.

    Attributes
    ----------
    step : int
        How many units lie between.
    unit : str or None
        The frequency of pandas that dates are counted in; None of integers and years.
    """

    step: int = 1
    unit: str | None = None

    def label(self, number: int) -> Any:
        """Return what a number of units is called: itself, or a date as text."""
        if self.unit is None:
            return number
        period = pd.Period(ordinal=number, freq=self.unit)
        return str(period.start_time.date()) if self.unit == "W" else str(period)

    def number(self, label: Any) -> int | None:
        """Return the number of units of a label, None of what is none."""
        if self.unit is None:
            whole = isinstance(label, (int, float, np.number)) and float(label).is_integer()
            return int(label) if whole else None
        try:
            return int(pd.Period(str(label), freq=self.unit).ordinal)
        except ValueError:
            return None


@dataclass(frozen=True)
class Periods(Sequence[Any]):
    """The labels of decision times, in order: `MeanFieldGame(horizon=panel.periods)`.

    Parameters
    ----------
    first : int
        The first time, in units.
    clock : Clock
        From one time to the next.
    n : int
        How many.
    """

    first: int
    clock: Clock
    n: int

    @property
    def labels(self) -> tuple[Any, ...]:
        """What the times are called."""
        return tuple(self.label(k) for k in range(self.n))

    def label(self, k: int) -> Any:
        """Return what the k-th time from 0 is called, also after the last."""
        return self.clock.label(self.first + self.clock.step * int(k))

    def position(self, label: Any) -> int | None:
        """Return which time from 0 is called so, also after the last, None of another."""
        number = self.clock.number(label)
        k, rest = divmod(
            (self.first - 1 if number is None else number) - self.first, self.clock.step
        )
        return None if number is None or rest or k < 0 else k

    def resized(self, n: int) -> "Periods":
        """Return as many times as asked for from the same first."""
        return replace(self, n=n)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, k: Any) -> Any:
        return self.labels[k]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.labels)

    def __repr__(self) -> str:
        apart = f", {self.clock.step} apart" if self.clock.step > 1 else ""
        return f"Periods({self.label(0)} to {self.label(self.n - 1)}{apart})"


def periods_of(labels: Any) -> Periods:
    """Return times by their labels, or by how many there are from 0.

    Raises
    ------
    ValueError
        If labels are no integers evenly spaced.
    """
    if isinstance(labels, Periods):
        return labels
    listed = list(labels)
    whole = all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in listed)
    steps = {int(b - a) for a, b in itertools.pairwise(listed)} if whole else set()
    if not whole or not listed or len(steps) > 1 or min(steps, default=1) < 1:
        raise ValueError(
            "`horizon` must be a number of decision times, or their labels: the panel's "
            f"(panel.periods), or integers evenly spaced; got {listed[:5]}."
        )
    return Periods(int(listed[0]), Clock(min(steps, default=1)), len(listed))


def common_step(numbers: np.ndarray) -> int:
    """Return the largest step of which all distances between distinct numbers are multiples."""
    return math.gcd(*np.diff(np.sort(pd.unique(numbers))).tolist()) or 1


def dated(dates: pd.DatetimeIndex) -> tuple[np.ndarray, str | None]:
    """Return dates in the coarsest unit that keeps distinct ones apart, and the unit.

    Years are numbers, without a unit.
    """
    given = np.asarray(dates.notna())
    known = dates[given].unique()
    for unit in UNITS:
        if known.to_period(unit).nunique() == len(known) or unit == UNITS[-1]:
            break
    numbers = np.zeros(len(dates), dtype=np.int64)
    counted = dates[given].to_period(unit)
    numbers[given] = counted.year if unit == "Y" else counted.asi8
    return numbers, None if unit == "Y" else unit


def uneven(times: np.ndarray, label: Callable[[int], Any]) -> str:
    """Return, of times that are not evenly spaced, until when they are and what to do."""
    distinct = np.unique(times)
    steps = np.diff(distinct)
    change = np.flatnonzero(steps != steps[:1])
    if not len(change):
        return ""
    until = label(int(distinct[change[0]]))
    return f"; times are evenly spaced until {until}: keep those, or times that share one step"
