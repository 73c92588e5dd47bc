"""What all methods are given: a game, a panel of whole trajectories, and its flow."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfgppl._arguments import is_a, positive_int
from mfgppl._kernels import bridge
from mfgppl.data.panel import Panel
from mfgppl.equilibrium.steps import Steps, as_steps
from mfgppl.exceptions import DataError, Fault
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs


class Task(NamedTuple):
    """A game along the flow of a panel.

    Attributes
    ----------
    game : MeanFieldGame
        The game.
    panel : Panel
        The panel, in the game's order of labels.
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
        The panel's flow.
    inputs : RewardInputs
        What reward programs see along it.
    transition : Tensor, shape (1, S, A, S) or (T-1, S, A, S)
        Dynamics along it.
    tables : Tables
        The same as the kernels read them.
    occupancy : Tensor, shape (T, S, A)
        Share of the panel's agents who are in a state and take an action.
    start : Tensor, shape (S,)
        Share of the panel's agents who begin in a state.
    """

    game: MeanFieldGame
    panel: Panel
    mean_field: Tensor
    inputs: RewardInputs
    transition: Tensor
    tables: bridge.Tables
    occupancy: Tensor
    start: Tensor

    @property
    def steps(self) -> Steps:
        """The dynamics as linear maps."""
        return as_steps(self.transition, self.game.shape[0])

    @property
    def weights(self) -> Tensor:
        """Discount of each time, (T, 1, 1)."""
        times = torch.arange(self.game.shape[0], dtype=torch.float64)
        return (self.game.discount**times)[:, None, None]

    def masked(self, reward: Tensor) -> Tensor:
        """Return a reward with -inf where an action is not available."""
        return reward.masked_fill(~self.game.available, -torch.inf)

    def response(self, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Return soft values (T, S) and the log policy (T, S, A) of the soft best response."""
        values, log_policy = bridge.soft_arrays(
            self.masked(reward.detach()).numpy(),
            self.tables,
            discount=self.game.discount,
            temperature=self.game.temperature,
        )
        return torch.from_numpy(values), torch.from_numpy(log_policy)


def task_of(trajectories: Any, game: Any, reward: Any) -> Task:
    """Check what a method is given and return it as a task.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the game has no horizon, or horizons or labels disagree.
    DataError
        If the panel holds parts of trajectories, or does what the game rules out.
    """
    is_a("game", game, MeanFieldGame)
    hint = " Read a table with Trajectories.from_frame."
    if not isinstance(trajectories, Panel):
        came = type(trajectories).__name__
        raise TypeError(f"`trajectories` must be Trajectories or a CountedPanel; got {came}.{hint}")
    if reward is not None and not callable(reward):
        came = type(reward).__name__
        raise TypeError(f"`reward` must be a Pyro program of x; got {came}.")
    if game.stationary:
        raise ValueError(
            "the earlier methods are for games with a `horizon`; got a stationary game. Fit it "
            "with mle, which pools its times."
        )
    panel = trajectories.recode(game.space, game.actions)
    if panel.horizon != game.shape[0]:
        raise ValueError(
            f"the panel has {panel.horizon} decision times and the game a horizon of "
            f"{game.horizon}; make them equal."
        )
    _check_whole(panel)
    flow = torch.as_tensor(panel.occupancy() if game.joint else panel.mean_field())
    transition = game.transition_along(flow).detach()
    task = Task(
        game, panel, flow, RewardInputs(game, flow), transition, bridge.tables_of(transition),
        torch.as_tensor(panel.counts.actions / panel.n_trajectories),
        torch.as_tensor(panel.counts.starts[0] / panel.n_trajectories),
    )  # fmt: skip
    _check_allowed(task)
    return task


def along(task: Task, flow: Tensor) -> Task:
    """Return a task whose reward and dynamics are seen along another flow."""
    transition = task.game.transition_along(flow).detach()
    return task._replace(
        mean_field=flow,
        inputs=RewardInputs(task.game, flow),
        transition=transition,
        tables=bridge.tables_of(transition),
    )


def seed_of(random_seed: Any) -> int:
    """Return a seed that is an integer, not negative."""
    return positive_int("random_seed", random_seed, least=0)


def _check_whole(panel: Panel) -> None:
    counts = panel.counts
    late = float(counts.starts[1:].sum())
    early = float(counts.ends_seen.sum() + counts.ends_unseen.sum())
    if not late and not early:
        return
    remedy = "keep agents seen at all decision times, or use mle, which takes parts"
    faults = []
    if late:
        times = np.flatnonzero(counts.starts[1:].sum(1)) + 1 + panel.first_time
        first = tuple(f"time={t}" for t in times[:3])
        faults.append(Fault("trajectory begins after the first time", int(late), first, remedy))
    if early:
        faults.append(Fault("trajectory ends before the horizon", int(early), (), remedy))
    raise DataError(faults)


def _check_allowed(task: Task) -> None:
    """Raise where agents take actions or steps that the game rules out."""
    game, panel, faults = task.game, task.panel, []
    taken = ((task.occupancy > 0) & ~game.available).nonzero().tolist()
    if taken:
        first = tuple(
            f"state={game.space.labels[s]!r}, action={game.actions[a]!r}" for _, s, a in taken[:3]
        )
        remedy = "correct the rows, or `available` in the game"
        faults.append(Fault("action not available in its state", len(taken), first, remedy))
    moves, n = panel.transition_counts()
    known = moves[:, 0] < game.shape[0] - 1
    moves, n = moves[known], n[known]
    never = np.zeros(0, dtype=bool)
    if len(moves):
        never = (task.steps.probability(torch.as_tensor(moves)) == 0).numpy()
    if never.any():
        labels = game.space.labels
        first = tuple(
            f"time={t + panel.first_time}: {labels[s]!r} to {labels[x]!r} by {game.actions[a]!r}"
            for t, s, a, x in moves[never][:3]
        )
        remedy = "correct the rows, or `transition` in the game"
        what = "step of probability zero under the game"
        faults.append(Fault(what, int(n[never].sum()), first, remedy))
    if faults:
        raise DataError(faults)
