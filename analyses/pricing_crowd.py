# %% [markdown]
# # Do supermarket prices follow the crowd?
#
# **Question.** 534 products of one chain lower, hold or raise their price each month. Does what the
# other products do enter their reward? How much of the answer is made by the way in which the
# crowd's flow is treated, how much by shocks that all products share, and what would the crowd do
# if cutting a price cost more?
#
# Run `python analyses/pricing_crowd.py` (some minutes on one core) or, for a small version,
# `python analyses/pricing_crowd.py --quick`. Which law describes the panel is asked in `pricing.py`.

# %%
"""Price setting in a supermarket: treatments of the crowd's flow, and what they do not show."""

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg
from mfgppl.models import pricing

NULL = "base"  # the reward without a crowd
TESTED = {"gap2": "both", "crowd": "herd"}  # each adds one term of the crowd to the null
CENTRES = pricing.CENTRES  # of the margin bins, log points
OTHER_BINS = (0, 1, 2, 4, 5)  # those with an effect of their own, against bin 3
CHARGE = 0.5  # reward units a price cut, in the changed world
SEED = 1
Z90 = 1.645  # half a 90 % interval, in standard errors
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "pricing"
COLOURS = {"base": "#5b6b7b", "market": "#2a7f62", "both": "#1f3a5f", "herd": "#c2452d"}


class Size(NamedTuple):
    """How much of everything a run does.

    Attributes
    ----------
    rewards : tuple of str
        The rewards with a crowd.
    free : bool
        Whether to fit free effects of months and bins.
    replications, free_replications : int
        Panels drawn for a test of coupling; the same with free effects, 0 for no such test.
    worlds : int
        Worlds of each kind in which the textbook's tests are tried.
    draws : int
        Draws of parameters whose equilibrium is solved.
    """

    rewards: tuple[str, ...]
    free: bool
    replications: int
    free_replications: int
    worlds: int
    draws: int


FULL = Size(("market", "both", "herd"), True, 199, 99, 20, 200)
QUICK = Size(("herd",), False, 19, 0, 1, 20)

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


def fit(model: mfg.TrajectoryModel) -> mfg.PointEstimate:
    """Return the maximum likelihood estimate."""
    return mfg.mle(model, svi_steps=0, progressbar=False)


# %% [markdown]
# ## Inference
#
# The same reward under each treatment of the flow. *Plug-in*: along the observed flow. *Cross-fit*:
# each tenth of the products along the flow of the rest. *Nested*: along the flow that the fitted
# policy itself generates, by iteration. *Coupled*: the flow is solved for within the likelihood.


# %%
def plug_in(model: mfg.TrajectoryModel) -> tuple[mfg.PointEstimate, str]:
    """Fit along the observed flow."""
    return fit(model), "converged"


def cross_fit(model: mfg.TrajectoryModel) -> tuple[mfg.PointEstimate, str]:
    """Fit each tenth of the products along the flow of the others."""
    found = mfg.cross_fit(model, random_seed=SEED, init=fit(model))
    return found, "converged" if found.converged else found.reason


def nested(model: mfg.TrajectoryModel) -> tuple[mfg.PointEstimate, str]:
    """Fit along the flow that the fit generates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.ConvergenceWarning)  # the table says it
        found = mfg.nested_pseudo_likelihood(model, init=fit(model), tolerance=1e-6, max_steps=60)
    return found.estimate, "converged" if found.converged else found.reason.split(",")[0]


TREATMENTS = {"plug-in": plug_in, "cross-fit": cross_fit, "nested": nested}
Fits = dict[tuple[str, str], tuple[mfg.PointEstimate, str]]


def fit_all(panel: mfg.Trajectories, size: Size) -> Fits:
    """Fit the null and each reward with a crowd under each treatment."""
    return {
        (name, how): treat(pricing.model(panel, name=name))
        for name in (NULL, *size.rewards)
        for how, treat in TREATMENTS.items()
    }


def treatments(fits: Fits) -> pd.DataFrame:
    """Return a row a reward and treatment: the coupling, two standard errors, the other weights."""
    rows = []
    for (name, how), (point, ended) in fits.items():
        term = pricing.REWARDS[name][-1]
        row: dict[str, Any] = {"reward": name, "flow": how, "fixed point": ended}
        row |= {"term": term if name != NULL else ""}
        for label, value in (
            ("estimate", point.params),
            ("s.e.", point.bse),
            ("clustered s.e.", point.standard_errors("cluster")),
        ):
            row[label] = value[term] if name != NULL else np.nan
        row |= {"log likelihood": point.llf, "over base": point.llf - fits[NULL, how][0].llf}
        rows.append(row | {k: v for k, v in point.params.items() if k != row["term"]})
    return pd.DataFrame(rows)


def drawn_around(point: mfg.PointEstimate, n: int) -> pd.DataFrame:
    """Return parameters drawn from the normal of the estimate, clustered by product."""
    rng = np.random.default_rng(SEED)
    rows = rng.multivariate_normal(point.params, point.cov_params("cluster"), size=n)
    return pd.DataFrame(rows, columns=point.params.index)


# %% [markdown]
# ## Checks
#
# **Would products that look at nobody give the same?** Panels drawn without coupling, refitted;
# against the reward without a crowd, and with months and bins free in both. Failure: the observed
# ratio lies among those of the panels drawn.


# %%
def coupling_tests(panel: mfg.Trajectories, size: Size) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the tests of each crowd term, against each null, and the tests themselves."""
    played, tests = pricing.game(panel), {}
    for term, name in TESTED.items():
        if name in size.rewards:
            pair = [pricing.model(panel, name=n) for n in (name, NULL)]
            tests[term, "alike, quadratic"] = (pair, size.replications)
        if size.free_replications:
            free = [mfg.TrajectoryModel(played, free_effects(*t), panel) for t in ((term,), ())]
            tests[term, "free, free"] = (free, size.free_replications)
    found = {
        key: mfg.coupling_test(*pair, replications=n, random_seed=SEED, progressbar=False)
        for key, (pair, n) in tests.items()
    }
    rows = []
    for (term, null), test in found.items():
        for name, row in test.table.iterrows():
            told = {"term": term, "months, bins": null, "test": name}
            rows.append(told | row.drop("survives").to_dict())
    return pd.DataFrame(rows), found


# %% [markdown]
# **What do the tests say in a world of common shocks?** Two kinds of worlds without any coupling:
# from the fitted base reward, and from the one in which months and bins have effects of their own.
# Failure: a ratio that is as large as the observed one, where nobody looks at anybody.


# %%
def ratios(panel: mfg.Trajectories) -> dict[tuple[str, str], float]:
    """Return likelihood ratios of the crowd terms, plug-in and cross-fitted in halves."""
    models = {name: pricing.model(panel, name=name) for name in (NULL, *TESTED.values())}
    points = {name: fit(model) for name, model in models.items()}
    crossed = {
        name: mfg.cross_fit(model, folds=2, random_seed=SEED, init=points[name])
        for name, model in models.items()
    }
    return {
        (term, how): 2 * (found[name].llf - found[NULL].llf)
        for how, found in (("plug-in", points), ("cross-fit", crossed))
        for term, name in TESTED.items()
    }


def worlds(panel: mfg.Trajectories, size: Size) -> pd.DataFrame:
    """Return observed ratios beside those of worlds without coupling."""
    kinds = {"no crowd": pricing.reward_named(NULL)}
    kinds |= {"no crowd; months and bins free": free_effects()} if size.free else {}
    observed, rows = ratios(panel), []
    for kind, reward in kinds.items():
        model = mfg.TrajectoryModel(pricing.game(panel), reward, panel)
        policy = torch.as_tensor(mfg.policy(model, fit(model)).values)
        drawn = pd.DataFrame(
            ratios(mfg.replay(model, policy, random_seed=SEED + k)) for k in range(size.worlds)
        )
        for key, value in observed.items():
            row = {"worlds": kind, "term": key[0], "flow": key[1], "observed": value}
            rows.append(row | {"mean": drawn[key].mean(), "largest": drawn[key].max()})
    return pd.DataFrame(rows)


# %% [markdown]
# **Is the crowd a stand-in for something else?** `crowd` is large wherever the popular bin is,
# month after month, so it may repair the shape of the reward over bins; `gap2` moves with the
# month, as common shocks do. Failure: a term's ratio collapses, or its weight changes sign, once
# bins or months are free.


# %%
def controls(panel: mfg.Trajectories) -> pd.DataFrame:
    """Return ratios and weights of the crowd terms under ever freer controls."""
    played, rows = pricing.game(panel), []
    for months, bins in ((False, False), (True, False), (False, True), (True, True)):
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
# **Does the estimated game run away?** Solved at 200 draws around each estimate, beside the observed
# flow. Failure: draws without an equilibrium, or whose flow is far away; several equilibria.


# %%
def equilibria(
    panel: mfg.Trajectories, fits: Fits, size: Size
) -> tuple[pd.DataFrame, dict[tuple[str, str], Any]]:
    """Return the probability of running away under each estimate, and the flows at it."""
    rows, flows = [], {}
    for (name, how), (point, ended) in fits.items():
        model = pricing.model(panel, name=name)
        draws = drawn_around(point, size.draws)
        found = mfg.runaway(model, draws, progressbar=False)
        solution = mfg.solve_equilibrium(
            model.game, model.reward, parameters=point.params, mean_field=model.mean_field
        )
        flows[name, how] = solution.value.mean_field.numpy()
        distance = found.table["distance"]
        row = {"reward": name, "flow": how, "P(runs away)": found.probability}
        row |= {"TV": distance.mean(), "5 %": distance.quantile(0.05)}
        row |= {"95 %": distance.quantile(0.95), "largest share": found.table["largest"].mean()}
        row |= {"failed": found.n_failed, "several": int(found.table["several"].sum())}
        rows.append(row | {"fixed point": ended})
    return pd.DataFrame(rows), flows


# %% [markdown]
# **Does the discount matter?** The plug-in fits at 0.9. Failure: another order of the rewards, or
# another sign of a crowd term.


# %%
def discounts(panel: mfg.Trajectories, size: Size) -> pd.DataFrame:
    """Return the plug-in fits at two discounts."""
    rows = []
    for discount in (1.0, 0.9):
        for name in (NULL, *size.rewards):
            played = pricing.game(panel).replace(discount=discount)
            point = fit(mfg.TrajectoryModel(played, pricing.reward_named(name), panel))
            row = {"discount": discount, "reward": name, "log likelihood": point.llf}
            rows.append(row | {"AIC": point.aic} | point.params.to_dict())
    return pd.DataFrame(rows)


# %% [markdown]
# ## What if a price cut cost more?
#
# Each estimate's draws through the equilibrium of its own game and of the one in which a cut costs
# half a reward unit more. If products follow the crowd, the crowd should answer the charge by more
# than each product alone: the rewards with coupling are compared with the base.


# %%
STATISTICS = {
    "mean margin, %": lambda world: 100 * (world.flow * CENTRES).sum("state").mean(),
    "cuts, % of months": lambda world: (
        100 * (world.flow * world.policy.sel(action="lower")).sum("state").mean()
    ),
}


def charge_on_cuts(
    panel: mfg.Trajectories, fits: Fits, size: Size
) -> tuple[pd.DataFrame, dict[tuple[str, str], Any]]:
    """Return what the charge changes under each estimate that is a fixed point or needs none."""
    rows, found = [], {}
    for (name, how), (point, ended) in fits.items():
        if ended != "converged":
            continue
        model = pricing.model(panel, name=name)
        charged = mfg.taxed(model.reward, lambda x: CHARGE * (x.action == "lower"))
        draws = drawn_around(point, size.draws)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mfg.ConvergenceWarning)  # the table counts it
            one = mfg.counterfactual(
                model, draws, model.game, reward=charged, statistics=STATISTICS, n_starts=5,
                progressbar=False,
            )  # fmt: skip
        found[name, how] = one
        for statistic in STATISTICS:
            before, changed, difference = (
                one.table.loc[(statistic, world)] for world in ("baseline", "changed", "difference")
            )
            row = {"reward": name, "flow": how, "statistic": statistic, "before": before["mean"]}
            row |= {"after": changed["mean"], "change": difference["mean"]}
            row |= {"5 %": difference["lower"], "95 %": difference["upper"]}
            rows.append(row | {"failed": one.n_failed, "switched": one.n_switched})
    return pd.DataFrame(rows), found


# %% [markdown]
# ## Figures


# %%
def draw_treatments(table: pd.DataFrame) -> plt.Figure:
    """Draw each coupling's estimates by treatment, with clustered 90 % intervals."""
    shown = table[(table["term"] != "") & (table["fixed point"] == "converged")]
    names = list(dict.fromkeys(shown["reward"]))
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.4 * len(names), 2.4), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], names, strict=True):
        rows = shown[shown["reward"] == name].reset_index(drop=True)
        half = Z90 * rows["clustered s.e."]
        axis.hlines(rows.index, rows["estimate"] - half, rows["estimate"] + half,
                    color=COLOURS[name], lw=2)  # fmt: skip
        axis.plot(rows["estimate"], rows.index, "o", ms=5, color=COLOURS[name])
        axis.axvline(0, color="#b8c2cc", lw=0.8, zorder=0)
        axis.set_yticks(rows.index, rows["flow"])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_title(f"{name}: {rows['term'][0]}", fontsize=10)
        axis.set_xlabel("weight (reward units)")
    return figure


def draw_flows(panel: mfg.Trajectories, flows: Mapping[tuple[str, str], Any]) -> plt.Figure:
    """Draw the crowd's mean margin, observed and solved under the plug-in, and the distance."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
    months, observed = np.arange(panel.horizon) + panel.first_time, panel.mean_field()
    axes[0].plot(months, 100 * observed @ CENTRES, "o-", ms=3, color="black", lw=1,
                 label="observed")  # fmt: skip
    for (name, how), flow in flows.items():
        if how == "plug-in":
            axes[0].plot(months, 100 * flow @ CENTRES, color=COLOURS[name], label=name)
            apart = 0.5 * np.abs(flow - observed).sum(-1)
            axes[1].plot(months, apart, color=COLOURS[name])
    axes[0].set_ylabel("crowd's mean margin (%)")
    axes[1].set_ylabel("total variation")
    axes[1].set_ylim(0, None)
    for axis in axes:
        axis.set_xlabel("month")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


# %% [markdown]
# ## Answer
#
# The tables and figures in `--out`; they are read in `docs/pricing.md`.


# %%
def write_table(table: pd.DataFrame, out: Path, name: str, digits: int = 3) -> None:
    """Write a table as CSV and, rounded, as Markdown."""
    table.to_csv(out / f"{name}.csv", index=False)

    def text(value: Any) -> str:
        if isinstance(value, float):
            return "" if np.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"
        return str(value)

    lines = ["| " + " | ".join(table.columns) + " |"]
    right = [pd.api.types.is_numeric_dtype(table[c]) for c in table.columns]
    lines.append("|" + "|".join("---:" if r else "---" for r in right) + "|")
    lines += ["| " + " | ".join(map(text, row)) + " |" for row in table.itertuples(index=False)]
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")
    print(f"\n{name}\n{table.round(digits).to_string(index=False)}")


def write_figure(figure: plt.Figure, out: Path, name: str) -> None:
    """Write a figure as PNG and close it."""
    figure.savefig(out / f"{name}.png", dpi=120)
    plt.close(figure)


def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the analysis and write its tables and figures."""
    size, out = (QUICK if quick else FULL), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    panel = pricing.panel()
    fits = fit_all(panel, size)
    treated = treatments(fits)
    write_table(treated, out, "treatments", 2)
    write_figure(draw_treatments(treated), out, "treatments")
    tested, tests = coupling_tests(panel, size)
    write_table(tested, out, "coupling_tests", 3)
    for (term, null), test in tests.items():
        kind = "free" if null == "free, free" else "alike"
        write_figure(mfg.plot_coupling(test), out, f"coupling_{term}_{kind}")
    write_table(worlds(panel, size), out, "worlds", 1)
    if size.free:
        write_table(controls(panel), out, "controls", 2)
    solved, flows = equilibria(panel, fits, size)
    write_table(solved, out, "equilibria")
    write_figure(draw_flows(panel, flows), out, "flows")
    charged, found = charge_on_cuts(panel, fits, size)
    write_table(charged, out, "charge_on_cuts", 2)
    write_figure(mfg.plot_counterfactual(found["herd", "plug-in"]), out, "charge_on_cuts")
    write_table(discounts(panel, size), out, "discounts")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer models, draws and worlds")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of tables and figures")
    arguments = parser.parse_args()
    warnings.simplefilter("default")
    main(arguments.quick, arguments.out)
