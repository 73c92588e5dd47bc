"""Do 90% intervals hold the truth 90% of the time?"""

# %% [markdown]
# ## Question
# A known reward generates panels. How often does the truth lie in the 90% intervals of the
# maximum likelihood fit (Wald) and of NUTS (equal-tailed), with the crowd's flow known, and with
# the panel's own flow plugged in?

# %%
import argparse
import functools
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist

import mfgppl as mfg
from mfgppl.models import market

LEVEL = 0.9
N_FIRMS = 300
N_PANELS = 200
DRAWS, TUNE, CHAINS = 500, 500, 2
SEED = 20240
FLOWS = ("known", "observed")

# %% [markdown]
# ## Data
# Panels of the simulated market, in its equilibrium at the true parameters.


# %%
def world() -> Any:
    """Return the equilibrium at the truth."""
    return mfg.solve_equilibrium(
        market.game(), market.reward, parameters=market.TRUTH, throw=True
    ).value


# %% [markdown]
# ## Model and inference
# The dynamics are known. `known` passes the equilibrium's flow to the model, `observed` leaves the
# panel's own. The priors are wide, since posterior intervals cover a fixed truth only where the
# prior gives way to the data.


# %%
def reward(x: mfg.RewardInputs) -> Any:
    """Return the market's reward under wide priors."""
    margin, crowding, menu_cost = (
        pyro.sample(name, dist.Normal(0.0, 10.0)) for name in market.TRUTH
    )
    return margin * x.price - crowding * x.density - menu_cost * (x.action != "hold")


def one_panel(seed: int, sample: bool) -> list[dict[str, Any]]:
    """Fit one panel each way; return a row a parameter, flow and method."""
    game, truth = market.game(), world()
    panel = mfg.simulate(game, truth.policy, truth.mean_field, n_agents=N_FIRMS, random_seed=seed)
    rows = []
    for flow in FLOWS:
        field = truth.mean_field if flow == "known" else "empirical"
        model = mfg.TrajectoryModel(game, reward, panel, mean_field=field)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mfg.ConvergenceWarning)  # two short chains
            found = {"Wald": mfg.mle(model, svi_steps=50, progressbar=False).conf_int(LEVEL)}
            if sample:
                found["NUTS"] = nuts_intervals(model, seed)
        for method, intervals in found.items():
            for name, true in market.TRUTH.items():
                low, high = intervals.loc[name, ["lower", "upper"]]
                inside = low <= true <= high
                rows.append(
                    {"flow": flow, "method": method, "parameter": name, "inside": inside,
                     "width": high - low, "middle": (low + high) / 2 - true}
                )  # fmt: skip
    return rows


def nuts_intervals(model: mfg.TrajectoryModel, seed: int) -> pd.DataFrame:
    """Return equal-tailed intervals of the posterior."""
    draws = mfg.nuts(
        model, draws=DRAWS, tune=TUNE, chains=CHAINS, cores=1, random_seed=seed,
        log_likelihood=False, progressbar=False,
    )  # fmt: skip
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    quantiles = draws["posterior"].dataset.quantile(tails, dim=["chain", "draw"])
    table = {name: quantiles[name].values for name in market.TRUTH}
    return pd.DataFrame(table, index=["lower", "upper"]).T


def study(n_panels: int, *, sample: bool, n_jobs: int = -1) -> pd.DataFrame:
    """Return coverage, its standard error, mean width and bias by flow, method and parameter."""
    task = functools.partial(one_panel, sample=sample)
    rows = mfg.replicate(task, n_panels, random_seed=SEED, n_jobs=n_jobs)
    table = pd.DataFrame([row for panel in rows for row in panel])
    grouped = table.groupby(["flow", "method", "parameter"], sort=False)
    summary = grouped.agg(coverage=("inside", "mean"), width=("width", "mean"),
                          bias=("middle", "mean"))  # fmt: skip
    summary.insert(1, "mc_error", np.sqrt(LEVEL * (1 - LEVEL) / n_panels))
    return summary.reset_index()


# %% [markdown]
# ## Checks
# Failure with the flow known would mean that likelihood, derivatives or sampler are wrong: coverage
# more than three Monte Carlo errors from 90%. With the flow observed, a shortfall of `crowding`
# alone is the first-stage error of the plug-in, which these intervals ignore.


# %%
def main(quick: bool, out: Path) -> None:
    """Run the study and write its table."""
    out.mkdir(parents=True, exist_ok=True)
    table = study(4 if quick else N_PANELS, sample=True)
    write(table, out)
    print(table.round(4).to_string(index=False))
    known = table[table["flow"] == "known"]
    worst = known.loc[(known["coverage"] - LEVEL).abs().idxmax()]
    print(f"flow known: coverage farthest from {LEVEL:.0%} is {worst['coverage']:.1%} "
          f"({worst['method']}, {worst['parameter']})")  # fmt: skip


def write(table: pd.DataFrame, out: Path) -> None:
    """Write the table as CSV and Markdown, and draw it."""
    table.to_csv(out / "calibration.csv", index=False)
    head = (
        "| flow | method | parameter | coverage | mean width | bias |\n|---|---|---|---|---|---|\n"
    )
    rows = [
        f"| {r.flow} | {r.method} | {r.parameter} | {r.coverage:.1%} | {r.width:.3f} | "
        f"{r.bias:+.3f} |"
        for r in table.itertuples()
    ]
    (out / "calibration.md").write_text(head + "\n".join(rows) + "\n")
    figure, axis = plt.subplots(figsize=(7, 2.8))
    error = float(table["mc_error"].iloc[0])
    axis.axvspan(LEVEL - 2 * error, LEVEL + 2 * error, color="#9db8d9", alpha=0.5, lw=0)
    labels = [f"{flow} flow: {name}" for flow in FLOWS for name in market.TRUTH]
    for method, marker, shift in (("Wald", "o", -0.12), ("NUTS", "s", 0.12)):
        shown = table[table["method"] == method]
        place = [labels.index(f"{r.flow} flow: {r.parameter}") + shift for r in shown.itertuples()]
        axis.plot(shown["coverage"], place, marker, color="#1f3a5f", label=method,
                  mfc="white" if method == "NUTS" else "#1f3a5f")  # fmt: skip
    axis.set_yticks(range(len(labels)), labels)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel(f"share of 90% intervals that hold the truth (band: {LEVEL:.0%} +- 2 errors)")
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(out / "calibration.png", dpi=110)
    plt.close(figure)


# %% [markdown]
# ## Answer
# The table: by flow and method, how often the truth is inside, and how wide the intervals are.

# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("docs/results/calibration"))
    arguments = parser.parse_args()
    main(arguments.quick, arguments.out)
