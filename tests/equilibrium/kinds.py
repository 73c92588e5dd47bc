"""Random games of every kind, and what happens in them by plain loops in NumPy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse
import torch
from games import random_rows
from torch import Tensor

import mfgppl as mfg
from mfgppl.reward.program import reward_table

# what differs from a fixed dense table for all steps
KINDS = [
    "fixed", "by time", "masked", "sparse", "sparse by time", "moving", "moving sparse", "joint",
    "joint moving",
]  # fmt: skip
STATIONARY = ["fixed", "masked", "sparse", "moving", "joint", "joint moving"]


def made(
    kind: str,
    *,
    seed: int = 1,
    sizes: tuple[int, int] = (3, 2),
    horizon: int | None = 3,
    discount: float = 0.9,
    temperature: float = 0.6,
) -> mfg.MeanFieldGame:
    """Return a random game of a kind, with a random feature `base`."""
    S, A = sizes
    T = horizon or 1
    masked = np.ones((S, A), dtype=bool)
    if kind == "masked":
        odd = np.arange(1, S, 2)
        masked[odd, odd % A] = A == 1
    return mfg.MeanFieldGame(
        states={"rank": list(range(S))},
        actions=[f"a{k}" for k in range(A)],
        horizon=horizon,
        transition=_dynamics(kind, seed, S, A, max(T - 1, 1)),
        initial=random_rows(seed + 10, S),
        features={"base": np.random.default_rng(seed).normal(size=(T, S, A))},
        available=masked,
        discount=discount,
        temperature=temperature,
        joint=kind.startswith("joint"),
    )


def _dynamics(kind: str, seed: int, S: int, A: int, n_steps: int) -> Any:
    tables = random_rows(seed + 20, n_steps, S, A, S)
    if kind == "by time":
        return tables
    if kind.startswith("sparse"):
        # every row keeps its largest entries
        kept = tables * (tables > 0.3 * tables.max(-1, keepdims=True))
        kept = kept / kept.sum(-1, keepdims=True)
        each = [scipy.sparse.csr_array(table.reshape(S * A, S)) for table in kept]
        return each if kind == "sparse by time" else each[0]
    if "moving" not in kind:
        return tables[0]
    still, other = torch.as_tensor(tables[0]), torch.as_tensor(random_rows(seed + 30, S, A, S))

    def transition(crowd: Tensor, time: int) -> Any:
        mix = 0.6 * crowd.reshape(-1)[0] + 0.02 * time
        table = (1 - mix) * still + mix * other
        return scipy.sparse.csr_array(table.reshape(S * A, S)) if "sparse" in kind else table

    return transition


def pay(x: mfg.RewardInputs) -> Tensor:
    """Reward of all kinds: a random table, less where there is a crowd."""
    crowd = x.occupancy if x.game.joint else x.density
    n_states = x.shape[1]
    return x.base - 1.5 * crowd + 2.0 * x.expect("rank") * x.rank / n_states**2


def pay_by_branch(x: mfg.RewardInputs) -> Tensor:
    """The same reward by a program that looks at a value, and so runs as it is."""
    return pay(x) if float(x.density.min()) >= 0.0 else -pay(x)


def rewards_along(game: mfg.MeanFieldGame, flow: np.ndarray, program: Any = pay) -> np.ndarray:
    """Return the reward (T, S, A) along a flow."""
    along = torch.as_tensor(flow.reshape(game.flow_shape))
    return reward_table(program, mfg.RewardInputs(game, along)).numpy()


def table_at(game: mfg.MeanFieldGame, crowd: np.ndarray, t: int) -> np.ndarray:
    """Return the dynamics (S, A, S) of a step where agents meet a crowd."""
    if game.crowd_moves_dynamics:
        value = game.transition(torch.as_tensor(crowd), t)
        dense = value.toarray() if scipy.sparse.issparse(value) else value.numpy()
        return dense.reshape(game.n_states, game.n_actions, game.n_states)
    tables = game.transition.to_dense().numpy()
    return tables[t] if tables.ndim == 4 else tables


def tables_along(game: mfg.MeanFieldGame, flow: np.ndarray) -> list[np.ndarray]:
    """Return the dynamics of all steps along a flow."""
    crowds = flow.reshape(game.flow_shape)
    return [table_at(game, crowds[t], t) for t in range(len(crowds) - 1)]


def moved(shares: np.ndarray, policy: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the shares (S,) after a step, by loops."""
    after = np.zeros(len(shares))
    for s, a, x in np.ndindex(*table.shape):
        after[x] += shares[s] * policy[s, a] * table[s, a, x]
    return after


def pushed(game: mfg.MeanFieldGame, policy: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    """Return the flow that a policy generates along given tables."""
    shares = game.initial.numpy()
    flow = [_crowd(game, shares, policy[0])]
    for t, table in enumerate(tables):
        shares = moved(shares, policy[t], table)
        flow.append(_crowd(game, shares, policy[t + 1]))
    return np.array(flow)


def flow_of(game: mfg.MeanFieldGame, policy: np.ndarray) -> np.ndarray:
    """Return the flow that a policy generates where the dynamics answer it."""
    shares, flow = game.initial.numpy(), []
    for t in range(len(policy)):
        flow.append(_crowd(game, shares, policy[t]))
        if t < len(policy) - 1:
            shares = moved(shares, policy[t], table_at(game, flow[t], t))
    return np.array(flow)


def kept_by(game: mfg.MeanFieldGame, policy: np.ndarray) -> np.ndarray:
    """Return the distribution that a stationary policy keeps, by moving on 3,000 times."""
    shares = game.initial.numpy()
    for _ in range(3000):
        crowd = _crowd(game, shares, policy[0])
        along = np.einsum("sa,sax->sx", policy[0], table_at(game, crowd, 0))
        shares = shares @ along
    return _crowd(game, shares, policy[0])[None]


def _crowd(game: mfg.MeanFieldGame, shares: np.ndarray, policy: np.ndarray) -> np.ndarray:
    return shares[:, None] * policy if game.joint else shares


def soft_by_loops(
    game: mfg.MeanFieldGame, reward: np.ndarray, tables: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return soft values (T, S) and policy (T, S, A) by loops over time, state and action."""
    T, S, _ = reward.shape
    values, policy = np.zeros((T + 1, S)), np.zeros(reward.shape)
    allowed = game.available.numpy()
    for t in reversed(range(T)):
        for s in range(S):
            q = reward[t, s].copy()
            if t < T - 1:
                q += game.discount * tables[t][s] @ values[t + 1]
            weights = np.exp(q / game.temperature) * allowed[s]
            values[t, s] = game.temperature * np.log(weights.sum())
            policy[t, s] = weights / weights.sum()
    return values[:-1], policy


def earned(
    game: mfg.MeanFieldGame,
    reward: np.ndarray,
    tables: list[np.ndarray],
    policy: np.ndarray,
    temperature: float = 0.0,
) -> float:
    """Return what a policy earns along given tables, by loops, with its entropy's worth."""
    shares, total = game.initial.numpy(), 0.0
    for t in range(len(policy)):
        for s, a in np.ndindex(*policy.shape[1:]):
            share = policy[t, s, a]
            if share > 0:
                worth = reward[t, s, a] - temperature * np.log(share)
                total += game.discount**t * shares[s] * share * worth
        if t < len(policy) - 1:
            shares = moved(shares, policy[t], tables[t])
    return total


def lasting_values(
    game: mfg.MeanFieldGame,
    reward: np.ndarray,
    table: np.ndarray,
    policy: np.ndarray,
    temperature: float = 0.0,
) -> np.ndarray:
    """Return what a policy (S, A) is worth (S,) for ever, by a linear system."""
    logs = np.log(np.where(policy > 0, policy, 1.0))
    income = (policy * (reward - temperature * logs)).sum(-1)
    along = np.einsum("sa,sax->sx", policy, table)
    return np.linalg.solve(np.eye(len(policy)) - game.discount * along, income)


def random_policy(game: mfg.MeanFieldGame, seed: int) -> np.ndarray:
    """Return a random policy that takes only what is available."""
    weights = np.random.default_rng(seed).exponential(size=game.shape) * game.available.numpy()
    return weights / weights.sum(-1, keepdims=True)


def pure_policies(game: mfg.MeanFieldGame) -> Iterator[np.ndarray]:
    """Yield all deterministic policies of a game."""
    T, S, A = game.shape
    options = [np.flatnonzero(game.available[s].numpy()) for s in range(S)] * T
    sizes = [len(o) for o in options]
    for choice in np.ndindex(*sizes):
        taken = np.array([o[k] for o, k in zip(options, choice, strict=True)])
        yield np.eye(A)[taken].reshape(T, S, A)
