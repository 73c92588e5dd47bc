"""CSV and Parquet files: their names, and what the cells of a CSV file mean."""

import contextlib
import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import narwhals as nw
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet

from mfgppl.data.column_parts import Parts
from mfgppl.data.columns import is_number, is_text
from mfgppl.exceptions import DataError, Fault

# cells of a CSV file that are empty unless they are declared labels
WORDS = frozenset(pyarrow.csv.ConvertOptions().null_values) - {""}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4", ".br")
CSV_NAME = re.compile(r"\.csv(\.\w+)?$", re.IGNORECASE)
CODE = re.compile(r"([+-]?)0+([0-9].*)")  # a number with leading zeros


class Source(NamedTuple):
    """A table to read, and what is known of the file that it lies in.

    Attributes
    ----------
    table : Any
        The table.
    faults : tuple of Fault
        What is wrong with cells as they stand in the file.
    hint : callable
        Says which words of a column count as empty cells, and what to do; "" if none does.
    is_csv : bool
        Whether the table holds the cells of a CSV file.
    orders : dict of str to tuple
        Labels in order, of columns that keep one.
    """

    table: Any
    faults: tuple[Fault, ...] = ()
    hint: Callable[[str], str] = lambda name: ""
    is_csv: bool = False
    orders: Mapping[str, tuple[Any, ...]] = MappingProxyType({})


def path_of(source: Any) -> Path | None:
    """Return the path that a source is, None of a table."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    return Path(os.path.expanduser(os.fspath(source)))


def format_of(path: Path) -> str:
    """Return "parquet" or "csv" by the name of a file; a folder holds Parquet files."""
    if path.is_dir() and not any(p.is_file() for p in path.rglob("*")):
        raise ValueError(f"`frame` is the folder {path}, which holds no file.")
    if path.is_dir() or path.suffix.lower() in (".parquet", ".pq"):
        return "parquet"
    match = CSV_NAME.search(path.name)
    if match is None:
        raise ValueError(f"`frame` must end in .csv, .csv.gz or .parquet; got {path.name!r}.")
    form = match[1]
    if form is None or form in COMPRESSED:
        return "csv"
    if form.lower() in COMPRESSED:
        remedy = f"rename it to end in {form.lower()}"
    else:
        remedy = "decompress it" if form.lower() in (".zip", ".xz", ".7z") else "rename it"
    raise ValueError(f"`frame` ends in .csv{form}, which is not read; {remedy}: {path.name!r}.")


def csv_format(parts: Parts) -> Any:
    """Return how Arrow parses a CSV file: columns of words as text, the others by their cells."""
    text = dict.fromkeys([*parts.text, *parts.words], pa.string())
    options = pyarrow.csv.ConvertOptions(column_types=text, strings_can_be_null=False)
    return pa.dataset.CsvFileFormat(convert_options=options)


def without_empty_words(frame: Any, parts: Parts) -> Any:
    """Return a narwhals frame of a CSV file with the words for an empty cell taken out."""
    kinds = frame.collect_schema()
    names = {n for n in parts.wanted if kinds[n] == nw.String} - set(parts.text)

    def given(name: str) -> nw.Expr:
        empty = nw.col(name).is_in(sorted(_empty_words(parts, name)))
        return nw.when(~empty).then(nw.col(name)).alias(name)

    return frame.with_columns(*map(given, sorted(names))) if names else frame


def _empty_words(parts: Parts, name: str) -> frozenset[str]:
    return WORDS - parts.words.get(name, frozenset())


def from_csv(table: Any, schema: pa.Schema, files: Sequence[str], parts: Parts) -> Source:
    """Return the table of CSV files with what their cells show and its types do not."""
    check_names(schema.names, parts.wanted)
    numbers = [
        n
        for n in dict.fromkeys(parts.wanted)
        if n != parts.time and n in schema.names and is_number(schema.field(n).type)
    ]
    hint = functools.partial(_hint, files, parts)
    return Source(table, tuple(_lost_codes(files, numbers)), hint, is_csv=True)


def _cells(files: Sequence[str], names: Sequence[str]) -> dict[str, Counter[str]]:
    """Count the cells of some columns as text, as they stand."""
    types = dict.fromkeys(names, pa.string())
    options = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    dataset = pa.dataset.dataset(
        list(files), format=pa.dataset.CsvFileFormat(convert_options=options)
    )
    cells: dict[str, Counter[str]] = {name: Counter() for name in names}
    for batch in dataset.to_batches(columns=list(names)):
        for name in names:
            counted = batch[name].value_counts()
            for cell in counted.to_pylist():
                cells[name][cell["values"].strip()] += cell["counts"]
    return cells


def _lost_codes(files: Sequence[str], names: Sequence[str]) -> Iterator[Fault]:
    """Find codes of text, such as 007 and 7, that are one number."""
    if not names:
        return
    for name, cells in _cells(files, names).items():
        meant: dict[str, list[str]] = {}
        for cell in cells:
            match = CODE.fullmatch(cell)
            number = match[1] + match[2] if match else cell
            meant.setdefault(number.removeprefix("+"), []).append(cell)
        lost = [same for same in meant.values() if len(same) > 1]
        if lost:
            examples = tuple(" and ".join(sorted(same)) for same in lost[:3])
            n_rows = sum(cells[cell] for same in lost for cell in same)
            remedy = f"pass text=[{name!r}] to keep them apart, or write each in one way"
            yield Fault(f"codes in {name!r} that are one number", n_rows, examples, remedy)


def _hint(files: Sequence[str], parts: Parts, name: str) -> str:
    """Say which words of a column count as empty cells, and what to do about it."""
    if name in parts.text:
        return ""
    cells = _cells(files, [name])[name]
    words = sorted(_empty_words(parts, name) & set(cells))
    if not words:
        return ""
    listed = ", ".join(map(repr, words[:3]))
    return f"; {listed} counts as empty in a CSV file: declare it as a label, or text=[{name!r}]"


def read_file(path: Path, parts: Parts) -> Source:
    """Read a CSV or Parquet file into memory."""
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    kind = format_of(path)
    with file_faults(path, kind):
        if kind == "parquet":
            return Source(pa.parquet.read_table(path))
        options = csv_format(parts).default_fragment_scan_options.convert_options
        table = pyarrow.csv.read_csv(path, convert_options=options)
        check_encoding(path, table.schema)
        given = from_csv(table, table.schema, [str(path)], parts)
    return given


@contextlib.contextmanager
def file_faults(path: Path, kind: str) -> Iterator[None]:
    """Turn what Arrow says of a broken file into a fault."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if kind == "csv" and "empty" in str(error).lower():
            raise DataError([Fault("empty table", 0, (), "give a file with rows")]) from None
        remedy = "write one header and as many cells in each row, in UTF-8"
        form, remedy = ("Parquet", "write it again") if kind == "parquet" else ("CSV", remedy)
        what = f"{path.name or path} is not a {form} table"
        raise DataError([Fault(what, 0, (str(error)[:80],), remedy)]) from None


def check_encoding(path: Path, schema: pa.Schema) -> None:
    """Raise if a CSV file has columns that are no text."""
    broken = [f.name for f in schema if pa.types.is_binary(f.type)]
    if broken:
        what = f"{path.name} is not UTF-8 in column {broken[0]!r}"
        raise DataError([Fault(what, 0, (), "save the file as UTF-8")])


def check_names(present: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise if a wanted column is there twice."""
    repeated = [name for name in wanted if list(present).count(name) > 1]
    if repeated:
        raise DataError([same_name(repr(repeated[0]))])


def same_name(which: str) -> Fault:
    """Return the fault of columns that share a name."""
    return Fault("two columns have the same name", 0, (which,), "give each column its own name")


def text_faults(kinds: Mapping[str, pa.DataType], parts: Parts) -> list[Fault]:
    """Return a fault for each column that is to be text and holds something else."""
    remedy = "only the cells of a CSV file are text before they are read: convert the column"
    return [
        Fault(f"column {name!r} of `text` holds {kinds[name]}", 0, (), remedy)
        for name in parts.text
        if not (is_text(kinds[name]) or pa.types.is_null(kinds[name]))
    ]
