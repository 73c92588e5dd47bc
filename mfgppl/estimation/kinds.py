"""Where fits of unseen kinds start, and what speaks against where they end."""

import copy
import math
import warnings
from dataclasses import replace

import numpy as np
from scipy.cluster.vq import kmeans2

from mfgppl._quasi_newton import maximise
from mfgppl.density.kinds import effective_nodes, kind_shares, node_shares, sites_of
from mfgppl.density.protocol import LogDensity
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.model import TrajectoryModel

KNOWN_STEPS = 60  # of the climb with given kinds
SIDES = 0.7  # log spread of the weights of what agents do
NOBODY = 0.5  # expected agents below which a kind is empty
ALIKE = 1e-4  # largest difference of choice probabilities below which kinds do the same
FEW_NODES = 2.0  # effective nodes of the median agent below which nodes are too few


def start_from_groups(
    density: LogDensity, theta: np.ndarray, units: np.ndarray, seed: int
) -> np.ndarray:
    """Return where the likelihood rises to, from a point, if agents were of given kinds.

    Agents who do alike are put in one group, by k-means on what they do in which state; each group
    is taken for a kind. From equal kinds a climb would go nowhere.

    Parameters
    ----------
    density : LogDensity
        Of a model with kinds.
    theta, units : ndarray, shape (K,)
        The point, and the step of each parameter that is of order one.
    seed : int
        Seed of the groups.
    """
    model = density.model
    law, kinds = model.law, sites_of(model, kinds=True)
    assert isinstance(law, KindsLikelihood)
    if not kinds:
        return theta
    n_groups = math.prod(site.size for site in kinds)
    groups = _groups(law, n_groups, seed)
    own = np.eye(law.n_nodes)  # which kind each node is of
    of_node = kind_shares(model, own, [s.name for s in kinds]).reshape(law.n_nodes, -1).argmax(1)
    known = np.where(of_node == groups[:, None], 0.0, -np.inf)
    if law.histories.known.size:  # what is seen of some agents' kinds
        seen = (law.histories.known < 0).any(axis=1)
        known[seen] = law.histories.known[seen]
    grouped = copy.copy(model)
    grouped.law = replace(law, histories=law.histories._replace(known=known))
    evaluate = density.for_model(grouped).evaluator(prior=0.0, jacobian=0.0)
    return maximise(evaluate, theta, units=units, max_steps=KNOWN_STEPS).point


def _groups(law: KindsLikelihood, n_groups: int, seed: int) -> np.ndarray:
    """Return a group for each history, by what is done in which state."""
    _, _, S, A = law.shape
    histories, rng = law.histories, np.random.default_rng(seed)
    n = len(histories.start)
    place = histories.owner * (S * A) + histories.entry % (S * A)
    done = np.bincount(place, minlength=n * S * A).reshape(n, S * A).astype(float)
    done /= np.maximum(done.sum(1, keepdims=True), 1.0)
    done -= done.mean(0)
    spread = done.std(0)
    moves = spread > 0
    # each start looks at other sides of what is done
    scaled = done[:, moves] / spread[moves] * np.exp(SIDES * rng.standard_normal(moves.sum()))
    if len(np.unique(scaled.round(9), axis=0)) <= n_groups:
        return rng.integers(n_groups, size=n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a group without members
        return np.asarray(kmeans2(scaled, n_groups, minit="++", rng=rng)[1])


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
