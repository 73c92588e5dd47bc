# %% [markdown]
# # Does the crowd help to predict months that nobody has seen?
#
# **Question.** Where each month is free, a model of the supermarket says nothing of a month that
# was left out. Let the months' shocks be a population, whose spread is inferred: how well is a
# month predicted, does the crowd help, and what is left of its coefficient?
#
# Run `python analyses/pricing_months.py` (about ten minutes on one core) or, for a small
# version, `python analyses/pricing_months.py --quick`. A run that was stopped goes on where it was.

# %%
"""Months of the supermarket that were left out, with a population of months."""

import functools
import warnings
from pathlib import Path
from typing import Any

import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
from output import run, significant, write_table
from pricing_study import ACTIONS, LABELS, STEPS, Step, at, game, observed, program
from scipy.special import logsumexp
from steps import gain

import mfgppl as mfg

FOLDS, DRAWS, QUICK_DRAWS, SEED = 5, 500, 50, 1
ENDS, FREE, SLOPED = 2, 3, 4  # steps of the study
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "pricing_months"

# %% [markdown]
# ## Data and model
#
# The study's models of one kind, whose state is the margin. A month's shocks to cuts and to raises,
# and their slopes in the margin, are normal, each with a spread of its own. Months that are left
# out cut a product's trajectory in two; the flow stays that of all. A panel has no month without
# anybody: one product is seen in all of them, and is not scored.


# %%
def population(name: str) -> Any:
    """Return the law of months whose spread is inferred."""
    return dist.Normal(0.0, pyro.sample(f"spread_{name}", dist.HalfNormal(1.0)))


def model_of(step: Step, *, crowd: bool, panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the model of a panel along the flow of all products in all months."""
    flow = observed(("margin",)).mean_field()
    reward = program(step, crowd=crowd, law=population)
    return mfg.TrajectoryModel(game(step), reward, panel, mean_field=flow)


def without_months(left_out: np.ndarray) -> mfg.Trajectories:
    """Return the panel without the rows of some months, but those of the first product."""
    frame = mfg.datasets.supermarket_pricing()
    kept = ~frame["month"].isin(left_out) | (frame["product"] == frame["product"].iloc[0])
    return mfg.Trajectories.from_frame(
        frame[kept], agent="product", time="month", state="margin",
        action="action", state_labels={"margin": LABELS["margin"]}, action_labels=ACTIONS,
        gaps="split",
    )  # fmt: skip


# %% [markdown]
# ## Inference
#
# Draws of all parameters, of the whole panel for the crowd's coefficient and for products left out
# one at a time (PSIS-LOO), and of four fifths of the months for the other fifth. A decision of a
# month left out is predicted by the mean over draws of its probability; shocks of that month are
# drawn from their population.


# %%
def drawn(model: mfg.TrajectoryModel, n: int, *, log_likelihood: bool = False) -> Any:
    """Return posterior draws."""
    with warnings.catch_warnings():
        # constants of all bins have their prior, which is wide, and which chains cross slowly
        warnings.simplefilter("ignore")
        return mfg.nuts(
            model, draws=n, tune=n, random_seed=SEED, log_likelihood=log_likelihood,
            flow_bias=False, progressbar=False,
        )  # fmt: skip


def scores(step: Step, n: int, *, crowd: bool) -> np.ndarray:
    """Return the log probability of each decision (month, product), its month left out."""
    panel = observed(("margin",))
    times = np.arange(panel.horizon)
    states = panel.state.reshape(panel.n_trajectories, -1)[1:, :-1].T
    actions = panel.action.reshape(panel.n_trajectories, -1)[1:, :-1].T
    found = np.empty(states.shape)
    for fold in range(FOLDS):
        months = times[fold::FOLDS]
        model = model_of(step, crowd=crowd, panel=without_months(months))
        chances = mfg.policy(model, drawn(model, n)).stack(sample=("chain", "draw"))
        table = np.log(chances.transpose("sample", "time", "state", "action").values)
        for month in months:
            logs = table[:, month, states[month], actions[month]]
            found[month] = logsumexp(logs, axis=0) - np.log(len(logs))
    return found


# %% [markdown]
# ## Checks
#
# Failure would be chains that do not agree, or left-out months that a population of months predicts
# worse than no months do.


# %%
def rows_of(number: int, n: int) -> list[dict[str, Any]]:
    """Return the row of a step: the crowd's coefficient, and what the crowd adds to both scores."""
    step, months, products = STEPS[number], {}, {}
    row: dict[str, Any] = {"panel": number, "model": step.label}
    for crowd in (True, False):
        whole = model_of(step, crowd=crowd, panel=observed(("margin",)))
        draws = drawn(whole, n, log_likelihood=True)
        products[crowd] = mfg.loo(draws).elpd_i.values
        months[crowd] = scores(step, n, crowd=crowd)
        if crowd:
            posterior = draws["posterior"].dataset
            row["crowd"] = float(posterior["crowd"].mean())
            row["posterior s.d."] = float(posterior["crowd"].std())
            row["R-hat"] = float(arviz_stats.rhat(posterior["crowd"]).max())
    of_each = observed(("margin",)).horizon
    row |= {"LOO": products[True].mean() / of_each} | crowd_adds(products, "LOO")
    row |= {"months": months[True].mean()}
    return [row | crowd_adds({crowd: m.sum(1) for crowd, m in months.items()}, "months")]


def crowd_adds(found: dict[bool, np.ndarray], of: str) -> dict[str, float]:
    """Return what the crowd adds to a score in total, with its standard error."""
    total, error = gain(found[True], found[False])
    return {f"{of}, crowd adds": total, f"{of}, s.e.": error}


# %% [markdown]
# ## Answer


# %%
def main(quick: bool, out: Path) -> None:
    """Score what was left out, and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    numbers, n = ((ENDS,), QUICK_DRAWS) if quick else ((ENDS, FREE, SLOPED), DRAWS)
    found = at(numbers, functools.partial(rows_of, n=n), out / "months_found.csv")
    write_table(found.drop(columns="panel"), out, "months", significant(4), csv=False)


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="no shocks of months, few draws")
