"""Dynamics written for one crowd, asked for many at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SAME = 1e-12  # difference of a probability that is rounding


def at_once(function: Callable[[Tensor, int], Tensor], crowds: Tensor, time: int) -> Tensor:
    """Return what a function of a crowd gives for each of many, (R, ...) of crowds (R, ...)."""
    made: Tensor = torch.vmap(lambda crowd: function(crowd, time))(crowds)
    return made


def agrees_at_once(function: Any, shape: tuple[int, ...]) -> bool:
    """Return whether a function may be asked so: it gives what it gives for one crowd at a time.

    Functions that branch on the crowd, leave torch or write in place do not, and are called once
    for each crowd.

    Parameters
    ----------
    function : callable
        Dynamics as a function of the crowd and the time.
    shape : tuple of int
        Crowds on which it is tried, (R, S) or (R, S, A).
    """
    generator = torch.Generator().manual_seed(0)
    crowds = torch.rand(shape, dtype=torch.float64, generator=generator)
    crowds /= crowds.flatten(1).sum(1).reshape(-1, *[1] * (len(shape) - 1))
    with torch.no_grad():
        try:
            many = at_once(function, crowds, 0)
            each = [function(crowd, 0) for crowd in crowds]
        except Exception:  # whatever the user's function raises is raised where it is called alone
            return False
    if not all(isinstance(table, Tensor) for table in [many, *each]):
        return False
    single = torch.stack([table.to(many.dtype) for table in each])
    return single.shape == many.shape and bool((single - many).abs().max() <= SAME)
