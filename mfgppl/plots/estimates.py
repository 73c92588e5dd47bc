"""Figures of parameters: estimates with their intervals, and draws two by two."""

import itertools
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from mfgppl.plots.predictions import Drawing
from mfgppl.plots.style import BAND, DOT, GREY, INK

MOST_ROWS = 40  # parameters in a forest
MOST_PAIRS = 5
MOST_DOTS = 500  # draws in a panel of pairs
LIKELIHOOD = "maximum likelihood"


def entries_of(draws: xr.DataTree) -> dict[str, np.ndarray]:
    """Return the draws (chain, draw) of each entry of the parameters, by name."""
    entries: dict[str, np.ndarray] = {}
    posterior = draws["posterior"].to_dataset()
    for name in draws.attrs["parameters"]:
        values = posterior[name].transpose("chain", "draw", ...)
        flat = values.values.reshape(*values.shape[:2], -1)
        known = [list(map(str, values[d].values)) for d in values.dims[2:]]
        for k, place in enumerate(itertools.product(*known)):
            label = f"[{','.join(place)}]" if place else ""
            entries[f"{name}{label}"] = flat[..., k]
    return entries


def forest_drawing(
    rows: pd.DataFrame, ci_prob: float, kind: str, beside: pd.Series | None = None
) -> tuple[Drawing, ...]:
    """Return the figure of estimates and intervals, none where there is no interval.

    Parameters
    ----------
    rows : DataFrame, shape (P, 3)
        `estimate`, `lower` and `upper` of each parameter.
    ci_prob : float
        Mass of the intervals.
    kind : str
        Their kind, as "Wald".
    beside : Series, optional
        Maximum likelihood estimates, drawn beside.
    """
    shown = rows[rows["lower"].notna()].iloc[:MOST_ROWS]
    if shown.empty:
        return ()
    what = f"Estimates with {kind} {100 * ci_prob:g}% intervals; the line is at zero"
    if beside is not None:
        what += f"; a cross is the {LIKELIHOOD} estimate"
    if len(shown) < len(rows):
        what += f"; {len(shown)} of {len(rows)} parameters, the others in the table"
    return ((what, lambda: _forest(shown, beside)),)


def _forest(rows: pd.DataFrame, beside: pd.Series | None) -> Figure:
    figure, axis = plt.subplots(figsize=(6.4, 0.9 + 0.32 * len(rows)), layout="constrained")
    place = np.arange(len(rows))[::-1]
    axis.axvline(0.0, color=GREY, lw=0.8, ls="--")
    axis.hlines(place, rows["lower"], rows["upper"], color=BAND, lw=6)
    axis.plot(rows["estimate"], place, "o", ms=5, color=INK)
    if beside is not None:
        axis.plot(beside.reindex(rows.index), place, "x", ms=6, color=DOT)
    axis.set_yticks(place, [str(name) for name in rows.index])
    axis.set_xlabel("estimate, reward units per unit of the feature")
    axis.margins(y=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def pairs_drawing(entries: Mapping[str, np.ndarray]) -> tuple[Drawing, ...]:
    """Return the figure of draws two by two, none of a single parameter."""
    shown = dict(itertools.islice(entries.items(), MOST_PAIRS))
    if len(shown) < 2:
        return ()
    what = "Draws of two parameters at a time; a ridge shows what is known only in combination"
    if len(shown) < len(entries):
        what += f" (the first {len(shown)} of {len(entries)})"
    return ((what, lambda: _pairs(shown)),)


def _pairs(entries: Mapping[str, np.ndarray]) -> Figure:
    names, n = list(entries), len(entries) - 1
    flat = [values.ravel() for values in entries.values()]
    some = np.linspace(0, flat[0].size - 1, min(flat[0].size, MOST_DOTS)).astype(int)
    size = min(1.0 + 1.8 * n, 7.5)
    figure, axes = plt.subplots(n, n, figsize=(size, size), squeeze=False, sharex="col",
                                sharey="row", layout="constrained")  # fmt: skip
    for row, column in itertools.product(range(n), range(n)):
        axis = axes[row, column]
        if column > row:
            axis.set_visible(False)
            continue
        axis.plot(flat[column][some], flat[row + 1][some], ".", ms=2, alpha=0.5, color=INK)
        axis.spines[["top", "right"]].set_visible(False)
        axis.locator_params(nbins=3)
        axis.tick_params(labelsize=8)
        if column == 0:
            axis.set_ylabel(names[row + 1])
        if row == n - 1:
            axis.set_xlabel(names[column])
    return figure
