"""What an engine is asked of a panel's table: its faults, its labels, and groups of like rows.

Only small answers leave the engine. What links a row to others of its agent is asked by agent.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import narwhals as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfgppl.data.column_parts import Parts
from mfgppl.data.columns import (
    EXACT,
    MISSING,
    code,
    is_number,
    rounded,
    shown,
)
from mfgppl.data.engines import answer, column_types, rename_columns
from mfgppl.data.files import Source, text_faults
from mfgppl.data.reading import (
    FARTHEST,
    check_rows,
    code_labels,
    note_broken_times,
    note_changes,
    note_continuous,
    note_missing,
    note_pairs,
    note_unnumbered,
    note_words,
    row_names,
    size_faults,
)
from mfgppl.data.statistics import coded, statistics
from mfgppl.exceptions import DataError, Fault

BLANK = "".join(c for c in map(chr, range(0x3001)) if c.isspace())
CELLS = ("agent_missing", "agent_rounded", "time_missing", "time_broken")
LINKS = ("back", "step", "ahead", "lasted")
PAIRS = {
    "repeated": nw.col("back") == 0,
    "gap": nw.col("back") > 1,
    "undecided": (nw.col("step") == 1) & ~nw.col("decided"),
}
CHANGED = "changed {}"  # the column that says whether a coordinate changes within an agent
LONG_AGO = -FARTHEST
WIDE = (nw.Int64, nw.UInt64, nw.Int128, nw.UInt128)  # types of times that may be too far


def count_rows(table: Any, given: Source, parts: Parts, gaps: str) -> dict[str, Any]:
    """Check and count a lazy table; return the fields of `CountedPanel`.

    Parameters
    ----------
    table : LazyFrame or Dask dataframe
        The wanted columns.
    given : Source
        The open table, with what its file says of it.
    parts : Parts
        Which column is what.
    gaps : {"error", "split"}
        What a missing time within an agent is.

    Raises
    ------
    DataError
        With all faults of the table.
    """
    states = [f"state {k}" for k in range(len(parts.coordinates))]
    moving = states[len(parts.fixed) :]
    names = ["agent", "time", *states, "action"]
    rows = rename_columns(table, dict(zip(parts.wanted, names, strict=True)))
    faults: list[Fault] = list(given.faults)
    marked = partial(_mark_times, states=states)
    labels, actions, n_rows = _labels(faults, rows, marked, parts, given)

    def linked(part: Any) -> Any:
        return _link_rows(marked(part), moving, gaps, beyond=bool(parts.absorbing))

    keys = ["period", *states, "action", *[f"next {k}" for k in moving], *LINKS]
    ask = partial(answer, rows, by="agent", n_rows=n_rows)
    _note_changes(faults, ask, marked, parts)
    table = ask(partial(_tally, by=linked, keys=keys))
    space, groups, covariates = coded(table, parts, labels, actions)
    name_rows = partial(_name_rows, ask, linked, parts)
    left = partial(_leaves, table, groups.absorbed, parts)
    flags = {k: partial(_pair, k) for k in PAIRS} | {"left": left}
    seen = {k: partial(_count_and_name, groups.n, flag, name_rows) for k, flag in flags.items()}
    undecided = (groups.step == 1) & (groups.action == MISSING)
    pairs = {"repeated": groups.back == 0, "gap": groups.back > 1, "undecided": undecided}
    pairs["left"] = groups.left
    note_pairs(faults, seen, pairs, gaps, given.hint(parts.action) if undecided.any() else "")
    if len(groups.n):
        faults += size_faults(groups.time, groups.action, groups.n, int)
    if faults:
        raise DataError(faults)
    counted = statistics(groups, space.size, len(actions))
    return {"space": space, "actions": actions, "covariates": covariates, **counted}


def _note_changes(
    faults: list[Fault],
    ask: Callable[[Any], pa.Table],
    marked: Callable[[Any], Any],
    parts: Parts,
) -> None:
    """Note what should never change in an agent and does, by a query that groups by agent."""
    if not parts.fixed:
        return
    states = [f"state {k}" for k in range(len(parts.fixed))]
    flags = [CHANGED.format(k) for k in states]

    def changes(part: Any) -> Any:
        return _changes(marked(part), states)

    def totals(part: Any) -> Any:
        return changes(part).select(nw.col(*flags).cast(nw.Int64).sum())

    counted = ask(totals)
    for name, flag in zip(parts.fixed, flags, strict=True):
        n = pc.sum(counted[flag]).as_py()
        if n:
            first = ask(partial(_first_agents, by=changes, flag=flag)).sort_by("agent")
            examples = tuple(f"{parts.agent}={shown(v)}" for v in first["agent"][:3])
            note_changes(faults, parts, name, n, examples)


def _changes(rows: Any, states: Sequence[str]) -> Any:
    """Return one row an agent, with a flag for each column of which it has several values."""
    kinds = rows.collect_schema()
    rows = rows.filter(~nw.col("agent_missing"))
    rows = rows.with_columns(*[_comparable(k, kinds[k]).alias(k) for k in states])
    ends = [nw.col(k).min().alias(f"least {k}") for k in states]
    ends += [nw.col(k).max().alias(f"most {k}") for k in states]
    return (
        rows.group_by("agent")
        .agg(*ends)
        .with_columns(
            **{CHANGED.format(k): nw.col(f"least {k}") != nw.col(f"most {k}") for k in states}
        )
    )


def _comparable(name: str, kind: Any) -> nw.Expr:
    """Return a column in which labels have an order, null where nothing is given."""
    column = nw.col(name)
    if isinstance(kind, (nw.Categorical, nw.Enum)):
        column = column.cast(nw.String)
    if isinstance(kind, nw.Boolean):
        column = column.cast(nw.Int64)
    return nw.when(_is_given(name, kind)).then(column)


def _first_agents(rows: Any, *, by: Callable[[Any], Any], flag: str) -> Any:
    return by(rows).filter(nw.col(flag)).select("agent").sort("agent").head(3)


def _leaves(groups: pa.Table, absorbed: np.ndarray, parts: Parts, mask: np.ndarray) -> nw.Expr:
    """Flag rows in an absorbing state that a row in another state follows."""
    keys = [f"state {k}" for k, name in enumerate(parts.coordinates) if name in parts.absorbing]
    values = {k: groups[k].filter(pa.array(absorbed)).unique().to_pylist() for k in keys}

    def within(prefix: str) -> nw.Expr:
        held = [_holds(f"{prefix}{k}", values[k]) for k in keys]
        return nw.all_horizontal(*held, ignore_nulls=True)

    follows = ~nw.col("step").is_null() & (nw.col("step") >= 1)
    return nw.all_horizontal(within(""), ~within("after "), follows, ignore_nulls=True)


def _mark_times(rows: Any, states: Sequence[str]) -> Any:
    """Add integer times, which rows decide, and which lack an agent or an integer time."""
    kinds = rows.collect_schema()
    flags = {
        "agent_missing": ~_is_given("agent", kinds["agent"]),
        "agent_rounded": nw.lit(False),
        "decided": _is_given("action", kinds["action"]),
    }
    if kinds["agent"].is_float():
        size = nw.col("agent").abs()
        flags["agent_rounded"] = ~flags["agent_missing"] & (size >= EXACT) & size.is_finite()
    kind, time = kinds["time"], nw.col("time")
    if not kind.is_numeric():
        whole = {"time_missing": nw.lit(False), "time_broken": nw.lit(True)}
        return rows.with_columns(period=nw.lit(0, nw.Int64), **flags, **whole)
    given = ~time.is_null()
    if kind.is_integer():
        far = time >= FARTHEST
        far = far if kind.is_unsigned_integer() else far | (time <= -FARTHEST)
        broken = given & far if kind in WIDE else nw.lit(False)
    else:
        time = time.cast(nw.Float64)
        given = given & ~time.is_nan()
        broken = given & ~((time.abs() < EXACT) & (time.floor() == time))
    period = nw.when(given & ~broken).then(time).cast(nw.Int64)
    return rows.with_columns(period=period, time_missing=~given, time_broken=broken, **flags)


def _is_given(name: str, kind: Any) -> nw.Expr:
    """Whether a cell holds something: no null, NaN or blank."""
    given = ~nw.col(name).is_null()
    if isinstance(kind, (nw.String, nw.Categorical, nw.Enum)):
        return given & (nw.col(name).cast(nw.String).str.strip_chars(BLANK) != "")
    return given & ~nw.col(name).is_nan() if kind.is_float() else given


def _link_rows(marked: Any, states: Sequence[str], gaps: str, *, beyond: bool) -> Any:
    """Keep rows with agent and time, and add what precedes and follows each within its agent.

    `back` and `step` are the times since the previous and to the next row (2 for more), null where
    there is none; `lasted` is the number of earlier rows of the trajectory, at its last row. Of a
    row after a gap, the state and the time to it are kept if `beyond`.
    """
    rows = marked.filter(
        ~(nw.col("agent_missing") | nw.col("time_missing") | nw.col("time_broken"))
    )
    time = nw.col("period")

    def within_agent(column: nw.Expr) -> nw.Expr:
        return column.over("agent", order_by=["period", "decided"])

    rows = rows.with_columns(
        back=_at_most_two(time - within_agent(time.shift(1))),
        ahead=within_agent(time.shift(-1)) - time,
        since=within_agent(time.cum_min()),
        **{f"after {k}": within_agent(nw.col(k).shift(-1)) for k in states},
    )
    rows = rows.with_columns(step=_at_most_two(nw.col("ahead")))
    back, step = nw.col("back"), nw.col("step")
    if gaps == "split":
        # a column of its own: narwhals' windows over pandas take no expression of several columns
        begin = nw.when(back.is_null() | (back > 1)).then(time)
        rows = rows.with_columns(begin=begin.otherwise(nw.lit(LONG_AGO, nw.Int64)))
        rows = rows.with_columns(since=within_agent(nw.col("begin").cum_max()))
    return rows.with_columns(
        lasted=nw.when(step.is_null() | (step > 1)).then(time - nw.col("since")),
        ahead=nw.when(step <= (2 if beyond else 1)).then(nw.col("ahead")),
        **{
            f"next {k}": nw.when(step <= (2 if beyond else 1)).then(nw.col(f"after {k}"))
            for k in states
        },
    )


def _at_most_two(step: nw.Expr) -> nw.Expr:
    return nw.when(step > 1).then(nw.lit(2, nw.Int64)).otherwise(step)


def _tally(rows: Any, *, by: Callable[[Any], Any], keys: Sequence[str]) -> Any:
    """Count rows by columns that `by` adds."""
    return by(rows).group_by(*keys).agg(n=nw.len())


def _labels(
    faults: list[Fault], rows: Any, marked: Callable[[Any], Any], parts: Parts, given: Source
) -> tuple[dict[str, tuple[Any, ...]], tuple[Any, ...], int]:
    """Return all labels, actions and the number of rows, noting what is wrong with single cells."""
    states = [f"state {k}" for k in range(len(parts.coordinates))]
    hint, orders = given.hint, given.orders
    types = column_types(rows)
    cells = answer(rows, partial(_tally, by=marked, keys=[*states, "action", *CELLS]))
    n = cells["n"].to_numpy()
    check_rows(int(n.sum()))
    name_rows = partial(_name_rows, partial(answer, rows), marked, parts)
    seen = {
        k: partial(_count_and_name, n, partial(_flag_shared_cells, cells[k], k), name_rows)
        for k in [*states, "action", *CELLS]
    }
    mask = {k: cells[k].to_numpy(zero_copy_only=False).astype(bool) for k in CELLS}

    faults += text_faults(dict(zip(parts.wanted, types.types, strict=True)), parts)
    code(types.empty_table()["agent"], parts.agent)
    if mask["agent_rounded"].any():
        raise DataError([rounded(parts.agent)])
    note_missing(faults, parts.agent, mask["agent_missing"], seen["agent_missing"], hint)
    kind = types.field("time").type
    if is_number(kind):
        note_missing(faults, parts.time, mask["time_missing"], seen["time_missing"])
        note_broken_times(faults, kind, mask["time_broken"], seen["time_broken"])
    else:
        note_unnumbered(faults, kind, parts.time, seen["time_broken"](mask["time_broken"]))
    labels = {
        name: code_labels(
            faults,
            cells[key],
            name,
            parts.labels.get(name),
            seen[key],
            hint,
            order=orders.get(name),
        )[0]
        for key, name in zip(states, parts.coordinates, strict=True)
    }
    for key, name in zip(states, parts.coordinates, strict=True):
        if name in parts.covariates:
            note_words(faults, types.field(key).type, name)
    actions, _ = code_labels(
        faults, cells["action"], parts.action, parts.actions, seen["action"], hint, optional=True,
        order=orders.get(parts.action),
    )  # fmt: skip
    n_rows = int(n.sum())
    for name, held in {**labels, parts.action: actions}.items():
        note_continuous(faults, parts, name, held, n_rows, partial(_n_agents, rows, n_rows))
    return labels, actions, int(n.sum())


def _n_agents(rows: Any, n_rows: int) -> int:
    """Return how many agents there are."""
    tally = partial(_tally, by=lambda given: given, keys=["agent"])
    return int(answer(rows, tally, by="agent", n_rows=n_rows).num_rows)


def _count_and_name(
    n: np.ndarray,
    keep: Callable[[np.ndarray], nw.Expr],
    name_rows: Callable[[nw.Expr], tuple[str, ...]],
    mask: np.ndarray,
) -> tuple[int, tuple[str, ...]]:
    """Count the rows of some groups of sizes `n`, and name three."""
    return int(n[mask].sum()), name_rows(keep(mask))


def _pair(name: str, mask: np.ndarray) -> nw.Expr:
    """Flag rows with a fault between them and the next or previous one."""
    return PAIRS[name]


def _flag_shared_cells(cells: pa.ChunkedArray, name: str, mask: np.ndarray) -> nw.Expr:
    """Flag rows that share the cell of a column with some groups; of many cells, three."""
    return _holds(name, sorted(cells.filter(pa.array(mask)).unique().to_pylist(), key=repr)[:3])


def _holds(name: str, values: Sequence[Any]) -> nw.Expr:
    """Flag rows in which a column holds one of some values, null among them."""
    column = nw.col(name)
    known = [v for v in values if v is not None and v == v]
    if known and isinstance(known[0], (str, float, Decimal)):
        column = column.cast(nw.String if isinstance(known[0], str) else nw.Float64)
        known = [float(v) if isinstance(v, Decimal) else v for v in known]
    tests = [column.is_in(known)] if known else []
    tests += [column.is_null()] if None in values else []
    tests += [column.is_nan()] if any(v != v for v in values) else []
    return nw.any_horizontal(*tests, ignore_nulls=True)


def _name_rows(
    ask: Callable[[Any], pa.Table], by: Callable[[Any], Any], parts: Parts, keep: nw.Expr
) -> tuple[str, ...]:
    """Name the first three rows, by agent and time, of those that `keep` marks."""
    order = ["agent", "time"]
    first = ask(lambda rows: by(rows).filter(keep).select(*order).sort(*order).head(3))
    first = first.sort_by([(name, "ascending") for name in order]).slice(0, 3)
    return row_names(parts.agent, parts.time, zip(first["agent"], first["time"], strict=True))
