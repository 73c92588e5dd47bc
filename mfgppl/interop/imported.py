"""What an import from another library returns, and how the library is found."""

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfgppl.game import MeanFieldGame
from mfgppl.reward.program import RewardProgram

ROUNDED = 1e-5  # how far a row that was built in float32 may be from 1
SAME = 1e-9  # relative difference of two evaluations that counts as rounding
MANY_STATES, FEW_ENTRIES = 100, 0.1  # from here on, below this share: a sparse transition


class Imported(NamedTuple):
    """A game of another library.

    Attributes
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        Its reward program, without latent parameters.
    """

    game: MeanFieldGame
    reward: RewardProgram


def require(module: str, extra: str) -> Any:
    """Return a module of an optional library, or raise an `ImportError` that names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = f'install it with pip install "mfgppl[{extra}]"'
        raise ImportError(f"{module} cannot be imported ({error}); {remedy}.") from error


def simplest(steps: Sequence[Any], n_actions: int) -> Any:
    """Return sparse tables (S*A, S), one a step, as one where they agree, dense unless large.

    Parameters
    ----------
    steps : sequence of scipy sparse arrays, shape (S*A, S)
        At least one.
    n_actions : int
        Number of actions A.

    Returns
    -------
    Tensor, scipy sparse array or list of them
        What `MeanFieldGame` takes as a transition.
    """
    if all(abs(table - steps[0]).max() < SAME for table in steps[1:]):
        return steps[0] if _is_thin(steps[0]) else _dense(steps[0], n_actions)
    if all(map(_is_thin, steps)):
        return list(steps)
    return torch.stack([_dense(table, n_actions) for table in steps])


def _is_thin(table: Any) -> bool:
    return table.shape[1] >= MANY_STATES and table.nnz < FEW_ENTRIES * np.prod(table.shape)


def _dense(table: Any, n_actions: int) -> Tensor:
    return torch.tensor(table.toarray()).reshape(-1, n_actions, table.shape[1])


def check_policy(policy: Any, shape: tuple[int, int, int]) -> Tensor:
    """Return a policy (T, S, A) as float64 with rows that sum to 1, else raise."""
    try:
        values = policy if isinstance(policy, Tensor) else torch.tensor(np.asarray(policy, float))
    except (TypeError, ValueError):
        came = type(policy).__name__
        raise TypeError(f"`policy` must be an array of numbers; got {came}.") from None
    values = values.detach().to(torch.float64)
    if tuple(values.shape) != shape:
        raise ValueError(
            f"`policy` must have shape (T, S, A) = {shape}; got {tuple(values.shape)}."
        )
    if not bool((values >= 0).all()):
        raise ValueError("`policy` must hold probabilities; some are negative or not numbers.")
    wrong = ((values.sum(-1) - 1).abs() > ROUNDED).nonzero()
    if len(wrong):
        t, s = wrong[0].tolist()
        raise ValueError(
            f"each row of `policy` must sum to 1; {len(wrong)} do not, first time={t}, state "
            f"number {s} with sum {values[t, s].sum():.10g}."
        )
    return values / values.sum(-1, keepdim=True)
