"""Where a table lives: opening files lazily, and asking each engine for small answers."""

import contextlib
import functools
import glob
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import narwhals as nw
import pandas as pd
import pyarrow as pa
import pyarrow.dataset

from mfgppl.data.arrow_columns import arrow_table, is_dask, select
from mfgppl.data.column_parts import Parts
from mfgppl.data.columns import plain_column
from mfgppl.data.files import (
    Source,
    check_encoding,
    csv_format,
    file_faults,
    format_of,
    from_csv,
    path_of,
    without_empty_words,
)
from mfgppl.data.orders import orders_of_files

Query = Callable[[Any], Any]

MEMORY_LIMIT = "2GB"  # of DuckDB for files; beyond it spills to disk
PART_ROWS = 10_000_000  # rows that polars links at a time


@contextlib.contextmanager
def open_source(source: Any, parts: Parts) -> Iterator[Source]:
    """Give files as a lazy table of DuckDB or else polars, and tables as they are.

    Raises
    ------
    DataError
        If a file is not the table that its name says.
    FileNotFoundError
        If there is no such file.
    ImportError
        If neither DuckDB nor polars is installed.
    """
    named = path_of(source)
    if named is None:
        yield Source(source)
        return
    files = _files(named)
    path = files[0] if len(files) == 1 else named
    kind = format_of(files[0])
    with file_faults(path, kind):
        dataset = _dataset([str(f) for f in files], kind, parts)
        given = Source(dataset, orders=orders_of_files(dataset, parts.wanted))
        if kind == "csv":
            check_encoding(path, dataset.schema)
            given = from_csv(dataset, dataset.schema, dataset.files, parts)
    if not dataset.files:
        yield Source(dataset.to_table())
    elif find_spec("duckdb"):
        with _duckdb_table(dataset, kind) as table:
            yield given._replace(table=table)
    elif find_spec("polars"):
        yield given._replace(table=_polars_table(dataset, kind))
    else:
        raise ImportError(
            "counting the rows of a file where it lies needs DuckDB or polars; install one "
            "(pip install duckdb), or read the file into memory with Trajectories.from_frame."
        )


def select_columns(given: Source, parts: Parts) -> Any:
    """Return the wanted columns of an open table, as `select` does."""
    rows = select(given.table, parts.wanted)
    return without_empty_words(rows, parts) if given.is_csv else rows


def _files(path: Path) -> list[Path]:
    """Return the files or the folder that a path or a pattern names."""
    paths = [path] if path.exists() else sorted(map(Path, glob.glob(str(path))))
    if not paths:
        raise FileNotFoundError(f"no file {path}")
    return paths


def _dataset(files: list[str], kind: str, parts: Parts) -> Any:
    if kind == "csv":
        return pa.dataset.dataset(files, format=csv_format(parts))
    return pa.dataset.dataset(
        files[0] if len(files) == 1 else files, format="parquet", partitioning="hive"
    )


@contextlib.contextmanager
def _duckdb_table(dataset: Any, kind: str) -> Iterator[Any]:
    """Give a relation of a connection of its own, which spills to disk."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="mfgppl-") as folder:
        settings: dict[str, Any] = {
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": folder,
            "preserve_insertion_order": False,
        }
        with duckdb.connect(config=settings) as connection:
            connection.execute("SET enable_progress_bar = false")
            if kind == "csv":
                yield connection.from_arrow(dataset)
            else:
                yield connection.read_parquet(dataset.files, hive_partitioning=True)


def _polars_table(dataset: Any, kind: str) -> Any:
    import polars as pl

    if kind == "csv":
        return pl.scan_pyarrow_dataset(dataset)
    return pl.scan_parquet(dataset.files, hive_partitioning=True)


def answer(frame: Any, query: Query, *, by: str | None = None, n_rows: int = 0) -> pa.Table:
    """Run a query on the engine of a table and return its small answer.

    Parameters
    ----------
    frame : LazyFrame or Dask dataframe
        The table.
    query : callable
        Takes and returns a narwhals frame. An engine may apply it to parts of the table, whose
        answers are stacked.
    by : str, optional
        A column whose equal values must meet in one part.
    n_rows : int
        Rows of the table.

    Returns
    -------
    Table
        Dictionaries decoded.
    """
    if is_dask(frame):
        table = _ask_dask(frame, query, by)
    elif frame.implementation.is_polars():
        table = _ask_polars(frame, query, by, n_rows)
    else:
        table = query(frame).collect(backend="pyarrow").to_native()
    return _plain(table)


def rename_columns(frame: Any, names: Mapping[str, str]) -> Any:
    """Return a frame of `answer` with other names of its columns."""
    return frame.rename(columns=names) if is_dask(frame) else frame.rename(names)


def column_types(frame: Any) -> pa.Schema:
    """Return the Arrow types of a table's columns."""
    if is_dask(frame):
        types = arrow_table(frame._meta).schema
        if not any(pa.types.is_null(kind) for kind in types.types):
            return types
    return answer(frame, _no_rows).schema


def _no_rows(frame: Any) -> Any:
    return frame.head(0)


def _plain(table: pa.Table) -> pa.Table:
    columns = [plain_column(column) for column in table.columns]
    return pa.table(dict(zip(table.column_names, columns, strict=True)))


def _ask_polars(frame: nw.LazyFrame, query: Query, by: str | None, n_rows: int) -> pa.Table:
    """Ask some rows at a time, equal values of a column together: its windows take memory."""
    import polars as pl

    native = frame.to_native()
    n_parts = math.ceil(n_rows / PART_ROWS)
    parts = [native]
    if by is not None and n_parts > 1:
        parts = [native.filter(pl.col(by).hash() % n_parts == k) for k in range(n_parts)]
    answers = [query(nw.from_native(part)).to_native() for part in parts]
    return _stack([lazy.collect(engine="streaming").to_arrow() for lazy in answers])


def _ask_dask(frame: Any, query: Query, by: str | None) -> pa.Table:
    """Ask each partition on its worker, after a shuffle where equal values must meet."""
    import dask

    if by is not None:
        if frame[by].dtype.kind == "f":  # -0.0 and 0.0 are equal, and hashed apart
            frame = frame.assign(**{by: frame[by] + 0.0})
        frame = frame.shuffle(on=by)
    ask = dask.delayed(functools.partial(_ask_partition, query=query))
    return _stack(dask.compute(*[ask(part) for part in frame.to_delayed()]))


def _ask_partition(part: pd.DataFrame, query: Query) -> pa.Table:
    """Ask a partition, typed as Arrow types it."""
    table = _plain(arrow_table(part))
    nulls = [pa.string() if pa.types.is_null(kind) else kind for kind in table.schema.types]
    table = table.cast(pa.schema(zip(table.column_names, nulls, strict=True)))
    return query(nw.from_native(table.to_pandas(types_mapper=pd.ArrowDtype))).to_arrow()


def _stack(tables: Any) -> pa.Table:
    return pa.concat_tables([_plain(t) for t in tables], promote_options="permissive")
