"""What a table knows of its columns stays with the panel: order, bins and centres."""

import copy
import pickle

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mfgppl as mfg
from mfgppl.exceptions import DataError

ENDS = [0.0, 1.0, 2.0, np.inf]


def raw(n_agents: int = 60) -> pd.DataFrame:
    """Return a panel whose state is a raw number."""
    rng = np.random.default_rng(0)
    n = 5 * n_agents
    return pd.DataFrame(
        {
            "agent": np.repeat(np.arange(n_agents), 5),
            "time": np.tile(np.arange(5), n_agents),
            "state": rng.gamma(2.0, size=n),
            "action": rng.choice(["stay", "go"], n),
        }
    )


def read(frame, **options) -> mfg.Trajectories:
    return mfg.Trajectories.from_frame(frame, **options)


def centres(panel: mfg.Trajectories) -> list[float]:
    return [label.centre for label in panel.space.coordinates["state"]]


def with_words(kind) -> pd.DataFrame:
    """Return a panel whose state has the labels low, middle and high, as `kind` makes a column."""
    frame = raw()
    words = np.array(["low", "middle", "high"])[np.searchsorted(ENDS[1:-1], frame["state"])]
    return frame.assign(state=kind(words))


ORDER = ("low", "middle", "high")
KINDS = {
    "categorical": lambda w: pd.Categorical(w, list(ORDER)),
    "ordered": lambda w: pd.Categorical(w, list(ORDER), ordered=True),
    "with an unused category": lambda w: pd.Categorical(w, ["none", *ORDER]),
    "arrow": lambda w: pd.array(w, dtype="string[pyarrow]").astype(pd.CategoricalDtype(ORDER)),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_categories_of_pandas_keep_their_order(kind):
    assert read(with_words(kind)).space.coordinates["state"] == ORDER


def test_categories_of_an_index_keep_their_order():
    frame = with_words(KINDS["ordered"]).set_index(["agent", "state"])
    assert read(frame).space.coordinates["state"] == ORDER


@pytest.mark.parametrize("door", [mfg.Trajectories, mfg.CountedPanel])
def test_enumerations_of_other_tables_keep_their_order(door):
    """Polars, also lazily, Arrow and DuckDB; words without an order are sorted."""
    words = with_words(np.asarray)
    enum = pl.from_pandas(words).with_columns(pl.col("state").cast(pl.Enum(ORDER)))
    arrow = pa.Table.from_pandas(with_words(KINDS["ordered"]))
    connection = duckdb.connect()
    connection.register("words", words)
    connection.execute("create type size as enum ('low', 'middle', 'high')")
    relation = connection.sql("select agent, time, state::size as state, action from words")
    for table in (enum, enum.lazy(), arrow, relation):
        assert door.from_frame(table).space.coordinates["state"] == ORDER
    assert door.from_frame(words).space.coordinates["state"] == tuple(sorted(ORDER))


@pytest.mark.parametrize("door", [mfg.Trajectories, mfg.CountedPanel])
@pytest.mark.parametrize("writer", ["pandas", "polars"])
def test_ordered_columns_of_parquet_files_keep_their_order(door, writer, tmp_path):
    """One file, and a folder of two of which one lacks a label."""
    words = with_words(KINDS["ordered"])
    halves = [words[words["state"] != "low"], words[words["state"] == "low"]]
    halves[1] = halves[1].assign(agent=halves[1]["agent"] + 1000)
    (tmp_path / "two").mkdir()
    for name, table in (("one", words), ("two/a", halves[0]), ("two/b", halves[1])):
        file = tmp_path / f"{name}.parquet"
        if writer == "pandas":
            table.to_parquet(file, index=False)
        else:
            enum = pl.Enum(ORDER)
            text = pl.from_pandas(table.assign(state=table["state"].astype(str)))
            text.with_columns(pl.col("state").cast(enum)).write_parquet(file)
    one = door.from_frame(tmp_path / "one.parquet")
    assert one.space.coordinates["state"] == ORDER
    two = door.from_frame(tmp_path / "two", gaps="split")
    assert two.space.coordinates["state"] == ORDER


def test_dates_are_no_states_and_the_error_says_what_to_use():
    """Whatever engine reads them."""
    frame = raw()
    frame["state"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(frame)) % 2, "D")
    for table in (frame, pl.from_pandas(frame).lazy()):
        with pytest.raises(mfg.exceptions.DataError, match=r"column .state. holds .*use numbers"):
            mfg.CountedPanel.from_frame(table)


def test_actions_keep_their_order_too():
    frame = raw().assign(state="one")
    frame["action"] = pd.Categorical(frame["action"], ["stay", "go"])
    assert read(frame).actions == ("stay", "go")


def test_declared_labels_count_before_an_order():
    frame = with_words(KINDS["ordered"])
    labels = ["high", "middle", "low"]
    assert read(frame, state_labels={"state": labels}).space.coordinates["state"] == tuple(labels)


def test_intervals_of_pandas_are_bins_with_a_middle():
    frame = raw()
    frame["state"] = pd.cut(frame["state"], [0.0, 1.0, 2.0, 20.0])
    assert read(frame).space.coordinates["state"] == ("(0.0, 1.0]", "(1.0, 2.0]", "(2.0, 20.0]")
    assert centres(read(frame)) == [0.5, 1.5, 11.0]


def test_quantiles_with_words_for_labels_keep_their_order():
    frame = raw()
    frame["state"] = pd.qcut(frame["state"], 3, labels=list(ORDER))
    assert read(frame).space.coordinates["state"] == ORDER


def test_a_panel_keeps_bins_and_centres(tmp_path):
    """Through panel, table, Parquet, copies and pickles; in text alone the order is left."""
    frame = mfg.discretise(raw(), state=ENDS)
    mean = frame["state"].cat.codes.groupby(frame["state"].cat.codes).size()
    assert len(mean) == 3
    by_hand = [part.mean() for _, part in raw()["state"].groupby(frame["state"].cat.codes)]
    panel = read(frame)
    assert panel.audit()["variation lost in bins"] == {"state": pytest.approx(0.27, abs=0.1)}
    panel.to_frame().to_parquet(tmp_path / "panel.parquet")
    panel.to_frame().to_csv(tmp_path / "panel.csv", index=False)
    alone = raw()
    alone["state"] = mfg.discretise(raw()["state"], ENDS)
    shuffled = alone.sample(frac=1.0, random_state=1).reset_index(drop=True)
    others = [
        read(panel.to_frame()), read(tmp_path / "panel.parquet"), copy.deepcopy(panel),
        pickle.loads(pickle.dumps(panel)), panel.subset([0, 1, 5]), read(alone), read(shuffled),
        mfg.CountedPanel.from_frame(tmp_path / "panel.parquet"),
    ]  # fmt: skip
    for other in [panel, *others]:
        assert other.space == panel.space
        np.testing.assert_allclose(centres(other), by_hand, rtol=1e-14)
    of_text = read(tmp_path / "panel.csv")
    assert of_text.space == panel.space  # labels, in order
    assert not hasattr(of_text.space.coordinates["state"][0], "centre")


def test_bins_of_another_column_are_not_taken():
    """Attributes that a table kept of a column that has been replaced since are left alone."""
    frame = mfg.discretise(raw(), state=ENDS)
    frame["state"] = np.where(frame["state"].cat.codes > 1, "b", "a")
    assert read(frame).space.coordinates["state"] == ("a", "b")


def test_a_table_gives_words_out_of_order_as_an_ordered_categorical():
    panel = read(with_words(KINDS["ordered"]))
    assert panel.to_frame()["state"].cat.categories.tolist() == list(ORDER)
    assert read(panel.to_frame()).space == panel.space


@pytest.mark.parametrize("door", [mfg.Trajectories, mfg.CountedPanel])
def test_a_raw_number_is_refused_with_the_remedy(door):
    with pytest.raises(DataError, match=r"300 distinct numbers.*discretise\(df, state=5\)"):
        door.from_frame(pl.from_pandas(raw()).lazy())
    frame = raw().assign(action=raw()["state"], state="one")
    with pytest.raises(DataError, match=r"column 'action' holds 300.*action_labels= \[...\]"):
        door.from_frame(frame)


@pytest.mark.parametrize("door", [mfg.Trajectories, mfg.CountedPanel])
@pytest.mark.parametrize("periods", [1, 5, 40])
def test_a_raw_number_of_each_agent_is_refused_as_a_type(door, periods):
    """Its rows repeat one number: how many there are says nothing. Agents by number may be many."""
    frame = pd.DataFrame({"agent": np.repeat(np.arange(60), periods)})
    frame = frame.assign(time=np.tile(np.arange(periods), 60), state="one", action="go")
    land = np.random.default_rng(0).gamma(2.0, size=60)
    named = frame.assign(land=land[frame.agent])
    with pytest.raises(DataError, match=r"column 'land' holds 60.*type_labels=\{'land': \[...\]\}"):
        door.from_frame(named, types=["land"])
    labels = {"land": sorted(land)}
    assert door.from_frame(named, types=["land"], type_labels=labels).space.n_cells == 60
    shared = frame.assign(land=land[frame.agent // 5])
    assert door.from_frame(shared, types=["land"]).space.n_cells == 12
    many = pd.concat([named.assign(agent=named.agent + 60 * k) for k in range(5)])
    assert door.from_frame(many, types=["land"]).space.n_cells == 60


def test_numbers_that_are_labels_are_taken():
    """Declared ones, covariates, a fine grid with rows enough, and the steps of a counter."""
    labels = {"state": sorted(raw()["state"])}
    assert read(raw(), state_labels=labels).space.size == 300
    grid = raw(400).assign(state=lambda f: (f["state"] * 20).round().clip(upper=90) / 4)
    assert read(grid).space.size > 60
    of_agents = raw().assign(land=lambda f: f["agent"] / 7, state="one")
    assert read(of_agents, covariates=["land"]).space.n_cells == 60


def test_thin_cells_are_named():
    """The audit counts pairs of few decisions, and names those of fewest."""
    frame = pd.DataFrame(
        {"agent": range(12), "time": 0, "state": ["a"] * 8 + ["b"] * 4,
         "action": ["x"] * 7 + ["y"] + ["x"] * 4}
    )  # fmt: skip
    panel = read(frame)
    assert panel.support().to_dict() == {"x": {"a": 7, "b": 4}, "y": {"a": 1, "b": 0}}
    audit = panel.audit()
    assert audit["state and action pairs taken 1 to 4 times"] == 2
    assert audit["the thinnest of them"] == ["a, y: 1", "b, x: 4"]
    assert audit["state and action pairs never taken"] == 1


def test_an_index_without_names_says_how_to_name_it():
    frame = raw().assign(state="one").set_index(["agent", "time"])
    assert read(frame).n_agents == 60
    with pytest.raises(DataError, match=r"df.index.names = \['agent', 'time'\]"):
        read(frame.rename_axis([None, None]))


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_nullable_and_arrow_types_are_read(backend):
    plain = raw().assign(state=(raw()["state"] > 1).astype(int))
    panel = read(plain.convert_dtypes(dtype_backend=backend))
    assert panel.space.coordinates["state"] == (0, 1)
    np.testing.assert_array_equal(panel.counts.actions, read(plain).counts.actions)
