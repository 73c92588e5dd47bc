"""The planner's problem: one policy for everybody, its flow answering it."""

from typing import NamedTuple

import torch
from torch import Tensor

from mfgppl._generated_flow import flow_of_policy
from mfgppl.baselines.task import Task
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.parameters import Program

NOBODY = 1e-12  # share of the crowd from which a choice has a slope


class Plan(NamedTuple):
    """A policy that a planner gives to everybody.

    Attributes
    ----------
    policy : Tensor, shape (T, S, A)
        The policy.
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
        Its flow.
    value : float
        `J(mu^pi, pi)` plus the temperature times the policy's entropy, reward units.
    residual : float
        Largest change of a share of the occupancy under one more step.
    n_steps : int
        Evaluations.
    """

    policy: Tensor
    mean_field: Tensor
    value: float
    residual: float
    n_steps: int


def occupancy_along(game: MeanFieldGame, policy: Tensor, flow: Tensor) -> Tensor:
    """Return the shares (T, S, A) of those in a state who take an action."""
    return flow if game.joint else flow[..., None] * policy


def average_return(
    task: Task, program: Program, point: Tensor, policy: Tensor, flow: Tensor
) -> Tensor:
    """Return the population's average return `J(mu, pi)` at parameters, reward units."""
    reward = program.table(point, RewardInputs(task.game, flow))
    return (task.discounts * occupancy_along(task.game, policy, flow) * reward).sum()


def entropy_of(task: Task, policy: Tensor, flow: Tensor) -> Tensor:
    """Return the discounted entropy of a policy where its crowd is, nats."""
    shares = flow.sum(-1) if task.game.joint else flow
    each = -torch.special.xlogy(policy, policy.clamp_min(1e-300))
    return (task.discounts * shares[..., None] * each).sum()


def optimal_plan(
    task: Task, program: Program, point: Tensor, start: Tensor, *, tolerance: float, max_steps: int
) -> Plan:
    """Maximise `J(mu^pi, pi) + temperature * entropy` by natural gradient steps from a policy.

    Each step goes a share of the way to `softmax(Q / temperature)`, with Q the derivative of the
    objective in the occupancy, which includes what an agent's presence does to the others. The
    share is halved where the objective falls.
    """
    game, beta = task.game, task.game.temperature
    policy, rate, n_steps = start, 1.0, 0
    value, slope, flow = _value_and_slope(task, program, point, policy)
    residual = torch.inf
    while n_steps < max_steps:
        aim = _aim(task, policy, slope, flow, beta)
        shares = task.discounts * (flow.sum(-1) if game.joint else flow)[..., None]
        residual = float((shares * (aim - policy)).abs().max())
        if residual <= tolerance:
            break
        mixed = (1.0 - rate) * policy.log() + rate * aim.log()
        moved = torch.softmax(mixed.masked_fill(~game.available, -torch.inf), -1)
        trial = _value_and_slope(task, program, point, moved)
        n_steps += 1
        if trial[0] >= value:
            policy, (value, slope, flow) = moved, trial
            rate = min(1.0, 1.5 * rate)
        else:
            rate /= 2
            if rate < 1e-6:
                break
    return Plan(policy, flow, value, residual, n_steps)


def _value_and_slope(
    task: Task, program: Program, point: Tensor, policy: Tensor
) -> tuple[float, Tensor, Tensor]:
    """Return the objective of a policy, its slope in the policy and the flow."""
    at = policy.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        flow = flow_of_policy(task.game, at)
        value = average_return(task, program, point.detach(), at, flow)
        value = value + task.game.temperature * entropy_of(task, at, flow)
        (slope,) = torch.autograd.grad(value, at)
    return float(value.detach()), slope, flow.detach()


def _aim(task: Task, policy: Tensor, slope: Tensor, flow: Tensor, beta: float) -> Tensor:
    """Return the policy that the slope points to, the policy itself where nobody is."""
    shares = task.discounts * (flow.sum(-1) if task.game.joint else flow)[..., None]
    q_values = slope / shares.clamp_min(NOBODY) / beta + policy.clamp_min(1e-300).log()
    aim = torch.softmax(q_values.masked_fill(~task.game.available, -torch.inf), -1)
    return torch.where(shares > NOBODY, aim, policy)
