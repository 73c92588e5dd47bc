"""Chains in threads, forks and workers: same draws, no waiting, nobody left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from forks import forked
from reference import tiny_case

import mfgppl as mfg
from mfgppl._modes import double_precision
from mfgppl.density.of_model import density_of
from mfgppl.posterior import chains

# short runs deserve their warnings; filters belong to the process, not to a thread
pytestmark = pytest.mark.filterwarnings("ignore::mfgppl.exceptions.ConvergenceWarning")
OPTIONS = {"draws": 6, "tune": 6, "chains": 2, "progressbar": False, "log_likelihood": False}
PATIENCE = 120  # seconds for what takes one, on a machine that does other things


def branching(x):
    """A program that runs as Python, as it branches on a parameter."""
    pull = pyro.sample("pull", dist.Normal(0.0, 1.0))
    return (pull if pull > 0 else 0.5 * pull) * (x.action == "a0")


def smooth(x):
    """A program that is compiled."""
    return pyro.sample("pull", dist.Normal(0.0, 1.0)) * (x.action == "a0")


def built(program):
    case = tiny_case(4, n_paths=60)
    model = mfg.TrajectoryModel(case.game, program, case.panel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.CompilationWarning)
        density_of(model)
    return model


def drawn(model, **options):
    """Return the draws (chain, draw) of a short run."""
    tree = mfg.nuts(model, **(OPTIONS | {"random_seed": 1} | options))
    return tree["posterior"]["pull"].values


def awaited(happened):
    """Wait for an event."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@pytest.mark.parametrize("sampler", ["nutpie", "pyro"])
def test_a_daemonic_process_runs_chains_in_turn(sampler, monkeypatch):
    """A worker, which may have no children, draws what a process with children draws."""
    model = built(branching)
    forked = drawn(model, cores=2, sampler=sampler)
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    np.testing.assert_array_equal(drawn(model, cores=2, sampler=sampler), forked)


@pytest.mark.parametrize("sampler", ["nutpie", "pyro"])
def test_fits_in_two_threads_draw_what_each_draws_alone(sampler):
    """Samplers that fork, and that share torch's generator, do not meet in two threads."""
    model = built(branching)
    cores = 2 if sampler == "nutpie" else 1

    def fit(seed):
        return drawn(model, random_seed=seed, sampler=sampler, cores=cores)

    alone = [fit(seed) for seed in range(3)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(fit, range(3), timeout=PATIENCE))
    np.testing.assert_array_equal(together, alone)


def test_pyros_sampler_beside_another_fit():
    """Pyro's handlers of a point fit in one thread are not those of a sampler in another."""
    model, other = built(smooth), built(branching)

    def point(_):
        return mfg.mle(other, svi_steps=20, progressbar=False).params.to_numpy()

    def sample(seed):
        return drawn(model, random_seed=seed, sampler="pyro", cores=1)

    alone = [sample(1), point(0)]
    with ThreadPoolExecutor(2) as pool:
        points, found = pool.map(point, range(2)), pool.submit(sample, 1)
        np.testing.assert_array_equal(found.result(PATIENCE), alone[0])
        for estimate in points:
            np.testing.assert_allclose(estimate, alone[1], atol=1e-6)


def test_a_fork_waits_for_the_turn_of_another_thread():
    """Chains are forked when no other thread has changed the process's modes."""
    model = built(branching)
    alone = drawn(model, cores=2)
    inside, done = threading.Event(), threading.Event()

    def hold():
        with double_precision():
            inside.set()
            done.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    with ThreadPoolExecutor(1) as pool:
        holder.start()
        inside.wait(PATIENCE)
        found = pool.submit(drawn, model, cores=2)
        done.set()
        np.testing.assert_array_equal(found.result(PATIENCE), alone)
    holder.join()


def alive(pid):
    """Return whether a process runs; one that waits to be buried does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks at processes in /proc")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGHUP"])
def test_chains_end_with_their_parent(name, tmp_path):
    """However the parent ends, its chains end."""

    def run(k, watch):
        (tmp_path / str(os.getpid())).touch()
        while True:
            sum(range(100_000))

    def parent():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which a run without a terminal may ignore
        chains.run_chains(run, 2, cores=2, draws=1, tune=1, threads=False, progressbar=False)

    process = forked(parent)
    try:
        awaited(lambda: len(os.listdir(tmp_path)) == 2)
        children = [int(pid) for pid in os.listdir(tmp_path)]
        assert all(alive(pid) for pid in children)
    finally:
        os.kill(process, getattr(signal, name))
        os.waitpid(process, 0)
    awaited(lambda: not any(alive(pid) for pid in children))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_where_the_kernel_does_not_watch_a_thread_does(tmp_path, monkeypatch):
    """A forked process sees its parent's end on systems without that signal too."""
    monkeypatch.setattr(chains, "LOOK_EVERY", 0.01)
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            chains._outlive(os.getppid())  # the writing end closes with this process
        os._exit(0)
    os.close(sender)
    os.waitpid(middle, 0)
    assert os.read(receiver, 1) == b""
    os.close(receiver)


def test_an_error_of_a_chain_reaches_the_caller():
    """An error travels as it is, or as its name and words where it cannot."""

    def fail(error):
        def run(k, watch):
            raise error

        chains.run_chains(run, 2, cores=2, draws=1, tune=1, threads=False, progressbar=False)

    with pytest.raises(KeyError, match="gone 3"):
        fail(KeyError("gone 3"))
    stuck = ValueError("gone 3")
    stuck.lock = threading.Lock()
    with pytest.raises(RuntimeError, match=r"chain \d failed: ValueError: gone 3"):
        fail(stuck)


def test_an_interrupt_that_only_chains_saw_is_said():
    """A chain that came back short makes the run an interrupted one."""

    def run(k, watch):
        n = 5 if k else 3
        return chains.Chain(np.zeros((n, 1)), {})

    options = {"draws": 5, "tune": 1, "progressbar": False}
    for cores, threads in ((2, False), (2, True), (1, False)):
        assert chains.run_chains(run, 2, cores=cores, threads=threads, **options)[1]
        assert not chains.run_chains(
            lambda k, watch: run(1, watch), 2, cores=cores, threads=threads, **options
        )[1]


def test_chains_have_one_thread_however_they_run():
    """Sums by several threads depend on how many; afterwards the threads are back."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)

    def run(k, watch):
        return chains.Chain(np.full((1, 1), torch.get_num_threads()), {})

    try:
        for cores, threads in ((1, False), (2, True), (2, False)):
            found, _ = chains.run_chains(
                run, 2, cores=cores, draws=1, tune=1, threads=threads, progressbar=False
            )
            assert [int(chain.theta[0, 0]) for chain in found] == [1, 1]
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


FIRST_FIT = """
import sys, warnings
import mfgppl as mfg
from mfgppl.models import market

warnings.simplefilter("ignore")
panel = mfg.Trajectories.from_frame(market.frame(30), **market.COLUMNS)
mfg.nuts(market.model(panel), draws=4, tune=4, chains=2, random_seed=1, progressbar=False)
print([name for name in ("arviz", "matplotlib.pyplot") if name in sys.modules])
import nutpie
print(nutpie.sample.__globals__["arviz"].from_dict is __import__("arviz").from_dict)
"""


def test_a_fit_does_not_load_figures_and_leaves_nutpie_whole(tmp_path):
    """ArviZ's old package, which nutpie returns its own results by, is loaded once asked for."""
    ran = subprocess.run(
        [sys.executable, "-c", FIRST_FIT], capture_output=True, text=True, check=True, timeout=600,
        cwd=tmp_path,  # the package as it is installed, not the folder of its sources
    )  # fmt: skip
    assert ran.stdout.split("\n")[:2] == ["[]", "True"]
