"""Times as people have them: integers and dates, evenly spaced, with labels of their own."""

import numpy as np
import pandas as pd
import polars as pl
import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg
from mfgppl.data.periods import Clock, Periods, periods_of
from mfgppl.exceptions import DataError

TIMES = {
    "integers": (range(3, 7), (3, 4, 5, 6)),
    "years, five apart": ([1990, 1995, 2000, 2005], (1990, 1995, 2000, 2005)),
    "negative, two apart": ([-2, 0, 2, 4], (-2, 0, 2, 4)),
    "ends of years": (pd.date_range("1990-12-31", periods=4, freq="YE"), (1990, 1991, 1992, 1993)),
    "months": (pd.date_range("1990-11-30", periods=4, freq="ME"),
               ("1990-11", "1990-12", "1991-01", "1991-02")),
    "periods of months": (pd.period_range("1990-11", periods=4, freq="M"),
                          ("1990-11", "1990-12", "1991-01", "1991-02")),
    "quarters": (pd.period_range("1990Q3", periods=4, freq="Q"),
                 ("1990Q3", "1990Q4", "1991Q1", "1991Q2")),
    "half-years": (pd.to_datetime(["2000-01-01", "2000-07-01", "2001-01-01", "2001-07-01"]),
                   ("2000Q1", "2000Q3", "2001Q1", "2001Q3")),
    "Mondays": (pd.date_range("2020-01-06", periods=4, freq="W-MON"),
                ("2020-01-06", "2020-01-13", "2020-01-20", "2020-01-27")),
    "days": (pd.date_range("2020-02-28", periods=4),
             ("2020-02-28", "2020-02-29", "2020-03-01", "2020-03-02")),
    "days of a time zone": (pd.date_range("2020-02-28", periods=4, tz="UTC"),
                            ("2020-02-28", "2020-02-29", "2020-03-01", "2020-03-02")),
}  # fmt: skip


def panel_of(times, n_agents: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = len(times) * n_agents
    return pd.DataFrame(
        {
            "agent": np.repeat(np.arange(n_agents), len(times)),
            "time": pd.Series(list(times) * n_agents),
            "state": rng.choice(["p", "q"], n),
            "action": rng.choice(["a", "b"], n),
        }
    )


@pytest.mark.parametrize(("times", "labels"), TIMES.values(), ids=TIMES)
def test_times_are_one_step_apart_and_keep_their_names(times, labels, tmp_path):
    """The labels come back from the panel's table, in memory and as files."""
    panel = mfg.Trajectories.from_frame(panel_of(times))
    assert panel.horizon == 4
    assert panel.n_trajectories == 5  # none is split
    assert panel.periods.labels == labels
    assert [panel.periods.position(label) for label in labels] == [0, 1, 2, 3]
    table = panel.to_frame()
    table.to_csv(tmp_path / "panel.csv", index=False)
    table.to_parquet(tmp_path / "panel.parquet")
    for source in (
        table,
        tmp_path / "panel.csv",
        tmp_path / "panel.parquet",
        pl.from_pandas(table),
    ):
        again = mfg.Trajectories.from_frame(source)
        assert again.periods == panel.periods
        np.testing.assert_array_equal(again.time, panel.time)


def test_uneven_times_name_where_and_what_to_do():
    with pytest.raises(DataError, match="evenly spaced until 1970: keep those, or times that"):
        mfg.Trajectories.from_frame(panel_of([1968, 1969, 1970, 1972, 1974]))


def test_missing_dates_are_a_fault():
    frame = panel_of(pd.date_range("2020-01-01", periods=4))
    frame.loc[2, "time"] = pd.NaT
    with pytest.raises(DataError, match="missing value in 'time'"):
        mfg.Trajectories.from_frame(frame)


def test_gaps_are_found_among_dates():
    """A month that others have and an agent lacks."""
    frame = panel_of(pd.period_range("1990-11", periods=4, freq="M")).drop(index=2)
    with pytest.raises(DataError, match="gap in time before"):
        mfg.Trajectories.from_frame(frame)
    split = mfg.Trajectories.from_frame(frame, gaps="split")
    assert split.labels[:2].tolist() == ["0 from 1990-11", "0 from 1991-02"]


def test_engines_that_only_count_say_who_takes_dates():
    frame = pl.from_pandas(panel_of(pd.date_range("2020-01-01", periods=4))).lazy()
    with pytest.raises(DataError, match=r"Trajectories\.from_frame takes dates"):
        mfg.CountedPanel.from_frame(frame)


@pytest.mark.parametrize("horizon", [["a", "b"], [1, 2, 4], [2, 1], [], [1.5, 2.5], [True, False]])
def test_labels_of_a_game_are_evenly_spaced_integers(horizon):
    with pytest.raises(ValueError, match="`horizon` must be a number of decision times, or their"):
        periods_of(horizon)


def test_a_game_takes_labels_and_goes_on_with_them():
    stay = np.eye(2)[:, None].repeat(2, 1)
    game = mfg.MeanFieldGame(
        states=["p", "q"], actions=["a", "b"], horizon=range(1990, 2000, 5), transition=stay,
        initial=[0.5, 0.5],
    )  # fmt: skip
    assert game.horizon == 2
    assert game.periods == Periods(1990, Clock(5), 2)
    assert game.replace(horizon=4).periods.labels == (1990, 1995, 2000, 2005)
    assert game.replace(discount=0.9).periods == game.periods
    drawn = mfg.simulate(game, np.full((2, 2, 2), 0.5), np.full((2, 2), 0.5), n_agents=3)
    assert drawn.to_frame()["time"].unique().tolist() == [1990, 1995]
    with pytest.raises(ValueError, match="'period' is an input of reward programs where `horizon`"):
        game.replace(features={"period": ("time", [1.0, 2.0])})


def test_a_model_compares_the_labels_of_game_and_panel():
    panel = mfg.Trajectories.from_frame(panel_of([1990, 1995, 2000, 2005]))
    game = mfg.MeanFieldGame(
        states=panel.space.coordinates, actions=panel.actions, horizon=panel.periods,
        transition=panel.estimate_transition(prior_count=1.0), initial=panel.initial_distribution(),
    )  # fmt: skip

    def reward(x):
        return pyro.sample("w", dist.Normal(0.0, 1.0)) * (x.action == "a") * (x.period >= 2000)

    model = mfg.TrajectoryModel(game, reward, panel)
    assert model.game.periods == panel.periods
    with pytest.raises(
        ValueError, match=r"first times \[0, 1, 2\], the panel \[1990, 1995, 2000\]"
    ):
        mfg.TrajectoryModel(game.replace(horizon=[0, 1, 2, 3]), reward, panel)
