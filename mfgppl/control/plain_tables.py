"""Checks of the plain tables that functions without a game are given."""

from typing import Any

import torch
from torch import Tensor

from mfgppl._arrays import as_numbers, is_labelled
from mfgppl.control.steps import Steps, as_steps

# how far shares may be from 1 and 0: differences that stand for derivatives leave the simplex
NEAR = 1e-3


def checked_reward(reward: Any) -> Tensor:
    """Return a reward (T, S, A) as a tensor, -inf where an action is not available, else raise."""
    reward = _numbers("reward", reward, "(T, S, A)")
    if reward.ndim != 3 or not reward.numel():
        raise ValueError(f"`reward` must have shape (T, S, A); got {tuple(reward.shape)}.")
    if not _is_readable(reward):
        return reward
    values = reward.detach()
    broken = (torch.isnan(values) | (values == torch.inf)).nonzero().tolist()
    if broken:
        t, s, a = broken[0]
        raise ValueError(
            f"`reward` must be finite, or -inf where an action is not available; it is "
            f"{values[t, s, a]:g} at time {t}, state {s}, action {a}."
        )
    stuck = torch.isneginf(values).all(-1).nonzero().tolist()
    if stuck:
        t, s = stuck[0]
        raise ValueError(f"`reward` leaves no action at time {t} in state {s}; leave at least one.")
    return reward


def checked_transition(transition: Any) -> Tensor:
    """Return a transition, dense or sparse COO, whose rows are probabilities, else raise."""
    transition = _numbers("transition", transition, "(S, A, S)")
    if transition.layout != torch.strided:
        entries = transition.detach().coalesce()
        _check_shares("transition", entries.values(), torch.sparse.sum(entries, -1).to_dense())
    elif _is_readable(transition):
        values = transition.detach()
        _check_shares("transition", values, values.sum(-1))
    return transition


def checked_steps(transition: Any, horizon: int) -> Steps:
    """Return a transition whose rows are probabilities as its steps, else raise."""
    return as_steps(checked_transition(transition), horizon)


def check_fit(reward: Tensor, steps: Steps, each: str = "") -> None:
    """Raise a `ValueError` where a reward (T, S, A) and dynamics have other states or actions."""
    _, S, A = reward.shape
    if steps.shape != (S, A, S):
        raise ValueError(
            f"`transition` must have shape (S, A, S) = {(S, A, S)}{each} to match `reward` "
            f"{tuple(reward.shape)}; got {steps.shape}."
        )


def checked_shares(name: str, value: Any, hint: str) -> Tensor:
    """Return shares that sum to 1 along the last axis, else raise."""
    shares = _numbers(name, value, hint)
    if shares.ndim and _is_readable(shares):
        _check_shares(name, shares.detach(), shares.detach().sum(-1))
    return shares


def _check_shares(name: str, values: Tensor, sums: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"`{name}` has an entry that is not finite.")
    if values.numel() and float(values.min()) < -NEAR:
        raise ValueError(f"`{name}` has the negative entry {values.min():.6g}.")
    wrong = ((sums - 1).abs() > NEAR).nonzero().tolist()
    if wrong:
        where = f" at {tuple(wrong[0])}" if wrong[0] else ""
        total = sums[tuple(wrong[0])]
        raise ValueError(f"each row of `{name}` must sum to 1; the sum is {total:.10g}{where}.")


def _numbers(name: str, value: Any, hint: str) -> Tensor:
    """Return an array by position as floating numbers, else raise a `TypeError`."""
    if is_labelled(value):
        raise TypeError(
            f"`{name}` must be a plain array of shape {hint}, which is taken by position; got a "
            f"{type(value).__name__}. Put its labels in order, and give its values."
        )
    array = as_numbers(name, value, hint)
    return array if array.is_floating_point() else array.to(torch.float64)


def _is_readable(value: Tensor) -> bool:
    """Return whether a tensor has values of its own, not those of a transform of functions."""
    return not torch._C._functorch.is_functorch_wrapped_tensor(value)
