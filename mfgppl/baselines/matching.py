"""The individual-level objectives: what agents earn beside what a best response earns.

Both compare occupancies: the gradient in the reward is the data's occupancy less the best
response's, from the data's starts and along the data's flow.
"""

import numpy as np
import torch
from torch import Tensor

from mfgppl.baselines.ascent import Objective, Point
from mfgppl.baselines.estimate import total_variation
from mfgppl.baselines.task import Task
from mfgppl.control.fixed_flow import advantages, best_response, occupancy_of, spread_of
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import double_precision


def soft_gap(task: Task, reward: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return the data's return less the soft optimal one, its slope in the reward, and occupancy.

    `sum_t gamma^t <rho^E_t, r_t> - sum_s mu_0(s) V_0(s)` over the temperature, nats an agent; the
    slope is `gamma^t (rho^E - rho^pi) / temperature` with `pi` the soft best response.
    """
    values, log_policy = task.response(reward)
    reached = occupancy_of(log_policy.exp(), task.steps, task.start)
    earned = (task.discounts * task.occupancy * reward.detach()).sum()
    beta = task.game.temperature
    value = (earned - task.start @ values[0]) / beta
    return float(value), task.discounts * (task.occupancy - reached) / beta, reached


def hard_gap(task: Task, reward: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return the same for the best response without entropy: minus the agents' regret."""
    discount = task.game.discount
    values, policy = best_response(task.masked(reward.detach()), task.steps, discount=discount)
    reached = occupancy_of(policy, task.steps, task.start)
    earned = (task.discounts * task.occupancy * reward.detach()).sum()
    value = float(earned - task.start @ values[0])
    return value, task.discounts * (task.occupancy - reached), reached


def entropy_objective(task: Task, program: Program) -> Objective:
    """Return the soft gap as a function of the parameters."""

    def objective(point: np.ndarray) -> Point:
        with double_precision(), torch.enable_grad():
            at = torch.tensor(point, requires_grad=True)
            reward = program.table(at)
            value, slope, reached = soft_gap(task, reward)
            (gradient,) = torch.autograd.grad(reward, at, slope)
        gap = total_variation(task.occupancy, reached)
        return Point(value, gradient.numpy(), reached, gap)

    return objective


def regret_objective(task: Task, program: Program, *, unit_advantage: bool) -> Objective:
    """Return minus the regret as a function of the parameters, or that over the advantages' size.

    Along the whole ray of a reward and its multiples, and for all shapings of it, the second is
    the same; a constant reward has no direction and is not its maximum.
    """
    game, shares = task.game, task.occupancy.sum(-1)

    def objective(point: np.ndarray) -> Point:
        with double_precision(), torch.enable_grad():
            at = torch.tensor(point, requires_grad=True)
            reward = program.table(at)
            value, slope, reached = hard_gap(task, reward)
            total = (slope * reward).sum() + value - (slope * reward.detach()).sum()
            if unit_advantage:
                gains = advantages(reward, task.steps, game.available, discount=game.discount)
                total = total / spread_of(gains, shares, game.available).clamp_min(1e-12)
            (gradient,) = torch.autograd.grad(total, at)
        gap = total_variation(task.occupancy, reached)
        return Point(float(total.detach()), gradient.numpy(), reached, gap)

    return objective
