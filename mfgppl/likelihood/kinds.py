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
import pandas as pd
import torch
from torch import Tensor

from mfgppl._keep import Keeper, keep
from mfgppl._kernels import bridge, laws
from mfgppl.data.trajectories import Counts, Trajectories
from mfgppl.likelihood.causal import CausalLikelihood
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.dynamics import HasTables
from mfgppl.likelihood.stationary import StationaryLikelihood
from mfgppl.likelihood.terms import decisions, moves
from mfgppl.reward.nodes import Nodes

UNKNOWN = "unknown"  # label of agents of whose kind nothing is seen
OFTEN = 3  # times that a pair of entries occurs which is worth an entry of its own
WORTH = 0.05  # share of the entries that must vanish in a round of pairing


class Histories(NamedTuple):
    """What agents do, each distinct history once.

    Attributes
    ----------
    entry : ndarray of int32, shape (n_entries,)
        The flat place (t, s, a) of each decision, history by history.
    offsets : ndarray of int, shape (J + 1,)
        Where histories begin.
    start : ndarray of int32, shape (J,)
        The state in which the agent was seen first.
    weight : ndarray, shape (J,)
        How many agents have the history.
    known : ndarray, shape (J, N) or (0, 0)
        -inf where a node is ruled out by what is seen of an agent's kind, else 0.
    of_agent : ndarray of int, shape (n_agents,)
        The history of each agent.
    """

    entry: np.ndarray
    offsets: np.ndarray
    start: np.ndarray
    weight: np.ndarray
    known: np.ndarray
    of_agent: np.ndarray

    @property
    def owner(self) -> np.ndarray:
        """The history of each entry."""
        return np.repeat(np.arange(len(self.start)), np.diff(self.offsets))


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
            return self._kind_by_kind if self.one.is_small else self._by_torch(self.one)
        return bridge.law_evaluator(self.arrays())

    def _by_torch(self, one: StationaryLikelihood) -> bridge.Evaluator:
        """Return the same for a large stationary game, whose factors each kind keeps."""
        solvers = [one.values() for _ in range(self.n_nodes)]

        def evaluate(core: np.ndarray) -> tuple[float, np.ndarray]:
            rewards, logs = self.parts(core)
            each = [
                v.log_policy(torch.from_numpy(np.ascontiguousarray(r[0])))[None]
                for v, r in zip(solvers, rewards, strict=True)
            ]
            found = self.posterior_of(np.stack([policy.numpy() for policy in each]), logs)
            counts, slopes = self.expected_counts(found.share)
            parts = zip(solvers, each, counts, strict=True)
            gradient = [one.gradient(*part).ravel() for part in parts]
            flat = np.concatenate([*gradient, slopes.ravel()])
            return float(self.histories.weight @ found.log_likelihood), flat.reshape(core.shape)

        return evaluate

    def _kind_by_kind(self, core: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log likelihood of a small stationary game, and its gradient kind by kind."""
        assert isinstance(self.one, StationaryLikelihood)
        rewards, _ = self.parts(core)
        found = self.posterior(core)
        counts, slopes = self.expected_counts(found.share)
        gradient = [
            self.one.evaluator(n)(np.ascontiguousarray(r))[1].copy()
            for n, r in zip(counts, rewards, strict=True)
        ]
        flat = np.concatenate([np.stack(gradient).ravel(), slopes.ravel()])
        return float(self.histories.weight @ found.log_likelihood), flat.reshape(core.shape)

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

    def by_agent(self, core: np.ndarray, moved: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
        """Return the log likelihood of each agent (n_agents,).

        Parameters
        ----------
        core : ndarray
            The reward, or what stands in its place.
        moved : (ndarray, ndarray) or None
            The panel's `agents_moves`.
        """
        found = self.posterior(core).log_likelihood[self.histories.of_agent]
        if moved is not None:
            assert self.moves is not None
            table = core.reshape(-1)[-self.moves.numel() :]
            bridge.add_entries(table, moved[1], moved[0], 1.0, found)
        return found

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
        found = histories_of(panel, self.shape[1:], known_nodes(panel, self.nodes))
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


def known_nodes(panel: Trajectories, nodes: Nodes) -> np.ndarray | None:
    """Return -inf where a node is ruled out by what is seen of an agent's kind, (n_agents, N).

    None where nothing is seen.

    Raises
    ------
    ValueError
        If the panel lacks the column, or a label is neither a kind nor "unknown".
    """
    known = None
    for site in nodes.sites:
        if site.agents is not None:
            seen = _places(panel, site.agents)[:, None]
            own = seen == nodes.value_of(site.name)
            known = own if known is None else known & own
        if site.known is None:
            continue
        if site.known not in panel.groups:
            raise ValueError(
                f"the site {site.name!r} is known by the column {site.known!r}, which the panel "
                f"does not have; name it when reading the table, groups=[{site.known!r}]."
            )
        labels = panel.groups[site.known][panel.first_of_owner]
        places = {str(k): k for k in range(site.size)} | {UNKNOWN: -1}
        strange = [label for label in labels if str(label) not in places]
        if strange:
            raise ValueError(
                f"the column {site.known!r} must have kinds of {site.name!r}, 0 to "
                f"{site.size - 1}, or {UNKNOWN!r}; got {strange[0]!r}."
            )
        seen = np.array([places[str(label)] for label in labels])[:, None]
        allowed = (seen < 0) | (seen == nodes.value_of(site.name))
        known = allowed if known is None else known & allowed
    return None if known is None else np.where(known, 0.0, -np.inf)


def owner_names(panel: Trajectories) -> tuple[str, ...]:
    """Return the label of each agent of a panel."""
    return tuple(str(name) for name in panel.agents[panel.first_of_owner])


def _places(panel: Trajectories, agents: tuple[str, ...]) -> np.ndarray:
    """Return the place of a panel's agents among those whose coefficients are sampled."""
    places = {name: k for k, name in enumerate(agents)}
    strange = [name for name in owner_names(panel) if name not in places]
    if strange:
        raise ValueError(
            f"no coefficient is sampled for the agent {strange[0]!r}, who is not of the panel that "
            "the model is of; what is left out, or drawn anew, needs `with x.agents:`, which sums "
            "over nodes."
        )
    return np.array([places[name] for name in owner_names(panel)])


def histories_of(
    panel: Trajectories, shape: Sequence[int], known: np.ndarray | None = None
) -> Histories:
    """Return what the agents of a panel do, each distinct history once.

    Parameters
    ----------
    panel : Trajectories
        The panel, coded as the game.
    shape : sequence of int
        (T, S, A).
    known : ndarray, shape (n_agents, N), optional
        -inf where a node is ruled out.
    """
    trajectory, entry = decisions(panel, (shape[0], shape[1], shape[2]))
    owner = panel.owner[trajectory]
    order = np.argsort(owner, kind="stable")
    entry, owner = entry[order].astype(np.int32), owner[order]
    length = np.bincount(owner, minlength=panel.n_owners)
    offsets = np.append(0, length.cumsum())
    start = panel.state[panel.offsets[:-1]][panel.first_of_owner].astype(np.int32)
    of_agent, first_of = _distinct(entry, offsets, start, known)
    weight = np.bincount(of_agent).astype(float)
    ends = np.append(0, length[first_of].cumsum())
    within = np.arange(ends[-1]) - np.repeat(ends[:-1], length[first_of])
    return Histories(
        np.ascontiguousarray(entry[np.repeat(offsets[:-1][first_of], length[first_of]) + within]),
        ends,
        np.ascontiguousarray(start[first_of]),
        weight,
        np.zeros((0, 0)) if known is None else np.ascontiguousarray(known[first_of]),
        of_agent,
    )


def packed_histories(histories: Histories, shape: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Return histories as the kernel reads them, in which pairs of entries stand for two.

    What many agents do alike from one decision to the next is added up once for all of them. A pair
    that occurs often becomes an entry of its own, and so do pairs of such.

    Parameters
    ----------
    histories : Histories
        What agents do.
    shape : sequence of int
        (T, S, A).

    Returns
    -------
    tuple of ndarray
        Entries and offsets of the shorter histories, their first states, numbers and what is known
        of them; the two entries that each pair (M, 2) stands for; and how often each of T * S * A
        entries was seen.
    """
    entry, offsets = histories.entry.astype(np.int64), histories.offsets
    n_entries = math.prod(shape)
    seen = np.bincount(
        entry, np.repeat(histories.weight, np.diff(offsets)), minlength=n_entries
    ).astype(float)
    pairs: list[np.ndarray] = []
    n_known = n_entries
    while len(entry):
        owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        place = np.arange(len(entry)) - offsets[owner]
        left = np.flatnonzero((place[:-1] % 2 == 0) & (owner[:-1] == owner[1:]))
        code = entry[left] * n_known + entry[left + 1]
        which, distinct = pd.factorize(code)
        times = np.bincount(which, minlength=len(distinct))
        often = times >= OFTEN
        if times[often].sum() < WORTH * len(entry):
            break
        number = np.full(len(distinct), -1)
        number[often] = n_known + np.arange(often.sum())
        replaced = number[which] >= 0
        pairs.append(np.stack(np.divmod(distinct[often], n_known), axis=1))
        entry = entry.copy()
        entry[left[replaced]] = number[which][replaced]
        kept = np.ones(len(entry), dtype=bool)
        kept[left[replaced] + 1] = False
        offsets = np.append(0, np.cumsum(kept))[offsets]
        entry, n_known = entry[kept], n_known + int(often.sum())
    found = np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64)
    return (
        np.ascontiguousarray(entry.astype(np.int32)),
        np.ascontiguousarray(offsets),
        histories.start,
        histories.weight,
        histories.known,
        np.ascontiguousarray(found),
        seen,
    )


def _distinct(
    entry: np.ndarray, offsets: np.ndarray, start: np.ndarray, known: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the history of each agent, and the first agent of each history."""
    length, n_entries = np.diff(offsets), int(entry.max(initial=0)) + 1
    of_agent = np.empty(len(start), dtype=np.int64)
    first_of: list[np.ndarray] = []
    n_found = 0
    for size in np.unique(length):
        agents = np.flatnonzero(length == size)
        code = pd.factorize(start[agents].astype(np.int64))[0]
        for k in range(size):
            code = pd.factorize(code * n_entries + entry[offsets[agents] + k])[0]
        for column in () if known is None else known[agents].T:
            code = pd.factorize(code * 2 + (column == 0))[0]
        of_agent[agents] = n_found + code
        first_of.append(agents[np.unique(code, return_index=True)[1]])
        n_found += len(first_of[-1])
    return of_agent, np.concatenate(first_of)
