"""A stationary game at fixed reward parameters over arrays: the counterpart of `ResponseMap`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl._generated_flow import flow_of_policy
from mfgppl.control.stationary_control import kept_flow, policy_iteration
from mfgppl.control.steps import Steps, as_steps
from mfgppl.equilibrium.flat_flows import Array, flat_shape
from mfgppl.equilibrium.images import Evaluation, Image
from mfgppl.equilibrium.recording import masked_reward
from mfgppl.equilibrium.response import soft_response
from mfgppl.equilibrium.response_map import mirrored_by_evaluations
from mfgppl.game import MeanFieldGame
from mfgppl.reward.program import RewardProgram, bind, double_precision, placed_values

MAX_POLICIES = 1000


class StationaryResponseMap:
    """A game without a horizon at fixed reward parameters; arrays have T = 1.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program.
    parameters : mapping or Series, optional
        A value for each of its latent sites.
    """

    recorded = False
    exposures = None

    def __init__(
        self,
        game: MeanFieldGame,
        reward: RewardProgram,
        parameters: Mapping[str, Any] | pd.Series | None = None,
    ) -> None:
        values = placed_values(reward, game, parameters)
        self.game, self.program = game, bind(reward, values)

    def image(self, flow: Array, temperature: float) -> Image:
        """Return the soft best response to a flow and the flow that it keeps."""
        with double_precision(), torch.no_grad():
            response = soft_response(
                self.game, self.program, self._tensor(flow), temperature=temperature
            )
        generated, policy, values, reward = (v.numpy() for v in response)
        return Image(flow, generated.reshape(flow.shape), reward, policy, values)

    def evaluate(self, policy: Array, temperature: float = 0.0) -> Evaluation:
        """Return the flow that a policy keeps, the reward along it and the policy's values."""
        with double_precision(), torch.no_grad():
            flow = flow_of_policy(self.game, torch.from_numpy(policy))
            reward = masked_reward(self.game, self.program, flow)
            steps = self.game.steps_along(flow)
            chances = torch.from_numpy(policy[0])
            q_values, values = self._evaluate(chances, reward[0], steps, temperature)
        flat = flow.numpy().reshape(flat_shape(self.game))
        return Evaluation(
            policy, flat, reward.numpy(), q_values[None].numpy(), values[None].numpy()
        )

    def best(self, evaluation: Evaluation, temperature: float = 0.0) -> tuple[Array, Array]:
        """Return values (1, S) and policy of the best response to an evaluated policy's flow."""
        reward = torch.from_numpy(evaluation.reward)
        steps = self.game.steps_along(self._tensor(evaluation.flow))
        if temperature > 0.0:
            solution = policy_iteration(
                reward,
                steps,
                discount=self.game.discount,
                temperature=temperature,
            )
            return solution.soft_values.numpy(), solution.log_policy.exp().numpy()
        choice = reward[0].argmax(-1)
        for _ in range(MAX_POLICIES):
            policy = torch.nn.functional.one_hot(choice, reward.shape[-1]).to(reward.dtype)
            q_values, values = self._evaluate(policy, reward[0], steps, 0.0)
            better = q_values.max(-1)
            slack = 1e-12 * float(values.abs().max().clamp_min(1.0))
            gains = better.values > values + slack
            if not bool(gains.any()):
                break
            choice = torch.where(gains, better.indices, choice)
        return values[None].numpy(), policy[None].numpy()

    def occupancy(self, evaluation: Evaluation, policy: Array) -> Array:
        """Return the shares of states and actions of a policy along an evaluated policy's flow."""
        steps = self.game.steps_along(self._tensor(evaluation.flow))
        along = steps.under(0, torch.from_numpy(policy[0]))[:, None]
        alone = torch.ones(1, len(policy[0]), 1, dtype=along.dtype)
        shares = kept_flow(alone, as_steps(along, 1), initial=self.game.initial)
        return np.asarray(shares.numpy()[..., None] * policy)

    def start(self, evaluation: Evaluation) -> Array:
        """Return the distribution (S,) over which values are averaged: the flow itself."""
        return np.asarray(evaluation.flow.reshape(*self.game.shape[1:2], -1).sum(-1))

    def mirrored(self, logits: Array, rate: float, n_steps: int) -> Array:
        """Return logits (1, S, A) after steps of online mirror descent."""
        return mirrored_by_evaluations(self.evaluate, logits, rate, n_steps)

    def confirms(self, flow: Array) -> bool:
        """Return true: nothing is recorded."""
        return True

    def change(self, image: Image, temperature: float, change: Array) -> None:
        """Return nothing: derivatives are autograd's."""

    def sweeps(self, image: Image, temperature: float, room: None = None) -> None:
        """Return nothing: there is no time to sweep over."""

    def jacobian(self, image: Image, temperature: float) -> None:
        """Return nothing: derivatives are autograd's."""

    def _evaluate(
        self, policy: Tensor, reward: Tensor, steps: Steps, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Return Q (S, A) and values (S,) of a policy (S, A), with its entropy's."""
        entropy = -temperature * torch.special.xlogy(policy, policy)
        income = torch.where(policy > 0, policy * reward, 0.0) + entropy
        values = steps.carried(0, policy, income.sum(-1), discount=self.game.discount)
        return reward + self.game.discount * steps.expected(0, values), values

    def _tensor(self, flow: Array) -> Tensor:
        return torch.from_numpy(np.array(flow).reshape(self.game.flow_shape))
