# %% [markdown]
# # Do intervals hold what they say where agents are of two types?
#
# **Question.** Small and large firms share a market, with dynamics, menu costs and starts of their
# own. How often do nominal 90 % intervals hold the truth along the flow that is known, and where
# the flow is solved for?
#
# Run `python analyses/two_types.py` (about twenty minutes on one core), or, smaller, with
# `--quick`. It may be stopped at any time: what `panels.csv` holds is not fitted again.

# %%
"""Coverage of Wald intervals in simulated crowds of two types."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
from output import resumed, run, write_table

import mfgppl as mfg
from mfgppl.equilibrium.response import Equilibrium
from mfgppl.models import market

CI_PROB, PANELS, N_AGENTS, SEED = 0.9, 500, 1000, 20261
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "two_types"
TRUTH = {"margin": 0.3, "crowding": 2.0, "menu_cost": [1.2, 0.6]}
FLOWS = ("known", "equilibrium")

# %% [markdown]
# ## Data: a market of small and large firms
#
# A third of the firms are small. Their stock runs down more often, they start with high prices, and
# a change of price is dearer for them. All firms meet in one market.


# %%
@functools.cache
def game() -> mfg.MeanFieldGame:
    """Return the market of `mfgppl.models.market` over eight months, with two types."""
    base = market.game().replace(horizon=8, features={})
    usual = base.transition.numpy()
    shuffled = 0.8 * usual + 0.2 * usual.mean(0, keepdims=True)
    rng = np.random.default_rng(SEED)
    starts = rng.dirichlet(np.ones(base.n_states), size=2) * np.array([[1 / 3], [2 / 3]])
    return base.replace(
        types={"size": ["small", "large"]},
        transition={"small": shuffled, "large": usual},
        initial=starts.ravel(),
    )


def reward(x: mfg.RewardInputs) -> Any:
    """Return the value of a price, less the cost of company and of a change."""
    margin = pyro.sample("margin", dist.Normal(0.0, 10.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 10.0))
    menu_cost = pyro.sample("menu_cost", x.size.each(dist.Normal(0.0, 10.0)))
    return margin * x.price - crowding * x.density - menu_cost[x.size.codes] * (x.action != "hold")


@functools.cache
def equilibrium() -> Equilibrium:
    """Return the equilibrium at the truth."""
    return mfg.solve_equilibrium(game(), reward, parameters=TRUTH, throw=True).value


# %% [markdown]
# ## Inference: maximum likelihood
#
# Along the equilibrium's flow, which is given, and by the coupled likelihood.


# %%
def rows_of(number: int) -> list[dict[str, Any]]:
    """Return one row per treatment of the flow and parameter, for one panel."""
    world, rows = equilibrium(), []
    panel = mfg.simulate(
        game(), world.policy, world.mean_field, n_agents=N_AGENTS,
        random_seed=np.random.SeedSequence([SEED, number]),
    )  # fmt: skip
    counts = mfg.CountedPanel.from_trajectories(panel)
    model = mfg.TrajectoryModel(game(), reward, counts, mean_field=world.mean_field)
    fit = None
    for flow in FLOWS:
        here = model if flow == "known" else model.along("equilibrium")
        fit = mfg.mle(here, init=fit, svi_steps=0, progressbar=False)
        interval = fit.conf_int(CI_PROB)
        for name, estimate in fit.params.items():
            rows.append(
                {"panel": number, "flow": flow, "parameter": name, "estimate": estimate,
                 "lower": interval.loc[name].iloc[0], "upper": interval.loc[name].iloc[1],
                 "converged": fit.converged}
            )  # fmt: skip
    return rows


# %% [markdown]
# ## Checks
#
# Failure would be coverage more than three binomial standard errors from nominal.


# %%
def coverage(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per treatment and parameter."""
    truth = {"margin": 0.3, "crowding": 2.0, "menu_cost[small]": 1.2, "menu_cost[large]": 0.6}
    found = []
    for (flow, name), here in rows.groupby(["flow", "parameter"], sort=False):
        inside = here["lower"].le(truth[name]) & here["upper"].ge(truth[name])
        n = len(here)
        error = (CI_PROB * (1 - CI_PROB) / n) ** 0.5
        found.append(
            {"flow": flow, "parameter": name, "truth": truth[name],
             "mean": here["estimate"].mean(), "coverage": inside.mean(), "panels": n,
             "binomial errors": (inside.mean() - CI_PROB) / error,
             "not converged": int((~here["converged"]).sum())}
        )  # fmt: skip
    return pd.DataFrame(found)


# %% [markdown]
# ## Results


# %%
def main(quick: bool, out: Path) -> None:
    """Fit, judge and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    write_table(
        coverage(resumed(rows_of, 4 if quick else PANELS, out / "panels.csv")), out, "coverage"
    )


if __name__ == "__main__":
    run(main, __doc__, OUT, "four panels")
