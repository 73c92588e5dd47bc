"""Figures of checks by simulation: ranks, coverage, and expected widths."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from mfgppl._arguments import is_a, strict_keywords
from mfgppl.calibration.coverage import Recovery
from mfgppl.calibration.ranks import LEVEL, Calibration
from mfgppl.design.widths import COLUMNS
from mfgppl.plots.plain_text import in_plain_text, legend_of
from mfgppl.plots.style import BAND, DOT, GREY, INK

WIDEST = 4  # panels in a row
MARKS = "osD^vP*X"


@strict_keywords
@in_plain_text
def plot_ranks(calibration: Calibration) -> Figure:
    """Draw the ECDF of ranks less that of uniform ones, by quantity, in the band of the table.

    Parameters
    ----------
    calibration : Calibration
        As of `sbc`.

    Returns
    -------
    Figure
        Red where a quantity leaves its 99 % simultaneous band.
    """
    is_a("calibration", calibration, Calibration, " Make it with sbc.")
    table = calibration.table
    figure, axes = _grid(len(table), height=2.7)
    for axis, (name, row) in zip(axes, table.iterrows(), strict=True):
        draw_ranks(axis, calibration, [str(name)], {str(name): INK if row["inside"] else DOT})
        axis.set_title(f"{name}\n{row['verdict']}", fontsize=9)
    axes[0].set_ylabel("ECDF less uniform")
    figure.suptitle(
        f"{len(calibration.ranks)} panels, {LEVEL:.0%} simultaneous bands", fontsize=9, color=GREY
    )
    figure.tight_layout()
    return figure


def draw_ranks(
    axis: Any, calibration: Calibration, names: list[str], colours: dict[str, str]
) -> None:
    """Draw the ECDFs of some quantities less the uniform one, and their band, on an axis."""
    band, ecdf = calibration.band, calibration.ecdf
    rank = band.index.to_numpy()
    axis.fill_between(
        rank, band["lower"] - rank, band["upper"] - rank, step="post", color=BAND, alpha=0.5, lw=0
    )
    axis.axhline(0.0, color=GREY, lw=0.6)
    for name in names:
        axis.step(rank, ecdf[name] - rank, where="post", color=colours[name], lw=1.2, label=name)
    axis.set_xlabel("rank of the truth")
    axis.set_xlim(0, 1)


@strict_keywords
@in_plain_text
def plot_coverage(recovery: Recovery) -> Figure:
    """Draw the share of intervals that hold the truth, by parameter and method.

    Parameters
    ----------
    recovery : Recovery
        As of `recovery`.

    Returns
    -------
    Figure
        The band is the intervals' mass plus and minus two Monte Carlo errors.
    """
    is_a("recovery", recovery, Recovery, " Make it with recovery.")
    table, ci_prob = recovery.table, recovery.ci_prob
    error = float(table["coverage_error"].max())
    names, n = list(recovery.truth.index), len(recovery.methods)
    figure = Figure(figsize=(7, 1.1 + 0.22 * n * len(names)))
    axis = figure.subplots()
    axis.axvspan(ci_prob - 2 * error, min(ci_prob + 2 * error, 1), color=BAND, alpha=0.5, lw=0)
    axis.axvline(ci_prob, color=GREY, lw=0.6)
    handles = []
    for k, method in enumerate(recovery.methods):
        coverage = table["coverage"].xs(method).reindex(names).to_numpy(float)
        place = np.arange(len(names)) + 0.8 * ((k + 0.5) / n - 0.5)
        off = np.abs(coverage - ci_prob) > 2 * error
        handles += axis.plot(coverage, place, MARKS[k % len(MARKS)], color=INK, ms=5)
        axis.plot(coverage[off], place[off], MARKS[k % len(MARKS)], color=DOT, ms=5)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(0, 1.02)
    axis.set_xlabel(
        f"share of {100 * ci_prob:g}% intervals that hold the truth "
        f"(band: {100 * ci_prob:g}% ± 2 Monte Carlo errors, {recovery.n_panels} panels)"
    )
    legend_of(axis, handles, recovery.methods, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure


@strict_keywords
@in_plain_text
def plot_widths(widths: pd.DataFrame) -> Figure:
    """Draw expected widths of intervals against the number of agents, one panel per parameter.

    Parameters
    ----------
    widths : DataFrame
        As of `expected_widths`.

    Returns
    -------
    Figure
        One line per game and horizon, both axes logarithmic.
    """
    is_a("widths", widths, pd.DataFrame, " Make it with expected_widths.")
    missing = [name for name in COLUMNS if name not in widths]
    if missing:
        raise ValueError(f"`widths` lacks the column {missing[0]!r}; make it with expected_widths.")
    names = list(dict.fromkeys(widths["parameter"]))
    lines = widths[["game", "horizon"]].drop_duplicates().to_numpy(object).tolist()
    labels = [f"{game}, {horizon:g} times" for game, horizon in lines]
    shades = [INK, DOT, BAND, GREY]
    figure, axes = _grid(len(names), height=2.6)
    for axis, name in zip(axes, names, strict=True):
        for k, (game, horizon) in enumerate(lines):
            shown = widths[
                (widths["parameter"] == name)
                & (widths["game"] == game)
                & (widths["horizon"] == horizon)
            ].sort_values("n_agents")
            axis.plot(
                shown["n_agents"], shown["width"], MARKS[k % len(MARKS)] + "-", ms=4, lw=1,
                color=shades[k % len(shades)],
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_yscale("log")
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            side.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            side.set_minor_locator(NullLocator())
        axis.tick_params(labelsize=8)
        axis.set_xlabel("agents")
        axis.set_title(name, fontsize=9)
    ci_prob = widths.attrs.get("ci_prob")
    width = "expected width" if ci_prob is None else f"width of {100 * ci_prob:g}% interval"
    axes[0].set_ylabel(width)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    legend_of(figure, axes[0].lines, labels, loc="lower center", ncols=4)
    return figure


def _grid(n: int, *, height: float) -> tuple[Figure, list[Any]]:
    """Return a figure of n axes in rows."""
    columns = min(n, WIDEST)
    rows = -(-n // columns)
    figure = Figure(figsize=(max(2.4 * columns, 4.0), height * rows))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axis in axes.flat[n:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:n])
