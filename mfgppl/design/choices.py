"""The evidence of choices along a flow: what they show of a reward is its changes up to shaping."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mfgppl._generated_flow import uniform_policy
from mfgppl.density.sizes import ROUNDING
from mfgppl.design.derivatives import Slopes, advantages, program_along, slopes_at, steps_of
from mfgppl.design.rank_test import FOR_MEDIAN, RankTest, Tested
from mfgppl.equilibrium.fixed_point import Settled, settled
from mfgppl.reward.parameters import Program

NOBODY = 1e-12  # share of the crowd that counts as none


class Choices(NamedTuple):
    """The evidence of choices along flows, of a program with agents of one kind."""

    program: Program

    def middle(self) -> np.ndarray:
        """Return the median of draws from the prior, unconstrained (K,)."""
        return np.asarray(np.median([self.program.draw(k) for k in range(FOR_MEDIAN)], axis=0))

    def equilibrium(self, theta: np.ndarray) -> Tensor:
        """Return the flow in the equilibrium at a point, else raise `ConvergenceError`."""
        return equilibrium_at(self.program, theta).mean_field

    def tests(self, flows: Sequence[Tensor], points: Sequence[np.ndarray]) -> Tested:
        """Return the rank tests at points, of changes of the reward up to shaping."""
        game, reward = self.program.game, self.program.reward
        programs = [program_along(game, reward, flow) for flow in flows]
        seen = [_reached(program) for program in programs]
        return [_test(programs, seen, point) for point in points], ()


def equilibrium_at(program: Program, theta: np.ndarray) -> Settled:
    """Return the equilibrium at unconstrained parameters, else raise `ConvergenceError`."""
    return settled(program.game, program.reward, program.values_at(theta), throw=True)


def _test(programs: Sequence[Program], seen: Sequence[Tensor], theta: np.ndarray) -> RankTest:
    """Return the rank test at a point over all flows."""
    rows, features, least = [], [], 0.0
    for program, reached in zip(programs, seen, strict=True):
        slopes = slopes_at(program, theta)
        rows.append(_effects(program, slopes)[:, reached].numpy())
        features.append(slopes.features[:, reached].numpy())
        if not program.answers_reward:  # a table with rounding
            least = max(least, ROUNDING * slopes.largest * np.sqrt(features[-1].shape[1]))
    size = np.linalg.norm(np.concatenate(features, axis=1), axis=1)
    idle = size <= least  # a change of rounding is none
    size[idle] = 1.0
    scaled = (np.where(idle[:, None], 0.0, np.concatenate(rows, axis=1)) / size[:, None]).T
    # the triangle of a QR decomposition has the null space of its rows
    triangle = np.asarray(np.linalg.qr(scaled, mode="r"))
    return RankTest(triangle, size, slopes.jacobian, slopes.values)


def _effects(program: Program, slopes: Slopes) -> Tensor:
    """Return what each parameter does to the uniform policy, (K, T, S, A)."""
    game = program.game
    uniform = uniform_policy(game)
    return advantages(slopes.features, uniform, steps_of(program), game)


def _reached(program: Program) -> Tensor:
    """Return the available actions (T, S, A) of the states that can be reached along its flow."""
    game, mean_field = program.game, program.mean_field
    steps, uniform = steps_of(program), uniform_policy(game)
    shares = mean_field.sum(-1) if game.joint else mean_field
    seen = shares > NOBODY
    if game.stationary:
        seen[0] |= game.initial > NOBODY
        for _ in range(game.n_states):
            seen[0] |= steps.pushed(0, seen[0].double()[:, None] * uniform[0]) > 0
    for t in range(game.shape[0] - 1):
        seen[t + 1] |= steps.pushed(t, seen[t].double()[:, None] * uniform[t]) > 0
    return seen[:, :, None] & game.available
