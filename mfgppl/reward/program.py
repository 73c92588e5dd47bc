"""Reward programs: Pyro programs from inputs to a reward table."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to, transform_to
from torch.distributions.constraints import MixtureSameFamilyConstraint
from torch.overrides import TorchFunctionMode

from mfgppl._modes import double_precision as double_precision
from mfgppl._modes import seeded
from mfgppl.game import MeanFieldGame
from mfgppl.reward.agents import AGENT_LEVEL
from mfgppl.reward.behaviour import Asked, Declared, as_reward
from mfgppl.reward.coordinates import as_index
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.nodes import Nodes, NodesMet
from mfgppl.reward.preferences import Preferences, check_parts
from mfgppl.reward.remedies import with_remedy
from mfgppl.reward.site_values import ByLabel, in_shape, site_values

RewardProgram = Callable[[RewardInputs], Any]


def _of_components(support: MixtureSameFamilyConstraint, registry: Any) -> Any:
    """Return the map onto the support of a mixture: its components' one."""
    return registry(support.base_constraint)


for _registry in (biject_to, transform_to):  # torch has no map onto a mixture's support
    _registry.register(
        MixtureSameFamilyConstraint, functools.partial(_of_components, registry=_registry)
    )


class _InDouble(Messenger):
    """Make sampled values float64 whatever the type of their prior's numbers.

    A Delta site has one value: it is observed, for guides and samplers alike.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and isinstance(msg["fn"], dist.ImproperUniform):
            raise ValueError(
                f"the latent site {msg['name']!r} has the prior ImproperUniform, from which "
                "nothing can be drawn; give it a proper one that is as wide as makes sense, as "
                "Normal(0.0, 10.0)."
            )
        if not msg["is_observed"] and isinstance(innermost(msg["fn"]), dist.Delta):
            msg["value"], msg["is_observed"] = msg["fn"](), True

    def _pyro_post_sample(self, msg: Any) -> None:
        if isinstance(msg["value"], Tensor) and msg["value"].is_floating_point():
            msg["value"] = msg["value"].to(torch.float64)


class _AsMeant(TorchFunctionMode):
    """Read expressions of a program as they are meant.

    Conditions are numbers, 0 or 1, where they are reckoned with; axes pick entries of a tensor by
    position; and quotients are rounded down by an operation that has a derivative, zero, as that
    of `//` has none.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func == Tensor.__getitem__:
            args = args[0], as_index(args[1])
        if func in ARITHMETIC:
            args = tuple(map(_as_number, args))
        if func in (torch.floor_divide, Tensor.floor_divide, Tensor.__floordiv__):
            return torch.div(*args, **(kwargs or {}), rounding_mode="floor")
        if func == Tensor.__rfloordiv__:
            return torch.div(args[1], args[0], rounding_mode="floor")
        return func(*args, **(kwargs or {}))


ARITHMETIC = {
    getattr(of, name)
    for of, names in (
        (torch, ("add", "sub", "neg", "mul")),
        (Tensor, ("add", "sub", "neg", "mul", "__add__", "__radd__", "__sub__", "__rsub__",
                  "__neg__", "__mul__", "__rmul__")),
    )
    for name in names
}  # fmt: skip


def _as_number(value: Any) -> Any:
    """Return a condition as numbers, anything else as it is."""
    condition = type(value) is Tensor and value.dtype == torch.bool
    return value.to(torch.float64) if condition else value


def check_prior(name: str, prior: Any) -> None:
    """Raise a `TypeError` where a prior is no distribution."""
    if isinstance(prior, type) or not hasattr(prior, "log_prob"):
        raise TypeError(f"the prior of {name!r} must be a Pyro distribution; got {prior!r}.")


class Drawn(Messenger):
    """Note values of sites by the program's names, whatever handlers outside call them."""

    def __init__(self) -> None:
        super().__init__()
        self._met: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        check_prior(msg["name"], msg["fn"])
        self._met[msg["name"]] = msg

    def values(self) -> dict[str, Tensor]:
        """Return the value of each site, once the program has run."""
        return {name: msg["value"] for name, msg in self._met.items()}


class _Again(Messenger):
    """Give sites the values that another run met."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.values:
            raise ValueError(
                f"the reward program has the latent site {msg['name']!r} in some runs only; "
                "declare all sites in each run, whatever the crowd."
            )
        msg["value"], msg["done"] = self.values[msg["name"]], True


class _Given(Messenger):
    """Observe sites at given values, whose shapes are checked where they are met."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values = values
        self.placed: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.values or is_agent_level(msg):
            return
        shape = tuple(msg["fn"].batch_shape + msg["fn"].event_shape)
        entries = getattr(msg["fn"], "entries", None)
        given = in_shape("parameters", msg["name"], self.values[msg["name"]], shape, entries)
        value = torch.as_tensor(given, dtype=torch.float64)
        check_shape("parameters", msg["name"], value, msg["fn"])
        msg["value"], msg["is_observed"] = value, True
        self.placed[msg["name"]] = value


class Ran(NamedTuple):
    """What one run of a program returned.

    Attributes
    ----------
    declared : Declared
        What it returned; with agent-level sites its parts have axes for them in front.
    nodes : Nodes or None
        The values of agent-level sites, if there are any.
    """

    declared: Declared
    nodes: Nodes | None

    def each(self) -> list[Declared]:
        """Return what the agents of each node are."""
        if self.nodes is None:
            return [self.declared]
        preferences, inputs, ask = self.declared
        if isinstance(inputs.game.beliefs, int):
            raise ValueError(
                "agents of kinds that are not seen cannot have beliefs of a level: what those "
                "below them do is not one flow; use beliefs='equilibrium' or 'static'."
            )
        nodes, n_axes = self.nodes, len(inputs.shape)

        def ask_of(n: int) -> Asked:
            return lambda along: nodes.preferences(ask(along), n_axes)[n]

        each = nodes.preferences(preferences, n_axes)
        return [Declared(own, inputs, ask_of(n)) for n, own in enumerate(each)]


def ran(program: RewardProgram, inputs: RewardInputs) -> Ran:
    """Run a program, with all values of its agent-level sites."""
    check_callable(program)
    with Drawn() as met, NodesMet(inputs.shape) as level, _InDouble(), _AsMeant(), with_remedy():
        value = program(inputs)

    def ask(along: RewardInputs) -> Preferences:
        again = _Again(met.values())
        with (
            pyro.poutine.block(),
            again,
            NodesMet(along.shape),
            _InDouble(),
            _AsMeant(),
            with_remedy(),
        ):
            return as_preferences(program(along))

    return Ran(Declared(as_preferences(value), inputs, ask), level.nodes())


def asked(program: RewardProgram, inputs: RewardInputs) -> Declared:
    """Return what a program declares along a flow.

    Raises
    ------
    ValueError
        If it has agent-level sites, and so no one table for all.
    """
    declared, nodes = ran(program, inputs)
    if nodes is not None:
        raise ValueError(
            f"the reward program has the agent-level site {nodes.sites[-1].name!r}, so that agents "
            "are of several kinds, and this takes agents of one. mfg.kinds.as_types(game, reward, "
            "parameters) returns the game in which the kind is a type that is seen."
        )
    return declared


def as_preferences(value: Any) -> Preferences:
    """Return what a program returned as preferences; what is no such thing is a reward."""
    return value if isinstance(value, Preferences) else Preferences(value)


def meet_sites(program: RewardProgram, inputs: RewardInputs) -> None:
    """Run a reward program for its sites alone."""
    ran(program, inputs)


class Answered(NamedTuple):
    """The tables that agents answer.

    Attributes
    ----------
    reward : Tensor, shape (T, S, A), or (N, T, S, A) with agent-level sites of N nodes
        The reward whose soft best response is what agents do; with types, S counts pairs of type
        and state.
    log_weights : Tensor, shape (N, S), or None
        Log probability of each node given the first state seen, where there are such sites.
    """

    reward: Tensor
    log_weights: Tensor | None

    @property
    def core(self) -> Tensor:
        """What a law reads: the reward, (T, S, A), or with agent-level sites all, (1, 1, n)."""
        if self.log_weights is None:
            return self.reward
        return torch.cat([self.reward.reshape(-1), self.log_weights.reshape(-1)])[None, None]


def answered(program: RewardProgram, inputs: RewardInputs, *, checked: bool = False) -> Answered:
    """Run a reward program and return the tables that agents answer.

    Without checks, or with those of `reward_table`.
    """
    run = ran(program, inputs)
    tables = [checked_table(own) if checked else as_reward(own) for own in run.each()]
    if run.nodes is None:
        return Answered(tables[0], None)
    return Answered(torch.stack(tables), run.nodes.log_weights)


def nodes_of(program: RewardProgram, inputs: RewardInputs) -> Nodes | None:
    """Return the nodes of a program's agent-level sites at parameters drawn, None without any."""
    with double_precision(), seeded(0), pyro.poutine.block():
        return ran(program, inputs).nodes


def spread_reward(program: RewardProgram, inputs: RewardInputs) -> Tensor:
    """Run a reward program and return the table (T, S, A) that agents answer, without checks.

    With types, S counts pairs of type and state.
    """
    check_callable(program)
    return as_reward(asked(program, inputs))


def reward_table(program: RewardProgram, inputs: RewardInputs) -> Tensor:
    """Run a reward program and check what it returns.

    Parameters
    ----------
    program : callable
        A Pyro program of the inputs; its sample sites are the reward parameters.
    inputs : RewardInputs
        The game along a flow.

    Returns
    -------
    Tensor, shape (T, S, A)
        The reward, in reward units, that of the last decision with the expected terminal value;
        or, where agents are more than soft maximisers of it, the reward whose soft best response
        is what they do.

    Raises
    ------
    TypeError
        If the program returns no tensor or number, or `Preferences` of other things.
    ValueError
        If a part does not broadcast or is out of its range, or the reward is not finite somewhere;
        if the game has no place for a part.
    """
    check_callable(program)
    return checked_table(asked(program, inputs))


def checked_table(declared: Declared) -> Tensor:
    """Return the table that agents answer, its parts and entries checked."""
    check_parts(declared.preferences, declared.inputs)
    reward = as_reward(declared)
    check_finite(reward, declared.game)
    return reward


def check_finite(reward: Tensor, game: MeanFieldGame) -> None:
    """Raise a `ValueError` that says where a reward is not finite."""
    reward = reward.detach()
    broken = (~torch.isfinite(reward)).nonzero()
    if len(broken):
        t, s, a = broken[0].tolist()
        raise ValueError(
            f"the reward is not finite at {len(broken)} of {reward.numel()} entries, first at "
            f"time={t}, state={game.space.labels[s]!r}, action={game.actions[a]!r}: "
            f"{reward[t, s, a]:g}."
        )


def bind(program: RewardProgram, parameters: Mapping[str, Any]) -> RewardProgram:
    """Return a reward program with its parameters fixed.

    Parameters
    ----------
    program : callable
        The reward program.
    parameters : mapping of str to number or array
        A value for each latent site.

    Returns
    -------
    callable
        A program without latent sites.

    Raises
    ------
    ValueError
        If a value is given for a site that the program lacks, or a site is left without one.
    """
    check_callable(program)
    data = dict(parameters)

    def bound(inputs: RewardInputs) -> Any:
        with pyro.poutine.trace() as tracer, _Given(data):
            value = program(inputs)
        sites = set(parameters_among(tracer.trace.nodes))
        fixed = {k for k, s in tracer.trace.nodes.items() if k in data and s["type"] == "sample"}
        if sites or set(data) - fixed:
            missing, strange = sorted(sites), sorted(set(data) - fixed)
            what = f"lack {missing}" if missing else f"name {strange}, which the reward lacks"
            raise ValueError(f"`parameters` {what}; the reward has {sorted(sites | fixed)}.")
        return value

    def hidden(inputs: RewardInputs) -> Any:
        with pyro.poutine.block(hide_fn=lambda site: not is_agent_level(site)):
            return bound(inputs)

    return hidden


def placed_values(program: RewardProgram, game: MeanFieldGame, parameters: Any) -> dict[str, Any]:
    """Return values by site, entries that came by label in the order of their sites."""
    values = site_values("parameters", parameters)
    if not any(isinstance(value, ByLabel) for value in values.values()):
        return values
    still = game.initial[:, None] / game.n_actions if game.joint else game.initial
    given = _Given(values)
    with double_precision(), torch.no_grad(), pyro.poutine.block(), given:
        ran(program, RewardInputs(game, still.expand(game.flow_shape)))
    return {**values, **given.placed}


def check_shape(argument: str, name: str, value: Tensor, fn: Any) -> None:
    """Raise a `ValueError` if a site's value has not the shape of its distribution."""
    expected = tuple(fn.batch_shape + fn.event_shape)
    if tuple(value.shape) != expected:
        raise ValueError(
            f"`{argument}` gives {name!r} the shape {tuple(value.shape)}; its site has {expected}."
        )


def check_callable(program: Any, argument: str = "reward") -> None:
    """Raise a `TypeError` if a reward is no program."""
    if not callable(program) or isinstance(program, type):
        raise TypeError(
            f"`{argument}` must be a reward program, a function of its inputs x; got {program!r}."[
                :300
            ]
        )


def is_parameter(site: Mapping[str, Any]) -> bool:
    """Return whether a site of a trace is a latent reward parameter.

    A Delta site is not: it has one value, which is used as it is.
    """
    if site["type"] != "sample" or site["is_observed"] or is_subsample(site):
        return False
    if is_agent_level(site):
        return False
    return not isinstance(innermost(site["fn"]), dist.Delta)


def parameters_among(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nodes of a trace that are latent reward parameters, in the program's order."""
    return {name: site for name, site in nodes.items() if is_parameter(site)}


def is_agent_level(site: Mapping[str, Any]) -> bool:
    """Return whether a site, or a message, has one value for each agent, which is summed over."""
    return AGENT_LEVEL in (site.get("infer") or {})


def innermost(fn: Any) -> Any:
    """Return a distribution without the wrappers that only arrange its shape."""
    while type(fn).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        fn = fn.base_dist
    return fn


def is_subsample(site: Mapping[str, Any]) -> bool:
    """Return whether a site of a trace is the index of a plate."""
    return type(site["fn"]).__name__ == "_Subsample"
