"""Large worlds and many cores: sparse and dense games against their floors, chains, imports.

Run `python analyses/benchmarks/worlds.py --out FOLDER` on a quiet machine.
"""

# %% Constants

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import floors
import numpy as np
import pyro
import pyro.distributions as dist
import reference
import scipy.sparse
import torch
from tables import markdown, ratio
from threadpoolctl import threadpool_limits
from timing import time_in_turns

import mfgppl as mfg
from mfgppl.density.of_model import density_of

SIDE, QUICK_SIDE = 100, 12
HORIZON, QUICK_HORIZON = 100, 10
N_WALKERS = 5000
TRUTH = {"crowding": 0.5, "effort": 0.3, "goal": 1.0}
STATES = [100, 200, 500]
MOVES = {"stay": (0, 0), "down": (1, 0), "up": (-1, 0), "right": (0, 1), "left": (0, -1)}
CHAINS, DRAWS = 4, 1000


# %% Data: a crowd on a grid


def grid(side: int, horizon: int, *, slip: float) -> mfg.MeanFieldGame:
    """Return a game on a grid whose moves fail with some probability and stop at the walls."""
    n = side**2
    cell = np.arange(n)
    row, column = cell // side, cell % side
    places, states, probabilities = [], [], []
    for a, (down, right) in enumerate(MOVES.values()):
        there = np.clip(row + down, 0, side - 1) * side + np.clip(column + right, 0, side - 1)
        for target, p in ((there, 1 - slip), (cell, slip)):
            places.append(cell * len(MOVES) + a)
            states.append(target)
            probabilities.append(np.full(n, p))
    entries = np.concatenate(probabilities), (np.concatenate(places), np.concatenate(states))
    matrix = scipy.sparse.csr_array(scipy.sparse.coo_array(entries, shape=(n * len(MOVES), n)))
    matrix.eliminate_zeros()
    return mfg.MeanFieldGame(
        states={"row": list(range(side)), "column": list(range(side))},
        actions=list(MOVES),
        horizon=horizon,
        transition=matrix,
        initial=np.full(n, 1 / n),
    )


def reward(x: mfg.RewardInputs) -> torch.Tensor:
    """Return the reward of the grid: crowds and moves cost, the middle attracts."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    effort = pyro.sample("effort", dist.HalfNormal(1.0))
    goal = pyro.sample("goal", dist.Normal(0.0, 1.0))
    side = int(np.sqrt(x.shape[1]))
    distance = ((x.row - side / 2) ** 2 + (x.column - side / 2) ** 2) / side**2
    return -crowding * x.shape[1] / 10 * x.density - effort * (x.action != "stay") - goal * distance


def walkers(game: mfg.MeanFieldGame) -> mfg.TrajectoryModel:
    """Return the model of walkers near the equilibrium of a grid."""
    found = mfg.solve_equilibrium(game, reward, parameters=TRUTH, max_steps=10).value
    panel = mfg.simulate(game, found.policy, found.mean_field, n_agents=N_WALKERS, random_seed=1)
    return mfg.TrajectoryModel(game, reward, panel, mean_field=found.mean_field)


# %% Inference: one value and gradient


def sparse_rows(quick: bool) -> list[list[str]]:
    """Time the kernel and the compiled density on grids, against the floor of the kernel."""
    rows = []
    side, horizon = (QUICK_SIDE, QUICK_HORIZON) if quick else (SIDE, HORIZON)
    for slip in (0.0, 0.2):
        game = grid(side, horizon, slip=slip)
        model = walkers(game)
        T, S, A = game.shape
        n_entries = int(game.transition._nnz())
        table = np.random.default_rng(0).standard_normal(game.shape)
        kernel, density = model.law.evaluator(), density_of(model)
        whole, theta = density.evaluator(), np.zeros(density.n_dim)
        calls = {"kernel": lambda k=kernel, r=table: k(r), "density": lambda w=whole, x=theta: w(x)}
        times = time_in_turns(calls, rounds=3 if quick else 10)
        lowest = floors.floor(floors.sparse_work(T, S, A, n_entries=n_entries))
        ms = {name: t.median / 1e3 for name, t in times.items()}
        rows.append(
            [f"{S:,}", f"{T}", f"{n_entries:,}", f"{ms['kernel']:.2f}", f"{ms['density']:.2f}",
             f"{1e3 * lowest.seconds:.2f}", ratio(ms["kernel"], 1e3 * lowest.seconds)]
        )  # fmt: skip
    return rows


def dense_rows(quick: bool) -> list[list[str]]:
    """Time the kernel with a dense table against BLAS alone on the same products."""
    rows = []
    for S in STATES[:1] if quick else STATES:
        T, A = 50, 5
        rng = np.random.default_rng(0)
        table = rng.dirichlet(np.ones(S), size=(S, A))
        game = mfg.MeanFieldGame(
            states=range(S), actions=range(A), horizon=T, transition=table,
            initial=np.full(S, 1 / S),
        )  # fmt: skip
        flow = game.initial.repeat(T, 1)
        policy = np.full(game.shape, 1 / A)
        panel = mfg.simulate(game, policy, flow, n_agents=2000, random_seed=1)

        def plain(x: mfg.RewardInputs) -> Any:
            return pyro.sample("w", dist.Normal(0.0, 1.0)) * x.density

        likelihood = mfg.TrajectoryModel(game, plain, panel, mean_field=flow).law
        r, kernel = rng.standard_normal(game.shape), likelihood.evaluator()
        by_next = likelihood.kernel_tables.tables[0, 0]
        values, weights = rng.standard_normal(S), rng.standard_normal(S * A)
        ahead, arrived = np.empty(S * A), np.empty(S)

        def products(m=by_next, v=values, w=weights, a=ahead, x=arrived, n=T - 1) -> None:
            for _ in range(n):
                np.dot(v, m, out=a)
                np.dot(m, w, out=x)

        many = rng.standard_normal((16, *game.shape))
        calls: dict[str, Callable[[], Any]] = {
            "kernel": lambda k=kernel, r=r: k(r),
            "BLAS": products,
            "one policy": lambda law=likelihood, r=r: law.log_policy(r),
            "16 policies": lambda law=likelihood, r=many: law.log_policy(r),
        }
        with threadpool_limits(1):
            times = time_in_turns(calls, rounds=3 if quick else 15)
        ms = {name: t.median / 1e3 for name, t in times.items()}
        each = ms["16 policies"] / 16
        rows.append(
            [f"{S}", f"{ms['kernel']:.2f}", f"{ms['BLAS']:.2f}", ratio(ms["kernel"], ms["BLAS"]),
             f"{ms['one policy']:.2f}", f"{each:.2f}", ratio(ms["one policy"], each)]
        )  # fmt: skip
    return rows


# %% Inference: chains and a fit of the sparse world


def chain_rows(quick: bool) -> list[list[str]]:
    """Time chains one after another and side by side on two cores."""
    size = reference.Size(n_agents=500) if quick else reference.Size()
    model = reference.model(reference.build(size))
    draws = 100 if quick else DRAWS
    options = {"draws": draws, "tune": draws}
    seconds: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    sampled(model, 2, **options)
    for _ in range(1 if quick else 7):
        for cores in seconds:
            began = time.perf_counter()
            tree = sampled(model, cores, **options)
            whole = time.perf_counter() - began
            seconds[cores].append((tree.attrs["sampling_time"], whole))
    rows = []
    for k, what in enumerate(("the chains", "the whole call")):
        alone, together = (statistics.median(s[k] for s in seconds[n]) for n in (1, 2))
        row = [f"{CHAINS} x {draws}", what, f"{alone:.2f}", f"{together:.2f}"]
        rows.append([*row, ratio(together, alone)])
    return rows


def sampled(model: mfg.TrajectoryModel, cores: int, **options: Any) -> Any:
    """Sample without log likelihoods by trajectory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        return mfg.nuts(
            model, chains=CHAINS, cores=cores, random_seed=1, log_likelihood=False,
            progressbar=False, **options,
        )  # fmt: skip


def fit_rows(quick: bool) -> list[list[str]]:
    """Sample the reward of the sparse world, where crowding and goal correlate."""
    game = grid(*((QUICK_SIDE, QUICK_HORIZON) if quick else (SIDE, HORIZON)), slip=0.2)
    model = walkers(game)
    draws, tune = (30, 30) if quick else (300, 150)
    began = time.perf_counter()
    tree = sampled(model, 2, draws=draws, tune=tune, mass_matrix="low_rank")
    seconds = time.perf_counter() - began
    from arviz_stats import ess, rhat

    posterior = tree["posterior"].dataset
    worst, agree, drawn = ess(posterior), rhat(posterior), {k: posterior[k].values for k in TRUTH}
    return [
        [name, f"{true}", f"{drawn[name].mean():.4f}", f"{drawn[name].std():.4f}",
         f"{float(worst[name]):.0f}", f"{float(agree[name]):.3f}", f"{seconds:.0f}"]
        for name, true in TRUTH.items()
    ]  # fmt: skip


def import_rows(quick: bool) -> list[list[str]]:
    """Time the import of the package in fresh processes, beyond torch and Pyro."""
    codes = {"torch and Pyro": "import torch, pyro", "and mfgppl": "import torch, pyro, mfgppl"}
    seconds: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(2 if quick else 9):
        for name, code in codes.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds[name].append(time.perf_counter() - began)
    first, both = (statistics.median(v) for v in seconds.values())
    return [[f"{first:.2f}", f"{both:.2f}", f"{both - first:.2f}"]]


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Time, sample; return the tables as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    pieces = []
    header = ["states", "T", "entries", "kernel, ms", "density, ms", "floor, ms", "kernel / floor"]
    title = "A grid with five moves, sparse: one value and gradient"
    pieces.append(markdown(title, header, sparse_rows(quick)))
    header = ["parameter", "truth", "mean", "sd", "bulk ESS", "R-hat", "s, whole fit"]
    pieces.append(markdown("Its reward by NUTS, 4 chains on 2 cores", header, fit_rows(quick)))
    header = ["states", "kernel, ms", "BLAS alone, ms", "kernel / BLAS", "one policy, ms",
              "of 16 at once, ms", "one / of 16"]  # fmt: skip
    title = "One dense table, T = 50, A = 5, one core"
    pieces.append(markdown(title, header, dense_rows(quick)))
    header = ["chains x draws", "", "one core, s", "two cores, s", "two / one"]
    pieces.append(markdown("Chains side by side", header, chain_rows(quick)))
    header = ["torch and Pyro, s", "with mfgppl, s", "beyond, s"]
    pieces.append(markdown("Import in a fresh process", header, import_rows(quick)))
    text = "\n".join(pieces)
    (out / "worlds.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small worlds and few draws")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
