"""Soft backward induction against a fixed flow, and the flow that a policy generates."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mfgppl._arguments import differentiable_door, real_between
from mfgppl.control.plain_tables import check_fit, checked_reward, checked_shares, checked_steps
from mfgppl.control.steps import Steps


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


@differentiable_door
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
        If shapes disagree, the reward is not finite, or rows of the transition are no
        probabilities.

    References
    ----------
    .. [1] Ziebart, Bagnell and Dey (2010), *Modeling interaction via the principle of maximum
       causal entropy*, ICML.
    """
    reward = checked_reward(reward)
    steps = checked_steps(transition, len(reward))
    check_fit(reward, steps, " at each step")
    return backward_induction(
        reward,
        steps,
        discount=real_between("discount", discount, above=0.0, upto=1.0),
        temperature=real_between("temperature", temperature, above=0.0),
    )


def backward_induction(
    reward: Tensor, steps: Steps, *, discount: float, temperature: float
) -> SoftSolution:
    """Return the same for a reward and dynamics that have been checked."""
    horizon = reward.shape[0]
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


def policy_changes(
    log_policy: Tensor, changes: Tensor, steps: Steps, *, discount: float, temperature: float
) -> Iterator[tuple[int, Tensor]]:
    """Yield each time, last first, and how its log policy changes in K directions, (K, S, A).

    `dQ_t = dr_t + discount * P_t dV_{t+1}`, `dV_t = sum_a pi_t dQ_t`, and
    `d log pi_t = (dQ_t - dV_t) / temperature`; zero where an action is not available.

    Parameters
    ----------
    log_policy : Tensor, shape (T, S, A)
        The soft best response; -inf where an action is not available.
    changes : Tensor, shape (K, T, S, A)
        Of the reward.
    steps : Steps
        Dynamics along the flow.
    discount, temperature
        As in `soft_backward_induction`.
    """
    last, policy = len(log_policy) - 1, log_policy.exp()
    values = torch.zeros_like(changes[:, 0, :, 0])
    for t in range(last, -1, -1):
        q_values = changes[:, t].masked_fill(policy[t] == 0, 0.0)
        if t < last:
            q_values = q_values + discount * steps.expected_each(t, values)
        values = (policy[t] * q_values).sum(-1)
        slopes = (q_values - values[..., None]) / temperature
        yield t, slopes.masked_fill(policy[t] == 0, 0.0)


def bend_of_values(policy: Tensor, slopes: Tensor, worth: Tensor, *, temperature: float) -> Tensor:
    """Return second derivatives (K, K) of soft values of one time, summed by their worth (S,).

    Rewards alone have none: `d2V = temperature * sum_a pi dlog pi dlog pi'`.

    Parameters
    ----------
    policy : Tensor, shape (S, A)
        The soft policy.
    slopes : Tensor, shape (K, S, A)
        Of the log policy.
    worth : Tensor, shape (S,)
        Derivative of what is summed in each value.
    temperature : float
        Of the policy.
    """
    weights = temperature * worth[:, None] * policy
    return (slopes * weights).flatten(1) @ slopes.flatten(1).T


@differentiable_door
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

    Raises
    ------
    ValueError
        If shapes disagree, or something is no probabilities.
    """
    policy = checked_shares("policy", policy, "(T, S, A)")
    if policy.ndim != 3:
        raise ValueError(f"`policy` must have shape (T, S, A); got {tuple(policy.shape)}.")
    steps = checked_steps(transition, len(policy))
    initial = checked_shares("initial", initial, "(S,)")
    expected = steps.shape[:2]
    if tuple(policy.shape[1:]) != expected:
        raise ValueError(
            f"`policy` must have shape (T, S, A) with (S, A) = {expected} to match `transition`; "
            f"got {tuple(policy.shape)}."
        )
    if tuple(initial.shape) != expected[:1]:
        raise ValueError(f"`initial` must have shape {expected[:1]}; got {tuple(initial.shape)}.")
    return generated_flow(policy, steps, initial)


def generated_flow(policy: Tensor, steps: Steps, initial: Tensor) -> Tensor:
    """Return the same for a policy, dynamics and a start that have been checked."""
    flow = [initial]
    for t in range(len(policy) - 1):
        flow.append(steps.pushed(t, flow[-1][:, None] * policy[t]))
    return torch.stack(flow)
