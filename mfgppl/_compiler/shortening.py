"""Fewer instructions for the same outputs: entries that are moved several times are moved once.

Tables that are stacked of rows that are stacked of numbers become chains of copies by lists of
places. Each is taken from where its entries were first, as long as nothing has been written there
since, and instructions of which nothing reads the result are left out.
"""

import math

import numpy as np

from mfgppl._kernels.tape import N_DIMS, ZERO, Op, Tape

# numbers of operations, which an Enum is slow to look up
COPY, GATHER, SCATTER, SCATTER_ADD = map(int, (Op.COPY, Op.GATHER, Op.SCATTER, Op.SCATTER_ADD))
LONGEST = 4096  # entries of an operand up to which its places are listed one by one
# those that gather in `out`, which they read
ACCUMULATED = frozenset(map(int, (Op.SUM, Op.DOT, Op.LARGEST, Op.SMALLEST, Op.SCATTER_ADD)))
FIRST_SIZE, FIRST_STRIDE = 5, 5 + N_DIMS

Row = np.ndarray
Places = np.ndarray | slice


def shortened(tape: Tape) -> Tape:
    """Return a tape of the same inputs and outputs with at most as many instructions."""
    if not (tape.code[:, 0] == GATHER).any():
        return tape
    code, lists = _from_the_first(tape)
    kept = _read_later(tape, code, lists)
    rows: list[np.ndarray] = []
    places: list[np.ndarray] = [np.zeros(0, np.int64)]
    n = 0
    for k in np.flatnonzero(kept).tolist():
        row, moved = code[k].copy(), lists[k]
        if moved is not None:
            places.append(moved)
            row[3], n = n, n + len(moved)
        rows.append(row)
    counts = np.concatenate([[0], np.cumsum(kept)])
    return tape._replace(
        code=np.array(rows, dtype=np.int64).reshape(-1, tape.code.shape[1]),
        places=np.concatenate(places),
        ends=[int(counts[end]) for end in tape.ends],
    )


def _from_the_first(tape: Tape) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """Return instructions and their lists, each entry taken from where it was before its copies.

    A stage looks no further back than to its own beginning.
    """
    code = tape.code.copy()
    lists = [_list_of(tape, row) for row in code]
    writer = np.full(len(tape.buffer), -1)
    begins = np.repeat([0, *tape.ends], np.diff([0, *tape.ends, len(code)]))
    for k, row in enumerate(code):
        moved = lists[k] if row[0] == GATHER else _as_list(row)
        if moved is not None:
            before = _resolved(moved, writer, code, lists, begins[k])
            out = int(row[1]) if row[0] == GATHER else _first(row)
            # entries are moved one after the other, so that none may lie where others go
            if before is not None and not ((before >= out) & (before < out + len(before))).any():
                code[k], lists[k] = _gather(out, len(before)), before
        writer[_written(code[k], lists[k])] = k
    return code, lists


def _resolved(
    moved: np.ndarray,
    writer: np.ndarray,
    code: np.ndarray,
    lists: list[np.ndarray | None],
    first: int,
) -> np.ndarray | None:
    """Return where entries were before they were copied; None if none was."""
    found, by = moved.copy(), writer[moved]
    for w in np.unique(by[by >= first]).tolist():
        earlier = lists[w]
        if code[w, 0] != GATHER or earlier is None:
            continue
        here = by == w
        source = earlier[moved[here] - code[w, 1]]
        still = writer[source] < w  # nothing has been written there since
        found[np.flatnonzero(here)[still]] = source[still]
    return found if (found != moved).any() else None


def _read_later(tape: Tape, code: np.ndarray, lists: list[np.ndarray | None]) -> np.ndarray:
    """Return which instructions leave something that is read later, or is an output."""
    live, kept = np.zeros(len(tape.buffer), dtype=bool), np.zeros(len(code), dtype=bool)
    ends = [0, *tape.ends]
    for stage in range(len(tape.ends) - 1, -1, -1):
        live[tape.outputs[stage]] = True
        for k in range(ends[stage + 1] - 1, ends[stage] - 1, -1):
            row, written = code[k], _written(code[k], lists[k])
            kept[k] = live[written].any()
            if not kept[k]:
                continue
            if not isinstance(written, slice) and row[0] not in ACCUMULATED:
                live[written] = False
            for read in _reads(row, lists[k]):
                live[read] = True
    return kept


def _list_of(tape: Tape, row: Row) -> np.ndarray | None:
    """Return the list of places that an instruction goes through."""
    if row[0] not in (GATHER, SCATTER, SCATTER_ADD):
        return None
    return tape.places[row[3] : row[3] + row[FIRST_SIZE + N_DIMS - 1]].copy()


def _as_list(row: Row) -> np.ndarray | None:
    """Return the list by which a copy to entries in a row could go; None if it is none."""
    if row[0] != COPY:
        return None
    out, source = _entries(row, 0), _entries(row, 1)
    if isinstance(out, slice) or isinstance(source, slice):
        return None
    order = np.argsort(out, kind="stable")
    together = np.array_equal(out[order], out[order[0]] + np.arange(len(out)))
    return source[order] if together else None


def _gather(out: int, n: int) -> Row:
    """Return the instruction that fills n entries by a list of places."""
    row = np.zeros(FIRST_SIZE + 5 * N_DIMS, dtype=np.int64)
    row[:5] = GATHER, out, ZERO, 0, ZERO
    row[FIRST_SIZE : FIRST_SIZE + N_DIMS] = [1] * (N_DIMS - 1) + [n]
    return row


def _first(row: Row) -> int:
    """Return the first place that an instruction writes to."""
    out = _entries(row, 0)
    return int(out.start if isinstance(out, slice) else out.min())


def _entries(row: Row, operand: int) -> Places:
    """Return the places of an operand in the order of the loops; of a long one the span."""
    first = FIRST_STRIDE + operand * N_DIMS
    start, strides = int(row[1 + operand]), row[first : first + N_DIMS].tolist()
    sizes = row[FIRST_SIZE : FIRST_SIZE + N_DIMS].tolist()
    if math.prod(sizes) > LONGEST:
        ends = [(size - 1) * stride for size, stride in zip(sizes, strides, strict=True)]
        return slice(
            start + sum(e for e in ends if e < 0), start + sum(e for e in ends if e > 0) + 1
        )
    places = np.array([start])
    for size, stride in zip(sizes, strides, strict=True):
        if size != 1:
            places = (places[:, None] + stride * np.arange(size)).ravel()
    return places


def _in_a_row(start: int, n: int) -> Places:
    return np.arange(start, start + n) if n <= LONGEST else slice(start, start + n)


def _written(row: Row, places: np.ndarray | None) -> Places:
    """Return where an instruction writes."""
    if places is None:
        return _entries(row, 0)
    return _in_a_row(int(row[1]), len(places)) if row[0] == GATHER else places


def _reads(row: Row, places: np.ndarray | None) -> list[Places]:
    """Return what an instruction reads; what gathers in `out` reads that too, which stays live."""
    if places is None:
        return [_entries(row, operand) for operand in (1, 2, 3)]
    if row[0] == GATHER:
        return [places]
    return [_in_a_row(int(row[2]), len(places))]
