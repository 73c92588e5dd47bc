# %% [markdown]
# # Do airlines answer their rivals on the same route?
#
# **Question.** A service's rivals are other carriers' services to the same destination. Is adding
# flights worth less, or more, while many of them fly well below normal? There are three rivals each
# on average: no crowd that averages out, but a network.
#
# Run `python analyses/capacity_rivals.py` (three minutes on one core) or, for a small version,
# `python analyses/capacity_rivals.py --quick`.

# %%
"""Airline capacity: rivals at the same destination, weeks that all services share, carriers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
from output import fixed, run, write_figure, write_table

import mfgppl as mfg
from mfgppl.models import capacity

WELL_BELOW = [0, 1]  # bins of capacity
BINS = [-0.01, 0.0, 0.25, 0.5, 1.0]  # those none of whose rivals fly well below have a bin
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "capacity_rivals"
Program = Callable[[mfg.RewardInputs], Any]

# %% [markdown]
# ## Data: who is whose rival
#
# Of 247 services 212 have a rival. The share of a service's rivals that fly well below normal, in
# four bins, is part of its state; its law is estimated by week, and taken as given.


# %%
def rivals(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of services of different carriers to one destination, both ways."""
    services = frame.drop_duplicates("service")[["service", "carrier", "dest"]]
    pairs = services.merge(services, on="dest", suffixes=("", "_other"))
    pairs = pairs[pairs["carrier"] != pairs["carrier_other"]]
    return pairs.rename(columns={"service": "from", "service_other": "to"})[["from", "to"]]


def observed(frame: pd.DataFrame, edges: pd.DataFrame) -> mfg.Trajectories:
    """Return the panel of the services that have rivals, with what these do."""
    here = frame[frame["service"].isin(edges["from"])]
    panel = mfg.Trajectories.from_frame(
        here, **capacity.COLUMNS, types=["carrier"], groups=["airport", "dest"]
    )
    return panel.exposure(edges, of={"capacity": WELL_BELOW}, bins=BINS, name="rivals")


def game_of(panel: mfg.Trajectories) -> mfg.MeanFieldGame:
    """Return the game of `models/capacity.py` with the rivals as a coordinate of the state."""
    within = {k: v for k, v in panel.space.coordinates.items() if k not in panel.space.types}
    return mfg.MeanFieldGame(
        types={"carrier": panel.space.coordinates["carrier"]}, states=within,
        actions=panel.actions, horizon=panel.horizon, transition=mfg.networks.dynamics(panel),
        initial=panel.initial_distribution(), discount=0.9,
        features={"level": ("capacity", capacity.CENTRES / 0.1)},
    )  # fmt: skip


# %% [markdown]
# ## Model
#
# Cutting and adding cost something, being away from normal too; `rivals` is what adding is worth
# more where all rivals fly well below than where none does. *Weeks*: cutting and adding have a
# shock in each week, which nobody foresees. *Carriers*: each has costs of its own.


# %%
def agent(x: mfg.RewardInputs, *, weeks: bool, carriers: bool) -> Any:
    """Return what a service cares about."""
    wide = dist.Normal(0.0, 10.0)
    one = {"cut": x.action == "cut", "raise": x.action == "add"}
    reward = sum(pyro.sample(k, wide) * indicator for k, indicator in one.items())
    if carriers:
        for k, indicator in one.items():
            own = pyro.sample(f"{k}_of_carrier", x.carrier.each(dist.Normal(0.0, 1.0)))
            reward = reward + own[x.carrier.codes] * indicator
    reward = reward + pyro.sample("level", wide) * x.level
    reward = reward + pyro.sample("level2", wide) * x.level**2
    reward = reward + pyro.sample("regular", wide) * (x.capacity == 3)
    reward = reward + pyro.sample("rivals", wide) * x.rivals * one["raise"]
    if not weeks:
        return reward
    shock = sum(
        mfg.period_effects(x, f"week_{k}", wide) * indicator for k, indicator in one.items()
    )
    return mfg.Preferences(reward, shock=shock)


MODELS: dict[str, dict[str, bool]] = {
    "neither": {"weeks": False, "carriers": False},
    "weeks": {"weeks": True, "carriers": False},
    "weeks and carriers": {"weeks": True, "carriers": True},
}


def program(name: str) -> Program:
    """Return a reward program by name."""
    return lambda x: agent(x, **MODELS[name])


# %% [markdown]
# ## Inference
#
# Standard errors are clustered by destination, within which services meet. With costs of carriers,
# whose priors keep them together, it is the posterior mode.


# %%
def fits_of(panel: mfg.Trajectories) -> dict[str, Any]:
    """Return the fits by name."""
    game, found = game_of(panel), {}
    for name in MODELS:
        model = mfg.TrajectoryModel(game, program(name), panel)
        fit = mfg.map_estimate if MODELS[name]["carriers"] else mfg.mle
        found[name] = fit(model, svi_steps=0, progressbar=False)
    return found


def table_of(fits: dict[str, Any]) -> pd.DataFrame:
    """Return one row per model: what rivals are worth, and its errors."""
    rows = []
    for name, fit in fits.items():
        row = {"free": name, "rivals": fit.params["rivals"], "s.e.": fit.bse["rivals"]}
        row["by destination"] = fit.standard_errors("cluster", groups="dest")["rivals"]
        row["log likelihood"] = fit.llf
        rows.append(row | {"parameters": len(fit.params), "converged": fit.converged})
    return pd.DataFrame(rows)


# %% [markdown]
# ## Checks
#
# The fit takes the law of the exposure as it is. If agents on their own network, each answering
# what its rivals do in that draw, show other shares and another likeness of rivals than the panel,
# that law hides something: shocks of a destination, say, that no agent causes.


# %%
def statistics(panel: mfg.Trajectories) -> dict[str, float]:
    """Return what is compared: shares, spread, and how much rivals are alike within a week."""
    frame = panel.to_frame()
    below = frame["capacity"].isin(WELL_BELOW).astype(float)
    rival = frame["rivals"].astype(float)
    week = frame["time"]
    own, other = (v - v.groupby(week).transform("mean") for v in (below, rival))
    added = frame["action"].eq("add").astype(float)
    return {
        "share well below": below.mean(),
        "spread of rivals within a week": float(np.sqrt((other**2).mean())),
        "likeness of rivals": float(np.corrcoef(own, other)[0, 1]),
        "share of adding": added[frame["action"].notna()].mean(),
    }


def check(panel: mfg.Trajectories, fit: Any, name: str, n: int) -> pd.DataFrame:
    """Return statistics of the panel beside draws on the network, one row each."""
    game = game_of(panel)
    model = mfg.TrajectoryModel(game, program(name), panel)
    policy = mfg.policy(model, fit)
    drawn = pd.DataFrame(
        [statistics(mfg.networks.simulate(panel, game, policy, random_seed=k)) for k in range(n)]
    )
    seen = pd.Series(statistics(panel))
    return pd.DataFrame(
        {"statistic": seen.index, "observed": seen.to_numpy(), "drawn": drawn.mean().to_numpy(),
         "5 %": drawn.quantile(0.05).to_numpy(), "95 %": drawn.quantile(0.95).to_numpy()}
    )  # fmt: skip


# %% [markdown]
# ## Results


# %%
def main(quick: bool, out: Path) -> None:
    """Audit, fit, check, and write tables and the picture of the network."""
    out.mkdir(parents=True, exist_ok=True)
    frame = mfg.datasets.nyc_flights()
    if quick:
        frame = frame[frame["week"] <= 12]
    edges = rivals(frame)
    audit = mfg.networks.audit(mfg.Network(edges))
    (out / "audit.md").write_text(f"{audit.verdict}\n")
    write_figure(mfg.plots.plot_network(audit), out, "network")
    panel = observed(frame, edges)
    fits = fits_of(panel)
    write_table(table_of(fits), out, "rivals", fixed(2), csv=False)
    write_table(check(panel, fits["weeks"], "weeks", 3 if quick else 100), out, "check", csv=False)


if __name__ == "__main__":
    run(main, __doc__, OUT, "twelve weeks")
