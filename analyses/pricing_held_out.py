# %% [markdown]
# # Which model predicts the products and the months that it has not seen?
#
# **Question.** The steps of `pricing_study.py` are fitted to all 534 products and 25 months. How
# well does each predict products that were left out, and months, whose shocks nobody knows? Does
# the crowd help?
#
# Run `python analyses/pricing_held_out.py` or, for a small version,
# `python analyses/pricing_held_out.py --quick`. A run that was stopped goes on where it was.

# %%
"""Held-out products and held-out months of the supermarket, step by step."""

import dataclasses
import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
from output import fixed, run, write_table
from pricing_study import FINAL, HERD, STEPS, at, coordinates, game, model_of, observed, program
from scipy.special import logsumexp
from steps import crowd_of, fit

import mfgppl as mfg

FOLDS, DRAWS, SEED = 5, 50, 1
ENDS, FREE, SLOPED = 2, 3, 4  # steps of the study, beside its first and last
PRODUCTS = (HERD, ENDS, FREE, SLOPED, FINAL)
MONTHS = (ENDS, FREE, SLOPED)
ROUNDS = 4  # of the search for the scales of months
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
OUT, STUDY = RESULTS / "pricing_held_out", RESULTS / "pricing_study"

# %% [markdown]
# ## Products
#
# Each fifth of the products is scored by a fit of the rest along the flow of the rest, so that no
# product explains itself.


# %%
def products(number: int) -> list[dict[str, Any]]:
    """Return how well a step predicts products left out, with and without the crowd."""
    kept = {}
    for crowd in (True, False):
        model = model_of(STEPS[number], crowd=crowd)
        method = functools.partial(fit, init=start_of(number, crowd))
        scores = mfg.kfold(
            model, method, folds=FOLDS, mean_field="empirical", random_seed=SEED,
            progressbar=False,
        )  # fmt: skip
        kept[crowd] = scores.elpd_i.to_series().rename("score")
    return [{"panel": number, "model": STEPS[number].label} | compared(kept, "crowd adds")]


def start_of(number: int, crowd: bool) -> Any:
    """Return where a fit begins: the last step's at the estimates that the study has written."""
    if number != FINAL:
        return None
    found = pd.read_csv(STUDY / f"params_{FINAL}.csv", index_col=0)["value"]
    return found if crowd else found[[name for name in found.index if not is_crowd(name)]]


def is_crowd(name: str) -> bool:
    """Return whether a parameter is a worth of company."""
    return name.startswith("crowd")


def compared(scores: dict[bool, Any], name: str) -> dict[str, float]:
    """Return the score per decision, and what the crowd adds in total, with its error."""
    gain = np.asarray(scores[True]) - np.asarray(scores[False])
    n = observed(("margin",)).n_decisions
    return {
        "log score": float(np.sum(scores[True])) / n, name: float(gain.sum()),
        "s.e.": float(np.sqrt(gain.size * gain.var(ddof=1))),
    }  # fmt: skip


# %% [markdown]
# ## The crowd by treatment of its flow
#
# The observed flow is made of the choices to be explained. Cross-fitted, each fifth of the products
# meets the flow of the rest. A model without the crowd has one log likelihood whatever the flow.


# %%
def crossed(number: int) -> list[dict[str, Any]]:
    """Return the crowd's coefficient and ratio of a step along the flow of the rest.

    Those along the observed flow are the study's.
    """
    study = pd.read_csv(STUDY / "steps_found.csv").set_index("panel").loc[number]
    found = mfg.flows.cross_fit(
        model_of(STEPS[number]), folds=FOLDS, random_seed=SEED, init=start_of(number, True),
        progressbar=False,
    )  # fmt: skip
    worth, error = crowd_of(found)
    null = study["log likelihood"] - study["ratio"] / 2
    head = {"panel": number, "model": STEPS[number].label}
    names = ["crowd", "clustered s.e.", "ratio"]
    return [
        head | {"flow": "observed"} | study[names].to_dict(),
        head | {"flow": "of the rest"}
        | dict(zip(names, (worth, error, 2 * (found.llf - null)), strict=True)),
    ]  # fmt: skip


# %% [markdown]
# ## Months
#
# A month that nobody has seen has shocks from the law of the others: normal, with a scale for each
# of cuts, raises and their slopes. Scales are those at which the marginal likelihood of the whole
# panel is largest, by an EM search with normal approximations. Every fifth month is left out, and
# each of its decisions predicted by draws from the normal approximation of the rest, in which the
# shocks of a month left out vary as their prior does.


# %%
def hierarchical(step: Any, crowd: bool, scales: dict[str, float], panel: Any) -> Any:
    """Return a step's model whose months are drawn from normal laws."""
    priors = {name: dist.Normal(0.0, scale) for name, scale in scales.items()}
    flow = observed(tuple(coordinates(step))).mean_field()
    return mfg.TrajectoryModel(
        game(step), program(step, crowd=crowd, months=priors), panel, mean_field=flow
    )


def drawn(model: mfg.TrajectoryModel, start: Any) -> tuple[Any, Any]:
    """Return draws about the mode, and the mode."""
    quiet = {"flow_bias": False, "progressbar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant of all bins has its prior: a column of steps
        mode = mfg.map_estimate(model, space="unconstrained", init=start, svi_steps=0, **quiet)
        draws = mfg.laplace(
            model, draws=DRAWS, init=mode, random_seed=SEED, log_likelihood=False, **quiet
        )
    return draws["posterior"].dataset.isel(chain=0), mode


def scales_of(step: Any, crowd: bool) -> tuple[dict[str, float], Any]:
    """Return the scales of the months' shocks, and the mode at these."""
    names = ["cuts", "lifts", *["cuts_slope", "lifts_slope"] * step.slope] * step.months
    scales, mode = dict.fromkeys(names, 0.5), None
    for _ in range(ROUNDS if names else 1):
        draws, mode = drawn(hierarchical(step, crowd, scales, observed_of(step)), mode)
        scales = {name: float(np.sqrt((draws[name] ** 2).mean())) for name in names}
    return scales, mode


def observed_of(step: Any) -> mfg.Trajectories:
    """Return the panel of a step."""
    return observed(tuple(coordinates(step)))


def seen_in(panel: mfg.Trajectories, kept: np.ndarray) -> mfg.Trajectories:
    """Return a panel with the decisions of some months alone."""
    return dataclasses.replace(panel, action=np.where(kept[panel.time], panel.action, -1))


def scores_of_months(step: Any, crowd: bool, scales: dict[str, float], start: Any) -> np.ndarray:
    """Return log probabilities of decisions (months, products) in months that were left out."""
    panel = observed_of(step)
    found = np.empty((panel.horizon, panel.n_trajectories))
    for fold in range(FOLDS):
        kept = np.arange(panel.horizon + 1) % FOLDS != fold
        draws, _ = drawn(hierarchical(step, crowd, scales, seen_in(panel, kept)), start)
        before = logs_of(step, crowd, scales, seen_in(panel, kept), draws)
        for month in range(fold, panel.horizon, FOLDS):
            also = kept | (np.arange(panel.horizon + 1) == month)
            after = logs_of(step, crowd, scales, seen_in(panel, also), draws)
            found[month] = logsumexp(after - before, axis=0) - np.log(DRAWS)
    return found


def logs_of(step: Any, crowd: bool, scales: Any, panel: Any, draws: Any) -> np.ndarray:
    """Return the log likelihood (draws, products) of a panel's decisions."""
    model = hierarchical(step, crowd, scales, panel)
    values = [
        {name: draws[name].isel(draw=k).values for name in draws.data_vars}
        for k in range(draws.sizes["draw"])
    ]
    return np.stack([mfg.log_likelihood(model, value).values for value in values])


def months(number: int) -> list[dict[str, Any]]:
    """Return how well a step with hierarchical months predicts months left out."""
    step, kept, row = STEPS[number], {}, {"panel": number, "model": STEPS[number].label}
    for crowd in (True, False):
        scales, mode = scales_of(step, crowd)
        kept[crowd] = scores_of_months(step, crowd, scales, mode).sum(1)
        if crowd:
            names = list(filter(is_crowd, mode.params.index))
            row |= {f"scale of {k}": v for k, v in scales.items()}
            row |= {
                "crowd": float(mode.params[names].mean()),
                "posterior s.d.": float(mode.bse[names].mean()),
            }
    return [row | compared(kept, "crowd adds")]


# %% [markdown]
# ## Answer


# %%
def main(quick: bool, out: Path) -> None:
    """Score what was left out, and write both tables."""
    out.mkdir(parents=True, exist_ok=True)
    asked = {
        "products": (products, PRODUCTS), "crossed": (crossed, PRODUCTS), "months": (months, MONTHS),
    }  # fmt: skip
    for name, (rows_of, numbers) in asked.items():
        chosen = numbers[:1] if quick else numbers
        found = at(chosen, rows_of, out / f"{name}_found.csv")
        write_table(found.drop(columns="panel"), out, name, fixed(3), csv=False)


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="the first step of each alone")
