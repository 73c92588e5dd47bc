"""Numbers as labelled intervals, for states and types that a table holds as numbers."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import one_of, positive_int, strict_keywords
from mfgppl.data.bins import Bins
from mfgppl.data.space import check_labels

METHODS = ["quantiles", "breaks"]
CENTRES = ["mean", "middle"]


@strict_keywords
def discretise(
    values: Any,
    bins: int | Sequence[float] | None = None,
    *,
    method: str = "quantiles",
    labels: Any = None,
    centres: Any = "mean",
    **columns: Any,
) -> Any:
    """Return numbers as the intervals in which they lie, in order, each with its centre.

    Of a column, `discretise(df["margin"], 5)`; of columns of a table,
    `discretise(df, margin=[0, 5, 15, np.inf], land=4)`, with the others as they are.

    Parameters
    ----------
    values : Series, array or list of float; or a pandas, polars or pyarrow table
        The numbers; a missing one stays missing.
    bins : int or list of float
        Of a column: how many intervals (fewer where numbers repeat); or the ends of the intervals,
        ascending, of which the first and last may be infinite.
    method : {"quantiles", "breaks"}
        How a number of intervals is laid: with about as many numbers in each; or at the natural
        breaks, where least of the variation is lost, exactly (Fisher's and Jenks' optimum, by
        kmeans1d).
    labels : list of str, optional
        What the intervals are called; by default by their ends, as "(0.5, 2]". Of a table, a
        mapping of columns to lists.
    centres : {"mean", "middle"} or list of float
        The number that stands for an interval where rewards reckon with it, `x.margin.centres`:
        the mean of the numbers in it, the middle between its ends, or what is given. Of a table,
        also a mapping of columns to these.
    **columns
        Of a table: the `bins` of each column.

    Returns
    -------
    Series or DataFrame
        An ordered categorical of pandas, with the index and name of `values`. The first interval is
        closed on both sides, the others on the right. Labels are text that knows its ends and
        centre (`.ends`, `.centre`), and panels and games made of them know them too.
        `attrs["bins"]` holds labels, ends, centres and `lost`: the share of the variation (variance
        about the mean) that lies within intervals, which the panel no longer shows. Parquet files
        keep it all; of a CSV file the text is left, and its order.

    Raises
    ------
    ValueError
        If there are no two ends, a number lies outside them, labels or centres are not as many as
        intervals, or a table lacks a column.
    TypeError
        If values, ends or centres are no numbers.
    ImportError
        If natural breaks are asked for without kmeans1d.
    """
    one_of("method", method, METHODS)
    table = in_memory("values", values)
    if table is None:
        if columns or bins is None:
            raise TypeError(
                "`values` is one column, of which discretise takes `bins` and no other columns: "
                "discretise(df['margin'], 5), or of a table discretise(df, margin=5)."
            )
        return _binned(values, bins, method, labels, centres)
    if bins is not None or not columns:
        came = "no column" if bins is None else f"`bins` = {bins!r:.60}"
        raise TypeError(
            "`values` is a table, of which discretise takes bins by column: discretise(df, "
            f"margin=5, land=[0, 5, 15]); got {came}."
        )
    _check_columns(table, columns, labels, centres)
    made = table.copy()
    for name, asked in columns.items():
        called = None if labels is None else labels.get(name)
        centre = centres.get(name, "mean") if isinstance(centres, Mapping) else centres
        made[name] = _binned(table[name], asked, method, called, centre)
    held = {name: made[name].cat.categories[0].bins.as_dict() for name in columns}
    made.attrs = {**table.attrs, "bins": {**table.attrs.get("bins", {}), **held}}
    return made


def in_memory(name: str, values: Any) -> pd.DataFrame | None:
    """Return a table as pandas has it, None of a column."""
    if isinstance(values, pd.DataFrame):
        return values
    if hasattr(values, "collect"):
        raise TypeError(f"`{name}` must be in memory; got a lazy table: call collect() on it.")
    if not hasattr(values, "columns") and not hasattr(values, "column_names"):
        return None
    return values.to_pandas()


def _check_columns(
    table: pd.DataFrame, columns: Mapping[str, Any], labels: Any, centres: Any
) -> None:
    if labels is not None and not isinstance(labels, Mapping):
        raise TypeError(f"`labels` of a table must map columns to lists; got {labels!r}.")
    of_centres = centres if isinstance(centres, Mapping) else {}
    for name in columns:
        if name not in table.columns:
            raise ValueError(f"no column {name!r}; the table has {list(table.columns)}.")
    for argument, given in {"labels": labels or {}, "centres": of_centres}.items():
        for name in given:
            if name not in columns:
                raise ValueError(
                    f"`{argument}` names {name!r}, which is not binned ({list(columns)})."
                )


def _binned(values: Any, bins: Any, method: str, labels: Any, centres: Any) -> pd.Series:
    """Return one column as an ordered categorical of its bins."""
    series = _numbers("values", values)
    given = series.dropna()
    if given.empty:
        raise ValueError("`values` must hold at least one number; got none.")
    if not np.isfinite(given).all():
        raise ValueError("`values` must be finite numbers; got an infinite one. Leave it missing.")
    ends = _ends(given.to_numpy(), bins, method)
    outside = given[(given < ends[0]) | (given > ends[-1])]
    if len(outside):
        raise ValueError(
            f"`bins` must hold all `values`; {len(outside)} lie outside [{ends[0]:g}, "
            f"{ends[-1]:g}], the first {outside.iloc[0]:g}. Let the ends be -inf or inf."
        )
    code = np.maximum(np.searchsorted(ends, series.to_numpy(), side="left") - 1, 0)
    code = np.where(series.isna(), -1, code)
    kept = code >= 0
    made = Bins(
        _labels(ends, labels),
        tuple(itertools.pairwise(ends.tolist())),
        _centres(ends, given.to_numpy(), code[kept], centres),
        _lost(given.to_numpy(), code[kept]),
    )
    categories = pd.Index(list(made.each), dtype=object)
    held = pd.Categorical.from_codes(code, categories=categories, ordered=True)
    binned = pd.Series(held, index=series.index, name=series.name)
    binned.attrs["bins"] = made.as_dict()
    return binned


def _ends(given: np.ndarray, bins: Any, method: str) -> np.ndarray:
    """Return the ends of the intervals, ascending."""
    if np.ndim(bins) == 0:
        number = positive_int("bins", bins)
        if given.min() == given.max():
            raise ValueError(f"`values` must hold two numbers that differ; all are {given[0]:g}.")
        if method == "breaks":
            return _natural_breaks(given, number)
        return np.unique(np.quantile(given, np.linspace(0.0, 1.0, number + 1)))
    ends = _numbers("bins", bins).to_numpy()
    if len(ends) < 2 or not (np.diff(ends) > 0).all():
        came = [float(end) for end in ends]
        raise ValueError(f"`bins` must be two ascending ends or more; got {came}.")
    return ends


def _natural_breaks(given: np.ndarray, number: int) -> np.ndarray:
    """Return the ends of the intervals within which numbers vary least, amid the gaps between."""
    try:
        import kmeans1d
    except ImportError:
        raise ImportError(
            "natural breaks need kmeans1d: pip install 'mfgppl[tables]', or use method='quantiles'."
        ) from None
    ordered = np.sort(given)
    found = kmeans1d.cluster(ordered, min(number, len(np.unique(ordered))))
    last = np.flatnonzero(np.diff(found.clusters))
    return np.r_[ordered[0], (ordered[last] + ordered[last + 1]) / 2, ordered[-1]]


def _centres(
    ends: np.ndarray, given: np.ndarray, code: np.ndarray, centres: Any
) -> tuple[float, ...]:
    """Return the number that stands for each interval."""
    n = len(ends) - 1
    if not isinstance(centres, str):
        each = _numbers("centres", centres).to_numpy()
        if len(each) != n or not np.isfinite(each).all():
            raise ValueError(f"`centres` must be {n} finite numbers, one a bin; got {centres!r}.")
        return tuple(each.tolist())
    one_of("centres", centres, CENTRES)
    finite = np.where(np.isfinite(ends), ends, np.nan)
    middle = (finite[:-1] + finite[1:]) / 2
    if centres == "middle":
        if np.isnan(middle).any():
            raise ValueError(
                "`centres` cannot be the middle of a bin without end; give centres='mean', or a "
                "list of numbers."
            )
        return tuple(middle.tolist())
    size = np.bincount(code, minlength=n)
    mean = np.bincount(code, given, minlength=n) / np.maximum(size, 1)
    end = np.where(np.isnan(finite[1:]), finite[:-1], finite[1:])
    empty = np.where(np.isnan(middle), end, middle)
    return tuple(np.where(size > 0, mean, empty).tolist())


def _lost(given: np.ndarray, code: np.ndarray) -> float:
    """Return the share of the sum of squares about the mean that lies within intervals."""
    size = np.bincount(code)
    mean = np.bincount(code, given) / np.maximum(size, 1)
    total = float(np.square(given - given.mean()).sum())
    return float(np.square(given - mean[code]).sum()) / total if total else 0.0


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


def _labels(ends: np.ndarray, given: Any) -> tuple[str, ...]:
    """Return what intervals are called: as given, or with as many digits as keep ends apart."""
    if given is not None:
        called = check_labels("labels", given)
        if len(called) != len(ends) - 1 or not all(isinstance(v, str) for v in called):
            raise ValueError(
                f"`labels` must be {len(ends) - 1} texts, one a bin; got {list(called)}."
            )
        return called
    text = next(
        text
        for digits in range(3, 18)
        if len(set(text := [f"{end:.{digits}g}" for end in ends])) == len(ends)
    )
    pairs = itertools.pairwise(text)
    return tuple(f"{'(' if k else '['}{a}, {b}]" for k, (a, b) in enumerate(pairs))
