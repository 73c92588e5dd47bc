"""A picture of a network: who sees whom, how many, and how neighbourhoods differ over time."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mfgppl._arguments import is_a
from mfgppl.networks.structure import NetworkAudit
from mfgppl.plots.plain_text import in_plain_text
from mfgppl.plots.style import BAND, DOT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AS_IMAGE = 400  # nodes up to which weights are drawn as an image, and more as points
QUANTILES = (0.05, 0.25, 0.75, 0.95)


@in_plain_text
def plot_network(audit: NetworkAudit) -> "Figure":
    """Draw the weights, the degrees, and, of a panel, what types meet over time.

    Parameters
    ----------
    audit : NetworkAudit
        Of a network, from `mfgppl.networks.audit`.

    Returns
    -------
    Figure
        Of matplotlib: weights, rows see columns, in the order of the nodes' labels; how many others
        a node sees; and, where the audit is of a panel, the share of the state that varies most
        among those whom types meet, by time: the median, half and nine tenths of the types.
    """
    import matplotlib.pyplot as plt  # slow to import

    is_a("audit", audit, NetworkAudit)
    n = 2 + (audit.met is not None)
    figure, axes = plt.subplots(1, n, figsize=(3.6 * n, 3.2), layout="constrained")
    _weights(axes[0], audit)
    _degrees(axes[1], audit)
    if audit.met is not None:
        _met(axes[2], audit.met)
    return figure


def _weights(axis: Any, audit: NetworkAudit) -> None:
    matrix = audit.network.to_scipy()
    if audit.n_nodes <= AS_IMAGE:
        image = axis.imshow(matrix.toarray(), cmap="Blues", vmin=0.0, interpolation="nearest")
        axis.figure.colorbar(image, ax=axis, shrink=0.8)
    else:
        axis.spy(matrix, markersize=max(0.1, 40 / audit.n_nodes), color=INK)
    axis.set(xlabel="is seen", ylabel="sees", title="weights", xticks=[], yticks=[])


def _degrees(axis: Any, audit: NetworkAudit) -> None:
    matrix = audit.network.to_scipy()
    matrix.setdiag(0.0)
    degrees = np.asarray((matrix > 0).sum(1)).reshape(-1)
    bins = np.arange(degrees.max() + 2) - 0.5 if degrees.max() < 40 else 30
    axis.hist(degrees, bins=bins, color=BAND, edgecolor=INK, linewidth=0.5)
    axis.set(xlabel="others that a node sees", ylabel="nodes", title="degrees")


def _met(axis: Any, met: Any) -> None:
    spread = met.std("type").mean("time")
    state = int(np.argmax(spread.values))
    share = met.isel(state=state)
    low, below, above, high = (share.quantile(q, "type") for q in QUANTILES)
    time = share["time"].values
    axis.fill_between(time, low, high, color=BAND, alpha=0.5, lw=0, label="nine tenths of types")
    axis.fill_between(time, below, above, color=BAND, lw=0, label="half of them")
    axis.plot(time, share.median("type"), color=DOT, lw=1.2, label="median")
    axis.set(xlabel="time", ylabel=f"share met in {share['state'].item()}", title="what types meet")
    axis.legend(frameon=False, fontsize=8)
