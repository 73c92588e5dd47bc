"""Figures as images, and those of the predictions that a result holds."""

import base64
import io
import warnings
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from mfgppl.data.type_axis import stacked
from mfgppl.plots.plain_text import in_plain_text, plain_text
from mfgppl.plots.style import BAND, DOT

Drawing = tuple[str, Callable[[], Figure]]
DPI = 110


def as_image(figure: Figure) -> str:
    """Return a figure, which has a layout engine, as a PNG data address and close it."""
    figure.set_dpi(DPI)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")  # with one, savefig draws everything twice
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def drawn(draw: Callable[[], Figure]) -> str:
    """Draw a figure and return it as a PNG data address."""
    with warnings.catch_warnings(), plain_text():
        warnings.simplefilter("ignore")  # of labels without a glyph
        figure = draw()
        if figure.get_layout_engine() is None:
            figure.set_layout_engine("constrained")
        return as_image(figure)


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


@in_plain_text
def predictive_by_time(draws: xr.DataTree) -> Figure:
    """Draw observed action shares over time against their 90% predictive band."""
    observed = draws["observed_data"].dataset["share_by_time"]
    low, high = predictive_band(draws, "share_by_time")
    actions = observed["action"].to_numpy()
    columns = min(len(actions), 3)
    rows = -(-len(actions) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.6 * columns, 2.6 * rows),
        sharex=True,
        squeeze=False,
        layout="constrained",
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
    return figure


@in_plain_text
def predictive_by_state(draws: xr.DataTree) -> Figure:
    """Draw observed action shares by state against their 90% predictive interval."""
    observed = stacked(draws["observed_data"].dataset["share_by_state"])
    low, high = map(stacked, predictive_band(draws, "share_by_state"))
    actions, states = observed["action"].to_numpy(), observed["state"].to_numpy()
    figure, axes = plt.subplots(
        1,
        len(actions),
        figsize=(3.6 * len(actions), 2.8),
        sharey=True,
        squeeze=False,
        layout="constrained",
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
    return figure


def predictive_band(draws: xr.DataTree, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the 5% and 95% predictive quantiles of a share."""
    shares = draws["posterior_predictive"].dataset[name]
    quantiles = shares.quantile([0.05, 0.95], dim=["chain", "draw"])
    return quantiles.isel(quantile=0), quantiles.isel(quantile=1)
