"""What a finer or coarser cut does to a fit."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg

QUIET = {"progressbar": False, "svi_steps": 0}


def raw(slope: float, bent: float) -> pd.DataFrame:
    """Return choices that follow a logit in a margin that comes at random at each time."""
    rng = np.random.default_rng(0)
    n = 3000
    margin = rng.uniform(0.0, 4.0, size=n)
    go = rng.random(n) < 1 / (1 + np.exp(-slope * (margin - 2.0) - bent * (margin > 3.5)))
    return pd.DataFrame(
        {"agent": np.repeat(np.arange(n // 3), 3), "time": np.tile(range(3), n // 3),
         "margin": margin, "action": np.where(go, "go", "stay")}
    )  # fmt: skip


def reward(x):
    level = pyro.sample("level", dist.Normal(0.0, 5.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 5.0))
    return (level + slope * x.margin.centres) * (x.action == "go")


def fit(table: pd.DataFrame) -> mfg.results.PointEstimate:
    panel = mfg.Trajectories.from_frame(table, state="margin")
    game = mfg.MeanFieldGame(
        states=panel.space.coordinates, actions=panel.actions, horizon=panel.horizon,
        transition=panel.estimate_transition(prior_count=0.5),
        initial=panel.initial_distribution(),
    )  # fmt: skip
    return mfg.mle(mfg.TrajectoryModel(game, reward, panel), **QUIET)


def test_rows_are_the_fits_of_each_cut():
    """Each row is the fit of the table cut so; a finer cut of a true line loses less of it."""
    table = raw(1.0, 0.0)
    found = mfg.design.bins_matter(table, fit, column="margin", cuts=[2, [0, 1, 2, 3, 4], 8])
    assert found.table["bins"].tolist() == [2, 4, 8]
    again = fit(mfg.discretise(table, margin=8))
    assert found.estimates.loc[3].tolist() == again.params.tolist()
    assert found.std_err.loc[3].tolist() == again.bse.tolist()
    assert found.table.loc[3, "log_likelihood"] == again.llf
    lost = found.table["lost"]
    np.testing.assert_allclose(lost, [1 / 4, 1 / 16, 1 / 64], rtol=0.05)  # of uniform numbers
    assert "over 2 to 8 bins of margin" in found.verdict
    assert found.verdict in str(found)


def test_the_verdict_follows_what_moves():
    """In standard errors: two cuts alike change nothing, one that hides a jump does."""
    bent = raw(0.0, 3.0)
    same = mfg.design.bins_matter(bent, fit, column="margin", cuts=[[0, 2, 4], [0.0, 2.0, 4.0]])
    assert same.moves.tolist() == [0.0, 0.0]
    assert same.verdict.startswith("the cut matters little")
    other = mfg.design.bins_matter(bent, fit, column="margin", cuts=[[0, 2, 4], [0, 3.5, 4]])
    reach = np.ptp(other.estimates["slope"]) / other.std_err["slope"].max()
    assert other.moves["slope"] == pytest.approx(reach)
    assert reach > 1.0
    assert other.verdict.startswith("the cut matters:")


WRONG = {
    "no table": ({"frame": [1.0, 2.0]}, TypeError, "`frame` must be a table"),
    "no function": ({"fit": 3}, TypeError, "`fit` must be a function of a table"),
    "a class": ({"fit": dict}, TypeError, "a function of a table; got the class dict"),
    "one cut": ({"cuts": 5}, ValueError, "`cuts` must list two or more"),
    "no such column": ({"column": "margni"}, ValueError, "no column 'margni'"),
    "no fit": ({"fit": lambda df: df}, TypeError, "`fit` must be a PointEstimate"),
}


@pytest.mark.parametrize(("given", "error", "words"), WRONG.values(), ids=WRONG)
def test_wrong_calls_are_refused(given, error, words):
    sound = {"frame": raw(1.0, 0.0), "fit": fit, "column": "margin", "cuts": [2, 3]}
    with pytest.raises(error, match=words):
        mfg.design.bins_matter(**(sound | given))
