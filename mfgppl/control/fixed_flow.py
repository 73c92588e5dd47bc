"""Control along a fixed flow: occupancies, best responses, advantages."""

import torch
from torch import Tensor

from mfgppl.control.steps import Steps


def occupancy_of(policy: Tensor, steps: Steps, start: Tensor) -> Tensor:
    """Return how many of those who begin as `start` are in each state and take each action.

    Parameters
    ----------
    policy : Tensor, shape (T, S, A)
        Probability of each action.
    steps : Steps
        Dynamics along a flow.
    start : Tensor, shape (S,)
        Distribution of the first state.

    Returns
    -------
    Tensor, shape (T, S, A)
        Shares; each time's sum to that of `start`.
    """
    shares, occupancy = start, []
    for t in range(len(policy)):
        occupancy.append(shares[:, None] * policy[t])
        if t < len(policy) - 1:
            shares = steps.pushed(t, occupancy[-1])
    return torch.stack(occupancy)


def best_response(
    reward: Tensor, steps: Steps, *, discount: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return the values (T, S) and a policy (T, S, A) of the best response, without entropy."""
    values = torch.zeros_like(reward[0, :, 0])
    all_values, policy = [], []
    for t in range(len(reward) - 1, -1, -1):
        q = reward[t]
        if t < len(reward) - 1:
            q = q + discount * steps.expected(t, values)
        values, best = q.max(-1)
        all_values.append(values)
        policy.append(torch.nn.functional.one_hot(best, q.shape[-1]).to(q.dtype))
    return torch.stack(all_values[::-1]), torch.stack(policy[::-1])


def advantages(reward: Tensor, steps: Steps, available: Tensor, *, discount: float) -> Tensor:
    """Return what an action has over a random one where all later acts are random, (T, S, A).

    Two rewards have the same advantages if and only if they differ by potential-based shaping:
    shaping adds `v_t(s)` to `Q_t(s, a)`, which the mean over actions takes away again.
    """
    allowed = available.expand(reward.shape)
    uniform = allowed.to(reward.dtype)
    uniform = uniform / uniform.sum(-1, keepdim=True)
    values = torch.zeros_like(reward[0, :, 0])
    gains = []
    for t in range(len(reward) - 1, -1, -1):
        q = reward[t]
        if t < len(reward) - 1:
            q = q + discount * steps.expected(t, values)
        values = (uniform[t] * q).sum(-1)
        gains.append((q - values[:, None]).masked_fill(~allowed[t], 0.0))
    return torch.stack(gains[::-1])


def spread_of(advantage: Tensor, shares: Tensor, available: Tensor) -> Tensor:
    """Return the standard deviation of advantages where the crowd is, all actions alike.

    Parameters
    ----------
    advantage : Tensor, shape (T, S, A)
        Of mean zero over the actions of each state.
    shares : Tensor, shape (T, S)
        Where the crowd is.
    available : Tensor, shape (S, A)
        Which actions there are.
    """
    return (weights_of(shares, available) * advantage**2).sum().sqrt()


def weights_of(shares: Tensor, available: Tensor) -> Tensor:
    """Return weights (T, S, A) that sum to 1: where the crowd is, all actions alike."""
    uniform = available.to(shares.dtype)
    uniform = uniform / uniform.sum(-1, keepdim=True)
    return shares[..., None] * uniform / len(shares)
