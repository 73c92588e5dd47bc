"""Environments of MFGLib as games, and policies on the way back."""

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mfgppl._arguments import differentiable_door, is_a
from mfgppl.game import MeanFieldGame
from mfgppl.interop.imported import (
    ROUNDED,
    SAME,
    Imported,
    check_policy,
    require,
    simplest,
)
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, double_precision

PROBES = (1.0, 1.0, 0.2, 0.2)  # concentrations of the random crowds that an environment is shown


class _Widened(TorchFunctionMode):
    """Let calls that ask for float32, or meet it, give float64."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.float:
            return args[0].double()
        kwargs = {k: _wide(v) for k, v in (kwargs or {}).items()}
        return func(*map(_wide, args), **kwargs)


def _wide(value: Any) -> Any:
    """Return float64 for float32, be it a type or a tensor, and anything else as it is."""
    if isinstance(value, Tensor) and value.dtype is torch.float32:
        return value.double()
    return torch.float64 if value is torch.float32 else value


@contextmanager
def _in_double() -> Iterator[None]:
    with double_precision(), _Widened():
        yield


def _widen(value: Any, seen: set[int]) -> Any:
    """Return a value whose float32 tensors, also those it holds, are float64."""
    if isinstance(value, Tensor):
        return _wide(value)
    if type(value) in (list, tuple):
        return type(value)(_widen(v, seen) for v in value)
    if isinstance(value, dict):
        return {k: _widen(v, seen) for k, v in value.items()}
    if hasattr(value, "__dict__") and not isinstance(value, type) and id(value) not in seen:
        seen.add(id(value))
        vars(value).update({name: _widen(held, seen) for name, held in vars(value).items()})
    return value


def _reward_at(environment: Any, time: int, crowd: Tensor) -> Tensor:
    axes = (*environment.S, *environment.A)
    with _in_double():
        value = environment.reward(time, crowd.reshape(axes))
    if tuple(value.shape) != axes:
        raise ValueError(
            f"the `environment` must give rewards of shape (*S, *A) = {axes}; at time {time} it "
            f"gives {tuple(value.shape)}."
        )
    return value.to(torch.float64).reshape(crowd.shape)


def _transition_at(environment: Any, time: int, crowd: Tensor) -> Tensor:
    axes = (*environment.S, *environment.S, *environment.A)
    with _in_double():
        value = environment.prob(time, crowd.reshape(*environment.S, *environment.A))
    if tuple(value.shape) != axes:
        raise ValueError(
            f"the `environment` must give transitions of shape (*S, *S, *A) = {axes}; at time "
            f"{time} it gives {tuple(value.shape)}."
        )
    n_states, n_actions = crowd.shape
    table = value.to(torch.float64).reshape(n_states, n_states, n_actions).permute(1, 2, 0)
    return _normalised(table)


def _normalised(table: Tensor) -> Tensor:
    """Return rows that are off 1 by float32 rounding with sum 1, and others as they are."""
    sums = table.sum(-1, keepdim=True)
    return table / torch.where((sums - 1).abs() < ROUNDED, sums, torch.ones_like(sums))


def _marginal(crowd: Tensor) -> Tensor:
    """Return the crowd (S, A) with the same shares of the states and all actions alike."""
    return crowd.mean(-1, keepdim=True).expand(crowd.shape)


def _same(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=SAME, atol=SAME)


def _probes(shape: tuple[int, int]) -> list[Tensor]:
    """Return random crowds (S, A), even ones and uneven ones."""
    random = np.random.default_rng(0)
    draws = [random.dirichlet(np.full(math.prod(shape), c)).reshape(shape) for c in PROBES]
    return [torch.tensor(np.maximum(d, 1e-12) / np.maximum(d, 1e-12).sum()) for d in draws]


def _reads_actions(environment: Any, probes: list[Tensor]) -> bool:
    """Return whether rewards or transitions depend on more than the shares of the states."""
    rewards = itertools.product([_reward_at], range(environment.T + 1), probes)
    transitions = itertools.product([_transition_at], range(environment.T), probes)
    return not all(
        _same(table_at(environment, t, crowd), table_at(environment, t, _marginal(crowd)))
        for table_at, t, crowd in itertools.chain(rewards, transitions)
    )


def _transition(environment: Any, n_steps: int, probes: list[Tensor], joint: bool) -> Any:
    """Return the simplest form of a transition: a table, one a step, or a function."""
    steps = []
    for t in range(n_steps):
        table = _transition_at(environment, t, probes[0])
        if not all(_same(table, _transition_at(environment, t, p)) for p in probes[1:]):
            return _function(environment, probes[0].shape[1], joint)
        steps.append(scipy.sparse.csr_array(table.flatten(0, 1).numpy()))
    return simplest(steps, table.shape[1])


def _function(environment: Any, n_actions: int, joint: bool) -> Any:
    """Return the transition as a function of the mean field and the time."""

    def transition(mean_field: Tensor, time: int) -> Tensor:
        crowd = mean_field if joint else _spread(mean_field, n_actions)
        return _transition_at(environment, time, crowd)

    return transition


def _spread(mean_field: Tensor, n_actions: int) -> Tensor:
    """Return shares of states (..., S) as a crowd (..., S, A) that takes all actions alike."""
    return (mean_field / n_actions)[..., None].expand(*mean_field.shape, n_actions)


def _reward(environment: Any, joint: bool) -> RewardProgram:
    """Return the reward as a program, one call of the environment a time."""

    def reward(x: RewardInputs) -> Tensor:
        flow = x.occupancy if joint else _spread(x.mean_field, x.shape[2])
        return torch.stack([_reward_at(environment, t, crowd) for t, crowd in enumerate(flow)])

    reward.__doc__ = f"Reward of an MFGLib environment, {type(environment.reward_fn).__name__}."
    return reward


@differentiable_door
def from_mfglib(environment: Any, *, temperature: float = 1.0) -> Imported:
    """Return an MFGLib environment as a game and a reward program.

    The environment is copied and computes in float64. Where its rewards and transitions read the
    shares of the states alone, the game's mean field is (T, S); else it is `joint`, (T, S, A). A
    transition becomes one table, one a step or a function of the mean field, whichever is the
    simplest; large tables of few entries become sparse. What an environment reads is found by
    showing it random crowds.

    Parameters
    ----------
    environment : mfglib.env.Environment
        The environment; its times 0 .. T make a horizon of T + 1.
    temperature : float, positive
        Weight of the policy's entropy, in reward units.

    Returns
    -------
    Imported
        `game` and `reward`. States with several axes become the product of coordinates `x0`,
        `x1`, ...; actions with several axes get joined labels such as "0, 1".

    Raises
    ------
    TypeError
        If `environment` is no MFGLib environment.
    ValueError
        If it gives wrong shapes, or transitions that are no probabilities.
    ImportError
        If MFGLib is not installed.

    References
    ----------
    .. [1] Guo, Hu and Zhang (2023), *MFGLib: a library for mean-field games*, arXiv:2304.08630.
    """
    kind = require("mfglib.env", "mfglib").Environment
    is_a("environment", environment, kind, " Build it as mfglib.env.Environment(...).")
    environment = _widen(copy.deepcopy(environment), set())
    shape = math.prod(environment.S), math.prod(environment.A)
    probes = _probes(shape)
    joint = _reads_actions(environment, probes)
    game = MeanFieldGame(
        states=_state_labels(environment.S),
        actions=_action_labels(environment.A),
        horizon=environment.T + 1,
        transition=_transition(environment, max(environment.T, 1), probes, joint),
        initial=_normalised(environment.mu0.to(torch.float64).flatten()),
        temperature=temperature,
        joint=joint,
    )
    return Imported(game, _reward(environment, joint))


def _state_labels(axes: tuple[int, ...]) -> Any:
    if len(axes) == 1:
        return list(range(axes[0]))
    return {f"x{k}": list(range(n)) for k, n in enumerate(axes)}


def _action_labels(axes: tuple[int, ...]) -> list[Any]:
    if len(axes) == 1:
        return list(range(axes[0]))
    return [", ".join(map(str, index)) for index in np.ndindex(*axes)]


@differentiable_door
def to_mfglib(policy: Any, environment: Any) -> Tensor:
    """Return a policy in MFGLib's layout, for its metrics and algorithms.

    Parameters
    ----------
    policy : array, shape (T, S, A)
        Probability of each action, as `solve_equilibrium(...).value.policy`.
    environment : mfglib.env.Environment
        The environment that the game came from.

    Returns
    -------
    Tensor, shape `(T, *S, *A)`
        The policy in float32, its rows normalised after rounding. MFGLib writes T for the last
        time, so that its first axis is T + 1 long.

    Raises
    ------
    TypeError, ValueError
        If `environment` is no MFGLib environment, or `policy` does not fit it.
    ImportError
        If MFGLib is not installed.
    """
    kind = require("mfglib.env", "mfglib").Environment
    is_a("environment", environment, kind, " Build it as mfglib.env.Environment(...).")
    shape = environment.T + 1, math.prod(environment.S), math.prod(environment.A)
    rounded = check_policy(policy, shape).to(torch.float32)
    rounded = rounded / rounded.sum(-1, keepdim=True)
    return rounded.reshape(shape[0], *environment.S, *environment.A)
