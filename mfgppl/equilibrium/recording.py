"""A game's reward and dynamics along a flow, recorded for the tape machine.

The reward's parameters are inputs of the recording, so that one serves for all their values.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.autograd import forward_ad

from mfgppl._compiler.forward_mode import load_rules
from mfgppl._compiler.lowering import lower
from mfgppl._compiler.operands import Unlowered
from mfgppl._compiler.operations import KNOWN
from mfgppl._compiler.tracing import Untraceable, record
from mfgppl._keep import Keeper, kept
from mfgppl._kernels import crowd, tape
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, bind, double_precision, spread_reward

N_KEPT = 4  # recordings that a game keeps, of the rewards asked for last
Stage = Callable[..., Tensor]
# an operation without an instruction, a branch on values, one that torch does not differentiate
NOT_RECORDED = (Unlowered, Untraceable, RuntimeError)

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


class Recording(Keeper):
    """Functions of a flat flow and the reward's parameters, for the tape machine.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program.
    parameters : mapping of str to Tensor
        Values of its latent sites, at which it is recorded.
    """

    def __init__(
        self, game: MeanFieldGame, reward: RewardProgram, parameters: Mapping[str, Tensor]
    ) -> None:
        self._game, self._program = game, reward
        self._shapes = {name: value.shape for name, value in parameters.items()}
        self._values = flat_values(parameters)
        self._reward_tape, self._moves_tape = self._play(lambda stage: stage, changes=False)
        self._slopes: tuple[crowd.Played, crowd.Played] | None = None
        self._pulls: tuple[crowd.Played, crowd.Played] | None = None
        self.checked = False  # against the program, away from where it was recorded

    def fits(self, parameters: Mapping[str, Tensor]) -> bool:
        """Return whether the recording serves for these values, which lie in a row as named."""
        shapes = [(name, value.shape) for name, value in parameters.items()]
        return shapes == list(self._shapes.items())

    def tapes(self, parameters: Mapping[str, Tensor]) -> tuple[crowd.Played, crowd.Played]:
        """Return the reward and the dynamics, a stage a step, in buffers of their own.

        The dynamics have no stage where they are fixed.
        """
        tapes = self._reward_tape, self._moves_tape
        values = flat_values(parameters).numpy()
        return tape_with(tapes[0], values), tape_with(tapes[1], values)

    def slopes(self, parameters: Mapping[str, Tensor]) -> tuple[crowd.Played, crowd.Played]:
        """Return the same for the changes of reward and dynamics with a change of the flow."""
        if self._slopes is None:
            self._slopes = self._play(_slope, changes=True)
        values = flat_values(parameters).numpy()
        return tape_with(self._slopes[0], values), tape_with(self._slopes[1], values)

    def pulls(self, parameters: Mapping[str, Tensor]) -> tuple[crowd.Played, crowd.Played]:
        """Return the slopes of weighed sums of the reward, and of the dynamics, a stage each.

        They take flow, weights and parameters; the slopes are in the flow and the parameters. The
        dynamics, a stage in all, have none where they are fixed.
        """
        if self._pulls is None:
            moves = [self._move(t) for t in self._steps]
            point, values = self._point(), self._values
            with double_precision(), pyro.validation_enabled(False), torch.no_grad():
                given = [self._reward(point, values), *(move(point, values) for move in moves)]
            on_reward = torch.zeros_like(given[0])
            on_tables = torch.zeros_like(torch.cat(given[1:] or given))
            self._pulls = (
                _replay([_pullback(self._reward)], [point, on_reward, values.clone()]),
                _replay([_pullback(_in_a_row(moves))][: len(moves)], [point, on_tables, values]),
            )
        flat = flat_values(parameters).numpy()
        return tape_with(self._pulls[0], flat), tape_with(self._pulls[1], flat)

    def _play(
        self, form: Callable[[Stage], Stage], *, changes: bool
    ) -> tuple[crowd.Played, crowd.Played]:
        inputs = [self._point() for _ in range(1 + changes)] + [self._values.clone()]
        moves = [form(self._move(t)) for t in self._steps]
        return _replay([form(self._reward)], inputs), _replay(moves, inputs)

    @property
    def _steps(self) -> range:
        """The steps whose table moves with the crowd."""
        return range(self._game.n_steps if self._game.crowd_moves_dynamics else 0)

    def _point(self) -> Tensor:
        """Return the flat flow at which everything is recorded: as many in each state."""
        T = self._game.shape[0]
        flow = torch.full((T, self._game.initial.numel()), 1.0 / self._game.initial.numel())
        if self._game.joint:
            flow = flow[..., None].expand(self._game.shape) / self._game.n_actions
        return flow.to(torch.float64).reshape(-1).clone()

    def _reward(self, flow: Tensor, values: Tensor) -> Tensor:
        by_site, start = {}, 0
        for name, shape in self._shapes.items():
            by_site[name] = values[start : start + shape.numel()].reshape(shape)
            start += shape.numel()
        program = bind(self._program, by_site)
        return masked_reward(self._game, program, flow).contiguous().reshape(-1)

    def _move(self, t: int) -> Stage:
        """Return the dynamics of one step as a function of the flow, with the next state first."""

        def move(flow: Tensor, values: Tensor) -> Tensor:
            tables = self._game.moving_tables(flow.reshape(self._game.flow_shape)[t], t)
            return tables.permute(0, 3, 1, 2).contiguous().reshape(-1)

        return move


def recording_of(
    game: MeanFieldGame, reward: RewardProgram, parameters: Mapping[str, Tensor]
) -> Recording | None:
    """Return a recording of a reward, kept with the game; None where it cannot be recorded."""
    kept = recordings_of(game)
    recording = kept[id(reward)][1] if id(reward) in kept else None
    if id(reward) not in kept or (recording is not None and not recording.fits(parameters)):
        try:
            recording = Recording(game, reward, parameters)
        except (*NOT_RECORDED, TypeError):  # or tables that are not dense
            recording = None
    kept[id(reward)] = reward, recording  # the reward is held, so that its place is not given again
    kept.move_to_end(id(reward))
    while len(kept) > N_KEPT:
        kept.popitem(last=False)
    return recording


@kept
def recordings_of(game: MeanFieldGame) -> OrderedDict[int, tuple[RewardProgram, Recording | None]]:
    """Return the recordings kept with a game, the one used last at the end."""
    return OrderedDict()


def forget(game: MeanFieldGame, reward: RewardProgram) -> None:
    """Let a reward run as it is from now on."""
    recordings_of(game)[id(reward)] = reward, None


def flat_values(parameters: Mapping[str, Tensor]) -> Tensor:
    """Return the values of all sites in a row, at least one number."""
    values = [value.detach().reshape(-1) for value in parameters.values()]
    return torch.cat([*values, torch.zeros(0 if values else 1, dtype=torch.float64)])


def put_values(played: crowd.Played, values: np.ndarray) -> None:
    """Write flat parameters, a tape's last input."""
    if played.inputs.size:
        played.buffer[played.inputs[-1] : played.inputs[-1] + values.size] = values


def tape_with(played: crowd.Played, values: np.ndarray) -> crowd.Played:
    """Return a tape with a buffer of its own that holds flat parameters."""
    own = played._replace(buffer=played.buffer.copy())
    put_values(own, values)
    return own


def _slope(function: Stage) -> Stage:
    """Return the change of a function of a flow for a change of the flow."""

    def slope(flow: Tensor, change: Tensor, values: Tensor) -> Tensor:
        return pushed_forward(lambda at: function(at, values), flow, change).contiguous()

    return slope


def _pullback(function: Stage) -> Stage:
    """Return the slope of a weighed sum of a function's outputs, in flow and parameters."""

    def pulled(flow: Tensor, weights: Tensor, values: Tensor) -> Tensor:
        with torch.enable_grad():
            at = [v.detach().requires_grad_(True) for v in (flow, values)]
            # weighing in the open: `grad` given weights would import sympy
            weighed = (function(*at) * weights).sum()
            if not weighed.requires_grad:
                return torch.cat([torch.zeros_like(a) for a in at]).detach()
            slopes = torch.autograd.grad(weighed, at, allow_unused=True)
        dense = [torch.zeros_like(a) if s is None else s for s, a in zip(slopes, at, strict=True)]
        return torch.cat([f.detach() for f in dense])

    return pulled


def _in_a_row(stages: Sequence[Stage]) -> Stage:
    """Return a function with the outputs of several, flat."""
    return lambda flow, values: torch.cat([stage(flow, values) for stage in stages])


def pushed_forward(function: Callable[[Tensor], Tensor], point: Tensor, change: Tensor) -> Tensor:
    """Return the derivative of a function of a tensor at a point, times a change of the tensor.

    Forwards; or, where the caller is inside a level of forward derivatives of its own (torch has
    one at a time), by the derivative of a derivative backwards.
    """
    load_rules()
    if not_nested():
        with forward_ad.dual_level():
            output = function(forward_ad.make_dual(point, change))
            plain, tangent = forward_ad.unpack_dual(output)
        return torch.zeros_like(plain) if tangent is None else tangent
    with torch.enable_grad():
        at = point.detach().requires_grad_(True)
        output = function(at)
        weights = torch.zeros_like(output, requires_grad=True)
        if not output.requires_grad:
            return torch.zeros_like(output)
        weighed = (output.masked_fill(torch.isneginf(output), 0.0) * weights).sum()
        back = torch.autograd.grad(weighed, at, create_graph=True, allow_unused=True)[0]
        if back is None or not back.requires_grad:
            return torch.zeros_like(output)
        slope = torch.autograd.grad((back * change).sum(), weights, allow_unused=True)[0]
    return torch.zeros_like(output) if slope is None else slope.detach()


def not_nested() -> bool:
    """Return whether no level of forward derivatives is open."""
    return bool(forward_ad._current_level < 0)


def _replay(stages: Sequence[Stage], inputs: Sequence[Tensor]) -> crowd.Played:
    if not stages:
        return NOTHING
    # a stage is also handed what the stages before it returned
    alone = [lambda *given, stage=stage: stage(*given[: len(inputs)]) for stage in stages]
    with double_precision(), pyro.validation_enabled(False), torch.no_grad():
        tape = lower(record(alone, inputs, KNOWN))
    return crowd.Played(
        code=tape.code,
        places=tape.places,
        buffer=tape.buffer,
        inputs=np.array([s.start for s in tape.inputs]),
        outputs=np.array([s.start for s in tape.outputs]),
        ends=np.array([0, *tape.ends]),
    )
