"""Unseen kinds at given parameters: who is who, and which labels of kinds mean the same."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from mfgppl._keep import kept
from mfgppl.data.trajectories import Trajectories
from mfgppl.density.over_draws import over_draws
from mfgppl.density.protocol import LogDensity
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.nodes import Site

SAME = 1e-9  # relative, of log densities that are equal
MOST_AXES = 8  # of parameters that may go with a kind, of which all choices are tried
NO_SHARE = 1e-300


class Exchange(NamedTuple):
    """Labels of kinds that can be exchanged without changing the density.

    Attributes
    ----------
    site : Site
        The agent-level site.
    axes : tuple of (str, int)
        Parameters, and the axis of each that goes with the kind.
    """

    site: Site
    axes: tuple[tuple[str, int], ...]


def node_shares(density: LogDensity, value: np.ndarray) -> np.ndarray:
    """Return the posterior probability of each agent's node (n_agents, N) at parameters (P,)."""
    law = _law(density.model)
    core = density.rewards(value[None])[0]
    return np.asarray(law.posterior(core).share[law.histories.of_agent])


def kind_shares(model: TrajectoryModel, shares: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return probabilities (..., K1, K2, ...) of the values of some sites from those of nodes."""
    nodes = model.nodes
    assert nodes is not None
    by_site = shares.reshape(*shares.shape[:-1], *[site.size for site in nodes.sites])
    lead = shares.ndim - 1
    every = [site.name for site in nodes.sites]
    others = tuple(lead + k for k, name in enumerate(every) if name not in names)
    kept = [name for name in every if name in names]
    summed = by_site.sum(others)
    order = [*range(lead), *(lead + kept.index(name) for name in names)]
    return np.asarray(summed.transpose(order))


def sites_of(model: TrajectoryModel, *, kinds: bool) -> list[Site]:
    """Return the agent-level sites that are summed over, of kinds or of coefficients, in order."""
    sites = [] if model.nodes is None else list(reversed(model.nodes.sites))
    return [s for s in sites if s.kinds == kinds and s.agents is None]


def agent_names(panel: Trajectories) -> np.ndarray:
    """Return the label of each agent, (n_agents,)."""
    return np.asarray(panel.agents[panel.first_of_owner])


def kinds_table(model: TrajectoryModel, shares: np.ndarray) -> pd.DataFrame | None:
    """Return the posterior probability of kinds, one row per agent; None where there are none.

    Parameters
    ----------
    model : TrajectoryModel
        A model with agent-level sites.
    shares : ndarray, shape (n_agents, N)
        As of `node_shares`.
    """
    sites = sites_of(model, kinds=True)
    if not sites:
        return None
    panel = model.panel
    assert isinstance(panel, Trajectories)
    names, ranges = [s.name for s in sites], [range(s.size) for s in sites]
    table = kind_shares(model, shares, names).reshape(len(shares), -1)
    columns: pd.Index = pd.RangeIndex(sites[0].size, name=names[0])
    if len(sites) > 1:
        columns = pd.MultiIndex.from_product(ranges, names=names)
    return pd.DataFrame(table, pd.Index(agent_names(panel), name="agent"), columns)


def effective_nodes(model: TrajectoryModel, shares: np.ndarray) -> pd.DataFrame | None:
    """Return how many nodes of each random coefficient an agent is spread over, `1 / sum q^2`.

    One row per agent, one column per coefficient; None where there are none.
    """
    sites = sites_of(model, kinds=False)
    if not sites:
        return None
    panel = model.panel
    assert isinstance(panel, Trajectories)
    columns = {s.name: 1 / (kind_shares(model, shares, [s.name]) ** 2).sum(-1) for s in sites}
    return pd.DataFrame(columns, pd.Index(agent_names(panel), name="agent"))


@kept
def exchanges(density: LogDensity) -> list[Exchange]:
    """Return the kinds whose labels mean nothing, with the parameters that go with them."""
    if density.model.nodes is None:
        return []
    return [e for s in sites_of(density.model, kinds=True) for e in _exchange(density, s)]


def _exchange(density: LogDensity, site: Site) -> list[Exchange]:
    """Return the exchange of a site's labels, if there is one."""
    axes = [
        (s.name, axis)
        for s in density.program.sites
        for axis, n in enumerate(s.shape)
        if n == site.size
    ]
    if len(axes) > MOST_AXES:
        return []
    evaluate = density.evaluator(prior=1.0, jacobian=0.0)
    points = [density.program.draw(seed) for seed in range(3)]
    rows, heights = density.constrained(np.stack(points)), [evaluate(p)[0] for p in points]
    rolled = np.tile(np.roll(np.arange(site.size), 1), (len(rows), 1))
    for size in range(len(axes), 0, -1):
        for chosen in itertools.combinations(axes, size):
            exchange = Exchange(site, chosen)
            others = density.program.free_rows(relabelled(density, rows, exchange, rolled))
            pairs = zip(heights, others, strict=True)
            if all(_same(height, evaluate(other)[0]) for height, other in pairs):
                return [exchange]
    return []


def _same(one: float, other: float) -> bool:
    return bool(abs(one - other) <= SAME * max(abs(one), 1.0))


def relabelled(
    density: LogDensity, rows: np.ndarray, exchange: Exchange, order: np.ndarray
) -> np.ndarray:
    """Return parameters (N, P) whose kind k is what was kind `order[n, k]` (N, K)."""
    parts = []
    start = 0
    for site in density.program.sites:
        stop = start + int(np.prod(site.shape, dtype=int))
        values = rows[:, start:stop].reshape(len(rows), *site.shape)
        for name, axis in exchange.axes:
            if name == site.name:
                shape = [1] * values.ndim
                shape[0], shape[axis + 1] = order.shape
                values = np.take_along_axis(values, order.reshape(shape), axis + 1)
        parts.append(values.reshape(len(rows), -1))
        start = stop
    return np.concatenate(parts, axis=1)


def aligned(density: LogDensity, theta: np.ndarray) -> np.ndarray:
    """Return draws (..., n_dim) in which a label of kinds means the same kind in each.

    Of each draw that permutation is taken which is nearest to the mean probabilities of the agents'
    kinds [1]_. What has no labels to exchange stays as it is.

    References
    ----------
    .. [1] Stephens (2000), *Dealing with label switching in mixture models*, JRSS B 62.
    """
    for exchange in exchanges(density):
        flat = theta.reshape(-1, theta.shape[-1])
        rows = density.constrained(flat)
        order = _orders(density, rows, exchange)
        moved = (order != np.arange(order.shape[1])).any(1)
        if moved.any():
            rows[moved] = relabelled(density, rows[moved], exchange, order[moved])
            flat = flat.copy()
            flat[moved] = density.program.free_rows(rows[moved])
            theta = flat.reshape(theta.shape)
    return theta


def _orders(density: LogDensity, rows: np.ndarray, exchange: Exchange) -> np.ndarray:
    """Return the order (N, K) of a site's kinds in each draw that agrees best with all others."""
    model, name, size = density.model, exchange.site.name, exchange.site.size
    law = _law(model)
    weight = law.histories.weight
    shares = np.empty((len(rows), len(weight), size), dtype=np.float32)

    def use(part: slice, given: np.ndarray) -> None:
        cores = density.rewards(given)
        for place, core in zip(range(*part.indices(len(rows))), cores, strict=False):
            shares[place] = kind_shares(model, law.posterior(core).share, [name])

    over_draws(density, rows, use)
    orders = np.tile(np.arange(size), (len(rows), 1))
    centre = shares[-1].astype(float)
    for _ in range(3):
        log_centre = np.log(np.maximum(centre, NO_SHARE)) * weight[:, None]
        cost = -np.einsum("njk,jl->nlk", shares, log_centre, optimize=True)
        found = np.stack([linear_sum_assignment(one)[1] for one in cost])
        centre = np.mean([s[:, o] for s, o in zip(shares, found, strict=True)], axis=0)
        if np.array_equal(found, orders):
            break
        orders = found
    return orders


def _law(model: TrajectoryModel) -> KindsLikelihood:
    assert isinstance(model.law, KindsLikelihood)
    return model.law
