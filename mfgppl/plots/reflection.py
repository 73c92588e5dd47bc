"""The figure of a coupling test: what was observed among what reflection alone gives."""

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import chi2

from mfgppl._arguments import is_a, strict_keywords
from mfgppl.flows.coupling import CouplingTest
from mfgppl.plots.plain_text import in_plain_text
from mfgppl.plots.style import BAND, DOT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 400  # of the curve
SHOWN, BINS = 3, 20  # parameters drawn, bars
FAR = 10.0  # times the largest ratio drawn: an observed one beyond is off the axis


@strict_keywords
@in_plain_text
def plot_coupling(test: CouplingTest) -> "Figure":
    """Draw the likelihood ratio and the coupling estimates among those without coupling.

    Parameters
    ----------
    test : CouplingTest
        The test.

    Returns
    -------
    Figure
        Of matplotlib: the ratio, with the chi-squared density that the textbook promises, and a
        panel a coupling parameter, three at most. A ratio ten times as far out as all panels drawn
        is written on the axis, which ends where they do.
    """
    import matplotlib.pyplot as plt  # slow to import

    is_a("test", test, CouplingTest, " Make it with coupling_test.")
    names = list(test.estimates)[:SHOWN]
    width = 3.6 * (1 + len(names))
    figure, axes = plt.subplots(
        1, 1 + len(names), figsize=(width, 3.3), squeeze=False, layout="constrained"
    )
    p = test.table["p"]
    _ratio(axes[0, 0], test)
    axes[0, 0].set_title(
        f"p = {p['chi-squared']:.2g} by chi-squared, {p['bootstrap ratio']:.2g} by panels drawn",
        fontsize=10,
    )
    for axis, name in zip(axes[0, 1:], names, strict=True):
        drawn = test.estimates[name].drop("observed").dropna()
        _histogram(axis, drawn.to_numpy(), test.estimates[name]["observed"])
        axis.set_xlabel(f"estimate of {name}")
    axes[0, 1].set_title(f"p = {p['bootstrap estimates']:.2g} by panels drawn", fontsize=10)
    axes[0, 0].set_ylabel("density")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    return figure


def _ratio(axis: Any, test: CouplingTest) -> None:
    """Draw the likelihood ratio's panel."""
    drawn = test.drawn[np.isfinite(test.drawn)]
    end = max(drawn.max(), chi2.ppf(0.99, test.df))
    far = test.statistic > FAR * end
    end = 1.08 * (end if far else max(end, test.statistic))
    heights = _histogram(axis, drawn, test.statistic, span=(0.0, end))
    x = np.linspace(end / POINTS, end, POINTS)
    name = f"chi-squared, {test.df} degree{'s' if test.df > 1 else ''} of freedom"
    axis.plot(x, chi2.pdf(x, test.df), color=INK, lw=1.4, label=name)
    axis.set_ylim(0.0, 1.25 * heights.max())
    axis.set_xlim(0.0, end)
    if far:
        note = f"observed: {test.statistic:.0f}, off the axis"
        axis.text(0.97, 0.9, note, transform=axis.transAxes, ha="right", color=DOT, fontsize=9)
    axis.set_xlabel("likelihood ratio, twice the nats gained")


def _histogram(
    axis: Any, drawn: np.ndarray, observed: float, *, span: tuple[float, float] | None = None
) -> np.ndarray:
    """Draw a histogram with the observed value; return its heights."""
    heights, _, _ = axis.hist(
        drawn, BINS, range=span, density=True, color=BAND, label="panels drawn without coupling"
    )
    axis.axvline(observed, color=DOT, lw=1.8, label="observed")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
    return np.asarray(heights)
