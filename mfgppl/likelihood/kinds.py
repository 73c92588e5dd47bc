"""The likelihood of agents whose kind is not seen: a sum over kinds for each agent.

`log L = sum_j log sum_k w_k(s_j) exp l^k_j`, with `l^k_j` the log probability of what agent j does
by the policy of kind k along the same flow, and `s_j` the state in which it was seen first. Nodes
of a random coefficient are kinds whose weights are known. All trajectories of an agent are of one
kind; those after its first are taken as if where they begin did not depend on the kind.

Along a flow that is solved for, all kinds make up the crowd. The moves that it drives have one law
whatever the kind, and each agent's add to its log likelihood.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfgppl._keep import Keeper, keep
from mfgppl._kernels import bridge, laws
from mfgppl.data.panel import Counts
from mfgppl.data.trajectories import Trajectories
from mfgppl.likelihood.base_law import HasTables
from mfgppl.likelihood.causal import CausalLikelihood
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.histories import Histories, histories_of, packed_histories
from mfgppl.likelihood.stationary_games import StationaryLikelihood
from mfgppl.likelihood.terms import Units, decisions, moves
from mfgppl.reward.nodes import Nodes


class Posterior(NamedTuple):
    """What the histories say of nodes at given parameters.

    Attributes
    ----------
    log_likelihood : ndarray, shape (J,)
        Log likelihood of each history, nats.
    share : ndarray, shape (J, N)
        Posterior probability of each node.
    """

    log_likelihood: np.ndarray
    share: np.ndarray


@dataclass(frozen=True, eq=False)
class KindsLikelihood(Keeper):
    """The law of the actions of agents whose node is not seen.

    A reward is a flat array (1, 1, n) here: tables (N, T, S, A), and after them log weights (N, S).
    Along a flow that is solved for, log policies stand in place of rewards, and log probabilities
    of moves come last, where the crowd drives them.

    Attributes
    ----------
    one : CausalLikelihood, StationaryLikelihood or CoupledLikelihood
        The law of agents of one kind, with the counts of all.
    histories : Histories
        What agents do.
    nodes : Nodes
        The nodes, at some parameters.
    """

    one: CausalLikelihood | StationaryLikelihood | CoupledLikelihood
    histories: Histories
    nodes: Nodes

    @property
    def n_nodes(self) -> int:
        """Number of nodes N."""
        return self.nodes.size

    @property
    def transition(self) -> Tensor:
        """The dynamics along the flow."""
        return self.one.transition

    @property
    def counts(self) -> Counts:
        """Counts of the panel, whatever the kinds."""
        return self.one.counts

    @property
    def discount(self) -> float:
        """The game's discount."""
        return self.one.discount

    @property
    def temperature(self) -> float:
        """The game's temperature."""
        return self.one.temperature

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, T, S, A)."""
        return (self.n_nodes, *self.counts.actions.shape)

    @property
    def core_shape(self) -> tuple[int, int, int]:
        """Shape of a reward as this law takes it."""
        N, T, S, A = self.shape
        n_moves = 0 if self.moves is None else self.moves.numel()
        return 1, 1, N * S * (T * A + 1) + n_moves

    @property
    def moves(self) -> Tensor | None:
        """How often each move was seen, where a flow is solved for and drives them."""
        return self.one.moves if isinstance(self.one, CoupledLikelihood) else None

    def along(self, transition: Tensor) -> "KindsLikelihood":
        """Return the law of the actions along a flow that is solved for, with its dynamics."""
        assert isinstance(self.one, CoupledLikelihood)
        return replace(self, one=self.one.along(transition))

    def log_moves(self, transition: Tensor) -> Tensor:
        """Return what the moves add to the log likelihood of all."""
        assert isinstance(self.one, CoupledLikelihood)
        return self.one.log_moves(transition)

    def parts(self, core: Any) -> tuple[Any, Any]:
        """Return tables (..., N, T, S, A) and log weights (..., N, S) of rewards (..., 1, 1, n).

        Rewards are an array or a tensor.
        """
        size, lead = math.prod(self.shape), core.shape[:-3]
        flat = core.reshape(*lead, -1)
        end = size + self.n_nodes * self.shape[2]
        weights = flat[..., size:end].reshape(*lead, self.n_nodes, self.shape[2])
        return flat[..., :size].reshape(*lead, *self.shape), weights

    def arrays(self) -> laws.Kinds:
        """Return what the kernel reads, with a workspace."""
        if not isinstance(self.one, CausalLikelihood):
            raise TypeError("only the causal law along a flow that is given has a kernel")
        constants = {"discount": self.discount, "temperature": self.temperature}
        packed = keep(self, "packed", lambda: packed_histories(self.histories, self.shape[1:]))
        return laws.kinds_law(self.kernel_tables, packed, self.shape, **constants)

    def evaluator(self, actions: np.ndarray | None = None) -> bridge.Evaluator:
        """Return a reward to its log likelihood and gradient; the gradient's array is reused."""
        if isinstance(self.one, StationaryLikelihood):
            return self._node_by_node(self.one)
        return bridge.law_evaluator(self.arrays())

    def _node_by_node(self, one: StationaryLikelihood) -> bridge.Evaluator:
        """Return the same for a game without a horizon; each node keeps the factors of its own."""
        nodes = [one.response() for _ in range(self.n_nodes)]
        gradient = np.empty(self.core_shape)
        slopes, of_weights = self.parts(gradient)

        def evaluate(core: np.ndarray) -> tuple[float, np.ndarray]:
            rewards, logs = self.parts(core)
            each = zip(nodes, rewards, strict=True)
            found = self.posterior_of(np.stack([node.answer(r) for node, r in each]), logs)
            counts, of_weights[:] = self.expected_counts(found.share)
            for node, n, slope in zip(nodes, counts, slopes, strict=True):
                slope[:] = node.pull_back(n)
            return float(self.histories.weight @ found.log_likelihood), gradient

        return evaluate

    def log_likelihood(self, core: Tensor) -> Tensor:
        """Return the log likelihood in plain torch: the kernel's twin."""
        return (torch.from_numpy(self.histories.weight) * self.by_history(core)).sum()

    def by_history(self, core: Tensor) -> Tensor:
        """Return the log likelihood of each history, (J,), in plain torch."""
        log_policies, logs = self.tables(core)
        histories = self.histories
        owner = torch.from_numpy(histories.owner)
        entry = torch.from_numpy(histories.entry.astype(np.int64))
        taken = log_policies.reshape(self.n_nodes, -1)[:, entry]
        start = torch.from_numpy(histories.start.astype(np.int64))
        total = logs[:, start].index_add(1, owner, taken)
        if histories.known.size:
            total = total + torch.from_numpy(histories.known).T
        return total.logsumexp(0)

    def tables(self, core: Tensor) -> tuple[Tensor, Tensor]:
        """Return log policies (N, T, S, A) and log weights (N, S), in torch."""
        assert not isinstance(self.one, CoupledLikelihood)
        rewards, logs = self.parts(core)
        return torch.stack([self.one.tables(reward)[0] for reward in rewards]), logs

    def table_slopes(self, core: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """Return how the log policies and log weights change with the reward, in one direction."""
        assert not isinstance(self.one, CoupledLikelihood)
        (rewards, _), (changes, logs) = self.parts(core), self.parts(change)
        slopes = [
            self.one.table_slopes(r, c[None])[0][0] for r, c in zip(rewards, changes, strict=True)
        ]
        return torch.stack(slopes), logs

    def table_arrays(self, cores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log policies (..., N, T, S, A) and log weights (..., N, S) by kernel."""
        rewards, logs = self.parts(cores)
        return self.one.log_policy(rewards), logs

    def log_policy(self, cores: np.ndarray) -> np.ndarray:
        """Return the log probability of each action (..., T, S, A) of agents as they are seen.

        It is the mean over kinds, weighted by who is expected to be in a state: by the posterior
        shares of the decisions that were seen there, and where none was, by those of all agents.
        """
        lead = cores.shape[:-3]
        many = cores.reshape(-1, *cores.shape[-3:])
        found = np.stack([self._seen_policy(core) for core in many])
        return found.reshape(*lead, *self.counts.actions.shape)

    def _seen_policy(self, core: np.ndarray) -> np.ndarray:
        log_policies, logs = self.table_arrays(core)
        share = self.posterior_of(log_policies, logs).share
        visits = self.expected_counts(share)[0].sum(-1, keepdims=True)
        of_all = (self.histories.weight @ share) / self.histories.weight.sum()
        seen = visits.sum(0) > 0
        weights = np.where(seen, visits, of_all[:, None, None, None])
        policy = (weights * np.exp(log_policies)).sum(0) / weights.sum(0)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(policy))

    def posterior(self, core: np.ndarray) -> Posterior:
        """Return the log likelihood of each history, and the posterior of its node."""
        return self.posterior_of(*self.table_arrays(np.ascontiguousarray(core)))

    def agents_moves(self, panel: Trajectories) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the agent of each move that the crowd drives, and its flat place in their table.

        None where it drives none.
        """
        if self.moves is None:
            return None
        trajectory, entry = moves(panel, tuple(self.moves.shape))
        return panel.owner[trajectory], entry

    def units(self, panel: Trajectories) -> Units:
        """Return each agent of a panel, coded as the law's: no trajectory has one by itself."""
        law = self.of_panel(panel)
        moved = law.agents_moves(panel)

        def by_agent(tables: Sequence[np.ndarray]) -> np.ndarray:
            log_policies, logs, *moving = tables
            found = law.posterior_of(log_policies, logs).log_likelihood[law.histories.of_agent]
            if moved is not None:
                bridge.add_entries(moving[0], moved[1], moved[0], 1.0, found)
            return found

        return Units(panel.n_owners, by_agent)

    def posterior_of(self, log_policies: np.ndarray, logs: np.ndarray) -> Posterior:
        """Return the same at log policies (N, T, S, A) and log weights (N, S)."""
        return Posterior(*bridge.kinds_posterior(log_policies, logs, self.histories[:5]))

    def expected_counts(self, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return expected counts (N, T, S, A) and first states (N, S) of each node.

        Parameters
        ----------
        share : ndarray, shape (J, N)
            Posterior probability of each history's node.
        """
        histories, S = self.histories, self.shape[2]
        owner = histories.owner
        mass = (histories.weight[:, None] * share).T
        size = math.prod(self.shape[1:])
        counts = [np.bincount(histories.entry, m[owner], minlength=size) for m in mass]
        first = [np.bincount(histories.start, m, minlength=S) for m in mass]
        return np.stack(counts).reshape(self.shape), np.stack(first)

    def scores(
        self, core: np.ndarray, slopes: Iterable[tuple[np.ndarray, ...]], panel: Trajectories
    ) -> np.ndarray:
        """Return the gradient (J, K) of each trajectory's part of its agent's log likelihood.

        Parameters
        ----------
        core : ndarray
            The reward.
        slopes : iterable of tuple of ndarray
            Slopes of the tables in each of K parameters.
        panel : Trajectories
            The panel whose histories these are.
        """
        trajectory, entry = decisions(panel, self.shape[1:])  # type: ignore[arg-type]
        share = self.posterior(core).share[self.histories.of_agent[panel.owner]]  # (J, N)
        first = panel.first_of_owner
        start = panel.state[panel.offsets[:-1]][first]
        of_entry, columns = share[trajectory].T, []
        moved = None if self.moves is None else moves(panel, tuple(self.moves.shape))
        for policies, logs, *moving in slopes:
            each = zip(of_entry, policies, strict=True)
            rows = sum(q * p.reshape(-1)[entry] for q, p in each)
            column = np.bincount(trajectory, rows, minlength=panel.n_trajectories)
            column[first] += (share[first] * logs[:, start].T).sum(1)
            if moved is not None:
                bridge.add_entries(moving[0], moved[1], moved[0], 1.0, column)
            columns.append(column)
        return np.stack(columns, axis=1)

    def of_panel(self, panel: Trajectories) -> "KindsLikelihood":
        """Return the law of another panel's agents, with the same dynamics."""
        found = histories_of(panel, self.shape[1:], self.nodes)
        law = replace(self, histories=found)
        law.share_dynamics(self)
        return law

    @property
    def kernel_tables(self) -> bridge.Tables:
        """The transition as the arrays that the kernels read."""
        return self.one.kernel_tables

    def share_dynamics(self, law: HasTables) -> None:
        """Read the arrays of a law with the same transition."""
        self.one.share_dynamics(law)
