"""Panels counted where their table lives: equal to those in memory on every engine."""

import math
import shutil
import subprocess
import sys
from datetime import date

import dask
import dask.dataframe as dd
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest
from data.engines import (
    ENGINES,
    assert_same,
    faults_of,
    to_dask,
    to_duckdb,
    to_folder,
    to_polars,
)
from data.panels import LABELS, panels
from hypothesis import HealthCheck, given, settings

import mfgppl as mfg
from mfgppl.data import engines
from mfgppl.data.counting import CountedPanel
from mfgppl.data.space import StateSpace

SHOPS = {"agent": "shop", "time": "month", "state": ["price", "stock"], "action": "move"}
COLUMNS = ["agent", "time", "state", "action"]


def assert_counted(table, **options) -> CountedPanel:
    """Assert that a table is counted as it is counted in memory."""
    counted = CountedPanel.from_frame(table, **options)
    assert_same(counted, mfg.Trajectories.from_frame(table, **options))
    return counted


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gaps", ["error", "split"])
def test_every_engine_counts_the_same(visits, tmp_path, engine, gaps):
    """Late entries, early exits and ends seen are those of the panel in memory."""
    panel = mfg.Trajectories.from_frame(visits, **SHOPS, gaps=gaps)
    assert_same(CountedPanel.from_frame(engine(visits, tmp_path), **SHOPS, gaps=gaps), panel)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_splits_at_gaps(visits, tmp_path, engine):
    """A missing time starts a new trajectory, with lengths and late entries of its own."""
    table = engine(visits.drop(index=1), tmp_path)
    counted = assert_counted(table, **SHOPS, gaps="split")
    assert (counted.n_agents, counted.n_trajectories) == (5, 6)


@pytest.mark.parametrize("engine", [to_polars, to_duckdb])
@settings(max_examples=25, deadline=None)
@given(panels())
def test_unbalanced_panels_count_the_same(engine, frame):
    """Any panel with gaps, late entries and missing last actions gives equal counts."""
    assert_counted(engine(frame, None), **LABELS, gaps="split")


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(panels())
def test_unbalanced_panels_count_the_same_on_dask(frame):
    """A shuffle by agent brings the rows of each agent together."""
    assert_counted(to_dask(frame, None), **LABELS, gaps="split")


@pytest.fixture(scope="module")
def spark():
    """A local Spark session."""
    pyspark = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    builder = pyspark.SparkSession.builder.master("local[1]")
    settings = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2"}
    session = builder.config(map=settings).getOrCreate()
    yield session
    session.stop()


def to_spark(session, frame):
    cells = frame.astype(object).where(frame.notna(), None)
    return session.createDataFrame(
        [tuple(row) for row in cells.itertuples(index=False)], list(frame.columns)
    )


def test_spark_counts_the_same(visits, spark):
    """A Spark dataframe is counted by Spark."""
    table = to_spark(spark, visits.drop(index=1))
    assert_same(
        CountedPanel.from_frame(table, **SHOPS, gaps="split"),
        mfg.Trajectories.from_frame(visits.drop(index=1), **SHOPS, gaps="split"),
    )


def rows(*cells) -> pd.DataFrame:
    return pd.DataFrame(list(cells), columns=COLUMNS)


def good(**columns) -> pd.DataFrame:
    """Two agents over four times, with some columns replaced."""
    frame = rows(*[(a, t, "lo" if t % 2 else "hi", "up") for a in ("a", "b") for t in range(4)])
    return frame.assign(**columns)


FAULTY = {
    "no rows": (good()[:0], {}),
    "no such column": (good(), {"action": "actoin"}),
    "agent missing": (good(agent=["a", None, *"aaabbb"]), {}),
    "agent blank": (good(agent=["a", " \t", *"aaaabb"]), {}),
    "agent nan": (good(agent=[1, math.nan, 1.0, 1, 2, 2, 2, math.nan]), {}),
    "agent a date": (good(agent=[date(2020, 1, 1)] * 8), {}),
    "agent rounded": (good(agent=[2.0**60, 2.0**61] * 4, time=[0, 0, 1, 1, 2, 2, 3, 3]), {}),
    "time far": (good(time=[0, 1, 2, 2**62] * 2), {}),
    "time missing": (good(time=[0, 1, 2, math.nan, 0, 1, 2, 3]), {}),
    "time not whole": (good(time=[0, 1, 2, 2.5, 0, 1, 2, math.inf]), {}),
    "time a word": (good(time=list("01230123")), {}),
    "time a truth": (good(time=[True, False] * 4), {}),
    "state missing": (good(state=["hi", None, "lo", "", "hi", "lo", "lo", "lo"]), {}),
    "state nan": (good(state=[1.5, math.nan, 1, 1, 1, 1, 1, 1]), {}),
    "state infinite": (good(state=[1.5, math.inf, 1, 1, 1, -math.inf, 1, 1]), {}),
    "state and time": (good(state=[1.5, math.inf, 1, 1] * 2, time=[0, 1, 2, 2.5] * 2), {}),
    "state unknown": (good(), {"state_labels": {"state": ["lo", "mid"]}}),
    "states unknown": (
        good(state=list("zyxwabab")), {"state_labels": {"state": ["a", "b"]}},
    ),
    "action unknown": (good(), {"action_labels": ["down"]}),
    "action infinite": (good(action=[1.0, math.inf] * 4), {}),
    "duplicate": (good(time=[0, 1, 2, 2, 0, 1, 1, 1]), {}),
    "duplicate, one undecided": (
        rows(("a", 0, "s", None), ("a", 0, "s", "m"), ("a", 1, "s", "m"), ("b", 0, "s", "m"),
             ("b", 1, "s", "m")), {},
    ),
    "gap": (good(time=[0, 1, 3, 4, 0, 2, 3, 5]), {}),
    "undecided": (good(action=["up", None, "up", "up", None, " ", "up", "up"]), {}),
    "undecided, split": (
        good(time=[0, 1, 3, 4, 0, 1, 2, 3], action=[*["up"] * 5, None, "up", "up"]),
        {"gaps": "split"},
    ),
    "no action": (good(action=None), {}),
    "nobody at a time": (good(time=[0, 1, 4, 5] * 2), {"gaps": "split"}),
    "nobody at far times": (good(time=[0, 1, 10**15, 10**15 + 1] * 2), {"gaps": "split"}),
    "past the end": (good(time=[0, 1, 4, 5] * 2, action=["up", "up", None, None] * 2),
                     {"gaps": "split"}),
    "all at once": (
        rows(
            ("a", 0, "low", "hold"), ("a", 0, "low", "hold"), ("a", 3, "low", "hold"),
            ("b", 0, "huge", "hold"), ("b", 1, None, "hold"), ("b", 2, "low", "jump"),
            ("c", 0.5, "low", "hold"), (None, 1, "low", "hold"), ("d", 0, "low", None),
            ("d", 1, "low", "hold"), ("d", 2, "low", "hold"), ("d", 3, "low", "hold"),
        ),
        {"state_labels": {"state": ["low", "high"]}, "action_labels": ["hold", "cut"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_finds_every_fault(tmp_path, engine, name):
    """What is wrong, in how many rows and what to do is said as for a table in memory."""
    frame, options = FAULTY[name]
    table = engine(frame, tmp_path)
    expected = faults_of(mfg.Trajectories.from_frame, table, options)
    assert faults_of(CountedPanel.from_frame, table, options) == expected


@pytest.mark.parametrize("name", ["all at once", "duplicate", "gap", "undecided", "time a word"])
def test_spark_finds_faults(spark, name):
    """Spark's windows and filters see what the panel in memory sees."""
    frame, options = FAULTY[name]
    expected = faults_of(mfg.Trajectories.from_frame, frame.convert_dtypes(), options)
    found = faults_of(CountedPanel.from_frame, to_spark(spark, frame), options)
    assert [f[1:3] for f in found] == [f[1:3] for f in expected]


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_the_rows_named_show_the_fault(tmp_path, engine):
    """Examples are the first rows by agent and time of those with the fault."""
    frame, options = FAULTY["all at once"]
    with pytest.raises(mfg.exceptions.DataError) as caught:
        CountedPanel.from_frame(engine(frame, tmp_path), **options)
    examples = {f.what: f.examples for f in caught.value.faults}
    assert examples["missing value in 'agent'"] == ("agent=None, time=1.0",)
    assert examples["non-integer time"] == ("agent='c', time=0.5",)
    assert examples["unknown label in 'state': 'huge'"] == ("agent='b', time=0.0",)
    assert examples["missing value in 'state'"] == ("agent='b', time=1.0",)
    assert examples["unknown label in 'action': 'jump'"] == ("agent='b', time=2.0",)
    assert examples["duplicate (agent, time)"] == ("agent='a', time=0.0",)
    assert examples["gap in time before"] == ("agent='a', time=3.0",)
    assert examples["missing action before the last row"] == ("agent='d', time=0.0",)


@pytest.mark.parametrize(
    "columns",
    [
        {"state": [1.0, 2.0] * 4},
        {"state": [0.5, 2.0] * 4, "time": [0.0, 1.0, 2.0, 3.0] * 2},
        {"state": [True, False] * 4},
        {"agent": [7.0] * 4 + [8.5] * 4},
        {"agent": [True] * 4 + [False] * 4},
        {"state": pd.Categorical(["hi", "lo"] * 4, categories=["lo", "other", "hi"])},
        {"agent": pd.Categorical(list("aaaabbbb")), "action": pd.Categorical(["up", "no"] * 4)},
        {"time": pd.array([0, 1, 2, 3] * 2, dtype="UInt8")},
        {"time": pd.array([-3, -2, -1, 0] * 2, dtype="Int16")},
        {"action": ["up", "no", "up", None, "up", "no", "no", " "]},
        {"action": [1.0, 2.0, 1.0, math.nan] * 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("engine", ENGINES[1:])
def test_every_type_of_label_is_counted_as_in_memory(tmp_path, engine, columns):
    """Whole floats, fractions, truths, categories and small integers keep their labels."""
    assert_counted(engine(good(**columns), tmp_path))


def test_decimals_of_a_database_are_numbers():
    """DuckDB types a literal like 1.0 as a decimal; it is the label 1, also in messages."""
    columns = "agent, cast(time as decimal(5, 1)) as time, cast(3.0 as decimal(3, 1)) as state"
    table = to_duckdb(good(), None).project(f"{columns}, action")
    assert assert_counted(table).space.labels == (3,)
    with pytest.raises(
        mfg.exceptions.DataError, match=r"unknown label in 'state': 3 .*agent='a', time=0"
    ):
        CountedPanel.from_frame(table, state_labels={"state": [4]})


def test_a_column_that_mixes_types_is_a_fault():
    """Numbers beside words in one column are found by the engine too."""
    with dask.config.set({"dataframe.convert-string": False}):
        table = dd.from_pandas(good(state=["hi", 1] * 4), npartitions=2)
        with pytest.raises(mfg.exceptions.DataError, match="mixes types"):
            CountedPanel.from_frame(table)


def test_a_part_without_values_has_no_type_of_its_own(visits):
    """A partition whose actions are all missing joins the others."""
    with dask.config.set({"dataframe.convert-string": False}):
        frame = good(action=["up", "up", "up", None, "up", "up", "up", None], time=[0, 1, 2, 3] * 2)
        table = dd.from_pandas(frame.sort_values("time", ignore_index=True), npartitions=4)
        assert_counted(table)


@pytest.mark.parametrize("engine", ENGINES)
def test_results_of_counts_are_those_of_rows(visits, tmp_path, engine):
    """Crowd, start and dynamics, also recoded, are equal to those of the panel in memory."""
    panel = mfg.Trajectories.from_frame(visits, **SHOPS)
    counted = CountedPanel.from_frame(engine(visits, tmp_path), **SHOPS)
    space = StateSpace.from_labels({"stock": ["low", "none", "high"], "price": [2, 1]})
    for here, there in [
        (counted, panel),
        (
            counted.recode(space, ["x", "raise", "hold"]),
            panel.recode(space, ["x", "raise", "hold"]),
        ),
    ]:
        assert_same(here, there)
        np.testing.assert_array_equal(here.mean_field(), there.mean_field())
        assert here.initial_distribution().identical(there.initial_distribution())
        for by_time in (False, True):
            options = {"prior_count": 0.5, "by_time": by_time}
            one, two = here.estimate_transition(**options), there.estimate_transition(**options)
            assert one.probabilities.identical(two.probabilities)
            assert one.counts.identical(two.counts)


def test_an_unknown_label_is_refused_when_recoding(visits):
    """The label is named."""
    counted = CountedPanel.from_frame(visits, **SHOPS)
    with pytest.raises(ValueError, match="'raise', which the game does not know"):
        counted.recode(counted.space, ["hold"])


def test_a_panel_in_memory_reduces_to_its_counts(roads_panel):
    """`from_trajectories` keeps all that does not need rows."""
    assert_same(CountedPanel.from_trajectories(roads_panel), roads_panel)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_csv_files_are_counted_where_they_lie(visits, tmp_path, suffix):
    """The words for a missing value are those of the file read into memory."""
    path = tmp_path / f"panel.{suffix}"
    visits.to_csv(path, index=False, na_rep="NA")
    assert_counted(path, **SHOPS)
    assert_counted(str(path), **SHOPS)


def test_a_pattern_names_many_files(visits, tmp_path):
    """Files are found by a pattern, in any order of rows."""
    for name, part in visits.groupby("month"):
        part.to_parquet(tmp_path / f"{name}.parquet", index=False)
    counted = CountedPanel.from_frame(tmp_path / "*.parquet", **SHOPS)
    assert_same(counted, mfg.Trajectories.from_frame(visits, **SHOPS))


def test_a_folder_partitioned_by_a_column_has_that_column(visits, tmp_path):
    """The column in the names of folders is read like any other."""
    visits.to_parquet(tmp_path / "panel", partition_cols=["price"], index=False)
    assert_counted(tmp_path / "panel", **SHOPS)


@pytest.mark.parametrize("form", [to_folder, lambda f, d: f.to_csv(d / "p.csv") or d / "p.csv"])
def test_files_are_read_by_polars_where_duckdb_is_absent(visits, tmp_path, monkeypatch, form):
    """Either of the two engines serves."""
    monkeypatch.setattr(engines, "find_spec", lambda name: name == "polars")
    assert_counted(form(visits, tmp_path), **SHOPS)


def test_files_need_an_engine(visits, tmp_path, monkeypatch):
    """Without either the error says what to install."""
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install duckdb"):
        CountedPanel.from_frame(to_folder(visits, tmp_path), **SHOPS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("b.csv", b"shop,month,price,stock,move\n"),
        ("c.csv", b"shop,month\n1,2,3\n"),
        ("d.csv", b"shop,month,price,stock,move\n\xff,1,1,1,1\n"),
        ("e.parquet", b"no parquet"),
    ],
)
def test_broken_files_are_faults(tmp_path, name, content):
    """A file that is no table is reported as when it is read into memory."""
    path = tmp_path / name
    path.write_bytes(content)
    expected = faults_of(mfg.Trajectories.from_frame, path, SHOPS)
    assert faults_of(CountedPanel.from_frame, path, SHOPS) == expected


def test_wrong_sources_are_refused(tmp_path):
    """No file, another kind of file and no table are distinguished."""
    with pytest.raises(FileNotFoundError, match="no file"):
        CountedPanel.from_frame(tmp_path / "none.parquet")
    (tmp_path / "panel.txt").write_text("x")
    with pytest.raises(ValueError, match=r"must end in \.csv"):
        CountedPanel.from_frame(tmp_path / "panel.txt")
    with pytest.raises(TypeError, match="`frame` must be a table"):
        CountedPanel.from_frame(3)
    with pytest.raises(TypeError, match="no argument `groups`"):
        CountedPanel.from_frame(good(), groups=["agent"])


def many(n: int) -> pd.DataFrame:
    """Return a panel of n agents over twenty times with two states and actions."""
    rng = np.random.default_rng(1)
    agent, time = np.divmod(np.arange(20 * n), 20)
    cells = {"state": rng.integers(0, 2, 20 * n), "action": rng.integers(0, 2, 20 * n)}
    return pd.DataFrame({"agent": agent, "time": time, **cells})


def test_no_engine_hands_over_rows(tmp_path, monkeypatch):
    """Only tables of counts leave polars, DuckDB and Dask."""
    sizes = []

    def spy(owner, name):
        original = getattr(owner, name)

        def spied(*args, **kwargs):
            result = original(*args, **kwargs)
            sizes.extend(len(r) for r in (result if isinstance(result, tuple) else [result]))
            return result

        monkeypatch.setattr(owner, name, spied)

    frame = many(1000)
    for owner, name, engine in [
        (pl.LazyFrame, "collect", to_polars),
        (nw.LazyFrame, "collect", to_duckdb),
        (dask, "compute", to_dask),
    ]:
        sizes.clear()
        table = engine(frame, tmp_path)
        with monkeypatch.context():
            spy(owner, name)
            CountedPanel.from_frame(table)
        assert sizes
        assert max(sizes) < 400


def test_polars_links_some_agents_at_a_time(monkeypatch):
    """Parts by agent add up to the whole, in counts and in faults."""
    monkeypatch.setattr(engines, "PART_ROWS", 150)
    frame = many(50)
    assert_counted(pl.from_pandas(frame).lazy())
    frame.loc[frame.time == 7, "time"] = 6
    table = pl.from_pandas(frame).lazy()
    expected = faults_of(mfg.Trajectories.from_frame, table, {})
    assert faults_of(CountedPanel.from_frame, table, {}) == expected


MEASURE = """
import resource, sys
from mfgppl.data import engines
from mfgppl.data.counting import CountedPanel
engines.MEMORY_LIMIT = "400MB"
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
panel = CountedPanel.from_frame(sys.argv[1])
print(panel.n_decisions, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_files_are_counted_in_bounded_memory(tmp_path):
    """Twenty million rows, more than a gigabyte in memory, take less than DuckDB is given twice."""
    pl.from_pandas(many(1_000_000)).write_parquet(tmp_path / "panel.parquet")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "panel.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    decisions, kilobytes = map(int, done.stdout.split())
    assert decisions == 20_000_000
    assert kilobytes < 1_000_000
