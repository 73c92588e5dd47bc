"""A game at fixed reward parameters over arrays: what iterations on the flow are made of.

Reward and dynamics are recorded once and run by the tape machine, with the kernels' sweeps in one
compiled call. What cannot be recorded (a program with branches on values, dynamics that scipy
builds) runs as it is, around the same sweeps.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch

from mfgppl._generated_flow import flow_of_policy
from mfgppl._keep import keep
from mfgppl._kernels import bridge, crowd
from mfgppl.equilibrium.exposures import exposures_of
from mfgppl.equilibrium.flat_flows import Array, flat_shape, softmax, uniform_flow
from mfgppl.equilibrium.images import Evaluation, Image
from mfgppl.equilibrium.moving_start import MovingStart
from mfgppl.equilibrium.recording import (
    NOT_RECORDED,
    NOTHING,
    flat_values,
    forget,
    masked_reward,
    put_values,
    recording_of,
)
from mfgppl.equilibrium.sweeps_over_time import Sweeps, reads_of, sweeps_at
from mfgppl.game import MeanFieldGame
from mfgppl.reward.crowd_met import noted_reads
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import (
    RewardProgram,
    bind,
    double_precision,
    placed_values,
    reward_table,
)

AGREEMENT = 1e-10  # of a recorded program with the program itself, relative to the largest entry


class ResponseMap:
    """A game with a horizon at fixed reward parameters.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program.
    parameters : mapping or Series, optional
        A value for each of its latent sites.
    start : MovingStart, optional
        The start, where it moves with the parameters.

    Attributes
    ----------
    recorded : bool
        Whether reward and dynamics run on the tape machine.
    values : ndarray, shape (P,)
        The parameters that it has, flat.
    exposures : Exposures or None
        What is read of flows, where it is less than all of them.
    moving_start : MovingStart or None
        As given.
    """

    def __init__(
        self,
        game: MeanFieldGame,
        reward: RewardProgram,
        parameters: Mapping[str, Any] | pd.Series | None = None,
        *,
        start: MovingStart | None = None,
    ) -> None:
        values = placed_values(reward, game, parameters)
        self.game, self._reward, self._shape = game, reward, game.shape
        self._program: RewardProgram | None = bind(reward, values)
        self.moving_start = start
        sites = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in values.items()}
        self._shapes = {name: value.shape for name, value in sites.items()}
        self.values = flat_values(sites).numpy()
        self._n_values = sum(shape.numel() for shape in self._shapes.values())
        flow = torch.from_numpy(uniform_flow(game))
        with double_precision(), torch.no_grad():
            # at the door, where the program's own errors are raised
            along = flow.reshape(game.flow_shape)
            with noted_reads() as reads:
                table = reward_table(self.program, RewardInputs(game, along))
            tables = bridge.tables_of(game.transition_along(along))
        initial = game.initial.detach().numpy().copy()
        self.arrays = crowd.Arrays(tables, NOTHING, NOTHING, initial, game.discount)
        if start is None:
            self.exposures = exposures_of(game, by_cell=reads.by_cell)
        else:
            self.exposures = start.exposures
        self._recording = recording_of(game, reward, sites)
        self._slopes: tuple[crowd.Played, crowd.Played] | None = None
        self._pulls: tuple[crowd.Played, crowd.Played] | None = None
        self._has_slopes = True
        self._tables_along: Array | None = None  # the flow along which the tables are
        if self._recording is not None:
            own = [table.masked_fill(~game.available, -torch.inf).numpy(), *tables]
            reward_tape, moves = self._recording.tapes(sites)
            self.arrays = self.arrays._replace(reward=reward_tape, moves=moves)
            if not self._agrees(flow.numpy(), own):
                self._recording = None

    @property
    def recorded(self) -> bool:
        """Whether reward and dynamics run on the tape machine."""
        return self._recording is not None

    @property
    def program(self) -> RewardProgram:
        """The reward program at the parameters."""
        if self._program is None:
            self._program = bind(self._reward, self._sites)
        return self._program

    @property
    def _sites(self) -> dict[str, torch.Tensor]:
        """The parameters by site."""
        sites, start, flat = {}, 0, torch.from_numpy(self.values.copy())
        for name, shape in self._shapes.items():
            sites[name] = flat[start : start + shape.numel()].reshape(shape)
            start += shape.numel()
        return sites

    def image(self, flow: Array, temperature: float) -> Image:
        """Return the soft best response to a flow and the flow that it generates along it."""
        shape = self._shape
        image = Image(
            flow=np.ascontiguousarray(flow),
            generated=np.empty_like(flow),
            reward=np.empty(shape),
            policy=np.empty(shape),
            values=np.empty(shape[:2]),
        )
        _, generated, reward, policy, values = image
        q_values = np.empty(shape)
        if self.recorded:
            crowd.image(
                self.arrays, image.flow, temperature, reward, q_values, values, policy, generated
            )
            self._tables_along = image.flow
            return image
        reward[:] = self._face(flow)
        self._follow(flow)
        crowd.respond(self.arrays, reward, temperature, q_values, values, policy)
        crowd.push(self.arrays, policy, generated, False)
        return image

    def evaluate(self, policy: Array, temperature: float = 0.0) -> Evaluation:
        """Return the flow that a policy generates, the reward along it and the policy's values."""
        T, S, A = self.game.shape
        evaluation = Evaluation(
            policy=np.ascontiguousarray(policy),
            flow=np.empty(flat_shape(self.game)),
            reward=np.empty((T, S, A)),
            q_values=np.empty((T, S, A)),
            values=np.empty((T, S)),
        )
        _, flow, reward, q_values, values = evaluation
        if self.recorded:
            crowd.turn(self.arrays, evaluation.policy, temperature, flow, reward, q_values, values)
            self._tables_along = None
            return evaluation
        with double_precision(), torch.no_grad():
            generated = flow_of_policy(self.game, torch.from_numpy(evaluation.policy))
        flow[:] = generated.numpy().reshape(flow.shape)
        reward[:] = self._face(flow)
        self._follow(flow)
        crowd.evaluate(self.arrays, reward, evaluation.policy, temperature, q_values, values)
        return evaluation

    def best(self, evaluation: Evaluation, temperature: float = 0.0) -> tuple[Array, Array]:
        """Return values (T, S) and policy of the best response to an evaluated policy's flow."""
        self.put_tables(evaluation.flow)
        values, policy = np.empty(self.game.shape[:2]), np.empty(self.game.shape)
        q_values = np.empty(self.game.shape)
        crowd.respond(self.arrays, evaluation.reward, temperature, q_values, values, policy)
        return values, policy

    def occupancy(self, evaluation: Evaluation, policy: Array) -> Array:
        """Return the shares of states and actions of a policy along an evaluated policy's flow."""
        self.put_tables(evaluation.flow)
        flow = np.empty((len(policy), policy.shape[1] * policy.shape[2]))
        crowd.push(self.arrays, np.ascontiguousarray(policy), flow, False)
        return flow.reshape(policy.shape)

    def start(self, evaluation: Evaluation) -> Array:
        """Return the distribution (S,) over which values are averaged."""
        return self.arrays.initial

    def mirrored(self, logits: Array, rate: float, n_steps: int) -> Array:
        """Return logits (T, S, A) after steps of online mirror descent."""
        if not self.recorded:
            return mirrored_by_evaluations(self.evaluate, logits, rate, n_steps)
        logits = logits.copy()
        flow, policy = np.empty(flat_shape(self.game)), np.empty(self.game.shape)
        crowd.mirror(self.arrays, logits, rate, n_steps, flow, policy)
        self._tables_along = None
        return logits

    def change(self, image: Image, temperature: float, change: Array) -> Array | None:
        """Return how a change of the flow changes what it generates; None if not recorded."""
        slopes = self._recorded_slopes()
        if slopes is None:
            return None
        out = np.empty_like(image.flow)
        self.put_tables(image.flow)
        crowd.slope(
            self.arrays, *slopes, image.flow, np.ascontiguousarray(change), temperature,
            image.values, image.policy, out,
        )  # fmt: skip
        return out

    def jacobian(self, image: Image, temperature: float) -> Array | None:
        """Return what each entry of a flow changes, one row per entry; None if not recorded."""
        slopes = self._recorded_slopes()
        if slopes is None:
            return None
        rows = np.empty((image.flow.size, image.flow.size))
        self.put_tables(image.flow)
        crowd.jacobian(
            self.arrays, *slopes, image.flow, temperature, image.values, image.policy, rows
        )
        return rows

    def sweeps(self, image: Image, temperature: float, room: Sweeps | None = None) -> Sweeps | None:
        """Return `(I - J)^-1` at a response as sweeps over time; None where that is not possible.

        J is the derivative of the flow that a flow generates. Its matrices take the room of a
        system that is no longer needed, if one is given.
        """
        slopes, known = self._recorded_slopes(), self.reads
        if slopes is None or known is None:
            return None
        self.put_tables(image.flow)
        response = image.flow, image.values, image.policy, image.generated
        return sweeps_at(self.arrays, slopes, known, response, temperature, room)

    @property
    def reads(self) -> Array | None:
        """What is read of the flow of each time (n, S); None where that is not all that is read."""
        slopes = self._recorded_slopes()
        if slopes is None or self._recording is None or self.game.joint:
            return None
        return keep(
            self._recording,
            "reads",
            lambda: reads_of(self.arrays, slopes, self.values, self._shape),
        )

    def put(self, values: Array) -> None:
        """Give what is recorded other parameters: flat, in the order of those given first."""
        self.values, self._program = np.array(values, dtype=float), None
        for played in (self.arrays.reward, *(self._slopes or ()), *(self._pulls or ())):
            put_values(played, self.values)
        if self.moving_start is not None:
            self.arrays.initial[:] = self.moving_start.initial(self.values)

    def put_tables(self, flow: Array) -> None:
        """Put the tables along a flow, unless they are."""
        if not self.recorded:
            self._follow(flow)
        elif self._tables_along is not flow:
            crowd.follow(self.arrays, flow)
            self._tables_along = flow

    def pull(
        self,
        image: Image,
        temperature: float,
        *,
        counts: Array,
        weights: Array,
        moved: Array,
        shared: Array | None = None,
    ) -> tuple[Array, Array] | None:
        """Return slopes of weighed sums in the flow (T, F) and in the parameters (P,).

        Parameters
        ----------
        image : Image
            A response to a flow.
        temperature : float
            Of the response.
        counts : ndarray, shape (T, S, A)
            Weights of the log policy.
        weights : ndarray, shape (T, F)
            Weights of the flow generated.
        moved : ndarray, shape (n, B, S, S * A)
            Weights of the dynamics, next state first, where the crowd moves them.
        shared : ndarray, shape (N, S), optional
            Weights of the log shares of kinds, where the start moves with the parameters. Without
            them it is held.

        Returns
        -------
        tuple of ndarray, or None
            None if nothing is recorded, or an operation has no derivative there.
        """
        if self._recording is not None and self._has_slopes and self._pulls is None:
            try:
                self._pulls = self._recording.pulls(self._sites)
            except NOT_RECORDED:
                self._has_slopes = False
        if self._pulls is None:
            return None
        by_reward, by_moves = self._pulls
        on_reward, on_tables = np.empty(image.policy.shape), np.empty(moved.shape)
        on_start = np.empty(self.arrays.initial.shape)
        self.put_tables(image.flow)
        crowd.pull(
            self.arrays, counts, weights, temperature, image.values, image.policy,
            on_reward, on_tables, on_start,
        )  # fmt: skip
        n_shares = image.flow.size
        size = n_shares + self._n_values
        slopes = crowd.pull_back(by_reward, image.flow, on_reward, size)
        if moved.size:
            slopes += crowd.pull_back(by_moves, image.flow, on_tables + moved, size)
        if self.moving_start is not None and shared is not None:
            on_shares = self.arrays.initial * on_start + shared.ravel()
            slopes[n_shares:] += self.moving_start.pulled(self.values, on_shares)
        return slopes[:n_shares].reshape(image.flow.shape), slopes[n_shares:]

    def confirms(self, flow: Array) -> bool:
        """Return whether the recording gives the program's own numbers along a flow.

        A program may branch where no check has looked, or read constants that have changed. Then
        the recording is dropped, and the program itself is run from here on.
        """
        if not self.recorded:
            return True
        if self._follows_program(flow):
            return True
        self._recording = None
        forget(self.game, self._reward)
        return False

    def _recorded_slopes(self) -> tuple[crowd.Played, crowd.Played] | None:
        """Return the tapes of the derivatives, recorded at first use; None where that fails."""
        if self._recording is not None and self._has_slopes and self._slopes is None:
            try:
                self._slopes = self._recording.slopes(self._sites)
            except NOT_RECORDED:
                self._has_slopes = False
        return self._slopes

    def _face(self, flow: Array) -> Array:
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            return masked_reward(self.game, self.program, torch.from_numpy(flow.copy())).numpy()

    def _follow(self, flow: Array) -> None:
        """Put the tables along a flow, by the game's own function."""
        if self.game.crowd_moves_dynamics:
            along = torch.from_numpy(flow.copy()).reshape(self.game.flow_shape)
            with double_precision(), torch.no_grad():
                tables = bridge.tables_of(self.game.transition_along(along))
            self.arrays, self._tables_along = self.arrays._replace(tables=tables), None

    def _agrees(self, flow: Array, own: Sequence[Array]) -> bool:
        """Compare reward and dynamics along a flow with the recorded ones there, and elsewhere."""
        rng = np.random.default_rng(0)
        if not self._repeats(flow, own):
            return False
        if self._recording is None or self._recording.checked:
            return True
        for _ in range(2):
            if not self._follows_program(rng.dirichlet(np.ones(flow.shape[1]), size=len(flow))):
                return False
        self._recording.checked = True
        return True

    def _follows_program(self, flow: Array) -> bool:
        """Return whether the tapes give what the program and the game give along a flow."""
        self._follow(flow)
        return self._repeats(flow, [self._face(flow), *self.arrays.tables])

    def _repeats(self, flow: Array, own: Sequence[Array]) -> bool:
        """Return whether the tapes give the reward and the tables along a flow."""
        own = [array.copy() for array in own]
        reward = self.image(flow, self.game.temperature).reward
        return all(map(_close, [reward, *self.arrays.tables], own))


def mirrored_by_evaluations(
    evaluation: Callable[[Array], Evaluation], logits: Array, rate: float, n_steps: int
) -> Array:
    """Return logits after steps of online mirror descent, one evaluation each."""
    for _ in range(n_steps):
        logits = logits + rate * evaluation(softmax(logits)).q_values
    return logits


def _close(a: Array, b: Array) -> bool:
    size = np.abs(b[np.isfinite(b)]).max(initial=1.0)
    return a.shape == b.shape and np.allclose(
        a, b, rtol=0, atol=AGREEMENT * float(size), equal_nan=True
    )
