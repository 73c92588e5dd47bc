"""Resamples in which something cannot be estimated are counted, and the others kept."""

import functools

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest

import mfgppl as mfg
from mfgppl._replication import seeds_of
from mfgppl.estimation.bootstrap import resample

FIT = functools.partial(mfg.mle, svi_steps=0, progressbar=False)


@functools.cache
def thin():
    """A model of twelve agents of whom one alone is seen at the last time."""
    rng, rows = np.random.default_rng(0), []
    for i in range(12):
        for t in range(4 if i == 0 else 3):
            rows.append((i, t, "lh"[rng.integers(2)], "ab"[rng.integers(2)]))
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    panel = mfg.Trajectories.from_frame(frame, state_labels={"state": ["l", "h"]})
    game = mfg.MeanFieldGame(
        states=["l", "h"], actions=["a", "b"], horizon=4, initial=[0.5, 0.5],
        transition=np.full((2, 2, 2), 0.5),
    )  # fmt: skip
    reward = mfg.linear_reward({"w": lambda x: x.action == "a"}, dist.Normal(0.0, 1.0))
    return mfg.TrajectoryModel(game, reward, panel)


def test_bootstrap_keeps_a_row_of_nan_for_what_cannot_be_fitted():
    """As many rows are missing as resamples lack the one agent."""
    model = thin()
    panel = model.panel
    drawn = [resample(panel, panel.agents, seed) for seed in seeds_of(1, 20)]
    lacking = np.array([int(one.time.max()) < 3 for one in drawn])
    assert 0 < lacking.sum() < 20
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match=rf"{lacking.sum()} of 20 resamples"):
        found = mfg.bootstrap(model, replications=20, random_seed=1, progressbar=False)
    assert found["w"].isna().tolist() == lacking.tolist()
    assert found.attrs["n_failed"] == lacking.sum()
    kept = int(np.flatnonzero(~lacking)[0])
    share = np.mean(drawn[kept].action == 0)
    assert found["w"][kept] == pytest.approx(np.log(share / (1 - share)), abs=1e-3)


def test_bootstrap_of_nothing_that_can_be_fitted_is_an_error():
    """Where no resample has an estimate there is no table."""
    panel = thin().panel
    seed = next(
        s for s in range(50)
        if all(int(resample(panel, panel.agents, k).time.max()) < 3 for k in seeds_of(s, 2))
    )  # fmt: skip
    with pytest.raises(mfg.exceptions.ConvergenceError, match="none of the 2 resamples"):
        mfg.bootstrap(thin(), replications=2, random_seed=seed, progressbar=False)


def test_kfold_leaves_out_the_fold_whose_rest_cannot_be_fitted():
    """The others' scores are those that they have by themselves."""
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="1 of 4 folds"):
        found = mfg.checks.kfold(
            thin(), FIT, folds=4, by="agent", mean_field="empirical", random_seed=1,
            progressbar=False,
        )  # fmt: skip
    assert found.n_data_points == found.elpd_i.size == 9
    assert "0" not in found.elpd_i["agent"].values
    assert found.elpd_i.attrs["n_failed"] == 1
    along = mfg.checks.kfold(thin(), FIT, folds=4, by="agent", random_seed=1, progressbar=False)
    np.testing.assert_allclose(
        found.elpd_i.values, along.elpd_i.sel(agent=found.elpd_i["agent"]).values, rtol=1e-5
    )
