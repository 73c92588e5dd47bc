"""From a table in any form to coded trajectories, with every fault found and none repaired."""

import contextlib
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from narwhals.dependencies import is_dask_dataframe

from mfgppl._arguments import is_a, one_of
from mfgppl.data.space import StateSpace, check_labels, plain_label
from mfgppl.exceptions import DataError, Fault

MISSING, UNKNOWN = -1, -2
LAST = -1  # in place of the step to the next row where an agent has none
CSV_OPTIONS = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
FARTHEST = 2.0**62  # times beyond do not fit an integer
INTEGER_TIMES = "give integer periods, one step apart (months since the first, say)"


class Parts(NamedTuple):
    """Which column plays which part.

    Attributes
    ----------
    agent, time, action : str
        Column names.
    states : list of str
        The state coordinates, in order.
    labels : mapping of str to list
        Declared labels of state columns.
    actions : list or None
        Declared labels of the actions.
    wanted : list of str
        All columns to read.
    """

    agent: str
    time: str
    action: str
    states: list[str]
    labels: Mapping[str, Sequence[Any]]
    actions: Sequence[Any] | None
    wanted: list[str]


# counts the rows that a mask marks, and names three of them
Where = Callable[[np.ndarray], tuple[int, tuple[str, ...]]]


def parts_of(
    columns: Mapping[str, Any], labels: Mapping[str, Any], groups: Sequence[str], gaps: str
) -> Parts:
    """Check the arguments of `from_frame`."""
    one_of("gaps", gaps, ["error", "split"])
    names = _column_names("state", columns["state"])
    if not names:
        raise ValueError("`state` must name at least one column; got none.")
    if isinstance(groups, str):
        raise TypeError(
            f"`groups` must be a list of column names; got {groups!r}: write [{groups!r}]."
        )
    agent, time, action = (
        _column_names(k, columns[k], several=False)[0] for k in ("agent", "time", "action")
    )
    if labels["state"] is not None:
        is_a("state_labels", labels["state"], Mapping, " Write {column: [labels]}.")
    declared = labels["state"] or {}
    wanted = [agent, time, *names, action, *groups]
    return Parts(agent, time, action, names, declared, labels["action"], wanted)


def read_panel(source: Any, parts: Parts, *, groups: Sequence[str], gaps: str) -> dict[str, Any]:
    """Read, code, check and sort a panel; return the fields of `Trajectories`."""
    table = read_table(source, parts.wanted)
    check_rows(parts, table.num_rows)

    faults: list[Fault] = []
    where = _row_namer(table, parts.agent, parts.time)
    agents, agent = _in_order(*code(table[parts.agent], parts.agent))
    note_missing(faults, parts.agent, agent == MISSING, where)
    time, timed = _times(faults, table[parts.time], parts.time, where)
    labels, codes = zip(
        *[code_labels(faults, table[k], k, parts.labels.get(k), where) for k in parts.states],
        strict=True,
    )
    space = StateSpace(dict(zip(parts.states, labels, strict=True)))
    actions, action = code_labels(
        faults, table[parts.action], parts.action, parts.actions, where, optional=True
    )

    order = np.lexsort((action != MISSING, time, agent))
    order = order[((agent >= 0) & timed)[order]]
    agent_s, time_s, action_s = agent[order], time[order], action[order]
    step = np.where(np.diff(agent_s) == 0, np.diff(time_s), LAST)
    pairs = {
        "repeated": np.r_[False, step == 0],
        "gap": np.r_[False, step > 1],
        "undecided": np.r_[(step == 1) & (action_s[:-1] == MISSING), False],
    }
    note_pairs(faults, {k: lambda rows: where(order[rows]) for k in pairs}, pairs, gaps)
    if agent_s.size:
        n_agents = len(np.unique(agent_s))
        faults += size_faults(n_agents, time_s, action_s, np.ones(len(time_s), dtype=int))
    if faults:
        raise DataError(faults)

    first_time = int(time_s.min())
    starts = np.flatnonzero(np.r_[True, step != 1])
    return {
        "space": space,
        "actions": actions,
        "first_time": first_time,
        "horizon": int(time_s[action_s >= 0].max()) - first_time + 1,
        "agents": _object_array(agents)[agent_s[starts]],
        "offsets": np.r_[starts, len(order)],
        "time": time_s - first_time,
        "state": np.ravel_multi_index(tuple(k[order] for k in codes), space.shape),
        "action": action_s,
        "groups": _groups(table, groups, agent, agent_s[starts], agents),
    }


def check_rows(parts: Parts, n_rows: int) -> None:
    """Raise if a table has no rows or labels are declared of other columns."""
    if n_rows == 0:
        raise DataError([Fault("empty table", 0, (), "give a table with rows")])
    for name in parts.labels:
        if name not in parts.states:
            raise ValueError(
                f"`state_labels` names {name!r}, which is not in `state` ({parts.states})."
            )


def read_table(source: Any, wanted: Sequence[str]) -> pa.Table:
    """Return the wanted columns of any table, or of a CSV or Parquet file, as an Arrow table."""
    if isinstance(source, (str, Path)):
        source = _read_file(Path(source))
    with one_type_a_column():
        frame = select(source, wanted)
        if is_dask(frame):
            return pa.Table.from_pandas(frame.compute(), preserve_index=False)
        if isinstance(frame, nw.LazyFrame):
            return frame.collect(backend="pyarrow").to_native()
        return frame.to_arrow()


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
        _check_columns(list(source.columns), wanted)
        return source[list(wanted)]
    try:
        frame = nw.from_native(source)
    except TypeError:
        raise TypeError(
            "`frame` must be a table (pandas, polars, pyarrow, DuckDB, ...) or the path of a CSV or"
            f" Parquet file; got {type(source).__name__}."
        ) from None
    except nw.exceptions.DuplicateError as error:
        remedy = "give each column a name of its own"
        which = (" ".join(str(error).split()),)
        raise DataError([Fault("two columns have the same name", 0, which, remedy)]) from None
    _check_columns(frame.collect_schema().names(), wanted)
    return frame.select(list(wanted))


def is_dask(frame: Any) -> bool:
    """Whether a table is a Dask dataframe as it is."""
    return not isinstance(frame, (nw.DataFrame, nw.LazyFrame)) and is_dask_dataframe(frame)


def _check_columns(present: Sequence[str], wanted: Sequence[str]) -> None:
    absent = [c for c in wanted if c not in present]
    if absent:
        raise DataError([_absent_column(c, present) for c in absent])
    repeated = sorted({c for c in wanted if list(wanted).count(c) > 1})
    if repeated:
        raise ValueError(f"each column can play one part; {repeated[0]!r} is named twice.")


def _read_file(path: Path) -> pa.Table:
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    kind = format_of(path)
    with file_faults(path, kind):
        if kind == "parquet":
            return pa.parquet.read_table(path)
        table = pa.csv.read_csv(path, convert_options=CSV_OPTIONS)
    check_encoding(path, table.schema)
    return table


def format_of(path: Path) -> str:
    """Return "parquet" or "csv" by the name of a file; a folder holds Parquet files."""
    if path.is_dir() or path.suffix in (".parquet", ".pq"):
        return "parquet"
    if ".csv" not in path.suffixes:
        raise ValueError(f"`frame` must end in .csv, .csv.gz or .parquet; got {path.name!r}.")
    return "csv"


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
        what = f"{path.name} is not a {form} table"
        raise DataError([Fault(what, 0, (str(error)[:80],), remedy)]) from None


def check_encoding(path: Path, schema: pa.Schema) -> None:
    """Raise if a CSV file has columns that are no text."""
    broken = [f.name for f in schema if pa.types.is_binary(f.type)]
    if broken and format_of(path) == "csv":
        what = f"{path.name} is not UTF-8 in column {broken[0]!r}"
        raise DataError([Fault(what, 0, (), "save the file as UTF-8")])


def _absent_column(name: str, present: Sequence[str]) -> Fault:
    close = difflib.get_close_matches(name, present, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"the table has {', '.join(present)}"
    return Fault(f"no column {name!r}", 0, (), remedy)


def _row_namer(table: pa.Table, agent: str, time: str) -> Where:
    """Return a function that counts the rows of a mask or of a list, and names three."""

    def where(rows: np.ndarray) -> tuple[int, tuple[str, ...]]:
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        first = rows[:3].tolist()
        return len(rows), row_names(agent, time, [(table[agent][r], table[time][r]) for r in first])

    return where


def row_names(agent: str, time: str, rows: Iterable[tuple[Any, Any]]) -> tuple[str, ...]:
    """Name rows by the Arrow scalars of their agent and time."""
    return tuple(f"{agent}={a.as_py()!r}, {time}={t.as_py()!r}" for a, t in rows)


def code(column: pa.ChunkedArray, name: str) -> tuple[list[Any], np.ndarray]:
    """Return the distinct labels of a column and the position of each row, MISSING where null."""
    column = plain_column(column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if _is_text(column.type):
        blank = pc.equal(pc.utf8_trim_whitespace(column), "")
        column = pc.if_else(blank, pa.scalar(None, column.type), column)
    if not _is_labels(column.type):
        raise DataError(
            [Fault(f"column {name!r} holds {column.type}", 0, (), "use numbers or strings")]
        )
    encoded = pc.dictionary_encode(column).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    values = [plain_label(v) for v in encoded.dictionary.to_pylist()]
    position = encoded.indices.fill_null(MISSING).to_numpy(zero_copy_only=False)
    return values, position.astype(np.int64)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_labels(kind: pa.DataType) -> bool:
    checks = (
        _is_text, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null,
    )  # fmt: skip
    return any(check(kind) for check in checks)


def _column_names(argument: str, value: Any, *, several: bool = True) -> list[str]:
    """Return one column name, or a list of them, as a list."""
    names = list(value) if several and isinstance(value, (list, tuple)) else [value]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"`{argument}` must be a column name; got {name!r}.")
    return names


def code_labels(
    faults: list[Fault],
    column: pa.ChunkedArray,
    name: str,
    declared: Sequence[Any] | None,
    where: Where,
    *,
    optional: bool = False,
) -> tuple[tuple[Any, ...], np.ndarray]:
    """Code a column against declared or sorted labels, noting missing and unknown ones."""
    values, position = code(column, name)
    infinite = [v for v in _sorted(values) if isinstance(v, float) and math.isinf(v)]
    if infinite:
        rows = np.isin(position, [values.index(v) for v in infinite])
        what = f"label in {name!r} that is not finite: {infinite[0]}"
        remedy = "give a label, or leave the cell empty"
        raise DataError([*faults, Fault(what, *where(rows), remedy)])
    labels = check_labels(
        f"labels of {name}", _sorted(values) or ["?"] if declared is None else declared
    )
    here = {v: k for k, v in enumerate(labels)}
    coded = np.array([here.get(v, UNKNOWN) for v in values] + [MISSING], dtype=np.int64)[position]
    strange = _sorted([v for v in values if v not in here])[:3]
    if strange:
        what = f"unknown label in {name!r}: {', '.join(map(repr, strange))}"
        faults.append(Fault(what, *where(coded == UNKNOWN), f"the labels are {list(labels)}"))
    if not optional:
        note_missing(faults, name, coded == MISSING, where)
    return labels, coded


def _sorted(values: Sequence[Any]) -> list[Any]:
    return sorted((v for v in values if v is not None), key=lambda v: (isinstance(v, str), v))


def _in_order(values: list[Any], position: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Return labels sorted, with their codes, so that the order of rows plays no part."""
    ordered = _sorted(values)
    place = {v: k for k, v in enumerate(ordered)}
    return ordered, np.array([place.get(v, MISSING) for v in values] + [MISSING])[position]


def note_missing(faults: list[Fault], name: str, rows: np.ndarray, where: Where) -> None:
    """Note missing values of a column."""
    if rows.any():
        what, remedy = f"missing value in {name!r}", "fill in or drop the rows"
        faults.append(Fault(what, *where(rows), remedy))


def note_broken_times(faults: list[Fault], rows: np.ndarray, where: Where) -> None:
    """Note times that are numbers and not integers."""
    if rows.any():
        faults.append(Fault("non-integer time", *where(rows), INTEGER_TIMES))


def _times(
    faults: list[Fault], column: pa.ChunkedArray, name: str, where: Where
) -> tuple[np.ndarray, np.ndarray]:
    """Return integer times and which rows have one."""
    column = plain_column(column)
    if not is_number(column.type):
        note_unnumbered(faults, column.type, name, where(np.ones(len(column), dtype=bool)))
        return np.zeros(len(column), dtype=np.int64), np.zeros(len(column), dtype=bool)
    values = column.to_numpy().astype(float)
    missing = np.isnan(values)
    whole = ~missing & (np.abs(values) < FARTHEST) & (np.floor(values) == values)
    note_missing(faults, name, missing, where)
    note_broken_times(faults, ~whole & ~missing, where)
    return np.where(whole, values, 0).astype(np.int64), whole


def note_unnumbered(
    faults: list[Fault], kind: pa.DataType, name: str, seen: tuple[int, tuple[str, ...]]
) -> None:
    """Note a time column of another type than numbers."""
    found = "string" if _is_text(kind) else kind
    faults.append(Fault(f"times in {name!r} are {found}, not integers", *seen, INTEGER_TIMES))


def is_number(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds integers or floats."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with dictionaries and views decoded and decimals as floats."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    return column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column


def note_pairs(
    faults: list[Fault], where: Mapping[str, Where], rows: Mapping[str, np.ndarray], gaps: str
) -> None:
    """Note what is wrong between an agent's rows: repeats, gaps, and actions that lack."""
    if rows["repeated"].any():
        seen, remedy = where["repeated"](rows["repeated"]), "keep one row per agent and time"
        faults.append(Fault("duplicate (agent, time)", *seen, remedy))
    if rows["gap"].any() and gaps == "error":
        remedy = "fill in the times, or pass gaps='split' to start a new trajectory"
        faults.append(Fault("gap in time before", *where["gap"](rows["gap"]), remedy))
    if rows["undecided"].any():
        seen, remedy = (
            where["undecided"](rows["undecided"]),
            "only an agent's last row may lack an action",
        )
        faults.append(Fault("missing action before the last row", *seen, remedy))


def size_faults(n_agents: int, time: np.ndarray, action: np.ndarray, n: np.ndarray) -> list[Fault]:
    """Faults of the whole panel: too small to hold a crowd, a decision or a step of time.

    `n` says how many rows have each time and action.
    """
    faults = []
    if n_agents == 1:
        remedy = "a mean field needs a crowd: give more agents"
        faults.append(Fault("one agent only", int(n.sum()), (), remedy))
    if (time == time[0]).all():
        remedy = "give at least two periods; `time` may be the wrong column"
        faults.append(Fault("one period only", int(n.sum()), (), remedy))
    if (action == MISSING).all():
        remedy = "check the `action` column"
        faults.append(Fault("no action in any row", int(n.sum()), (), remedy))
        return faults
    last = time[action != MISSING].max()
    times = np.unique(time)
    ahead = times[:-1][(np.diff(times) > 1) & (times[:-1] < last)]
    if len(ahead):
        empty = [t for a in ahead[:3].tolist() for t in range(a + 1, a + 4) if t not in times]
        examples = tuple(f"time={t}" for t in [t for t in empty if t <= last][:3])
        remedy = "give periods one step apart, or fit the spells apart"
        faults.append(Fault("no agent observed at a time within the panel", 0, examples, remedy))
    late = time > last + 1
    if late.any():
        examples = tuple(f"time={t}" for t in np.unique(time[late])[:3])
        remedy = "drop the rows after the last decision's next state"
        faults.append(Fault("rows past the last decision", int(n[late].sum()), examples, remedy))
    return faults


def _groups(
    table: pa.Table,
    names: Sequence[str],
    agent: np.ndarray,
    kept: np.ndarray,
    agents: Sequence[Any],
) -> dict[str, np.ndarray]:
    """Labels of each trajectory's groups; a fault where one changes within an agent."""
    groups, faults = {}, []
    for name in names:
        values, codes = code(table[name], name)
        first = np.full(len(agents), MISSING)
        first[agent[::-1]] = codes[::-1]
        nameless = np.flatnonzero(first == MISSING)
        if len(nameless):
            examples = tuple(repr(agents[k]) for k in nameless[:3])
            what = f"no label in group {name!r}"
            faults.append(Fault(what, len(nameless), examples, "give one label an agent"))
        changed = np.unique(agent[codes != first[agent]])
        if len(changed):
            examples = tuple(repr(agents[k]) for k in changed[:3])
            what = f"group {name!r} changes within an agent"
            faults.append(Fault(what, len(changed), examples, "give one label an agent"))
        groups[name] = _object_array([*values, None])[first[kept]]
    if faults:
        raise DataError(faults)
    return groups


def _object_array(values: Sequence[Any]) -> np.ndarray:
    kinds = {type(v) for v in values}
    if len(kinds) == 1 and kinds <= {int, str}:
        return np.array(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
