"""One column of a table: its plain form, its labels in order, and the label of each row."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfgppl.data.space import plain_label
from mfgppl.exceptions import DataError, Fault

MISSING, UNKNOWN = -1, -2
EXACT = 2.0**53  # whole floats from here on have neighbours that are one number with them
INTERVAL = re.compile(r"[\[(]([^,]+),([^,]+)[\])]")


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with dictionaries and views decoded."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def is_number(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds integers, floats or decimals."""
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(check(kind) for check in checks)


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_labels(kind: pa.DataType) -> bool:
    return is_number(kind) or is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)


def code(column: pa.ChunkedArray, name: str) -> tuple[list[Any], np.ndarray]:
    """Return the distinct labels of a column and the position of each row, MISSING where null."""
    try:
        column = plain_column(column)
    except pa.ArrowNotImplementedError:  # categories of a type of their own
        raise DataError([held(name, column.type)]) from None
    if not _is_labels(column.type):
        raise DataError([held(name, column.type)])
    if pa.types.is_floating(column.type):
        column = _floats(column, name)
    if is_text(column.type):
        blank = pc.equal(pc.utf8_trim_whitespace(column), "")
        column = pc.if_else(blank, pa.scalar(None, column.type), column)
    if not len(column):  # Arrow makes no empty dictionary of decimals
        return [], np.zeros(0, dtype=np.int64)
    encoded = pc.dictionary_encode(column).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    values = [plain_label(v) for v in encoded.dictionary.to_pylist()]
    position = encoded.indices.fill_null(MISSING).to_numpy(zero_copy_only=False)
    return values, position.astype(np.int64)


def _floats(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return floats with NaN as null and -0.0 as 0.0."""
    size = pc.abs(column)
    if pc.any(pc.and_(pc.is_finite(size), pc.greater_equal(size, EXACT))).as_py():
        raise DataError([rounded(name)])
    column = pc.add(column, pa.scalar(0.0, column.type))
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def held(name: str, kind: Any) -> Fault:
    """Return the fault of a column whose cells can be no labels."""
    return Fault(f"column {name!r} holds {kind}", 0, (), "use numbers or strings")


def rounded(name: str) -> Fault:
    """Return the fault of floats where neighbouring integers are one number."""
    what = f"column {name!r} holds whole numbers beyond 2**53 as floats"
    return Fault(what, 0, (), "two of them may have become one: use integers or strings")


def sorted_labels(values: Sequence[Any]) -> list[Any]:
    """Return labels in order: numbers before words, and intervals by their ends."""
    given = [v for v in values if v is not None]
    ends = {v: interval_ends(v) for v in given}
    if None not in ends.values():
        return sorted(given, key=lambda v: (ends[v], v))
    return sorted(given, key=lambda v: (isinstance(v, str), v))


def interval_ends(label: Any) -> tuple[float, float] | None:
    """Return the ends of a label such as "(0.5, 2.0]", None of another."""
    match = INTERVAL.fullmatch(label) if isinstance(label, str) else None
    try:
        ends = None if match is None else (float(match[1]), float(match[2]))
    except ValueError:
        return None
    return None if ends is None or any(map(math.isnan, ends)) else ends


def shown(value: pa.Scalar) -> str:
    """Return the cell of a table as messages show it."""
    cell = value.as_py()
    return repr(plain_label(cell) if isinstance(cell, Decimal) else cell)
