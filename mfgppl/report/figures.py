"""Figures of a result, drawn by ArviZ and matplotlib from what the result holds."""

import base64
import io
import warnings
from collections.abc import Callable
from typing import Any

import arviz_plots
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

MOST_PARAMETERS = 12  # drawn in trace, rank and forest plots
MOST_PAIRS = 6
BAND, DOT = "#9db8d9", "#c2452d"


def as_image(figure: Figure) -> str:
    """Return a figure as a PNG data address and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def posterior_figures(draws: xr.DataTree, names: list[str]) -> list[tuple[str, str]]:
    """Return captioned images of the posterior: forest, trace, rank, pairs, energy."""
    few = names[:MOST_PARAMETERS]
    prob = 0.9
    draws = _without_single_dims(draws)
    plots: list[tuple[str, Callable[[], Any]]] = [
        (
            f"Forest: posterior mean with equal-tailed {100 * prob:.0f}% (and 50%) intervals",
            lambda: arviz_plots.plot_forest(
                draws, var_names=few, ci_kind="eti", ci_probs=(0.5, prob), combined=True
            ),
        ),
    ]
    is_sampled = "energy" in draws["sample_stats"].dataset  # and not drawn independently
    if is_sampled:
        plots += [
            (
                "Trace: draws in order, by chain",
                lambda: arviz_plots.plot_trace(draws, var_names=few),
            ),
            (
                "Rank: flat within the band if chains agree",
                lambda: arviz_plots.plot_rank(draws, var_names=few),
            ),
        ]
    if _n_values(draws, names) > 1:
        pairs = names[:MOST_PAIRS]
        plots.append(
            (
                "Pairs: joint draws, a ridge shows parameters known only in combination",
                lambda: arviz_plots.plot_pair(draws, var_names=pairs),
            )
        )
    if is_sampled:
        plots.append(
            (
                "Energy: the two curves overlap if the sampler moves well",
                lambda: arviz_plots.plot_energy(draws),
            )
        )
    figures = []
    for caption, plot in plots:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            figure = plot().viz["figure"].item()
            figure.set_layout_engine("tight")
            figures.append((caption, as_image(figure)))
    return figures


def _without_single_dims(draws: xr.DataTree) -> xr.DataTree:
    """Return what the plots need, without axes of length one, which pair plots refuse."""
    posterior = draws["posterior"].to_dataset()
    single = [d for d, n in posterior.sizes.items() if n == 1 and d not in ("chain", "draw")]
    return xr.DataTree.from_dict(
        {
            "posterior": posterior.squeeze(single, drop=True),
            "sample_stats": draws["sample_stats"].to_dataset(),
        }
    )


def _n_values(draws: xr.DataTree, names: list[str]) -> int:
    posterior = draws["posterior"].dataset
    return sum(int(np.prod(posterior[n].shape[2:], dtype=int)) for n in names)


def predictive_by_time(draws: xr.DataTree) -> Figure:
    """Draw observed action shares over time against their 90% predictive band."""
    observed = draws["observed_data"].dataset["share_by_time"]
    low, high = predictive_band(draws, "share_by_time")
    actions = observed["action"].to_numpy()
    columns = min(len(actions), 3)
    rows = -(-len(actions) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 2.6 * rows), sharex=True, squeeze=False
    )
    for axis, action in zip(axes.flat, actions, strict=False):
        at = {"action": action}
        time = observed["time"].to_numpy()
        axis.fill_between(time, low.sel(at), high.sel(at), color=BAND, lw=0)
        axis.plot(time, observed.sel(at), "o-", ms=3, lw=0.8, color=DOT)
        axis.set_title(str(action), fontsize=10)
        axis.set_xlabel("time")
    for axis in axes.flat[len(actions) :]:
        axis.set_visible(False)
    axes[0, 0].set_ylabel("share of actions")
    figure.tight_layout()
    return figure


def predictive_by_state(draws: xr.DataTree) -> Figure:
    """Draw observed action shares by state against their 90% predictive interval."""
    observed = draws["observed_data"].dataset["share_by_state"]
    low, high = predictive_band(draws, "share_by_state")
    actions, states = observed["action"].to_numpy(), observed["state"].to_numpy()
    figure, axes = plt.subplots(
        1, len(actions), figsize=(3.6 * len(actions), 2.8), sharey=True, squeeze=False
    )
    place = np.arange(len(states))
    for axis, action in zip(axes[0], actions, strict=True):
        at = {"action": action}
        axis.vlines(place, low.sel(at), high.sel(at), color=BAND, lw=8)
        axis.plot(place, observed.sel(at), "o", ms=4, color=DOT)
        axis.set_title(str(action), fontsize=10)
        if len(states) <= 12:
            axis.set_xticks(place, states, rotation=45 if len(str(states[0])) > 3 else 0)
        axis.set_xlabel("state")
    axes[0, 0].set_ylabel("share of actions")
    figure.tight_layout()
    return figure


def predictive_band(draws: xr.DataTree, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the 5% and 95% predictive quantiles of a share."""
    shares = draws["posterior_predictive"].dataset[name]
    quantiles = shares.quantile([0.05, 0.95], dim=["chain", "draw"])
    return quantiles.isel(quantile=0), quantiles.isel(quantile=1)
