"""The tree of a mean field game of OpenSpiel, enumerated by its public states.

Nodes come in levels: decisions, chance, and nodes where the distribution of the crowd is
announced. A node is known by its observation string, and the first history that reaches a string
stands for it, as in OpenSpiel's own value functions.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

CLOSE = 1e-4  # densities this near are not distinguished further


class Stage(NamedTuple):
    """The decision nodes of one time and where they lead.

    Attributes
    ----------
    nodes : dict of str to State
        Decision nodes.
    moves : dict of (str, int) to dict of str to float
        For each node and action, the probability of the nodes that it leads to past chance.
    crowd : dict of str to State
        Those nodes: where the distribution is announced, or at the end terminal ones.
    announced : dict of str to list of (str, State)
        The decision nodes that follow when several distributions are announced; none at the end.
    """

    nodes: dict[str, Any]
    moves: dict[tuple[str, int], dict[str, float]]
    crowd: dict[str, Any]
    announced: dict[str, list[tuple[str, Any]]]

    @property
    def fixed(self) -> bool:
        """Whether what is announced leaves the next decision nodes as they are."""
        return all(len({name for name, _ in pairs}) == 1 for pairs in self.announced.values())

    @property
    def after(self) -> list[str]:
        """The decision node after each crowd node, where what is announced leaves it as it is."""
        return [pairs[0][0] for pairs in self.announced.values()]

    @property
    def all_after(self) -> list[tuple[str, Any]]:
        """All decision nodes that may follow, in order, with repetitions."""
        return [pair for pairs in self.announced.values() for pair in pairs]


class Tree(NamedTuple):
    """The stages of a game, and the labels that its nodes share over time.

    Attributes
    ----------
    stages : list of Stage
        One a decision time.
    start : dict of str to float
        Distribution of the first decision node.
    places : list of dict of str to int
        For each time, the state of each node.
    labels, actions : list
        Labels of the states and OpenSpiel's numbers of the actions.
    n_populations : int
        How many populations there are; each is 1 of OpenSpiel's mass.
    within : list or None
        The states of each population, where several have such: those of all stand a population
        after the other, in this order.
    """

    stages: list[Stage]
    start: dict[str, float]
    places: list[dict[str, int]]
    labels: list[Any]
    actions: list[int]
    n_populations: int
    within: list[Any] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, S, A)."""
        return len(self.stages), len(self.labels), len(self.actions)


def name_of(state: Any) -> str:
    """Return the observation string that a node is known by."""
    return str(state.observation_string(0))


def _past_chance(state: Any, probability: float = 1.0) -> Iterator[tuple[Any, float]]:
    """Yield the nodes that follow chance, with their probabilities."""
    if not state.is_chance_node():
        yield state, probability
        return
    for outcome, share in state.chance_outcomes():
        yield from _past_chance(state.child(outcome), probability * float(share))


def _kind(nodes: dict[str, Any]) -> str:
    """Return what all nodes of a level are: "decision", "crowd" or "end"."""
    kinds = {
        "end" if s.is_terminal() else "crowd" if s.is_mean_field_node() else "decision"
        for s in nodes.values()
    }
    if len(kinds) > 1:
        raise ValueError(f"the `game` has nodes of several kinds at one level: {sorted(kinds)}.")
    return kinds.pop()


def announce(node: Any, shares: np.ndarray) -> Any:
    """Return the decision node that follows a crowd node where its support has these shares."""
    after = node.clone()
    after.update_distribution(shares.tolist())
    return after


def _after_told(state: Any, share: float) -> tuple[str, Any]:
    """Return the node that follows where the distribution has this total over its support."""
    support = len(state.distribution_support())
    after = announce(state, np.full(support, share / max(support, 1)))
    return name_of(after), after


def _all_announced(state: Any) -> list[tuple[str, Any]]:
    """Return what follows any distribution, by bisection of the share on the support."""

    def between(low: float, high: float, first: str, last: str) -> list[tuple[str, Any]]:
        if first == last or high - low < CLOSE:
            return []
        middle = (low + high) / 2
        found = _after_told(state, middle)
        below = between(low, middle, first, found[0])
        return [*below, found, *between(middle, high, found[0], last)]

    ends = _after_told(state, 0.0), _after_told(state, 1.0)
    return [ends[0], *between(0.0, 1.0, ends[0][0], ends[1][0]), ends[1]]


def _stage(nodes: dict[str, Any]) -> Stage:
    """Follow all actions of the decision nodes of a level."""
    moves: dict[tuple[str, int], dict[str, float]] = {}
    crowd: dict[str, Any] = {}
    for name, node in nodes.items():
        for action in node.legal_actions():
            reached = moves.setdefault((name, action), {})
            for state, probability in _past_chance(node.child(action)):
                crowd.setdefault(name_of(state), state)
                reached[name_of(state)] = reached.get(name_of(state), 0.0) + probability
    announced = {k: _all_announced(s) for k, s in crowd.items()} if _kind(crowd) == "crowd" else {}
    return Stage(nodes, moves, crowd, announced)


def grow(game: Any) -> Tree:
    """Enumerate a game."""
    roots = game.new_initial_states()
    start: dict[str, float] = {}
    nodes: dict[str, Any] = {}
    for root in roots:
        for state, probability in _past_chance(root):
            nodes.setdefault(name_of(state), state)
            start[name_of(state)] = start.get(name_of(state), 0.0) + probability / len(roots)
    stages = []
    while nodes and _kind(nodes) == "decision":
        stages.append(_stage(nodes))
        nodes = {}
        for name, state in stages[-1].all_after:
            nodes.setdefault(name, state)
    if not stages or nodes:
        at = "begins" if not stages else "ends"
        raise ValueError(
            f"the `game` {title_of(game)} {at} where the distribution is announced; decisions must "
            "come first, and last."
        )
    places, labels = _places(stages)
    actions = sorted({action for stage in stages for _, action in stage.moves})
    within = None
    if len(roots) > 1:
        places, labels, within = _by_population(stages, places, labels)
    return Tree(stages, start, places, labels, actions, len(roots), within)


def title_of(game: Any) -> str:
    """Return the name of a game."""
    return str(game.get_type().short_name)


def _timeless(name: str, time: int) -> str:
    """Return an observation string without the time: `(3, 1)` and `pos=3, t=1` at time 1."""
    last = re.fullmatch(rf"\((.*), {time}\)", name)
    return last[1] if last else re.sub(rf", t={time}\b", "", name)


def _places(stages: list[Stage]) -> tuple[list[dict[str, int]], list[Any]]:
    """Return the state of each node, and labels; nodes that differ by time alone share one."""
    names = [{k: _timeless(k, t) for k in stage.nodes} for t, stage in enumerate(stages)]
    legal: dict[str, list[int]] = {}
    shared = all(
        legal.setdefault(short[k], node.legal_actions()) == node.legal_actions()
        for stage, short in zip(stages, names, strict=True)
        for k, node in stage.nodes.items()
    ) and all(len(set(short.values())) == len(short) for short in names)
    if not shared:
        names = [{k: k for k in stage.nodes} for stage in stages]
    labels = list(dict.fromkeys(label for short in names for label in short.values()))
    if all(re.fullmatch(r"\d+", label) for label in labels):
        labels = sorted(labels, key=int)
    index = {label: k for k, label in enumerate(labels)}
    places = [{k: index[label] for k, label in short.items()} for short in names]
    return places, [int(k) if re.fullmatch(r"\d+", k) else k for k in labels]


def _by_population(
    stages: list[Stage], places: list[dict[str, int]], labels: list[Any]
) -> tuple[list[dict[str, int]], list[Any], list[Any] | None]:
    """Return places and labels with one population after the other, and the labels of each.

    A state that a population never reaches is one of its all the same. As they were, and None,
    where a population's states share a label once its number is left out.
    """
    owner: dict[int, int] = {}
    for stage, place in zip(stages, places, strict=True):
        for name, node in stage.nodes.items():
            owner[place[name]] = node.mean_field_population()
    bare = [re.sub(rf"\bpop(ulation)?={owner[k]},? ?", "", str(v)) for k, v in enumerate(labels)]
    within = list(dict.fromkeys(bare))
    rank = {k: owner[k] * len(within) + within.index(name) for k, name in enumerate(bare)}
    if len(set(rank.values())) < len(labels) or len(within) == len(labels):
        return places, labels, None
    moved = [{name: rank[k] for name, k in place.items()} for place in places]
    n = max(owner.values()) + 1
    return moved, [f"{name} of {p}" for p in range(n) for name in within], within


def told_shares(tree: Tree, shares: np.ndarray) -> np.ndarray:
    """Return shares as OpenSpiel counts them, with a zero behind for nodes that nobody reaches."""
    return np.append(tree.n_populations * shares, 0.0)


def supports_of(stage: Stage) -> list[np.ndarray]:
    """Return for each crowd node where its support stands among them, -1 where nowhere."""
    index = {name: k for k, name in enumerate(stage.crowd)}
    return [
        np.array([index.get(k, -1) for k in state.distribution_support()], dtype=int)
        for state in stage.crowd.values()
    ]


def own_reward(state: Any) -> float:
    """Return a node's reward for its own population."""
    return float(state.rewards()[state.mean_field_population()])
