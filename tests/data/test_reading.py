"""Reading panels from tables in any form."""

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mfgppl as mfg

COLUMNS = {"agent": "shop", "time": "month", "state": ["price", "stock"], "action": "move"}


IN_ORDER = {"state_labels": {"stock": ["low", "high"]}, "action_labels": ["raise", "hold"]}


def read(frame, **options) -> mfg.Trajectories:
    """Read a table with the columns of the fixture `visits`."""
    return mfg.Trajectories.from_frame(frame, **(COLUMNS | options))


def assert_same_panel(one: mfg.Trajectories, other: mfg.Trajectories) -> None:
    """Assert that two panels agree in labels, rows and counts."""
    assert one.space == other.space
    assert one.actions == other.actions
    assert (one.horizon, one.first_time) == (other.horizon, other.first_time)
    assert one.labels.tolist() == other.labels.tolist()
    for name in ("offsets", "time", "state", "action"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for here, there in zip(one.counts, other.counts, strict=True):
        np.testing.assert_array_equal(here, there)


def from_polars(frame, folder):
    return pl.from_pandas(frame)


def from_polars_lazily(frame, folder):
    return pl.from_pandas(frame).lazy()


def from_arrow(frame, folder):
    return pa.Table.from_pandas(frame)


CONNECTION = duckdb.connect()  # a relation of some versions lives no longer than its connection


def from_duckdb(frame, folder):
    return CONNECTION.from_df(frame)


def from_csv(frame, folder):
    frame.to_csv(folder / "panel.csv", index=False)
    return folder / "panel.csv"


def from_csv_named_by_a_string(frame, folder):
    return str(from_csv(frame, folder))


def from_gzipped_csv(frame, folder):
    frame.to_csv(folder / "panel.csv.gz", index=False)
    return folder / "panel.csv.gz"


def from_parquet(frame, folder):
    frame.to_parquet(folder / "panel.parquet")
    return folder / "panel.parquet"


@pytest.mark.parametrize(
    "form",
    [
        from_polars,
        from_polars_lazily,
        from_arrow,
        from_duckdb,
        from_csv,
        from_csv_named_by_a_string,
        from_gzipped_csv,
        from_parquet,
    ],
)
def test_every_form_of_a_table_gives_the_same_panel(visits, tmp_path, form):
    """The counts do not depend on the library or file that holds the table."""
    assert_same_panel(read(form(visits, tmp_path)), read(visits))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shuffled_rows_change_nothing(visits, seed):
    """Rows are put in order of agent and time, whatever their order in the table."""
    assert_same_panel(read(visits.sample(frac=1.0, random_state=seed)), read(visits))


def test_an_index_of_the_table_is_ignored(visits):
    """A pandas index, also one with repeats, plays no part."""
    assert_same_panel(read(visits.set_index(np.zeros(len(visits)))), read(visits))


def test_other_columns_are_ignored(visits):
    """A column that is not named may hold anything."""
    visits["note"] = [["a"], None, 3] + [{}] * (len(visits) - 3)
    assert read(visits).n_decisions == 9


def test_labels_are_sorted_by_default(visits):
    """Without declared labels each column's own are taken in sorted order."""
    panel = read(visits)
    assert panel.space.coordinates == {"price": (1, 2), "stock": ("high", "low")}
    assert panel.actions == ("hold", "raise")


def test_declared_labels_keep_their_order_and_may_never_occur(visits):
    """`state_labels` and `action_labels` give the order, also of labels not in the table."""
    stock, moves = ["low", "high", "none"], ["raise", "hold", "close"]
    panel = read(visits, state_labels={"stock": stock}, action_labels=moves)
    assert panel.space.coordinates == {"price": (1, 2), "stock": ("low", "high", "none")}
    assert panel.actions == ("raise", "hold", "close")
    assert panel.counts.actions.shape == (3, 6, 3)
    # in month 3: ann (1, low) holds, cyd (2, high) raises, dee (1, low) raises
    expected = np.zeros((6, 3))
    expected[0, 1] = expected[0, 0] = expected[4, 0] = 1
    np.testing.assert_array_equal(panel.counts.actions[0], expected)


def test_the_order_of_state_columns_is_the_order_of_coordinates(visits):
    """The first column named is the slow one."""
    panel = read(visits, state=["stock", "price"])
    assert panel.space.labels == ("high, 1", "high, 2", "low, 1", "low, 2")


def test_numbers_as_text_differ_from_numbers(visits):
    """Labels are not cast: "1" stays a word and 1 a number."""
    panel = read(visits.assign(price=visits.price.astype(str)))
    assert panel.space.coordinates["price"] == ("1", "2")


def test_whole_floats_are_integers(visits):
    """Floats that are whole count as integer labels and times."""
    floats = visits.assign(price=visits.price.astype(float), month=visits.month.astype(float))
    assert_same_panel(read(floats), read(visits))


def test_fractions_stay_fractions(visits):
    """A float that is not whole is a label of its own, never rounded."""
    panel = read(visits.assign(price=visits.price / 2))
    assert panel.space.coordinates["price"] == (0.5, 1)


def test_nullable_integers_are_integers(visits):
    """Pandas' nullable types read like the plain ones."""
    nullable = visits.astype({"price": "Int64", "month": "Int16", "stock": "string"})
    assert_same_panel(read(nullable), read(visits))


def test_categoricals_read_like_their_labels(visits):
    """A pandas categorical gives its labels in its order; unused categories do not appear."""
    stock = pd.Categorical(visits.stock, categories=["low", "unused", "high"])
    move = pd.Categorical(visits.move, categories=["raise", "hold"])
    panel = read(visits.assign(stock=stock, move=move, shop=visits.shop.astype("category")))
    assert_same_panel(panel, read(visits, **IN_ORDER))


def test_polars_categoricals_read_like_their_labels(visits):
    """Polars' categorical type gives its labels sorted, its enum type in order."""
    frame = pl.from_pandas(visits).with_columns(
        pl.col("stock").cast(pl.Categorical), pl.col("move").cast(pl.Enum(["raise", "hold"]))
    )
    assert_same_panel(read(frame), read(visits, action_labels=["raise", "hold"]))


def test_decimals_of_a_database_are_numbers(visits):
    """DuckDB types a literal like 1.0 as a decimal; it is the label 1."""
    connection = duckdb.connect()
    relation = connection.from_df(visits).project(
        "shop, month, cast(price as decimal(3, 1)) as price, stock, move"
    )
    assert_same_panel(read(relation), read(visits))


def test_booleans_are_labels(visits):
    """A boolean column has the labels False and True."""
    panel = read(visits.assign(stock=visits.stock == "high"))
    assert panel.space.coordinates["stock"] == (False, True)


def test_integer_agents_keep_their_numbers(visits):
    """Agents may be numbers; they are not renumbered."""
    numbers = {"ann": 70, "bob": 8, "cyd": 9, "dee": 10, "eve": 11}
    panel = read(visits.assign(shop=visits.shop.map(numbers)))
    assert sorted(panel.labels.tolist()) == [8, 9, 10, 11, 70]


def test_trajectories_hold_each_agents_rows_in_order(visits):
    """Late entries, early exits and a last row without action are kept as they are."""
    panel = read(visits)
    rows = {
        label: (panel.time[a:b] + 3).tolist()
        for label, a, b in zip(panel.labels, panel.offsets[:-1], panel.offsets[1:], strict=True)
    }
    assert rows == {"ann": [3, 4, 5, 6], "bob": [4, 5], "cyd": [3, 4], "dee": [3, 4], "eve": [5]}
    assert (panel.first_time, panel.horizon, panel.n_decisions) == (3, 3, 9)
    assert int((panel.action < 0).sum()) == 2


def test_a_gap_starts_a_new_trajectory_and_is_never_stitched(visits):
    """With gaps="split" no step leads across a missing time."""
    panel = read(visits.drop(index=1), gaps="split")
    assert panel.n_trajectories == 6
    steps, n = panel.transition_counts()
    # the steps seen: ann 5-6, bob 4-5, cyd 3-4, dee 3-4; none of ann from 3 to 5
    assert n.sum() == 4
    assert (steps[:, 0] + 3).tolist() == [3, 3, 4, 5]


def test_split_trajectories_have_distinct_labels_and_one_agent(visits):
    """The parts of an agent are distinguished by their first time and clustered together."""
    panel = read(visits.drop(index=1), gaps="split")
    labels = panel.labels.tolist()
    assert len(set(labels)) == 6
    assert {"ann from 3", "ann from 5", "bob"} <= set(labels)
    assert panel.agents.tolist().count("ann") == 2
    assert panel.audit()["agents"] == 5


def test_split_allows_a_missing_action_before_a_gap(visits):
    """The last row of each part may lack its action."""
    visits.loc[0, "move"] = None
    panel = read(visits.drop(index=1), gaps="split")
    assert panel.n_decisions == 7


def test_groups_follow_their_agents(visits):
    """A group is one label a trajectory, also where an agent is split."""
    visits["chain"] = visits.shop.map({"ann": "x", "bob": "y", "cyd": "x", "dee": "y", "eve": "x"})
    shuffled = visits.drop(index=1).sample(frac=1.0, random_state=2)
    panel = read(shuffled, groups=["chain"], gaps="split")
    found = dict(zip(panel.agents.tolist(), panel.groups["chain"].tolist(), strict=True))
    assert found == {"ann": "x", "bob": "y", "cyd": "x", "dee": "y", "eve": "x"}
    assert len(panel.groups["chain"]) == 6


def test_one_fault_is_reported_as_one(visits):
    """A row with a missing state is no gap: what follows from a fault is not a fault."""
    visits.loc[1, "stock"] = None
    with pytest.raises(mfg.exceptions.DataError) as caught:
        read(visits)
    assert [(f.what, f.n_rows) for f in caught.value.faults] == [("missing value in 'stock'", 1)]


def test_faults_are_reported_together_with_rows_examples_and_remedies():
    """All faults of a table come in one error, each with its rows, first three and remedy."""
    frame = pd.DataFrame(
        [
            ("a", 0, "low", "hold"),
            ("a", 0, "low", "hold"),  # duplicate
            ("a", 3, "low", "hold"),  # gap
            ("b", 0, "huge", "hold"),  # unknown state
            ("b", 1, None, "hold"),  # missing state
            ("b", 2, "low", "jump"),  # unknown action
            ("c", 0.5, "low", "hold"),  # fractional time
            (None, 1, "low", "hold"),  # missing agent
            ("d", 0, "low", None),  # missing action before the last row
            ("d", 1, "low", "hold"),
            ("d", 2, "low", "hold"),
            ("d", 3, "low", "hold"),
        ],
        columns=["agent", "time", "state", "action"],
    )
    with pytest.raises(mfg.exceptions.DataError) as caught:
        mfg.Trajectories.from_frame(
            frame, state_labels={"state": ["low", "high"]}, action_labels=["hold", "cut"]
        )
    found = {fault.what: fault.n_rows for fault in caught.value.faults}
    assert found == {
        "missing value in 'agent'": 1,
        "non-integer time": 1,
        "unknown label in 'state': 'huge'": 1,
        "missing value in 'state'": 1,
        "unknown label in 'action': 'jump'": 1,
        "duplicate (agent, time)": 1,
        "gap in time before": 1,
        "missing action before the last row": 1,
    }
    assert all(fault.remedy for fault in caught.value.faults)
    for fault in caught.value.faults:
        assert fault.what in str(caught.value)
        assert fault.remedy in str(caught.value)
        assert all(example in str(caught.value) for example in fault.examples)


def test_a_fault_shows_its_first_three_rows_only():
    """Many faulty rows are counted, three of them named by agent and time."""
    rows = [(a, t, "s", "m") for a in "abcde" for t in (0, 1, 1)]
    with pytest.raises(mfg.exceptions.DataError) as caught:
        mfg.Trajectories.from_frame(
            pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
        )
    (fault,) = caught.value.faults
    assert fault.n_rows == 5
    assert fault.examples == tuple(f"agent='{a}', time=1" for a in "abc")


def test_reading_leaves_the_table_as_it_is(visits):
    """The caller's frame is not changed."""
    before = visits.copy(deep=True)
    read(visits)
    pd.testing.assert_frame_equal(visits, before)


@pytest.mark.parametrize(
    ("frame", "columns", "sizes"),
    [
        (
            mfg.datasets.supermarket_pricing,
            {"agent": "product", "time": "month", "state": "margin"},
            (534, 25, 13_350),
        ),
        (
            mfg.datasets.nyc_flights,
            {"agent": "service", "time": "week", "state": "capacity"},
            (247, 51, 12_597),
        ),
    ],
)
def test_the_bundled_panels_have_their_documented_sizes(frame, columns, sizes):
    """534 products by 25 months and 247 services by 51 weeks, balanced, all ends seen."""
    panel = mfg.Trajectories.from_frame(frame(), **columns)
    assert (panel.n_trajectories, panel.horizon, panel.n_decisions) == sizes
    assert panel.counts.starts[0].sum() == sizes[0]
    assert panel.transition_counts()[1].sum() == sizes[2]


@pytest.mark.parametrize("name", mfg.datasets.PANELS)
def test_a_bundled_panel_reads_the_same_from_its_path(name):
    """The CSV file and the frame are one table."""
    frame = getattr(mfg.datasets, name)()
    assert pd.read_csv(mfg.datasets.path(name)).equals(frame)


def test_an_agent_without_a_label_in_a_group_is_a_fault():
    """Clusters of nobody would join the last one, or vanish."""
    frame = pd.DataFrame(
        [(a, t, "s", "x") for a in "abc" for t in range(2)],
        columns=["agent", "time", "state", "action"],
    )
    frame["region"] = frame["agent"].map({"a": "north", "b": None, "c": "south"})
    with pytest.raises(mfg.exceptions.DataError, match="no label in group 'region'"):
        mfg.Trajectories.from_frame(frame, groups=["region"])
