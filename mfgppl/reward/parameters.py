"""A reward program over one flat vector of unconstrained parameters."""

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.distributions import biject_to

from mfgppl._arguments import torch_seed
from mfgppl._keep import Keeper, keep
from mfgppl._modes import seeded
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.names import check_site_names
from mfgppl.reward.nodes import Nodes
from mfgppl.reward.priors import description, is_standard_normal, same_law, spread
from mfgppl.reward.program import (
    Answered,
    RewardProgram,
    answered,
    check_callable,
    check_shape,
    double_precision,
    is_subsample,
    meet_sites,
    nodes_of,
    parameters_among,
    spread_reward,
)
from mfgppl.reward.running import Substitute, run_at
from mfgppl.reward.site_values import Site
from mfgppl.reward.valued import answers_reward

FIRST_SEEDS = range(20)


class Run(NamedTuple):
    """What one run of a reward program at unconstrained parameters gives.

    Attributes
    ----------
    log_prior : Tensor
        Log density of the parameters and of factors in the program.
    log_jacobian : Tensor
        Log determinant of the map from unconstrained to constrained parameters.
    values : dict of str to Tensor
        Constrained parameters.
    deterministics : dict of str to Tensor
        What the program records with `pyro.deterministic`.
    site_log_priors : dict of str to Tensor
        Log prior by site.
    reward : Tensor, shape (T, S, A)
        The reward table; with agent-level sites all that the law reads, (1, 1, n).
    n_log_priors : int
        How many log densities the log prior adds up: of parameters, factors and observed sites.
    """

    log_prior: Tensor
    log_jacobian: Tensor
    values: dict[str, Tensor]
    deterministics: dict[str, Tensor]
    site_log_priors: dict[str, Tensor]
    reward: Tensor
    n_log_priors: int

    @property
    def flat_values(self) -> Tensor:
        """Constrained parameters, flat (P,), site by site."""
        return torch.cat([value.reshape(-1) for value in self.values.values()])


def latent_sites(reward: RewardProgram, inputs: RewardInputs) -> dict[str, torch.Size]:
    """Run a program once, with random numbers of its own, and note its latent sites.

    Returns
    -------
    dict of str to Size
        Shape of the value of each site, in the order of the program.

    Raises
    ------
    TypeError
        If the program is not callable, or returns no tensor or number.
    ValueError
        If it has no latent site, one that is discrete or has no prior, or a name that results use.
    """
    check_callable(reward)
    with double_precision(), seeded(0), pyro.poutine.trace() as tracer:
        answered(reward, inputs, checked=True)
    check_site_names(tracer.trace.nodes)
    for name, site in tracer.trace.nodes.items():
        if site["type"] == "param":
            raise ValueError(
                f"the reward program has the `pyro.param` site {name!r}, which has no prior; "
                "declare it with `pyro.sample` (for a network: PyroModule with PyroSample)."
            )
    sites = parameters_among(tracer.trace.nodes)
    for name, site in sites.items():
        if getattr(site["fn"].support, "is_discrete", False):
            raise ValueError(
                f"the latent site {name!r} is discrete ({type(site['fn']).__name__}); "
                "reward parameters must be continuous. What kind an agent is and nobody sees is "
                "declared inside `with x.agents:`."
            )
    if not sites:
        raise ValueError(
            "the reward program has no latent site: declare its parameters with `pyro.sample`."
        )
    return {name: site["value"].shape for name, site in sites.items()}


def labelled_entries(reward: RewardProgram, inputs: RewardInputs) -> dict[str, Any]:
    """Return of what the entries of sites are, and their labels, where priors say so."""
    return {s.name: s.entries for s in Program(reward, inputs).sites if s.entries is not None}


def is_latent(names: Collection[str], site: Any) -> bool:
    """Return whether a site is a latent parameter, or says how many there are of one."""
    return site["type"] == "sample" and (site["name"] in names or is_subsample(site))


class Program(Keeper):
    """A reward program as functions of one flat vector of unconstrained parameters.

    Parameters
    ----------
    reward : callable
        The reward program.
    inputs : RewardInputs
        What it sees: the game along a flow.
    """

    def __init__(self, reward: RewardProgram, inputs: RewardInputs) -> None:
        self.reward, self.inputs, self.game = reward, inputs, inputs.game
        self.mean_field = inputs.whole_flow
        self._forbidden = ~self.game.available
        self._forbids = bool(self._forbidden.any())
        self.sites: list[Site] = []
        start = 0
        for name, (shape, free_shape, entries) in self._shapes().items():
            stop = start + int(np.prod(free_shape, dtype=int))
            self.sites.append(Site(name, shape, free_shape, start, stop, entries))
            start = stop
        self.n_dim = start

    def run(self, parts: Sequence[Tensor], *, mean_field: Tensor | None = None) -> Run:
        """Run the program at the unconstrained values of its sites, along its inputs' flow.

        Or along another, of any shape with as many entries.
        """
        inputs = self.inputs
        if mean_field is not None:
            inputs = inputs.along(mean_field.reshape(self.game.flow_shape))
        free = {site.name: part for site, part in zip(self.sites, parts, strict=True)}
        jacobian = []

        def value_of(name: str, fn: Any) -> Tensor:
            transform = biject_to(fn.support)
            value = transform(free[name])
            jacobian.append(transform.log_abs_det_jacobian(free[name], value).sum())
            return value

        met = run_at(self.reward, inputs, value_of)
        return Run(
            functools.reduce(torch.add, met.log_priors.values()),
            functools.reduce(torch.add, jacobian),
            met.values,
            met.deterministics,
            {name: met.log_priors[name] for name in met.values},
            self.core(met.answer),
            len(met.log_priors),
        )

    def at(self, theta: Tensor, *, mean_field: Tensor | None = None) -> Run:
        """Run the program at a flat unconstrained vector."""
        return self.run(self.split(theta), mean_field=mean_field)

    def masked(self, reward: Tensor) -> Tensor:
        """Return a reward with -inf where an action is not available."""
        return reward.masked_fill(self._forbidden, -torch.inf) if self._forbids else reward

    def core(self, answer: Answered) -> Tensor:
        """Return what a law reads of the tables that agents answer, -inf where none may act."""
        return answer._replace(reward=self.masked(answer.reward)).core

    def split(self, theta: Any) -> list[Any]:
        """Return a flat vector (an array or a tensor) as the unconstrained values by site."""
        return [
            theta[s.start : s.stop].reshape(s.free_shape) if s.free_shape else theta[s.start]
            for s in self.sites
        ]

    def by_site(self, values: Any) -> dict[str, Any]:
        """Return flat constrained values (an array or a tensor) by site."""
        sites, start = {}, 0
        for site in self.sites:
            stop = start + math.prod(site.shape)
            sites[site.name] = values[start:stop].reshape(site.shape)
            start = stop
        return sites

    def flat_values(self, recorded: np.ndarray) -> np.ndarray:
        """Return the constrained values (N, K) that rows of a record begin with."""
        return recorded[:, : sum(math.prod(site.shape) for site in self.sites)]

    def entry_names(self) -> list[str]:
        """One name a constrained parameter, site by site."""
        return [name for site in self.sites for name in site.entry_names]

    def table(self, theta: Tensor, inputs: RewardInputs | None = None) -> Tensor:
        """Return the reward (T, S, A) at a flat unconstrained vector, by default along its inputs.

        It is differentiable, and finite where an action is not available.
        """
        free = dict(zip((s.name for s in self.sites), self.split(theta), strict=True))
        substitute = Substitute(lambda name, fn: biject_to(fn.support)(free[name]))
        with pyro.validation_enabled(False), pyro.poutine.block(), substitute:
            return spread_reward(self.reward, self.inputs if inputs is None else inputs)

    def values_at(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Return the constrained values by site of a flat unconstrained vector."""
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            values = self.at(torch.as_tensor(theta)).values
        return {s.name: values[s.name].numpy().copy() for s in self.sites}

    def core_at(self, values: dict[str, Tensor]) -> Tensor:
        """Return what a law reads of a run at constrained parameters."""
        with pyro.poutine.block(), Substitute(lambda name, fn: values[name]):
            return self.core(answered(self.reward, self.inputs))

    def flat_core(self, values: Tensor) -> Tensor:
        """Return the same, flat, at flat constrained parameters (P,)."""
        return self.core_at(self.by_site(values)).reshape(-1)

    def free(self, values: Mapping[str, Any], *, argument: str = "values") -> np.ndarray:
        """Return the flat unconstrained vector of constrained parameters.

        Raises
        ------
        ValueError
            If a value has not the shape of its site or lies outside its support.
        """
        parts: dict[str, Tensor] = {}

        def value_of(name: str, fn: Any) -> Tensor:
            value = torch.tensor(np.asarray(values[name], dtype=float))
            check_shape(argument, name, value, fn)
            if not bool(fn.support.check(value).all()):
                raise ValueError(
                    f"`{argument}` gives {name!r} the value {value.tolist()}, outside the support "
                    f"of its prior, {fn.support}."
                )
            parts[name] = biject_to(fn.support).inv(value).reshape(-1)
            return value

        with double_precision(), pyro.poutine.block(), Substitute(value_of):
            meet_sites(self.reward, self.inputs)
        return torch.cat([parts[s.name] for s in self.sites]).numpy()

    def free_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the unconstrained vectors (N, n_dim) of rows of constrained parameters (N, P).

        All at once, unless the support of a site depends on the sites before it.
        """
        laws, parts, start = self._distributions(0), [], 0
        for site in self.sites:
            stop = start + math.prod(site.shape)
            values = torch.tensor(rows[:, start:stop]).reshape(-1, *site.shape)
            parts.append(biject_to(laws[site.name].support).inv(values).reshape(len(rows), -1))
            start = stop
        found = torch.cat(parts, dim=1).numpy()
        some = sorted({0, len(rows) // 2, len(rows) - 1})
        known = np.array([self.free(self.by_site(rows[k])) for k in some])
        if np.allclose(found[some], known, rtol=1e-9, atol=1e-12):
            return found
        return np.array([self.free(self.by_site(row)) for row in rows])

    def draw(self, seed: int) -> np.ndarray:
        """Draw unconstrained parameters from the prior; those of the first seeds are kept."""
        if seed in FIRST_SEEDS:  # where a fit begins, and where its program is looked at
            return keep(self, f"draw {seed}", lambda: self._draw(seed)).copy()
        return self._draw(seed)

    def draws(self, n: int) -> np.ndarray:
        """Return independent unconstrained parameters from the prior (n, n_dim).

        All at once, unless the prior of a site depends on the sites before it.
        """
        laws, others = self._distributions(0), self._distributions(1)
        if not all(same_law(laws[s.name], others[s.name]) for s in self.sites):
            return np.stack([self.draw(seed) for seed in range(n)])
        with double_precision(), seeded(torch_seed(0)), torch.no_grad():
            found = [(laws[s.name].support, laws[s.name].sample((n,))) for s in self.sites]
            free = [biject_to(support).inv(values).reshape(n, -1) for support, values in found]
        return torch.cat(free, dim=1).to(torch.float64).numpy()

    def _draw(self, seed: int) -> np.ndarray:
        met = self._drawn(seed)
        free = [biject_to(met[s.name]["fn"].support).inv(met[s.name]["value"]) for s in self.sites]
        return torch.cat([value.reshape(-1) for value in free]).to(torch.float64).numpy()

    def redraw(self, values: np.ndarray, names: Collection[str], seed: int) -> np.ndarray:
        """Return flat constrained parameters with some sites drawn anew, given the others."""
        given = self.by_site(torch.from_numpy(np.array(values, dtype=float)))

        def value_of(name: str, fn: Any) -> Tensor:
            return fn.sample().to(torch.float64) if name in names else given[name]

        with double_precision(), seeded(torch_seed(seed)), torch.no_grad():
            met = run_at(self.reward, self.inputs, value_of)
        return torch.cat([met.values[s.name].reshape(-1) for s in self.sites]).numpy()

    def priors(self) -> dict[str, str]:
        """Describe the prior of each site: its family and its numbers, unless these vary."""
        first, second = self._distributions(0), self._distributions(1)
        return {s.name: description(first[s.name], second[s.name]) for s in self.sites}

    def spreads(self) -> np.ndarray:
        """Return prior standard deviations (P,), NaN where priors depend on other parameters.

        NaN as well where a distribution does not know its own.
        """
        first, second = self._distributions(0), self._distributions(1)
        known = [spread(first[s.name], second[s.name], math.prod(s.shape)) for s in self.sites]
        return np.concatenate(known) if known else np.zeros(0)

    def _distributions(self, seed: int) -> dict[str, Any]:
        """Return each site's distribution at one draw of the parameters before it."""
        return {name: node["fn"] for name, node in self._drawn(seed).items()}

    def _drawn(self, seed: int) -> dict[str, Any]:
        """Return each site's node of a trace in which the parameters are drawn from the prior."""
        names = [s.name for s in self.sites]
        trace, alone = pyro.poutine.trace(), pyro.poutine.block(expose=names)
        with double_precision(), seeded(torch_seed(seed)), trace as tracer, alone:
            meet_sites(self.reward, self.inputs)
        return {name: tracer.trace.nodes[name] for name in names}

    def deviations(self) -> np.ndarray:
        """Return which unconstrained values are standard normal entries of one site, (K,).

        So a hierarchy is written that is not centred, as a mean and a spread times each entry: its
        prior is what the entries have in common, and is meant to decide.
        """
        mask = np.zeros(self.n_dim, dtype=bool)
        priors = self._distributions(0)
        for site in self.sites:
            standard = site.size > 1 and is_standard_normal(priors[site.name])
            mask[site.start : site.stop] = standard
        return mask

    @functools.cached_property
    def nodes(self) -> Nodes | None:
        """The nodes of agent-level sites, at parameters drawn; None without such sites."""
        return nodes_of(self.reward, self.inputs)

    @functools.cached_property
    def answers_reward(self) -> bool:
        """Whether agents are soft maximisers of the reward and its end, at any parameters."""
        return answers_reward(self.reward, self.inputs)

    @functools.cached_property
    def has_factors(self) -> bool:
        """Whether log densities beside those of the parameters are part of the prior."""
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            run = self.at(torch.from_numpy(self.draw(0)))
        return bool(run.n_log_priors > len(run.values))

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], Any]]:
        with double_precision(), seeded(0), pyro.poutine.trace() as tracer:
            meet_sites(self.reward, self.inputs)
            return {
                name: (
                    tuple(node["value"].shape),
                    _free_shape(node["fn"], node["value"]),
                    getattr(node["fn"], "entries", None),
                )
                for name, node in parameters_among(tracer.trace.nodes).items()
            }


def _free_shape(fn: Any, value: Tensor) -> tuple[int, ...]:
    return tuple(biject_to(fn.support).inv(value).shape)  # inverse_shape would import sympy
