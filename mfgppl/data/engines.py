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

from mfgppl.data.reading import (
    CSV_OPTIONS,
    check_encoding,
    file_faults,
    format_of,
    is_dask,
    plain_column,
)

Query = Callable[[Any], Any]

MEMORY_LIMIT = "2GB"  # of DuckDB for files; beyond it spills to disk
PART_ROWS = 10_000_000  # rows that polars links at a time


@contextlib.contextmanager
def opened(source: Any) -> Iterator[Any]:
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
    if not isinstance(source, (str, Path)):
        yield source
        return
    files = _files(source)
    path = files[0] if len(files) == 1 else Path(source)
    kind = format_of(files[0])
    with file_faults(path, kind):
        dataset = _dataset([str(f) for f in files], kind)
    check_encoding(path, dataset.schema)
    if not dataset.files:
        yield dataset.to_table()
    elif find_spec("duckdb"):
        with _duckdb_table(dataset, kind) as table:
            yield table
    elif find_spec("polars"):
        yield _polars_table(dataset, kind)
    else:
        raise ImportError(
            "counting the rows of a file where it lies needs DuckDB or polars; install one "
            "(pip install duckdb), or read the file into memory with Trajectories.from_frame."
        )


def _files(source: str | Path) -> list[Path]:
    """Return the files or the folder that a path or a pattern names."""
    found = [Path(source)] if Path(source).exists() else sorted(map(Path, glob.glob(str(source))))
    if not found:
        raise FileNotFoundError(f"no file {source}")
    return found


def _dataset(files: list[str], kind: str) -> Any:
    if kind == "csv":
        return pa.dataset.dataset(
            files, format=pa.dataset.CsvFileFormat(convert_options=CSV_OPTIONS)
        )
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
        Dictionaries decoded and decimals as floats.
    """
    if is_dask(frame):
        table = _ask_dask(frame, query, by)
    elif frame.implementation.is_polars():
        table = _ask_polars(frame, query, by, n_rows)
    else:
        table = query(frame).collect(backend="pyarrow").to_native()
    return _plain(table)


def renamed(frame: Any, names: Mapping[str, str]) -> Any:
    """Return a frame of `answer` with other names of its columns."""
    return frame.rename(columns=names) if is_dask(frame) else frame.rename(names)


def column_types(frame: Any) -> pa.Schema:
    """Return the Arrow types of a table's columns."""
    if is_dask(frame):
        types = pa.Schema.from_pandas(frame._meta, preserve_index=False)
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
    return _stacked([lazy.collect(engine="streaming").to_arrow() for lazy in answers])


def _ask_dask(frame: Any, query: Query, by: str | None) -> pa.Table:
    """Ask each partition on its worker, after a shuffle where equal values must meet."""
    import dask

    frame = frame if by is None else frame.shuffle(on=by)
    ask = dask.delayed(functools.partial(_ask_partition, query=query))
    return _stacked(dask.compute(*[ask(part) for part in frame.to_delayed()]))


def _ask_partition(part: pd.DataFrame, query: Query) -> pa.Table:
    """Ask a partition, typed as Arrow types it."""
    table = _plain(pa.Table.from_pandas(part, preserve_index=False))
    nulls = [pa.string() if pa.types.is_null(kind) else kind for kind in table.schema.types]
    table = table.cast(pa.schema(zip(table.column_names, nulls, strict=True)))
    return query(nw.from_native(table.to_pandas(types_mapper=pd.ArrowDtype))).to_arrow()


def _stacked(tables: Any) -> pa.Table:
    return pa.concat_tables([_plain(t) for t in tables], promote_options="permissive")
