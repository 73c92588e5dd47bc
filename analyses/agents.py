# %% [markdown]
# # Do intervals hold what they say where agents are more than a reward?
#
# **Question.** Agents of a small market have an end that is worth something to them, months in
# which shocks meet all of them, or moments in which they act at random. How often do nominal 90 %
# intervals hold the truth?
#
# Run `python analyses/agents.py` (about ten minutes on one core), or, smaller, with `--quick`. It
# may be stopped at any time: what `rows.csv` holds is not fitted again.

# %%
"""Coverage of Wald intervals with terminal values, shocks and lapses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
from output import run, write_table

import mfgppl as mfg

CI_PROB, CHUNKS, PANELS, N_AGENTS, SEED = 0.9, 10, 50, 1000, 20263
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "agents"
LEVELS, MONTHS, SUCCESS = 4, 8, 0.8
WIDE = dist.Normal(0.0, 5.0)
MARKET = {"worth": 0.3, "menu_cost": 0.8, "crowding": 1.0}

# %% [markdown]
# ## Data: a market of four prices
#
# A firm lowers, keeps or raises its price, which succeeds with probability 0.8. A price earns
# `worth` a step, a change costs `menu_cost`, and company at one's own price costs `crowding`. The
# panels are of firms in the equilibrium at the truth; the flow is given.


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


def reward(x: mfg.RewardInputs) -> Any:
    """Return what a month is worth."""
    worth, menu_cost, crowding = (pyro.sample(name, WIDE) for name in MARKET)
    return worth * x.price - menu_cost * (x.action != "hold") - crowding * x.density


def with_end(x: mfg.RewardInputs) -> mfg.Preferences:
    """Return agents to whom the last price is worth something."""
    return mfg.Preferences(reward(x), terminal=pyro.sample("end", WIDE) * x.price)


def with_shocks(x: mfg.RewardInputs) -> mfg.Preferences:
    """Return agents whom shocks to raising and lowering meet, the same for all of a month."""
    lifts, cuts = (mfg.period_effects(x, name, WIDE) for name in ("lifts", "cuts"))
    shock = lifts * (x.action == "raise") + cuts * (x.action == "lower")
    return mfg.Preferences(reward(x), shock=shock)


def with_lapses(x: mfg.RewardInputs) -> mfg.Preferences:
    """Return agents who act at random now and then, and for whom most prices are poor."""
    lapse = pyro.sample("lapse", dist.Uniform(0.0, 0.5))
    far = pyro.sample("far", WIDE) * (x.price - 2.0) ** 2
    return mfg.Preferences(reward(x) - far, lapse=lapse)


DESIGNS: dict[str, tuple[Callable[[mfg.RewardInputs], mfg.Preferences], dict[str, Any]]] = {
    "terminal value": (with_end, {"end": 0.7}),
    "shocks": (
        with_shocks,
        {"lifts": [0.6, -0.4, 0.3, 0.1, -0.7, 0.2, 0.4],
         "cuts": [-0.2, 0.5, 0.1, -0.6, 0.3, 0.2, -0.1]},
    ),
    "lapses": (with_lapses, {"far": 1.5, "lapse": 0.1}),
}  # fmt: skip

# %% [markdown]
# ## Inference: maximum likelihood, panel after panel


# %%
def fit_all(chunks: int, n: int, path: Path) -> pd.DataFrame:
    """Fit the panels that a file lacks, append them to it, and return all that it holds."""
    done: set[tuple[str, int]] = set()
    if path.exists():
        known = pd.read_csv(path)
        done = set(zip(known["design"], known["chunk"], strict=True))
    for design, (program, further) in DESIGNS.items():
        for chunk in range(chunks):
            if (design, chunk) in done:
                continue
            found = mfg.calibration.recovery(
                game(), program, truth=MARKET | further, n_agents=N_AGENTS, panels=n,
                ci_prob=CI_PROB, random_seed=np.random.SeedSequence([SEED, chunk]), n_jobs=1,
                progressbar=False,
            )  # fmt: skip
            rows = found.intervals.assign(
                design=design, chunk=chunk, truth=found.intervals["parameter"].map(found.truth),
                failed=len(found.failures),
            )  # fmt: skip
            rows.to_csv(path, mode="a", header=not path.exists(), index=False)
    return pd.read_csv(path)


# %% [markdown]
# ## Checks
#
# Failure would be coverage more than three binomial standard errors from nominal.


# %%
def coverage(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per design and parameter."""
    found = []
    for (design, name), here in rows.groupby(["design", "parameter"], sort=False):
        inside = here["lower"].le(here["truth"]) & here["upper"].ge(here["truth"])
        n, misses = len(here), here["estimate"] - here["truth"]
        error = (CI_PROB * (1 - CI_PROB) / n) ** 0.5
        failed = int(here.groupby("chunk")["failed"].first().sum())
        found.append(
            {"design": design, "parameter": name, "truth": here["truth"].iloc[0],
             "bias": misses.mean(), "coverage": inside.mean(), "panels": n,
             "Monte Carlo error": error, "binomial errors": (inside.mean() - CI_PROB) / error,
             "not fitted": failed}
        )  # fmt: skip
    return pd.DataFrame(found)


# %% [markdown]
# ## Results


# %%
def main(quick: bool, out: Path) -> None:
    """Fit, judge and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    chunks, panels = (1, 4) if quick else (CHUNKS, PANELS)
    write_table(coverage(fit_all(chunks, panels, out / "rows.csv")), out, "coverage")


if __name__ == "__main__":
    run(main, __doc__, OUT, "four panels of each design")
