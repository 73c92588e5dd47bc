"""One likelihood of ten million agents, shared out among the workers of a Dask cluster."""

# %% [markdown]
# # Can several machines share one likelihood?
#
# **Question.** Where kinds are not seen, the likelihood is a sum over agents. With `client=` each
# worker of a Dask cluster holds some of them. Are value and gradient those of one process, what
# travels, and what does each worker do?
#
# Run `python analyses/shared_agents.py` (about ten minutes and 8 GB), or, smaller, with `--quick`.

# %%
import functools
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from distributed import Client, LocalCluster
from output import run, significant, write_table

import mfgppl as mfg
from mfgppl.density.divided import Divided
from mfgppl.density.of_model import density_of
from mfgppl.density.plug_in import PlugInDensity
from mfgppl.likelihood.division import parts_of

AGENTS, QUICK_AGENTS = 10_000_000, 2_000
WORKERS, QUICK_WORKERS = (1, 2), (2,)
EVALUATIONS, SEED = 20, 20264
MOST_APART = 1e-10  # relative, of value and gradient
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "shared_agents"
PRICES, MONTHS, SUCCESS = 4, 6, 0.8
TRUTH = {"margin": 0.3, "crowding": 2.0, "share": [0.6, 0.4], "menu": [0.4, 2.0]}

# %% [markdown]
# ## Data: a market of two kinds of firms
#
# A firm lowers, holds or raises its price, which succeeds with probability 0.8. Six firms of ten
# pay 0.4 for a change, the rest 2.0. The panel comes from the equilibrium at the truth.


# %%
def game() -> mfg.MeanFieldGame:
    """Return the market."""
    moves = np.zeros((PRICES, 3, PRICES))
    for price in range(PRICES):
        for k, step in enumerate((-1, 0, 1)):
            moves[price, k, min(max(price + step, 0), PRICES - 1)] += SUCCESS
            moves[price, k, price] += 1 - SUCCESS
    return mfg.MeanFieldGame(
        states={"price": range(PRICES)}, actions=["lower", "hold", "raise"], horizon=MONTHS,
        transition=moves, initial=np.ones(PRICES) / PRICES,
    )  # fmt: skip


def reward(x: mfg.RewardInputs) -> Any:
    """Return what a month is worth to a firm of an unseen kind."""
    margin = pyro.sample("margin", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
    share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
    menu = pyro.sample("menu", dist.HalfNormal(2.0).expand([2]).to_event(1))
    with x.agents:
        kind = pyro.sample("kind", dist.Categorical(share))
    return margin * x.price - crowding * x.density - menu[kind] * (x.action != "hold")


def data(n_agents: int) -> tuple[mfg.Trajectories, np.ndarray]:
    """Return a panel of both kinds, and the flow of all."""
    typed, program = mfg.kinds.as_types(game(), reward, TRUTH)
    played = mfg.solve_equilibrium(typed, program, throw=True).value
    drawn = mfg.simulate(
        typed, played.policy, played.mean_field, n_agents=n_agents, random_seed=SEED
    )
    return drawn.drop_type("kind"), played.mean_field.reshape(MONTHS, 2, PRICES).sum(1)


# %% [markdown]
# ## Inference: the same value and gradient, in one process and on workers

Evaluate = Callable[[np.ndarray], tuple[float, np.ndarray]]


# %%
def seconds(evaluate: Evaluate, theta: np.ndarray) -> float:
    """Return seconds per evaluation, as the caller waits."""
    evaluate(theta)
    began = time.perf_counter()
    for _ in range(EVALUATIONS):
        evaluate(theta)
    return (time.perf_counter() - began) / EVALUATIONS


def on_workers(
    model: mfg.TrajectoryModel, n: int, theta: np.ndarray, known: tuple[float, np.ndarray]
) -> dict[str, Any]:
    """Return what n workers cost, and how far they are from one process."""
    with (
        LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        began = time.perf_counter()  # what a model with `client=` does, whose counts are there
        make = functools.partial(PlugInDensity, model.without_panel())
        evaluate = Divided(client, make, model.law).evaluator(prior=0.0, jacobian=0.0)
        value, gradient = evaluate(theta)
        begun = time.perf_counter() - began
        before = client.run(time.process_time)
        wait = seconds(evaluate, theta)
        spent = [after - before[w] for w, after in client.run(time.process_time).items()]
    parts = parts_of(model.law, n)
    return {
        "workers": n,
        "agents of the first": int(parts[0].histories.weight.sum()),
        "histories of the first": len(parts[0].histories.start),
        "sent once, MB": len(pickle.dumps(parts[0])) / 1e6,
        "out per evaluation, bytes": len(pickle.dumps(theta)),
        "laid out, s": begun,
        "CPU per worker, ms": 1e3 * max(spent) / (EVALUATIONS + 1),
        "wait, ms": 1e3 * wait,
        "value, relative": abs(value / known[0] - 1),
        "gradient, relative": float(np.abs(gradient - known[1]).max() / np.abs(known[1]).max()),
    }


# %% [markdown]
# ## Checks
# Value and gradient must agree to 1e-10.


# %%
def main(quick: bool, out: Path) -> None:
    """Compare one process with workers, and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    panel, flow = data(QUICK_AGENTS if quick else AGENTS)
    model = mfg.TrajectoryModel(game(), reward, panel, mean_field=flow)
    density = density_of(model)
    theta = density.program.free({k: np.array(v) for k, v in TRUTH.items()}) + 0.1
    evaluate = density.evaluator(prior=0.0, jacobian=0.0)
    value, gradient = evaluate(theta)
    known, alone = (value, gradient.copy()), seconds(evaluate, theta)
    print(f"{panel}: one process, {1e3 * alone:.1f} ms per evaluation")
    rows = [on_workers(model, n, theta, known) for n in (QUICK_WORKERS if quick else WORKERS)]
    table = pd.DataFrame(rows)
    write_table(table, out, "shared_agents", significant(3))
    (out / "one_process.md").write_text(f"{panel}, {1e3 * alone:.1f} ms per evaluation.\n")
    worst = table[["value, relative", "gradient, relative"]].to_numpy().max()
    if worst > MOST_APART:
        raise RuntimeError(f"workers are {worst:.1e} away from one process")


# %% [markdown]
# ## Answer
# The sum over workers is that of one process to rounding. What travels at an evaluation is the
# parameters one way, a value and a gradient back. Ten million agents with six decisions each have
# some 23,000 distinct histories, which one process sums in less time than a message takes: workers
# pay where histories are long and mostly distinct.

# %%
if __name__ == "__main__":
    run(main, __doc__, OUT, quick="few agents")
