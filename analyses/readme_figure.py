"""The figure of the README: the supermarket's reward and what it predicts."""

# %% [markdown]
# ## Question
# What does the fitted pricing model say at one glance?

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from output import run

import mfgppl as mfg
from mfgppl.models import pricing
from mfgppl.plots.style import BAND, DOT, INK

MEANING = {
    "cut": "cutting the price",
    "raise": "raising the price",
    "level": "margin (per 0.1)",
    "level2": "distance from own median",
    "gap2": "distance from the crowd",
}

# %% [markdown]
# ## Data, model and inference
# The bundled panel, the reward `both` of the gallery's file, four chains.


# %%
def main(quick: bool, out: Path) -> None:
    """Fit and draw; with `quick` on fewer draws."""
    out.mkdir(parents=True, exist_ok=True)
    n = 400 if quick else 1000
    draws = mfg.nuts(pricing.model(), draws=n, tune=n, random_seed=1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(1, 1.15))
    draw_intervals(left, draws)
    draw_prediction(right, draws, "lower")
    figure.tight_layout()
    figure.savefig(out / "readme.png", dpi=110)
    plt.close(figure)


def draw_intervals(axis: Axes, draws: xr.DataTree) -> None:
    """Draw 50% and 90% equal-tailed intervals of each weight."""
    posterior = draws["posterior"].dataset
    for row, name in enumerate(MEANING):
        low, first, mid, third, high = posterior[name].quantile([0.05, 0.25, 0.5, 0.75, 0.95])
        axis.plot([low, high], [row, row], color=BAND, lw=3)
        axis.plot([first, third], [row, row], color=INK, lw=5)
        axis.plot(mid, row, "o", color="white", ms=3)
    axis.axvline(0.0, color="0.6", lw=0.8)
    axis.set_yticks(range(len(MEANING)), list(MEANING.values()))
    axis.invert_yaxis()
    axis.set_xlabel("reward weight (nats)")
    axis.set_title("What products are after", fontsize=11)


def draw_prediction(axis: Axes, draws: xr.DataTree, action: str) -> None:
    """Draw observed shares of an action over time against the 90% predictive band."""
    observed = draws["observed_data"].dataset["share_by_time"].sel(action=action)
    predicted = draws["posterior_predictive"].dataset["share_by_time"].sel(action=action)
    low, high = (predicted.quantile(q, dim=["chain", "draw"]) for q in (0.05, 0.95))
    axis.fill_between(observed["time"], low, high, color=BAND, lw=0, label="predicted (90%)")
    axis.plot(observed["time"], observed, "o-", color=DOT, ms=3, lw=0.8, label="observed")
    axis.set_xlabel("month")
    axis.set_ylabel("share of products")
    axis.set_title("Price cuts", fontsize=11)
    axis.legend(frameon=False, fontsize=9)


# %% [markdown]
# ## Checks
# `nuts` warns if the chains disagree. Dots outside the band in more than one month of ten show
# that something moves all products which the model leaves out.

# %% [markdown]
# ## Answer
# The figure.

# %%
if __name__ == "__main__":
    run(main, __doc__, Path("docs/_static"), quick="a small version")
