"""Maximum causal entropy inverse reinforcement learning without a crowd."""

import time
from typing import Any

from mfgppl._arguments import positive_int, real_between, strict_keywords
from mfgppl.baselines.ascent import quasi_newton
from mfgppl.baselines.estimate import Ending, Estimate, recovered, unmatched, unsettled
from mfgppl.baselines.matching import entropy_objective
from mfgppl.baselines.task import along, seed_of, task_of
from mfgppl.baselines.weights import Weights, seen_through
from mfgppl.game import MeanFieldGame
from mfgppl.reward.program import RewardProgram


@strict_keywords
def max_causal_entropy(
    trajectories: Any,
    game: MeanFieldGame,
    *,
    reward: RewardProgram,
    random_seed: int = 0,
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
    random_seed : int
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
    weights = Weights(reward, alone.inputs, seed_of(random_seed))
    tolerance = real_between("tolerance", tolerance, above=0.0)
    climb = quasi_newton(
        entropy_objective(alone, weights),
        weights.start,
        max_steps=positive_int("max_steps", max_steps),
        tolerance=tolerance,
    )
    converged = climb.slope <= 10 * tolerance
    ending = Ending(
        climb.history,
        converged,
        f"largest gradient {climb.slope:.1e} after {len(climb.history)} evaluations",
        (*unsettled(converged), *unmatched(alone, climb.slope, climb.reached)),
        0,
        len(climb.history),
        time.perf_counter() - began,
    )
    program = seen_through(weights.bound(climb.point), average)
    return recovered("maximum causal entropy", alone, weights, climb.point, ending, program=program)
