"""Columns of unusual types, indices, file names and CSV cells mean what they say."""

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mfgppl as mfg

COUNTED, KEPT = mfg.CountedPanel.from_frame, mfg.Trajectories.from_frame


def table(**columns) -> pd.DataFrame:
    """Return three agents at four times in two states, with some columns replaced."""
    frame = pd.DataFrame(
        {
            "agent": np.repeat([1, 2, 3], 4),
            "time": np.tile(range(4), 3),
            "state": [0, 1] * 6,
            "action": ["stay", "go", "go"] * 4,
        }
    )
    return frame.assign(**columns)


def assert_like(table_read, frame: pd.DataFrame, **options) -> mfg.Trajectories:
    """Assert that a table, kept and counted, is the panel of a plain frame."""
    panel, plain = KEPT(table_read, **options), KEPT(frame)
    assert panel.space == plain.space
    assert panel.actions == plain.actions
    assert panel.agents.tolist() == plain.agents.tolist()
    counted = COUNTED(table_read, **options)
    assert counted.space == plain.space
    for found in (panel, counted):
        for here, there in zip(found.counts, plain.counts, strict=True):
            np.testing.assert_array_equal(here, there)
    return panel


def lazily(cast: pl.Expr) -> pl.LazyFrame:
    return pl.from_pandas(table()).lazy().with_columns(cast)


def by_duckdb(query: str) -> duckdb.DuckDBPyRelation:
    return duckdb.connect().from_df(table()).project(query)


@pytest.mark.parametrize(
    "odd",
    [
        lambda: table(state=np.round([-0.2, 1, 0.2, 1] * 3)),
        lambda: pl.from_pandas(table(state=np.round([-0.2, 1, 0.2, 1] * 3))).lazy(),
        lambda: pa.Table.from_pandas(table(state=np.round([-0.2, 1, 0.2, 1] * 3))),
        lambda: table().astype({"state": pd.SparseDtype("float64")}),
        lambda: table().astype({"state": "float16"}),
        lambda: pl.from_pandas(table()).with_columns(pl.col("time", "agent").cast(pl.Int128)),
        lambda: lazily(pl.col("time", "agent", "state").cast(pl.Int128)),
        lambda: lazily(pl.col("time", "agent", "state").cast(pl.Decimal(10, 0))),
        lambda: pl.from_pandas(table()).with_columns(pl.col("state").cast(pl.Decimal(10, 2))),
        lambda: by_duckdb("agent::hugeint as agent, time::hugeint as time, state, action"),
        lambda: by_duckdb("agent::decimal(9,1) agent, time::decimal(9,1) as time, state, action"),
        lambda: table(time=table().time.astype("uint64")),
    ],
)  # fmt: skip
def test_numbers_of_any_type_are_numbers(odd):
    """Minus zero is zero; sparse, wide and decimal columns hold what they show."""
    assert_like(odd(), table())


def test_intervals_are_labels_in_their_order():
    """`pandas.cut` orders its intervals by their ends, also as text, and unused ones vanish."""
    values = np.array([0.5, 20, 3, 3, 0.5, 20, 3, 20, 0.5, 3, 20, 20])
    cut = pd.cut(values, [0, 2, 10, 30, 99])
    expected = ("(0, 2]", "(2, 10]", "(10, 30]")
    for column in (cut, cut.astype(str), pd.arrays.IntervalArray(cut)):
        panel = KEPT(table(state=column))
        assert panel.space.labels == expected
        np.testing.assert_array_equal(panel.state, np.digitize(values, [2, 10]))
    by_polars = pl.from_pandas(table()).with_columns(
        state=pl.Series(["(10, inf]", "(-inf, 2]", "(2, 10]"] * 4).cast(pl.Categorical)
    )
    for read in (KEPT, COUNTED):
        assert read(by_polars.lazy()).space.labels == ("(-inf, 2]", "(2, 10]", "(10, inf]")
    declared = cut.categories[::-1]
    assert KEPT(table(state=cut), state_labels={"state": declared}).space.labels[-1] == "(0, 2]"


def test_groups_may_be_intervals():
    """A group cut from a number splits the panel by the interval's text."""
    frame = table(size=pd.cut(table().agent, [0, 2, 4]))
    assert list(KEPT(frame, groups=["size"]).split("size")) == ["(0, 2]", "(2, 4]"]


@pytest.mark.parametrize("agents", [[-1, 2**63, 7], [1, 2**64, 2**70], [2**63, 2**63 + 1, 5]])
def test_large_integers_stay_apart(agents):
    """Agents beyond 64 bits are integers, none rounded to another's number."""
    column = pd.Series(agents, dtype=object).repeat(4).to_numpy()
    panel = KEPT(table(agent=column))
    assert panel.agents.tolist() == sorted(agents)
    assert panel.labels.tolist() == sorted(agents)
    assert COUNTED(table(agent=column)).n_agents == 3


def test_late_times_are_exact():
    """Times of nanoseconds since 1970 are one apart, as integers; floats cannot hold them."""
    start = 1_700_000_000_000_000_000
    frame = table(time=start + table().time)
    for read in (KEPT, COUNTED):
        panel = read(pl.from_pandas(frame).lazy())
        assert (panel.first_time, panel.horizon) == (start, 4)
        with pytest.raises(mfg.exceptions.DataError, match="non-integer time"):
            read(frame.astype({"time": float}))


@pytest.mark.parametrize("levels", [["agent"], ["agent", "time"], ["time", "agent", "state"]])
def test_levels_of_an_index_are_columns(levels):
    """A table whose agent and time are its index is read by their names."""
    assert_like(table().set_index(levels), table())


def test_a_column_goes_before_a_level_of_its_name():
    """An index that repeats a column's name plays no part."""
    frame = table()
    assert_like(frame.set_index(pd.Index(np.zeros(12), name="agent")), frame)


def test_dask_has_its_index_by_name():
    """The sorted index of a Dask table is a column too."""
    dask = pytest.importorskip("dask.dataframe")
    lazy = dask.from_pandas(table().set_index("agent"), npartitions=2)
    assert_like(lazy, table())


@pytest.mark.parametrize("name", ["d.csv", "D.CSV", "d.Csv", "d.csv.gz", "d.csv.bz2", "d.PARQUET"])
def test_names_of_files(tmp_path, monkeypatch, name):
    """Endings may be in capitals, and ~ is the home folder, also in patterns."""
    if name.endswith("PARQUET"):
        table().to_parquet(tmp_path / name)
    else:
        table().to_csv(tmp_path / name, index=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_like(tmp_path / name, table())
    assert_like(f"~/{name}", table())
    assert COUNTED(f"~/{name[:2]}*").n_agents == 3


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("d.csv.zip", "decompress"), ("d.csv.xz", "decompress"), ("d.csv.GZ", r"\.gz"),
        ("d.csv.old", "rename"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("read", [KEPT, COUNTED])
def test_files_that_are_not_read_are_refused_by_name(tmp_path, name, remedy, read):
    """The ending is named with what to do, before a byte is read."""
    (tmp_path / name).write_bytes(b"any")
    with pytest.raises(ValueError, match=remedy):
        read(tmp_path / name)


def written(folder, frame: pd.DataFrame):
    """Write a table to a CSV file."""
    frame.to_csv(folder / "panel.csv", index=False)
    return folder / "panel.csv"


def test_declared_words_are_labels_in_a_file_too(tmp_path):
    """NA and null are labels where they are declared, and text of digits stays text."""
    frame = table(state=["NA", "null", "EU"] * 4, agent=["01"] * 4 + ["1"] * 4 + ["x"] * 4)
    options = {"state_labels": {"state": ["EU", "NA", "null"]}, "text": ["agent"]}
    panel, plain = KEPT(written(tmp_path, frame), **options), KEPT(frame, **options)
    pd.testing.assert_frame_equal(panel.to_frame(), plain.to_frame())
    counted = COUNTED(written(tmp_path, frame), **options)
    np.testing.assert_array_equal(counted.visits, plain.visits)
    assert counted.n_agents == 3


def test_declared_digits_are_text_in_a_file_too(tmp_path):
    """A column with the labels "0" and "1" holds words, as in memory; other words are unknown."""
    frame = table(state=["0", "1"] * 6)
    labels = {"state_labels": {"state": ["1", "0"]}}
    for read in (KEPT, COUNTED):
        assert read(written(tmp_path, frame), **labels).space.labels == ("1", "0")
        with pytest.raises(mfg.exceptions.DataError, match="unknown label in 'state': '0'"):
            read(written(tmp_path, frame), state_labels={"state": ["1", "2"]})


def test_text_as_it_stands(tmp_path):
    """With `text` codes keep their zeros and words are labels; blanks are still missing."""
    frame = table(agent=["007"] * 4 + ["7"] * 4 + ["NA"] * 4, state=["01", "1"] * 6)
    path = written(tmp_path, frame)
    for read in (KEPT, COUNTED):
        panel = read(path, text=["agent", "state"])
        assert panel.n_agents == 3
        assert panel.space.labels == ("01", "1")
    blank = table(agent=["007"] * 4 + [None] * 4 + ["x"] * 4)
    with pytest.raises(mfg.exceptions.DataError, match=r"missing value in 'agent' +4 "):
        KEPT(written(tmp_path, blank), text=["agent"])


@pytest.mark.parametrize("read", [KEPT, COUNTED])
def test_codes_that_become_one_are_a_fault(tmp_path, read):
    """Agents 007 and 7 are not merged silently; codes of one width are numbers."""
    merged = table(agent=["007"] * 4 + ["7"] * 4 + ["8"] * 4, time=range(12))
    with pytest.raises(mfg.exceptions.DataError) as caught:
        read(written(tmp_path, merged), gaps="split")
    fault = caught.value.faults[0]
    assert (fault.what, fault.n_rows) == ("codes in 'agent' that are one number", 8)
    assert fault.examples == ("007 and 7",)
    assert (
        read(written(tmp_path, table(agent=["007"] * 4 + ["08"] * 8, time=range(12)))).n_agents == 2
    )


@pytest.mark.parametrize("read", [KEPT, COUNTED])
def test_what_is_taken_for_empty_is_said(tmp_path, read):
    """The fault names the word, and how to make it a label."""
    path = written(tmp_path, table(state=["EU", "NA"] * 6))
    with pytest.raises(mfg.exceptions.DataError) as caught:
        read(path)
    (fault,) = caught.value.faults
    assert (fault.what, fault.n_rows) == ("missing value in 'state'", 6)
    assert "'NA' counts as empty in a CSV file" in fault.remedy
    assert "text=['state']" in fault.remedy
    path = written(tmp_path, table(action=["go", "NA"] * 6))
    with pytest.raises(mfg.exceptions.DataError, match=r"missing action.*'NA' counts as empty"):
        read(path)
    with pytest.raises(mfg.exceptions.DataError) as caught:
        read(table(state=None))
    assert "counts as empty" not in str(caught.value)


@pytest.mark.parametrize("engine", [lambda f: f, lambda f: pl.from_pandas(f).lazy()])
def test_one_agent_and_one_period_are_small_panels(engine):
    """A single agent is a crowd of one, and a single period has a decision and no step."""
    for read in (KEPT, COUNTED):
        alone = read(engine(table()[:4]))
        assert (alone.n_agents, alone.n_trajectories, alone.horizon) == (1, 1, 4)
        np.testing.assert_array_equal(alone.mean_field(), [[1, 0], [0, 1], [1, 0], [0, 1]])
        once = read(engine(table(agent=range(12), time=7)))
        assert (once.first_time, once.horizon, once.n_decisions) == (7, 1, 12)
        np.testing.assert_array_equal(once.mean_field(), [[0.5, 0.5]])
        assert once.audit()["decisions per trajectory"] == "1 to 1"
        estimate = once.estimate_transition(prior_count=1.0)
        np.testing.assert_array_equal(estimate.probabilities, 0.5)  # nothing was seen to move
        assert estimate.smoothing().share == 1.0
