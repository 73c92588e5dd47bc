"""Stores that survive a killed run, warm starts, and progress bars."""

import io
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import xarray as xr
from reference import tiny_case

import mfgppl as mfg
from mfgppl.inference import progress
from mfgppl.inference.store import append_draws, create_store

OPTIONS = {"draws": 200, "tune": 100, "chains": 2, "random_seed": 4, "progressbar": False}

KILLED = """
import sys, warnings
sys.path.insert(0, {tests!r})
import mfgppl as mfg
from reference import tiny_case
from test_long_runs import pulled
warnings.simplefilter("ignore")
case = tiny_case(4, n_paths=60)
model = mfg.TrajectoryModel(case.game, pulled, case.panel)
mfg.nuts(model, draws=10_000_000, tune=50, chains=2, random_seed=1, store={store!r}, cores={cores})
"""


def pulled(x):
    pull = pyro.sample("pull", dist.Normal(0.0, 1.0))
    crowd = pyro.sample("crowd", dist.HalfNormal(2.0).expand([2]).to_event(1))
    pyro.deterministic("ratio", pull / crowd)
    return pull * (x.action == "a0") - crowd[0] * x.density * (x.action == "a1") - crowd[1]


@pytest.fixture(scope="module")
def model():
    """A model with a vector of parameters and a recorded value."""
    case = tiny_case(4, n_paths=60)
    return mfg.TrajectoryModel(case.game, pulled, case.panel)


def quietly(model, **options):
    """Sample without the warnings that short runs deserve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.ConvergenceWarning)
        return mfg.nuts(model, **(OPTIONS | options))


def test_a_store_holds_the_result(model, tmp_path):
    """A run that ends leaves in its store what it returns, and the same draws as without one."""
    stored = quietly(model, store=tmp_path / "run.zarr")
    loaded = mfg.load(tmp_path / "run.zarr")
    assert loaded["posterior"].equals(quietly(model)["posterior"])
    for group in stored.children:
        xr.testing.assert_allclose(loaded[group].dataset, stored[group].dataset)
    assert loaded.attrs["warnings"] == stored.attrs["warnings"]
    assert [p.name for p in tmp_path.iterdir()] == ["run.zarr"]


def test_save_and_load_by_zarr(model, tmp_path):
    """A path that ends in .zarr is written and read as a store, once."""
    draws = quietly(model)
    mfg.save(draws, tmp_path / "saved.zarr")
    xr.testing.assert_identical(
        mfg.load(tmp_path / "saved.zarr")["posterior"].dataset, draws["posterior"].dataset
    )
    with pytest.raises(FileExistsError, match="exists"):
        mfg.save(draws, tmp_path / "saved.zarr")


@pytest.mark.parametrize("cores", [1, 2])
def test_a_killed_run_leaves_a_shorter_result_that_says_so(model, tmp_path, cores):
    """After SIGKILL the store loads with all chains cut alike, and a new run takes it up."""
    store = tmp_path / "run.zarr"
    code = KILLED.format(tests=os.path.dirname(__file__), store=str(store), cores=cores)
    path = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, start_new_session=True
    )
    try:
        last = store / "chains" / str(cores - 1) / "sample_stats" / "lp" / "0"
        for _ in range(600):
            time.sleep(0.1)
            if last.exists():
                break
        time.sleep(1.5)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    tree = mfg.load(store)
    posterior = tree["posterior"]
    assert posterior.sizes["chain"] == cores
    assert 0 < posterior.sizes["draw"] < 10_000_000
    assert all(np.isfinite(v).all() for v in posterior.data_vars.values())
    assert tree.attrs["interrupted"] == 1
    assert any("interrupted" in m and "10000000" in m for m in tree.attrs["warnings"])
    np.testing.assert_allclose(
        posterior["ratio"], posterior["pull"].values[..., None] / posterior["crowd"]
    )
    assert {"sample_stats", "log_prior", "observed_data", "constant_data"} <= set(tree.children)
    again = quietly(model, init=tree, tune=20, draws=50)
    assert again["posterior"].sizes["draw"] == 50


def test_a_warm_start_takes_up_draws_and_steps(model):
    """Two tuning steps after a warm start are enough; from anywhere they are not."""
    first = quietly(model, draws=500, tune=500)
    warm = quietly(model, init=first, tune=2, draws=500)
    lp = first["sample_stats"]["lp"]
    begun = warm["sample_stats"]["lp"].isel(draw=0)
    assert (begun > lp.min()).all()
    steps = warm["sample_stats"]["step_size"].mean() / first["sample_stats"]["step_size"].mean()
    assert 0.3 < float(steps) < 3.0


def test_chains_of_other_lengths_are_cut_alike(model, tmp_path):
    """Of chains that wrote 5 and 3 draws, 3 count; a draw written in part does not."""
    constants = xr.DataTree()
    constants.attrs = {"inference_library": "mfgppl", "chains_asked": 2, "draws_asked": 9}
    create_store(tmp_path / "a.zarr", constants)
    for chain, n in enumerate((5, 3)):
        stats = {"lp": np.arange(float(n)), "diverging": np.zeros(n, dtype=bool)}
        stats["reached_max_treedepth"] = np.zeros(n, dtype=bool)
        groups = {"posterior": {"w": np.ones((n, 2))}, "sample_stats": stats}
        append_draws(tmp_path / "a.zarr", chain, groups)
    half = {"posterior": {"w": np.ones((1, 2))}}
    append_draws(tmp_path / "a.zarr", 1, half)
    tree = mfg.load(tmp_path / "a.zarr")
    assert tree["posterior"]["w"].shape == (2, 3, 2)


def test_wrong_stores(model, tmp_path):
    """Each wrong store is refused before anything is sampled."""
    with pytest.raises(ValueError, match=r"must end in \.zarr"):
        quietly(model, store=tmp_path / "run.nc")
    with pytest.raises(FileNotFoundError, match="no folder"):
        quietly(model, store=tmp_path / "nowhere" / "run.zarr")
    with pytest.raises(ValueError, match="needs sampler='nutpie'"):
        quietly(model, store=tmp_path / "run.zarr", sampler="pyro")
    create_store(tmp_path / "begun.zarr", xr.DataTree())
    with pytest.raises(FileExistsError, match="name another store"):
        quietly(model, store=tmp_path / "begun.zarr")
    with pytest.raises(ValueError, match="no draws after tuning"):
        mfg.load(tmp_path / "begun.zarr")
    with pytest.raises(ValueError, match=r"no zarr store"):
        mfg.load(tmp_path)


def test_a_warm_start_from_another_model_is_refused(model):
    """Draws that lack a parameter say which."""
    with pytest.raises(ValueError, match="`init` lacks the parameter 'pull'"):
        quietly(model, init=xr.DataTree.from_dict({"posterior": xr.Dataset()}))


class Terminal(io.StringIO):
    """A standard error that somebody watches."""

    def isatty(self):
        """Say so."""
        return True


@pytest.mark.parametrize("cores", [1, 2])
def test_progress_shows_chains_divergences_and_time_left(model, monkeypatch, cores):
    """Each chain has a bar with its state; the kernels' compilation has one; all vanish."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    vars(model).pop("_density", None)
    quietly(model, cores=cores, progressbar=True, draws=20_000, tune=30_000, log_likelihood=False)
    shown = screen.getvalue()
    for words in ("loading kernels", "chain 0: tuning", "chain 1: sampling", "diverging", "<"):
        assert words in shown
    assert shown.rstrip("\x1b[A \r\n") == "" or shown.endswith("\r")


def test_no_progress_off_a_terminal(model, capsys):
    """Nothing is written where nobody watches."""
    quietly(model, progressbar=True)
    assert capsys.readouterr().err == ""


def test_states_of_a_chain():
    """A chain waits, tunes, samples and is done."""
    bars = progress.ChainBars([], draws=10, tune=5, wanted=False)
    states = [bars.state(n).strip() for n in (0, 4, 5, 14, 15)]
    assert states == ["waiting", "tuning", "sampling", "sampling", "done"]
