"""The figure of what agents leave on the table."""

from typing import TYPE_CHECKING

from mfgppl._arguments import is_a, strict_keywords
from mfgppl.checks.imperfect_choices import CAUSES, Imperfection
from mfgppl.plots.plain_text import in_plain_text
from mfgppl.plots.style import BAND, DOT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 30


@strict_keywords
@in_plain_text
def plot_imperfection(found: Imperfection) -> "Figure":
    """Draw the losses of agents, and what the fit expects of them by cause.

    Parameters
    ----------
    found : Imperfection
        What `mfg.checks.imperfection` gives.

    Returns
    -------
    Figure
        Of matplotlib: how many agents lose how much, with the mean that is expected; and that
        mean by cause, with bands.
    """
    import matplotlib.pyplot as plt  # slow to import

    is_a("found", found, Imperfection, " Make it with mfg.checks.imperfection.")
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    left.hist(found.table["loss"], bins=BINS, color=BAND)
    left.axvline(found.mean.loc["expected", "mean"], color=DOT, label="expected mean")
    left.set_xlabel("reward left by an agent")
    left.set_ylabel("agents")
    left.margins(y=0.2)
    left.legend(frameon=False)
    rows = found.mean.loc[list(CAUSES)]
    right.hlines(range(len(rows)), rows["lower"], rows["upper"], color=BAND, lw=6)
    right.scatter(rows["mean"], range(len(rows)), color=INK, zorder=3)
    right.set_yticks(range(len(rows)), list(rows.index))
    right.invert_yaxis()
    right.set_xlabel("expected, by cause")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    return figure
