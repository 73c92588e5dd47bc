"""What an agent is: a reward for each decision, and what it leaves behind at the end."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mfgppl.reward.inputs import RewardInputs


@dataclass(frozen=True)
class Preferences:
    """What a program may return in place of a reward table.

    Parameters
    ----------
    reward : Tensor or number
        The reward of each decision, which broadcasts to (T, S, A), led by types where there are
        some; reward units.
    terminal : Tensor or number, optional
        What a state is worth after the last decision, which broadcasts to (1, S, 1), led by types
        where there are some; reward units. By default nothing is.

    Notes
    -----
    The terminal value `v` replaces `V_T = 0` in soft backward induction, so that
    `Q_{T-1} = r_{T-1} + discount * P_{T-1} v`. It is known up to a constant. Where dynamics differ
    by time the move after the last decision needs a table of its own: give the game T tables.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> def agent(x):
    ...     end = pyro.sample("end", x.price.each(dist.Normal(0.0, 1.0)))
    ...     return Preferences(x.price * 0.3, terminal=end[x.price.codes])
    """

    reward: Any
    terminal: Any = None


def reward_and_end(value: Any, inputs: RewardInputs) -> Tensor:
    """Return what a program returned as a reward (T, S, A), the terminal value in it.

    Raises
    ------
    RuntimeError
        If a shape does not broadcast.
    ValueError
        If the game has no table of the move after the last decision.
    """
    preferences = value if isinstance(value, Preferences) else Preferences(value)
    table = torch.as_tensor(preferences.reward, dtype=torch.float64)
    reward = inputs.stacked(table.broadcast_to(inputs.shape))
    if preferences.terminal is None:
        return reward
    game = inputs.game
    terminal = torch.as_tensor(preferences.terminal, dtype=torch.float64)
    *lead, _, n_states, _ = inputs.shape
    worth = terminal.broadcast_to((*lead, 1, n_states, 1)).reshape(-1)
    expected = game.last_move(inputs.whole_flow[-1]).expected(0, worth)
    last = reward[-1] + game.discount * expected
    return torch.cat([reward[:-1], last[None]])
