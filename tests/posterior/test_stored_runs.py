"""The two ends of a run with a store: what is refused before sampling, and a kill at the last."""

import errno
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import xarray as xr

import mfgppl as mfg
from mfgppl.checks.predictive import PredictiveCheck
from mfgppl.posterior import nuts as nuts_module
from mfgppl.posterior import store
from mfgppl.posterior.convergence import convergence_messages

OPTIONS = {"draws": 30, "tune": 30, "chains": 2, "cores": 1, "random_seed": 1}


def quietly(model, **options):
    """Sample without the warnings that short runs deserve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        return mfg.nuts(model, **(OPTIONS | options), progressbar=False)


@pytest.fixture(scope="module")
def draws(roads_model):
    """A short run."""
    return quietly(roads_model)


@pytest.fixture
def no_sampling(monkeypatch):
    """Chains that must not begin."""

    def begun(*args, **options):
        raise AssertionError("sampling began")

    monkeypatch.setattr(nuts_module, "run_chains", begun)


@pytest.fixture
def ended(roads_model, draws, tmp_path):
    """A store as it stands when the last draw is written, and the whole result beside it."""
    running, whole = tmp_path / "running.zarr", tmp_path / "whole.zarr"
    constants = xr.DataTree.from_dict({"observed_data": draws["observed_data"].dataset})
    constants.attrs = draws.attrs
    store.create_store(running, constants)
    for k in range(2):
        groups = {
            group: {str(n): v.values[k, :20] for n, v in draws[group].data_vars.items()}
            for group in ("posterior", "sample_stats")
        }
        store.append_draws(running, k, groups)
    mfg.save(draws, whole)
    return running, whole


def n_draws(path):
    """How many draws of each chain a path gives."""
    return mfg.load(path)["posterior"].sizes["draw"]


@pytest.mark.parametrize("names", [("", ".whole"), (".before", ".whole")])
def test_the_whole_result_is_loaded_wherever_the_kill_was(ended, tmp_path, names):
    """Once the result is built, it is what loads, whether the old store has gone or not."""
    path = tmp_path / "run.zarr"
    for source, end in zip(ended, names, strict=True):
        source.rename(tmp_path / f"run.zarr{end}")
    assert n_draws(path) == 30
    assert mfg.load(path).attrs["interrupted"] == 0


def test_the_old_store_is_loaded_where_it_alone_is_left(ended, tmp_path):
    """The draws written on the way are a shorter result that says so."""
    ended[0].rename(tmp_path / "run.zarr.before")
    assert n_draws(tmp_path / "run.zarr") == 20
    assert mfg.load(tmp_path / "run.zarr").attrs["interrupted"] == 1


@pytest.mark.parametrize("end", ["", ".whole", ".before"])
def test_what_an_earlier_run_left_is_refused_before_sampling(
    roads_model, ended, tmp_path, no_sampling, end
):
    """Whatever stands in the way of the store's last step is found before the first."""
    ended[1].rename(tmp_path / f"run.zarr{end}")
    with pytest.raises(FileExistsError, match="exists"):
        quietly(roads_model, store=tmp_path / "run.zarr")
    with pytest.raises(FileExistsError, match="exists"):
        mfg.save(mfg.load(tmp_path / "run.zarr"), tmp_path / "run.zarr")


@pytest.mark.parametrize("name", [".zarray", "..", "x" * 300, "a\0b"])
def test_names_that_a_store_cannot_hold_are_refused_before_sampling(
    roads_model, tmp_path, no_sampling, name
):
    """A site that has no place in a store is refused, and no store is begun."""

    def reward(x):
        return pyro.sample(name, dist.Normal(0.0, 1.0)) * x.density

    with pytest.raises((ValueError, OSError)):
        quietly(
            mfg.TrajectoryModel(roads_model.game, reward, roads_model.panel),
            store=tmp_path / "run.zarr",
        )
    assert not list(tmp_path.iterdir())


def full(*args, **options):
    """Fail as on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_at_the_end_keeps_the_draws(roads_model, draws, tmp_path, monkeypatch):
    """The result is returned with a warning, and the store keeps what was written on the way."""
    path = tmp_path / "run.zarr"
    monkeypatch.setattr(store, "finish_store", full)
    with pytest.warns(UserWarning, match="`store` could not take the result.*No space left"):
        found = quietly(roads_model, store=path)
    assert found["posterior"].equals(draws["posterior"])
    assert mfg.load(path).attrs["interrupted"] == 1


def test_a_disk_that_is_full_on_the_way_does_not_end_the_run(
    roads_model, draws, tmp_path, monkeypatch
):
    """Draws that cannot be written stay in memory, and the store takes the result at the end."""
    monkeypatch.setattr(store, "append_draws", full)
    found = quietly(roads_model, store=tmp_path / "run.zarr")
    assert found["posterior"].equals(draws["posterior"])
    assert n_draws(tmp_path / "run.zarr") == 30


def test_a_store_is_begun_whole_or_not_at_all(tmp_path, draws, monkeypatch):
    """A begun store has its constant groups; where these cannot be written there is none."""
    monkeypatch.setattr(store, "write_zarr", full)
    with pytest.raises(OSError, match="No space left"):
        store.create_store(tmp_path / "run.zarr", draws)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def lost(draws):
    """A single chain of which a tenth of the draws of a parameter is gone."""
    tree = draws.isel(chain=[0]).copy(deep=True)
    tree.attrs = dict(draws.attrs)
    tree["posterior"]["crowding"][:, :3] = np.nan
    return tree


def test_draws_that_are_not_finite_are_named_first(lost):
    """The checks of a single chain, which has no R-hat, find them as well."""
    first = convergence_messages(lost)[0]
    assert first == "3 of 30 draws of 'crowding' are not finite: the fit failed."


def test_draws_that_are_not_finite_are_refused(lost, roads_model, tmp_path):
    """No product, check, report or warm start counts them as numbers."""
    words = "3 of 30 (draws )?of 'crowding' are not"
    for use in (
        lambda: mfg.policy(roads_model, lost),
        lambda: mfg.predictive_check(roads_model, lost, random_seed=1),
        lambda: mfg.checks.observed_exploitability(roads_model, lost, random_seed=1),
        lambda: mfg.checks.contraction(lost, roads_model),
        lambda: mfg.report(lost, tmp_path / "r.html"),
        lambda: quietly(roads_model, init=lost),
    ):
        with pytest.raises(ValueError, match=words):
            use()


def test_statistics_without_a_number_pass_no_check():
    """Where nothing can be compared the check says so, and neither passes nor fails."""
    found = PredictiveCheck(pd.DataFrame({"p": [np.nan, np.nan]}), {}, 20)
    assert found.passed is None
    assert "No statistic has a value" in found.verdict
    assert PredictiveCheck(pd.DataFrame({"p": [0.5, np.nan]}), {}, 20).passed
