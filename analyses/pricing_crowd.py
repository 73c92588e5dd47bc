# %% [markdown]
# # Do supermarket prices follow the crowd?
#
# **Question.** 534 products of one chain lower, hold or raise their price each month. Does what the
# other products do enter their reward? How much of the answer is made by the way in which the
# crowd's flow is treated, and what would the crowd do if cutting a price cost more?
#
# Run `python analyses/pricing_crowd.py` (some minutes on one core) or, for a small version,
# `python analyses/pricing_crowd.py --quick`. Which law describes the panel is asked in
# `pricing_laws.py`, what common shocks do to the answer in `pricing_shocks.py`.

# %%
"""Price setting in a supermarket: treatments of the crowd's flow, and what they do not show."""

import itertools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from output import RATIOS, fixed, run, write_figure, write_table

import mfgppl as mfg
from mfgppl.models import pricing
from mfgppl.plots.style import DOT, GREEN, GREY, INK

NULL = "base"  # the reward without a crowd
TESTED = {"gap2": "both", "crowd": "herd"}  # each adds one term of the crowd to the null
CENTRES = pricing.CENTRES  # of the margin bins, log points
CHARGE = 0.5  # reward units a price cut, in the changed world
UNBOUNDED = ("both", "coupled")  # has no maximum, as the profile shows
FIXED = (-3.6, -2.0, 0.0, 2.0, 5.0, 10.0, 20.0, 40.0)  # values of gap2 in that profile
SEED = 1
Z90 = 1.645  # half a 90 % interval, in standard errors
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "pricing"
COLOURS = {"base": GREY, "market": GREEN, "both": INK, "herd": DOT}


class Size(NamedTuple):
    """How much of everything a run does."""

    rewards: tuple[str, ...]  # with a crowd
    flows: tuple[str, ...]  # treatments of the crowd's flow
    replications: int  # panels drawn for a test of coupling
    slow: int  # the same along a solved flow, 0 for no such test
    draws: int  # of parameters whose equilibrium is solved


FULL = Size(("market", "both", "herd"), ("plug-in", "cross-fit", "nested", "coupled"), 199, 19, 200)
QUICK = Size(("herd",), ("plug-in", "coupled"), 19, 0, 10)

# %% [markdown]
# ## Data and model
#
# The bundled panel, and the rewards of `models/pricing.py`, with and without terms of the crowd.


# %%
def fit(model: mfg.TrajectoryModel) -> mfg.results.PointEstimate:
    """Return the maximum likelihood estimate."""
    return mfg.mle(model, svi_steps=0, progressbar=False)


# %% [markdown]
# ## Inference
#
# The same reward under each treatment of the flow. *Plug-in*: along the observed flow. *Cross-fit*:
# each tenth of the products along the flow of the rest. *Nested*: along the flow that the fitted
# policy itself generates, by iteration. *Coupled*: the flow is solved for within the likelihood.


# %%
def coupled_model(panel: mfg.Trajectories, reward: Any) -> mfg.TrajectoryModel:
    """Return the model whose flow is the equilibrium under the reward itself."""
    return mfg.TrajectoryModel(pricing.game(panel), reward, panel, mean_field="equilibrium")


def fit_along(
    panel: mfg.Trajectories, name: str, flow: str
) -> tuple[mfg.results.PointEstimate, bool]:
    """Return the estimate of a reward under a treatment of the flow, and whether it is one."""
    model = pricing.model(panel, name=name)
    if flow == "coupled":
        found = fit(coupled_model(panel, model.reward))
    elif flow == "plug-in":
        found = fit(model)
    elif flow == "cross-fit":
        found = mfg.flows.cross_fit(model, random_seed=SEED, init=fit(model))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)  # the table says it
            iterated = mfg.flows.nested_pseudo_likelihood(model, init=fit(model), tolerance=1e-6)
        return iterated.estimate, iterated.converged
    return found, found.converged


Fits = dict[tuple[str, str], tuple[mfg.results.PointEstimate, bool]]


def fit_all(panel: mfg.Trajectories, size: Size) -> Fits:
    """Fit the null, which no treatment changes, and each reward with a crowd under each."""
    fits = {(NULL, "any"): fit_along(panel, NULL, "plug-in")}
    for name in size.rewards:
        for flow in size.flows:
            if (name, flow) != UNBOUNDED:
                fits[name, flow] = fit_along(panel, name, flow)
    return fits


def treatments(fits: Fits) -> pd.DataFrame:
    """Return the coupling, two standard errors and the other weights by reward and treatment."""
    rows, null = [], fits[NULL, "any"][0].llf
    for (name, flow), (point, ended) in fits.items():
        term = pricing.REWARDS[name][-1] if name != NULL else ""
        row: dict[str, Any] = {"reward": name, "flow": flow, "term": term}
        row |= {"estimate": point.params.get(term, np.nan), "s.e.": point.bse.get(term, np.nan)}
        row["clustered s.e."] = point.standard_errors("cluster").get(term, np.nan)
        row |= {"log likelihood": point.llf, "over base": point.llf - null, "converged": ended}
        rows.append(row | {k: v for k, v in point.params.items() if k != term})
    return pd.DataFrame(rows)


def profile(panel: mfg.Trajectories) -> pd.DataFrame:
    """Return log likelihoods of `both` at fixed `gap2`, along the observed and the solved flow."""
    played, base, rows = pricing.game(panel), pricing.reward_named(NULL), []
    start = fit(pricing.model(panel, name=NULL)).params
    for value in FIXED:

        def held(x: mfg.RewardInputs, value: float = value) -> torch.Tensor:
            return base(x) + value * pricing.FEATURES["gap2"](x)

        row: dict[str, Any] = {"gap2": value}
        row["plug-in"] = fit(mfg.TrajectoryModel(played, held, panel)).llf
        if value >= -2.0:  # below, games without an equilibrium are in the way
            init = start.to_dict() | {"level2": start["level2"] - value}
            model = coupled_model(panel, held)
            found = mfg.mle(model, init=init, svi_steps=0, progressbar=False)
            row |= {"coupled": found.llf, "level2, coupled": found.params["level2"]}
        rows.append(row)
    return pd.DataFrame(rows)


def cut_posteriors(panel: mfg.Trajectories, size: Size) -> pd.DataFrame:
    """Return each coupling where the flow, and the dynamics too, are as uncertain as they are."""
    rows = []
    for name, dynamics in itertools.product(size.rewards, ("known", "estimated")):
        term = pricing.REWARDS[name][-1]
        drawn = mfg.flows.cut_posterior(
            pricing.model(panel, name=name), flows=size.draws // 10, draws=10 * size.draws,
            dynamics=dynamics, random_seed=SEED, progressbar=False,
        )["posterior"][term]  # fmt: skip
        row = {"reward": name, "dynamics": dynamics, "term": term, "mean": float(drawn.mean())}
        rows.append(row | {"s.d.": float(drawn.std())})
    return pd.DataFrame(rows)


def drawn_around(point: mfg.results.PointEstimate, n: int) -> pd.DataFrame:
    """Return parameters drawn from the normal of the estimate, clustered by product."""
    rng = np.random.default_rng(SEED)
    rows = rng.multivariate_normal(point.params, point.cov_params("cluster"), size=n)
    return pd.DataFrame(rows, columns=point.params.index)


# %% [markdown]
# ## Checks
#
# **Would products that look at nobody give the same?** Panels drawn without coupling, refitted;
# against the reward without a crowd. Failure: the observed
# ratio lies among those of the panels drawn.


# %%
def coupling_tests(panel: mfg.Trajectories, size: Size) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the tests of each crowd term by flow and null, and the tests themselves."""
    rows, found = [], {}
    pairs: dict[tuple[str, str], tuple[Any, int]] = {}
    for term, name in TESTED.items():
        if name in size.rewards:
            plain = [pricing.model(panel, name=n) for n in (name, NULL)]
            pairs[term, "plug-in"] = plain, size.replications
            if size.slow and (name, "coupled") != UNBOUNDED:
                solved = [coupled_model(panel, m.reward) for m in plain]
                pairs[term, "coupled"] = solved, size.slow
    for (term, how), (pair, n) in pairs.items():
        test = mfg.flows.coupling_test(*pair, replications=n, random_seed=SEED, progressbar=False)
        found[term, how] = test
        for name, row in test.table.drop(columns="survives").dropna().iterrows():
            rows.append({"term": term, "model": how, "panels": n, "test": name} | row.to_dict())
    return pd.DataFrame(rows), found


# %% [markdown]
# **Does the estimated game run away?** Solved at draws around each estimate, beside the observed
# flow. Failure: draws without an equilibrium, or whose flow is far away; several equilibria.


# %%
def equilibria(
    panel: mfg.Trajectories, fits: Fits, size: Size
) -> tuple[pd.DataFrame, dict[tuple[str, str], Any]]:
    """Return the probability of running away under each estimate, and the flows at it."""
    rows, flows = [], {}
    for (name, flow), (point, ended) in fits.items():
        model = pricing.model(panel, name=name)
        found = mfg.checks.runaway(model, drawn_around(point, size.draws), progressbar=False)
        flows[name, flow] = mfg.solve_equilibrium(
            model.game, model.reward, parameters=point.params, mean_field=model.mean_field
        ).value.mean_field.numpy()
        distance, largest = found.table["distance"], found.table["largest"]
        row = {"reward": name, "flow": flow, "converged": ended}
        row |= {"P(runs away)": found.probability, "TV": distance.mean()}
        row |= {"5 %": distance.quantile(0.05), "95 %": distance.quantile(0.95)}
        row |= {"largest share": largest.mean(), "failed": found.n_failed}
        rows.append(row | {"several": int(found.table["several"].sum())})
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
    """Return what the charge changes under each estimate, and the counterfactuals."""
    rows, found = [], {}
    for (name, flow), (point, ended) in fits.items():
        if not ended:
            continue
        model = pricing.model(panel, name=name)
        charged = mfg.taxed(model.reward, lambda x: CHARGE * (x.action == "lower"))
        one = mfg.counterfactual(
            model, drawn_around(point, size.draws), model.game, reward=charged,
            statistics=STATISTICS, n_starts=5, progressbar=False,
        )  # fmt: skip
        found[name, flow] = one
        for statistic in STATISTICS:
            before, changed, difference = (
                one.table.loc[(statistic, world)] for world in ("baseline", "changed", "difference")
            )
            row = {"reward": name, "flow": flow, "statistic": statistic, "before": before["mean"]}
            row |= {"after": changed["mean"], "change": difference["mean"]}
            row |= {"5 %": difference["lower"], "95 %": difference["upper"]}
            rows.append(row | {"failed": one.n_failed, "switched": one.n_switched})
    return pd.DataFrame(rows), found


# %% [markdown]
# ## Figures


# %%
def draw_treatments(table: pd.DataFrame) -> plt.Figure:
    """Draw each coupling's estimates by treatment, with clustered 90 % intervals."""
    shown = table[(table["term"] != "") & table["converged"]]
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
        if how in ("any", "plug-in"):
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


def draw_charge(found: mfg.results.Counterfactual) -> plt.Figure:
    """Draw the crowd in both worlds by bin of the margin."""
    figure = mfg.plots.plot_counterfactual(found)
    for axis, centre in zip(figure.axes, CENTRES, strict=True):
        axis.set_title(f"margin {100 * centre:+.1f} %", fontsize=10)
    figure.supxlabel("month", fontsize=10)
    return figure


# %% [markdown]
# ## Answer
#
# The tables and figures in `--out`; they are read in `docs/pricing.md`.


# %%
def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the analysis and write its tables and figures."""
    size, out = (QUICK if quick else FULL), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    panel = pricing.panel()
    fits = fit_all(panel, size)
    treated = treatments(fits)
    write_table(treated, out, "treatments", fixed(2))
    write_figure(draw_treatments(treated), out, "treatments")
    if not quick:
        write_table(cut_posteriors(panel, size), out, "cut_posteriors", fixed(2))
        write_table(profile(panel), out, "profile", fixed(1))
    tested, tests = coupling_tests(panel, size)
    write_table(tested, out, "coupling_tests", digits=RATIOS)
    for (term, how), test in tests.items():
        if how == "plug-in":
            write_figure(mfg.plots.plot_coupling(test), out, f"coupling_{term}_{how}")
    solved, flows = equilibria(panel, fits, size)
    write_table(solved, out, "equilibria")
    write_figure(draw_flows(panel, flows), out, "flows")
    charged, found = charge_on_cuts(panel, fits, size)
    write_table(charged, out, "charge_on_cuts", fixed(2))
    write_figure(draw_charge(found["herd", "plug-in"]), out, "charge_on_cuts")
    write_table(discounts(panel, size), out, "discounts")


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="fewer models, draws and worlds")
