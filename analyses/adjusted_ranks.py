# %% [markdown]
# # Are adjusted draws calibrated?
#
# **Question.** Parameters from the prior make an equilibrium, and agents who play it a panel. Are
# the parameters' ranks uniform among draws that plug the counted flow in, among the same draws
# moved and widened by the jackknife, and among draws of the coupled posterior?
#
# Run `python analyses/adjusted_ranks.py` (about an hour on one core) or, smaller, with `--quick`.
# Cases that the results hold are not run again.

# %%
"""Simulation-based calibration of adjusted draws, beside plug-in and coupled ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from output import fixed, run, write_table

import mfgppl as mfg
from mfgppl.models import market

SIZES, QUICK_SIZES = (300, 1000), (100,)
ROUNDS, QUICK_ROUNDS = 100, 10
DRAWS, SEED = 1000, 1
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "adjusted_ranks"


# %% [markdown]
# ## Data and model
#
# The simulated market with its own priors, over 24 months.


# %%
def fitted_to(n_agents: int) -> mfg.TrajectoryModel:
    """Return the model of a panel of so many firms in equilibrium; rounds redraw the panel."""
    panel = mfg.Trajectories.from_frame(market.frame(n_agents), **market.COLUMNS)
    return market.model(panel)


# %% [markdown]
# ## Inference: three kinds of draws


# %%
def plugged(model: mfg.TrajectoryModel, random_seed: int) -> Any:
    """Return draws around the mode."""
    return mfg.laplace(
        model, draws=DRAWS, random_seed=random_seed, progressbar=False, log_likelihood=False,
        flow_bias=False,
    )  # fmt: skip


def adjusted(model: mfg.TrajectoryModel, random_seed: int) -> Any:
    """Return the same draws, moved and widened by the jackknife."""
    draws = mfg.flows.adjust(plugged(model, random_seed), mfg.jackknife(model), model)
    draws["posterior"] = draws["adjusted_posterior"]
    return draws


class Case(NamedTuple):
    """Draws of a posterior, and the flow that it takes: the panel's own, or the equilibrium's."""

    fit: Callable[..., Any]
    mean_field: str


CASES = {
    "plug-in": Case(plugged, "empirical"),
    "adjusted": Case(adjusted, "empirical"),
    "coupled": Case(plugged, "equilibrium"),
}


# %% [markdown]
# ## Checks
#
# Failure would be ranks of adjusted or coupled draws outside their bands, and ranks of plug-in
# draws inside: then the adjustment would mend nothing.


# %%
def rows_of(n_agents: int, name: str, rounds: int) -> pd.DataFrame:
    """Return one row per quantity of a case."""
    case, model = CASES[name], fitted_to(n_agents)
    if case.mean_field == "equilibrium":
        model = model.along("equilibrium")
    found = mfg.calibration.sbc(
        model, panels=rounds, fit=case.fit, mean_field=case.mean_field, random_seed=SEED,
        n_jobs=1, progressbar=False,
    )  # fmt: skip
    table = found.table.reset_index()
    table.insert(0, "firms", n_agents)
    table.insert(1, "draws", name)
    return table.assign(panels=len(found.ranks), failed=len(found.failures))


def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the cases that are lacking, and write the table of all."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "ranks.csv"
    rounds = QUICK_ROUNDS if quick else ROUNDS
    for n_agents in QUICK_SIZES if quick else SIZES:
        for name in ("adjusted",) if quick else CASES:
            known = pd.read_csv(path) if path.exists() else pd.DataFrame()
            if len(known) and ((known["firms"] == n_agents) & (known["draws"] == name)).any():
                continue
            rows = rows_of(n_agents, name, rounds)
            pd.concat([known, rows]).to_csv(path, index=False)
    write_table(pd.read_csv(path), out, "ranks", fixed(2), csv=False)


# %% [markdown]
# ## Answer
#
# `ranks.md`: by number of firms and kind of draws, whether ranks are uniform.

# %%
if __name__ == "__main__":
    run(main, __doc__, OUT, quick="ten rounds of adjusted draws in a small market")
