"""The causal likelihood of a stationary game: one policy for all times.

`log L = sum_sa N(s, a) (Q(s, a) - V(s)) / temperature`, with discounted soft values.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mfgppl._kernels import bridge
from mfgppl.control.stationary_control import policy_iteration
from mfgppl.control.stationary_values import StationaryValues
from mfgppl.control.steps import as_steps
from mfgppl.data.trajectories import Counts, Trajectories
from mfgppl.likelihood.dynamics import WithDynamics
from mfgppl.likelihood.terms import Term, counted, decisions


@dataclass(frozen=True, eq=False)
class StationaryLikelihood(WithDynamics):
    """The law of the actions under the stationary soft policy against a fixed distribution.

    Rewards are (1, S, A), with -inf where an action is not available.

    Attributes
    ----------
    transition : Tensor, shape (1, S, A, S) or (1, C, S, A, S)
        Dynamics at the distribution, dense or sparse COO.
    counts : Counts
        Sufficient statistics of the panel, pooled over time.
    discount, temperature : float
        The game's constants.
    """

    transition: Tensor
    counts: Counts
    discount: float
    temperature: float

    def evaluator(self, actions: np.ndarray | None = None) -> bridge.Evaluator:
        """Return reward to (log likelihood, gradient); other counts may be given."""
        counts = self.counts.actions if actions is None else actions
        values = self.values()

        def evaluate(reward: np.ndarray) -> tuple[float, np.ndarray]:
            log_policy = values.log_policy(torch.from_numpy(reward[0]))[None]
            value = float(counted(torch.as_tensor(counts), log_policy))
            return value, self.gradient(values, log_policy, counts)

        return evaluate

    def values(self) -> StationaryValues:
        """Return the control problem along the flow, with a workspace."""
        steps = as_steps(self.transition, 1)
        return StationaryValues(steps, discount=self.discount, temperature=self.temperature)

    def gradient(
        self, values: StationaryValues, log_policy: Tensor, actions: np.ndarray
    ) -> np.ndarray:
        """Return the gradient (1, S, A) at a log policy (1, S, A) and counts.

        With `n(s) = sum_a N(s, a)` and the adjoint d of V it is
        `g = N / beta + pi (d - n / beta)`, and `d = discount * P' g` is one linear system.
        """
        policy = log_policy.exp()[0]
        scaled = torch.as_tensor(actions)[0] / self.temperature
        direct = scaled - policy * scaled.sum(-1, keepdim=True)
        carried = values.adjoint(policy, self.discount * values.steps.pushed(0, direct))
        return np.asarray((direct + policy * carried[:, None])[None].numpy())

    def log_likelihood(self, reward: Tensor) -> Tensor:
        """Return the log likelihood in plain torch, on the reward's device."""
        return counted(torch.as_tensor(self.counts.actions).to(reward.device), *self.tables(reward))

    def tables(self, reward: Tensor) -> tuple[Tensor]:
        """Return the log policy (1, S, A), whose entries add up to the log likelihood, in torch."""
        transition = self.transition.to(reward.device)
        solution = policy_iteration(
            reward, transition, discount=self.discount, temperature=self.temperature
        )
        return (solution.log_policy,)

    def table_slopes(self, reward: Tensor, change: Tensor) -> tuple[Tensor]:
        """Return how the log policy changes as the reward (1, S, A) does, in one direction."""
        policy = torch.from_numpy(self.log_policy(reward.numpy())[0]).exp()
        earned = torch.where(policy > 0, change[0], 0.0)
        steps = as_steps(self.transition, 1)
        ahead = steps.carried(0, policy, (policy * earned).sum(-1), discount=self.discount)
        q = earned + self.discount * steps.expected(0, ahead)
        return ((q - ahead[:, None])[None] / self.temperature,)

    def table_arrays(self, rewards: np.ndarray) -> tuple[np.ndarray]:
        """Return the same for rewards (..., 1, S, A) with axes in front kept."""
        return (self.log_policy(rewards),)

    def log_policy(self, rewards: np.ndarray) -> np.ndarray:
        """Return the log probability of each action, of shape (..., 1, S, A)."""
        many = np.ascontiguousarray(rewards).reshape(-1, *rewards.shape[-3:])
        values = self.values()
        each = [values.log_policy(torch.from_numpy(reward[0])).numpy() for reward in many]
        return np.stack(each).reshape(rewards.shape)

    def terms(self, panel: Trajectories) -> list[Term]:
        """Return what each trajectory adds."""
        return [Term(0, *decisions(panel, self.counts.actions.shape), 1.0)]
