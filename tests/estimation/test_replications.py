"""Many fits: seeds of their own, wherever they run."""

import dataclasses
import functools
import warnings

import joblib
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
from reference import tiny_case

import mfgppl as mfg
from mfgppl.calibration import replicate
from mfgppl.estimation.bootstrap import resample


@pytest.fixture
def draw():
    """A task, made where it is used: other processes cannot import a test."""

    def task(seed):
        return np.random.default_rng(seed).normal(size=3)

    return task


@functools.cache
def two_hills():
    """Return a model whose likelihood has two hills, its program defined in a function."""
    case = tiny_case(4, n_paths=200)

    def both_sides(x):
        root = pyro.sample("root", dist.Normal(0.0, 2.0))
        return (root**2 + 0.2 * root) * (x.action == "a0")

    return mfg.TrajectoryModel(case.game, both_sides, case.panel)


@functools.cache
def restarted():
    """Return its fit from four starts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mfg.mle(two_hills(), restarts=3, progressbar=False)


def test_closures_travel_to_other_processes():  # first: a worker that grows later is started anew
    """A task may hold a model with a reward program defined in a function; so do restarts."""
    model = two_hills()

    def task(seed):
        return mfg.mle(model, svi_steps=0, init={"root": 1.0}, flow_bias=False).llf

    here = replicate(task, 2, random_seed=1)
    np.testing.assert_allclose(replicate(task, 2, random_seed=1, n_jobs=2), here, rtol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shared = mfg.mle(model, restarts=3, n_jobs=2, progressbar=False)
    np.testing.assert_allclose(shared.attained, restarted().attained, rtol=1e-9)


@pytest.mark.parametrize(
    "how", [{"n_jobs": 1}, {"n_jobs": 2}, {"n_jobs": 3, "backend": "threading"}], ids=str
)
def test_results_do_not_depend_on_the_workers(draw, how):
    """Any number of workers of any kind gives the same results in the same order."""
    expected = replicate(draw, 7, random_seed=5)
    with joblib.parallel_config(**how):
        found = replicate(draw, 7, random_seed=5)
    np.testing.assert_array_equal(found, expected)
    assert len({tuple(v) for v in expected}) == 7


def test_more_runs_keep_the_first(draw):
    """The streams are those of one seed sequence: more tasks do not change the first ones."""
    np.testing.assert_array_equal(
        replicate(draw, 3, random_seed=5),
        replicate(draw, 9, random_seed=5)[:3],
    )
    assert not np.array_equal(
        replicate(draw, 3, random_seed=5),
        replicate(draw, 3, random_seed=6),
    )


def test_resampling_draws_whole_clusters():
    """Each drawn owner brings all its trajectories, and as many owners are drawn as there are."""
    panel = tiny_case(4, n_paths=30).panel
    panel = panel.subset(np.arange(30))
    owners = np.repeat([f"owner {k}" for k in range(10)], 3)
    drawn = resample(panel, owners, seed=2)
    chosen = np.random.default_rng(2).integers(10, size=10)
    expected = np.concatenate([panel.agents[owners == f"owner {k}"] for k in chosen])
    np.testing.assert_array_equal(drawn.agents, expected)
    assert len(set(chosen)) < 10


def test_bootstrap_spread_is_the_standard_error_where_the_flow_is_known():
    """With a known flow, the bootstrap's spread is that of the observed information."""
    case = tiny_case(4, n_paths=600)

    def reward(x):
        return pyro.sample("pull", dist.Normal(0.0, 1.0)) * (x.action == "a0")

    flow = case.panel.mean_field()
    model = mfg.TrajectoryModel(case.game, reward, case.panel, mean_field=flow)
    table = mfg.bootstrap(model, replications=100, random_seed=3)
    error = mfg.mle(model, progressbar=False).bse["pull"]
    assert table.shape == (100, 1)
    assert table["pull"].std() == pytest.approx(error, rel=5 / np.sqrt(2 * 100))


def test_bootstrap_by_group_equals_its_definition():
    """A replication is the fit to the panel resampled by that group, with that panel's flow."""
    case = tiny_case(4, n_paths=300)

    def reward(x):
        return pyro.sample("pull", dist.Normal(0.0, 1.0)) * x.density * (x.action == "a0")

    owners = np.arange(case.panel.n_trajectories) // 4
    panel = dataclasses.replace(case.panel, groups={"owner": owners})
    model = mfg.TrajectoryModel(case.game, reward, panel)
    table = mfg.bootstrap(model, replications=2, cluster="owner", random_seed=7)
    seed = int(np.random.SeedSequence(7).spawn(2)[1].generate_state(1)[0])
    drawn = mfg.TrajectoryModel(case.game, reward, resample(panel, owners, seed))
    refit = mfg.mle(drawn, progressbar=False, svi_steps=0)
    np.testing.assert_allclose(table.loc[1], refit.params, rtol=1e-6)
    assert abs(table.loc[1, "pull"] - table.loc[0, "pull"]) > 1e-3


def test_restarts_keep_the_best_of_several_maxima():
    """From the prior's side one hill is reached; starts on the other show it, the best is kept."""
    many = restarted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = mfg.mle(two_hills(), progressbar=False)
    assert len(one.attained) == 1
    assert len(many.attained) == 4
    assert many.llf == pytest.approx(max(many.attained))


def test_wrong_arguments(draw, roads_model):
    """Each says what it takes."""
    with pytest.raises(TypeError, match="`task` must be a function of a seed"):
        replicate(3, 2, random_seed=1)
    with pytest.raises(ValueError, match="`n` must be at least 1"):
        replicate(draw, 0, random_seed=1)
    with pytest.raises(ValueError, match="`cluster` must be one of 'agent'"):
        mfg.bootstrap(roads_model, cluster="firm", random_seed=1)
    with pytest.raises(ValueError, match="`restarts` must be at least 0"):
        mfg.mle(roads_model, restarts=-1)
    assert isinstance(mfg.bootstrap(roads_model, replications=2, random_seed=1), pd.DataFrame)
