# %% [markdown]
# # Do airlines answer how many others fly below normal?
#
# **Question.** 247 services from New York's airports cut, keep or add weekly flights over 2013.
# Is adding worth more in weeks in which many fly well below normal? How much of the answer depends
# on how the crowd's flow is treated, and what would a subsidy on added capacity do?
#
# Run `python analyses/capacity.py` (some minutes on one core) or, for a small version,
# `python analyses/capacity.py --quick`. What weeks that all services share do to the answer is
# asked in `capacity_weeks.py`.

# %%
"""Airline capacity: treatments of the crowd's flow, and a subsidy."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from output import RATIOS, fixed, run, write_figure, write_table

import mfgppl as mfg
from mfgppl.models import capacity
from mfgppl.plots.style import DOT, GREEN, GREY, INK

TERM = "raise_x_D"  # the coupling
CLUSTERS = ("agent", "carrier")  # of standard errors
SUBSIDY = 0.25  # reward units for each week in which flights are added
SEED = 1
Z90 = 1.645  # half a 90 % interval, in standard errors
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "capacity"
COLOURS = {"base": GREY, "plug-in": INK, "nested": GREEN, "coupled": DOT}


class Size(NamedTuple):
    """How much of everything a run does.

    Attributes
    ----------
    flows : tuple of str
        Treatments of the crowd's flow.
    replications, slow : int
        Panels drawn for the test of coupling; the same along a solved flow, 0 for no such test.
    draws : int
        Draws of parameters whose equilibrium is solved.
    """

    flows: tuple[str, ...]
    replications: int
    slow: int
    draws: int


ALL = ("plug-in", "cross-fit by service", "cross-fit by carrier", "nested", "coupled")
FULL = Size(ALL, 199, 19, 200)
QUICK = Size(("plug-in",), 19, 0, 10)

# %% [markdown]
# ## Data and model
#
# The bundled panel and the two rewards of `models/capacity.py`: `base` knows no crowd, `crowd` adds
# `raise_x_D 1{add} (D_t - 0.183)`, with `D_t` the share of services well below normal.


# %%
def fit(model: mfg.TrajectoryModel) -> mfg.results.PointEstimate:
    """Return the maximum likelihood estimate."""
    return mfg.mle(model, svi_steps=0, progressbar=False)


def coupled_model(panel: mfg.Trajectories, name: str) -> mfg.TrajectoryModel:
    """Return the model whose flow is the equilibrium under the reward itself."""
    played, reward = capacity.game(panel), capacity.reward_named(name)
    return mfg.TrajectoryModel(played, reward, panel, mean_field="equilibrium")


# %% [markdown]
# ## Inference
#
# The same reward under each treatment of the flow. *Plug-in*: along the observed flow. *Cross-fit*:
# each tenth of the services along the flow of the rest, or each carrier along that of the others.
# *Nested*: along the flow that the fitted policy itself generates, by iteration. *Coupled*: the
# flow is solved for within the likelihood. The base reward does not look at the flow.


# %%
def fit_along(panel: mfg.Trajectories, flow: str) -> tuple[mfg.results.PointEstimate, bool]:
    """Return the estimate under a treatment of the flow, and whether it converged."""
    model = capacity.model(panel)
    if flow == "coupled":
        found = fit(coupled_model(panel, "crowd"))
    elif flow == "plug-in":
        found = fit(model)
    elif flow.startswith("cross-fit"):
        parts = {"by": "carrier", "folds": None} if "carrier" in flow else {"folds": 10}
        # in nats: a gradient this small moves an estimate by less than a thousandth of its error
        found = mfg.flows.cross_fit(
            model, random_seed=SEED, init=fit(model), tolerance=1e-6, **parts
        )
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)  # the table says it
            iterated = mfg.flows.nested_pseudo_likelihood(
                model, init=fit(model), tolerance=1e-6, max_steps=100
            )
        return iterated.estimate, iterated.converged
    return found, found.converged


Fits = dict[tuple[str, str], tuple[mfg.results.PointEstimate, bool]]


def fit_all(panel: mfg.Trajectories, size: Size) -> Fits:
    """Fit the base reward, and the one with a crowd under each treatment."""
    base = fit(capacity.model(panel, name="base"))
    crowd = {("crowd", flow): fit_along(panel, flow) for flow in size.flows}
    return {("base", "any"): (base, base.converged)} | crowd


def treatments(fits: Fits) -> pd.DataFrame:
    """Return one row per treatment: the coupling, its standard errors, the other weights."""
    rows, null = [], fits["base", "any"][0].llf
    for (name, flow), (point, converged) in fits.items():
        row: dict[str, Any] = {"reward": name, "flow": flow}
        row |= {TERM: point.params.get(TERM, np.nan), "s.e.": point.bse.get(TERM, np.nan)}
        for groups in CLUSTERS:
            errors = point.standard_errors("cluster", groups=groups)
            row[f"by {'service' if groups == 'agent' else groups}"] = errors.get(TERM, np.nan)
        row |= {"log likelihood": point.llf, "over base": point.llf - null}
        row |= {"converged": converged}
        rows.append(row | {k: v for k, v in point.params.items() if k != TERM})
    return pd.DataFrame(rows)


def cut_posteriors(panel: mfg.Trajectories, size: Size) -> pd.DataFrame:
    """Return the coupling where the flow, and the dynamics too, are as uncertain as they are."""
    rows = []
    for dynamics in ("known", "estimated"):
        drawn = mfg.flows.cut_posterior(
            capacity.model(panel), flows=size.draws // 10, draws=10 * size.draws,
            dynamics=dynamics, random_seed=SEED, progressbar=False,
        )["posterior"][TERM]  # fmt: skip
        row = {"dynamics": dynamics, "term": TERM, "mean": float(drawn.mean())}
        rows.append(row | {"s.d.": float(drawn.std())})
    return pd.DataFrame(rows)


def clusters(point: mfg.results.PointEstimate) -> pd.DataFrame:
    """Return each weight with its standard error of each kind."""
    errors = {"observed information": point.bse}
    for groups in CLUSTERS:
        label = "clustered by " + ("service" if groups == "agent" else groups)
        errors[label] = point.standard_errors("cluster", groups=groups)
    table = pd.DataFrame({"weight": point.params} | errors)
    table["ratio of the last to the first"] = table.iloc[:, 3] / table.iloc[:, 1]
    return table.rename_axis("term").reset_index()


def drawn_around(point: mfg.results.PointEstimate, n: int) -> pd.DataFrame:
    """Return parameters drawn from the normal of the estimate, clustered by carrier."""
    rng = np.random.default_rng(SEED)
    spread = point.cov_params("cluster", groups="carrier")
    return pd.DataFrame(rng.multivariate_normal(point.params, spread, size=n), columns=spread.index)


# %% [markdown]
# ## Checks
#
# **Would services that look at nobody give the same?** Panels drawn without coupling, refitted,
# along their own flow and along a solved one. Failure: the observed ratio lies among theirs.


# %%
def coupling_tests(panel: mfg.Trajectories, size: Size) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the tests of the coupling by treatment of the flow, and the tests themselves."""
    pairs = {"plug-in": ([capacity.model(panel, name=n) for n in ("crowd", "base")],
                         size.replications)}  # fmt: skip
    if size.slow:
        pairs["coupled"] = [coupled_model(panel, n) for n in ("crowd", "base")], size.slow
    rows, found = [], {}
    for flow, (pair, n) in pairs.items():
        test = mfg.flows.coupling_test(*pair, replications=n, random_seed=SEED, progressbar=False)
        found[flow] = test
        for name, row in test.table.drop(columns="survives").dropna().iterrows():
            rows.append({"flow": flow, "panels": n, "test": name} | row.to_dict())
    return pd.DataFrame(rows), found


# %% [markdown]
# **Does the estimated game run away?** Solved at draws around each estimate, beside the observed
# flow. Failure: draws without an equilibrium, or whose flow is far away; several equilibria.


# %%
def equilibria(
    panel: mfg.Trajectories, fits: Fits, size: Size
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the probability of running away under each estimate, and the flows at it."""
    rows, flows = [], {}
    for (name, flow), (point, converged) in fits.items():
        model = capacity.model(panel, name=name)
        found = mfg.checks.runaway(model, drawn_around(point, size.draws), progressbar=False)
        flows["base" if name == "base" else flow] = mfg.solve_equilibrium(
            model.game, model.reward, parameters=point.params, mean_field=model.mean_field
        ).value.mean_field.numpy()
        distance, largest = found.table["distance"], found.table["largest"]
        row = {"reward": name, "flow": flow, "converged": converged}
        row |= {"P(runs away)": found.probability, "TV": distance.mean()}
        row |= {"5 %": distance.quantile(0.05), "95 %": distance.quantile(0.95)}
        row |= {"largest share": largest.mean(), "failed": found.n_failed}
        rows.append(row | {"several": int(found.table["several"].sum())})
    return pd.DataFrame(rows), flows


# %% [markdown]
# **Does the discount matter?** Failure: another sign, or likelihoods that distinguish discounts.


# %%
def discounts(panel: mfg.Trajectories) -> pd.DataFrame:
    """Return the plug-in fits at three discounts."""
    rows = []
    for discount in (0.8, 0.9, 0.95, 1.0):
        played = capacity.game(panel, discount=discount)
        point = fit(mfg.TrajectoryModel(played, capacity.reward, panel))
        row = {"discount": discount, "log likelihood": point.llf}
        rows.append(row | point.params.to_dict())
    return pd.DataFrame(rows)


# %% [markdown]
# ## What if adding flights were subsidised?
#
# Each estimate's draws through the equilibrium of its own game and of the one in which a week of
# adding earns a quarter of a reward unit. If adding is worth more while others fly below normal,
# the subsidy lifts the others and with them takes away part of the reason to add.


# %%
STATISTICS = {
    "well below normal, %": lambda world: 100 * world.flow.isel(state=[0, 1]).sum("state").mean(),
    "weeks of adding, %": lambda world: (
        100 * (world.flow * world.policy.sel(action="add")).sum("state").mean()
    ),
}


def subsidy(panel: mfg.Trajectories, fits: Fits, size: Size) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return what the subsidy changes under each estimate, and the counterfactuals."""
    rows, found = [], {}
    for (name, flow), (point, _) in fits.items():
        model = capacity.model(panel, name=name)
        paid = mfg.taxed(model.reward, lambda x: -SUBSIDY * (x.action == "add"))
        one = mfg.counterfactual(
            model, drawn_around(point, size.draws), model.game, reward=paid,
            statistics=STATISTICS, n_starts=5, progressbar=False,
        )  # fmt: skip
        found[flow] = one
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
    """Draw the coupling's estimates by treatment, with 90 % intervals clustered by carrier."""
    rows = table[table["reward"] == "crowd"].reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(6.2, 2.4), layout="constrained")
    half = Z90 * rows["by carrier"]
    axis.hlines(rows.index, rows[TERM] - half, rows[TERM] + half, color=INK, lw=2)
    axis.plot(rows[TERM], rows.index, "o", ms=5, color=INK)
    axis.axvline(0, color="#b8c2cc", lw=0.8, zorder=0)
    axis.set_yticks(rows.index, rows["flow"])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(f"{TERM} (reward units), 90% interval clustered by carrier")
    return figure


def draw_flows(panel: mfg.Trajectories, flows: Mapping[str, Any]) -> plt.Figure:
    """Draw the share well below normal, observed and solved."""
    figure, axis = plt.subplots(figsize=(7.4, 3.4), layout="constrained")
    weeks, observed = np.arange(panel.horizon) + panel.first_time, panel.mean_field()
    axis.plot(weeks, observed[:, :2].sum(1), "o-", ms=3, color="black", lw=1, label="observed")
    for label, colour in COLOURS.items():
        if label in flows:
            axis.plot(weeks, flows[label][:, :2].sum(1), color=colour, label=label)
    axis.set_ylim(0, None)
    axis.set_xlabel("week of 2013")
    axis.set_ylabel("share well below normal")
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    return figure


def draw_subsidy(found: mfg.results.Counterfactual) -> plt.Figure:
    """Draw the crowd in both worlds by bin of capacity."""
    figure = mfg.plots.plot_counterfactual(found)
    for axis, centre in zip(figure.axes, capacity.CENTRES, strict=True):
        axis.set_title(f"log flights {centre:+.2f}", fontsize=10)
    figure.supxlabel("week", fontsize=10)
    return figure


# %% [markdown]
# ## Answer
#
# The tables and figures in `--out`; they are read in `docs/capacity.md`.


# %%
def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the analysis and write its tables and figures."""
    size, out = (QUICK if quick else FULL), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    panel = capacity.panel()
    fits = fit_all(panel, size)
    treated = treatments(fits)
    write_table(treated, out, "treatments", digits={"log likelihood": 1, "over base": 1})
    write_figure(draw_treatments(treated), out, "treatments")
    write_table(clusters(fits["crowd", "plug-in"][0]), out, "clusters")
    if not quick:
        write_table(cut_posteriors(panel, size), out, "cut_posteriors", fixed(2))
    tested, tests = coupling_tests(panel, size)
    write_table(tested, out, "coupling_tests", digits=RATIOS)
    write_figure(mfg.plots.plot_coupling(tests["plug-in"]), out, "coupling_plug-in")
    solved, flows = equilibria(panel, fits, size)
    write_table(solved, out, "equilibria")
    write_figure(draw_flows(panel, flows), out, "flows")
    changed, found = subsidy(panel, fits, size)
    write_table(changed, out, "subsidy", fixed(2))
    write_figure(draw_subsidy(found[size.flows[-1]]), out, "subsidy")
    if not quick:
        write_table(discounts(panel), out, "discounts", digits={"log likelihood": 1})


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="fewer treatments, draws and panels")
