# %% [markdown]
# # Do supermarket prices follow the crowd?
#
# **Question.** 534 products of one chain lower, hold or raise their price each month. Does what the
# other products do enter their reward, and which law of trajectories describes them better: the
# causal likelihood or the energy likelihood?
#
# Run `python analyses/pricing.py` (some minutes on two cores) or, for a small version,
# `python analyses/pricing.py --quick`.

# %%
"""Price setting in a supermarket: rewards and laws compared, and what the data do not show."""

import argparse
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import arviz_stats
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import scipy.stats
import torch
import xarray as xr

import mfgppl as mfg
from mfgppl.models import pricing
from mfgppl.report.figures import predictive_by_state, predictive_by_time

LAWS = {
    "causal": {"likelihood": "causal"},
    "energy": {"likelihood": "energy", "start": "marginal"},
    "energy given the start": {"likelihood": "energy", "start": "conditional"},
}
NULL = "base"  # the reward without a crowd
TESTED = {"gap2": "both", "crowd": "herd"}  # each adds one term of the crowd to the null
CENTRES = pricing.CENTRES  # of the margin bins, log points
OTHER_BINS = (0, 1, 2, 4, 5)  # those with an effect of their own, against bin 3
SEED = 1
LEVEL = 0.9  # of all intervals, equal-tailed
PRIOR_COUNT = 0.5  # a next state, where the dynamics are estimated on half of the products
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "pricing"
COLOURS = {"causal": "#1f3a5f", "energy": "#c2452d", "energy given the start": "#d99a2b"}
REWARD_COLOURS = {"base": "#5b6b7b", "market": "#2a7f62", "both": "#1f3a5f", "herd": "#c2452d"}


class Size(NamedTuple):
    """How much of everything a run does.

    Attributes
    ----------
    rewards, laws : tuple of str
        What is fitted.
    draws : int
        Draws a chain, and tuning steps.
    worlds : int
        Simulated worlds of each kind.
    shocks : bool
        Whether to fit free effects of months and bins.
    solved : int
        Posterior draws whose equilibrium is solved.
    """

    rewards: tuple[str, ...]
    laws: tuple[str, ...]
    draws: int
    worlds: int
    shocks: bool
    solved: int


FULL = Size(tuple(pricing.REWARDS), tuple(LAWS), 1000, 20, True, 100)
QUICK = Size(("base", "herd"), ("causal", "energy"), 300, 1, False, 2)

# %% [markdown]
# ## Data
#
# The bundled panel: a state is a bin of the margin against the product's own median, 25 decisions
# a product and the state reached after the last. The dynamics are the pooled frequencies, the crowd
# is the panel's own flow, held fixed.

# %%


def game(panel: mfg.Trajectories, *, discount: float = 1.0, prior: float = 0.0) -> Any:
    """Return the pricing game with the dynamics and the start of a panel."""
    return mfg.MeanFieldGame(
        states={"margin": range(6)},
        actions=["lower", "hold", "raise"],
        horizon=panel.horizon,
        transition=panel.estimate_transition(prior_count=prior),
        initial=panel.initial_distribution(prior_count=prior),
        features={"level": ("margin", CENTRES / 0.1)},
        discount=discount,
    )


def halves(panel: mfg.Trajectories) -> Iterator[tuple[mfg.Trajectories, mfg.Trajectories]]:
    """Yield the products in two halves, both ways."""
    even = np.arange(panel.n_trajectories) % 2 == 0
    first, second = panel.subset(even), panel.subset(~even)
    yield first, second
    yield second, first


# %% [markdown]
# ## Model
#
# Four rewards, linear in their weights with wide normal priors, and three laws of trajectories.
# `free_effects` gives each month its own cost of lowering and of raising (shocks common to all
# products, which they anticipate) and each bin of the margin its own reward, and knows no crowd
# unless terms of it are named.


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


def fit(played: Any, reward: Any, panel: mfg.Trajectories, **options: Any) -> mfg.PointEstimate:
    """Return the maximum likelihood estimate."""
    model = mfg.TrajectoryModel(played, reward, panel, **options)
    return mfg.mle(model, svi_steps=0, progressbar=False)


def log_likelihood_at(model: mfg.TrajectoryModel, parameters: Mapping[str, float]) -> float:
    """Return the log likelihood of a model's panel at given parameters, nats."""
    data = {k: torch.tensor(v, dtype=torch.float64) for k, v in parameters.items()}
    trace = pyro.poutine.trace(pyro.poutine.condition(model, data=data)).get_trace()
    trace.compute_log_prob()
    return float(trace.nodes["actions"]["log_prob_sum"])


# %% [markdown]
# ## Inference
#
# Each reward under each law: maximum likelihood with two standard errors (observed information, and
# clustered by product) and NUTS.


# %%
class Fits(NamedTuple):
    """Everything fitted to the panel, by (law, reward).

    Attributes
    ----------
    points : dict to PointEstimate
        Maximum likelihood.
    draws : dict to DataTree
        Posterior draws.
    """

    points: dict[tuple[str, str], mfg.PointEstimate]
    draws: dict[tuple[str, str], xr.DataTree]


def fit_all(panel: mfg.Trajectories, size: Size) -> Fits:
    """Fit all rewards under all laws."""
    fits, played = Fits({}, {}), game(panel)
    for law in size.laws:
        for name in size.rewards:
            model = mfg.TrajectoryModel(played, pricing.reward_named(name), panel, **LAWS[law])
            fits.points[law, name] = mfg.mle(model, svi_steps=0, progressbar=False)
            fits.draws[law, name] = mfg.nuts(
                model, draws=size.draws, tune=size.draws, random_seed=SEED, progressbar=False
            )
    return fits


def estimates(fits: Fits) -> pd.DataFrame:
    """Return a row a law, reward and weight: point, two standard errors, posterior interval."""
    rows = []
    for (law, name), point in fits.points.items():
        clustered, posterior = point.standard_errors("cluster"), fits.draws[law, name].posterior
        for weight, value in point.params.items():
            low, high = np.quantile(posterior[weight], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            rows.append(
                {
                    "law": law,
                    "reward": name,
                    "weight": weight,
                    "MLE": value,
                    "s.e.": point.bse[weight],
                    "clustered s.e.": clustered[weight],
                    "posterior mean": float(posterior[weight].mean()),
                    "5 %": low,
                    "95 %": high,
                }
            )
    return pd.DataFrame(rows)


# %% [markdown]
# ### Are the laws on one scale?
#
# Both log likelihoods are log densities of the whole trajectory relative to the same measure,
# `mu_0(s_0) prod P` times counting measure on the actions, at the same `mu_0` and `P`:
#
# - causal: `p(tau) = mu_0 prod P prod pi`, so `log p - log(mu_0 prod P) = sum log pi`;
# - energy: `p(tau) = mu_0 prod P exp(sum r / beta) / Z`, so it is `sum r / beta - log Z`.
#
# Both sum to one over trajectories, so a difference of their expected log predictive densities is
# meaningful. The energy law also says where trajectories start and how states follow each other,
# differently from `mu_0` and `P`. `parts` splits its log likelihood accordingly:
#
#     sum r/beta - log Z = sum log pi_e(a_t|s_t)  +  sum log P_e(s_{t+1}|s_t,a_t)/P(s_{t+1}|s_t,a_t)
#                          + log mu_e(s_0)/mu_0(s_0)


# %%
def comparison(fits: Fits) -> pd.DataFrame:
    """Return leave-one-trajectory-out predictive densities of all laws and rewards."""
    trees = {f"{law}: {name}": tree for (law, name), tree in fits.draws.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside arviz_stats
        compared = arviz_stats.compare(trees)
    rows = []
    for label, row in compared.iterrows():
        law, name = str(label).split(": ")
        loo = arviz_stats.loo(trees[label], pointwise=True)
        rows.append(
            {
                "law": law,
                "reward": name,
                "log likelihood at the MLE": fits.points[law, name].llf,
                "elpd (LOO)": row["elpd"],
                "s.e.": row["se"],
                "effective parameters": row["p"],
                "below the best": row["elpd_diff"],
                "s.e. of the difference": row["dse"],
                "Pareto k above its bound": int((loo.pareto_k > loo.good_k).sum()),
            }
        )
    return pd.DataFrame(rows)


def parts(panel: mfg.Trajectories, fits: Fits, size: Size) -> pd.DataFrame:
    """Split log likelihoods at the MLE into what is said of actions, next states and starts."""
    rows, played = [], game(panel)
    for law in size.laws:
        for name in size.rewards:
            point, reward = fits.points[law, name], pricing.reward_named(name)
            model = mfg.TrajectoryModel(played, reward, panel, **LAWS[law])
            logs = np.log(mfg.policy(model, point).values)
            of_actions, given_start = float((model.panel.counts.actions * logs).sum()), point.llf
            if law == "energy":
                other = mfg.TrajectoryModel(played, reward, panel, **LAWS["energy given the start"])
                given_start = log_likelihood_at(other, point.params)
            rows.append(
                {
                    "law": law,
                    "reward": name,
                    "actions": of_actions,
                    "next states": given_start - of_actions,
                    "starts": point.llf - given_start,
                    "total": point.llf,
                }
            )
    return pd.DataFrame(rows)


def held_out(panel: mfg.Trajectories, size: Size) -> pd.DataFrame:
    """Return log densities of each half of the products under the fit of the other half."""
    rows = []
    for law in size.laws:
        for name in size.rewards:
            total, reward = 0.0, pricing.reward_named(name)
            for seen, unseen in halves(panel):
                played = game(seen, prior=PRIOR_COUNT)
                point = fit(played, reward, seen, **LAWS[law])
                flow = seen.mean_field()
                test = mfg.TrajectoryModel(played, reward, unseen, mean_field=flow, **LAWS[law])
                total += log_likelihood_at(test, point.params)
            rows.append({"law": law, "reward": name, "held-out log density": total})
    table = pd.DataFrame(rows)
    best = table["held-out log density"].max()
    return table.assign(**{"difference to the best": table["held-out log density"] - best})


# %% [markdown]
# ## Checks
#
# **Do the models predict what was seen?** The share of months in which an observed action share
# lies in its 90 % predictive band. Failure: far fewer than 90 % do; something that moves all
# products in a month is left out.


# %%
def coverage(fits: Fits) -> pd.DataFrame:
    """Return how many observed shares lie in their 90 % predictive bands."""
    rows = []
    for (law, name), tree in fits.draws.items():
        row: dict[str, Any] = {"law": law, "reward": name}
        for label, group in (("by month", "share_by_time"), ("by state", "share_by_state")):
            observed, drawn = tree.observed_data[group], tree.posterior_predictive[group]
            band = drawn.quantile([(1 - LEVEL) / 2, (1 + LEVEL) / 2], ["chain", "draw"])
            inside = (observed >= band.isel(quantile=0)) & (observed <= band.isel(quantile=1))
            row[label] = f"{int(inside.sum())} of {inside.size}"
        rows.append(row)
    return pd.DataFrame(rows)


# %% [markdown]
# **Would a world without a crowd look the same?** The plugged-in flow is the outcome of the very
# actions being explained. So: simulate panels of the same size from the fitted base reward, where
# nobody looks at anybody; refit; compare the likelihood ratio of a crowd term with what chi-squared
# promises, also with the flow of the *other* half of the products (cross-fitting). In a second
# kind of world months and bins have free effects, fitted to the panel, and there is still no
# crowd. Failure: the observed ratio lies among the simulated ones.


# %%
FREE = "plug-in, months and bins free"


def ratios(panel: mfg.Trajectories, *, shocks: bool) -> dict[tuple[str, str], float]:
    """Return likelihood ratios of the crowd terms: plug-in, cross-fitted, against free effects."""
    played, found = game(panel, prior=PRIOR_COUNT), {}
    null = fit(played, pricing.reward_named(NULL), panel).llf
    for term, name in TESTED.items():
        found[term, "plug-in"] = 2 * (fit(played, pricing.reward_named(name), panel).llf - null)
        found[term, "cross-fitted"] = 0.0
    for others, own in halves(panel):
        flow = {"mean_field": others.mean_field()}
        null = fit(played, pricing.reward_named(NULL), own, **flow).llf
        for term, name in TESTED.items():
            llf = fit(played, pricing.reward_named(name), own, **flow).llf
            found[term, "cross-fitted"] += 2 * (llf - null)
    if shocks:
        null = fit(played, free_effects(), panel).llf
        for term in TESTED:
            found[term, FREE] = 2 * (fit(played, free_effects(term), panel).llf - null)
    return found


def simulated(
    panel: mfg.Trajectories, reward: Any, n_worlds: int, *, shocks: bool
) -> list[dict[tuple[str, str], float]]:
    """Return the ratios in worlds drawn from a reward without a crowd, fitted to the panel."""
    played, flow = game(panel), torch.as_tensor(panel.mean_field())
    model = mfg.TrajectoryModel(played, reward, panel)
    point = mfg.mle(model, svi_steps=0, progressbar=False)
    policy = torch.as_tensor(mfg.policy(model, point).values)
    size = {"n_agents": panel.n_trajectories}
    worlds = (
        mfg.simulate(played, policy, flow, random_seed=SEED + k, **size) for k in range(n_worlds)
    )
    return [ratios(world, shocks=shocks) for world in worlds]


def crowd_tests(panel: mfg.Trajectories, size: Size) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return observed ratios against those of simulated worlds, and the latter by kind."""
    observed = ratios(panel, shocks=size.shocks)
    base = pricing.reward_named(NULL)
    kinds = {"no crowd": simulated(panel, base, size.worlds, shocks=False)}
    if size.shocks:
        kinds["free months and bins"] = simulated(panel, free_effects(), size.worlds, shocks=True)
    rows = []
    for kind, worlds in kinds.items():
        for (term, how), value in observed.items():
            if (term, how) in worlds[0]:
                drawn = np.array([w[term, how] for w in worlds])
                exceed = (1 + int((drawn >= value).sum())) / (1 + len(drawn))
                row = {"worlds": kind, "term": term, "flow": how, "observed": value}
                row |= {"chi-squared mean": 1 + (how == "cross-fitted"), "mean": drawn.mean()}
                row |= {"largest": drawn.max(), "bootstrap p": exceed}
                rows.append(row)
    return pd.DataFrame(rows), kinds


# %% [markdown]
# **Is the crowd a stand-in for something else?** `crowd` is large wherever the popular bin is,
# month after month, so it may repair the shape of the reward over bins; `gap2` moves with the
# month, as common shocks do. Failure: a term's ratio collapses, or its weight changes sign, once
# bins or months are free.


# %%
def controls(panel: mfg.Trajectories) -> pd.DataFrame:
    """Return ratios and weights of the crowd terms under ever freer controls."""
    played, rows = game(panel), []
    for months, bins in ((False, False), (True, False), (False, True), (True, True)):
        free = {"months": months, "bins": bins}
        null = fit(played, free_effects(**free), panel).llf
        for term in TESTED:
            point = fit(played, free_effects(term, **free), panel)
            row = {"months": "free" if months else "alike", "bins": "free" if bins else "quadratic"}
            row |= {"term": term, "log likelihood": point.llf, "ratio": 2 * (point.llf - null)}
            row |= {"weight": point.params[term]}
            rows.append(row | {"clustered s.e.": point.standard_errors("cluster")[term]})
    return pd.DataFrame(rows)


# %% [markdown]
# **Does the estimated game run away?** Solve the game under the estimate and under posterior draws
# and compare its flow with the observed one, month by month, in total variation. Failure: the
# solved flow leaves the observed one by much more than the flow of the base reward does, or starts
# that are far apart end in different equilibria.


# %%
def total_variation(flow: Any, observed: np.ndarray) -> np.ndarray:
    """Return half the absolute difference of shares, by month."""
    return 0.5 * np.abs(np.asarray(flow) - observed).sum(-1)


def solve(panel: mfg.Trajectories, name: str, parameters: Any, start: Any = None) -> Any:
    """Solve the game of a reward at given parameters from a starting flow."""
    flow = torch.as_tensor(panel.mean_field() if start is None else start)
    weights = {k: float(v) for k, v in parameters.items()}
    return mfg.solve_equilibrium(
        game(panel), pricing.reward_named(name), parameters=weights, mean_field=flow, max_steps=2000
    )


def equilibria(panel: mfg.Trajectories, fits: Fits, size: Size) -> tuple[pd.DataFrame, dict]:
    """Return how far the solved games are from the observed flow, and the flows at the MLE."""
    observed, rows, flows = panel.mean_field(), [], {}
    corners = [np.eye(6)[[s] * panel.horizon] for s in (0, 5)]
    for name in size.rewards:
        point = fits.points["causal", name].params
        solution = solve(panel, name, point)
        flows[name] = solution.value.mean_field.numpy()
        distance = total_variation(flows[name], observed)
        others = [solve(panel, name, point, start).value.mean_field for start in corners]
        apart = max(float(total_variation(o, flows[name]).max()) for o in others)
        spread = posterior_distances(panel, name, fits.draws["causal", name], size.solved)
        rows.append(
            {
                "reward": name,
                "converged": solution.converged,
                "TV, mean over months": distance.mean(),
                "TV, largest month": distance.max(),
                "equilibria apart": apart,
                "posterior 5 %": np.quantile(spread, 0.05),
                "posterior 95 %": np.quantile(spread, 0.95),
                "P(TV above twice base's)": (spread > 2 * rows[0]["TV, mean over months"]).mean()
                if rows
                else 0.0,
            }
        )
    return pd.DataFrame(rows), flows


def posterior_distances(
    panel: mfg.Trajectories, name: str, draws: xr.DataTree, n: int
) -> np.ndarray:
    """Return the mean total variation over months of the games at evenly spaced draws."""
    flat = {str(k): v.values.ravel() for k, v in draws.posterior.data_vars.items()}
    rows = np.linspace(0, len(next(iter(flat.values()))) - 1, n).round().astype(int)
    distances = []
    for k in rows:
        weights = {weight: values[k] for weight, values in flat.items()}
        flow = solve(panel, name, weights).value.mean_field
        distances.append(total_variation(flow, panel.mean_field()).mean())
    return np.array(distances)


# %% [markdown]
# **Does the discount matter?** The causal fits at 0.9. Failure: another order of the rewards, or
# another sign of a crowd term.


# %%
def discounts(panel: mfg.Trajectories, size: Size) -> pd.DataFrame:
    """Return the causal fits at two discounts."""
    rows = []
    for discount in (1.0, 0.9):
        for name in size.rewards:
            played = game(panel, discount=discount)
            point = fit(played, pricing.reward_named(name), panel)
            row = {"discount": discount, "reward": name, "log likelihood": point.llf}
            rows.append(row | {"AIC": point.aic} | point.params.to_dict())
    return pd.DataFrame(rows)


# %% [markdown]
# ## Figures


# %%
def draw_estimates(table: pd.DataFrame) -> plt.Figure:
    """Draw posterior means and intervals of each reward's weights, by law."""
    rewards = list(dict.fromkeys(table["reward"]))
    figure, axes = plt.subplots(1, len(rewards), figsize=(2.6 * len(rewards), 3.2), squeeze=False)
    for axis, name in zip(axes[0], rewards, strict=True):
        weights = list(dict.fromkeys(table.loc[table["reward"] == name, "weight"]))
        for shift, law in zip((-0.2, 0.0, 0.2), dict.fromkeys(table["law"]), strict=False):
            rows = table[(table["reward"] == name) & (table["law"] == law)]
            place = np.arange(len(weights)) + shift
            axis.hlines(place, rows["5 %"], rows["95 %"], color=COLOURS[law], lw=2)
            axis.plot(rows["posterior mean"], place, "o", ms=4, color=COLOURS[law], label=law)
        axis.axvline(0, color="#b8c2cc", lw=0.8, zorder=0)
        axis.set_yticks(np.arange(len(weights)), weights)
        axis.invert_yaxis()
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("weight (reward units)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    return figure


def draw_comparison(table: pd.DataFrame) -> plt.Figure:
    """Draw differences of expected log predictive density to the best, with standard errors."""
    figure, axis = plt.subplots(figsize=(7, 0.32 * len(table) + 1.2))
    place = np.arange(len(table))
    colours = [COLOURS[law] for law in table["law"]]
    gap, error = -table["below the best"].abs(), table["s.e. of the difference"]
    axis.hlines(place, gap - 2 * error, gap + 2 * error, color=colours, lw=2)
    axis.scatter(gap, place, color=colours, s=26, zorder=3)
    axis.set_yticks(place, table["law"] + ": " + table["reward"])
    axis.invert_yaxis()
    axis.axvline(0, color="#b8c2cc", lw=0.8, zorder=0)
    axis.set_xlabel("elpd minus that of the best (nats); bars of two standard errors")
    figure.tight_layout()
    return figure


def draw_tests(table: pd.DataFrame, kinds: Mapping[str, Sequence[Any]]) -> plt.Figure:
    """Draw likelihood ratios of simulated worlds against the observed ones."""
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 3.4), squeeze=False)
    for axis, (kind, worlds) in zip(axes[0], kinds.items(), strict=True):
        rows = table[table["worlds"] == kind].reset_index()
        for place, row in rows.iterrows():
            drawn = [w[row["term"], row["flow"]] for w in worlds]
            axis.plot(drawn, [place] * len(drawn), "|", ms=12, color="#1f3a5f", alpha=0.7)
            axis.plot(row["observed"], place, "D", ms=6, color="#c2452d")
            bound = scipy.stats.chi2.ppf(0.95, row["chi-squared mean"])
            axis.plot([bound], [place], "|", ms=18, color="#d99a2b", mew=2)
        axis.set_yticks(
            np.arange(len(rows)), rows["term"] + ", " + rows["flow"].str.replace("in, ", "in,\n")
        )
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xscale("symlog", linthresh=10)
        axis.set_xlim(-1, 1.6 * max(10.0, rows["observed"].max()))
        axis.set_xlabel("likelihood ratio, 2 x nats")
        axis.set_title(f"worlds: {kind}", fontsize=10)
    figure.tight_layout()
    return figure


def draw_flows(panel: mfg.Trajectories, flows: Mapping[str, np.ndarray]) -> plt.Figure:
    """Draw the crowd's mean margin, observed and solved, and the distance of the flows."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.2))
    months, observed = np.arange(panel.horizon) + panel.first_time, panel.mean_field()
    axes[0].plot(months, observed @ CENTRES, "o-", ms=3, color="black", lw=1, label="observed")
    for name, flow in flows.items():
        axes[0].plot(months, flow @ CENTRES, color=REWARD_COLOURS[name], label=name)
        axes[1].plot(months, total_variation(flow, observed), color=REWARD_COLOURS[name])
    axes[0].set_ylabel("crowd's mean margin (log points)")
    axes[1].set_ylabel("total variation")
    axes[1].set_ylim(0, None)
    for axis in axes:
        axis.set_xlabel("month")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
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
    weights, compared = estimates(fits), comparison(fits)
    tested, kinds = crowd_tests(panel, size)
    solved, flows = equilibria(panel, fits, size)

    write_table(weights, out, "estimates")
    write_table(compared, out, "comparison", 1)
    write_table(parts(panel, fits, size), out, "parts", 1)
    if not quick:
        write_table(held_out(panel, size), out, "held_out", 1)
    write_table(coverage(fits), out, "coverage")
    write_table(tested, out, "crowd_tests", 2)
    if size.shocks:
        write_table(controls(panel), out, "controls", 2)
    write_table(solved, out, "equilibria")
    write_table(discounts(panel, size), out, "discounts")

    best = "herd" if "herd" in size.rewards else "both"
    write_figure(draw_estimates(weights), out, "estimates")
    write_figure(draw_comparison(compared), out, "comparison")
    write_figure(draw_tests(tested, kinds), out, "crowd_tests")
    write_figure(draw_flows(panel, flows), out, "flows")
    write_figure(predictive_by_time(fits.draws["causal", best]), out, "predictive_by_month")
    for law in ("causal", "energy"):
        figure = predictive_by_state(fits.draws[law, best])
        write_figure(figure, out, f"predictive_by_state_{law}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer models, draws and worlds")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of tables and figures")
    arguments = parser.parse_args()
    warnings.simplefilter("default")
    main(arguments.quick, arguments.out)
