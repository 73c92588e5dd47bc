"""Figures of a result, drawn by ArviZ and matplotlib from what the result holds."""

import base64
import io
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import arviz_plots
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from mfgppl.data.type_axis import stacked
from mfgppl.plots.plain_text import in_plain_text, plain_text
from mfgppl.plots.style import BAND, DOT, RULE

Drawing = tuple[str, Callable[[], Any]]


MOST_PARAMETERS = 12  # drawn in trace, rank and forest plots
MOST_PAIRS = 6


def as_image(figure: Figure) -> str:
    """Return a figure as a PNG data address and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def drawn(draw: Callable[[], Any]) -> str:
    """Draw a figure, by matplotlib or ArviZ, and return it as a PNG data address."""
    with warnings.catch_warnings(), plain_text():
        warnings.simplefilter("ignore")  # of plots that ArviZ thinks are many
        plot = draw()
        if isinstance(plot, Figure):
            return as_image(plot)
        figure = plot.viz["figure"].item()
        figure.set_layout_engine("tight")
        return as_image(figure)


def interval_drawings(table: pd.DataFrame, ci_prob: float) -> tuple[Drawing, ...]:
    """Return a forest of a point fit's estimates and intervals (the last two columns)."""
    shown = table[table.iloc[:, -1].notna()].iloc[:MOST_PARAMETERS]
    if shown.empty:
        return ()

    def draw() -> Figure:
        figure, axis = plt.subplots(figsize=(6.4, 0.9 + 0.36 * len(shown)))
        place = np.arange(len(shown))[::-1]
        axis.axvline(0.0, color=RULE, lw=1)
        axis.hlines(place, shown.iloc[:, -2], shown.iloc[:, -1], color=BAND, lw=6)
        axis.plot(shown["estimate"], place, "o", ms=5, color=DOT)
        axis.set_yticks(place, [str(k) for k in shown.index])
        axis.set_xlabel("estimate (reward units a unit of the feature)")
        axis.margins(y=0.12)
        figure.tight_layout()
        return figure

    return ((f"Estimates with {100 * ci_prob:g}% Wald intervals", draw),)


def posterior_drawings(draws: xr.DataTree, ci_prob: float) -> tuple[Drawing, ...]:
    """Return the figures of a posterior: forest and pairs."""
    few, pairs = _entries(draws, MOST_PARAMETERS), _entries(draws, MOST_PAIRS)
    drawings: list[Drawing] = [
        (
            f"Forest: posterior mean with equal-tailed {100 * ci_prob:g}% (and 50%) intervals",
            lambda: arviz_plots.plot_forest(
                few,
                ci_kind="eti",
                ci_probs=(min(0.5, ci_prob / 2), ci_prob),
                combined=True,
            ),
        )
    ]
    if len(pairs["posterior"].data_vars) > 1:
        drawings.append(
            (
                "Pairs: joint draws, a ridge shows parameters known only in combination",
                lambda: arviz_plots.plot_pair(pairs),
            )
        )
    return tuple(drawings)


def sampler_drawings(draws: xr.DataTree) -> tuple[Drawing, ...]:
    """Return the figures of a sampler: trace, rank, energy."""
    few = _entries(draws, MOST_PARAMETERS)
    return (
        (
            "Trace: draws in order, by chain",
            lambda: arviz_plots.plot_trace(few),
        ),
        (
            "Rank: flat within the band if chains agree",
            lambda: arviz_plots.plot_rank(few),
        ),
        (
            "Energy: the two curves overlap if the sampler moves well",
            lambda: arviz_plots.plot_energy(draws),
        ),
    )


def share_drawings(draws: xr.DataTree) -> tuple[Drawing, ...]:
    """Return the figures of predicted action shares that a result holds."""
    return (
        (
            "Shares of actions over time: observed (dots) and the 90% predictive band",
            lambda: predictive_by_time(draws),
        ),
        (
            "Shares of actions by state: observed (dots) and the 90% predictive interval",
            lambda: predictive_by_state(draws),
        ),
    )


def _entries(draws: xr.DataTree, most: int) -> xr.DataTree:
    """Return the first entries of the parameters, each a variable of its own, for the plots."""
    entries: dict[str, xr.DataArray] = {}
    posterior = draws["posterior"].to_dataset()
    for name in draws.attrs["parameters"]:
        values = posterior[name]
        if values.ndim == 2:
            entries[name] = values
            continue
        flat = values.values.reshape(*values.shape[:2], -1)
        known = [list(map(str, values[d].values)) for d in values.dims[2:]]
        for k, place in enumerate(itertools.product(*known)):
            label = ",".join(place)
            entries[f"{name}[{label}]"] = xr.DataArray(flat[..., k], dims=("chain", "draw"))
    first = dict(list(entries.items())[:most])
    coords = {k: posterior[k] for k in ("chain", "draw")}
    groups = {"posterior": xr.Dataset(first, coords)}
    if "sample_stats" in draws.children:
        groups["sample_stats"] = draws["sample_stats"].to_dataset()
    return xr.DataTree.from_dict(groups)


@in_plain_text
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


@in_plain_text
def predictive_by_state(draws: xr.DataTree) -> Figure:
    """Draw observed action shares by state against their 90% predictive interval."""
    observed = stacked(draws["observed_data"].dataset["share_by_state"])
    low, high = map(stacked, predictive_band(draws, "share_by_state"))
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
