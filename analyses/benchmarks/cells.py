"""Agents of many kinds: one sweep over all their cells, on one core and on two.

Run `python analyses/benchmarks/cells.py --out FOLDER` on a quiet machine.
"""

# %% Constants

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import markdown, ratio
from threadpoolctl import threadpool_limits
from timing import time_in_turns

from mfgppl._kernels import threads
from mfgppl.data.panel import Counts
from mfgppl.likelihood.causal import CausalLikelihood

# cells, states of each, actions, times
SIZES = [(50, 20, 5, 50), (50, 20, 2, 50), (10, 100, 5, 50), (500, 10, 2, 50)]
QUICK_SIZES = [(50, 20, 5, 10)]


# %% Data: decisions of agents whose dynamics differ by cell, or do not


def law_of(n_cells: int, S: int, A: int, T: int, *, shared: bool, seed: int = 0) -> Any:
    """Return a causal law of cells with counts as of a large panel."""
    rng = np.random.default_rng(seed)
    tables = torch.from_numpy(rng.dirichlet(np.ones(S), size=(1, 1 if shared else n_cells, S, A)))
    actions = rng.poisson(3.0, size=(T, n_cells * S, A)).astype(float)
    none = np.zeros(actions.shape[:2])
    counts = Counts(actions, none, none, np.zeros_like(actions))
    return CausalLikelihood(tables.expand(1, n_cells, S, A, S), counts, 0.95, 1.0)


# %% Inference: one value and gradient


def row(size: tuple[int, int, int, int], rounds: int) -> list[str]:
    """Time all cells together against each alone, and two cores against one."""
    C, S, A, T = size
    reward = np.random.default_rng(1).standard_normal((T, C * S, A))
    alone = [law_of(1, S, A, T, shared=True, seed=c).evaluator() for c in range(C)]
    parts = [np.ascontiguousarray(reward[:, c * S : (c + 1) * S]) for c in range(C)]
    own, shared = (law_of(*size, shared=s).evaluator() for s in (False, True))
    usual, cores = threads.n_cores, os.cpu_count() or 1

    def on(n: int, call: Any) -> Any:
        threads.n_cores = lambda: n
        try:
            return call(reward)
        finally:
            threads.n_cores = usual

    times = time_in_turns(
        {
            "one type": lambda: [alone[0](parts[0]) for _ in range(C)],
            "each alone": lambda: [f(r) for f, r in zip(alone, parts, strict=True)],
            "own, 1": lambda: on(1, own),
            "own, 2": lambda: on(2, own),
            "shared, 1": lambda: on(1, shared),
            "shared, 2": lambda: on(2, shared),
        },
        rounds=rounds,
    )
    ms = {name: t.best / 1e3 for name, t in times.items()}
    beside = [ratio(ms["own, 2"], ms["own, 1"]), ratio(ms["shared, 2"], ms["shared, 1"])]
    return [
        f"{C}", f"{S}", f"{A}", f"{ms['own, 1']:.2f}", ratio(ms["own, 1"], ms["one type"]),
        ratio(ms["own, 1"], ms["each alone"]), ratio(ms["shared, 1"], ms["one type"]),
        *(beside if cores > 1 else ["-", "-"]),
    ]  # fmt: skip


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Time; return the table as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    with threadpool_limits(1):
        rows = [row(size, 3 if quick else 25) for size in (QUICK_SIZES if quick else SIZES)]
    header = ["cells", "states of each", "actions", "tables by cell, ms", "/ one cell as often",
              "/ cells one by one", "shared table / one cell as often", "two cores / one, by cell",
              "two cores / one, shared"]  # fmt: skip
    text = markdown("One value and gradient of many cells", header, rows)
    (out / "cells.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one size and few rounds")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
