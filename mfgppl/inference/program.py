"""A reward program over one flat vector of unconstrained parameters."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from mfgppl._arguments import suggestion
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import check_shape, double_precision, is_parameter, spread_reward


class Site(NamedTuple):
    """Where a latent site stands in the flat unconstrained vector.

    Attributes
    ----------
    name : str
        The site.
    shape : tuple of int
        Shape of its value.
    free_shape : tuple of int
        Shape of its unconstrained value.
    start, stop : int
        Its place in the flat vector.
    """

    name: str
    shape: tuple[int, ...]
    free_shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of unconstrained values."""
        return self.stop - self.start


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
        The reward table.
    """

    log_prior: Tensor
    log_jacobian: Tensor
    values: dict[str, Tensor]
    deterministics: dict[str, Tensor]
    site_log_priors: dict[str, Tensor]
    reward: Tensor


class _Substitute(Messenger):
    """Give latent sites their values from a function of the site."""

    def __init__(self, value_of: Callable[[str, Any], Tensor]) -> None:
        super().__init__()
        self.value_of = value_of

    def _pyro_sample(self, msg: Any) -> None:
        if is_parameter(msg):
            msg["value"] = self.value_of(msg["name"], msg["fn"])
            msg["done"] = True


class Program:
    """A model's reward program as functions of one flat vector of unconstrained parameters.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    """

    def __init__(self, model: TrajectoryModel) -> None:
        self.model = model
        self.sites: list[Site] = []
        start = 0
        for name, (shape, free_shape) in self._shapes().items():
            stop = start + int(np.prod(free_shape, dtype=int))
            self.sites.append(Site(name, shape, free_shape, start, stop))
            start = stop
        self.n_dim = start

    def run(self, parts: Sequence[Tensor], *, mean_field: Tensor | None = None) -> Run:
        """Run the program at the unconstrained values of its sites, along the model's flow.

        Or along another, of any shape with as many entries.
        """
        inputs = self.model.inputs
        if mean_field is not None:
            game = self.model.game
            inputs = RewardInputs(game, mean_field.reshape(game.flow_shape))
        free = {site.name: part for site, part in zip(self.sites, parts, strict=True)}
        jacobian = []

        def value_of(name: str, fn: Any) -> Tensor:
            transform = biject_to(fn.support)
            value = transform(free[name])
            jacobian.append(transform.log_abs_det_jacobian(free[name], value).sum())
            return value

        with pyro.poutine.block(), pyro.poutine.trace() as tracer, _Substitute(value_of):
            reward = spread_reward(self.model.reward, inputs)
        values, deterministics, priors = {}, {}, {}
        for name, node in tracer.trace.nodes.items():
            if node["type"] != "sample" or type(node["fn"]).__name__ == "_Subsample":
                continue
            if node["infer"].get("_deterministic"):
                deterministics[name] = node["value"]
                continue
            with _unvalidated(node["fn"]):
                log_prob = node["fn"].log_prob(node["value"])
            priors[name] = scale_and_mask(log_prob, node["scale"], node["mask"]).sum()
            if name in free:
                values[name] = node["value"]
        return Run(
            functools.reduce(torch.add, priors.values()),
            functools.reduce(torch.add, jacobian),
            values,
            deterministics,
            {k: v for k, v in priors.items() if k in values},
            self.model.masked(reward),
        )

    def split(self, theta: Any) -> list[Any]:
        """Return a flat vector (an array or a tensor) as the unconstrained values by site."""
        return [
            theta[s.start : s.stop].reshape(s.free_shape) if s.free_shape else theta[s.start]
            for s in self.sites
        ]

    def by_site(self, values: Any) -> dict[str, Any]:
        """Return flat constrained values (an array or a tensor) by site."""
        found, start = {}, 0
        for site in self.sites:
            stop = start + math.prod(site.shape)
            found[site.name] = values[start:stop].reshape(site.shape)
            start = stop
        return found

    def flat_values(self, recorded: np.ndarray) -> np.ndarray:
        """Return the constrained values (N, K) that rows of a record begin with."""
        return recorded[:, : sum(math.prod(site.shape) for site in self.sites)]

    def entry_names(self) -> list[str]:
        """One name a constrained parameter, site by site."""
        return [name for s in self.sites for name in _entry_names(s.name, s.shape)]

    def reward_at(self, values: dict[str, Tensor]) -> Tensor:
        """Return the reward table at constrained parameters."""
        with pyro.poutine.block(), _Substitute(lambda name, fn: values[name]):
            return spread_reward(self.model.reward, self.model.inputs)

    def check_values(self, argument: str, values: Any, *, complete: bool) -> dict[str, Any]:
        """Return values by site, else raise what is wrong with them in the user's terms.

        Parameters
        ----------
        argument : str
            What the caller calls them.
        values : mapping of str to value
            Constrained values.
        complete : bool
            Whether each site must have one.
        """
        if not isinstance(values, Mapping):
            raise TypeError(
                f"`{argument}` must be a mapping of parameters to values; got {values!r}."
            )
        names = [s.name for s in self.sites]
        for name in values:
            if name not in names:
                hint = suggestion(name, names)
                known = ", ".join(names)
                raise ValueError(f"`{argument}` names {name!r}; the parameters are {known}.{hint}")
        missing = [n for n in names if n not in values]
        if complete and missing:
            raise ValueError(f"`{argument}` lacks the parameter {missing[0]!r}.")
        return {k: np.asarray(v, dtype=float) for k, v in values.items()}

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

        with double_precision(), pyro.poutine.block(), _Substitute(value_of):
            spread_reward(self.model.reward, self.model.inputs)
        return torch.cat([parts[s.name] for s in self.sites]).numpy()

    def draw(self, seed: int) -> np.ndarray:
        """Draw unconstrained parameters from the prior."""
        with double_precision(), torch.random.fork_rng(devices=[]), pyro.poutine.trace() as tracer:
            torch.manual_seed(seed)
            with pyro.poutine.block(expose=[s.name for s in self.sites]):
                spread_reward(self.model.reward, self.model.inputs)
        return self.free({s.name: tracer.trace.nodes[s.name]["value"] for s in self.sites})

    def priors(self) -> dict[str, str]:
        """Describe the prior of each site: its family and its numbers, unless these vary."""
        first, second = self._distributions(0), self._distributions(1)
        return {s.name: _described(first[s.name], second[s.name]) for s in self.sites}

    def _distributions(self, seed: int) -> dict[str, Any]:
        """Return each site's distribution at one draw of the parameters before it."""
        names = [s.name for s in self.sites]
        with double_precision(), torch.random.fork_rng(devices=[]), pyro.poutine.trace() as tracer:
            torch.manual_seed(seed)
            with pyro.poutine.block(expose=names):
                spread_reward(self.model.reward, self.model.inputs)
        return {name: tracer.trace.nodes[name]["fn"] for name in names}

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        with double_precision(), torch.random.fork_rng(devices=[]), pyro.poutine.trace() as tracer:
            torch.manual_seed(0)
            spread_reward(self.model.reward, self.model.inputs)
            return {
                name: (tuple(node["value"].shape), _free_shape(node["fn"], node["value"]))
                for name, node in tracer.trace.nodes.items()
                if is_parameter(node)
            }


def _free_shape(fn: Any, value: Tensor) -> tuple[int, ...]:
    return tuple(biject_to(fn.support).inv(value).shape)  # inverse_shape would import sympy


@contextmanager
def _unvalidated(fn: Any) -> Iterator[None]:
    """Let a distribution made elsewhere skip its checks, which cannot be traced."""
    changed = []
    while fn is not None:
        changed.append((fn, fn.__dict__.get("_validate_args")))
        fn._validate_args = False
        fn = getattr(fn, "base_dist", None)
    try:
        yield
    finally:
        for inner, before in changed:
            if before is None:
                inner.__dict__.pop("_validate_args", None)
            else:
                inner._validate_args = before


def _described(fn: Any, again: Any) -> str:
    """Return a distribution as text; a number that another draw changes depends on others."""
    inner, other = _innermost(fn), _innermost(again)
    shown = []
    for name in inner.arg_constraints:
        value, twin = getattr(inner, name, None), getattr(other, name, None)
        if not isinstance(value, Tensor) or not isinstance(twin, Tensor):
            continue
        flat = value.detach().reshape(-1)
        if not torch.equal(value.detach(), twin.detach()):
            text = "(depends on other parameters)"
        elif flat.numel() and bool((flat == flat[0]).all()):
            text = f"{flat[0]:.4g}"
        else:
            text = "..."
        shown.append(f"{name}={text}")
    shape = tuple(fn.batch_shape + fn.event_shape)
    size = f", shape {shape}" if shape else ""
    return f"{type(inner).__name__}({', '.join(shown)}){size}"


def _innermost(fn: Any) -> Any:
    """Return a distribution without the wrappers that only arrange its shape."""
    while type(fn).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        fn = fn.base_dist
    return fn


def _entry_names(name: str, shape: tuple[int, ...]) -> list[str]:
    if not shape:
        return [name]
    return [f"{name}[{', '.join(map(str, index))}]" for index in np.ndindex(*shape)]
