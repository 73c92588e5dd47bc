"""Reward programs: Pyro programs from inputs to a reward table."""

import inspect
import threading
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from mfgppl._arguments import strict_keywords
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs

RewardProgram = Callable[[RewardInputs], Any]
_ONE_AT_A_TIME = threading.RLock()


class _InDouble(Messenger):
    """Make sampled values float64 whatever the type of their prior's numbers."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if isinstance(msg["value"], Tensor) and msg["value"].is_floating_point():
            msg["value"] = msg["value"].to(torch.float64)


def spread_reward(program: RewardProgram, inputs: RewardInputs) -> Tensor:
    """Run a reward program and spread what it returns to shape (T, S, A), without checks."""
    with _InDouble():
        value = program(inputs)
    return torch.as_tensor(value, dtype=torch.float64).broadcast_to(inputs.shape)


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
        The reward, in reward units.

    Raises
    ------
    TypeError
        If the program returns no tensor or number.
    ValueError
        If the reward does not broadcast to (T, S, A), or is not finite somewhere.
    """
    with _InDouble():
        value = program(inputs)
    if not isinstance(value, (Tensor, int, float)):
        raise TypeError(
            f"the reward program must return a tensor; got {type(value).__name__}."
            + (" Does it end with `return`?" if value is None else "")
        )
    value = torch.as_tensor(value, dtype=torch.float64)
    try:
        reward = value.broadcast_to(inputs.shape)
    except RuntimeError:
        raise ValueError(
            f"the reward must broadcast to (T, S, A) = {inputs.shape}; the program returned shape "
            f"{tuple(value.shape)}. Index the axes of a vector, as in w[:, None, None]."
        ) from None
    check_finite(reward, inputs._game)
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
    data = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in parameters.items()}

    def bound(inputs: RewardInputs) -> Any:
        with pyro.poutine.trace() as tracer, pyro.poutine.condition(data=data):
            value = program(inputs)
        for name, site in tracer.trace.nodes.items():
            if name in data and site["type"] == "sample":
                check_shape("parameters", name, data[name], site["fn"])
        sites = {k for k, s in tracer.trace.nodes.items() if is_parameter(s)}
        fixed = {k for k, s in tracer.trace.nodes.items() if k in data and s["type"] == "sample"}
        if sites or set(data) - fixed:
            missing, strange = sorted(sites), sorted(set(data) - fixed)
            what = f"lack {missing}" if missing else f"name {strange}, which the reward lacks"
            raise ValueError(f"`parameters` {what}; the reward has {sorted(sites | fixed)}.")
        return value

    def hidden(inputs: RewardInputs) -> Any:
        with pyro.poutine.block():
            return bound(inputs)

    return hidden


def check_shape(argument: str, name: str, value: Tensor, fn: Any) -> None:
    """Raise a `ValueError` if a site's value has not the shape of its distribution."""
    expected = tuple(fn.batch_shape + fn.event_shape)
    if tuple(value.shape) != expected:
        raise ValueError(
            f"`{argument}` gives {name!r} the shape {tuple(value.shape)}; its site has {expected}."
        )


def is_parameter(site: Mapping[str, Any]) -> bool:
    """Return whether a site of a trace is a latent reward parameter."""
    return site["type"] == "sample" and not site["is_observed"] and not is_subsample(site)


def is_subsample(site: Mapping[str, Any]) -> bool:
    """Return whether a site of a trace is the index of a plate."""
    return type(site["fn"]).__name__ == "_Subsample"


@strict_keywords
def linear_reward(
    features: Mapping[str, Any] | Sequence[str],
    priors: Mapping[str, dist.Distribution] | dist.Distribution,
) -> RewardProgram:
    """Return the reward program `sum_k w_k phi_k`, one scalar latent site a feature.

    Parameters
    ----------
    features : mapping of str to callable, or list of str
        Name of each weight and its feature: a function of the inputs `x`, an array that broadcasts
        to (T, S, A), or the name of an input. A list names inputs.
    priors : mapping of str to Distribution, or Distribution
        Prior of each weight, or one for all.

    Returns
    -------
    callable
        The reward program.

    Raises
    ------
    ValueError
        If features and priors do not have the same names.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> herd = {"crowd": "density", "move": lambda x: x.action != "stay"}
    >>> reward = linear_reward(herd, priors=dist.Normal(0.0, 5.0))
    """
    if isinstance(features, str):
        raise TypeError(f"`features` must be a mapping or a list of names; got {features!r}.")
    named = dict(features) if isinstance(features, Mapping) else {k: k for k in features}
    if not named:
        raise ValueError("`features` must name at least one feature; got none.")
    if not isinstance(priors, Mapping):
        priors = dict.fromkeys(named, priors)
    if set(priors) != set(named):
        raise ValueError(f"`priors` must name the features {sorted(named)}; got {sorted(priors)}.")
    for name, prior in priors.items():
        if isinstance(prior, type) or not hasattr(prior, "log_prob"):
            raise TypeError(f"the prior of {name!r} must be a Pyro distribution; got {prior!r}.")

    def reward(x: RewardInputs) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for name, feature in named.items():
            weight = pyro.sample(name, priors[name])
            total = total + weight * feature_values(feature, x)
        return total

    described = ", ".join(f"{k}: {priors[k]}" for k in named)
    reward.__doc__ = f"Linear reward with weights {described}."
    reward.source = "linear_reward:\n" + "\n".join(  # type: ignore[attr-defined]
        f"  {name} * {_feature_source(feature)}" for name, feature in named.items()
    )
    return reward


def feature_values(feature: Any, x: RewardInputs) -> Tensor:
    """Return a feature given as a function of the inputs, the name of one, or an array."""
    if isinstance(feature, str):
        feature = getattr(x, feature)
    elif callable(feature):
        feature = feature(x)
    return torch.as_tensor(feature, dtype=torch.float64)


def _feature_source(feature: Any) -> str:
    """Return a feature as text: its name, its source line, or what it is."""
    if isinstance(feature, str):
        return f"x.{feature}"
    if not callable(feature):
        return f"an array of shape {tuple(feature.shape)}"
    try:
        return inspect.getsource(feature).strip().rstrip(",")
    except (OSError, TypeError):
        return getattr(feature, "__name__", "a function")


def reward_source(program: RewardProgram) -> str:
    """Return the source of a reward program where Python knows it, else its name."""
    if hasattr(program, "source"):
        return str(program.source)
    try:
        return inspect.getsource(program)
    except (OSError, TypeError, SyntaxError, tokenize.TokenError):
        return getattr(program, "__doc__", None) or repr(program)


@contextmanager
def double_precision() -> Iterator[None]:
    """Make new tensors float64 within the block, one thread at a time.

    The default type and Pyro's handlers belong to the whole process.
    """
    with _ONE_AT_A_TIME:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
