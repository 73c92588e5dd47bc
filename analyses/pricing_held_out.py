# %% [markdown]
# # Which model predicts the products that it has not seen?
#
# **Question.** The steps of `pricing_study.py` are fitted to all 534 products. How well does each
# predict products that were left out, does the crowd help, and what is left of its coefficient
# where no product makes up the flow that it meets?
#
# Run `python analyses/pricing_held_out.py` or, for a small version,
# `python analyses/pricing_held_out.py --quick`. A run that was stopped goes on where it was.

# %%
"""Products of the supermarket that were left out, step by step."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from output import fixed, run, write_table
from pricing_study import FINAL, HERD, STEPS, at, model_of, observed
from steps import crowd_of, fit, gain

import mfgppl as mfg

FOLDS, SEED = 5, 1
SCORE = {"log score": 3}  # decimals
ENDS, FREE, SLOPED = 2, 3, 4  # steps of the study, beside its first and last
PRODUCTS = (HERD, ENDS, FREE, SLOPED, FINAL)
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
        scores = mfg.checks.kfold(
            model, method, folds=FOLDS, mean_field="empirical", random_seed=SEED,
            progressbar=False,
        )  # fmt: skip
        kept[crowd] = scores.elpd_i.to_series().rename("score")
    return [{"panel": number, "model": STEPS[number].label} | compared(kept)]


def start_of(number: int, crowd: bool) -> Any:
    """Return where a fit begins: the last step's at the estimates that the study has written."""
    if number != FINAL:
        return None
    found = pd.read_csv(STUDY / f"params_{FINAL}.csv", index_col=0)["value"]
    return found if crowd else found[[name for name in found.index if not is_crowd(name)]]


def is_crowd(name: str) -> bool:
    """Return whether a parameter is a worth of company."""
    return name.startswith("crowd")


def compared(scores: dict[bool, Any]) -> dict[str, float]:
    """Return the score per decision, and what the crowd adds in total, with its error."""
    total, error = gain(scores[True], scores[False])
    n = observed(("margin",)).n_decisions
    return {"log score": float(np.sum(scores[True])) / n, "crowd adds": total, "s.e.": error}


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
# ## Answer


# %%
def main(quick: bool, out: Path) -> None:
    """Score what was left out, and write both tables."""
    out.mkdir(parents=True, exist_ok=True)
    chosen = PRODUCTS[:1] if quick else PRODUCTS
    for name, rows_of in (("products", products), ("crossed", crossed)):
        found = at(chosen, rows_of, out / f"{name}_found.csv")
        write_table(found.drop(columns="panel"), out, name, fixed(1), digits=SCORE, csv=False)


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="the first step alone")
