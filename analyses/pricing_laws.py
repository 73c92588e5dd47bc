# %% [markdown]
# # Which reward and which law describe supermarket prices?
#
# **Question.** 534 products of one chain lower, hold or raise their price each month. Which of four
# rewards describes them, and which law of trajectories: the causal likelihood or the energy
# likelihood? What the terms of the crowd mean is asked in `pricing_study.py`.
#
# Run `python analyses/pricing_laws.py` (some minutes) or, for a small version,
# `python analyses/pricing_laws.py --quick`.

# %%
"""Price setting in a supermarket: rewards and laws compared."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import arviz_stats
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import torch
import xarray as xr
from output import fixed, run, write_figure, write_table

import mfgppl as mfg
from mfgppl.models import pricing
from mfgppl.plots.style import AMBER, DOT, INK

LAWS = {
    "causal": {"likelihood": "causal"},
    "energy": {"likelihood": "energy", "start": "marginal"},
    "energy given the start": {"likelihood": "energy", "start": "conditional"},
}
SEED = 1
CI_PROB = 0.9  # of all intervals, equal-tailed
PRIOR_COUNT = 0.5  # a next state, where the dynamics are estimated on half of the products
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "pricing_laws"
COLOURS = {"causal": INK, "energy": DOT, "energy given the start": AMBER}


class Size(NamedTuple):
    """How much of everything a run does.

    Attributes
    ----------
    rewards, laws : tuple of str
        What is fitted.
    draws : int
        Draws a chain, and tuning steps.
    """

    rewards: tuple[str, ...]
    laws: tuple[str, ...]
    draws: int


FULL = Size(tuple(pricing.REWARDS), tuple(LAWS), 1000)
QUICK = Size(("base", "herd"), ("causal", "energy"), 300)

# %% [markdown]
# ## Data
#
# The bundled panel: a state is a bin of the margin against the product's own median, 25 decisions
# a product and the state reached after the last. The dynamics are the pooled frequencies, the crowd
# is the panel's own flow, held fixed.

# %%


def game(panel: mfg.Trajectories, *, prior: float = 0.0) -> mfg.MeanFieldGame:
    """Return the pricing game with the dynamics and the start of a panel."""
    return pricing.game(panel).replace(
        # the other half may move as this one does not
        transition=panel.estimate_transition(prior_count=prior, support="all"),
        initial=panel.initial_distribution(prior_count=prior),
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


# %%
def fit(
    played: Any, reward: Any, panel: mfg.Trajectories, **options: Any
) -> mfg.results.PointEstimate:
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
# Each reward under each law: maximum likelihood and NUTS.


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

    points: dict[tuple[str, str], mfg.results.PointEstimate]
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
# ## Figures


# %%
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


# %% [markdown]
# ## Answer
#
# The tables and figures in `--out`; they are read in `docs/likelihoods.md`.


# %%
def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the analysis and write its tables and figures."""
    size, out = (QUICK if quick else FULL), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    panel = pricing.panel()
    fits = fit_all(panel, size)
    compared = comparison(fits)
    write_table(compared, out, "comparison", fixed(1))
    write_table(parts(panel, fits, size), out, "parts", fixed(1))
    if not quick:
        write_table(held_out(panel, size), out, "held_out", fixed(1))
    write_figure(draw_comparison(compared), out, "comparison")


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="fewer models, draws and worlds")
