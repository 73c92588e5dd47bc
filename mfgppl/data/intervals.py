"""Numbers as labelled intervals, for states and types that a table holds as numbers."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import positive_int, strict_keywords


@strict_keywords
def discretise(values: Any, bins: int | Sequence[float]) -> pd.Series:
    """Return numbers as the intervals in which they lie, as text that panels read in order.

    Parameters
    ----------
    values : Series, array or list of float
        The numbers; a missing one stays missing.
    bins : int or list of float
        How many intervals with about as many numbers in each (fewer where numbers repeat); or
        the ends of the intervals, ascending, of which the first and last may be infinite.

    Returns
    -------
    Series of str
        Labels such as "(0.5, 2]", with the index and name of `values`. The first interval is
        closed on both sides.

    Raises
    ------
    ValueError
        If there are no two ends, or a number lies outside them.
    TypeError
        If values or ends are no numbers.
    """
    series = _numbers("values", values)
    given = series.dropna()
    if given.empty:
        raise ValueError("`values` must hold at least one number; got none.")
    if np.ndim(bins) == 0:
        shares = np.linspace(0.0, 1.0, positive_int("bins", bins) + 1)
        ends = np.unique(np.quantile(given, shares))
        if len(ends) < 2:
            raise ValueError(f"`values` must hold two numbers that differ; all are {ends[0]:g}.")
    else:
        ends = _numbers("bins", bins).to_numpy()
        if len(ends) < 2 or not (np.diff(ends) > 0).all():
            came = [float(end) for end in ends]
            raise ValueError(f"`bins` must be two ascending ends or more; got {came}.")
    outside = given[(given < ends[0]) | (given > ends[-1])]
    if len(outside):
        raise ValueError(
            f"`bins` must hold all `values`; {len(outside)} lie outside [{ends[0]:g}, "
            f"{ends[-1]:g}], the first {outside.iloc[0]:g}. Let the ends be -inf or inf."
        )
    labels = _labels(ends)
    binned = pd.cut(series, ends.tolist(), include_lowest=True, labels=labels)
    return binned.astype(object).where(series.notna(), None)


def _numbers(name: str, values: Any) -> pd.Series:
    """Return values as a series of floats, else raise a `TypeError`."""
    if hasattr(values, "to_pandas"):  # of polars and pyarrow
        values = values.to_pandas()
    try:
        series = values if isinstance(values, pd.Series) else pd.Series(values)
        if series.dtype.kind == "c":
            raise TypeError
        return series.astype(float)
    except (TypeError, ValueError):
        came = type(values).__name__
        raise TypeError(f"`{name}` must hold numbers; got a {came} of others.") from None


def _labels(ends: np.ndarray) -> list[str]:
    """Return one text an interval, with as many digits as keep the ends apart."""
    text = next(
        text
        for digits in range(3, 18)
        if len(set(text := [f"{end:.{digits}g}" for end in ends])) == len(ends)
    )
    return [f"{'(' if k else '['}{a}, {b}]" for k, (a, b) in enumerate(itertools.pairwise(text))]
