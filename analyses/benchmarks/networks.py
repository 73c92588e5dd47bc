"""Networks: equilibria on graphons, the coupled likelihood, exposures along many edges.

Run `python analyses/benchmarks/networks.py --out FOLDER` on a quiet machine.
"""

# %% Constants

import argparse
import resource
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from tables import markdown, ratio
from threadpoolctl import threadpool_limits
from timing import time_in_turns

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.models import investment_graphon, sis_graphon

WORLDS = [
    (investment_graphon, "uniform_attachment"),
    (investment_graphon, "ranked_attachment"),
    (sis_graphon, "uniform_attachment"),
]
N_AGENTS, SEED = 2000, 1
NODES, EDGES, STATES, TIMES = 10_000, 100_000, 5, 20


# %% Data and inference: an equilibrium, then both likelihoods at the truth and one error from it


def row(file: ModuleType, graphon: str, positions: int, rounds: int) -> list[str]:
    """Time an equilibrium in seconds, and coupled evaluations in plug-in evaluations."""
    game = file.game(graphon=graphon, positions=positions)

    def solve() -> Any:
        return mfg.solve_equilibrium(game, file.reward, parameters=file.TRUTH, throw=True).value

    world = solve()
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=N_AGENTS, random_seed=SEED)
    counts = mfg.CountedPanel.from_trajectories(panel)
    model = mfg.TrajectoryModel(game, file.reward, counts, mean_field=world.mean_field)
    fit = mfg.mle(model, svi_steps=0, progressbar=False)
    plug, coupled = density_of(model), density_of(model.along("equilibrium"))
    names = list(plug.program.by_site(np.zeros(plug.program.n_dim)))
    truth = plug.program.free({name: np.asarray(file.TRUTH[name]) for name in names})
    error = np.array([fit.bse[name] / file.TRUTH[name] for name in names]) / len(names) ** 0.5
    signs = iter(np.tile([1.0, -1.0], 10_000))
    evaluate, solve_within = (d.evaluator(prior=1.0, jacobian=1.0) for d in (plug, coupled))
    times = time_in_turns(
        {
            "equilibrium": solve,
            "plug-in": lambda: evaluate(truth),
            "at the anchor": lambda: solve_within(truth),
            "one error away": lambda: solve_within(truth + next(signs) * error),
        },
        rounds=rounds,
    )
    us = {name: t.median for name, t in times.items()}
    return [
        f"{file.__name__.rpartition('.')[2]}, {graphon}", f"{positions}",
        f"{game.n_states // positions}", f"{us['equilibrium'] / 1e6:.2f}",
        f"{us['plug-in'] / 1e3:.2f}", ratio(us["at the anchor"], us["plug-in"]),
        ratio(us["one error away"], us["plug-in"]),
    ]  # fmt: skip


# %% Exposures along edges


def edges_row(nodes: int, edges: int) -> list[str]:
    """Time exposures of a sparse network, with the memory that they take."""
    rng = np.random.default_rng(SEED)
    table = pd.DataFrame(
        {"from": np.append(np.arange(nodes), rng.integers(0, nodes, edges - nodes)),
         "to": rng.integers(0, nodes, edges)}
    ).drop_duplicates()  # fmt: skip
    network = mfg.Network(table[table["from"] != table["to"]], isolates=True)
    n = nodes * STATES
    began = time.perf_counter()
    game = mfg.MeanFieldGame(
        types={"node": range(nodes)}, states=range(STATES), actions=["stay", "go"], horizon=TIMES,
        transition=rng.dirichlet(np.ones(STATES), size=(STATES, 2)), initial=np.full(n, 1 / n),
        meets=network,
    )  # fmt: skip
    made = time.perf_counter() - began
    flow = torch.full((TIMES, n), 1 / n, dtype=torch.float64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mfg.RewardInputs(game, flow)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    times = time_in_turns({"exposures": lambda: mfg.RewardInputs(game, flow)}, rounds=5)
    return [
        f"{nodes:,}", f"{network.n_edges:,}", f"{made:.1f}",
        f"{times['exposures'].median / 1e3:.0f}",
        f"{grown / 1024:.0f}", f"{8 * nodes * nodes / 2**20:,.0f}",
    ]  # fmt: skip


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Time; return the tables as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    with threadpool_limits(1):
        sparse = edges_row(*((1000, 5000) if quick else (NODES, EDGES)))
        rows = [row(*world, 10 if quick else 100, 2 if quick else 7) for world in WORLDS]
    text = markdown(
        "An equilibrium, and the likelihood with the equilibrium inside",
        ["world", "positions", "states of each", "equilibrium, s", "plug-in, ms",
         "coupled at the anchor / plug-in", "one error away / plug-in"],
        rows,
    )  # fmt: skip
    text += "\n" + markdown(
        f"Exposures along edges, {TIMES} times",
        ["nodes", "edges", "game, s", "exposures, ms", "memory, MiB", "a whole table, MiB"],
        [sparse],
    )
    (out / "networks.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small problems and few rounds")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
