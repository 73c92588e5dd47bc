# %% [markdown]
# # Do supermarket prices follow the crowd, or the month?
#
# **Question.** Costs, seasons and promotions move all products of a chain at once. How much of
# what looks like coupling in `pricing_crowd.py` arises in worlds in which products look at nobody
# but share the months, and how much is left once months and bins of the margin are free?
#
# Run `python analyses/pricing_shocks.py` (some minutes on one core) or, for a small version,
# `python analyses/pricing_shocks.py --quick`.

# %%
"""Price setting in a supermarket: coupling beside common shocks."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from output import RATIOS, fixed, run, write_figure, write_table

import mfgppl as mfg
from mfgppl.models import pricing

NULL = "base"  # the reward without a crowd
TESTED = {"gap2": "both", "crowd": "herd"}  # each adds one term of the crowd to the null
OTHER_BINS = (0, 1, 2, 4, 5)  # those with an effect of their own, against bin 3
SEED = 1
WORLDS = 8  # of common shocks
CONTROLS = [(False, False), (True, False), (False, True), (True, True)]  # months free, bins free
REPLICATIONS = 49  # panels drawn for a test
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "pricing"

# %% [markdown]
# ## Data and model
#
# The bundled panel and the rewards of `models/pricing.py`. `free_effects` gives each month its own
# cost of lowering and of raising (shocks common to all products, which they anticipate) and each
# bin of the margin its own reward, and knows no crowd unless terms of it are named.


# %%
def free_effects(*crowd: str, months: bool = True, bins: bool = True) -> Any:
    """Return the base reward with free effects of months or bins, plus terms of the crowd."""

    def reward(x: mfg.RewardInputs) -> torch.Tensor:
        wide = dist.Normal(0.0, 10.0)
        total = torch.zeros(())
        for name in ("cut", "raise"):
            law = wide.expand([x.shape[0]]).to_event(1) if months else wide
            cost = pyro.sample(name, law)
            total = total + (cost[:, None, None] if months else cost) * pricing.FEATURES[name](x)
        if bins:
            weight = pyro.sample("bin", wide.expand([len(OTHER_BINS)]).to_event(1))
            inside = torch.stack([(x.margin == k).double() for k in OTHER_BINS])
            total = total + (weight[:, None, None, None] * inside).sum(0)
        for name in (*(() if bins else ("level", "level2")), *crowd):
            total = total + pyro.sample(name, wide) * pricing.FEATURES[name](x)
        return total

    return reward


def fit(model: mfg.TrajectoryModel) -> mfg.results.PointEstimate:
    """Return the maximum likelihood estimate."""
    return mfg.mle(model, svi_steps=0, progressbar=False)


# %% [markdown]
# ## Inference
#
# **Is the crowd a stand-in for something else?** `crowd` is large wherever the popular bin is,
# month after month, so it may repair the shape of the reward over bins; `gap2` moves with the
# month, as common shocks do. Failure: a term's ratio collapses, or its weight changes sign, once
# bins or months are free.


# %%
def controls(panel: mfg.Trajectories, freed: list[tuple[bool, bool]]) -> pd.DataFrame:
    """Return ratios and weights of the crowd terms under ever freer controls."""
    played, rows = pricing.game(panel), []
    for months, bins in freed:
        free = {"months": months, "bins": bins}
        null = fit(mfg.TrajectoryModel(played, free_effects(**free), panel)).llf
        for term in TESTED:
            point = fit(mfg.TrajectoryModel(played, free_effects(term, **free), panel))
            row = {"months": "free" if months else "alike", "bins": "free" if bins else "quadratic"}
            row |= {"term": term, "log likelihood": point.llf, "ratio": 2 * (point.llf - null)}
            row |= {"weight": point.params[term]}
            rows.append(row | {"clustered s.e.": point.standard_errors("cluster")[term]})
    return pd.DataFrame(rows)


# %% [markdown]
# ## Checks
#
# **What do the textbook's tests say in a world of common shocks?** In worlds drawn from the reward
# in which months and bins have effects of their own, fitted to the panel, products look at nobody.
# Failure: a ratio that is as large as the observed one.


# %%
def ratios(panel: mfg.Trajectories) -> dict[tuple[str, str], float]:
    """Return likelihood ratios of the crowd terms, plug-in and cross-fitted in halves."""
    models = {name: pricing.model(panel, name=name) for name in (NULL, *TESTED.values())}
    points = {name: fit(model) for name, model in models.items()}
    crossed = {
        name: mfg.flows.cross_fit(model, folds=2, random_seed=SEED, init=points[name])
        for name, model in models.items()
    }
    return {
        (term, how): 2 * (found[name].llf - found[NULL].llf)
        for how, found in (("plug-in", points), ("cross-fit", crossed))
        for term, name in TESTED.items()
    }


def worlds(panel: mfg.Trajectories) -> pd.DataFrame:
    """Return observed ratios beside those of worlds of common shocks without coupling."""
    observed, rows = ratios(panel), []
    model = mfg.TrajectoryModel(pricing.game(panel), free_effects(), panel)
    policy = torch.as_tensor(mfg.policy(model, fit(model)).values)
    drawn = pd.DataFrame(
        ratios(mfg.checks.replay(model, policy, random_seed=SEED + k)) for k in range(WORLDS)
    )
    for (term, flow), value in observed.items():
        row = {"term": term, "flow": flow, "observed": value, "worlds": WORLDS}
        mean, largest = drawn[term, flow].mean(), drawn[term, flow].max()
        rows.append(row | {"mean": mean, "largest": largest})
    return pd.DataFrame(rows)


# %% [markdown]
# **Is what is left more than reflection?** The test of coupling with months and bins free in both
# models. Failure: the observed ratio lies among those of the panels drawn.


# %%
def tests(panel: mfg.Trajectories) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the tests of each crowd term with free effects in both models."""
    played, rows, found = pricing.game(panel), [], {}
    for term in TESTED:
        pair = [mfg.TrajectoryModel(played, free_effects(*t), panel) for t in ((term,), ())]
        test = mfg.flows.coupling_test(
            *pair, replications=REPLICATIONS, random_seed=SEED, progressbar=False
        )
        found[term] = test
        for name, row in test.table.drop(columns="survives").dropna().iterrows():
            rows.append({"term": term, "panels": REPLICATIONS, "test": name} | row.to_dict())
    return pd.DataFrame(rows), found


# %% [markdown]
# ## Answer
#
# The tables and figures in `--out`; they are read in `docs/pricing.md`.


# %%
def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the analysis and write its tables and figures."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    panel = pricing.panel()
    if quick:
        write_table(controls(panel, [(False, False), (False, True)]), out, "controls", fixed(2))
        return
    write_table(controls(panel, CONTROLS), out, "controls", fixed(2))
    tested, found = tests(panel)
    write_table(tested, out, "shock_tests", digits=RATIOS)
    for term, test in found.items():
        write_figure(mfg.plots.plot_coupling(test), out, f"coupling_{term}_free")
    write_table(worlds(panel), out, "worlds", fixed(1))


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="two controls, no worlds, no tests")
