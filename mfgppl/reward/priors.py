"""What is said of a prior: its numbers, its spread, and whether they depend on other parameters.

A site's distribution is looked at together with that at another draw of the parameters before it.
"""

from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from mfgppl.reward.program import innermost


def spread(fn: Any, again: Any, size: int) -> np.ndarray:
    """Return standard deviations (n,) of a distribution, all NaN if another draw changes any."""
    try:
        variances = [law.variance.detach().reshape(-1) for law in (fn, again)]
    except (NotImplementedError, AttributeError):
        return np.full(size, np.nan)
    alike = len(variances[0]) == size and torch.equal(*variances)
    return variances[0].sqrt().numpy() if alike else np.full(size, np.nan)


def same_law(fn: Any, again: Any) -> bool:
    """Return whether a distribution is the same at another draw of what comes before it."""
    numbers = _numbers(fn, again)
    return bool(numbers) and all(
        isinstance(one, Tensor) and isinstance(two, Tensor) and torch.equal(one, two)
        for one, two in numbers.values()
    )


def _numbers(fn: Any, again: Any) -> dict[str, tuple[Any, Any]]:
    """Return a distribution's arguments, and those of its twin at another draw, by name."""
    inner, other = innermost(fn), innermost(again)
    return {k: (getattr(inner, k, None), getattr(other, k, None)) for k in inner.arg_constraints}


def description(fn: Any, again: Any) -> str:
    """Return a distribution as text; a number that another draw changes depends on others."""
    shown = []
    for name, (value, twin) in _numbers(fn, again).items():
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
    return f"{type(innermost(fn)).__name__}({', '.join(shown)}){size}"


def is_standard_normal(fn: Any) -> bool:
    """Return whether all entries of a distribution are normal with mean 0 and deviation 1."""
    inner = innermost(fn)
    return isinstance(inner, dist.Normal) and bool(((inner.loc == 0) & (inner.scale == 1)).all())
