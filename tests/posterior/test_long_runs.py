"""Stores that survive a killed run, warm starts, and progress bars."""

import io
import os
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import xarray as xr
from forks import forked
from reference import tiny_case

import mfgppl as mfg
from mfgppl import _progress as progress
from mfgppl.posterior.store import append_draws, create_store

OPTIONS = {"draws": 200, "tune": 100, "chains": 2, "random_seed": 4, "progressbar": False}


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
    """Sample without the warnings that short runs deserve, and that of the constant `crowd[1]`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        return mfg.nuts(model, **(OPTIONS | options))


@pytest.fixture(scope="module")
def plain(model):
    """A short run without a store."""
    return quietly(model)


def test_a_store_holds_the_result(model, plain, tmp_path):
    """A run that ends leaves in its store what it returns, and the same draws as without one."""
    stored = quietly(model, store=tmp_path / "run.zarr")
    loaded = mfg.load(tmp_path / "run.zarr")
    assert loaded["posterior"].equals(plain["posterior"])
    for group in stored.children:
        xr.testing.assert_allclose(loaded[group].dataset, stored[group].dataset)
    assert loaded.attrs["warnings"] == stored.attrs["warnings"]
    assert [p.name for p in tmp_path.iterdir()] == ["run.zarr"]


def test_save_and_load_by_zarr(plain, tmp_path):
    """A path that ends in .zarr is written and read as a store, once."""
    mfg.save(plain, tmp_path / "saved.zarr")
    xr.testing.assert_identical(
        mfg.load(tmp_path / "saved.zarr")["posterior"].dataset, plain["posterior"].dataset
    )
    with pytest.raises(FileExistsError, match="exists"):
        mfg.save(plain, tmp_path / "saved.zarr")


@pytest.mark.parametrize("cores", [1, 2])
def test_a_killed_run_leaves_a_shorter_result_that_says_so(model, tmp_path, cores):
    """After SIGKILL the store loads with all chains cut alike, and a new run takes it up."""
    store = tmp_path / "run.zarr"
    process = forked(
        lambda: quietly(model, draws=10_000_000, tune=50, store=store, cores=cores, random_seed=1)
    )
    try:
        last = [store / "chains" / str(k) / "sample_stats" / "lp" / "0" for k in range(cores)]
        while not all(path.exists() for path in last):
            ended, _ = os.waitpid(process, os.WNOHANG)
            assert not ended, "the run ended before it had stored a draw"
            time.sleep(0.05)
    finally:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
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
    first = quietly(model, draws=200, tune=300)
    warm = quietly(model, init=first, tune=2, draws=200)
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
def test_progress_shows_each_chain_and_vanishes(model, monkeypatch, cores):
    """Each chain has a bar, the kernels' compilation has one, and all vanish."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    vars(model).pop("_kept", None)
    quietly(model, cores=cores, progressbar=True, log_likelihood=False)
    shown = screen.getvalue()
    for words in ("loading kernels", "chain 0: waiting", "chain 1: waiting", "diverging", "<"):
        assert words in shown
    assert shown.rstrip("\x1b[A \r\n") == "" or shown.endswith("\r")


def test_bars_show_where_chains_stand(monkeypatch):
    """State and divergences of each chain are read from what it notes."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    stopped = threading.Event()
    steps, divergences = [0, 0], [0, 0]
    watches = [progress.Watch(steps, divergences, k, stopped) for k in range(2)]
    with progress.ChainBars(watches, draws=10, tune=5, wanted=True) as bars:
        watches[0].at(3, 0)
        watches[1].at(9, 2)
        bars.show()
    shown = screen.getvalue()
    for words in ("chain 0: tuning", "0 diverging", "chain 1: sampling", "2 diverging"):
        assert words in shown


def test_no_progress_off_a_terminal(model, capsys):
    """Nothing is written where nobody watches."""
    quietly(model, progressbar=True)
    assert capsys.readouterr().err == ""


class Pipe:
    """What a service puts in place of standard error: written to, and no more."""

    def __init__(self):
        self.written = ""

    def write(self, text):
        """Keep it."""
        self.written += text

    def flush(self):
        """Nothing waits."""


@pytest.mark.parametrize("screen", [None, Pipe()], ids=["none", "no isatty"])
def test_no_progress_where_standard_error_is_no_terminal(
    model, plain, roads_model, monkeypatch, screen
):
    """Draws and fits are the same, and nothing is written."""
    vars(model).pop("_kept", None)
    usual = mfg.mle(roads_model, progressbar=False).params
    monkeypatch.setattr(sys, "stderr", screen)
    assert quietly(model, progressbar=True)["posterior"].equals(plain["posterior"])
    assert mfg.mle(roads_model, progressbar=True).params.equals(usual)
    assert mfg.calibration.replicate(lambda seed: seed > 0, 2, random_seed=1) == [True, True]
    assert screen is None or screen.written == ""


def test_states_of_a_chain():
    """A chain waits, tunes, samples and is done."""
    bars = progress.ChainBars([], draws=10, tune=5, wanted=False)
    states = [bars.state(n).strip() for n in (0, 4, 5, 14, 15)]
    assert states == ["waiting", "tuning", "sampling", "sampling", "done"]
