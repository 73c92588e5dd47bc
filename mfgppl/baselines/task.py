"""What all methods are given: a game, a panel of whole trajectories, and its flow."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfgppl._arguments import is_a
from mfgppl._kernels import bridge
from mfgppl.control.steps import Steps, as_steps
from mfgppl.data.panel import Panel
from mfgppl.equilibrium.admissible import check_moves
from mfgppl.exceptions import DataError, Fault
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.parameters import Program, latent_sites
from mfgppl.reward.program import RewardProgram, check_callable
from mfgppl.reward.valued import answers_reward


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
    def discounts(self) -> Tensor:
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
    if reward is not None:
        check_callable(reward)
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
    check_moves(panel, game, transition)
    return task


def program_of(reward: RewardProgram, inputs: RewardInputs) -> Program:
    """Check a reward program and return it over one flat vector; its priors draw the start.

    Raises
    ------
    ValueError
        If agents are more than soft maximisers of a reward, the only ones that the earlier methods
        know.
    """
    latent_sites(reward, inputs)
    if not answers_reward(reward, inputs):
        raise ValueError(
            "the earlier methods know a reward and its end alone, and agents of "
            "behaviour='entropy' who plan over the horizon; got more of either. Fit it with mle."
        )
    return Program(reward, inputs)


def along(task: Task, flow: Tensor) -> Task:
    """Return a task whose reward and dynamics are seen along another flow."""
    transition = task.game.transition_along(flow).detach()
    return task._replace(
        mean_field=flow,
        inputs=RewardInputs(task.game, flow),
        transition=transition,
        tables=bridge.tables_of(transition),
    )


def _check_whole(panel: Panel) -> None:
    counts = panel.counts
    late = float(counts.starts[1:].sum())
    early = float(counts.ends_seen.sum() + counts.ends_unseen.sum())
    if not late and not early:
        return
    remedy = "keep agents seen at all decision times, or use mle, which takes parts"
    faults = []
    if late:
        times = np.flatnonzero(counts.starts[1:].sum(1)) + 1
        first = tuple(f"time={panel.time_label(t)}" for t in times[:3])
        faults.append(Fault("trajectory begins after the first time", int(late), first, remedy))
    if early:
        faults.append(Fault("trajectory ends before the horizon", int(early), (), remedy))
    raise DataError(faults)
