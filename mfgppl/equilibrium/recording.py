"""A game's reward and dynamics along a flow, recorded for the tape machine."""

from collections.abc import Callable, Sequence

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.autograd import forward_ad

from mfgppl._compiler.lowering import KNOWN, lower
from mfgppl._compiler.tracing import record
from mfgppl._kernels import crowd, tape
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, double_precision, spread_reward

_NO_PLACES = np.zeros(0, dtype=np.int64)
NOTHING = crowd.Played(
    np.zeros((0, tape.WIDTH), dtype=np.int64), _NO_PLACES, np.zeros(1), _NO_PLACES, _NO_PLACES,
    np.zeros(1, dtype=np.int64),
)  # fmt: skip


def masked_reward(game: MeanFieldGame, program: RewardProgram, flow: Tensor) -> Tensor:
    """Return the reward (T, S, A) along a flow, -inf where an action is not available."""
    reward = spread_reward(program, RewardInputs(game, flow.reshape(game.flow_shape)))
    if bool(game.available.all()):
        return reward
    return reward.masked_fill(~game.available, -torch.inf)


class Recording:
    """Functions of a flat flow, and their slopes, for the tape machine.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    program : callable
        A reward program without latent sites.

    Attributes
    ----------
    reward : Played
        From a flow to the reward.
    moves : Played
        From a flow to the dynamics, a stage a step; without stages where dynamics are fixed.
    """

    def __init__(self, game: MeanFieldGame, program: RewardProgram) -> None:
        self._game, self._program = game, program
        self._point = torch.full(game.flow_shape, 1.0).to(torch.float64)
        self._point = (self._point / self._point.flatten(1).sum(1).max()).reshape(-1)
        self.reward, self.moves = self._play(lambda stage: stage, [self._point.clone()])

    def slopes(self) -> tuple[crowd.Played, crowd.Played]:
        """Return the same for the changes of reward and dynamics with a change of the flow."""
        return self._play(_slope, [self._point.clone(), self._point.clone()])

    def _play(
        self, form: Callable[[Callable[..., Tensor]], Callable[..., Tensor]],
        inputs: Sequence[Tensor],
    ) -> tuple[crowd.Played, crowd.Played]:  # fmt: skip
        steps = range(self._game.n_steps if self._game.crowd_moves_dynamics else 0)
        moves = [form(self._move(t)) for t in steps]
        return _played([form(self._reward)], inputs), _played(moves, inputs)

    def _reward(self, flow: Tensor, *_: Tensor) -> Tensor:
        return masked_reward(self._game, self._program, flow).contiguous().reshape(-1)

    def _move(self, t: int) -> Callable[..., Tensor]:
        """Return the dynamics of one step as a function of the flow, with the next state first."""
        function = self._game.transition
        assert callable(function)

        def move(flow: Tensor, *_: Tensor) -> Tensor:
            table = function(flow.reshape(self._game.flow_shape)[t], t)
            if not isinstance(table, Tensor) or table.layout != torch.strided:
                raise TypeError("only dense tensors can be recorded")
            return table.to(torch.float64).permute(2, 0, 1).contiguous().reshape(-1)

        return move


def _slope(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the change of a function of a flow for a change of the flow."""

    def slope(flow: Tensor, change: Tensor, *_: Tensor) -> Tensor:
        with forward_ad.dual_level():
            found = function(forward_ad.make_dual(flow, change))
            plain, tangent = forward_ad.unpack_dual(found)
        return torch.zeros_like(plain) if tangent is None else tangent.contiguous()

    return slope


def _played(stages: Sequence[Callable[..., Tensor]], inputs: Sequence[Tensor]) -> crowd.Played:
    if not stages:
        return NOTHING
    with double_precision(), pyro.validation_enabled(False), torch.no_grad():
        found = lower(record(stages, inputs, KNOWN))
    return crowd.Played(
        code=found.code,
        places=found.places,
        buffer=found.buffer,
        inputs=np.array([s.start for s in found.inputs]),
        outputs=np.array([s.start for s in found.outputs]),
        ends=np.array([0, *found.ends]),
    )
