"""From a table in any form to coded trajectories, with every fault found and none repaired."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mfgppl.data.arrow_columns import read_table
from mfgppl.data.column_parts import COVARIATES, Parts
from mfgppl.data.columns import (
    EXACT,
    MISSING,
    UNKNOWN,
    code,
    is_number,
    is_text,
    plain_column,
    shown,
    sorted_labels,
)
from mfgppl.data.files import text_faults
from mfgppl.data.orders import in_order_of
from mfgppl.data.periods import Clock, Periods, common_step, dated, uneven
from mfgppl.data.space import StateSpace, check_labels, index_of
from mfgppl.exceptions import DataError, Fault

# more numbers than SEVERAL are labels where each has ROWS_A_LABEL rows on average, or of a type as
# many agents; fractions, where they are no more than MANY
SEVERAL, ROWS_A_LABEL, MANY = 30, 5, 150
LAST = -1  # in place of the step to the next row where an agent has none
FARTHEST = 2**62  # times beyond do not fit an integer when one is taken from another
INTEGER_TIMES = "give integer periods, one step apart (months since the first, say)"

Hint = Callable[[str], str]  # which words of a column count as empty cells
# counts the rows that a mask marks, and names three of them
Where = Callable[[np.ndarray], tuple[int, tuple[str, ...]]]


def read_panel(source: Any, parts: Parts, *, groups: Sequence[str], gaps: str) -> dict[str, Any]:
    """Read, code, check and sort a panel; return the fields of `Trajectories`."""
    given = read_table(source, parts)
    table, hint = given.table, given.hint
    check_rows(table.num_rows)

    faults: list[Fault] = [*given.faults, *text_faults(_kinds(table), parts)]
    where = _row_namer(table, parts.agent, parts.time)
    agents, agent = _in_order(*code(table[parts.agent], parts.agent))
    note_missing(faults, parts.agent, agent == MISSING, where, hint)
    time, timed, clock = _times(faults, table[parts.time], parts.time, where)
    labels, codes = {}, {}
    for k in parts.coordinates:
        labels[k], codes[k] = code_labels(
            faults, table[k], k, parts.labels.get(k), where, hint, order=given.orders.get(k)
        )
        note_continuous(faults, parts, k, labels[k], table.num_rows, lambda: len(agents))
    for k in parts.fixed:
        note_changes(faults, parts, k, *_changes(table[k], k, parts, agents, agent))
    for k in parts.covariates:
        note_words(faults, plain_column(table[k]).type, k)
    actions, action = code_labels(
        faults, table[parts.action], parts.action, parts.actions, where, hint, optional=True,
        order=given.orders.get(parts.action),
    )  # fmt: skip
    note_continuous(faults, parts, parts.action, actions, table.num_rows, lambda: len(agents))

    order = np.lexsort((action != MISSING, time, agent))
    order = order[((agent >= 0) & timed)[order]]
    agent_s, time_s, action_s = agent[order], time[order], action[order]
    coded = {k: v[order] for k, v in codes.items()}
    absorbed, elsewhere = absorbing_rows(parts, labels, coded)
    step = np.where(np.diff(agent_s) == 0, np.diff(time_s), LAST)
    pairs = {
        "repeated": np.r_[False, step == 0],
        "gap": np.r_[False, step > 1],
        "undecided": np.r_[(step == 1) & (action_s[:-1] == MISSING), False],
        "left": np.r_[(step >= 1) & absorbed[:-1] & elsewhere[1:], False],
    }
    seen = {k: lambda rows: where(order[rows]) for k in pairs}
    note_pairs(faults, seen, pairs, gaps, hint(parts.action) if pairs["undecided"].any() else "")
    first_time = int(time_s.min(initial=np.iinfo(np.int64).max))
    periods = Periods(first_time, clock, 1)
    if agent_s.size:
        steps = time_s - first_time
        faults += size_faults(steps, action_s, np.ones(len(steps), dtype=int), periods.label)
    if faults:
        raise DataError(faults)

    starts = np.flatnonzero(np.r_[True, step != 1])
    lasts = np.r_[starts[1:], len(order)] - 1
    until = np.append(np.where(step == LAST, time_s.max(), time_s[1:] - 1), time_s.max())
    space, state, covariates = stacked(parts, labels, coded)
    return {
        "space": space,
        "actions": actions,
        "first_time": first_time,
        "clock": clock,
        "horizon": int(time_s[action_s >= 0].max()) - first_time + 1,
        "agents": index_of(agents)[agent_s[starts]],
        "offsets": np.r_[starts, len(order)],
        "time": time_s - first_time,
        "state": state,
        "action": action_s,
        "groups": _groups(table, groups, agent, agent_s[starts], agents),
        "covariates": covariates,
        "carried": np.where(absorbed, until - time_s, 0)[lasts],
    }


def stacked(
    parts: Parts, labels: Mapping[str, tuple[Any, ...]], codes: Mapping[str, np.ndarray]
) -> tuple[StateSpace, np.ndarray, pd.DataFrame]:
    """Return the space of coded columns, where each row stands in it, and the covariates.

    Several covariates become one coordinate, with one label for each distinct row of them.
    """
    coordinates, columns = dict(labels), dict(codes)
    types, frame = parts.fixed, pd.DataFrame()
    if len(parts.covariates) == 1:
        frame = pd.DataFrame(index=pd.Index(labels[parts.covariates[0]], name=parts.covariates[0]))
    if len(parts.covariates) > 1:
        rows = np.stack([columns.pop(k) for k in parts.covariates], axis=1)
        distinct, which = np.unique(rows, axis=0, return_inverse=True)
        cells = zip(parts.covariates, distinct.T, strict=True)
        frame = pd.DataFrame(
            {k: np.array(coordinates.pop(k), dtype=float)[row] for k, row in cells},
            index=pd.RangeIndex(len(distinct), name=COVARIATES),
        )
        coordinates[COVARIATES], columns[COVARIATES] = tuple(frame.index), which.ravel()
        types = [*parts.types, COVARIATES]
    space = StateSpace({k: coordinates[k] for k in [*types, *parts.states]}, tuple(types))
    return space, np.ravel_multi_index([columns[k] for k in space.coordinates], space.shape), frame


def absorbing_rows(
    parts: Parts, labels: Mapping[str, tuple[Any, ...]], codes: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return which coded rows are in an absorbing state and which in another, both none of a doubt.

    Raises
    ------
    ValueError
        If `absorbing` names a label that a column lacks.
    """
    n_rows = len(next(iter(codes.values())))
    inside, known = np.full(n_rows, bool(parts.absorbing)), np.ones(n_rows, dtype=bool)
    for name, chosen in parts.absorbing.items():
        here = {label: k for k, label in enumerate(labels[name])}
        strange = [label for label in chosen if label not in here]
        if strange:
            raise ValueError(
                f"`absorbing` names {strange[0]!r} of {name!r}, which has the labels "
                f"{list(here)}; declare it in `state_labels` if the table lacks it."
            )
        inside &= np.isin(codes[name], [here[label] for label in chosen])
        known &= codes[name] >= 0
    return inside, known & ~inside


def _changes(
    column: pa.ChunkedArray, name: str, parts: Parts, agents: Sequence[Any], agent: np.ndarray
) -> tuple[int, tuple[str, ...]]:
    """Count the agents in whom a column changes, and name three."""
    _, position = code(column, name)
    given = (agent >= 0) & (position >= 0)
    seen = np.unique(np.stack([agent[given], position[given]]), axis=1)[0]
    several = np.flatnonzero(np.bincount(seen, minlength=len(agents)) > 1)
    return len(several), tuple(f"{parts.agent}={agents[k]!r}" for k in several[:3])


def note_changes(
    faults: list[Fault], parts: Parts, name: str, n: int, examples: tuple[str, ...]
) -> None:
    """Note a type or covariate that changes within agents, n of them."""
    if n:
        kind, remedy = "type", "give one label an agent, or name the column in `state` alone"
        if name in parts.covariates:
            kind, remedy = "covariate", "give one number an agent"
        faults.append(Fault(f"{kind} {name!r} changes within an agent", n, examples, remedy))


def note_words(faults: list[Fault], kind: pa.DataType, name: str) -> None:
    """Note a covariate that is no column of numbers."""
    if not (is_number(kind) or pa.types.is_null(kind)):
        what = f"covariate {name!r} holds {'string' if is_text(kind) else kind}"
        faults.append(Fault(what, 0, (), "give numbers, or name the column in `types`"))


def _kinds(table: pa.Table) -> dict[str, pa.DataType]:
    return {name: plain_column(table[name]).type for name in table.column_names}


def check_rows(n_rows: int) -> None:
    """Raise if a table has no rows."""
    if n_rows == 0:
        raise DataError([Fault("empty table", 0, (), "give a table with rows")])


def _row_namer(table: pa.Table, agent: str, time: str) -> Where:
    """Return a function that counts the rows of a mask or of a list, and names three."""

    def where(rows: np.ndarray) -> tuple[int, tuple[str, ...]]:
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        first = rows[:3].tolist()
        return len(rows), row_names(agent, time, [(table[agent][r], table[time][r]) for r in first])

    return where


def row_names(agent: str, time: str, rows: Iterable[tuple[Any, Any]]) -> tuple[str, ...]:
    """Name rows by the Arrow scalars of their agent and time."""
    return tuple(f"{agent}={shown(a)}, {time}={shown(t)}" for a, t in rows)


def code_labels(
    faults: list[Fault],
    column: pa.ChunkedArray,
    name: str,
    declared: Sequence[Any] | None,
    where: Where,
    hint: Hint,
    *,
    optional: bool = False,
    order: Sequence[Any] | None = None,
) -> tuple[tuple[Any, ...], np.ndarray]:
    """Code a column against labels, noting missing and unknown ones.

    Labels are declared, or those that occur, in the order that the column keeps or sorted.
    """
    values, position = code(column, name)
    infinite = [v for v in sorted_labels(values) if isinstance(v, float) and math.isinf(v)]
    if infinite:
        rows = np.isin(position, [values.index(v) for v in infinite])
        what = f"label in {name!r} that is not finite: {infinite[0]}"
        remedy = "give a label, or leave the cell empty"
        raise DataError([*faults, Fault(what, *where(rows), remedy)])
    occurring = (order and in_order_of(order, values)) or sorted_labels(values) or ["?"]
    labels = check_labels(f"labels of {name}", occurring if declared is None else declared)
    here = {v: k for k, v in enumerate(labels)}
    coded = np.array([here.get(v, UNKNOWN) for v in values] + [MISSING], dtype=np.int64)[position]
    strange = sorted_labels([v for v in values if v not in here])[:3]
    if strange:
        what = f"unknown label in {name!r}: {', '.join(map(repr, strange))}"
        faults.append(Fault(what, *where(coded == UNKNOWN), f"the labels are {list(labels)}"))
    if not optional:
        note_missing(faults, name, coded == MISSING, where, hint)
    return labels, coded


def note_continuous(
    faults: list[Fault],
    parts: Parts,
    name: str,
    labels: Sequence[Any],
    n_rows: int,
    n_agents: Callable[[], int],
) -> None:
    """Note a column of numbers, too many to be labels, that nobody declared.

    A type is the same in all rows of an agent: agents count in place of rows.
    """
    declared = name in parts.labels or (name == parts.action and parts.actions is not None)
    numbers = all(isinstance(v, (int, float)) for v in labels)
    if declared or name in parts.covariates or len(labels) <= SEVERAL or not numbers:
        return
    broken = any(isinstance(v, float) for v in labels)
    n = n_agents() if name in parts.types else n_rows
    if n < ROWS_A_LABEL * len(labels) or (broken and len(labels) > MANY):
        argument = "action_labels" if name == parts.action else "type_labels"
        argument = "state_labels" if name in parts.states else argument
        asked = "= [...]" if name == parts.action else f"={{{name!r}: [...]}}"
        what = f"column {name!r} holds {len(labels)} distinct numbers"
        remedy = (
            f"put them into bins, df = mfg.discretise(df, {name}=5), or, if each is a label, list "
            f"them in {argument}{asked}"
        )
        examples = tuple(f"{v:g}" for v in labels[:3])
        faults.append(Fault(what, n_rows, examples, remedy))


def _in_order(values: list[Any], position: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Return labels sorted, with their codes, so that the order of rows plays no part."""
    ordered = sorted_labels(values)
    place = {v: k for k, v in enumerate(ordered)}
    return ordered, np.array([place.get(v, MISSING) for v in values] + [MISSING])[position]


def note_missing(
    faults: list[Fault], name: str, rows: np.ndarray, where: Where, hint: Hint = lambda name: ""
) -> None:
    """Note missing values of a column."""
    if rows.any():
        what, remedy = f"missing value in {name!r}", f"fill in or drop the rows{hint(name)}"
        faults.append(Fault(what, *where(rows), remedy))


def note_broken_times(
    faults: list[Fault], kind: pa.DataType, rows: np.ndarray, where: Where
) -> None:
    """Note times that are numbers and not integers, or too large for one."""
    if rows.any():
        far = pa.types.is_integer(kind)
        what = "time beyond 2**62" if far else "non-integer time"
        remedy = "count the periods from the first" if far else INTEGER_TIMES
        faults.append(Fault(what, *where(rows), remedy))


def _times(
    faults: list[Fault], column: pa.ChunkedArray, name: str, where: Where
) -> tuple[np.ndarray, np.ndarray, Clock]:
    """Return times as integers one step apart, which rows have one, and the step."""
    column = plain_column(column)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        dates = pd.DatetimeIndex(pd.to_datetime(column.to_pandas())).tz_localize(None)
        missing = np.asarray(dates.isna())
        note_missing(faults, name, missing, where)
        numbers, unit = dated(dates)
        return *_in_steps(numbers, ~missing), Clock(common_step(numbers[~missing]), unit)
    if not is_number(column.type):
        note_unnumbered(faults, column.type, name, where(np.ones(len(column), dtype=bool)))
        nowhere = np.zeros(len(column), dtype=bool)
        return np.zeros(len(column), dtype=np.int64), nowhere, Clock()
    if pa.types.is_integer(column.type):
        values = column.fill_null(0).to_numpy()
        missing, exact = column.is_null().to_numpy(), (values < FARTHEST) & (values > -FARTHEST)
    else:
        values = column.cast(pa.float64()).to_numpy()
        missing, exact = np.isnan(values), (np.abs(values) < EXACT) & (np.floor(values) == values)
    whole = exact & ~missing
    note_missing(faults, name, missing, where)
    note_broken_times(faults, column.type, ~whole & ~missing, where)
    numbers = np.where(whole, values, 0).astype(np.int64)
    return *_in_steps(numbers, whole), Clock(common_step(numbers[whole]))


def _in_steps(numbers: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return times counted in their common step from the first, which keeps its number."""
    first = numbers[known].min(initial=np.iinfo(np.int64).max)
    steps = first + (numbers - first) // common_step(numbers[known])
    return np.where(known, steps, 0), known


def note_unnumbered(
    faults: list[Fault], kind: pa.DataType, name: str, seen: tuple[int, tuple[str, ...]]
) -> None:
    """Note a time column of another type than numbers."""
    kind_name, remedy = "string" if is_text(kind) else kind, INTEGER_TIMES
    if pa.types.is_temporal(kind):
        remedy += "; Trajectories.from_frame takes dates"
    elif is_text(kind):
        remedy += "; pandas.to_datetime makes dates of text"
    faults.append(Fault(f"times in {name!r} are {kind_name}, not integers", *seen, remedy))


def note_pairs(
    faults: list[Fault],
    where: Mapping[str, Where],
    rows: Mapping[str, np.ndarray],
    gaps: str,
    hint: str,
) -> None:
    """Note what is wrong between an agent's rows: repeats, gaps, lost actions, ways back."""
    if rows["repeated"].any():
        seen, remedy = where["repeated"](rows["repeated"]), "keep one row per agent and time"
        faults.append(Fault("duplicate (agent, time)", *seen, remedy))
    if rows["gap"].any() and gaps == "error":
        remedy = "fill in the times, or pass gaps='split' to start a new trajectory"
        faults.append(Fault("gap in time before", *where["gap"](rows["gap"]), remedy))
    if rows["undecided"].any():
        seen = where["undecided"](rows["undecided"])
        remedy = f"only an agent's last row may lack an action{hint}"
        faults.append(Fault("missing action before the last row", *seen, remedy))
    if rows["left"].any():
        remedy = "correct the rows, or the labels in `absorbing`"
        faults.append(
            Fault("absorbing state that is left after", *where["left"](rows["left"]), remedy)
        )


def size_faults(
    time: np.ndarray, action: np.ndarray, n: np.ndarray, label: Callable[[int], Any]
) -> list[Fault]:
    """Faults of the whole panel: no decision, times of nobody, and rows that nothing leads to.

    `n` says how many rows have each time and action, `label` what a time is called.
    """
    faults = []
    if (action == MISSING).all():
        remedy = "check the `action` column"
        faults.append(Fault("no action in any row", int(n.sum()), (), remedy))
        return faults
    last = time[action != MISSING].max()
    times = np.unique(time)
    ahead = times[:-1][(np.diff(times) > 1) & (times[:-1] < last)]
    if len(ahead):
        empty = [t for a in ahead[:3].tolist() for t in range(a + 1, a + 4) if t not in times]
        examples = tuple(
            f"time={label(t)}" for t in list(dict.fromkeys(t for t in empty if t <= last))[:3]
        )
        remedy = "give periods one step apart, or fit the spells apart"
        remedy += uneven(times, label)
        faults.append(Fault("no agent observed at a time within the panel", 0, examples, remedy))
    late = time > last + 1
    if late.any():
        examples = tuple(f"time={label(t)}" for t in np.unique(time[late])[:3])
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
        groups[name] = index_of([*values, None])[first[kept]]
    if faults:
        raise DataError(faults)
    return groups
