"""PLIRL: inverse reinforcement learning of the population, taken as one decision maker.

The population is a Markov decision process over flows, whose reward is the average reward of its
agents: `max_r J(mu^E, pi^E; r) - max_{mu, pi} J(mu, pi; r)`. Theorem 1: that is the game only where
agents are fully cooperative.
"""

import time
from typing import Any

import numpy as np
import torch

from mfgppl._arguments import Seed, one_of, positive_int, real_between, seed_of, strict_keywords
from mfgppl.baselines.ascent import Objective, Point, quasi_newton
from mfgppl.baselines.estimate import (
    Ending,
    Estimate,
    estimate_at,
    mismatch_message,
    total_variation,
    unrest_message,
)
from mfgppl.baselines.flow_samples import sampled_fit
from mfgppl.baselines.planner import Plan, occupancy_along, optimal_plan
from mfgppl.baselines.task import Task, program_of, task_of
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import RewardProgram, double_precision

PARTITIONS = ["exact", "sampled"]
INNER = 1e-7  # change of a share of the planner's occupancy that counts as none
INNER_STEPS = 300
LOOSE = 100.0  # times the tolerance: slope at which an outer problem with inexact inner ones ends


@strict_keywords
def plirl(
    trajectories: Any,
    game: MeanFieldGame,
    *,
    reward: RewardProgram,
    random_seed: Seed = 0,
    partition: str = "exact",
    tolerance: float = 1e-5,
    max_steps: int = 100,
    n_rounds: int = 200,
    n_flows: int = 100,
    population: int = 200,
    learning_rate: float = 0.05,
) -> Estimate:
    """Recover a reward under which the population, as one planner, would act as it does.

    Parameters
    ----------
    trajectories : Trajectories or CountedPanel
        The panel, of whole trajectories.
    game : MeanFieldGame
        The game, with a horizon.
    reward : callable
        A reward program; its priors play no part.
    random_seed : int or SeedSequence
        Seed of the start, a draw from the priors, and of sampled flows.
    partition : {"exact", "sampled"}
        The maximum-entropy law of what a population of N agents does weighs a policy by
        `exp(N (J / temperature + entropy))`. "exact" is its limit in N: the partition function is
        the planner's optimum with entropy, found by natural gradient steps. "sampled" estimates
        it for finite N by importance sampling over flows, from normal laws of the logits that
        follow the weights (guided cost learning): it needs the flows that policies make alone.
    tolerance : float
        Largest entry of the gradient, nats an agent, that counts as zero, by "exact".
    max_steps : int
        Evaluations at most, by "exact".
    n_rounds : int
        Steps of the reward, by "sampled".
    n_flows : int
        Flows drawn a round, by "sampled".
    population : int
        N, by "sampled".
    learning_rate : float
        Of Adam, by "sampled"; falls to a tenth.

    Returns
    -------
    Estimate
        Its policy is the planner's. By "sampled", `history` holds the effective number of flows,
        and interactions are steps of whole populations.

    Warns
    -----
    ConvergenceWarning
        If a failure is detected, as weights that rest on one sampled flow.

    References
    ----------
    .. [1] Yang, Ye, Trivedi, Xu and Zha (2018), *Learning deep mean field games for modeling
       large population behavior*, ICLR.
    .. [2] Finn, Levine and Abbeel (2016), *Guided cost learning: deep inverse optimal control via
       policy optimization*, ICML.
    """
    began = time.perf_counter()
    task = task_of(trajectories, game, reward)
    seed = seed_of(random_seed)
    program = program_of(reward, task.inputs)
    one_of("partition", partition, PARTITIONS)
    tolerance = real_between("tolerance", tolerance, above=0.0)
    max_steps = positive_int("max_steps", max_steps)
    n_rounds = positive_int("n_rounds", n_rounds)
    n_flows = positive_int("n_flows", n_flows, least=2)
    population = positive_int("population", population)
    rate = real_between("learning_rate", learning_rate, above=0.0)
    # the planner meets those who began
    task = task._replace(game=game.replace(initial=task.start))
    if partition == "exact":
        point, policy, ending = _exact_fit(task, program, seed, tolerance, max_steps, began)
    else:
        with double_precision():
            point, policy, ending = sampled_fit(
                task, program, seed=seed, n_rounds=n_rounds, n_flows=n_flows,
                population=population, rate=rate, began=began,
            )  # fmt: skip
    task = task._replace(game=game)
    return estimate_at(f"PLIRL, {partition}", task, program, point, ending, policy=policy)


def _exact_fit(
    task: Task, program: Program, seed: int, tolerance: float, max_steps: int, began: float
) -> tuple[np.ndarray, torch.Tensor, Ending]:
    plans: list[Plan] = []
    climb = quasi_newton(
        _planner_objective(task, program, plans),
        program.draw(seed),
        max_steps=max_steps,
        tolerance=tolerance,
    )
    inner = plans[-1].residual
    converged = climb.slope <= LOOSE * tolerance
    messages = (*unrest_message(converged), *mismatch_message(task, climb.slope, climb.reached))
    if inner > LOOSE * INNER:
        messages = (*messages, f"the planner's problem is not solved (residual {inner:.1e})")
    ending = Ending(
        climb.history,
        converged,
        f"largest gradient {climb.slope:.1e} after {len(climb.history)} evaluations, planner's "
        f"residual {inner:.1e}",
        messages,
        0,
        sum(plan.n_steps for plan in plans),
        time.perf_counter() - began,
    )
    return climb.point, plans[-1].policy, ending


def _planner_objective(task: Task, program: Program, plans: list[Plan]) -> Objective:
    """Return what the data's population earns less what the planner's does, nats an agent.

    Its slope holds the planner's policy fixed (the envelope theorem). The planner starts from
    what the agents do, so that it never does worse than they; its plan is appended to `plans`.
    """
    beta = task.game.temperature
    start = _smoothed_policy(task)

    def objective(point: np.ndarray) -> Point:
        with double_precision(), torch.enable_grad():
            at = torch.tensor(point, requires_grad=True)
            plan = optimal_plan(task, program, at, start, tolerance=INNER, max_steps=INNER_STEPS)
            plans.append(plan)
            reached = occupancy_along(task.game, plan.policy, plan.mean_field)
            ours = (task.discounts * task.occupancy * program.table(at)).sum()
            there = program.table(at, RewardInputs(task.game, plan.mean_field))
            theirs = (task.discounts * reached * there).sum()
            (gradient,) = torch.autograd.grad((ours - theirs) / beta, at)
        value = (float(ours.detach()) - plan.value) / beta
        gap = total_variation(task.occupancy, reached)
        return Point(value, gradient.numpy(), reached, gap)

    return objective


def _smoothed_policy(task: Task) -> torch.Tensor:
    """Return the frequencies of the agents' actions, each available one seen once more."""
    counts = (task.occupancy * task.panel.n_trajectories + 1.0) * task.game.available
    return counts / counts.sum(-1, keepdim=True)
