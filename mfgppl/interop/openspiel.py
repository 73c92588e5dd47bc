"""Mean field games of OpenSpiel as games, and policies on the way back."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mfgppl._arguments import differentiable_door, is_a
from mfgppl.game import MeanFieldGame
from mfgppl.interop.imported import SAME, Imported, check_policy, require, simplest
from mfgppl.interop.openspiel_tree import (
    Tree,
    announce,
    grow,
    name_of,
    own_reward,
    supports_of,
    title_of,
    told_shares,
)
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram

STEP, LEAST_STEP = 1e-4, 1e-8  # of differences in a share: a part of it, and where it is zero
FLOOR = 1e-6  # what is added to a density inside a logarithm is smaller


def _available(tree: Tree) -> np.ndarray:
    """Return which actions the states allow, (S, A)."""
    allowed = np.zeros(tree.shape[1:], dtype=bool)
    for stage, place in zip(tree.stages, tree.places, strict=True):
        for name, action in stage.moves:
            allowed[place[name], tree.actions.index(action)] = True
    allowed[~allowed.any(1)] = True  # states that a population never reaches
    return allowed


def _to_crowd(tree: Tree, time: int) -> Any:
    """Return the probability of each crowd node after each state and action, sparse (S*A, Z)."""
    stage, n_actions = tree.stages[time], len(tree.actions)
    index = {k: z for z, k in enumerate(stage.crowd)}
    entries = [
        (tree.places[time][name] * n_actions + tree.actions.index(action), index[k], probability)
        for (name, action), reached in stage.moves.items()
        for k, probability in reached.items()
    ]
    row, column, data = zip(*entries, strict=True)
    size = len(tree.labels) * n_actions, len(index)
    return scipy.sparse.csr_array((data, (row, column)), shape=size)


def _arrival(tree: Tree, time: int, after: list[str]) -> Any:
    """Return the state at a time that each crowd node before it becomes, sparse (Z, S)."""
    column = [tree.places[time][name] for name in after]
    size = len(after), len(tree.labels)
    return scipy.sparse.csr_array((np.ones(len(after)), (range(len(after)), column)), shape=size)


def _staying(tree: Tree) -> Any:
    """Return the moves that stay whatever the action, sparse (S*A, S)."""
    n_states, n_actions = tree.shape[1:]
    return scipy.sparse.kron(scipy.sparse.eye_array(n_states), np.ones((n_actions, 1)), "csr")


def _filled(table: Any, other: Any) -> Any:
    """Return a sparse table with its empty rows taken from another."""
    empty = np.asarray(table.sum(1)) == 0
    return table + scipy.sparse.diags_array(empty.astype(float)).tocsr() @ other


def _fixed_transition(tree: Tree) -> Any:
    """Return the transition of a game whose crowd moves nobody, by population where it has types.

    A node that a time lacks moves as at a time that has it; an action that is not available stays.
    """
    steps = [
        _to_crowd(tree, t) @ _arrival(tree, t + 1, stage.after)
        for t, stage in enumerate(tree.stages[:-1])
    ]
    known = functools.reduce(_filled, [*steps, _staying(tree)])
    tables, n_actions = [_filled(table, known) for table in steps or [known]], len(tree.actions)
    if tree.within is None:
        return simplest(tables, n_actions)
    return {
        p: simplest([_block(table, p, len(tree.within), n_actions) for table in tables], n_actions)
        for p in range(tree.n_populations)
    }


def _block(table: Any, population: int, n_states: int, n_actions: int) -> Any:
    """Return the part of a sparse table (S*A, S) that is of one population."""
    first, last = population * n_states, (population + 1) * n_states
    return table.tocsr()[first * n_actions : last * n_actions, first:last]


def _by_population(x: RewardInputs, table: Tensor) -> Tensor:
    """Return rewards (T, S, A) led by the populations where they are types."""
    if not x.game.space.types:
        return table
    C, T, S, A = x.shape
    return table.reshape(T, C, S, A).transpose(0, 1)


def _moving_transition(tree: Tree) -> Callable[[Tensor, int], Any]:
    """Return the transition of a game whose crowd moves the agents, as a function of it.

    What is announced at a node is the mass that its support has after the move.
    """
    to_crowd = [_to_crowd(tree, t) for t in range(len(tree.stages) - 1)]
    stay = _staying(tree)
    supports = [supports_of(stage) for stage in tree.stages[:-1]]

    def transition(mean_field: Tensor, time: int) -> Any:
        moves = to_crowd[time]
        shares = told_shares(tree, moves.T @ _values(mean_field).ravel())
        after = [
            name_of(announce(node, shares[support]))
            for node, support in zip(tree.stages[time].crowd.values(), supports[time], strict=True)
        ]
        unknown = [name for name in after if name not in tree.places[time + 1]]
        if unknown:
            raise ValueError(f"the node {unknown[0]!r} was not met when the game was read.")
        return _filled(moves @ _arrival(tree, time + 1, after), stay)

    return transition


def _values(tensor: Tensor) -> np.ndarray:
    """Return a tensor's values; reading one entry makes a recorder of operations end."""
    float(tensor.detach().sum())
    return np.asarray(tensor.detach().numpy())


def _end_rewards(tree: Tree) -> np.ndarray:
    """Return the mean reward of the nodes that an action leads to, (T, S, A)."""
    table = np.zeros(tree.shape)
    for t, stage in enumerate(tree.stages):
        here = {name: own_reward(state) for name, state in stage.crowd.items()}
        for (name, action), reached in stage.moves.items():
            mean = sum(p * here[k] for k, p in reached.items())
            table[t, tree.places[t][name], tree.actions.index(action)] = mean
    return table


def _node_rewards(tree: Tree, game: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return the rewards (T, S) of the decision nodes as a function of a flow (T, S)."""
    first = np.zeros(len(tree.labels))
    for name, state in tree.stages[0].nodes.items():
        first[tree.places[0][name]] = own_reward(state)
    supports = [supports_of(stage) for stage in tree.stages[:-1]]
    arrivals = [
        np.array([tree.places[t + 1][name] for name in stage.after])
        for t, stage in enumerate(tree.stages[:-1])
    ]
    for t, arrival in enumerate(arrivals):
        if len(set(arrival)) < len(arrival):
            raise NotImplementedError(
                f"the `game` {title_of(game)} announces the distribution over more nodes than "
                f"decide at time {t + 1}; what is announced must follow from the mean field."
            )

    def rewards(flow: np.ndarray) -> np.ndarray:
        table = np.zeros(tree.shape[:2])
        table[0] = first
        for t, (support, arrival) in enumerate(zip(supports, arrivals, strict=True)):
            shares = told_shares(tree, flow[t + 1][arrival])
            nodes = tree.stages[t].crowd.values()
            for node, where, state in zip(nodes, support, arrival, strict=True):
                table[t + 1, state] = own_reward(announce(node, shares[where]))
        return table

    return rewards


class _LogDensity(NamedTuple):
    """Rewards `base - slope log(scale * density + floor)`.

    Attributes
    ----------
    base, slope : Tensor, shape (T, S)
        Reward units.
    scale, floor : float
        OpenSpiel's mass of the crowd, and what is added to a density.
    """

    base: Tensor
    slope: Tensor
    scale: float
    floor: float

    def __call__(self, mean_field: Tensor) -> Tensor:
        """Return the rewards (T, S) along a flow (T, S)."""
        return self.base - self.slope * torch.log(self.scale * mean_field + self.floor)


def _find_log_density(tree: Tree, rewards: Callable[[Any], np.ndarray]) -> _LogDensity | None:
    """Return the rewards as a function of the own density where they are one, else None."""
    T, S, _ = tree.shape
    random = np.random.default_rng(0)
    empty, *flows = [np.zeros((T, S)), *(random.dirichlet(np.ones(S), size=T) for _ in range(4))]
    at_empty, first, second = rewards(empty), rewards(flows[0]), rewards(flows[1])
    logs = [np.log(tree.n_populations * flow) for flow in flows[:2]]
    slope = (first - second) / (logs[1] - logs[0])
    slope[np.abs(slope) < SAME] = 0.0
    base = first + slope * logs[0]
    steep = slope != 0
    floors = (base - at_empty)[steep] / slope[steep] if steep.any() else np.zeros(1)
    floor = float(np.exp(min(np.median(floors), np.log(FLOOR))))
    form = _LogDensity(torch.tensor(base), torch.tensor(slope), float(tree.n_populations), floor)
    fits = all(
        np.allclose(form(torch.tensor(flow)).numpy(), rewards(flow), rtol=SAME, atol=SAME)
        for flow in (empty, *flows[2:])
    )
    return form if fits else None


def _log_program(form: _LogDensity, ends: np.ndarray) -> RewardProgram:
    fixed = torch.tensor(ends)

    def reward(x: RewardInputs) -> Tensor:
        return _by_population(x, form(x.flow)[..., None] + fixed)

    return reward


class _Read(torch.autograd.Function):
    """Rewards (T, S) read from nodes at a flow (T, S), with derivatives by differences."""

    @staticmethod
    def forward(ctx: Any, flow: Tensor, rewards: Callable[[np.ndarray], np.ndarray]) -> Tensor:
        values = _values(flow)
        ctx.slopes = functools.cache(lambda: torch.tensor(_slopes(rewards, values)))
        return torch.tensor(rewards(values))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        return torch.einsum("ts,tsx->tx", cotangent, ctx.slopes()), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: Any) -> Tensor:
        return torch.einsum("tsx,tx->ts", ctx.slopes(), tangent.detach())


def _slopes(rewards: Callable[[np.ndarray], np.ndarray], flow: np.ndarray) -> np.ndarray:
    """Return the derivative of each reward in each share of its time, (T, S, S).

    Shares move by a part of themselves, so that a logarithm is as well resolved near zero.
    """
    T, S = flow.shape
    found = np.empty((T, S, S))
    for x in range(S):
        above, below = flow.copy(), flow.copy()
        above[:, x] += np.maximum(STEP * flow[:, x], LEAST_STEP)
        below[:, x] -= STEP * flow[:, x]
        found[:, :, x] = (rewards(above) - rewards(below)) / (above - below)[:, [x]]
    return found


def _read_program(rewards: Callable[[Any], np.ndarray], ends: np.ndarray) -> RewardProgram:
    fixed = torch.tensor(ends)

    def reward(x: RewardInputs) -> Tensor:
        return _by_population(x, _Read.apply(x.flow, rewards)[..., None] + fixed)

    return reward


def _moving_rewards(tree: Tree, game: Any) -> np.ndarray:
    """Return the rewards (T, S) of nodes that must not depend on what is announced."""
    table = np.zeros(tree.shape[:2])
    for t, stage in enumerate(tree.stages):
        for name, state in stage.nodes.items():
            table[t, tree.places[t][name]] = own_reward(state)
    for t, stage in enumerate(tree.stages[:-1]):
        for name, state in stage.all_after:
            if not np.isclose(own_reward(state), table[t + 1, tree.places[t + 1][name]]):
                raise NotImplementedError(
                    f"the `game` {title_of(game)} lets the crowd both move the agents and change "
                    f"the reward of {name!r}; only one of the two can be read."
                )
    return table


@differentiable_door
def from_openspiel(game: Any, *, temperature: float = 1.0) -> Imported:
    """Return a mean field game of OpenSpiel as a game and a reward program.

    The public states are enumerated; those whose strings differ by the time alone are one state. A
    state that a time lacks cannot be reached then. Several populations are types, with equal
    shares; where the crowd moves the agents they are one, with the population in the label.

    Rewards of the form `base - slope * log(density + floor)` in the share of the crowd in one's
    own state become such a formula, which has derivatives. Others are read from OpenSpiel's states
    each time; their derivative is found by differences, one pair of readings for each state. Where
    the crowd moves the agents, as in dynamic routing, the game is `joint` and its transition jumps:
    it has no derivative, and asking for one raises.

    OpenSpiel's strings leave out the last action. Where a reward depends on it, as in crowd
    modelling and garnets, the first history that reaches a state stands for it, here as in
    OpenSpiel's value functions.

    Parameters
    ----------
    game : pyspiel.Game
        A game with mean field dynamics.
    temperature : float, positive
        Weight of the policy's entropy, in reward units.

    Returns
    -------
    Imported
        `game` and `reward`. Actions are OpenSpiel's numbers.

    Raises
    ------
    TypeError
        If `game` is no game of OpenSpiel.
    ValueError
        If it is no mean field game, or its levels mix kinds of nodes.
    NotImplementedError
        If the crowd both moves the agents and changes their rewards.
    ImportError
        If OpenSpiel is not installed.

    References
    ----------
    .. [1] Lanctot et al. (2019), *OpenSpiel: a framework for reinforcement learning in games*,
       arXiv:1908.09453.
    """
    _check_game(game)
    tree = grow(game)
    fixed = all(stage.fixed for stage in tree.stages[:-1])
    initial = np.zeros(len(tree.labels))
    for name, probability in tree.start.items():
        initial[tree.places[0][name]] = probability
    allowed: Any = _available(tree)
    populations = None
    if fixed and tree.within is not None:
        populations = {"population": list(range(tree.n_populations))}
        allowed = dict(enumerate(np.split(allowed, tree.n_populations)))
    imported = MeanFieldGame(
        states=tree.labels if populations is None else tree.within or [],
        types=populations,
        actions=tree.actions,
        horizon=len(tree.stages),
        transition=_fixed_transition(tree) if fixed else _moving_transition(tree),
        initial=initial / initial.sum(),
        available=allowed,
        temperature=temperature,
        joint=not fixed,
    )
    return Imported(imported, _reward(tree, game, fixed))


def _reward(tree: Tree, game: Any, fixed: bool) -> RewardProgram:
    """Return the reward as a program, in the simplest form that it has."""
    ends = _end_rewards(tree)
    if not fixed:
        table = torch.tensor(_moving_rewards(tree, game)[..., None] + ends)
        return lambda x: table
    rewards = _node_rewards(tree, game)
    form = _find_log_density(tree, rewards)
    return _log_program(form, ends) if form else _read_program(rewards, ends)


def _check_game(game: Any) -> None:
    pyspiel = require("pyspiel", "openspiel")
    is_a("game", game, pyspiel.Game, " Load it with pyspiel.load_game(...).")
    if game.get_type().dynamics != pyspiel.GameType.Dynamics.MEAN_FIELD:
        raise ValueError(
            f"`game` must be a mean field game; {title_of(game)} has the dynamics "
            f"{game.get_type().dynamics.name}."
        )


@differentiable_door
def to_openspiel(policy: Any, game: Any) -> Any:
    """Return a policy as one of OpenSpiel, for its metrics and algorithms.

    Parameters
    ----------
    policy : array, shape (T, S, A)
        Probability of each action, as `solve_equilibrium(...).value.policy`.
    game : pyspiel.Game
        The game that it plays.

    Returns
    -------
    open_spiel.python.policy.Policy
        The policy.

    Raises
    ------
    TypeError, ValueError
        If `game` is no mean field game of OpenSpiel, or `policy` does not fit it.
    ImportError
        If OpenSpiel is not installed.
    """
    _check_game(game)
    tree = grow(game)
    values = check_policy(policy, tree.shape).numpy()
    rows = {}
    for t, stage in enumerate(tree.stages):
        for name, node in stage.nodes.items():
            row = values[t, tree.places[t][name]]
            rows[name] = {a: float(row[tree.actions.index(a)]) for a in node.legal_actions()}
    return require("mfgppl.interop.openspiel_policy", "openspiel").RowPolicy(game, rows)
