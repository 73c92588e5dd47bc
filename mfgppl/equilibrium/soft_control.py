"""Soft backward induction against a fixed flow, and the flow that a policy generates."""

from typing import NamedTuple

import torch
from torch import Tensor

from mfgppl._arguments import real_between, strict_keywords
from mfgppl.equilibrium.steps import as_steps


class SoftSolution(NamedTuple):
    """The entropy-regularised best response to a flow.

    Attributes
    ----------
    q_values : Tensor, shape (T, S, A)
        Soft state-action values, reward units.
    soft_values : Tensor, shape (T, S)
        Soft state values, reward units; zero after the horizon.
    log_policy : Tensor, shape (T, S, A)
        Log probability of each action, -inf where it is not available.
    """

    q_values: Tensor
    soft_values: Tensor
    log_policy: Tensor


@strict_keywords
def soft_backward_induction(
    reward: Tensor, transition: Tensor, *, discount: float = 1.0, temperature: float = 1.0
) -> SoftSolution:
    """Solve the entropy-regularised control problem against a fixed mean field.

    `Q_t = r_t + discount * P_t V_{t+1}`, `V_t = temperature * logsumexp_a(Q_t / temperature)`.

    Parameters
    ----------
    reward : Tensor, shape (T, S, A)
        Reward units; -inf where an action is not available.
    transition : Tensor, shape (S, A, S), (1, S, A, S) or (T-1, S, A, S)
        Probability of the next state, dense or sparse COO; the last axis sums to 1.
    discount : float in (0, 1]
        Weight of the next period.
    temperature : float, positive
        Weight of the entropy bonus, in reward units.

    Returns
    -------
    SoftSolution
        Soft values and the log policy.

    Raises
    ------
    ValueError
        If shapes disagree.

    References
    ----------
    .. [1] Ziebart, Bagnell and Dey (2010), *Modeling interaction via the principle of maximum
       causal entropy*, ICML.
    """
    real_between("temperature", temperature, above=0.0)
    real_between("discount", discount, above=0.0, upto=1.0)
    if reward.ndim != 3:
        raise ValueError(f"`reward` must have shape (T, S, A); got {tuple(reward.shape)}.")
    horizon = reward.shape[0]
    steps = as_steps(transition, horizon)
    expected = (reward.shape[1], reward.shape[2], reward.shape[1])
    if steps.shape != expected:
        raise ValueError(
            f"`transition` must have shape (S, A, S) = {expected} at each step to match `reward` "
            f"{tuple(reward.shape)}; got {tuple(transition.shape)}."
        )
    q_steps: list[Tensor] = []
    v_steps: list[Tensor] = []
    values = torch.zeros_like(reward[0, :, 0])
    for t in range(horizon - 1, -1, -1):
        q = reward[t]
        if t < horizon - 1:
            q = q + discount * steps.expected(t, values)
        values = temperature * torch.logsumexp(q / temperature, dim=-1)
        q_steps.append(q)
        v_steps.append(values)
    q_values, soft_values = torch.stack(q_steps[::-1]), torch.stack(v_steps[::-1])
    log_policy = (q_values - soft_values[..., None]) / temperature
    return SoftSolution(q_values, soft_values, log_policy)


@strict_keywords
def propagate_mean_field(policy: Tensor, transition: Tensor, initial: Tensor) -> Tensor:
    """Return the flow that a policy generates along given transitions.

    Parameters
    ----------
    policy : Tensor, shape (T, S, A)
        Probability of each action.
    transition : Tensor, shape (S, A, S), (1, S, A, S) or (T-1, S, A, S)
        Probability of the next state, dense or sparse COO.
    initial : Tensor, shape (S,)
        Distribution of the first state.

    Returns
    -------
    Tensor, shape (T, S)
        The share of the population in each state at each decision time.
    """
    if policy.ndim != 3:
        raise ValueError(f"`policy` must have shape (T, S, A); got {tuple(policy.shape)}.")
    steps = as_steps(transition, len(policy))
    expected = steps.shape[:2]
    if tuple(policy.shape[1:]) != expected:
        raise ValueError(
            f"`policy` must have shape (T, S, A) with (S, A) = {expected} to match `transition`; "
            f"got {tuple(policy.shape)}."
        )
    if tuple(initial.shape) != expected[:1]:
        raise ValueError(f"`initial` must have shape {expected[:1]}; got {tuple(initial.shape)}.")
    flow = [initial]
    for t in range(len(policy) - 1):
        flow.append(steps.pushed(t, flow[-1][:, None] * policy[t]))
    return torch.stack(flow)
