"""Figures of unseen kinds: how many there are, and what agents of each do."""

from typing import TYPE_CHECKING

import numpy as np

from mfgppl._arguments import is_a
from mfgppl.kinds.description import Description
from mfgppl.kinds.number import NumberOfKinds
from mfgppl.plots.plain_text import in_plain_text
from mfgppl.plots.style import DOT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_plain_text
def plot_number_of_kinds(number: NumberOfKinds) -> "Figure":
    """Draw how well one, two, ... kinds explain agents who were left out, and their BIC.

    Parameters
    ----------
    number : NumberOfKinds
        Of `mfgppl.kinds.choose`.

    Returns
    -------
    Figure
        Of matplotlib: gains over one kind with two standard errors of each step, and BIC.
    """
    import matplotlib.pyplot as plt  # slow to import

    is_a("number", number, NumberOfKinds)
    table = number.table
    kinds = table.index.to_numpy()
    gain = table["gain"].fillna(0.0).cumsum()
    error = 2 * table["gain_se"].fillna(0.0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.9), layout="constrained")
    left.errorbar(kinds, gain, yerr=error, fmt="o-", ms=4, lw=1.2, color=INK, capsize=3)
    left.set_ylabel("held-out gain over one kind, nats", fontsize=9)
    right.plot(kinds, table["bic"], "o-", ms=4, lw=1.2, color=DOT)
    right.set_ylabel("BIC", fontsize=9)
    for axis in (left, right):
        axis.set_xticks(kinds)
        axis.set_xlabel("kinds", fontsize=9)
    return figure


@in_plain_text
def plot_kinds(description: Description) -> "Figure":
    """Draw the shares of actions of agents of each kind.

    Parameters
    ----------
    description : Description
        Of `mfgppl.kinds.describe`.

    Returns
    -------
    Figure
        Of matplotlib; a group of bars per kind, whose title has the expected agents.

    Raises
    ------
    ValueError
        If there are no kinds.
    """
    import matplotlib.pyplot as plt  # slow to import

    is_a("description", description, Description)
    if description.kinds is None:
        raise ValueError("`description` has no kinds: the program's agent-level sites are normal.")
    table = description.kinds
    shares = table.drop(columns=["agents", "certain", "moves"])
    figure, axes = plt.subplots(
        1, len(table), figsize=(1.9 * len(table) + 0.8, 2.7), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    place = np.arange(shares.shape[1])
    agents = table["agents"].to_numpy()
    for axis, kind, row, n in zip(axes[0], table.index, shares.to_numpy(), agents, strict=True):
        axis.bar(place, row, color=INK, width=0.7)
        axis.set_xticks(place, list(map(str, shares.columns)), fontsize=8, rotation=30)
        axis.set_title(f"kind {kind}: {n:.0f} agents", fontsize=9)
    axes[0, 0].set_ylabel("share of decisions", fontsize=9)
    return figure
