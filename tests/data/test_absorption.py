"""Absorbing states: agents who leave the table from one stay in the crowd."""

import pickle

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
from data.engines import ENGINES, assert_same, faults_of, to_duckdb, to_polars
from games import ROUNDING
from hypothesis import given, settings
from hypothesis import strategies as st

import mfgppl as mfg
from mfgppl.data.composition import composition_changes, entrants, leavers
from mfgppl.data.counting import CountedPanel
from mfgppl.data.selection import before

COLUMNS = ["agent", "time", "law", "side", "action"]
LABELS = {
    "state": ["law", "side"],
    "state_labels": {"law": ["no", "yes"], "side": ["l", "r"]},
    "action_labels": ["wait", "pass"],
}
ROWS = [
    ("a", 0, "no", "l", "pass"), ("a", 1, "yes", "l", None),
    ("b", 0, "no", "r", "wait"), ("b", 1, "no", "r", "pass"), ("b", 2, "yes", "r", "wait"),
    ("c", 0, "no", "l", "wait"), ("c", 1, "no", "l", "wait"), ("c", 2, "no", "l", "wait"),
    ("c", 3, "no", "r", "wait"), ("c", 4, "no", "r", None),
    ("d", 0, "no", "r", "wait"),
    ("e", 1, "yes", "r", "wait"), ("e", 2, "yes", "l", "wait"), ("e", 3, "yes", "l", "wait"),
    ("e", 4, "yes", "l", None),
]  # fmt: skip


def read(rows=ROWS, **options) -> mfg.Trajectories:
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return mfg.Trajectories.from_frame(frame, **(LABELS | {"absorbing": {"law": "yes"}} | options))


def test_who_is_carried_by_hand():
    """States whose law has passed leave at 1 and 2 and stay to the end; who was there is there."""
    panel = read()
    assert panel.carried.tolist() == [3, 2, 0, 0, 0]
    carried = np.zeros((5, 4))  # states: no l, no r, yes l, yes r
    carried[2:, 2] = 1
    carried[3:, 3] = 1
    np.testing.assert_array_equal(panel.carried_visits, carried)
    np.testing.assert_array_equal(panel.visits, read(absorbing=None).visits + carried)
    np.testing.assert_allclose(panel.mean_field()[3], [0, 1 / 4, 2 / 4, 1 / 4], atol=ROUNDING)
    assert panel.audit()["trajectories carried forward"] == 2
    assert panel.audit()["trajectories ending early"] == 1  # d


def test_only_the_crowd_changes():
    """Decisions, starts, ends, steps and the rows of the table are as without absorption."""
    panel, plain = read(), read(absorbing=None)
    for here, there in zip(panel.counts, plain.counts, strict=True):
        np.testing.assert_array_equal(here, there)
    for here, there in zip(panel.transition_counts(), plain.transition_counts(), strict=True):
        np.testing.assert_array_equal(here, there)
    pd.testing.assert_frame_equal(panel.to_frame(), plain.to_frame())
    assert (panel.lengths, panel.n_late, panel.horizon) == (plain.lengths, plain.n_late, 4)
    assert "trajectories carried forward" not in plain.audit()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gaps", ["error", "split"])
@pytest.mark.parametrize(
    "absorbing", [{"law": "yes"}, {"law": ["yes"], "side": ["l", "r"]}, {"law": "yes", "side": "l"}]
)
def test_every_engine_carries_forward(tmp_path, engine, gaps, absorbing):
    """Also through a gap, to the next row of the agent."""
    rows = [r for r in ROWS if gaps == "error" or r[:2] not in {("e", 2), ("e", 3), ("c", 1)}]
    frame = pd.DataFrame(rows, columns=COLUMNS).sample(frac=1, random_state=1)
    options = LABELS | {"absorbing": absorbing, "gaps": gaps}
    panel = mfg.Trajectories.from_frame(frame, **options)
    counted = CountedPanel.from_frame(engine(frame, tmp_path), **options)
    assert_same(counted, panel)
    assert_same(CountedPanel.from_trajectories(panel), panel)
    assert_same(counted.pooled(), panel.pooled())
    assert_same(
        counted.recode(panel.space, ["pass", "wait"]), panel.recode(panel.space, ["pass", "wait"])
    )


def test_a_gap_is_bridged():
    """Who is absorbed at 1 and seen again at 4 was there at 2 and 3, and is counted once."""
    panel = read([r for r in ROWS if r[:2] not in {("e", 2), ("e", 3)}], gaps="split")
    assert panel.carried.tolist() == [3, 2, 0, 0, 2, 0]
    assert panel.visits[:, [2, 3]].tolist() == [[0, 0], [1, 1], [1, 2], [1, 2], [2, 1]]
    assert panel.visits.sum(1).tolist() == [4, 4, 4, 4, 4]


@st.composite
def lives(draw) -> pd.DataFrame:
    """Draw agents who walk for a while and may be absorbed, with holes; one is always there."""
    rows = [("anchor", t, "no", "l", "wait") for t in range(7)]
    for k in range(draw(st.integers(1, 4))):
        first, last = draw(st.integers(0, 6)), draw(st.integers(0, 6))
        passed, hole = draw(st.integers(0, 8)), draw(st.integers(0, 8))
        times = [t for t in range(first, max(first, last) + 1) if t != hole] or [first]
        for t in times:
            ends = t + 1 not in times
            action = draw(st.sampled_from(["wait", None] if ends else ["wait", "pass"]))
            side = draw(st.sampled_from("lr"))
            rows.append((f"agent {k}", t, "yes" if t >= passed else "no", side, action))
    return pd.DataFrame(draw(st.permutations(rows)), columns=COLUMNS)


def visits_by_loop(frame: pd.DataFrame, T: int) -> np.ndarray:
    """Count who is where by plain Python, the absorbed until their next row or the end."""
    visits, names = np.zeros((T + 1, 4)), ["no l", "no r", "yes l", "yes r"]
    last = frame.time.max()
    for _, rows in frame.sort_values("time").groupby("agent"):
        times = rows.time.tolist()
        for k, row in enumerate(rows.itertuples()):
            until = times[k + 1] - 1 if k + 1 < len(times) else last
            stays = range(row.time, until + 1) if row.law == "yes" else [row.time]
            for t in stays:
                visits[t, names.index(f"{row.law} {row.side}")] += 1
    return visits


@settings(max_examples=40, deadline=None)
@given(lives())
def test_visits_equal_a_loop_over_agents(frame):
    """On unbalanced panels with gaps, of rows and of counts."""
    options = LABELS | {"absorbing": {"law": "yes"}, "gaps": "split"}
    panel = mfg.Trajectories.from_frame(frame, **options)
    np.testing.assert_array_equal(panel.visits, visits_by_loop(frame, panel.horizon))
    assert_same(CountedPanel.from_trajectories(panel).pooled(), panel.pooled())


@pytest.mark.parametrize("engine", [to_polars, to_duckdb])
@settings(max_examples=15, deadline=None)
@given(lives())
def test_unbalanced_panels_are_carried_the_same(engine, frame):
    """Any panel gives the visits that it gives in memory."""
    options = LABELS | {"absorbing": {"law": "yes"}, "gaps": "split"}
    counted = CountedPanel.from_frame(engine(frame, None), **options)
    assert_same(counted, mfg.Trajectories.from_frame(frame, **options))


def test_the_right_agents_are_carried_in_a_bootstrap():
    """A subset carries those it keeps, as often as it keeps them; splits, copies and cuts too."""
    frame = pd.DataFrame(ROWS, columns=COLUMNS).assign(kind=lambda f: f.agent.isin(["a", "d"]))
    options = LABELS | {"absorbing": {"law": "yes"}, "groups": ["kind"]}
    panel = mfg.Trajectories.from_frame(frame, **options)
    keep = np.array([1, 0, 0, 3, 2])
    singles = [panel.subset([j]).visits for j in range(5)]
    np.testing.assert_array_equal(panel.subset(keep).visits, sum(singles[j] for j in keep))
    assert panel.subset(keep).carried.tolist() == [2, 3, 3, 0, 0]
    np.testing.assert_array_equal(sum(p.visits for p in panel.split("kind").values()), panel.visits)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(panel)).visits, panel.visits)
    for time in (1, 2, 3, 4, 5):
        cut = before(panel, time)
        np.testing.assert_array_equal(cut.visits[:time], panel.visits[:time])
        assert cut.visits[time:].sum() == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gaps", ["error", "split"])
def test_who_leaves_an_absorbing_state_is_a_fault(tmp_path, engine, gaps):
    """At once or across a gap; the rows before are named."""
    left = [2, 4] if gaps == "error" else [3, 4]
    rows = [(*r[:2], "no", *r[3:]) if r[0] == "e" and r[1] in left else r for r in ROWS]
    rows = [r for r in rows if gaps == "error" or r[:2] != ("e", 2)]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    table, options = engine(frame, tmp_path), LABELS | {"absorbing": {"law": "yes"}, "gaps": gaps}
    expected = faults_of(mfg.Trajectories.from_frame, table, options)
    assert faults_of(CountedPanel.from_frame, table, options) == expected
    with pytest.raises(mfg.exceptions.DataError) as caught:
        CountedPanel.from_frame(table, **options)
    (fault,) = caught.value.faults
    assert fault.what == "absorbing state that is left after"
    times = [1, 3] if gaps == "error" else [1]
    assert fault.n_rows == len(times)
    assert fault.examples == tuple(f"agent='e', time={t}" for t in times)
    assert "`absorbing`" in fault.remedy


@pytest.mark.parametrize("cell", [None, "perhaps"])
def test_a_state_that_is_missing_is_one_fault(cell):
    """It is not said that the agent leaves: where it went is not known."""
    rows = [(*r[:2], cell, *r[3:]) if r[:2] == ("e", 2) else r for r in ROWS]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    options = LABELS | {"absorbing": {"law": "yes"}}
    (fault,) = faults_of(mfg.Trajectories.from_frame, frame, options)
    assert ("missing" if cell is None else "unknown") in fault[0]
    assert faults_of(CountedPanel.from_frame, to_polars(frame, None), options) == [fault]


@pytest.mark.parametrize(
    ("absorbing", "error", "words"),
    [
        ("yes", TypeError, r"`absorbing` must be a Mapping.*\{column: label\}"),
        ({}, ValueError, "`absorbing` must name at least one column"),
        ({"low": "yes"}, ValueError, "`absorbing` names 'low', which is no column of `state`"),
        ({"size": "s"}, ValueError, r"`absorbing` names 'size'.*that may change"),
        ({"law": "si"}, ValueError, r"`absorbing` names 'si' of 'law'.*declare it"),
        ({"law": ["yes", "yes"]}, ValueError, "repeats the label yes"),
        ({"law": None}, TypeError, "takes strings and finite numbers"),
    ],
)
@pytest.mark.parametrize("form", [mfg.Trajectories, CountedPanel])
def test_wrong_absorbing_states_are_refused(form, absorbing, error, words):
    """Columns and labels that are unknown are named."""
    frame = pd.DataFrame(ROWS, columns=COLUMNS).assign(size="s")
    options = LABELS | {"absorbing": absorbing, "types": ["size"]}
    table = frame if form is mfg.Trajectories else to_polars(frame, None)
    with pytest.raises(error, match=words):
        form.from_frame(table, **options)


def test_numbers_absorb_by_their_values():
    """The label 3 is absorbing in a column of floats, on an engine of its own too."""
    frame = pd.DataFrame(
        [("a", 0, 1.0, "x"), ("a", 1, 3.0, "x"), *[("b", t, 1.0, "x") for t in range(4)]],
        columns=["agent", "time", "state", "action"],
    )
    panel = mfg.Trajectories.from_frame(frame, absorbing={"state": 3})
    assert panel.carried.tolist() == [2, 0]
    assert_same(CountedPanel.from_frame(to_duckdb(frame, None), absorbing={"state": 3}), panel)


def states_of(n_agents: int = 200, n_times: int = 6) -> pd.DataFrame:
    """Return states that pass a law at some time, and are dropped once they have."""
    rng, rows = np.random.default_rng(0), []
    for agent in range(n_agents):
        law = "no"
        for time in range(n_times):
            rows.append((agent, time, law, "l", "wait"))
            if law == "yes":
                break
            law = "yes" if rng.random() < 0.1 else law
    return pd.DataFrame(rows, columns=COLUMNS)


def test_the_absorbed_are_no_leavers():
    """Agents dropped after absorption change the crowd, unless they are carried forward."""
    frame = states_of()
    plain = mfg.Trajectories.from_frame(frame, **LABELS)
    assert len(composition_changes(plain)) == 1
    panel = mfg.Trajectories.from_frame(frame, **LABELS, absorbing={"law": "yes"})
    for each in (panel, CountedPanel.from_trajectories(panel)):
        assert composition_changes(each) == ()
        assert leavers(each).gone.sum() == 0
        assert entrants(each).gone.sum() == 0
    assert panel.visits.sum(1)[:6].tolist() == [200] * 6
    # one state in a hundred leaves without a law: a leaver as before
    some = frame[(frame.agent % 50 > 0) | (frame.time < 2)]
    cut = mfg.Trajectories.from_frame(some, **LABELS, absorbing={"law": "yes"})
    n = int((some.groupby("agent").time.max()[::50] == 1).sum())
    passed = int((some[(some.agent % 50 == 0) & (some.time == 1)].law == "yes").sum())
    assert leavers(cut).gone.tolist() == [n - passed, 0, 0, 0]


def test_a_game_starts_and_fits_on_a_panel_that_carries():
    """A model reads the crowd with those who have been absorbed in it."""
    panel = read()
    assert panel.subset([0, 2, 4]).carried.tolist() == [3, 0, 0]
    estimate = panel.estimate_transition(prior_count=0.5)
    game = mfg.MeanFieldGame(
        states=panel.space.coordinates, actions=panel.actions, horizon=4,
        transition=estimate, initial=panel.initial_distribution(),
    )  # fmt: skip
    features = {"pass": lambda x: x.action == "pass", "crowd": lambda x: x.density}
    model = mfg.TrajectoryModel(game, mfg.linear_reward(features, dist.Normal(0.0, 1.0)), panel)
    np.testing.assert_allclose(model.mean_field.numpy(), panel.mean_field(), atol=ROUNDING)
    again = mfg.checks.replay(model, np.full((4, 4, 2), 0.5), random_seed=1)
    assert again.visits.sum() == panel.visits.sum()
