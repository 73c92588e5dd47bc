"""A figure of what agents of each type do, beside what the fit expects of them."""

from typing import TYPE_CHECKING

import numpy as np

from mfgppl._arguments import is_a, positive_int
from mfgppl.checks.standardised_residuals import Residuals
from mfgppl.plots.plain_text import in_plain_text
from mfgppl.plots.style import DOT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_plain_text
def plot_types(residuals: Residuals, *, types: int = 6) -> "Figure":
    """Draw shares of actions over time by type: observed (dots) and expected (lines).

    Parameters
    ----------
    residuals : Residuals
        Of a model with types.
    types : int
        Types to draw at most, those with most decisions.

    Returns
    -------
    Figure
        Of matplotlib; one row per action, one column per type.

    Raises
    ------
    ValueError
        If the model has no types.
    """
    import matplotlib.pyplot as plt  # slow to import

    is_a("residuals", residuals, Residuals)
    if residuals.by_type is None:
        raise ValueError("`residuals` must be of a model with types; this one has none.")
    most = positive_int("types", types)
    order = np.argsort(-residuals.by_type["visits"].to_numpy(), kind="stable")
    kept = np.sort(order[:most])
    counts = residuals.cells[["observed", "expected"]].isel(type=kept).sum("state")
    total = counts["observed"].sum("action")
    shares = counts / total.where(total > 0)
    actions, labels = shares["action"].values, shares["type"].values
    figure, axes = plt.subplots(
        len(actions), len(labels), figsize=(2.6 * len(labels) + 0.6, 1.9 * len(actions) + 0.6),
        sharex=True, sharey="row", squeeze=False, layout="constrained",
    )  # fmt: skip
    time = shares["time"].values
    for row, action in zip(axes, actions, strict=True):
        for axis, label in zip(row, labels, strict=True):
            here = shares.sel(action=action, type=label)
            axis.plot(time, here["expected"], color=INK, lw=1.2, label="expected")
            axis.plot(time, here["observed"], "o", ms=3, color=DOT, label="observed")
        row[0].set_ylabel(str(action), fontsize=9)
    for axis, label in zip(axes[0], labels, strict=True):
        axis.set_title(str(label), fontsize=10)
    figure.supxlabel("time", fontsize=10)
    figure.supylabel("share of actions", fontsize=10)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower right", ncols=2, frameon=False, fontsize=9)
    return figure
