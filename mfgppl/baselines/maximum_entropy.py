"""Maximum causal entropy inverse reinforcement learning without a crowd."""

import functools
import time
from typing import Any

from torch import Tensor

from mfgppl._arguments import Seed, positive_int, real_between, seed_of, strict_keywords
from mfgppl.baselines.ascent import quasi_newton
from mfgppl.baselines.estimate import (
    Ending,
    Estimate,
    estimate_at,
    mismatch_message,
    unrest_message,
)
from mfgppl.baselines.matching import entropy_objective
from mfgppl.baselines.task import along, program_of, task_of
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, bind


@strict_keywords
def max_causal_entropy(
    trajectories: Any,
    game: MeanFieldGame,
    *,
    reward: RewardProgram,
    random_seed: Seed = 0,
    tolerance: float = 1e-6,
    max_steps: int = 500,
) -> Estimate:
    """Recover a reward by maximum causal entropy, as if each agent were alone in a fixed world.

    Reward and dynamics are seen along the crowd's shares averaged over time, which never change:
    what a single-agent method makes of such a panel. The recovered reward does not react to the
    crowd, in this world or another.

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
    tolerance : float
        Largest entry of the gradient, nats an agent, that counts as zero.
    max_steps : int
        Evaluations at most.

    Returns
    -------
    Estimate
        With the reward along the average flow.

    Warns
    -----
    ConvergenceWarning
        If a failure is detected.

    References
    ----------
    .. [1] Ziebart, Bagnell and Dey (2010), *Modeling interaction via the principle of maximum
       causal entropy*, ICML.
    """
    began = time.perf_counter()
    task = task_of(trajectories, game, reward)
    average = task.mean_field.mean(0, keepdim=True).expand(task.mean_field.shape).clone()
    alone = along(task, average)
    program = program_of(reward, alone.inputs)
    start = program.draw(seed_of(random_seed))
    tolerance = real_between("tolerance", tolerance, above=0.0)
    climb = quasi_newton(
        entropy_objective(alone, program),
        start,
        max_steps=positive_int("max_steps", max_steps),
        tolerance=tolerance,
    )
    converged = climb.slope <= 10 * tolerance
    ending = Ending(
        climb.history,
        converged,
        f"largest gradient {climb.slope:.1e} after {len(climb.history)} evaluations",
        (*unrest_message(converged), *mismatch_message(alone, climb.slope, climb.reached)),
        0,
        len(climb.history),
        time.perf_counter() - began,
    )
    blind = _fixed_flow_reward(bind(reward, program.values_at(climb.point)), average)
    return estimate_at(
        "maximum causal entropy", alone, program, climb.point, ending, reward_program=blind
    )


def _fixed_flow_reward(program: RewardProgram, flow: Tensor) -> RewardProgram:
    """Return a reward program that sees a fixed flow in place of the crowd's."""

    @functools.wraps(program, assigned=("__doc__",), updated=())
    def blind(x: RewardInputs) -> Any:
        return program(RewardInputs(x.game, flow))

    return blind
