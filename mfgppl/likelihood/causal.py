"""The causal likelihood: the exact law of the actions along a fixed flow.

`log L = sum_tsa N_t(s, a) (Q_t(s, a) - V_t(s)) / temperature`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mfgppl._kernels import bridge
from mfgppl.control.soft_control import backward_induction, policy_change
from mfgppl.data.trajectories import Counts, Trajectories
from mfgppl.likelihood.dynamics import WithDynamics
from mfgppl.likelihood.terms import Term, counted, decisions


@dataclass(frozen=True, eq=False)
class CausalLikelihood(WithDynamics):
    """The law of the actions under the soft policy along a fixed flow.

    Rewards are (T, S, A), with -inf where an action is not available.

    Attributes
    ----------
    transition : Tensor, shape (n, S, A, S) or (n, C, S, A, S), n = 1 or T-1
        Dynamics along the flow, dense or sparse COO.
    counts : Counts
        Sufficient statistics of the panel.
    discount, temperature : float
        The game's constants.
    """

    transition: Tensor
    counts: Counts
    discount: float
    temperature: float

    def evaluator(self, actions: np.ndarray | None = None) -> bridge.Evaluator:
        """Return reward to (log likelihood, gradient), by kernel; other counts may be given."""
        return bridge.law_evaluator(self.arrays(actions))

    def arrays(self, actions: np.ndarray | None = None) -> bridge.Causal:
        """Return what the kernel reads, with a workspace; other counts may be given."""
        return bridge.causal_law(
            self.kernel_tables,
            self.counts.actions if actions is None else actions,
            discount=self.discount,
            temperature=self.temperature,
        )

    def log_likelihood(self, reward: Tensor) -> Tensor:
        """Return the log likelihood in plain torch: the kernel's twin, on the reward's device."""
        return counted(torch.as_tensor(self.counts.actions).to(reward.device), *self.tables(reward))

    def tables(self, reward: Tensor) -> tuple[Tensor]:
        """Return the log policy (T, S, A), whose entries add up to the log likelihood, in torch."""
        transition = self.transition.to(reward.device)
        solution = backward_induction(
            reward, transition, discount=self.discount, temperature=self.temperature
        )
        return (solution.log_policy,)

    def table_slopes(self, reward: Tensor, change: Tensor) -> tuple[Tensor]:
        """Return how the log policy changes as the reward (T, S, A) does, in one direction."""
        constants = {"discount": self.discount, "temperature": self.temperature}
        log_policy = torch.from_numpy(self.log_policy(reward.numpy()))
        return (policy_change(log_policy, change, self.transition, **constants),)

    def table_arrays(self, rewards: np.ndarray) -> tuple[np.ndarray]:
        """Return the same by kernel, for rewards (..., T, S, A) with axes in front kept."""
        return (self.log_policy(rewards),)

    def log_policy(self, rewards: np.ndarray) -> np.ndarray:
        """Return the log probability of each action, of shape (..., T, S, A)."""
        constants = {"discount": self.discount, "temperature": self.temperature}
        return bridge.soft_arrays(rewards, self.kernel_tables, **constants)[1]

    def terms(self, panel: Trajectories) -> list[Term]:
        """Return what each trajectory adds."""
        return [Term(0, *decisions(panel, self.counts.actions.shape), 1.0)]
