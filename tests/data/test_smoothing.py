"""Smoothing of transitions: it invents no move, and says what it decides."""

import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from games import ROUNDING
from hypothesis import given, settings
from hypothesis import strategies as st

import mfgppl as mfg
from mfgppl.data.counting import CountedPanel

KINDS, LEVELS, MOVES = ["large", "small"], [0, 1, 2], ["move", "stay"]
COLUMNS = ["agent", "time", "kind", "level", "action"]
LABELS = {"state_labels": {"kind": KINDS, "level": LEVELS}, "action_labels": MOVES}


def read(rows: list[tuple], **options) -> mfg.Trajectories:
    """Read rows of agent, time, kind, level and action."""
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return mfg.Trajectories.from_frame(frame, state=["kind", "level"], **(LABELS | options))


def firms(n_agents: int = 40, n_times: int = 6) -> list[tuple]:
    """Return rows of firms whose kind never changes, and whose level changes by `move` only."""
    rng, rows = np.random.default_rng(0), []
    for agent in range(n_agents):
        level = int(rng.integers(3))
        for time in range(n_times):
            move = MOVES[int(rng.integers(2))]
            rows.append((agent, time, KINDS[agent % 2], level, move))
            level = int(rng.integers(3)) if move == "move" else level
    return rows


@st.composite
def tables(draw) -> list[tuple]:
    """Draw rows of two to four agents over two to four times, of any kinds and levels."""
    sizes = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    cell = st.tuples(st.sampled_from(KINDS), st.sampled_from(LEVELS), st.sampled_from(MOVES))
    return [(a, t, *draw(cell)) for a in range(sizes[0]) for t in range(sizes[1])]


def seen_moves(rows: list[tuple], place: int, action: str | None) -> set[tuple]:
    """Return the moves (from, to) of one coordinate under one action, or under any."""
    ordered = sorted(rows, key=lambda r: r[:2])
    pairs = [(r, n) for r, n in itertools.pairwise(ordered) if r[0] == n[0]]
    return {(r[place], n[place]) for r, n in pairs if action is None or r[4] == action}


def may_move(rows: list[tuple], place: int, action: str, here, there) -> bool:
    """Whether a coordinate may go from one value to another under an action."""
    for moves in (seen_moves(rows, place, action), seen_moves(rows, place, None)):
        if any(start == here for start, _ in moves):
            return (here, there) in moves
    return True


@settings(max_examples=20, deadline=None)
@given(tables(), st.booleans())
def test_mass_goes_where_each_coordinate_was_seen_to_go(rows, by_time):
    """The support is what loops over rows find, and mass is positive there and nowhere else."""
    panel = read(rows)
    estimate = panel.estimate_transition(prior_count=0.5, by_time=by_time)
    states = list(itertools.product(KINDS, LEVELS))
    for (s, here), (a, action), (x, there) in itertools.product(
        enumerate(states), enumerate(MOVES), enumerate(states)
    ):
        expected = all(may_move(rows, 2 + k, action, here[k], there[k]) for k in (0, 1))
        row = estimate.probabilities.isel(state=s, action=a, next_state=x)
        assert ((row > 0) == expected).all()
    sums = estimate.probabilities.sum("next_state")
    np.testing.assert_allclose(sums, 1.0, atol=ROUNDING)
    counted = CountedPanel.from_trajectories(panel)
    other = counted.estimate_transition(prior_count=0.5, by_time=by_time)
    assert other.probabilities.identical(estimate.probabilities)


def test_what_never_changes_does_not_change():
    """No mass leaks from one kind to the other, also in cells that nobody shows."""
    rows = [r for r in firms() if r[2:4] != ("small", 2)]  # a kind without one of the levels
    estimate = read(rows, gaps="split").estimate_transition(prior_count=0.5)
    table = estimate.probabilities.values.reshape(2, 3, 2, 2, 3)
    assert table[0, :, :, 1].max() == 0.0
    assert table[1, :, :, 0].max() == 0.0
    # a firm that stays keeps its level
    stays = table.sum(3)[:, :, 1]
    np.testing.assert_allclose(stays, np.broadcast_to(np.eye(3), (2, 3, 3)), atol=ROUNDING)


def test_an_action_never_taken_from_a_value_moves_as_under_all():
    """A kind that never stays keeps its kind; what its level does is known of the other kind."""
    rows = [(*r[:4], "move") if r[2] == "small" else r for r in firms()]
    table = read(rows).estimate_transition(prior_count=0.5).probabilities
    small = table.sel(action="stay").values.reshape(2, 3, 2, 3)[1]
    np.testing.assert_allclose(small.sum(2), [[0, 1]] * 3, atol=ROUNDING)
    np.testing.assert_allclose(small[:, 1], np.eye(3), atol=ROUNDING)


def test_a_value_that_nothing_leads_from_may_go_anywhere():
    """Nothing is known of a label that never occurs: its rows are uniform, and named as decided."""
    labels = {"state_labels": {"kind": [*KINDS, "new"], "level": LEVELS}}
    estimate = read(firms(), **labels).estimate_transition(prior_count=0.5)
    row = estimate.probabilities.sel(state="new, 0", action="stay").values.reshape(3, 3)
    np.testing.assert_allclose(row, np.outer([1 / 3] * 3, [1, 0, 0]), atol=ROUNDING)
    assert "state='new, 0', action='stay'" in estimate.smoothing().decided


def test_all_next_states_on_request():
    """With support="all" each next state gets the pseudo-count."""
    estimate = read(firms()).estimate_transition(prior_count=0.5, support="all")
    expected = estimate.counts + 0.5
    expected = expected / expected.sum("next_state")
    np.testing.assert_allclose(estimate.probabilities, expected, atol=ROUNDING)


@pytest.mark.parametrize("form", ["full", "square", "labelled"])
def test_a_table_of_what_is_possible(form):
    """A table of booleans is the support, in the panel's order or by its own labels."""
    panel = read(firms())
    square = np.kron(np.eye(2), np.ones((3, 3))).astype(bool)  # any level, the same kind
    support = np.repeat(square[:, None], 2, axis=1) if form == "full" else square
    if form == "labelled":
        states = list(panel.space.labels)
        support = xr.DataArray(
            square[::-1], dims=("state", "next_state"),
            coords={"state": states[::-1], "next_state": states},
        )  # fmt: skip
    estimate = panel.estimate_transition(prior_count=0.5, support=support)
    expected = estimate.counts + 0.5 * square[:, None]
    expected = expected / expected.sum("next_state")
    np.testing.assert_allclose(estimate.probabilities, expected, atol=ROUNDING)


def test_wrong_supports_are_refused():
    """Words, shapes, types, closed rows and steps outside a table are each named."""
    panel, everything = read(firms()), np.ones((6, 6), dtype=bool)
    cases = [
        ("sean", ValueError, "`support`.*did you mean `seen`"),
        (np.ones((6, 5), dtype=bool), ValueError, r"`support` must have shape .*\(6, 5\)"),
        (np.ones((6, 6)), TypeError, "`support`.*table of booleans; got float64"),
        (everything & ~np.eye(6, dtype=bool), mfg.exceptions.DataError, "step outside `support`"),
        (everything & (np.arange(6) > 0)[:, None], ValueError, "none for state='large, 0'"),
        (xr.DataArray(everything, dims=("state", "action")), ValueError, "dims|entries"),
        (xr.DataArray(everything, dims=("state", "next_state"), coords={"state": list("abcdef")}),
         ValueError, "`support` lacks 'large, 0' along 'state'"),
    ]  # fmt: skip
    for support, kind, words in cases:
        with pytest.raises(kind, match=words):
            panel.estimate_transition(prior_count=0.5, support=support)


def test_available_rows_are_uniform_over_what_is_possible():
    """Rows that no game uses keep the kind as well, and smoothing does not count them."""
    available = np.ones((6, 2), dtype=bool)
    available[3:, 1] = False  # the small do not stay
    rows = [(*r[:4], "move") if r[2] == "small" else r for r in firms()]
    estimate = read(rows).estimate_transition(available=available)
    table = estimate.probabilities.sel(action="stay").values.reshape(2, 3, 2, 3)
    assert table[1, :, 0].max() == 0.0
    found = estimate.smoothing()
    assert (found.share, found.decided) == (0.0, ())
    assert int(np.isnan(found.weight).sum()) == 3
    with pytest.raises(TypeError, match="`available` must hold booleans"):
        read(rows).estimate_transition(available=available.astype(float) * 7)


def walks(*states: str) -> pd.DataFrame:
    """Return a table of agents who walk through the given states, a letter each."""
    rows = [(a, t, s, "go") for a, walk in enumerate(states) for t, s in enumerate(walk)]
    return pd.DataFrame(rows, columns=["agent", "time", "state", "action"])


def test_smoothing_says_how_much_it_moves_by_hand():
    """Two rows of one, and of three steps: shares moved and weights are those of the fractions."""
    frame = walks("xyx", "xxx")
    estimate = mfg.Trajectories.from_frame(frame).estimate_transition(prior_count=1.0)
    # from x: to x twice, to y once; from y: to x once, and no other move was seen
    found = estimate.smoothing()
    np.testing.assert_allclose(estimate.probabilities[:, 0], [[3 / 5, 2 / 5], [1, 0]])
    np.testing.assert_allclose(found.moved[:, 0], [2 / 3 - 3 / 5, 0], atol=ROUNDING)
    np.testing.assert_allclose(found.weight[:, 0], [2 / 5, 1 / 2], atol=ROUNDING)
    assert found.share == pytest.approx(3 / 4 * (2 / 3 - 3 / 5), abs=ROUNDING)
    assert found.decided == ("state='y', action='go'",)
    assert str(found) == (
        "smoothing moves 5.00% of the mass of the observed steps' rows; "
        "it decides 1 of 2 rows (state='y', action='go')."
    )


def test_smoothing_by_time_names_the_time():
    """A row without steps at a time is all smoothing, and is named with the time."""
    frame = walks("xyx", "xxx")
    panel = mfg.Trajectories.from_frame(frame)
    found = panel.estimate_transition(prior_count=0.25, by_time=True).smoothing()
    assert found.weight.dims == ("time", "state", "action")
    assert found.decided == ("time=0, state='y', action='go'",)
    assert float(found.moved[0, 1, 0]) == 1.0
