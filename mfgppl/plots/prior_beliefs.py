"""Figures of what a prior believes about behaviour."""

from typing import TYPE_CHECKING

import numpy as np

from mfgppl._arguments import is_a, strict_keywords
from mfgppl.design.prior import HIGH, LOW, PriorPredictive
from mfgppl.plots.plain_text import in_plain_text
from mfgppl.plots.style import BAND, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
MOST_STATES = 12  # panels of a flow
MOST_TICKS = 12


@strict_keywords
@in_plain_text
def plot_prior_choices(predictive: PriorPredictive) -> "Figure":
    """Draw the prior's choice probabilities by state.

    Parameters
    ----------
    predictive : PriorPredictive
        As of `prior_predictive`.

    Returns
    -------
    Figure
        One panel per action: mean and equal-tailed 90% interval over draws, averaged over visits.
    """
    is_a("predictive", predictive, PriorPredictive)
    actions, states = predictive.policy["action"].to_numpy(), predictive.policy["state"].to_numpy()
    figure, axes = _panels(len(actions))
    place = np.arange(len(states))
    for axis, action in zip(axes, actions, strict=False):
        table = predictive.table.xs(action, level="action").loc[states]
        axis.vlines(place, table["5%"], table["95%"], color=BAND, lw=6)
        axis.plot(place, table["mean"], "o", ms=4, color=INK)
        axis.set_title(str(action), fontsize=10)
        axis.set_ylim(-0.03, 1.03)
        _name_states(axis, states)
    figure.supylabel("probability of the action", fontsize=10)
    figure.suptitle("prior: mean and equal-tailed 90% interval over draws", fontsize=10)
    figure.tight_layout()
    return figure


@strict_keywords
@in_plain_text
def plot_prior_flows(predictive: PriorPredictive) -> "Figure":
    """Draw the prior's flow: the share of agents in each state over time.

    Parameters
    ----------
    predictive : PriorPredictive
        As of `prior_predictive`.

    Returns
    -------
    Figure
        Mean and equal-tailed 90% band over draws: one panel per state, of the twelve with the
        largest shares, or in a stationary game one panel of all states.
    """
    is_a("predictive", predictive, PriorPredictive)
    flow = predictive.mean_field
    low, high = (flow.quantile(q, dim="draw") for q in (LOW, HIGH))
    mean, time = flow.mean("draw"), flow["time"].to_numpy()
    states = flow["state"].to_numpy()
    if len(time) == 1:
        figure, (axis,) = _panels(1)
        axis.vlines(np.arange(len(states)), low[0], high[0], color=BAND, lw=6)
        axis.plot(np.arange(len(states)), mean[0], "o", ms=4, color=INK)
        _name_states(axis, states)
    else:
        kept = np.sort(mean.max("time").to_numpy().argsort(kind="stable")[-MOST_STATES:])
        figure, axes = _panels(len(kept))
        for axis, state in zip(axes, kept, strict=False):
            axis.fill_between(time, low[:, state], high[:, state], color=BAND, lw=0)
            axis.plot(time, mean[:, state], color=INK)
            axis.set_title(str(states[state]), fontsize=10)
        for axis in axes[-COLUMNS:]:
            axis.set_xlabel("time")
    figure.supylabel("share of agents", fontsize=10)
    figure.suptitle("prior: mean and equal-tailed 90% band over draws", fontsize=10)
    figure.tight_layout()
    return figure


def _panels(n: int) -> tuple["Figure", list["Axes"]]:
    """Return a figure with n panels of one scale."""
    columns = min(n, COLUMNS)
    rows = -(-n // columns)
    width = 5.0 if columns == 1 else 2.9 * columns
    import matplotlib.pyplot as plt  # slow to import

    figure, axes = plt.subplots(
        rows, columns, figsize=(width, 2.1 * rows + 0.7), sharey=True, squeeze=False
    )
    flat = list(axes.flat)
    for axis in flat[n:]:
        axis.set_visible(False)
    return figure, flat[:n]


def _name_states(axis: "Axes", states: np.ndarray) -> None:
    """Label the axis of states, every so many where they are many."""
    step = -(-len(states) // MOST_TICKS)
    place = np.arange(0, len(states), step)
    turned = max(len(str(s)) for s in states) > 3
    axis.set_xticks(place, states[place], rotation=45 if turned else 0, fontsize=8)
    axis.set_xlabel("state")
