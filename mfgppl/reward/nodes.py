"""Unseen kinds and random coefficients as nodes, which the likelihood sums over.

A site inside `with x.agents:` has one value for each agent: a categorical one its kinds, a normal
one the nodes of a quadrature. Each such site stands on an axis of its own, left of all others; a
combination of their values is a node, and has a weight.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.stats
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from mfgppl.reward.agents import AGENT_LEVEL, ITSELF, SiteOptions
from mfgppl.reward.coordinates import Numbers
from mfgppl.reward.preferences import Preferences

MOST_NODES = 4096
EXACT_UP_TO = 2  # dimensions of a coefficient up to which nodes are a product of Gauss-Hermite's


class Site(NamedTuple):
    """One site of the agents' level.

    Attributes
    ----------
    name : str
        The site.
    size : int
        Number of its values.
    kinds : bool
        Whether these are kinds; else nodes of a quadrature.
    known : str or None
        The column of the panel that says of some agents of which kind they are.
    agents : tuple of str, or None
        Where values are sampled, one for each agent: the agents.
    """

    name: str
    size: int
    kinds: bool
    known: str | None = None
    agents: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Nodes:
    """The combinations of the values of all sites of the agents' level, in row-major order.

    Attributes
    ----------
    sites : tuple of Site
        The sites, the last declared first, as their axes stand.
    log_weights : Tensor, shape (N, S)
        Log probability of each node given the first state seen, over stacked states.
    """

    sites: tuple[Site, ...]
    log_weights: Tensor

    @property
    def size(self) -> int:
        """Number of nodes N."""
        return math.prod(site.size for site in self.sites)

    def value_of(self, name: str) -> np.ndarray:
        """Return which value of a site each node has, (N,)."""
        sizes = [site.size for site in self.sites]
        where = [site.name for site in self.sites].index(name)
        return np.unravel_index(np.arange(self.size), sizes)[where]

    def preferences(self, declared: Preferences, n_axes: int) -> list[Preferences]:
        """Return what an agent of each node is, of what a program returned for all.

        Parameters
        ----------
        declared : Preferences
            Parts may have axes for the first state and for sites, left of the last `n_axes`.
        n_axes : int
            Axes of a reward table.

        Raises
        ------
        ValueError
            If a part reads the first state.
        """
        parts = {"reward": declared.reward} | declared.parts
        each = {name: self._by_node(name, part, n_axes) for name, part in parts.items()}
        return [replace(declared, **{k: v[n] for k, v in each.items()}) for n in range(self.size)]

    def _by_node(self, name: str, part: Any, n_axes: int) -> Any:
        """Return a part for each node."""
        if not isinstance(part, (Tensor, np.ndarray)) or part.ndim <= n_axes:
            return [part] * self.size
        value = torch.as_tensor(part)
        *lead, first = value.shape[: value.ndim - n_axes]
        rest = value.shape[value.ndim - n_axes :]
        if first != 1:
            raise ValueError(
                f"the {name} reads x.first_state, which only the shares of kinds may; what an "
                "agent is does not change with where it was seen first."
            )
        sizes = [site.size for site in self.sites]
        if len(lead) > len(sizes):
            raise ValueError(
                f"the {name} that the program returns has {value.ndim} axes; a reward has "
                f"{n_axes}, and each of {len(sizes)} agent-level sites adds one in front."
            )
        wide = value.reshape(*[1] * (len(sizes) - len(lead)), *lead, *rest)
        return wide.expand(*sizes, *rest).reshape(self.size, *rest)


class NodesMet(Messenger):
    """Give the sites of the agents' level their nodes, unseen by the handlers outside.

    Parameters
    ----------
    shape : tuple of int
        Of a reward table, (C, T, S, A) or (T, S, A).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.sites: list[Site] = []
        self._logs: list[Tensor] = []
        self._names: list[str] = []
        self._agents_axis: int | None = None  # number of axes right of it

    def _pyro_sample(self, msg: Any) -> None:
        options = (msg["infer"] or {}).get(AGENT_LEVEL)
        if options is None:
            return
        name, law = msg["name"], msg["fn"]
        if name in self._names:
            raise ValueError(f"two sites of the agents' level are called {name!r}; rename one.")
        self._names.append(name)
        if options.sampled:
            value = self._sampled(name, law, options.agents)
        else:
            value = self._summed(name, law, options)
        msg["value"], msg["done"], msg["stop"] = value, True, True

    def _summed(self, name: str, law: Any, options: SiteOptions) -> Tensor:
        """Return the values of a site that is summed over, on an axis of its own."""
        n_axes = self._n_axes
        if isinstance(law, dist.Categorical):
            value, logs = _kinds(name, law, n_axes)
            self._add(Site(name, len(logs), True, options.known), logs)
            return value
        points, weights = standard_nodes(_dimension(name, law), options.nodes)
        value = _coefficient(name, law, n_axes, torch.from_numpy(points))
        logs = torch.from_numpy(np.log(weights)).reshape(-1, *[1] * n_axes)
        self._add(Site(name, len(logs), False), logs)
        return value

    def _sampled(self, name: str, law: Any, agents: tuple[str, ...] | None) -> Tensor:
        """Return values that are sampled, one per agent, on the axis of the agents.

        Agents are nodes of which each agent is known to be one, and all such sites share them.
        """
        if isinstance(law, dist.Categorical):
            raise ValueError(
                f"{name!r} is an unseen kind, and x.agents(sampled=True) samples numbers: kinds "
                "are summed over, exactly; declare it inside `with x.agents:`."
            )
        if agents is None:
            raise ValueError(
                f"x.agents(sampled=True) gives each agent of a panel a value of {name!r} of its "
                "own, and there are no agents here: a panel with rows is needed, in a "
                "TrajectoryModel; elsewhere take `with x.agents:`, which sums over nodes."
            )
        d, n = _dimension(name, law), len(agents)
        if self._agents_axis is None:
            self._agents_axis = self._n_axes
            logs = torch.zeros(n, *[1] * self._n_axes, dtype=torch.float64)
            self._add(Site(name, n, False, agents=agents), logs)
        many = len(law.event_shape) > 0
        prior = dist.Normal(0.0, 1.0).expand([n, d] if many else [n])
        prior = prior.to_event(2 if many else 1)
        entry = ((f"{name}_entry", tuple(range(d))),) if many else ()
        prior.entries = (("agent", agents), *entry)
        away = pyro.sample(f"{name}_deviation", prior, infer={ITSELF: True})
        return _coefficient(name, law, self._agents_axis, away.to(torch.float64).reshape(n, d))

    @property
    def _n_axes(self) -> int:
        """Number of axes right of the next site's own."""
        return len(self.shape) + 1 + len(self.sites)

    def _add(self, site: Site, logs: Tensor) -> None:
        """Add an axis for a site, with the log weights of its values."""
        self.sites.append(site)
        self._logs.append(logs)
        n_nodes = math.prod(site.size for site in self.sites)
        if n_nodes > MOST_NODES:
            raise ValueError(
                f"the agent-level sites {', '.join(s.name for s in self.sites)} have {n_nodes} "
                f"combinations of values, more than {MOST_NODES}: each costs a sweep over time. "
                "Take fewer nodes, `x.agents(nodes=5)`, or one MultivariateNormal site for "
                "several coefficients; sampled ones have a node for each agent."
            )

    def nodes(self) -> Nodes | None:
        """Return the nodes, once the program has run; None where there is no such site."""
        if not self.sites:
            return None
        *lead, _, S, _ = self.shape
        n_cells = math.prod(lead)
        sizes = [site.size for site in reversed(self.sites)]
        logs = torch.zeros((), dtype=torch.float64)
        for site, one in zip(self.sites, self._logs, strict=True):
            _check_share(site, one, self.shape)
            logs = logs + one
        whole = (*sizes, S, *lead, 1, 1, 1)
        by_first = logs.expand(whole).reshape(-1, S, n_cells)
        stacked = by_first.transpose(1, 2).reshape(-1, n_cells * S)
        return Nodes(tuple(reversed(self.sites)), stacked)


def _kinds(name: str, law: Any, n_axes: int) -> tuple[Tensor, Tensor]:
    """Return the kinds of a site on an axis in front of `n_axes` others, and their log shares."""
    logits = law.logits.to(torch.float64)
    n = logits.shape[-1]
    batch = law.batch_shape
    if len(batch) > n_axes:
        raise ValueError(
            f"the shares of {name!r} have the shape {tuple(logits.shape)}; they may differ by "
            "x.first_state, by type and by agent-level sites declared before, kinds last."
        )
    logs = logits.movedim(-1, 0).reshape(n, *[1] * (n_axes - len(batch)), *batch)
    kinds = Numbers(torch.arange(n).reshape(n, *[1] * n_axes), name)
    return kinds, logs


def _dimension(name: str, law: Any) -> int:
    """Return how many numbers a random coefficient has, else raise."""
    inner, n_events = _innermost(law)[0], len(getattr(law, "event_shape", ()))
    if not isinstance(inner, (dist.Normal, dist.MultivariateNormal)):
        raise TypeError(
            f"the agent-level site {name!r} has the law {type(law).__name__}; it must be "
            "Categorical (an unseen kind), or Normal, LogNormal or MultivariateNormal (a random "
            "coefficient)."
        )
    if n_events > 1:
        raise ValueError(
            f"the agent-level site {name!r} must be a number or a vector for an agent."
        )
    return int(law.event_shape[0]) if n_events else 1


def _innermost(law: Any) -> tuple[Any, list[Any]]:
    """Return the normal law that a coefficient's is made of, and what it is sent through."""
    transforms: list[Any] = []
    while type(law).__name__ in ("Independent", "ExpandedDistribution", "LogNormal"):
        transforms = [*(getattr(law, "transforms", None) or []), *transforms]
        law = law.base_dist
    return law, transforms


def _coefficient(name: str, law: Any, n_axes: int, points: Tensor) -> Tensor:
    """Return a coefficient at standard normal points (Q, d), on an axis left of `n_axes` others."""
    inner, transforms = _innermost(law)
    batch, d = len(law.batch_shape), points.shape[1]
    if batch > n_axes:
        raise ValueError(
            f"the law of {name!r} has the batch shape {tuple(law.batch_shape)}; it may differ by "
            "type and by agent-level sites declared before; coefficients that are sampled are "
            "declared one after the other."
        )
    z = points.reshape(len(points), *[1] * n_axes, d)
    if isinstance(inner, dist.MultivariateNormal):
        value = inner.loc + (inner.scale_tril @ z[..., None])[..., 0]
    elif law.event_shape:
        value = inner.loc + inner.scale * z
    else:
        value = inner.loc + inner.scale * z[..., 0]
    for transform in transforms:
        value = transform(value)
    return value


def standard_nodes(d: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes (Q, d) and weights (Q,) for means over a standard normal vector.

    Gauss-Hermite's in one and two dimensions, of `nodes` each; above, that many points of a
    scrambled Sobol sequence (rounded up to a power of two), all of one weight.
    """
    if d <= EXACT_UP_TO:
        line, weight = np.polynomial.hermite_e.hermegauss(nodes)
        weight = weight / weight.sum()
        mesh = np.stack([m.ravel() for m in np.meshgrid(*[line] * d, indexing="ij")], axis=1)
        product = np.prod(np.stack(np.meshgrid(*[weight] * d, indexing="ij")), axis=0)
        return mesh, product.ravel()
    power = max(1, math.ceil(math.log2(nodes)))
    uniform = scipy.stats.qmc.Sobol(d, scramble=True, rng=0).random_base2(power)
    return scipy.stats.norm.ppf(uniform), np.full(2**power, 0.5**power)


def _check_share(site: Site, logs: Tensor, shape: tuple[int, ...]) -> None:
    """Raise a `ValueError` where shares read what is no property of an agent."""
    *lead, _, _, _ = shape
    wide = [n for n in logs.shape[-3:] if n != 1]
    if wide:
        raise ValueError(
            f"the shares of {site.name!r} differ by time, state or action; they may read "
            "x.first_state and types: what an agent is does not change."
        )
    if lead and logs.shape[-4] not in (1, *lead):
        raise ValueError(
            f"the shares of {site.name!r} have {logs.shape[-4]} types; there are {lead}."
        )
