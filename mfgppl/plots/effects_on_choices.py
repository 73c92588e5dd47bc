"""The figure of what coefficients and the crowd do to choices."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mfgppl._arguments import is_a, positive_int, strict_keywords
from mfgppl.counterfactuals.effects_record import AVERAGE, CROWD, NEXT, Effects
from mfgppl.plots.plain_text import in_plain_text
from mfgppl.plots.style import BAND, DOT, GREY, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@strict_keywords
@in_plain_text
def plot_effects(effects: Effects, *, parameters: int = 6) -> "Figure":
    """Draw effects with their intervals: coefficients 10 % larger, and a point of the crowd.

    Parameters
    ----------
    effects : Effects
        As of `mfg.effects`.
    parameters : int
        How many parameters to draw, the first.

    Returns
    -------
    Figure
        Of matplotlib. Left: points of probability by parameter and action, along the flow held
        (dots) and in equilibrium (circles). Right, where rewards read the crowd: how much less
        likely agents are to be in a state for one point more of the crowd there.
    """
    import matplotlib.pyplot as plt  # slow to import

    is_a("effects", effects, Effects, " Make it with mfg.effects.")
    shown = effects.parameters[: positive_int("parameters", parameters)]
    held = _of(effects.choices(), shown)
    settled = _of(effects.choices(how="equilibrium"), shown)
    crowd = effects.rows(CROWD, NEXT)
    n = max(len(held), len(crowd))
    panels = 2 if len(crowd) else 1
    figure, axes = plt.subplots(
        1, panels, figsize=(3.7 * panels, 1.1 + 0.24 * n), squeeze=False, layout="constrained"
    )
    names = [f"{name}: {action}" for name, action in held.index]
    _rows(axes[0, 0], 100 * held, names)
    if len(settled):
        place = np.arange(len(held))[::-1]
        axes[0, 0].plot(100 * settled["estimate"], place, "o", ms=5, mfc="none", color=DOT)
    axes[0, 0].set_xlabel("points of probability, coefficient 10% larger", fontsize=9)
    if len(crowd):
        states = [str(state) for state in crowd.index]
        _rows(axes[0, 1], crowd, ["average" if s == AVERAGE else s for s in states])
        axes[0, 1].set_xlabel("points next there, per point of the crowd", fontsize=9)
    return figure


def _of(rows: pd.DataFrame, parameters: list[str]) -> pd.DataFrame:
    return rows[rows.index.get_level_values("of").isin(parameters)]


def _rows(axis: Any, rows: pd.DataFrame, names: list[str]) -> None:
    """Draw estimates and intervals, one row each."""
    place = np.arange(len(rows))[::-1]
    axis.axvline(0.0, color=GREY, lw=0.8, ls="--")
    axis.hlines(place, rows["lower"], rows["upper"], color=BAND, lw=5)
    axis.plot(rows["estimate"], place, "o", ms=4, color=INK)
    axis.set_yticks(place, names, fontsize=8)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.locator_params(axis="x", nbins=4)
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
