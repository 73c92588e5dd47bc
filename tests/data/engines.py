"""The same table in the hands of each engine, and what two panels of it must agree in."""

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

import mfgppl as mfg
from mfgppl.data.counting import CountedPanel


def to_pandas(frame, folder):
    return frame


def to_polars(frame, folder):
    return pl.from_pandas(frame).lazy()


def to_duckdb(frame, folder):
    return duckdb.connect().from_arrow(pl.from_pandas(frame).to_arrow())


def to_dask(frame, folder):
    return dd.from_pandas(frame, npartitions=3)


def to_folder(frame, folder):
    """Write the rows to two Parquet files of one folder."""
    target = folder / "panel"
    target.mkdir()
    half = len(frame) // 2
    table = pl.from_pandas(frame)
    table[:half].write_parquet(target / "a.parquet")
    table[half:].write_parquet(target / "b.parquet")
    return target


ENGINES = [to_pandas, to_polars, to_duckdb, to_dask, to_folder]


def assert_same(counted: CountedPanel, panel: mfg.Trajectories) -> None:
    """Assert that two panels agree in everything that a panel without rows knows."""
    assert isinstance(counted, CountedPanel)
    assert counted.space == panel.space
    assert list(counted.space.coordinates) == list(panel.space.coordinates)
    assert counted.actions == panel.actions
    assert [type(a) for a in counted.actions] == [type(a) for a in panel.actions]
    names = ("first_time", "horizon", "n_agents", "n_trajectories", "n_decisions", "n_late")
    for name in (*names, "n_early", "lengths"):
        assert getattr(counted, name) == getattr(panel, name), name
    for here, there in zip(counted.counts, panel.counts, strict=True):
        np.testing.assert_array_equal(here, there)
    for here, there in zip(counted.transition_counts(), panel.transition_counts(), strict=True):
        np.testing.assert_array_equal(here, there)
    for name in ("visits", "carried_visits", "absorbed"):
        np.testing.assert_array_equal(getattr(counted, name), getattr(panel, name))
    pd.testing.assert_frame_equal(counted.covariates, panel.covariates)
    assert counted.audit() == panel.audit()


def faults_of(read, table, options) -> list:
    """Return the faults of a table without the rows that they name, only how many."""
    with pytest.raises(mfg.exceptions.DataError) as caught:
        read(table, **options)
    return [(f.what, f.n_rows, len(f.examples), f.remedy) for f in caught.value.faults]
