"""Chains side by side, without pickling: in threads, or in a forked process each.

Threads are enough where a chain holds no interpreter lock. A density that runs Python gets a
process, so that chains do not wait for one another; in turn where a process may have no children.
"""

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from mfgppl._modes import own_turn
from mfgppl._progress import ChainBars, Watch

LOOK_EVERY = 0.5  # seconds between a chain's looks whether its parent lives
PR_SET_PDEATHSIG = 1  # of Linux: the signal that a process gets when its parent ends


class Chain(NamedTuple):
    """Draws of one chain after tuning.

    Attributes
    ----------
    theta : ndarray, shape (n, K)
        Unconstrained parameters.
    stats : dict of str to ndarray, shape (n,)
        Sampler statistics under ArviZ's names.
    """

    theta: np.ndarray
    stats: dict[str, np.ndarray]


class Settings(NamedTuple):
    """How a chain of the No-U-Turn Sampler runs; see `nuts`."""

    draws: int
    tune: int
    target_accept: float
    max_treedepth: int
    mass_matrix: str


# what to do with the draws of a chain that are new
Keep = Callable[[Chain], None]

# a chain's number and its watch, to the chain
RunChain = Callable[[int, Watch], Chain]


def run_chains(
    run: RunChain,
    n_chains: int,
    *,
    cores: int,
    draws: int,
    tune: int,
    threads: bool,
    progressbar: bool,
) -> tuple[list[Chain], bool]:
    """Run chains on some cores; an interrupt ends them and keeps the draws they have.

    Parameters
    ----------
    run : callable
        Runs one chain; on `KeyboardInterrupt` it returns the draws it has.
    n_chains, cores : int
        How many chains, and how many at a time.
    draws, tune : int
        Draws and tuning steps of one chain, for the progress bars.
    threads : bool
        Whether chains run without the interpreter's lock, so that threads are enough; otherwise
        each has a forked process.
    progressbar : bool
        Whether to show progress on a terminal.

    Returns
    -------
    chains : list of Chain
        Those that were started.
    interrupted : bool
        Whether an interrupt ended them early.
    """
    context = multiprocessing.get_context()
    steps, divergences = (context.RawArray("q", n_chains) for _ in range(2))
    stopped = threading.Event()
    watches = [Watch(steps, divergences, k, stopped) for k in range(n_chains)]
    with ChainBars(watches, draws, tune, progressbar) as bars:
        if cores == 1 or n_chains == 1:
            chains, interrupted = _run_in_turn(run, [w._replace(show=bars.show) for w in watches])
        elif threads:
            chains, interrupted = _run_in_threads(run, watches, cores, bars)
        elif _may_fork():
            chains, interrupted = _run_in_processes(run, watches, cores, bars)
        else:
            chains, interrupted = _run_in_turn(run, [w._replace(show=bars.show) for w in watches])
    # where fits run in threads, the terminal's interrupt reaches the forked chains alone
    whole = len(chains) == n_chains and all(len(chain.theta) == draws for chain in chains)
    return chains, interrupted or not whole


def _may_fork() -> bool:
    """Return whether this process can have forked children: a worker of a pool may have none."""
    known = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
    return known and not multiprocessing.current_process().daemon


class _OneThread:
    """Keep libraries to one thread while chains run: sums by several depend on how many.

    Chains of several fits may run at once; the last one that ends gives the threads back.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._users = 0

    def __enter__(self) -> None:
        with self._turn:
            if self._users == 0:
                self._before, self._limits = torch.get_num_threads(), threadpool_limits(1)
                torch.set_num_threads(1)
            self._users += 1

    def __exit__(self, *_: Any) -> None:
        with self._turn:
            self._users -= 1
            if self._users == 0:
                torch.set_num_threads(self._before)
                self._limits.restore_original_limits()


_one_thread = _OneThread()


def _run_in_turn(run: RunChain, watches: Sequence[Watch]) -> tuple[list[Chain], bool]:
    chains: list[Chain] = []
    with _one_thread, _Interrupts() as interrupts:
        try:
            for watch in watches:
                chains.append(run(watch.chain, watch))
                if interrupts.seen:
                    break
        except KeyboardInterrupt:
            pass
    return chains, interrupts.seen


def _run_in_threads(
    run: RunChain, watches: Sequence[Watch], cores: int, bars: ChainBars
) -> tuple[list[Chain], bool]:
    interrupted = False
    with _one_thread, ThreadPoolExecutor(cores) as pool:
        futures = [pool.submit(run, watch.chain, watch) for watch in watches]
        running = set(futures)
        while running:
            try:
                _, running = wait_for(running, timeout=0.1, return_when=FIRST_EXCEPTION)
                bars.show()
                if any(f.done() and not f.cancelled() and f.exception() for f in futures):
                    watches[0].stopped.set()
            except KeyboardInterrupt:
                interrupted = True
                watches[0].stopped.set()
                running = {f for f in running if not f.cancel()}
    return [f.result() for f in futures if not f.cancelled()], interrupted


class _Interrupts:
    """Remember whether Ctrl-C was pressed, for a sampler that answers it by itself."""

    def __init__(self) -> None:
        self.seen = False

    def __enter__(self) -> "_Interrupts":
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *_: Any) -> None:
        self.seen = True
        raise KeyboardInterrupt

    def __exit__(self, *_: Any) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)


def _run_in_processes(
    run: RunChain, watches: Sequence[Watch], cores: int, bars: ChainBars
) -> tuple[list[Chain], bool]:
    context = multiprocessing.get_context("fork")
    chains: dict[int, Chain] = {}
    running: dict[Connection, tuple[int, Any]] = {}
    waiting, interrupted = list(watches), False
    try:
        while waiting or running:
            try:
                while waiting and len(running) < cores:
                    watch = waiting.pop(0)
                    receiver, process = _fork(context, run, watch)
                    running[receiver] = (watch.chain, process)
                for ready in wait(list(running), timeout=0.1):
                    receiver = cast(Connection, ready)
                    k, process = running.pop(receiver)
                    outcome = _receive(receiver, k)
                    process.join()
                    if isinstance(outcome, BaseException):
                        raise outcome
                    chains[k] = outcome
                bars.show()
            except KeyboardInterrupt:
                interrupted, waiting = True, []
                _signal_all(running)
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
    return [chains[k] for k in sorted(chains)], interrupted


def _fork(context: Any, run: RunChain, watch: Watch) -> tuple[Connection, Any]:
    receiver, sender = context.Pipe(duplex=False)
    args = (run, watch, sender, os.getpid())
    process = context.Process(target=_child, args=args, daemon=True)
    with warnings.catch_warnings(), own_turn():  # no other thread's modes go into the child
        # threads of torch and BLAS hold no lock that a chain needs
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    return receiver, process


def _child(run: RunChain, watch: Watch, sender: Connection, parent: int) -> None:
    def interrupt_once(*_: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt_once)
    for name in (signal.SIGTERM, signal.SIGHUP):
        if callable(signal.getsignal(name)):  # what the parent does then is not a chain's to do
            signal.signal(name, signal.SIG_DFL)
    end_with(parent)
    torch.set_num_threads(1)
    threadpool_limits(1)  # a product by a library's threads would take the other chains' cores
    try:
        sender.send(run(watch.chain, watch))
    except BaseException as error:
        sender.send(_fit_to_travel(error, watch.chain))


def end_with(parent: int) -> None:
    """Let this forked process end when its parent does, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_outlive, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it was gone before
        os._exit(1)


def _outlive(parent: int) -> None:
    """Wait for the parent's end, then end."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    os._exit(1)


def _fit_to_travel(error: BaseException, k: int) -> BaseException:
    """Return an error that the parent can read: itself, or one with its name and words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # as many ways as there are classes
        return RuntimeError(f"chain {k} failed: {type(error).__name__}: {error}")
    return error


def _receive(receiver: Connection, k: int) -> Chain | BaseException:
    try:
        outcome: Chain | BaseException = receiver.recv()
    except EOFError:
        return RuntimeError(f"the process of chain {k} ended without its draws; try cores=1.")
    if isinstance(outcome, KeyboardInterrupt):
        return Chain(np.empty((0, 0)), {})
    return outcome


def _signal_all(running: dict[Connection, tuple[int, Any]]) -> None:
    for _, process in running.values():
        if process.is_alive():
            os.kill(process.pid, signal.SIGINT)


def complete_chains(chains: Sequence[Chain]) -> list[Chain]:
    """Return chains cut to the draws that all have, leaving out those without any."""
    kept = [c for c in chains if len(c.theta)]
    if not kept:
        return []
    n = min(len(c.theta) for c in kept)
    return [Chain(c.theta[:n], {k: v[:n] for k, v in c.stats.items()}) for c in kept]
