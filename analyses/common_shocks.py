# %% [markdown]
# # Does the crowd pass for shocks that meet everybody?
#
# **Question.** Months differ for all firms alike, and no firm looks at any other. How often does a
# test at 5 % find a crowd: one that knows no shocks, and one that is free of them?
#
# Run `python analyses/common_shocks.py` (about half an hour on one core), or, smaller, with
# `--quick`. It may be stopped at any time: what `worlds.csv` holds is not drawn again.

# %%
"""Size of the test of coupling in worlds with common shocks and without a crowd."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from output import run, write_table

import mfgppl as mfg

LEVEL, WORLDS, N_AGENTS, REPLICATIONS, SEED = 0.05, 300, 400, 99, 20264
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "common_shocks"
LEVELS, MONTHS, SUCCESS, SIZE = 4, 8, 0.8, 0.6
WIDE = dist.Normal(0.0, 5.0)

# %% [markdown]
# ## Data: months that are unlike others
#
# A firm lowers, keeps or raises its price, which succeeds with probability 0.8. In each month a
# shock of standard deviation 0.6 makes raising better or worse for all, another one lowering.


# %%
def game() -> mfg.MeanFieldGame:
    """Return the market."""
    moves = np.zeros((LEVELS, 3, LEVELS))
    for level in range(LEVELS):
        for k, step in enumerate((-1, 0, 1)):
            moves[level, k, min(max(level + step, 0), LEVELS - 1)] += SUCCESS
            moves[level, k, level] += 1 - SUCCESS
    return mfg.MeanFieldGame(
        states={"price": range(LEVELS)}, actions=["lower", "hold", "raise"], horizon=MONTHS,
        transition=moves, initial=np.ones(LEVELS) / LEVELS,
    )  # fmt: skip


def alone(x: mfg.RewardInputs) -> Any:
    """Return the reward of a firm that looks at no other."""
    worth, menu_cost = (pyro.sample(name, WIDE) for name in ("worth", "menu_cost"))
    return worth * x.price - menu_cost * (x.action != "hold")


def crowded(x: mfg.RewardInputs) -> Any:
    """Return the same less the cost of company."""
    return alone(x) - pyro.sample("crowding", WIDE) * x.density


def panel_of(world: int) -> mfg.Trajectories:
    """Return a panel of firms that shocks of their own world meet."""
    drawn = np.random.default_rng([SEED, world]).normal(0.0, SIZE, (MONTHS, 2))
    drawn -= drawn.mean(0)
    shock = torch.from_numpy(np.insert(drawn, 1, 0.0, axis=1))[:, None, :]

    def shaken(x: mfg.RewardInputs) -> mfg.Preferences:
        return mfg.Preferences(0.1 * x.price - 0.5 * (x.action != "hold"), shock=shock)

    found = mfg.solve_equilibrium(game(), shaken, throw=True).value
    return mfg.simulate(
        game(), found.policy, found.mean_field, n_agents=N_AGENTS, random_seed=world
    )


# %% [markdown]
# ## Inference: the test, with periods as they come and with free periods


# %%
def rows_of(world: int, replications: int) -> list[dict[str, Any]]:
    """Return one row per test of one world."""
    panel, rows = panel_of(world), []
    full, null = (mfg.TrajectoryModel(game(), reward, panel) for reward in (crowded, alone))
    for free in (None, "time"):
        found = mfg.flows.coupling_test(
            full, null, free=free, replications=replications, random_seed=world, n_jobs=1,
            progressbar=False,
        )  # fmt: skip
        rows += [
            {"world": world, "periods": "as they come" if free is None else "free", "test": name,
             "p": p, "failed": found.n_failed}
            for name, p in found.table["p"].items()
        ]  # fmt: skip
    return rows


def test_all(n: int, replications: int, path: Path) -> pd.DataFrame:
    """Test the worlds that a file lacks, append them to it, and return all that it holds."""
    done = set(pd.read_csv(path)["world"]) if path.exists() else set()
    for world in range(n):
        if world in done:
            continue
        rows = pd.DataFrame(rows_of(world, replications))
        rows.to_csv(path, mode="a", header=not path.exists(), index=False)
    return pd.read_csv(path)


# %% [markdown]
# ## Checks
#
# Failure would be a rejection rate of the free test more than three binomial standard errors from
# its level.


# %%
def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per test: how often it rejects."""
    found = []
    for (periods, test), here in rows.groupby(["periods", "test"], sort=False):
        p = here["p"].dropna()
        rejected, error = (p <= LEVEL).mean(), (LEVEL * (1 - LEVEL) / max(len(p), 1)) ** 0.5
        found.append(
            {"periods": periods, "test": test, "rejects": rejected, "worlds": len(p),
             "binomial errors": (rejected - LEVEL) / error}
        )  # fmt: skip
    return pd.DataFrame(found)


# %% [markdown]
# ## Results


# %%
def main(quick: bool, out: Path) -> None:
    """Test, judge and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    worlds, replications = (2, 19) if quick else (WORLDS, REPLICATIONS)
    write_table(rates(test_all(worlds, replications, out / "worlds.csv")), out, "rates")


if __name__ == "__main__":
    run(main, __doc__, OUT, "two worlds")
