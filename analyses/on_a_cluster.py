"""A simulation study on a cluster: the same numbers as on one core."""

# %% [markdown]
# ## Question
# A study of many fits goes from a laptop to a cluster by one line around it. Does it give the same
# numbers there? `replicate` and `bootstrap` go through joblib, whose backend may be Dask or Ray,
# and give each task a seed of its own.

# %%
import functools
import time
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from distributed import Client, LocalCluster
from output import run

import mfgppl as mfg
from mfgppl.models import market

N_PANELS, QUICK_PANELS = 200, 6
N_FIRMS = 300
SEED = 1

# %% [markdown]
# ## Data, model and inference
# A task simulates a panel of the market in its equilibrium and fits it.


# %%
@functools.cache
def world() -> Any:
    """Return the equilibrium at the truth, once in each process."""
    return mfg.solve_equilibrium(
        market.game(), market.reward, parameters=market.TRUTH, throw=True
    ).value


def one_panel(seed: int) -> dict[str, float]:
    """Return the estimates of one simulated panel."""
    game, truth = market.game(), world()
    panel = mfg.simulate(game, truth.policy, truth.mean_field, n_agents=N_FIRMS, random_seed=seed)
    model = mfg.TrajectoryModel(game, market.reward, panel, mean_field=truth.mean_field)
    return mfg.mle(model, svi_steps=0, progressbar=False).params.to_dict()


def study(n: int) -> pd.DataFrame:
    """Return the estimates, one row per panel, wherever joblib runs the tasks."""
    return pd.DataFrame(
        mfg.calibration.replicate(one_panel, n, random_seed=SEED, progressbar=False)
    )


# %% [markdown]
# ## Checks
# The rows must be equal to the last bit: a task knows its seed and nothing of its neighbours.


# %%
def main(quick: bool, out: Path) -> None:
    """Run the study on one core and on a local Dask cluster, compare, and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    n = QUICK_PANELS if quick else N_PANELS
    began = time.perf_counter()
    here = study(n)
    alone = time.perf_counter() - began
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        study(2)  # the workers import the package
        began = time.perf_counter()
        there = study(n)
        shared = time.perf_counter() - began
    if not here.equals(there):
        raise RuntimeError("the cluster gives other numbers than one core")
    table = pd.DataFrame({"truth": market.TRUTH, "mean": here.mean(), "std": here.std()})
    table.to_csv(out / "on_a_cluster.csv")
    print(table.round(3).to_string())
    print(f"{n} panels: one core {alone:.1f} s, two Dask workers {shared:.1f} s, equal numbers")


# %% [markdown]
# ## Answer
# Equal to the last bit. On a cluster, `Client("tcp://...")` takes the place of `LocalCluster`.

# %%
if __name__ == "__main__":
    run(main, __doc__, Path("on_a_cluster"), quick="a small version")
