"""A game as a Gymnasium environment of one agent against a fixed flow."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl._arguments import differentiable_door, is_a
from mfgppl.control.steps import Steps
from mfgppl.equilibrium.simulation import draw_category
from mfgppl.game import MeanFieldGame
from mfgppl.interop.imported import require
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, bind, double_precision
from mfgppl.reward.site_values import site_values
from mfgppl.reward.valued import worth_table


@differentiable_door
def to_gymnasium(
    game: MeanFieldGame,
    reward: RewardProgram,
    mean_field: Any,
    *,
    parameters: Mapping[str, Any] | pd.Series | None = None,
) -> Any:
    """Return a Gymnasium environment of one representative agent against a fixed flow.

    An observation is the pair of time and state, by position; an action is its position. An
    episode ends with the game's last decision, after which the observation stays. Rewards are the
    game's, neither discounted nor with entropy: give the trainer the game's `discount`, or the
    program's own, and its `temperature` as the weight of an entropy bonus.

    Parameters
    ----------
    game : MeanFieldGame
        The game, with a horizon.
    reward : callable
        A reward program.
    mean_field : Tensor or array, shape (T, S), or (T, S, A) in a joint game
        The flow that the agent faces, which its acts do not change.
    parameters : mapping or Series, optional
        A value for each latent site of the reward.

    Returns
    -------
    gymnasium.Env
        Observations `MultiDiscrete([T, S])`, actions `Discrete(A)`; `action_masks()` says which
        actions the state allows, as does "action_mask" in the info of each step.

    Raises
    ------
    ImportError
        If Gymnasium is not installed.
    ValueError
        If the game is stationary, or flow or parameters do not fit; in `step`, if an action is not
        available.

    References
    ----------
    .. [1] Towers et al. (2024), *Gymnasium: a standard interface for reinforcement learning
       environments*, arXiv:2407.17032.
    """
    is_a("game", game, MeanFieldGame)
    if game.stationary:
        raise ValueError(
            "`to_gymnasium` needs a game with a `horizon`, whose episodes end; got a stationary "
            "game. Give it one with game.replace(horizon=...)."
        )
    flow = game.check_flow("mean_field", mean_field).detach()
    program = bind(reward, site_values("parameters", parameters))
    with double_precision(), torch.no_grad():
        table = worth_table(program, RewardInputs(game, flow))
        steps = game.steps_along(flow)
    return _environment()(game, table, steps)


@functools.cache
def _environment() -> Any:
    """Return the class of environments, which extends a class of the optional library."""
    gymnasium = require("gymnasium", "gymnasium")

    class RepresentativeAgent(gymnasium.Env):  # type: ignore[name-defined]  # found at run time
        """One agent of a mean field game against a fixed flow."""

        metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

        def __init__(self, game: MeanFieldGame, rewards: Tensor, steps: Steps) -> None:
            T, S, A = game.shape
            self.game, self._steps = game, steps
            self._rewards = rewards.numpy()
            self._allowed = game.available.expand(game.shape).numpy()
            self._start = game.initial.numpy().cumsum()[None]
            self.observation_space = gymnasium.spaces.MultiDiscrete([T, S])
            self.action_space = gymnasium.spaces.Discrete(A)
            self._time, self._state = 0, 0

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[np.ndarray, dict[str, Any]]:
            """Begin an episode in a state of the game's initial distribution."""
            super().reset(seed=seed)
            self._time = 0
            self._state = int(draw_category(self.np_random, self._start)[0])
            return self._seen(), self._info()

        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            """Take an action."""
            chosen = int(action)
            if not self._allowed[self._time, self._state, chosen]:
                label = self.game.space.labels[self._state]
                raise ValueError(
                    f"`action` {self.game.actions[chosen]!r} is not available in state {label!r}; "
                    "action_masks() says which are."
                )
            earned = float(self._rewards[self._time, self._state, chosen])
            ended = self._time == self.game.shape[0] - 1
            if not ended:
                here, act = np.array([self._state]), np.array([chosen])
                uniform = self.np_random.random(1)
                self._state = int(self._steps.draw(self._time, here, act, uniform)[0])
                self._time += 1
            return self._seen(), earned, ended, False, self._info()

        def action_masks(self) -> np.ndarray:
            """Return which actions the current state allows."""
            allowed: np.ndarray = self._allowed[self._time, self._state].copy()
            return allowed

        def _seen(self) -> np.ndarray:
            return np.array([self._time, self._state], dtype=np.int64)

        def _info(self) -> dict[str, Any]:
            return {"action_mask": self.action_masks()}

    return RepresentativeAgent
