"""Figures of model checks: what was observed against what the fitted model expects."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mfgppl._arguments import is_a, positive_int, strict_keywords
from mfgppl.checks.distance_from_equilibrium import MEASURES, ObservedExploitability
from mfgppl.checks.predictive import PredictiveCheck
from mfgppl.checks.runaway_crowds import Runaway
from mfgppl.checks.standardised_residuals import Residuals
from mfgppl.data.type_axis import stacked
from mfgppl.plots.plain_text import in_plain_text
from mfgppl.plots.style import BAND, DOT, GREY, INK, PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3  # of small multiples
LARGEST_RESIDUAL = 4.0  # where the colours end
MOST_LABELS = 24  # states named along an axis
BINS = 50  # of total variation and of shares


@strict_keywords
@in_plain_text
def plot_flow_check(check: PredictiveCheck, *, states: int = 6) -> "Figure":
    """Draw the observed flow against its predictive band, by state.

    Parameters
    ----------
    check : PredictiveCheck
        The check.
    states : int
        How many states to draw at most: of those visited, the ones that deviate most.

    Returns
    -------
    Figure
        Of matplotlib, one panel per state.
    """
    is_a("check", check, PredictiveCheck)
    flow = check.arrays["flow"]
    time = flow["time"].values
    shown, note = _most_deviating(check, "flow", states)
    if len(time) == 1:
        return _flow_by_state(flow.isel(time=0, state=shown), note)
    figure, axes = _grid(len(shown), sharey=False)
    for axis, place in zip(axes, shown, strict=True):
        here = flow.isel(state=place)
        axis.fill_between(time, here["lower"], here["upper"], color=BAND, lw=0)
        axis.plot(time, here["observed"], "o-", ms=3, lw=0.8, color=DOT)
        axis.set_title(_title(check, here["state"].item()), fontsize=10)
        axis.set_ylim(bottom=0.0)
        axis.locator_params(axis="y", nbins=3)
        _whole_ticks(axis)
    _outer_labels(figure, axes, "time", "share of agents")
    _name_marks(figure, note)
    return figure


@strict_keywords
@in_plain_text
def plot_choice_check(check: PredictiveCheck, *, states: int = 16) -> "Figure":
    """Draw shares of actions by state against their predictive band, one panel per action.

    Parameters
    ----------
    check : PredictiveCheck
        The check.
    states : int
        How many states to draw at most: of those visited, the ones that deviate most.

    Returns
    -------
    Figure
        Of matplotlib.
    """
    is_a("check", check, PredictiveCheck)
    shown, note = _most_deviating(check, "choice_by_state", states)
    choice = check.arrays["choice_by_state"].isel(state=shown)
    actions = choice["action"].values
    figure, axes = _grid(len(actions), sharey=True)
    for axis, action in zip(axes, actions, strict=True):
        _band_by_state(axis, choice.sel(action=action))
        axis.set_title(str(action), fontsize=10)
    _outer_labels(figure, axes, check.coordinate, "share of actions")
    _name_marks(figure, note)
    return figure


@strict_keywords
@in_plain_text
def plot_statistics(check: PredictiveCheck) -> "Figure":
    """Draw each scalar statistic against its predictive band, in half-widths of the band.

    Parameters
    ----------
    check : PredictiveCheck
        The check.

    Returns
    -------
    Figure
        Of matplotlib, one row per statistic.
    """
    import matplotlib.pyplot as plt  # slow to import

    is_a("check", check, PredictiveCheck)
    table = check.table[check.table["observed"].notna()]
    half = 0.5 * (table["upper"] - table["lower"])
    scale = half.where(half > 0, 1.0)
    low, high, dot = ((table[k] - table["mean"]) / scale for k in ("lower", "upper", "observed"))
    height = 1.2 + 0.42 * len(table)
    figure, axis = plt.subplots(figsize=(6.4, height), layout="constrained")
    place = np.arange(len(table))[::-1]
    axis.hlines(place, low, high, color=BAND, lw=9)
    axis.plot(dot, place, "o", ms=5, color=DOT)
    for y, p in zip(place, table["p"], strict=True):
        axis.annotate(f"p = {p:.2g}", (1.02, y), xycoords=("axes fraction", "data"), va="center",
                      fontsize=9, color=GREY)  # fmt: skip
    axis.set_yticks(place, [str(v) for v in table.index])
    axis.set_ylim(-0.7, len(table) - 0.3)
    axis.margins(x=0.08)
    axis.axvline(0.0, color=GREY, lw=0.6)
    axis.set_xlabel("observed less predicted, in half-widths of the 90% band")
    _remove_frame(axis)
    _name_marks(figure)
    return figure


@strict_keywords
@in_plain_text
def plot_residuals(residuals: Residuals, *, states: int = 40) -> "Figure":
    """Draw standardised residuals by state and time, one panel per action.

    Parameters
    ----------
    residuals : Residuals
        The residuals.
    states : int
        How many states to draw, the most visited.

    Returns
    -------
    Figure
        Of matplotlib; grey where there is no residual.
    """
    from matplotlib.colors import LinearSegmentedColormap  # slow to import

    is_a("residuals", residuals, Residuals)
    visits = residuals.by_state["visits"].to_numpy()
    most = np.sort(np.argsort(-visits, kind="stable")[: positive_int("states", states)])
    cells = stacked(residuals.cells["residual"]).isel(state=most)
    actions, names, time = (cells[k].values for k in ("action", "state", "time"))
    colours = LinearSegmentedColormap.from_list("residual", [INK, "white", DOT])
    colours.set_bad(PAPER)
    figure, axes = _grid(len(actions), sharey=True, height=1.1 + 0.16 * max(len(names), 8))
    for axis, action in zip(axes, actions, strict=True):
        table = cells.sel(action=action).transpose("state", "time").values
        drawn = axis.imshow(
            np.ma.masked_invalid(table), aspect="auto", cmap=colours, interpolation="nearest",
            vmin=-LARGEST_RESIDUAL, vmax=LARGEST_RESIDUAL,
            extent=(time[0] - 0.5, time[-1] + 0.5, len(names) - 0.5, -0.5),
        )  # fmt: skip
        axis.set_title(str(action), fontsize=10)
        _state_ticks(axis.yaxis, names)
        _whole_ticks(axis)
    figure.colorbar(
        drawn, ax=list(axes), label="standardised residual", extend="both", fraction=0.04, pad=0.02
    )
    _outer_labels(figure, axes, "time", "state")
    return figure


@strict_keywords
@in_plain_text
def plot_exploitability(result: ObservedExploitability) -> "Figure":
    """Draw how far the crowd is from equilibrium, beside panels that play one.

    Parameters
    ----------
    result : ObservedExploitability
        The result.

    Returns
    -------
    Figure
        Of matplotlib, one panel per measure: mean and equal-tailed 90 % interval.
    """
    is_a("result", result, ObservedExploitability)
    table = result.table
    figure, axes = _grid(len(table), sharey=False, height=1.9)
    for axis, (name, row) in zip(axes, table.iterrows(), strict=True):
        unit = "share of agents" if name == MEASURES["distance"] else "reward units"
        pairs = [("observed", "", DOT), ("reference", "reference_", INK)]
        for y, (middle, prefix, colour) in enumerate(reversed(pairs)):
            axis.hlines(y, row[f"{prefix}lower"], row[f"{prefix}upper"], color=colour, lw=2)
            axis.plot(row[middle], y, "o", ms=6, color=colour)
        words = ["in equilibrium", "observed"]
        axis.set_yticks([0, 1], words if axis is axes[0] else ["", ""])
        axis.set_ylim(-0.6, 1.6)
        axis.margins(x=0.12)
        axis.set_title(f"{name}\np = {row['p']:.2g}", fontsize=10)
        axis.set_xlabel(unit)
        axis.locator_params(axis="x", nbins=4)
    return figure


@strict_keywords
@in_plain_text
def plot_runaway(result: Runaway) -> "Figure":
    """Draw how far the equilibria of the fitted game lie from the observed flow, draw by draw.

    Parameters
    ----------
    result : Runaway
        As of `runaway`.

    Returns
    -------
    Figure
        Of matplotlib: the total variation, with the bound beyond which a draw runs away and what
        sampling alone gives; and the largest share of one state, with the observed one.
    """
    is_a("result", result, Runaway, " Make it with runaway.")
    figure, axes = _grid(2, sharey=True)
    table = result.table
    solved = table[table["converged"]]
    marks = [("sampling alone", result.chance, GREY, ":"), ("runs away", result.beyond, DOT, "--")]
    for axis, name, lines in (
        (axes[0], "distance", marks),
        (axes[1], "largest", [("observed", result.largest, DOT, "-")]),
    ):
        axis.hist(solved[name], BINS, range=(0.0, 1.0), color=BAND)
        for label, place, colour, style in lines:
            axis.axvline(place, color=colour, ls=style, lw=1.6, label=label)
        axis.legend(frameon=False, fontsize=8, loc="upper right")
        axis.set_xlim(0.0, 1.0)
        _remove_frame(axis)
    axes[0].set_xlabel("total variation from the observed flow")
    axes[1].set_xlabel("largest share of one state")
    axes[0].set_ylabel("draws")
    figure.suptitle(
        f"{len(table)} draws, {result.n_failed} without an equilibrium; runs away with probability "
        f"{result.probability:.2g}",
        fontsize=9,
        color=GREY,
    )
    return figure


def _grid(n: int, *, sharey: bool, height: float = 2.4) -> tuple["Figure", list[Any]]:
    """Return a figure of small multiples and its n axes."""
    import matplotlib.pyplot as plt  # slow to import

    columns = min(n, COLUMNS)
    rows = -(-n // columns)
    size = max(3.3 * columns, 5.2), height * rows  # room for the names of the marks
    figure, axes = plt.subplots(
        rows, columns, figsize=size, sharey=sharey, squeeze=False, layout="constrained"
    )
    for axis in axes.flat[n:]:
        axis.set_visible(False)
    shown = list(axes.flat[:n])
    for axis in shown:
        _remove_frame(axis)
    return figure, shown


def _name_marks(figure: "Figure", note: str = "") -> None:
    """Say what dots and bands are, below a note on what is drawn."""
    from matplotlib.lines import Line2D  # slow to import
    from matplotlib.patches import Patch

    marks = [
        Line2D([], [], color=DOT, marker="o", ms=4, lw=0, label="observed"),
        Patch(color=BAND, label="equal-tailed 90% band of the fitted model"),
    ]
    figure.legend(
        handles=marks, loc="outside upper left", ncols=2, frameon=False, fontsize=9,
        title=note or None, title_fontsize=9, alignment="left",
    )  # fmt: skip


def _remove_frame(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)


def _outer_labels(figure: "Figure", axes: list[Any], x: str, y: str) -> None:
    """Label the axes at the left and below, where nothing else stands."""
    columns = min(len(axes), COLUMNS)
    for k, axis in enumerate(axes):
        if k % columns == 0:
            axis.set_ylabel(y)
        if k + columns >= len(axes):
            axis.set_xlabel(x)


def _title(check: PredictiveCheck, state: Any) -> str:
    """Name a state with its coordinate, unless that has several parts, which a label lists."""
    single = "," not in check.coordinate and check.coordinate != "state"
    return f"{check.coordinate} {state}" if single else str(state)


def _most_deviating(check: PredictiveCheck, name: str, states: int) -> tuple[np.ndarray, str]:
    """Return the places of the states to draw, in order, and what is said where some are not.

    All are drawn where they fit; else those visited, in the panel or in panels drawn, whose
    entries of a statistic deviate most.
    """
    positive_int("states", states)
    array, flow = check.arrays[name], check.arrays["flow"]
    n = array.sizes["state"]
    if n <= states:
        return np.arange(n), ""
    share = np.nan_to_num(flow["observed"].mean("time").values)
    visited = np.flatnonzero(share + np.nan_to_num(flow["mean"].mean("time").values))
    others = [dim for dim in array.dims if dim != "state"]
    deviation = np.nan_to_num(array["deviation"].max(others).values, posinf=np.inf)
    shown = visited[np.lexsort((-share[visited], -deviation[visited]))][:states]
    return np.sort(shown), f"{len(shown)} of {n} states, those that deviate most"


def _flow_by_state(here: xr.Dataset, note: str) -> "Figure":
    """Draw the one distribution of a stationary game."""
    figure, (axis,) = _grid(1, sharey=True)
    _band_by_state(axis, here)
    _outer_labels(figure, [axis], "state", "share of agents")
    _name_marks(figure, note)
    return figure


def _band_by_state(axis: Any, here: xr.Dataset) -> None:
    states = here["state"].values
    place = np.arange(len(states))
    axis.vlines(place, here["lower"], here["upper"], color=BAND, lw=9 if len(states) <= 12 else 4)
    axis.plot(place, here["observed"], "o", ms=4, color=DOT)
    axis.margins(x=0.06)
    long = len(states) > 12 or max(len(str(v)) for v in states) > 3
    _state_ticks(axis.xaxis, states, rotation=90 if long else 0)


def _whole_ticks(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator  # slow to import

    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    low, high = axis.get_xlim()
    if high - low <= 1:
        axis.set_xticks([round(0.5 * (low + high))])


def _state_ticks(axis: Any, states: np.ndarray, *, rotation: int = 0) -> None:
    """Name states along an axis, not all where they are many."""
    every = -(-len(states) // MOST_LABELS)
    place = np.arange(0, len(states), every)
    axis.set_ticks(place, [str(states[k]) for k in place], rotation=rotation, fontsize=8)
