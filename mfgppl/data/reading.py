"""From a table in any form to coded trajectories, with every fault found and none repaired."""

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from mfgppl._arguments import is_a, one_of
from mfgppl.data.space import StateSpace, check_labels, plain_label
from mfgppl.exceptions import DataError, Fault

MISSING, UNKNOWN = -1, -2


def read_panel(
    source: Any,
    *,
    columns: Mapping[str, Any],
    labels: Mapping[str, Any],
    groups: Sequence[str],
    gaps: str,
) -> dict[str, Any]:
    """Read, code, check and sort a panel; return the fields of `Trajectories`."""
    one_of("gaps", gaps, ["error", "split"])
    names = _column_names("state", columns["state"])
    if not names:
        raise ValueError("`state` must name at least one column; got none.")
    if isinstance(groups, str):
        raise TypeError(
            f"`groups` must be a list of column names; got {groups!r}: write [{groups!r}]."
        )
    single = [_column_names(k, columns[k], several=False)[0] for k in ("agent", "time", "action")]
    wanted = [*single[:2], *names, single[2], *groups]
    if labels["state"] is not None:
        is_a("state_labels", labels["state"], Mapping, " Write {column: [labels]}.")
    table = read_table(source, wanted)
    if table.num_rows == 0:
        raise DataError([Fault("empty table", 0, (), "give a table with rows")])

    faults: list[Fault] = []
    where = _row_namer(table, columns["agent"], columns["time"])
    agents, agent = _in_order(*_code(table[columns["agent"]], columns["agent"]))
    _missing(faults, columns["agent"], agent == MISSING, where)
    time, timed = _times(faults, table[columns["time"]], columns["time"], where)
    declared = labels["state"] or {}
    for name in declared:
        if name not in names:
            raise ValueError(f"`state_labels` names {name!r}, which is not in `state` ({names}).")
    coded = {k: _code_labels(faults, table[k], k, declared.get(k), where) for k in names}
    space = StateSpace({k: labels_k for k, (labels_k, _) in coded.items()})
    actions, action = _code_labels(
        faults, table[columns["action"]], columns["action"], labels["action"], where, optional=True
    )
    codes = np.stack([code for _, code in coded.values()])

    order = np.lexsort((time, agent))
    order = order[((agent >= 0) & timed)[order]]
    agent_s, time_s, action_s = agent[order], time[order], action[order]
    faults += _structural_faults(agent_s, time_s, action_s, order, where, gaps)
    if agent_s.size:
        faults += _size_faults(agent_s, time_s, action_s)
    if faults:
        raise DataError(faults)

    first_time = int(time_s.min())
    starts = np.flatnonzero(np.r_[True, (np.diff(agent_s) != 0) | (np.diff(time_s) > 1)])
    return {
        "space": space,
        "actions": actions,
        "first_time": first_time,
        "horizon": int(time_s[action_s >= 0].max()) - first_time + 1,
        "agents": _object_array(agents)[agent_s[starts]],
        "offsets": np.r_[starts, len(order)],
        "time": time_s - first_time,
        "state": np.ravel_multi_index(tuple(codes[:, order]), space.shape),
        "action": action_s,
        "groups": _groups(table, groups, agent, agent_s[starts], agents),
    }


def read_table(source: Any, wanted: Sequence[str]) -> pa.Table:
    """Return the wanted columns of any table, or of a CSV or Parquet file, as an Arrow table."""
    if isinstance(source, (str, Path)):
        source = _read_file(Path(source))
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
    present = frame.collect_schema().names()
    absent = [c for c in wanted if c not in present]
    if absent:
        raise DataError([_absent_column(c, present) for c in absent])
    repeated = sorted({c for c in wanted if list(wanted).count(c) > 1})
    if repeated:
        raise ValueError(f"each column can play one part; {repeated[0]!r} is named twice.")
    frame = frame.select(list(wanted))
    try:
        if isinstance(frame, nw.LazyFrame):
            return frame.collect(backend="pyarrow").to_native()
        return frame.to_arrow()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        remedy = "give each column one type"
        reason = "; ".join(str(a) for a in error.args)
        raise DataError([Fault("a column mixes types", 0, (reason,), remedy)]) from None


def _read_file(path: Path) -> pa.Table:
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    if path.is_dir() or path.suffix in (".parquet", ".pq"):
        try:
            return pa.parquet.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            what = f"{path.name} is not a Parquet table"
            raise DataError([Fault(what, 0, (str(error)[:80],), "write it again")]) from None
    if ".csv" not in path.suffixes:
        raise ValueError(f"`frame` must end in .csv, .csv.gz or .parquet; got {path.name!r}.")
    options = pa.csv.ConvertOptions(strings_can_be_null=True)
    try:
        table = pa.csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, OSError) as error:
        if "empty" in str(error).lower():
            raise DataError([Fault("empty table", 0, (), "give a file with rows")]) from None
        remedy = "write one header and as many cells in each row, in UTF-8"
        what = f"{path.name} is not a CSV table"
        raise DataError([Fault(what, 0, (str(error)[:80],), remedy)]) from None
    broken = [f.name for f in table.schema if pa.types.is_binary(f.type)]
    if broken:
        what = f"{path.name} is not UTF-8 in column {broken[0]!r}"
        raise DataError([Fault(what, 0, (), "save the file as UTF-8")])
    return table


def _absent_column(name: str, present: Sequence[str]) -> Fault:
    close = difflib.get_close_matches(name, present, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"the table has {', '.join(present)}"
    return Fault(f"no column {name!r}", 0, (), remedy)


def _row_namer(table: pa.Table, agent: str, time: str) -> Any:
    """Return a function that names the first three rows of a mask or of a list of rows."""

    def where(rows: np.ndarray) -> tuple[str, ...]:
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return tuple(
            f"{agent}={table[agent][int(r)].as_py()!r}, {time}={table[time][int(r)].as_py()!r}"
            for r in rows[:3]
        )

    return where


def _code(column: pa.ChunkedArray, name: str) -> tuple[list[Any], np.ndarray]:
    """Return the distinct labels of a column and the position of each row, MISSING where null."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
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
    code = encoded.indices.fill_null(MISSING).to_numpy(zero_copy_only=False).astype(np.int64)
    return values, code


def _is_labels(kind: pa.DataType) -> bool:
    checks = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer,
        pa.types.is_floating, pa.types.is_boolean, pa.types.is_null,
    )  # fmt: skip
    return any(check(kind) for check in checks)


def _column_names(argument: str, value: Any, *, several: bool = True) -> list[str]:
    """Return one column name, or a list of them, as a list."""
    names = list(value) if several and isinstance(value, (list, tuple)) else [value]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"`{argument}` must be a column name; got {name!r}.")
    return names


def _code_labels(
    faults: list[Fault],
    column: pa.ChunkedArray,
    name: str,
    declared: Sequence[Any] | None,
    where: Any,
    *,
    optional: bool = False,
) -> tuple[tuple[Any, ...], np.ndarray]:
    """Code a column against declared or sorted labels, noting missing and unknown ones."""
    values, code = _code(column, name)
    infinite = [v for v in values if isinstance(v, float) and math.isinf(v)]
    if infinite:
        rows = np.isin(code, [values.index(v) for v in infinite])
        what = f"label in {name!r} that is not finite: {infinite[0]}"
        remedy = "give a label, or leave the cell empty"
        raise DataError([*faults, Fault(what, int(rows.sum()), where(rows), remedy)])
    known = declared if declared is not None else _sorted(values) or ["?"]
    labels = check_labels(f"labels of {name}", known)
    here = {v: k for k, v in enumerate(labels)}
    position = np.array([here.get(v, UNKNOWN) for v in values] + [MISSING], dtype=np.int64)
    coded = position[code]
    unknown = coded == UNKNOWN
    if unknown.any():
        strange = [values[k] for k in dict.fromkeys(code[unknown].tolist())][:3]
        what = f"unknown label in {name!r}: {', '.join(map(repr, strange))}"
        remedy = f"the labels are {list(labels)}"
        faults.append(Fault(what, int(unknown.sum()), where(unknown), remedy))
    if not optional:
        _missing(faults, name, coded == MISSING, where)
    return labels, coded


def _sorted(values: Sequence[Any]) -> list[Any]:
    return sorted((v for v in values if v is not None), key=lambda v: (isinstance(v, str), v))


def _in_order(values: list[Any], code: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Return labels sorted, with their codes, so that the order of rows plays no part."""
    ordered = _sorted(values)
    place = {v: k for k, v in enumerate(ordered)}
    return ordered, np.array([place.get(v, MISSING) for v in values] + [MISSING])[code]


def _missing(faults: list[Fault], name: str, rows: np.ndarray, where: Any) -> None:
    if rows.any():
        what, remedy = f"missing value in {name!r}", "fill in or drop the rows"
        faults.append(Fault(what, int(rows.sum()), where(rows), remedy))


def _times(
    faults: list[Fault], column: pa.ChunkedArray, name: str, where: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return integer times and which rows have one."""
    remedy = "give integer periods, one step apart (months since the first, say)"
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        what = f"times in {name!r} are {column.type}, not integers"
        everything = np.arange(len(column))
        faults.append(Fault(what, len(column), where(everything), remedy))
        return np.zeros(len(column), dtype=np.int64), np.zeros(len(column), dtype=bool)
    values = column.to_numpy().astype(float)
    missing = np.isnan(values)
    whole = ~missing & np.isfinite(values) & (np.floor(values) == values)
    _missing(faults, name, missing, where)
    broken = ~whole & ~missing
    if broken.any():
        faults.append(Fault("non-integer time", int(broken.sum()), where(broken), remedy))
    return np.where(whole, values, 0).astype(np.int64), whole


def _structural_faults(
    agent: np.ndarray,
    time: np.ndarray,
    action: np.ndarray,
    order: np.ndarray,
    where: Any,
    gaps: str,
) -> list[Fault]:
    """Faults between rows: duplicates, gaps, and actions missing before the last row."""
    faults = []
    same = np.diff(agent) == 0
    step = np.diff(time)
    duplicate = np.flatnonzero(same & (step == 0)) + 1
    if len(duplicate):
        remedy = "keep one row per agent and time"
        what = "duplicate (agent, time)"
        faults.append(Fault(what, len(duplicate), where(order[duplicate]), remedy))
    gap = np.flatnonzero(same & (step > 1)) + 1
    if len(gap) and gaps == "error":
        remedy = "fill in the times, or pass gaps='split' to start a new trajectory"
        faults.append(Fault("gap in time before", len(gap), where(order[gap]), remedy))
    undecided = np.flatnonzero(same & (step == 1) & (action[:-1] == MISSING))
    if len(undecided):
        remedy = "only an agent's last row may lack an action"
        what = "missing action before the last row"
        faults.append(Fault(what, len(undecided), where(order[undecided]), remedy))
    return faults


def _size_faults(agent: np.ndarray, time: np.ndarray, action: np.ndarray) -> list[Fault]:
    """Faults of the whole panel: too small to hold a crowd, a decision or a step of time."""
    faults = []
    if (agent == agent[0]).all():
        remedy = "a mean field needs a crowd: give more agents"
        faults.append(Fault("one agent only", len(agent), (), remedy))
    if (time == time[0]).all():
        remedy = "give at least two periods; `time` may be the wrong column"
        faults.append(Fault("one period only", len(time), (), remedy))
    if (action == MISSING).all():
        faults.append(Fault("no action in any row", len(action), (), "check the `action` column"))
        return faults
    last = time[action != MISSING].max()
    empty = np.setdiff1d(np.arange(time.min(), last + 1), time)
    if len(empty):
        examples = tuple(f"time={t}" for t in empty[:3])
        remedy = "give periods one step apart, or fit the spells apart"
        faults.append(Fault("no agent observed at a time within the panel", 0, examples, remedy))
    late = time > last + 1
    if late.any():
        examples = tuple(f"time={t}" for t in np.unique(time[late])[:3])
        remedy = "drop the rows after the last decision's next state"
        faults.append(Fault("rows past the last decision", int(late.sum()), examples, remedy))
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
        values, code = _code(table[name], name)
        first = np.full(len(agents), MISSING)
        first[agent[::-1]] = code[::-1]
        changed = np.unique(agent[code != first[agent]])
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
