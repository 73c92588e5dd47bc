"""Figures of a counterfactual: the crowd in both worlds, and what changes."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mfgppl._arguments import is_a, positive_int, real_between, strict_keywords
from mfgppl.counterfactuals.record import Counterfactual
from mfgppl.data.type_axis import stacked
from mfgppl.plots.plain_text import in_plain_text
from mfgppl.plots.style import DOT, GREY, INK
from mfgppl.posterior.fit_values import CI_PROB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"baseline": INK, "changed": DOT, "difference": INK}
COLUMNS = 3  # of small multiples


@strict_keywords
@in_plain_text
def plot_counterfactual(
    counterfactual: Counterfactual, *, states: int = 6, ci_prob: float = CI_PROB
) -> "Figure":
    """Draw the crowd's flow in both worlds, in the states most visited.

    Parameters
    ----------
    counterfactual : Counterfactual
        As of `counterfactual`.
    states : int
        How many states to draw.
    ci_prob : float in (0, 1)
        Mass of the equal-tailed bands.

    Returns
    -------
    Figure
        Mean and band over draws, one panel per state; in a stationary game one panel of all states.
    """
    return _flows(counterfactual, ["baseline", "changed"], states, ci_prob, "share of the crowd")


@strict_keywords
@in_plain_text
def plot_counterfactual_difference(
    counterfactual: Counterfactual, *, states: int = 6, ci_prob: float = CI_PROB
) -> "Figure":
    """Draw by how much the crowd's flow differs between the worlds, draw by draw.

    Parameters
    ----------
    counterfactual, states, ci_prob
        As in `plot_counterfactual`.

    Returns
    -------
    Figure
        Mean and band of the paired difference, changed less baseline, one panel per state.
    """
    return _flows(
        counterfactual, ["difference"], states, ci_prob, "change of the share of the crowd"
    )


@strict_keywords
@in_plain_text
def plot_counterfactual_statistics(
    counterfactual: Counterfactual, *, ci_prob: float = CI_PROB
) -> "Figure":
    """Draw means and intervals of the scalar statistics, a row each.

    Parameters
    ----------
    counterfactual, ci_prob
        As in `plot_counterfactual`.

    Returns
    -------
    Figure
        Both worlds on the left, their paired difference on the right, each row on its own scale.
    """
    import matplotlib.pyplot as plt  # slow to import
    from matplotlib.ticker import MaxNLocator

    bands = _bands(counterfactual, ci_prob)
    names = list(counterfactual.table.index.get_level_values("statistic").unique())
    figure, axes = plt.subplots(
        len(names), 2, figsize=(7.6, 0.9 + 0.85 * len(names)), squeeze=False, layout="constrained"
    )
    for row, name in zip(axes, names, strict=True):
        for axis, worlds in zip(row, (["changed", "baseline"], ["difference"]), strict=True):
            for place, world in enumerate(worlds):
                _interval(axis, bands[name].sel(world=world), place, COLOURS[world])
            axis.set_yticks(range(len(worlds)), worlds, fontsize=8)
            axis.set_ylim(-0.6, len(worlds) - 0.4)
            axis.tick_params(axis="x", labelsize=8)
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.margins(x=0.15)
            axis.set_title(name.replace("_", " "), fontsize=9, loc="left")
        row[1].axvline(0.0, color=GREY, lw=0.6)
    figure.suptitle(_heading(counterfactual, ci_prob), fontsize=9, color=GREY)
    return figure


def _flows(
    counterfactual: Counterfactual, worlds: list[str], states: int, ci_prob: float, label: str
) -> "Figure":
    import matplotlib.pyplot as plt  # slow to import

    bands = stacked(_bands(counterfactual, ci_prob)["flow"])
    positive_int("states", states)
    visits = bands.sel(world=["baseline", "changed"], band="mean").sum(["world", "time"]).values
    kept = np.sort(np.argsort(-visits, kind="stable")[:states])
    alone = bands.sizes["time"] == 1
    n = 1 if alone else len(kept)
    columns = min(n, COLUMNS)
    rows = -(-n // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(max(2.9 * columns, 5.0), 2.2 * rows + 0.9),
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for axis in axes.flat[n:]:
        axis.set_visible(False)
    if alone:
        _by_state(axes[0, 0], bands.isel(time=0, state=kept), worlds)
    else:
        for axis, state in zip(axes.flat, kept, strict=False):
            _over_time(axis, bands.isel(state=state), worlds)
    if worlds == ["difference"]:
        for axis in axes.flat[:n]:
            axis.axhline(0.0, color=GREY, lw=0.6)
    figure.supxlabel("state" if alone else "time", fontsize=10)
    figure.supylabel(label, fontsize=10)
    figure.suptitle(_heading(counterfactual, ci_prob), fontsize=9, color=GREY)
    if len(worlds) > 1:
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower right", ncols=2, frameon=False, fontsize=9)
    return figure


def _over_time(axis: "Axes", bands: xr.DataArray, worlds: list[str]) -> None:
    from matplotlib.ticker import MaxNLocator  # slow to import

    time = bands["time"].values
    for world in worlds:
        mean, lower, upper = (bands.sel(world=world, band=b) for b in ("mean", "lower", "upper"))
        axis.fill_between(time, lower, upper, color=COLOURS[world], alpha=0.3, lw=0)
        axis.plot(time, mean, color=COLOURS[world], lw=1.2, label=world)
    axis.set_title(str(bands["state"].values), fontsize=10)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _by_state(axis: "Axes", bands: xr.DataArray, worlds: list[str]) -> None:
    place = np.arange(bands.sizes["state"])
    for k, world in enumerate(worlds):
        mean, lower, upper = (bands.sel(world=world, band=b) for b in ("mean", "lower", "upper"))
        at = place + 0.2 * (k - 0.5 * (len(worlds) - 1))
        axis.vlines(at, lower, upper, color=COLOURS[world], alpha=0.4, lw=5)
        axis.plot(at, mean, "o", ms=4, color=COLOURS[world], label=world)
    names = [str(s) for s in bands["state"].values]
    turned = max(map(len, names)) > 3
    axis.set_xticks(place, names, rotation=45 if turned else 0, fontsize=8)


def _interval(axis: "Axes", band: xr.DataArray, place: int, colour: str) -> None:
    mean, lower, upper = (float(band.sel(band=b)) for b in ("mean", "lower", "upper"))
    axis.hlines(place, lower, upper, color=colour, alpha=0.4, lw=5)
    axis.plot(mean, place, "o", ms=5, color=colour)


def _bands(counterfactual: Any, ci_prob: float) -> xr.Dataset:
    is_a("counterfactual", counterfactual, Counterfactual, " Make it with counterfactual.")
    real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
    if counterfactual.n_failed == len(counterfactual.status):
        raise ValueError(
            "`counterfactual` has no draw with both equilibria; there is nothing to draw."
        )
    return counterfactual.bands(ci_prob)


def _heading(counterfactual: Counterfactual, ci_prob: float) -> str:
    n = len(counterfactual.status) - counterfactual.n_failed
    return f"mean and equal-tailed {100 * ci_prob:g}% band over {n} draws; changed: " + (
        ", ".join(counterfactual.changes) or "nothing"
    )
