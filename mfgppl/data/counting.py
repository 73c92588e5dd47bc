"""Panels of any size, counted where their table lives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import pyarrow as pa

from mfgppl._arguments import strict_keywords
from mfgppl.data.engines import answer, column_types, opened, renamed
from mfgppl.data.panel import Counts, Panel
from mfgppl.data.reading import (
    FARTHEST,
    MISSING,
    UNKNOWN,
    Parts,
    check_rows,
    code,
    code_labels,
    is_number,
    note_broken_times,
    note_missing,
    note_pairs,
    note_unnumbered,
    one_type_a_column,
    parts_of,
    read_panel,
    row_names,
    select,
    size_faults,
)
from mfgppl.data.space import StateSpace
from mfgppl.data.trajectories import Trajectories
from mfgppl.exceptions import DataError, Fault

BLANK = "".join(c for c in map(chr, range(0x3001)) if c.isspace())
CELLS = ("agent_missing", "time_missing", "time_broken")
LINKS = ("back", "step", "lasted")
PAIRS = {
    "repeated": nw.col("back") == 0,
    "gap": nw.col("back") > 1,
    "undecided": (nw.col("step") == 1) & ~nw.col("decided"),
}
LONG_AGO = -int(FARTHEST)
FIRST = -1  # in place of the time since the previous row where there is none


@dataclass(frozen=True, eq=False, repr=False)
class CountedPanel(Panel):
    """A panel reduced to its counts where its table lives; read it with `from_frame`.

    It has no rows: what needs the trajectories one by one (scores by trajectory, clustered
    standard errors, the bootstrap) needs `Trajectories`.

    Attributes
    ----------
    space : StateSpace
        The state coordinates and their labels.
    actions : tuple
        Action labels, length A.
    first_time : int
        The time of the data that is `t = 0`.
    horizon : int
        Number of decision times T.
    counts : Counts
        Sufficient statistics of the likelihoods.
    visits : ndarray, shape (T + 1, S)
        Agents seen by time and state, deciding or not; row T follows the last decision.
    steps : ndarray of int, shape (n_steps, 4)
        The distinct observed steps (t, s, a, s'), sorted.
    step_counts : ndarray, shape (n_steps,)
        How often each step was seen.
    n_agents, n_trajectories : int
        Distinct agents, and runs of consecutive times of one agent.
    n_late : int
        Trajectories that begin after the first time.
    lengths : tuple of int
        Decisions in the shortest and in the longest trajectory.
    """

    space: StateSpace
    actions: tuple[Any, ...]
    first_time: int
    horizon: int
    counts: Counts
    visits: np.ndarray
    steps: np.ndarray
    step_counts: np.ndarray
    n_agents: int
    n_trajectories: int
    n_late: int
    lengths: tuple[int, int]

    @classmethod
    @strict_keywords
    def from_frame(
        cls,
        frame: Any,
        *,
        agent: str = "agent",
        time: str = "time",
        state: str | Sequence[str] = "state",
        action: str = "action",
        state_labels: Mapping[str, Sequence[Any]] | None = None,
        action_labels: Sequence[Any] | None = None,
        gaps: str = "error",
    ) -> "CountedPanel":
        """Check and count a table with one row per agent and time, on the table's own engine.

        Only small tables of counts leave the engine; they equal those of
        `Trajectories.from_frame`. Files are read by DuckDB, or else polars, in bounded memory.

        Parameters
        ----------
        frame : table or path
            A lazy table that narwhals reads (a polars LazyFrame, a DuckDB relation, a Dask or
            Spark dataframe), a table in memory, or the path of a Parquet file, a folder of them, a
            CSV file (also gzipped) or a pattern of such files.
        agent, time, action : str
            Column names. Times are integers, one step apart. The action may be empty in an
            agent's last row: a state is seen, no decision.
        state : str or list of str
            Column or columns whose product is the state.
        state_labels : mapping of str to list, optional
            Labels of each state column in order; by default those in the table, sorted.
        action_labels : list, optional
            Labels of the actions in order; by default those in the table, sorted.
        gaps : {"error", "split"}
            Whether a missing time within an agent is a fault or starts a new trajectory.

        Returns
        -------
        CountedPanel
            The counts of the panel.

        Raises
        ------
        DataError
            With all faults of the table at once, as `Trajectories.from_frame` finds them.
        ImportError
            If `frame` is a path and neither DuckDB nor polars is installed.
        """
        columns: dict[str, Any] = {"agent": agent, "time": time, "state": state, "action": action}
        labels = {"state": state_labels, "action": action_labels}
        parts = parts_of(columns, labels, (), gaps)
        with opened(frame) as table, one_type_a_column():
            rows = select(table, parts.wanted)
            if isinstance(rows, nw.DataFrame):
                in_memory = read_panel(table, parts, groups=(), gaps=gaps)
                return cls.from_trajectories(Trajectories(**in_memory))
            return cls(**_count(rows, parts, gaps))

    @classmethod
    def from_trajectories(cls, panel: Trajectories) -> "CountedPanel":
        """Reduce a panel in memory to its counts."""
        steps, n = panel.transition_counts()
        shared = ("space", "actions", "first_time", "horizon", "counts", "visits")
        sizes = ("n_agents", "n_trajectories", "n_late", "lengths")
        fields = {name: getattr(panel, name) for name in shared + sizes}
        return cls(steps=steps, step_counts=n, **fields)

    def transition_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct observed steps, rows (t, s, a, s'), and how often each was seen."""
        return self.steps, self.step_counts

    def pooled(self) -> "CountedPanel":
        """Return the panel with all its times taken for one, as a stationary game sees it."""
        steps, which = np.unique(self.steps[:, 1:], axis=0, return_inverse=True)
        counts = Counts(*(n.sum(0, keepdims=True) for n in self.counts))
        counts.ends_seen[0] += self.visits[self.horizon]  # seen after the last decision
        counts.ends_unseen[0] = 0.0
        visits = self.visits.sum(0, keepdims=True)
        return replace(
            self,
            first_time=0,
            horizon=1,
            counts=counts,
            n_late=0,
            visits=np.concatenate([visits, np.zeros_like(visits)]),
            steps=np.insert(steps, 0, 0, axis=1),
            step_counts=np.bincount(which.ravel(), self.step_counts, minlength=len(steps)),
        )

    def recode(self, space: StateSpace, actions: Sequence[Any]) -> "CountedPanel":
        """Return the same panel coded against another order of labels, all of them known there.

        Raises
        ------
        ValueError
            If the panel has a coordinate or label that `space` or `actions` lacks.
        """
        states, moves = self._places(space, actions)
        by_state = partial(_spread, size=space.size, places=states, axis=1)
        by_action = partial(_spread, size=len(actions), places=moves, axis=2)
        counts = [by_state(n) if n.ndim == 2 else by_action(by_state(n)) for n in self.counts]
        t, s, a, following = self.steps.T
        steps = np.stack([t, states[s], moves[a], states[following]], axis=1)
        order = np.lexsort(steps.T[::-1])
        return replace(
            self,
            space=space,
            actions=tuple(actions),
            counts=Counts(*counts),
            visits=by_state(self.visits),
            steps=steps[order],
            step_counts=self.step_counts[order],
        )


def _spread(n: np.ndarray, *, size: int, places: np.ndarray, axis: int) -> np.ndarray:
    """Return counts moved to other places of a longer axis, zero elsewhere."""
    shape = list(n.shape)
    shape[axis] = size
    wide = np.zeros(shape)
    wide[(slice(None),) * axis + (places,)] = n
    return wide


def _count(table: Any, parts: Parts, gaps: str) -> dict[str, Any]:
    """Check and count a lazy table; return the fields of `CountedPanel`."""
    states = [f"state {k}" for k in range(len(parts.states))]
    names = ["agent", "time", *states, "action"]
    rows = renamed(table, dict(zip(parts.wanted, names, strict=True)))
    faults: list[Fault] = []
    marked = partial(_marked, states=states)
    space, actions, n_rows = _labels(faults, rows, marked, parts)

    def linked(part: Any) -> Any:
        return _linked(marked(part), states, gaps)

    keys = ["period", *states, "action", *[f"next {k}" for k in states], *LINKS]
    ask = partial(answer, rows, by="agent", n_rows=n_rows)
    coded = _coded(ask(partial(_tally, by=linked, keys=keys)), space, actions, parts.action)
    name_rows = partial(_named, ask, linked, parts)
    seen = {k: partial(_seen, coded.n, partial(_pair, k), name_rows) for k in PAIRS}
    undecided = (coded.step == 1) & (coded.action == MISSING)
    pairs = {"repeated": coded.back == 0, "gap": coded.back > 1, "undecided": undecided}
    note_pairs(faults, seen, pairs, gaps)
    if len(coded.n):
        n_agents = int(coded.n[coded.back == FIRST].sum())
        faults += size_faults(n_agents, coded.time, coded.action, coded.n)
    if faults:
        raise DataError(faults)
    return {"space": space, "actions": actions, **_statistics(coded, space.size, len(actions))}


def _marked(rows: Any, states: Sequence[str]) -> Any:
    """Add integer times, which rows decide, and which lack an agent or an integer time."""
    kinds = rows.collect_schema()
    flags = {
        "agent_missing": ~_is_given("agent", kinds["agent"]),
        "decided": _is_given("action", kinds["action"]),
    }
    if not kinds["time"].is_numeric():
        whole = {"time_missing": nw.lit(False), "time_broken": nw.lit(True)}
        return rows.with_columns(period=nw.lit(0, nw.Int64), **flags, **whole)
    if kinds["time"].is_integer():
        given, broken, time = ~nw.col("time").is_null(), nw.lit(False), nw.col("time")
    else:
        time = nw.col("time").cast(nw.Float64)
        given = _is_given("time", nw.Float64())
        broken = given & ~((time.abs() < FARTHEST) & (time.floor() == time))
    period = nw.when(given & ~broken).then(time).cast(nw.Int64)
    return rows.with_columns(period=period, time_missing=~given, time_broken=broken, **flags)


def _is_given(name: str, kind: Any) -> nw.Expr:
    """Whether a cell holds something: no null, NaN or blank."""
    given = ~nw.col(name).is_null()
    if isinstance(kind, (nw.String, nw.Categorical, nw.Enum)):
        return given & (nw.col(name).cast(nw.String).str.strip_chars(BLANK) != "")
    return given & ~nw.col(name).is_nan() if kind.is_float() else given


def _linked(marked: Any, states: Sequence[str], gaps: str) -> Any:
    """Keep rows with agent and time, and add what precedes and follows each within its agent.

    `back` and `step` are the times since the previous and to the next row (2 for more), null where
    there is none; `lasted` is the number of earlier rows of the trajectory, at its last row.
    """
    rows = marked.filter(
        ~(nw.col("agent_missing") | nw.col("time_missing") | nw.col("time_broken"))
    )
    time = nw.col("period")

    def within_agent(column: nw.Expr) -> nw.Expr:
        return column.over("agent", order_by=["period", "decided"])

    rows = rows.with_columns(
        back=_at_most_two(time - within_agent(time.shift(1))),
        step=_at_most_two(within_agent(time.shift(-1)) - time),
        since=within_agent(time.cum_min()),
        **{f"after {k}": within_agent(nw.col(k).shift(-1)) for k in states},
    )
    back, step = nw.col("back"), nw.col("step")
    if gaps == "split":
        # a column of its own: narwhals' windows over pandas take no expression of several columns
        begin = nw.when(back.is_null() | (back > 1)).then(time)
        rows = rows.with_columns(begin=begin.otherwise(nw.lit(LONG_AGO, nw.Int64)))
        rows = rows.with_columns(since=within_agent(nw.col("begin").cum_max()))
    return rows.with_columns(
        lasted=nw.when(step.is_null() | (step > 1)).then(time - nw.col("since")),
        **{f"next {k}": nw.when(step == 1).then(nw.col(f"after {k}")) for k in states},
    )


def _at_most_two(step: nw.Expr) -> nw.Expr:
    return nw.when(step > 1).then(nw.lit(2, nw.Int64)).otherwise(step)


def _tally(rows: Any, *, by: Callable[[Any], Any], keys: Sequence[str]) -> Any:
    """Count rows by columns that `by` adds."""
    return by(rows).group_by(*keys).agg(n=nw.len())


def _labels(
    faults: list[Fault], rows: Any, marked: Callable[[Any], Any], parts: Parts
) -> tuple[StateSpace, tuple[Any, ...], int]:
    """Return states, actions and the number of rows, noting what is wrong with single cells."""
    states = [f"state {k}" for k in range(len(parts.states))]
    types = column_types(rows)
    cells = answer(rows, partial(_tally, by=marked, keys=[*states, "action", *CELLS]))
    n = cells["n"].to_numpy()
    check_rows(parts, int(n.sum()))
    name_rows = partial(_named, partial(answer, rows), marked, parts)
    seen = {
        k: partial(_seen, n, partial(_alike, cells[k], k), name_rows)
        for k in [*states, "action", *CELLS]
    }
    mask = {k: cells[k].to_numpy(zero_copy_only=False).astype(bool) for k in CELLS}

    code(types.empty_table()["agent"], parts.agent)
    note_missing(faults, parts.agent, mask["agent_missing"], seen["agent_missing"])
    kind = types.field("time").type
    if is_number(kind):
        note_missing(faults, parts.time, mask["time_missing"], seen["time_missing"])
        note_broken_times(faults, mask["time_broken"], seen["time_broken"])
    else:
        note_unnumbered(faults, kind, parts.time, seen["time_broken"](mask["time_broken"]))
    coordinates = {
        name: code_labels(faults, cells[key], name, parts.labels.get(name), seen[key])[0]
        for key, name in zip(states, parts.states, strict=True)
    }
    actions, _ = code_labels(
        faults, cells["action"], parts.action, parts.actions, seen["action"], optional=True
    )
    return StateSpace(coordinates), actions, int(n.sum())


def _seen(
    n: np.ndarray,
    keep: Callable[[np.ndarray], nw.Expr],
    name_rows: Callable[[nw.Expr], tuple[str, ...]],
    mask: np.ndarray,
) -> tuple[int, tuple[str, ...]]:
    """Count the rows of some groups of sizes `n`, and name three."""
    return int(n[mask].sum()), name_rows(keep(mask))


def _pair(name: str, mask: np.ndarray) -> nw.Expr:
    """Tell rows with a fault between them and the next or previous one."""
    return PAIRS[name]


def _alike(cells: pa.ChunkedArray, name: str, mask: np.ndarray) -> nw.Expr:
    """Tell rows that share the cell of a column with some groups; of many cells, three."""
    values = sorted(cells.filter(pa.array(mask)).unique().to_pylist(), key=repr)[:3]
    column = nw.col(name)
    known = [v for v in values if v is not None and v == v]
    if known and isinstance(known[0], (str, float)):
        column = column.cast(nw.String if isinstance(known[0], str) else nw.Float64)
    tests = [column.is_in(known)] if known else []
    tests += [column.is_null()] if None in values else []
    tests += [column.is_nan()] if any(v != v for v in values) else []
    return nw.any_horizontal(*tests, ignore_nulls=True)


def _named(
    ask: Callable[[Any], pa.Table], by: Callable[[Any], Any], parts: Parts, keep: nw.Expr
) -> tuple[str, ...]:
    """Name the first three rows, by agent and time, of those that `keep` marks."""
    order = ["agent", "time"]
    found = ask(lambda rows: by(rows).filter(keep).select(*order).sort(*order).head(3))
    found = found.sort_by([(name, "ascending") for name in order]).slice(0, 3)
    return row_names(parts.agent, parts.time, zip(found["agent"], found["time"], strict=True))


class _Coded(NamedTuple):
    """Groups of like rows, by their codes, shape (n_groups,) each; `n` is the size of a group.

    `back` and `step` are FIRST where there is no earlier and no later row.
    """

    time: np.ndarray
    state: np.ndarray
    action: np.ndarray
    following: np.ndarray
    back: np.ndarray
    step: np.ndarray
    lasted: np.ndarray
    n: np.ndarray


def _coded(groups: pa.Table, space: StateSpace, actions: Sequence[Any], action: str) -> _Coded:
    """Code the groups; states that are missing or unknown count as the first."""
    coordinates = list(enumerate(space.coordinates.items()))
    state, following = (
        np.ravel_multi_index(
            [
                np.maximum(_positions(groups[f"{prefix}state {k}"], name, labels), 0)
                for k, (name, labels) in coordinates
            ],
            space.shape,
        )
        for prefix in ("", "next ")
    )
    time, back, step, lasted, n = (
        groups[k].cast(pa.int64()).fill_null(FIRST).to_numpy()
        for k in ("period", "back", "step", "lasted", "n")
    )
    move = _positions(groups["action"], action, actions)
    return _Coded(time, state, move, following, back, step, lasted, n)


def _positions(column: pa.ChunkedArray, name: str, labels: Sequence[Any]) -> np.ndarray:
    """Return where each cell stands among labels, MISSING or UNKNOWN where it does not."""
    values, position = code(column, name)
    here = {v: k for k, v in enumerate(labels)}
    return np.array([here.get(v, UNKNOWN) for v in values] + [MISSING], dtype=np.int64)[position]


def _statistics(rows: _Coded, S: int, A: int) -> dict[str, Any]:
    """Add up what a panel without rows keeps."""
    first_time = int(rows.time.min())
    t, s, a, n = rows.time - first_time, rows.state, rows.action, rows.n
    acted, begins, ends = a >= 0, rows.back != 1, rows.step != 1
    T = int(t[acted].max()) + 1

    def total(where: np.ndarray, *codes: np.ndarray) -> np.ndarray:
        sums = np.zeros((T, S, A)[: len(codes)])
        np.add.at(sums, tuple(code[where] for code in codes), n[where])
        return sums

    visits = np.zeros((T + 1, S))
    np.add.at(visits, (t, s), n)
    follows = acted & ~ends
    steps = np.stack([t, s, a, rows.following], axis=1)[follows]
    steps, which = np.unique(steps, axis=0, return_inverse=True)
    lengths = (rows.lasted + acted)[ends]
    return {
        "first_time": first_time,
        "horizon": T,
        "counts": Counts(
            actions=total(acted, t, s, a),
            starts=total(begins & acted, t, s),
            ends_seen=total(ends & ~acted & ~begins & (t < T), t, s),
            ends_unseen=total(ends & acted & (t < T - 1), t, s, a),
        ),
        "visits": visits,
        "steps": steps,
        "step_counts": np.bincount(which.ravel(), weights=n[follows], minlength=len(steps)),
        "n_agents": int(n[rows.back == FIRST].sum()),
        "n_trajectories": int(n[begins].sum()),
        "n_late": int(n[begins & (t > 0)].sum()),
        "lengths": (int(lengths.min()), int(lengths.max())),
    }
