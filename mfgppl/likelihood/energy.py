"""The energy likelihood: Theorem 4 as printed, with its exact partition function.

`Pr(tau)` is proportional to `mu_0(s_0) prod P exp(sum_t r_t / temperature)`. In logs,
`W_t(s) = logsumexp_a(r_t(s, a) / temperature + log sum_x P_t(x | s, a) exp W_{t+1}(x))`, `W_T = 0`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfgppl._kernels import bridge, laws
from mfgppl.control.steps import as_steps
from mfgppl.data.panel import Counts
from mfgppl.data.trajectories import Trajectories
from mfgppl.likelihood.base_law import WithDynamics
from mfgppl.likelihood.terms import Term, counted, decisions


@dataclass(frozen=True, eq=False)
class EnergyLikelihood(WithDynamics):
    """The energy law of trajectories along a fixed flow; exact only under deterministic dynamics.

    Rewards are (T, S, A), with -inf where an action is not available. The discount is 1.

    Attributes
    ----------
    transition : Tensor, shape (n, S, A, S) or (n, C, S, A, S), n = 1 or T-1
        Dynamics along the flow, dense or sparse COO.
    counts : Counts
        Sufficient statistics of the panel.
    entry : ndarray, shape (T, S)
        Distribution of the first state of those who enter at each time, for each type.
    n_groups : int
        Number of types, each with one partition function for all of it who enter at a time; 0
        where each first state has its own.
    temperature : float
        The game's constant.
    """

    transition: Tensor
    counts: Counts
    entry: np.ndarray
    n_groups: int
    temperature: float

    def evaluator(self, actions: np.ndarray | None = None) -> bridge.Evaluator:
        """Return reward to (log likelihood, gradient), by kernel; other counts may be given."""
        return bridge.law_evaluator(self.arrays(actions))

    def arrays(self, actions: np.ndarray | None = None) -> laws.Energy:
        """Return what the kernel reads, with a workspace; other counts may be given."""
        return laws.energy_law(
            self.kernel_tables,
            self.counts.actions if actions is None else actions,
            starts=self.counts.starts,
            ends_seen=self.counts.ends_seen,
            ends_unseen=self.counts.ends_unseen,
            entry=self.entry,
            n_groups=self.n_groups,
            temperature=self.temperature,
        )

    def log_likelihood(self, reward: Tensor) -> Tensor:
        """Return the log likelihood in plain torch: the kernel's twin, on the reward's device."""
        scaled, started, ended, ahead = self.tables(reward)
        counts = [torch.as_tensor(c).to(reward.device) for c in self.counts]
        starts = self._by_group(counts[1]).sum(-1) if self.n_groups else counts[1]
        return (
            counted(counts[0], scaled)
            - counted(starts, started)
            + counted(counts[2], ended)
            + counted(counts[3], ahead)
        )

    def tables(self, reward: Tensor) -> tuple[Tensor, ...]:
        """Return scaled reward, log partition of starts, of ends, and of the step ahead, in torch.

        Shapes (T, S, A), (T, n_groups) or (T, S), (T, S), (T, S, A).
        """
        log_partition, log_next = energy_induction(
            reward, self.transition.to(reward.device), temperature=self.temperature
        )
        started = log_partition
        if self.n_groups:
            entry = torch.as_tensor(self.entry).to(reward.device)
            started = torch.logsumexp(self._by_group(log_partition + entry.log()), dim=-1)
        return reward / self.temperature, started, log_partition, log_next

    def table_arrays(self, rewards: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the same by kernel, for rewards (..., T, S, A) with axes in front kept."""
        log_partition, log_next, _ = self._sweep(rewards)
        started = log_partition
        if self.n_groups:
            with np.errstate(divide="ignore"):
                weighed = self._by_group(log_partition + np.log(self.entry))
                started = np.logaddexp.reduce(weighed, axis=-1)
        return rewards / self.temperature, started, log_partition, log_next

    def log_policy(self, rewards: np.ndarray) -> np.ndarray:
        """Return the energy law's log probability of each action, of shape (..., T, S, A)."""
        return self._sweep(rewards)[2]

    def terms(self, panel: Trajectories) -> list[Term]:
        """Return what each trajectory adds."""
        T, S, _ = shape = self.counts.actions.shape
        first, last = panel.offsets[:-1], panel.offsets[1:] - 1
        acted = panel.action[first] >= 0
        begin = panel.time[first] * S + panel.state[first]
        if self.n_groups:
            begin = begin // (S // self.n_groups)
        trajectory = np.arange(panel.n_trajectories)
        moved = panel.action[last] >= 0
        seen = acted & ~moved & (panel.time[last] < T)
        ended = panel.time[last] * S + panel.state[last]
        unseen = acted & moved & (panel.time[last] < T - 1)
        step = panel.time[last[unseen]], panel.state[last[unseen]], panel.action[last[unseen]]
        return [
            Term(0, *decisions(panel, shape), 1.0),
            Term(1, trajectory[acted], begin[acted], -1.0),
            Term(2, trajectory[seen], ended[seen], 1.0),
            Term(3, trajectory[unseen], np.ravel_multi_index(step, shape), 1.0),
        ]

    def _by_group(self, table: Any) -> Any:
        """Return a table (..., S) by group of states, (..., n_groups, S / n_groups)."""
        return table.reshape(*table.shape[:-1], self.n_groups, -1)

    def _sweep(self, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return bridge.energy_arrays(rewards, self.kernel_tables, temperature=self.temperature)


def energy_induction(
    reward: Tensor, transition: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Compute the log partition function of the energy model by initial time and state.

    Parameters
    ----------
    reward : Tensor, shape (T, S, A)
        Reward units; -inf where an action is not available.
    transition : Tensor, shape (S, A, S), (1, S, A, S) or (T-1, S, A, S)
        Probability of the next state, dense or sparse COO.
    temperature : float, positive
        Reward units a nat.

    Returns
    -------
    log_partition : Tensor, shape (T, S)
        `W_t(s)`, nats.
    log_next : Tensor, shape (T, S, A)
        `log sum_x P_t(x | s, a) exp W_{t+1}(x)`, nats; zero at the last decision.

    References
    ----------
    .. [1] Chen, Zhang, Liu and Witbrock (2023), *Adversarial inverse reinforcement learning for
       mean field games*, AAMAS, Theorem 4.
    """
    horizon = len(reward)
    steps = as_steps(transition, horizon)
    log_partition: list[Tensor] = []
    log_next: list[Tensor] = []
    for t in range(horizon - 1, -1, -1):
        ahead = torch.zeros_like(reward[t])
        if t < horizon - 1:
            ahead = steps.log_expected(t, log_partition[-1])
        log_next.append(ahead)
        log_partition.append(torch.logsumexp(reward[t] / temperature + ahead, dim=-1))
    return torch.stack(log_partition[::-1]), torch.stack(log_next[::-1])
