"""The causal likelihood of a stationary game: one policy for all times.

`log L = sum_sa N(s, a) (Q(s, a) - V(s)) / temperature`, with discounted soft values.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mfgppl._keep import keep
from mfgppl._kernels import bridge, laws
from mfgppl.control.soft_control import bend_of_values
from mfgppl.control.stationary_control import policy_iteration
from mfgppl.control.stationary_values import StationaryValues
from mfgppl.control.steps import as_steps
from mfgppl.data.panel import Counts
from mfgppl.data.trajectories import Trajectories
from mfgppl.likelihood.base_law import WithDynamics
from mfgppl.likelihood.terms import Term, counted, decisions

SMALL = 300  # states of a cell up to which the kernel serves


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
        counts = self.counts.actions if actions is None else np.ascontiguousarray(actions)
        answer, pull_back = self.response()
        return lambda reward: (
            float(counted(torch.as_tensor(counts), torch.from_numpy(answer(reward)))),
            pull_back(counts),
        )

    def response(self) -> bridge.Response:
        """Return the policy at a reward and the gradient there, in a workspace of their own."""
        if self.is_small:
            return bridge.stationary_response(laws.alike(keep(self, "arrays", self.arrays)))
        return self._by_library()

    @property
    def is_small(self) -> bool:
        """Whether the kernel's factors are quicker than those of LAPACK."""
        n_cells = self.transition.shape[1] if self.transition.ndim == 5 else 1
        return bool(self.counts.actions.shape[1] <= SMALL * n_cells)

    def _by_library(self) -> bridge.Response:
        """Return the same by LAPACK.

        With `n(s) = sum_a N(s, a)` and the adjoint d of V the gradient is
        `g = N / beta + pi (d - n / beta)`, and `d = discount * P' g` is one linear system.
        """
        values, policy = self.values(), np.empty(self.counts.actions.shape[1:])

        def answer(reward: np.ndarray) -> np.ndarray:
            found = values.log_policy(torch.from_numpy(np.ascontiguousarray(reward[0]))).numpy()
            np.exp(found, out=policy)
            return np.asarray(found[None])

        def pull_back(actions: np.ndarray) -> np.ndarray:
            pi = torch.from_numpy(policy)
            scaled = torch.as_tensor(actions)[0] / self.temperature
            direct = scaled - pi * scaled.sum(-1, keepdim=True)
            carried = values.adjoint(pi, self.discount * values.steps.pushed(0, direct))
            return np.asarray((direct + pi * carried[:, None])[None].numpy())

        return bridge.Response(answer, pull_back)

    def values(self) -> StationaryValues:
        """Return the control problem along the flow, with a workspace."""
        steps = as_steps(self.transition, 1)
        return StationaryValues(steps, discount=self.discount, temperature=self.temperature)

    def arrays(self) -> laws.Stationary:
        """Return what the kernel reads, with a workspace."""
        constants = {"discount": self.discount, "temperature": self.temperature}
        return laws.stationary_law(self.kernel_tables, self.counts.actions, **constants)

    def log_likelihood(self, reward: Tensor) -> Tensor:
        """Return the log likelihood in plain torch, on the reward's device."""
        return counted(torch.as_tensor(self.counts.actions).to(reward.device), *self.tables(reward))

    def tables(self, reward: Tensor) -> tuple[Tensor]:
        """Return the log policy (1, S, A), whose entries add up to the log likelihood, in torch."""
        steps = as_steps(self.transition.to(reward.device), 1)
        solution = policy_iteration(
            reward, steps, discount=self.discount, temperature=self.temperature
        )
        return (solution.log_policy,)

    def table_slopes(self, reward: Tensor, changes: Tensor) -> tuple[Tensor]:
        """Return how the log policy changes with the reward in K directions, (K, 1, S, A).

        `dV = (I - discount P)^-1 sum_a pi dr` and `d log pi = (dr + discount P dV - dV) / beta`.
        """
        policy = torch.from_numpy(np.exp(self.log_policy(reward.numpy())))[0]
        steps, changes = as_steps(self.transition, 1), changes[:, 0].masked_fill(policy == 0, 0.0)
        values = torch.stack(
            [
                steps.carried(0, policy, earned, discount=self.discount)
                for earned in (policy * changes).sum(-1)
            ]
        )
        q_values = changes + self.discount * steps.expected_each(0, values)
        slopes = (q_values - values[..., None]) / self.temperature
        return (slopes.masked_fill(policy == 0, 0.0)[:, None],)

    def bend(self, reward: Tensor, gradient: Tensor, changes: Tensor) -> Tensor:
        """Return second derivatives (K, K) of the log likelihood in K directions of the reward.

        Parameters
        ----------
        reward, gradient : Tensor, shape (1, S, A)
            The reward, and the gradient there.
        changes : Tensor, shape (K, 1, S, A)
            The directions.
        """
        policy = torch.from_numpy(np.exp(self.log_policy(reward.numpy())))[0]
        worth = (gradient - torch.as_tensor(self.counts.actions) / self.temperature).sum(-1)
        slopes = self.table_slopes(reward, changes)[0][:, 0]
        return bend_of_values(policy, slopes, worth[0], temperature=self.temperature)

    def table_arrays(self, rewards: np.ndarray) -> tuple[np.ndarray]:
        """Return the same for rewards (..., 1, S, A) with axes in front kept."""
        return (self.log_policy(rewards),)

    def log_policy(self, rewards: np.ndarray) -> np.ndarray:
        """Return the log probability of each action, of shape (..., 1, S, A)."""
        if self.is_small:
            return bridge.stationary_policies(rewards, keep(self, "arrays", self.arrays))
        answer, many = self._by_library().answer, rewards.reshape(-1, *rewards.shape[-3:])
        return np.stack([answer(reward) for reward in many]).reshape(rewards.shape)

    def terms(self, panel: Trajectories) -> list[Term]:
        """Return what each trajectory adds."""
        return [Term(0, *decisions(panel, self.counts.actions.shape), 1.0)]
