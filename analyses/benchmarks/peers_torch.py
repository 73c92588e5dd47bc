"""The reference problem as a plain loop in torch, and as a Pyro model around that loop."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import reference
import torch
from torch import Tensor


def log_likelihood(reward: Tensor, transition: Tensor, counts: Tensor) -> Tensor:
    """Compute the causal log likelihood by a loop backwards in time, differentiable by autograd.

    Parameters
    ----------
    reward, counts : Tensor, shape (T, S, A)
        The reward table and the action counts.
    transition : Tensor, shape (T-1, S, A, S)
        Dynamics by time.
    """
    T, S, A = reward.shape
    total, values = reward.new_zeros(()), reward.new_zeros(S)
    for t in range(T - 1, -1, -1):
        q = reward[t]
        if t < T - 1:
            ahead = (transition[t].reshape(S * A, S) @ values).reshape(S, A)
            q = q + reference.DISCOUNT * ahead
        q = q / reference.TEMPERATURE
        norm = torch.logsumexp(q, dim=-1)
        total = total + (counts[t] * (q - norm[:, None])).sum()
        values = reference.TEMPERATURE * norm
    return total


def model(arrays: reference.Arrays, *, form: str = "linear") -> Callable[[], None]:
    """Return the Pyro model: the same sites and priors, the likelihood as a factor."""
    features, transition, counts = map(
        torch.from_numpy, (arrays.features, arrays.transition, arrays.counts)
    )
    zero = torch.zeros((), dtype=torch.float64)
    unit = torch.full((), reference.PRIOR_SCALE, dtype=torch.float64)

    def declared() -> None:
        normal = dist.Normal(zero, unit)
        slopes = pyro.sample("slopes", normal.expand([len(features) - 2]).to_event(1))
        shift = pyro.sample("shift", normal)
        scale = pyro.sample("scale", dist.HalfNormal(unit))
        bent, last = features[-2], features[-1]
        plain = torch.tensordot(slopes, features[:-2], 1)
        reward = reference.combine(form, plain, shift, scale, bent, last, torch.exp)
        pyro.factor("actions", log_likelihood(reward, transition, counts))

    return declared
