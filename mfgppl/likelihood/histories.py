"""What agents do, each distinct history once, and what is seen of their kinds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mfgppl.data.trajectories import Trajectories
from mfgppl.likelihood.terms import decisions
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


def _known_nodes(panel: Trajectories, nodes: Nodes) -> np.ndarray | None:
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


def histories_of(panel: Trajectories, shape: Sequence[int], nodes: Nodes) -> Histories:
    """Return what the agents of a panel do, each distinct history once.

    Parameters
    ----------
    panel : Trajectories
        The panel, coded as the game.
    shape : sequence of int
        (T, S, A).
    nodes : Nodes
        The kinds that there are.

    Raises
    ------
    ValueError
        If what is seen of an agent's kind is none of them.
    """
    known = _known_nodes(panel, nodes)
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
        np.ascontiguousarray(entry.astype(np.uint32)),
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
