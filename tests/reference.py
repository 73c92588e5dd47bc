"""Slow twins by enumeration: every trajectory of a tiny game is listed and weighed."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch

import mfgppl as mfg
from mfgppl.data.space import StateSpace

# a trajectory: first time, states and actions in order, the state after the last action or None
Path = tuple[int, tuple[int, ...], tuple[int, ...], int | None]


class TinyCase(NamedTuple):
    """A random tiny game with a reward table and an unbalanced panel of it."""

    game: mfg.MeanFieldGame
    reward: np.ndarray
    panel: mfg.Trajectories
    paths: list[Path]
    transition: np.ndarray  # (T-1, S, A, S)


def tiny_case(
    seed: int,
    *,
    by_time: bool = False,
    masked: bool = False,
    discount: float = 1.0,
    temperature: float = 1.0,
    deterministic: bool = False,
    n_paths: int = 6,
) -> TinyCase:
    """Draw a game of at most 3 states, 3 actions and 4 times, and paths of all kinds."""
    rng = np.random.default_rng(seed)
    S, A, T = int(rng.integers(2, 4)), int(rng.integers(2, 4)), int(rng.integers(2, 5))
    steps = T - 1 if by_time else 1
    transition = rng.dirichlet(np.ones(S), size=(steps, S, A))
    if deterministic:
        transition = np.eye(S)[rng.integers(S, size=(steps, S, A))]
    available = np.ones((S, A), dtype=bool)
    if masked:
        available[np.arange(S), rng.integers(A, size=S)] = False
    game = mfg.MeanFieldGame(
        states=[f"s{k}" for k in range(S)],
        actions=[f"a{k}" for k in range(A)],
        horizon=T,
        transition=transition if by_time else transition[0],
        initial=rng.dirichlet(np.ones(S)),
        available=available,
        discount=discount,
        temperature=temperature,
    )
    tables = np.broadcast_to(transition, (T - 1, S, A, S))
    paths = [_draw_path(rng, tables, available, T) for _ in range(n_paths)]
    # one path a state at time 0, so that the flow and all starts are seen
    paths += [_draw_path(rng, tables, available, T, first=(0, s)) for s in range(S)]
    panel = as_panel(paths, game)
    return TinyCase(game, rng.normal(size=(T, S, A)), panel, paths, tables)


def _draw_path(
    rng: np.random.Generator,
    tables: np.ndarray,
    available: np.ndarray,
    horizon: int,
    first: tuple[int, int] | None = None,
) -> Path:
    begin, state = first or (int(rng.integers(horizon)), int(rng.integers(len(available))))
    end = int(rng.integers(begin, horizon)) if first is None else horizon - 1
    states, actions = [], []
    following: int | None = state
    for t in range(begin, end + 1):
        state = following
        action = int(rng.choice(np.flatnonzero(available[state])))
        states.append(state)
        actions.append(action)
        row = tables[min(t, horizon - 2), state, action]
        following = int(rng.choice(len(available), p=row))
    seen = following if rng.random() < 0.5 else None
    return begin, tuple(states), tuple(actions), seen


def as_panel(paths: list[Path], game: mfg.MeanFieldGame) -> mfg.Trajectories:
    """Write paths as coded trajectories."""
    time, state, action, offsets = [], [], [], [0]
    for begin, states, actions, seen in paths:
        time += [begin + k for k in range(len(states))]
        state += states
        action += actions
        if seen is not None:
            time.append(begin + len(states))
            state.append(seen)
            action.append(-1)
        offsets.append(len(time))
    return mfg.Trajectories(
        space=StateSpace(game.space.coordinates),
        actions=game.actions,
        first_time=0,
        horizon=game.horizon,
        agents=np.arange(len(paths)),
        offsets=np.array(offsets),
        time=np.array(time),
        state=np.array(state),
        action=np.array(action),
    )


def soft_policy(case: TinyCase, time: int, state: int) -> dict[int, float]:
    """Return the soft policy at a time and state by recursion over the tree of futures."""
    beta = case.game.temperature
    weights = {}
    for a in allowed(case, state):
        weights[a] = math.exp(soft_q(case, time, state, a) / beta)
    total = sum(weights.values())
    return {a: w / total for a, w in weights.items()}


def soft_q(case: TinyCase, time: int, state: int, action: int) -> float:
    """Return the soft action value by recursion."""
    value = float(case.reward[time, state, action])
    if time < case.game.horizon - 1:
        for following in range(case.game.n_states):
            share = float(case.transition[time, state, action, following])
            value += case.game.discount * share * soft_v(case, time + 1, following)
    return value


def soft_v(case: TinyCase, time: int, state: int) -> float:
    """Return the soft state value by recursion."""
    beta = case.game.temperature
    terms = [math.exp(soft_q(case, time, state, a) / beta) for a in allowed(case, state)]
    return beta * math.log(sum(terms))


def allowed(case: TinyCase, state: int) -> list[int]:
    """Return the actions available in a state."""
    return [a for a in range(case.game.n_actions) if bool(case.game.available[state, a])]


def causal_log_likelihood(case: TinyCase) -> np.ndarray:
    """Return the causal log likelihood of each path by recursion."""
    return np.array(
        [
            sum(
                math.log(soft_policy(case, begin + k, s)[a])
                for k, (s, a) in enumerate(zip(states, actions, strict=True))
            )
            for begin, states, actions, _ in case.paths
        ]
    )


def all_futures(case: TinyCase, begin: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """List all state and action sequences from a time to the horizon."""
    n = case.game.horizon - begin
    states = itertools.product(range(case.game.n_states), repeat=n)
    return [
        (s, a) for s in states for a in itertools.product(*[allowed(case, state) for state in s])
    ]


def energy_weight(
    case: TinyCase, begin: int, states: tuple[int, ...], actions: tuple[int, ...]
) -> float:
    """Return `prod P exp(sum r / temperature)` of a run from `begin`, without the first state."""
    weight = 1.0
    for k, (s, a) in enumerate(zip(states, actions, strict=True)):
        weight *= math.exp(case.reward[begin + k, s, a] / case.game.temperature)
        if k + 1 < len(states):
            weight *= case.transition[begin + k, s, a, states[k + 1]]
    return weight


def energy_log_likelihood(case: TinyCase, entry: np.ndarray, *, marginal: bool) -> np.ndarray:
    """Return each path's energy log likelihood relative to its own `prod P`, by enumeration.

    The weight of a path that stops early is the sum over all futures that begin with it.
    """
    values = []
    for begin, states, actions, seen in case.paths:
        total = part = 0.0
        for s, a in all_futures(case, begin):
            weight = energy_weight(case, begin, s, a)
            if marginal:
                total += entry[begin, s[0]] * weight
            elif s[0] == states[0]:
                total += weight
            n = len(states)
            here = s[:n] == states and a[:n] == actions
            if here and (seen is None or len(s) == n or s[n] == seen):
                part += weight
        base = 1.0
        after = [*states[1:], *([seen] if seen is not None else [])]
        for k, following in enumerate(after):
            if begin + k < case.game.horizon - 1:
                base *= case.transition[begin + k, states[k], actions[k], following]
        values.append(math.log(part / base / total))
    return np.array(values)


def finite_difference(function, point: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Return central differences of a scalar function of an array, finite entries only."""
    gradient = np.zeros_like(point)
    for index in np.ndindex(*point.shape):
        up, down = point.copy(), point.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


def table_program(reward: np.ndarray):
    """Return a reward program whose single parameter scales a fixed table."""
    import pyro
    import pyro.distributions as dist

    table = torch.as_tensor(reward)

    def program(x):
        return pyro.sample("scale", dist.Normal(1.0, 1.0)) * table

    return program
