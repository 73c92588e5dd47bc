"""MFIRL: individual-level inverse reinforcement learning, a bi-level problem along the data's flow.

Inner: the best response to the flow seen. Outer: a step of the reward along
`E_D[sum grad r] - E_pi[sum grad r]`.
"""

import time
from typing import Any

import numpy as np
import torch

from mfgppl._arguments import Seed, one_of, positive_int, real_between, seed_of, strict_keywords
from mfgppl.baselines.ascent import Climb, quasi_newton, subgradient
from mfgppl.baselines.estimate import (
    Ending,
    Estimate,
    estimate_at,
    mismatch_message,
    unrest_message,
)
from mfgppl.baselines.matching import entropy_objective, regret_objective
from mfgppl.baselines.task import Task, program_of, task_of
from mfgppl.control.fixed_flow import advantages, spread_of
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, bind, double_precision, reward_table

NORMALISATIONS = ["entropy", "advantage", "none"]
SETTLED = 0.01  # share of the whole gain that the second half of subgradient steps may bring


@strict_keywords
def mfirl(
    trajectories: Any,
    game: MeanFieldGame,
    *,
    reward: RewardProgram,
    random_seed: Seed = 0,
    normalisation: str = "entropy",
    tolerance: float = 1e-6,
    max_steps: int = 500,
    learning_rate: float = 0.3,
) -> Estimate:
    """Recover a reward under which agents act nearly as well as a best response to their flow.

    As printed, the outer problem `max_r J(mu, pi^E; r) - max_pi J(mu, pi; r)` has the value zero at
    every constant reward, and at every shaping of one, and never a higher one: without a
    normalisation it is degenerate. Two are offered.

    Parameters
    ----------
    trajectories : Trajectories or CountedPanel
        The panel, of whole trajectories.
    game : MeanFieldGame
        The game, with a horizon.
    reward : callable
        A reward program; its priors play no part.
    random_seed : int or SeedSequence
        Seed of the start, a draw from the priors.
    normalisation : {"entropy", "advantage", "none"}
        "entropy" gives the inner problem the game's temperature: the value of a constant reward is
        that of acting at random, which is below the agents'. With a discount of 1 its gradient is
        that of the causal likelihood wherever the panel's moves are as frequent as the dynamics
        say, as under deterministic ones. "advantage" keeps the best response without entropy and
        divides the regret by the spread of advantages over random actions, zero for constant
        rewards and their shapings alone: the reward is found up to a factor, and is returned with
        a spread of one temperature. "none" is the problem as printed.
    tolerance : float
        Largest entry of the gradient, nats an agent, that counts as zero.
    max_steps : int
        Evaluations at most; subgradient steps where the inner problem has no entropy.
    learning_rate : float
        The first of those steps.

    Returns
    -------
    Estimate
        With the reward along the panel's flow.

    Warns
    -----
    ConvergenceWarning
        If a failure is detected, as a constant reward.

    References
    ----------
    .. [1] Chen, Zhang, Liu and Hu (2022), *Individual-level inverse reinforcement learning for
       mean field games*, AAMAS, arXiv:2202.06401.
    """
    began = time.perf_counter()
    task = task_of(trajectories, game, reward)
    program = program_of(reward, task.inputs)
    start = program.draw(seed_of(random_seed))
    one_of("normalisation", normalisation, NORMALISATIONS)
    tolerance = real_between("tolerance", tolerance, above=0.0)
    max_steps = positive_int("max_steps", max_steps)
    rate = real_between("learning_rate", learning_rate, above=0.0)
    if normalisation == "entropy":
        climb = quasi_newton(
            entropy_objective(task, program),
            start,
            max_steps=max_steps,
            tolerance=tolerance,
        )
        converged = climb.slope <= 10 * tolerance
        lost = mismatch_message(task, climb.slope, climb.reached)
        reason = f"largest gradient {climb.slope:.1e} after {len(climb.history)} evaluations"
    else:
        objective = regret_objective(task, program, unit_advantage=normalisation == "advantage")
        climb = subgradient(objective, start, max_steps=max_steps, learning_rate=rate)
        (converged, reason), lost = _rest_and_reason(climb), ()
    ending = Ending(
        climb.history, converged, reason, (*unrest_message(converged), *lost), 0,
        len(climb.history), time.perf_counter() - began,
    )  # fmt: skip
    recovered_reward = bind(reward, program.values_at(climb.point))
    if normalisation == "advantage":
        recovered_reward = _unit_spread_reward(task, recovered_reward)
    name = f"MFIRL, {normalisation}"
    return estimate_at(name, task, program, climb.point, ending, reward_program=recovered_reward)


def _rest_and_reason(climb: Climb) -> tuple[bool, str]:
    """Return whether the second half of the steps gained nothing, and how it went."""
    values = np.array([row["objective"] for row in climb.history])
    first, whole = values[: (len(values) + 1) // 2].max(), values.max()
    settled = whole - first <= SETTLED * max(whole - values[0], 1e-12)
    how = "settled" if settled else "still rising"
    return bool(settled), f"objective {whole:.4g}, {how} after {len(values)} subgradient steps"


def _unit_spread_reward(task: Task, program: RewardProgram) -> RewardProgram:
    """Return a reward times the factor that gives its advantages a spread of one temperature."""
    game = task.game
    with double_precision(), torch.no_grad():
        table = reward_table(program, task.inputs)
    gains = advantages(table, task.steps, game.available, discount=game.discount)
    spread = float(spread_of(gains, task.occupancy.sum(-1), game.available))
    factor = game.temperature / max(spread, 1e-12)

    def scaled(x: RewardInputs) -> Any:
        return factor * program(x)

    return scaled
