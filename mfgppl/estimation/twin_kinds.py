"""What speaks against where fits of unseen kinds end."""

import numpy as np

from mfgppl.density.protocol import LogDensity
from mfgppl.density.who_is_who import effective_nodes, kind_shares, node_shares, sites_of
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.model import TrajectoryModel

NOBODY = 0.5  # expected agents below which a kind is empty
ALIKE = 1e-4  # largest difference of choice probabilities below which kinds do the same
FEW_NODES = 2.0  # effective nodes of the median agent below which nodes are too few


def messages_of_kinds(density: LogDensity, value: np.ndarray, *, saddle: bool) -> tuple[str, ...]:
    """Return what speaks against a fit with agent-level sites at its estimate (P,)."""
    model = density.model
    law = model.law
    if not isinstance(law, KindsLikelihood):
        return ()
    shares = node_shares(density, value)
    policies = np.exp(law.table_arrays(density.rewards(value[None])[0])[0])
    messages = []
    for site in sites_of(model, kinds=True):
        expected = kind_shares(model, shares, [site.name]).sum(0)
        of_kind = policies_of(model, policies, site.name)
        empty = [k for k in range(site.size) if expected[k] < NOBODY]
        messages += [
            f"kind {k} of {site.name!r} is empty: no agent is expected to be of it; fit fewer kinds"
            for k in empty
        ]
        for k in range(site.size):
            for other in range(k):
                if k in empty or other in empty:
                    continue
                if np.abs(of_kind[k] - of_kind[other]).max() < ALIKE:
                    messages.append(_twins(site.name, other, k, saddle=saddle))
    found = effective_nodes(model, shares)
    if found is not None:
        for name, median in found.median().items():
            if median < FEW_NODES:
                messages.append(
                    f"half of the agents put {name!r} on fewer than {FEW_NODES:g} nodes "
                    f"({median:.2g}): the nodes are too few for what the panel says of an agent; "
                    "take more, as in x.agents(nodes=31)"
                )
    return tuple(messages)


def _twins(name: str, one: int, other: int, *, saddle: bool) -> str:
    what = f"kinds {one} and {other} of {name!r} do the same"
    if saddle:
        return (
            f"{what}: this is the symmetric saddle, where the likelihood is that of one kind "
            "fewer; start elsewhere, with restarts=10"
        )
    return f"{what}: the panel shows one kind fewer, or a start with equal kinds ended here"


def policies_of(model: TrajectoryModel, policies: np.ndarray, name: str) -> np.ndarray:
    """Return the policies (K, ...) of a site's kinds, whatever the other sites' values."""
    nodes = model.nodes
    assert nodes is not None
    sizes = [site.size for site in nodes.sites]
    axis = [site.name for site in nodes.sites].index(name)
    by_site = policies.reshape(*sizes, *policies.shape[1:])
    return np.moveaxis(by_site, axis, 0).reshape(sizes[axis], -1)
