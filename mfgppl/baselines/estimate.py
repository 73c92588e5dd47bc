"""What every method returns."""

import dataclasses
import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl.baselines.task import Task
from mfgppl.control.fixed_flow import advantages, spread_of
from mfgppl.equilibrium.fixed_point import solve_equilibrium
from mfgppl.equilibrium.solution import Solution
from mfgppl.exceptions import ConvergenceWarning
from mfgppl.game import MeanFieldGame
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import RewardProgram, bind, double_precision, reward_table

FLAT = 1e-2  # spread of advantages, in temperatures, below which all actions count as equally good
UNLIKE_CHANCE = 1e-3  # nats a decision by which agents who choose differ from agents who do not
VANISHED = 1e-4  # entry of a gradient that counts as none, nats
FAR, NOISY = 0.02, 2.0  # total variation that a fit leaves at most, and times what chance makes


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Estimate:
    """What a method recovered from a panel, and whether to believe it.

    Attributes
    ----------
    method : str
        The method.
    game : MeanFieldGame
        The game.
    reward : Tensor, shape (T, S, A), or None
        The reward along the panel's flow, reward units; None where a method recovers none.
    reward_program : callable or None
        The reward with its parameters fixed: a reward program for any world of the same spaces.
    params : Series or None
        The parameters, an entry each.
    values : dict of str to ndarray, or None
        The value of each latent site, as `mle`, `nuts` and `vi` take an `init`.
    policy : Tensor, shape (T, S, A)
        How agents act by the method's own account along the panel's flow.
    history : DataFrame
        The way there, one row per step.
    converged : bool
        Whether the method came to rest.
    reason : str
        How it ended.
    messages : tuple of str
        Failures that were detected, none if all is well.
    n_interactions : int
        Steps of single agents drawn from the environment; 0 where dynamics are taken as known.
    n_evaluations : int
        How often the inner problem was solved or a sampler improved.
    seconds : float
        Wall time.
    """

    method: str
    game: MeanFieldGame
    reward: Tensor | None
    reward_program: RewardProgram | None
    params: pd.Series | None
    values: dict[str, np.ndarray] | None
    policy: Tensor
    history: pd.DataFrame
    converged: bool
    reason: str
    messages: tuple[str, ...]
    n_interactions: int
    n_evaluations: int
    seconds: float

    def solve(self, game: MeanFieldGame | None = None, **options: Any) -> Solution:
        """Return the entropy-regularised equilibrium under the recovered reward.

        Parameters
        ----------
        game : MeanFieldGame, optional
            Another world of the same spaces; by default the one of the fit.
        **options
            Arguments of `solve_equilibrium`.

        Raises
        ------
        ValueError
            If the method recovers no reward.
        """
        if self.reward_program is None:
            raise ValueError(
                f"{self.method} recovers no reward, so nothing can be solved; use `policy`."
            )
        return solve_equilibrium(
            self.game if game is None else game, self.reward_program, **options
        )

    def __repr__(self) -> str:
        lines = [f"{self.method}: {self.reason}"]
        if self.params is not None and len(self.params) <= 12:
            lines += [f"  {name:<12} {value: .4g}" for name, value in self.params.items()]
        drawn = f", {self.n_interactions} interactions" if self.n_interactions else ""
        lines.append(f"{self.n_evaluations} evaluations{drawn}, {self.seconds:.2f} s")
        return "\n".join([*lines, *(f"warning: {m}" for m in self.messages)])


class Ending(NamedTuple):
    """How a method ended.

    Attributes
    ----------
    history : list of dict
        The way there.
    converged : bool
        Whether it came to rest.
    reason : str
        How it ended.
    messages : tuple of str
        Failures that the method itself detected.
    n_interactions, n_evaluations : int
        What it took.
    seconds : float
        Wall time.
    """

    history: list[dict[str, float]]
    converged: bool
    reason: str
    messages: tuple[str, ...]
    n_interactions: int
    n_evaluations: int
    seconds: float


def estimate_at(
    method: str,
    task: Task,
    program: Program,
    point: Any,
    ending: Ending,
    *,
    reward_program: RewardProgram | None = None,
    policy: Tensor | None = None,
) -> Estimate:
    """Return the estimate of a reward at a point, with the checks that all methods share.

    Parameters
    ----------
    method : str
        Its name.
    task : Task
        The game along the flow that the method saw.
    program : Program
        The reward program over its parameters.
    point : ndarray
        Where they ended.
    ending : Ending
        How the method ended.
    reward_program : callable, optional
        The recovered reward if it is not the program at the point.
    policy : Tensor, shape (T, S, A), optional
        How agents act by the method's account; by default the soft best response.
    """
    values = program.values_at(point)
    if reward_program is None:
        reward_program = bind(program.reward, values)
    with double_precision(), torch.no_grad():
        reward = reward_table(reward_program, task.inputs)
    if policy is None:
        policy = task.response(reward)[1].exp()
    messages = (*ending.messages, *equal_actions(task, reward))
    params = pd.Series(np.concatenate([v.ravel() for v in values.values()]), program.entry_names())
    return warn_of_messages(
        Estimate(
            method, task.game, reward, reward_program, params, values, policy,
            pd.DataFrame(ending.history), ending.converged, ending.reason, messages,
            ending.n_interactions, ending.n_evaluations, ending.seconds,
        )
    )  # fmt: skip


def warn_of_messages(estimate: Estimate) -> Estimate:
    """Return an estimate; warn of what was detected."""
    for line in estimate.messages:
        warnings.warn(f"{estimate.method}: {line}", ConvergenceWarning, stacklevel=5)
    return estimate


def equal_actions(task: Task, reward: Tensor) -> tuple[str, ...]:
    """Return a message where a reward makes all actions equally good and the agents do not."""
    game = task.game
    gains = advantages(reward, task.steps, game.available, discount=game.discount)
    spread = float(spread_of(gains, task.occupancy.sum(-1), game.available))
    if spread >= FLAT * game.temperature or _distance_from_chance(task) < UNLIKE_CHANCE:
        return ()
    return (
        f"the reward is degenerate: constant up to shaping (advantages spread {spread:.1e} at "
        f"temperature {game.temperature:g}), while the agents do choose",
    )


def _distance_from_chance(task: Task) -> float:
    """Return the mean divergence of the agents' choices, pooled over time, from chance, nats."""
    taken = task.occupancy.sum(0)
    shares = taken / taken.sum(-1, keepdim=True).clamp_min(1e-300)
    allowed = task.game.available.expand(task.game.shape).any(0)
    chance = allowed / allowed.sum(-1, keepdim=True)
    gain = torch.special.xlogy(taken, shares) - torch.special.xlogy(taken, chance)
    return float(gain.sum() / taken.sum())


def mismatch_message(task: Task, slope: float, reached: Tensor) -> tuple[str, ...]:
    """Return a message where the gradient is gone although behaviour is not matched.

    Parameters
    ----------
    task : Task
        The game along the flow that the method saw.
    slope : float
        Largest entry of the gradient, nats.
    reached : Tensor, shape (T, S, A)
        The method's occupancy.
    """
    gap, noise = total_variation(task.occupancy, reached), sampling_gap(task, reached)
    if slope > VANISHED or gap < FAR + NOISY * noise:
        return ()
    return (
        f"the gradient has vanished ({slope:.1e}) while behaviour is not matched: occupancies "
        f"differ by {gap:.2f}, where chance explains {noise:.2f}; the reward cannot express what "
        "the agents do, or its units are saturated",
    )


def sampling_gap(task: Task, reached: Tensor) -> float:
    """Return the total variation that a panel of this size has from its own law, on average."""
    spread = (2.0 * reached * (1.0 - reached).clamp_min(0.0) / torch.pi).sqrt()
    return float(spread.sum()) / (2 * len(reached) * task.panel.n_trajectories**0.5)


def total_variation(first: Tensor, second: Tensor) -> float:
    """Return the total variation of two occupancies (T, S, A), averaged over time."""
    return float((first - second).abs().sum()) / (2 * len(first))


def unrest_message(converged: bool) -> tuple[str, ...]:
    """Return a message where a method has not come to rest."""
    return () if converged else ("the fit has not come to rest; give it more steps",)
