"""The causal likelihood: the exact law of the actions along a fixed flow.

`log L = sum_tsa N_t(s, a) (Q_t(s, a) - V_t(s)) / temperature`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mfgppl._kernels import bridge, laws
from mfgppl.control.soft_control import backward_induction, bend_of_values, policy_changes
from mfgppl.control.steps import as_steps
from mfgppl.data.panel import Counts
from mfgppl.data.trajectories import Trajectories
from mfgppl.likelihood.base_law import WithDynamics
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
    cells : (int, int), optional
        The cells, from the first to before the last, beside which nobody is counted; all if not
        given. Sweeps leave the others out.
    """

    transition: Tensor
    counts: Counts
    discount: float
    temperature: float
    cells: tuple[int, int] | None = None

    def of_cells(self, first: int, last: int) -> "CausalLikelihood":
        """Return the law of the agents in the cells from `first` to before `last`."""
        actions = self.counts.actions
        by_cell = actions.reshape(len(actions), self.kernel_tables.block.size, -1)  # type: ignore[union-attr]  # dense
        some = np.zeros_like(by_cell)
        some[:, first:last] = by_cell[:, first:last]
        counts = self.counts._replace(actions=some.reshape(actions.shape))
        return replace(self, counts=counts, cells=(first, last))

    def evaluator(self, actions: np.ndarray | None = None) -> bridge.Evaluator:
        """Return reward to (log likelihood, gradient), by kernel; other counts may be given."""
        return bridge.law_evaluator(self.arrays(actions))

    def arrays(self, actions: np.ndarray | None = None) -> laws.Causal:
        """Return what the kernel reads, with a workspace; other counts may be given."""
        return laws.causal_law(
            self.kernel_tables,
            self.counts.actions if actions is None else actions,
            discount=self.discount,
            temperature=self.temperature,
            cells=self.cells,
        )

    def log_likelihood(self, reward: Tensor) -> Tensor:
        """Return the log likelihood in plain torch: the kernel's twin, on the reward's device."""
        return counted(torch.as_tensor(self.counts.actions).to(reward.device), *self.tables(reward))

    def tables(self, reward: Tensor) -> tuple[Tensor]:
        """Return the log policy (T, S, A), whose entries add up to the log likelihood, in torch."""
        steps = as_steps(self.transition.to(reward.device), len(reward))
        solution = backward_induction(
            reward, steps, discount=self.discount, temperature=self.temperature
        )
        return (solution.log_policy,)

    def table_slopes(self, reward: Tensor, changes: Tensor) -> tuple[Tensor]:
        """Return how the log policy changes with the reward in K directions, (K, T, S, A)."""
        slopes = torch.empty_like(changes)
        for t, found in self._changes(reward, changes)[1]:
            slopes[:, t] = found
        return (slopes,)

    def bend(self, reward: Tensor, gradient: Tensor, changes: Tensor) -> Tensor:
        """Return second derivatives (K, K) of the log likelihood in K directions of the reward.

        Parameters
        ----------
        reward, gradient : Tensor, shape (T, S, A)
            The reward, and the gradient there.
        changes : Tensor, shape (K, T, S, A)
            The directions.
        """
        counts, found = torch.as_tensor(self.counts.actions), changes.new_zeros(())
        worth = (gradient - counts / self.temperature).sum(-1)
        policy, each = self._changes(reward, changes)
        for t, slopes in each:
            found = found + bend_of_values(
                policy[t], slopes, worth[t], temperature=self.temperature
            )
        return found

    def _changes(
        self, reward: Tensor, changes: Tensor
    ) -> tuple[Tensor, Iterator[tuple[int, Tensor]]]:
        log_policy = torch.from_numpy(self.log_policy(reward.numpy()))
        constants = {"discount": self.discount, "temperature": self.temperature}
        steps = as_steps(self.transition, len(log_policy))
        return log_policy.exp(), policy_changes(log_policy, changes, steps, **constants)

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
