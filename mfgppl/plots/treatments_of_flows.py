"""The figure of several treatments of the crowd's flow."""

from typing import TYPE_CHECKING

from mfgppl._arguments import is_a, strict_keywords
from mfgppl.flows.side_by_side import Treatments
from mfgppl.plots.plain_text import in_plain_text
from mfgppl.plots.style import BAND, DOT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 6  # parameters drawn


@strict_keywords
@in_plain_text
def plot_treatments(treatments: Treatments) -> "Figure":
    """Draw the estimates and nominal 90 % intervals of each treatment, by parameter.

    Parameters
    ----------
    treatments : Treatments
        What `mfg.flows.treatments` gives.

    Returns
    -------
    Figure
        Of matplotlib: a panel for each parameter, six at most; the treatment that the panel
        supports stands out.
    """
    import matplotlib.pyplot as plt  # slow to import

    is_a("treatments", treatments, Treatments, " Make it with mfg.flows.treatments.")
    names = list(treatments.fits["plug-in"].params.index)[:SHOWN]
    ways = list(treatments.fits)
    figure, axes = plt.subplots(
        1, len(names), figsize=(1.2 + 2.4 * len(names), 0.7 + 0.35 * len(ways)), squeeze=False,
        sharey=True, layout="constrained",
    )  # fmt: skip
    for axis, name in zip(axes[0], names, strict=True):
        rows = treatments.table.xs(name, level="parameter").loc[ways]
        colours = [DOT if way == treatments.recommended else INK for way in ways]
        axis.hlines(range(len(ways)), rows["lower"], rows["upper"], color=BAND, lw=6)
        axis.scatter(rows["estimate"], range(len(ways)), color=colours, zorder=3)
        axis.set_xlabel(name)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_yticks(range(len(ways)), ways)
    axes[0, 0].invert_yaxis()
    return figure
