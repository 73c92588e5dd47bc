"""Types and covariates: what never changes in an agent, read on every engine."""

import copy
import itertools
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from data.engines import ENGINES, assert_same, faults_of, to_duckdb, to_polars
from data.panels import ACTIONS, LABELS, panels
from games import ROUNDING
from hypothesis import given, settings

import mfgppl as mfg
from mfgppl.data.counting import CountedPanel
from mfgppl.data.labelled import Order, in_order
from mfgppl.data.space import StateSpace

SHOPS = {"agent": "shop", "time": "month", "state": ["price", "stock"], "action": "move"}
SIZES = {"ann": "small", "bob": "large", "cyd": "small", "dee": "large", "eve": "small"}
TYPED = {**SHOPS, "types": ["size"], "type_labels": {"size": ["small", "large"]}}
DataError = mfg.exceptions.DataError


@pytest.fixture
def sized(visits) -> pd.DataFrame:
    """The five shops with a size and a village each, their wealth and the age of their owners."""
    return visits.assign(
        size=visits.shop.map(SIZES),
        village=visits.shop.map({"ann": 1, "bob": 1, "cyd": 2, "dee": 1, "eve": 2}),
        wealth=visits.shop.map({"ann": 2.5, "bob": 1.0, "cyd": 2.5, "dee": 1.0, "eve": 0.5}),
        age=visits.shop.map({"ann": 30, "bob": 40, "cyd": 30, "dee": 20, "eve": 20}),
    )


def read(frame, **options) -> mfg.Trajectories:
    return mfg.Trajectories.from_frame(frame, **(TYPED | options))


def test_types_lead_and_states_are_stacked(sized):
    """State s of the c-th type is at c * S + s: counts by type are those of that type's rows."""
    panel = read(sized)
    assert panel.space.types == ("size",)
    assert list(panel.space.coordinates) == ["size", "price", "stock"]
    assert panel.space.coordinates["size"] == ("small", "large")
    for c, size in enumerate(("small", "large")):
        alone = mfg.Trajectories.from_frame(
            sized[sized["size"] == size],
            **SHOPS,
            state_labels={"price": [1, 2], "stock": ["high", "low"]},
            action_labels=["hold", "raise"],
        )
        cells = panel.counts.actions.reshape(3, 2, 4, 2)[:, c]
        shift = alone.first_time - panel.first_time
        np.testing.assert_array_equal(cells[shift:], alone.counts.actions)
    assert repr(panel) == (
        "Trajectories(5 trajectories, 9 decisions at 3 times, 2 types of size, 4 states, 2 actions)"
    )


def test_shares_of_types_are_margins_of_the_mean_field(sized):
    """The mean field sums to 1 over types and states; at t = 0 two of three shops are small."""
    panel = read(sized)
    shares = panel.mean_field()
    np.testing.assert_allclose(shares.sum(1), 1.0, atol=ROUNDING)
    masses = shares.reshape(3, 2, 4).sum(2)
    np.testing.assert_allclose(masses[:2], [[2 / 3, 1 / 3], [2 / 4, 2 / 4]], atol=ROUNDING)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gaps", ["error", "split"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"types": ["village", "size"], "type_labels": None},
        {"types": [], "type_labels": None, "covariates": ["wealth"]},
        {"covariates": ["age", "wealth"]},
    ],
    ids=["size", "two types", "one covariate", "two covariates"],
)
def test_every_engine_reads_types_and_covariates(sized, tmp_path, engine, gaps, options):
    """Panels counted by types where their table lives are those read into memory."""
    frame = sized.drop(index=1) if gaps == "split" else sized
    options = TYPED | options | {"gaps": gaps}
    panel = mfg.Trajectories.from_frame(frame, **options)
    assert_same(CountedPanel.from_frame(engine(frame, tmp_path), **options), panel)
    assert_same(CountedPanel.from_trajectories(panel), panel)


@pytest.mark.parametrize("engine", [to_polars, to_duckdb])
@settings(max_examples=15, deadline=None)
@given(panels())
def test_unbalanced_panels_with_types_count_the_same(engine, frame):
    """Any panel with gaps, late entries and missing last actions gives equal counts by type."""
    frame = frame.assign(kind=frame.agent.str[-1], weight=frame.agent.str.len() / 2)
    options = {**LABELS, "types": ["kind"], "covariates": ["weight"], "gaps": "split"}
    counted = CountedPanel.from_frame(engine(frame, None), **options)
    assert_same(counted, mfg.Trajectories.from_frame(frame, **options))


def test_a_column_that_is_state_and_type_is_a_type(sized):
    """So is one that is a cluster as well; labels of it may stand with those of states."""
    panel = read(sized, state=["size", "price", "stock"], type_labels=None, groups=["size"],
                 state_labels={"size": ["small", "large"]})  # fmt: skip
    assert panel.space == read(sized).space
    assert panel.groups["size"].tolist() == [SIZES[a] for a in panel.agents]
    np.testing.assert_array_equal(panel.state, read(sized).state)


def changed(frame: pd.DataFrame, **cells) -> pd.DataFrame:
    """Return a table with some cells of its first row replaced."""
    frame = frame.copy()
    for name, value in cells.items():
        frame[name] = frame[name].astype(object)
        frame.loc[0, name] = value
        frame[name] = frame[name].infer_objects()
    return frame


FAULTY = {
    "a type changes": ({"size": "large"}, {}),
    "a type changes to what is unknown": ({"size": "huge"}, {}),
    "a type is missing": ({"size": None}, {}),
    "a type is blank": ({"size": " "}, {}),
    "a covariate changes": ({"wealth": 3.0}, {"covariates": ["age", "wealth"]}),
    "a covariate is missing": ({"wealth": np.nan}, {"covariates": ["wealth"]}),
    "covariates change": ({"wealth": 3.0, "age": 31}, {"covariates": ["age", "wealth"]}),
    "a covariate of words": ({}, {"types": ["village"], "type_labels": None,
                                  "covariates": ["size"]}),
    "an agent is missing": ({"shop": None, "size": "large"}, {}),
    "an unknown type": ({}, {"type_labels": {"size": ["large", "tiny"]}}),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_finds_types_that_change(sized, tmp_path, engine, name):
    """What is wrong, in how many agents and what to do is said as for a table in memory."""
    cells, options = FAULTY[name]
    table, options = engine(changed(sized, **cells), tmp_path), TYPED | options
    expected = faults_of(mfg.Trajectories.from_frame, table, options)
    assert faults_of(CountedPanel.from_frame, table, options) == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [str, bool, float, "category"])
def test_agents_whose_type_changes_are_counted_and_named(tmp_path, engine, kind):
    """Of four agents in whom the type changes, three are named, whatever the labels are."""
    rows = [(a, t, "s", "go", (t == 1) != (a == "e")) for a in "abcde" for t in (0, 1)]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action", "kind"])
    frame.loc[frame.agent == "e", "kind"] = True
    frame["kind"] = frame.kind.astype(str).astype(kind) if kind == "category" else (
        frame.kind.astype(int if kind is float else bool).astype(kind))  # fmt: skip
    table = engine(frame, tmp_path)
    for read_table in (mfg.Trajectories.from_frame, CountedPanel.from_frame):
        with pytest.raises(DataError) as caught:
            read_table(table, types=["kind"])
        (fault,) = caught.value.faults
        assert fault.what == "type 'kind' changes within an agent"
        assert (fault.n_rows, fault.examples) == (4, ("agent='a'", "agent='b'", "agent='c'"))
        assert "name the column in `state` alone" in fault.remedy


def test_types_that_change_where_nobody_has_an_agent(sized):
    """A table without agents or times is faulty, and no engine fails at it."""
    frame = sized.assign(shop=None)
    options = TYPED | {"covariates": ["age", "wealth"]}
    expected = faults_of(mfg.Trajectories.from_frame, pl.from_pandas(frame), options)
    table = pl.from_pandas(frame).lazy()
    assert faults_of(CountedPanel.from_frame, table, options) == expected


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"types": "size"}, TypeError, r"`types` must be a list.*write \['size'\]"),
        ({"types": ["sise"], "type_labels": None}, DataError, "no column 'sise'"),
        ({"type_labels": {"village": [1]}}, ValueError, "`type_labels` names 'village'"),
        ({"state": "size"}, ValueError, "`state` must name at least one column that is no type"),
        ({"covariates": ["size"]}, ValueError, "`covariates` names 'size', which is a type"),
        ({"covariates": ["price"]}, ValueError, "`covariates` names 'price', which is a type or"),
        (
            {"types": ["shop"], "type_labels": None},
            ValueError,
            r"'shop' is named twice\..*shift\(-1\)",
        ),
        ({"type": ["size"]}, TypeError, "did you mean `types`"),
    ],
)
@pytest.mark.parametrize("kind", [mfg.Trajectories, CountedPanel])
def test_wrong_arguments_are_refused(sized, kind, options, error, words):
    """Each message names the argument and the column."""
    with pytest.raises(error, match=words):
        kind.from_frame(sized, **(TYPED | options))


def test_a_name_for_several_covariates_is_kept_free(sized):
    """A state called as the type that covariates make is refused."""
    frame = sized.rename(columns={"size": "covariates"})
    with pytest.raises(ValueError, match="one type called 'covariates'"):
        mfg.Trajectories.from_frame(
            frame, **SHOPS, types=["covariates"], covariates=["age", "wealth"]
        )


def test_one_covariate_is_a_type_of_its_numbers(sized):
    """Its labels are the distinct numbers, in order."""
    panel = mfg.Trajectories.from_frame(sized, **SHOPS, covariates=["wealth"])
    assert panel.space.types == ("wealth",)
    assert panel.space.coordinates["wealth"] == (0.5, 1, 2.5)
    assert dict(panel.covariates) == {}
    assert panel.covariates.index.tolist() == [0.5, 1, 2.5]


def test_several_covariates_are_one_type_of_their_rows(sized):
    """Each distinct row is one label, in the order of the numbers; a game takes the rows."""
    panel = read(sized, covariates=["age", "wealth"])
    assert panel.space.types == ("size", "covariates")
    assert panel.space.coordinates["covariates"] == (0, 1, 2, 3)
    expected = [(20, 0.5), (20, 1.0), (30, 2.5), (40, 1.0)]
    assert list(panel.covariates.itertuples(index=False, name=None)) == expected
    assert panel.covariates.index.name == "covariates"
    codes = panel.space.codes[1][panel.state[panel.offsets[:-1]]]
    found = dict(
        zip(panel.agents, panel.covariates.iloc[codes].itertuples(index=False), strict=True)
    )
    for agent, row in found.items():
        cells = sized[sized.shop == agent].iloc[0]
        assert tuple(row) == (cells.age, cells.wealth)
    # until a game has types, the coordinate is one of its states
    space = panel.space
    game = mfg.MeanFieldGame(
        states=space.coordinates, actions=panel.actions, horizon=1,
        transition=np.full((space.size, 2, space.size), 1 / space.size),
        initial=panel.initial_distribution(), features=dict(panel.covariates),
    )  # fmt: skip
    assert set(game.features) == {"age", "wealth"}
    assert panel.audit()["types"]["covariates"] == [0, 1, 2, 3]


def test_types_are_kept(sized, tmp_path):
    """By copies, pickles, subsets, splits into groups, pooling, and tables written and read."""
    panel = read(sized, groups=["village"], covariates=["age", "wealth"])
    again = mfg.Trajectories.from_frame(
        panel.to_frame(agent="shop", time="month", action="move"),
        **{**SHOPS, "state": list(panel.space.coordinates), "types": list(panel.space.types)},
        type_labels={"size": ["small", "large"]},
    )
    others = [
        copy.deepcopy(panel),
        pickle.loads(pickle.dumps(panel)),
        panel.subset([4, 0, 0]),
        panel.split("village")[1],
        panel.pooled(),
        again,
        pickle.loads(pickle.dumps(CountedPanel.from_trajectories(panel))),
        CountedPanel.from_trajectories(panel).pooled(),
    ]
    for other in others:
        assert other.space == panel.space
        assert "8 types of size and covariates, 4 states" in repr(other)
    for other in [o for o in others if o is not again]:
        pd.testing.assert_frame_equal(other.covariates, panel.covariates)
    np.testing.assert_array_equal(again.state, panel.state)
    assert_same(others[-1], panel.pooled())


def test_a_split_by_a_type_drops_it(sized):
    """Each panel is what reading the rows of that type alone gives; labels nobody has are none."""
    labels = {"type_labels": {"size": ["small", "tiny", "large"]}}
    parts = read(sized, types=["village", "size"], **labels).split("size")
    assert list(parts) == ["small", "large"]
    for size, part in parts.items():
        assert part.space.types == ("village",)
        rows = sized[sized["size"] == size]
        alone = mfg.Trajectories.from_frame(
            rows, **SHOPS, types=["village"], type_labels={"village": [1, 2]},
            state_labels={"price": [1, 2], "stock": ["high", "low"]},
        )  # fmt: skip
        assert part.space == alone.space
        np.testing.assert_array_equal(part.state, alone.state)
        assert part.agents.tolist() == alone.agents.tolist()
    (only,) = set(map(type, read(sized).split("size").values()))
    assert only is mfg.Trajectories
    assert read(sized).split("size")["small"].space.types == ()
    both = read(sized, covariates=["age", "wealth"])
    assert dict(both.split("covariates")[0].covariates) == {}
    assert len(both.split("size")["small"].covariates) == 4
    with pytest.raises(ValueError, match="`by` must be one of 'size'"):
        read(sized).split("village")


@pytest.mark.parametrize("counted", [False, True])
def test_recoding_makes_types_of_states_that_never_change(sized, counted):
    """A panel that read a column as a state serves a game that has it as a type."""
    panel = mfg.Trajectories.from_frame(sized, **{**SHOPS, "state": ["price", "size", "stock"]})
    typed = read(sized)
    if counted:
        panel, typed = map(CountedPanel.from_trajectories, (panel, typed))
    recoded = panel.recode(typed.space, typed.actions)
    assert recoded.space.types == ("size",)
    np.testing.assert_array_equal(recoded.visits, typed.visits)
    np.testing.assert_array_equal(recoded.counts.actions, typed.counts.actions)
    with pytest.raises(ValueError, match=r"'price' is a type of the game and changes in the panel"):
        panel.recode(
            StateSpace.from_labels(
                {"size": ["small", "large"], "stock": ["low", "high"]}, {"price": [1, 2]}
            ),
            panel.actions,
        )


def test_recoding_names_the_agent_whose_type_changes(sized):
    """The change may lie across a gap, where no step shows it."""
    frame = changed(sized.drop(index=1), size="large")
    panel = mfg.Trajectories.from_frame(
        frame, **{**SHOPS, "state": ["size", "price", "stock"]}, gaps="split"
    )
    with pytest.raises(ValueError, match="within agent 'ann', from 'large' to 'small'"):
        panel.recode(read(sized).space, panel.actions)


def test_the_start_of_types_is_put_in_order(sized):
    """Stacked states go by name to a game with other orders of types, coordinates and labels."""
    panel = read(sized, types=["size", "village"])
    start = panel.initial_distribution()
    assert start.dims == ("state",)
    assert start.attrs["types"] == ("size", "village")
    assert "types" not in mfg.Trajectories.from_frame(sized, **SHOPS).initial_distribution().attrs
    space = StateSpace.from_labels(
        {"stock": ["low", "high"], "price": [2, 1]},
        {"village": [2, 1], "size": ["large", "small"]},
    )
    placed = in_order("initial", start, ("state",), Order(space, ("hold", "raise")))
    recoded = panel.recode(space, panel.actions).initial_distribution()
    np.testing.assert_allclose(placed, recoded.values, atol=ROUNDING)
    same = in_order("initial", start, ("state",), Order(panel.space, ("hold", "raise")))
    np.testing.assert_allclose(same, start.values, atol=ROUNDING)


def test_joined_labels_go_by_their_coordinates():
    """Where "0, 1" of the panel is "1, 0" of the game, the coordinates decide."""
    frame = pd.DataFrame(
        [("a", 0, 0, 1, "x"), ("b", 0, 0, 1, "x"), ("c", 0, 1, 0, "x"), ("d", 0, 1, 1, "x"),
         ("e", 0, 0, 0, "x")],
        columns=["agent", "time", "one", "two", "action"],
    )  # fmt: skip
    start = mfg.Trajectories.from_frame(frame, state=["one", "two"]).initial_distribution()
    space = StateSpace.from_labels({"two": [0, 1], "one": [0, 1]})
    placed = in_order("initial", start, ("state",), Order(space, ("x",)))
    np.testing.assert_allclose(placed, [1 / 5, 1 / 5, 2 / 5, 1 / 5], atol=ROUNDING)


def workers(n_agents: int = 60, n_times: int = 5) -> pd.DataFrame:
    """Return workers of two sizes and three places, who move along three levels."""
    rng, rows = np.random.default_rng(0), []
    for agent in range(n_agents):
        level = int(rng.integers(3))
        for time in range(n_times):
            move = ACTIONS[int(rng.integers(2))]
            rows.append((agent, time, level, move, "sl"[agent % 2], "pqr"[agent % 3]))
            up = 0.8 if agent % 2 else 0.2
            level = min(level + 1, 2) if move == "go" and rng.random() < up else level
    return pd.DataFrame(rows, columns=["agent", "time", "level", "action", "size", "place"])


WORKERS = {"state": "level", "action_labels": ACTIONS, "types": ["size", "place"]}


@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize("support", ["seen", "all"])
def test_a_pooled_estimate_is_that_of_the_panel_without_types(by_time, support):
    """By default dynamics are of the states within types, from all agents."""
    panel = mfg.Trajectories.from_frame(workers(), **WORKERS)
    plain = mfg.Trajectories.from_frame(workers(), **(WORKERS | {"types": []}))
    options = {"prior_count": 0.5, "by_time": by_time, "support": support}
    one, two = panel.estimate_transition(**options), plain.estimate_transition(**options)
    assert one.space == two.space == panel.space.within
    for name in ("probabilities", "counts", "pseudo_counts", "available"):
        assert getattr(one, name).identical(getattr(two, name))
    counted = CountedPanel.from_trajectories(panel).estimate_transition(**options)
    assert counted.probabilities.identical(one.probabilities)
    assert str(one.smoothing()) == str(two.smoothing())


@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize("support", ["seen", "all"])
@pytest.mark.parametrize("by", [("size",), ("place",), ("size", "place")])
def test_an_estimate_by_type_is_one_for_each_panel(by_time, support, by):
    """Each combination of the types named has the table of its own agents."""
    frame = workers()
    panel = mfg.Trajectories.from_frame(frame, **WORKERS)
    options = {"prior_count": 0.5, "by_time": by_time, "support": support}
    estimate = panel.estimate_transition(by=by, **options)
    dims = (*by, *(["time"] if by_time else []), "state", "action", "next_state")
    assert estimate.probabilities.dims == estimate.counts.dims == dims
    assert estimate.space == panel.space.within
    for labels in itertools.product(*(panel.space.coordinates[name] for name in by)):
        here = dict(zip(by, labels, strict=True))
        rows = frame[np.logical_and.reduce([frame[k] == v for k, v in here.items()])]
        labels = {"state_labels": {"level": [0, 1, 2]}}
        alone = mfg.Trajectories.from_frame(rows, **(WORKERS | {"types": []}), **labels)
        expected = alone.estimate_transition(**options)
        for name in ("probabilities", "counts", "pseudo_counts"):
            found = getattr(estimate, name).sel(here)
            np.testing.assert_allclose(found, getattr(expected, name), atol=ROUNDING)


def test_estimates_by_type_take_one_name_in_any_order():
    """One type may be named alone; several stand in the panel's order."""
    panel = mfg.Trajectories.from_frame(workers(), **WORKERS)
    one = panel.estimate_transition(by="size", prior_count=1.0)
    assert one.probabilities.identical(
        panel.estimate_transition(by=["size"], prior_count=1.0).probabilities
    )
    both = panel.estimate_transition(by=["place", "size"], prior_count=1.0).probabilities
    assert both.dims[:2] == ("size", "place")
    assert one.smoothing().moved.dims == ("size", "state", "action")
    with pytest.raises(ValueError, match="`by` must be one of 'size', 'place'"):
        panel.estimate_transition(by="village", prior_count=1.0)
    plain = mfg.Trajectories.from_frame(workers(), **(WORKERS | {"types": []}))
    with pytest.raises(ValueError, match=r"`by` names 'size', and the panel has no types"):
        plain.estimate_transition(by="size", prior_count=1.0)


def test_rows_that_a_type_never_shows_are_named():
    """Without a prior count the type is named with the state and the action."""
    frame = workers()
    frame = frame[~((frame["size"] == "l") & (frame.level == 2) & (frame.action == "go"))]
    panel = mfg.Trajectories.from_frame(frame, **WORKERS, gaps="split")
    panel.estimate_transition()
    with pytest.raises(DataError) as caught:
        panel.estimate_transition(by="size")
    assert caught.value.faults[0].examples == ("size='l', state=2, action='go'",)
    decided = panel.estimate_transition(by="size", prior_count=0.1).smoothing().decided
    assert "size='l', state=2, action='go'" in decided
    # rows that no game uses need no data in any type
    available = np.ones((3, 2), dtype=bool)
    available[2, ACTIONS.index("go")] = False
    panel.estimate_transition(by="size", available=available)
    with pytest.raises(ValueError, match=r"`available` must have shape \(S, A\) = \(3, 2\)"):
        panel.estimate_transition(available=np.ones((18, 2), dtype=bool))


def test_what_one_type_never_does_is_no_support_of_its_own():
    """Smoothing by type reaches the moves of that type; pooled, those of all."""
    frame = workers()
    rows = (frame["size"] == "s") & (frame.level > 0)
    frame = frame[~frame.agent.isin(frame[rows].agent)]  # the small who are left stay at 0
    assert set(frame["size"]) == {"s", "l"}
    panel = mfg.Trajectories.from_frame(frame, **WORKERS)
    row = {"state": 0, "action": "go", "next_state": 1}
    assert panel.estimate_transition(prior_count=1.0).probabilities.sel(row) > 0
    apart = panel.estimate_transition(prior_count=1.0, by="size").probabilities
    assert apart.sel(row).sel(size="s") == 0
    assert apart.sel(row).sel(size="l") > 0
