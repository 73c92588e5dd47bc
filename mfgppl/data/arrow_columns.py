"""From a table of any library to the Arrow columns that a panel needs."""

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import narwhals as nw
import pandas as pd
import pyarrow as pa
from narwhals.dependencies import is_dask_dataframe

from mfgppl.data.column_parts import Parts
from mfgppl.data.columns import held
from mfgppl.data.files import (
    Source,
    check_names,
    path_of,
    read_file,
    same_name,
    without_empty_words,
)
from mfgppl.data.orders import orders_of
from mfgppl.exceptions import DataError, Fault

DIGITS = 76  # of the widest decimal that Arrow has


def read_table(source: Any, parts: Parts) -> Source:
    """Return the wanted columns of any table, or of a CSV or Parquet file, as an Arrow table."""
    path = path_of(source)
    given = Source(source) if path is None else read_file(path, parts)
    with one_type_a_column():
        frame = select(given.table, parts.wanted)
        if given.is_csv:
            frame = without_empty_words(frame, parts)
        orders = orders_of(given.table, parts.wanted)
        return given._replace(table=_in_memory(frame), orders=orders)


def _in_memory(frame: Any) -> pa.Table:
    """Return a table of `select` as an Arrow table."""
    if is_dask(frame):
        return arrow_table(frame.compute())
    if isinstance(frame, nw.LazyFrame):
        return frame.collect(backend="pyarrow").to_native()
    native = nw.to_native(frame)
    return arrow_table(native) if isinstance(native, pd.DataFrame) else frame.to_arrow()


def arrow_table(frame: pd.DataFrame) -> pa.Table:
    """Return a pandas table as an Arrow table, intervals as text and sparse columns filled."""
    return pa.table({name: _arrow_column(name, frame[name]) for name in frame.columns})


def _arrow_column(name: str, column: pd.Series) -> pa.ChunkedArray:
    kind = column.dtype
    if isinstance(kind, pd.SparseDtype):
        column = column.astype(kind.subtype)
    if isinstance(kind, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if isinstance(kind, pd.IntervalDtype):
        column = column.map(str, na_action="ignore").astype(object)
    if isinstance(kind, pd.CategoricalDtype) and isinstance(kind.categories, pd.IntervalIndex):
        column = column.cat.rename_categories([str(v) for v in kind.categories])
    try:
        array = pa.array(column, from_pandas=True)
    except OverflowError:
        array = _wide_integers(name, column)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise type(error)(f"{error}, in column {name} with type {kind}") from None
    except (pa.ArrowException, TypeError, ValueError):
        raise DataError([held(name, kind)]) from None
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _wide_integers(name: str, column: pd.Series) -> pa.Array:
    """Return integers that need more than 64 bits as decimals."""
    cells = [None if pd.isna(v) else Decimal(int(v)) for v in column]
    width = max(len(str(v)) for v in cells if v is not None)
    if width > DIGITS:
        what = f"column {name!r} holds integers of {width} digits"
        raise DataError([Fault(what, 0, (), "write them as text")])
    return pa.array(cells, pa.decimal256(DIGITS, 0))


@contextlib.contextmanager
def one_type_a_column() -> Iterator[None]:
    """Turn Arrow's refusal of a column of several types into a fault."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        remedy = "give each column one type"
        reason = "; ".join(str(a) for a in error.args)
        raise DataError([Fault("a column mixes types", 0, (reason,), remedy)]) from None


def select(source: Any, wanted: Sequence[str]) -> Any:
    """Return the wanted columns of a table: of Dask as they are, else as a narwhals frame."""
    if is_dask(source):
        source = source.reset_index() if source.index.name in _absent(source, wanted) else source
        _check_columns(list(source.columns), wanted)
        return source[list(wanted)]
    native = nw.to_native(source, pass_through=True)
    if isinstance(native, pd.DataFrame):
        source = _with_levels(native, wanted)
    try:
        frame = nw.from_native(source)
    except TypeError:
        raise TypeError(
            "`frame` must be a table (pandas, polars, pyarrow, DuckDB, ...) or the path of a CSV or"
            f" Parquet file; got {type(source).__name__}."
        ) from None
    except nw.exceptions.DuplicateError as error:
        raise DataError([same_name(" ".join(str(error).split()))]) from None
    if isinstance(native, pa.Table):
        check_names(native.column_names, wanted)
    _check_columns(frame.collect_schema().names(), wanted)
    return _exportable(frame.select(list(wanted)))


def _absent(frame: Any, wanted: Sequence[str]) -> list[str]:
    return [name for name in wanted if name not in frame.columns]


def _with_levels(frame: pd.DataFrame, wanted: Sequence[str]) -> pd.DataFrame:
    """Return a pandas table with the levels of its index that are wanted as columns."""
    if frame.columns.nlevels > 1:
        what = f"the columns have {frame.columns.nlevels} levels"
        remedy = "give each column one name: frame.columns = ['...', ...]"
        raise DataError([Fault(what, 0, tuple(map(str, frame.columns[:3])), remedy)])
    absent = _absent(frame, wanted)
    levels = [name for name in absent if name in frame.index.names]
    if len(levels) < len(absent) and frame.index.nlevels > 1 and None in frame.index.names:
        what = f"the index has {frame.index.nlevels} levels, not all with a name"
        named = ", ".join(map(repr, absent[: frame.index.nlevels]))
        remedy = f"name them: df.index.names = [{named}]"
        raise DataError([Fault(what, 0, (), remedy)])
    return frame.reset_index(level=levels) if levels else frame


def _exportable(frame: Any) -> Any:
    """Return a frame whose integers of 128 bits, which Arrow lacks, are decimals in polars."""
    wide = [
        name
        for name, kind in frame.collect_schema().items()
        if isinstance(kind, (nw.Int128, nw.UInt128))
    ]
    if not wide or not frame.implementation.is_polars():
        return frame
    import polars as pl

    return nw.from_native(frame.to_native().with_columns(pl.col(wide).cast(pl.Decimal(38, 0))))


def is_dask(frame: Any) -> bool:
    """Whether a table is a Dask dataframe as it is."""
    return not isinstance(frame, (nw.DataFrame, nw.LazyFrame)) and is_dask_dataframe(frame)


def _check_columns(present: Sequence[Any], wanted: Sequence[str]) -> None:
    absent = [c for c in wanted if c not in present]
    if absent:
        raise DataError([_absent_column(c, [str(p) for p in present]) for c in absent])
    repeated = sorted({c for c in wanted if list(wanted).count(c) > 1})
    if repeated:
        raise ValueError(
            f"each column can play one part; {repeated[0]!r} is named twice. Where the choice is "
            "the next state, it is the state's column shifted: df.groupby(agent)[state].shift(-1)."
        )


def _absent_column(name: str, present: Sequence[str]) -> Fault:
    close = difflib.get_close_matches(name, present, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"the table has {', '.join(present)}"
    return Fault(f"no column {name!r}", 0, (), remedy)
