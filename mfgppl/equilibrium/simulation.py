"""Panels drawn from a policy: in the mean-field limit, or of agents who meet their own crowd."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl._arguments import (
    Seed,
    differentiable_door,
    is_a,
    positive_int,
    seed_of,
)
from mfgppl._game_arguments import ROW_SUM
from mfgppl._generated_flow import flow_of_policy
from mfgppl.control.steps import Steps
from mfgppl.data.periods import Clock
from mfgppl.data.trajectories import Trajectories
from mfgppl.equilibrium.response import check_allowed, check_policy
from mfgppl.equilibrium.returns import discounted, return_of
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, bind, double_precision, reward_table
from mfgppl.reward.site_values import site_values
from mfgppl.reward.valued import valued

Chooser = Callable[[Tensor, int], Tensor]


@differentiable_door
def simulate(
    game: MeanFieldGame,
    policy: Any,
    mean_field: Any,
    *,
    n_agents: int,
    random_seed: Seed = None,
    n_times: int | None = None,
) -> Trajectories:
    """Draw a balanced panel of agents that follow a policy.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    policy : Tensor, array or DataArray, shape (T, S, A), or callable
        Probability of each action. With `mean_field="empirical"` it may be a function of the
        agents' own shares (S,) and the time that returns (S, A): agents who react to the crowd.
    mean_field : Tensor or array, shape (T, S), or (T, S, A) in a joint game, or "empirical"
        The flow that the dynamics see: a given one (the mean-field limit, where agents are
        independent), or the agents' own shares (a finite population).
    n_agents : int
        Number of agents; each is observed at all decision times.
    random_seed : int or SeedSequence, optional
        Seed of the draws; by default a fresh one.
    n_times : int, optional
        Number of decision times, for a stationary game only.

    Returns
    -------
    Trajectories
        T decisions an agent; the state after the last one is not recorded.

    Raises
    ------
    ValueError
        If policy, flow or number of times do not fit the game.
    """
    is_a("game", game, MeanFieldGame)
    positive_int("n_agents", n_agents)
    random_seed = seed_of(random_seed)
    T = _times(game, n_times)
    own = isinstance(mean_field, str)
    if own and mean_field != "empirical":
        raise ValueError(f"`mean_field` must be a flow or 'empirical'; got {mean_field!r}.")
    choose = _chooser(game, policy, own=own)
    flow = None if own else game.check_flow("mean_field", mean_field).detach()
    return drawn_panel(game, choose, flow, n_agents=n_agents, n_times=T, random_seed=random_seed)


def drawn_panel(
    game: MeanFieldGame,
    choose: Chooser,
    flow: Tensor | None,
    *,
    n_agents: int,
    n_times: int,
    random_seed: int,
) -> Trajectories:
    """Return the same for a policy as a function of crowd and time, and a flow that is known.

    Without a flow agents meet each other.
    """
    rng, T, steps = np.random.default_rng(random_seed), n_times, None
    if flow is not None or not game.crowd_moves_dynamics:
        with torch.no_grad():
            steps = game.steps_along(game.initial if flow is None else flow)
    state = np.empty((n_agents, T), dtype=np.int64)
    action = np.empty((n_agents, T), dtype=np.int64)
    state[:, 0] = draw_category(rng, np.tile(game.initial.numpy().cumsum(), (n_agents, 1)))
    for t in range(T):
        crowd = _shares(game, state[:, t]) if flow is None else game.initial
        acts = choose(crowd, t).numpy().cumsum(-1)
        action[:, t] = draw_category(rng, acts[state[:, t]])
        if t == T - 1:
            break
        here, acted, uniform = state[:, t], action[:, t], rng.random(n_agents)
        now, k = (
            (steps, t) if steps is not None else (_crowd_dynamics(game, crowd, here, acted, t), 0)
        )
        state[:, t + 1] = now.draw(k, here, acted, uniform)
    return Trajectories(
        space=game.space,
        actions=game.actions,
        first_time=0 if game.periods is None else game.periods.first,
        clock=Clock() if game.periods is None else game.periods.clock,
        horizon=T,
        agents=np.arange(n_agents),
        offsets=np.arange(n_agents + 1) * T,
        time=np.tile(np.arange(T), n_agents),
        state=state.ravel(),
        action=action.ravel(),
    )


def _times(game: MeanFieldGame, n_times: int | None) -> int:
    if game.horizon is None:
        if n_times is None:
            raise ValueError("a stationary game has no horizon: say how many `n_times` to draw.")
        return positive_int("n_times", n_times)
    if n_times is not None and positive_int("n_times", n_times) != game.horizon:
        raise ValueError(
            f"`n_times` belongs to stationary games; this game's horizon is {game.horizon}."
        )
    return game.horizon


def _chooser(game: MeanFieldGame, policy: Any, *, own: bool) -> Chooser:
    """Return the policy (S, A) as a function of the shares of states and the time."""
    if not callable(policy):
        table = check_policy(game, policy).detach()
        return lambda crowd, t: table[0 if game.stationary else t]
    if not own:
        raise ValueError("a `policy` that reacts to the crowd needs mean_field='empirical'.")

    def react(crowd: Tensor, t: int) -> Tensor:
        choice = torch.as_tensor(policy(crowd, t), dtype=torch.float64).detach()
        expected = (game.n_states, game.n_actions)
        fits = tuple(choice.shape) == expected and bool((choice >= 0).all())
        if not fits or bool(((choice.sum(-1) - 1).abs() > ROW_SUM).any()):
            raise ValueError(
                f"`policy` must return shares of actions (S, A) = {expected}, each row summing to "
                f"1; at time {t} it returned {tuple(choice.shape)}."
            )
        check_allowed(game, choice[None], first_time=t)
        return choice

    return react


def _shares(game: MeanFieldGame, state: np.ndarray) -> Tensor:
    counts = np.bincount(state, minlength=game.n_states)
    return torch.from_numpy(counts / len(state))


def _crowd_dynamics(
    game: MeanFieldGame, crowd: Tensor, state: np.ndarray, action: np.ndarray, t: int
) -> Steps:
    """Return the dynamics of agents who meet each other."""
    if game.joint:
        pair = state * game.n_actions + action
        counts = np.bincount(pair, minlength=game.n_states * game.n_actions)
        crowd = torch.from_numpy(counts.reshape(game.n_states, game.n_actions) / len(state))
    when = 0 if game.stationary else t
    with torch.no_grad():
        return game.step_at(crowd.to(torch.float64), when)


def draw_category(rng: np.random.Generator, cumulative: np.ndarray) -> np.ndarray:
    """Draw one category a row from cumulative probabilities."""
    uniform = rng.random(len(cumulative))[:, None] * cumulative[:, -1:]
    return (uniform >= cumulative).sum(-1)


@differentiable_door
def finite_population(
    game: MeanFieldGame,
    reward: RewardProgram,
    policy: Any,
    *,
    n_agents: int | Sequence[int],
    random_seed: Seed = None,
    parameters: Mapping[str, Any] | pd.Series | None = None,
    n_worlds: int = 20,
) -> pd.DataFrame:
    """Compare finite populations, who meet their own shares, with the mean-field limit.

    Parameters
    ----------
    game : MeanFieldGame
        The game, with a horizon.
    reward : callable
        A reward program.
    policy : Tensor, array or DataArray, shape (T, S, A)
        What all agents follow, an equilibrium's as a rule.
    n_agents : int or list of int
        Sizes of the populations.
    random_seed : int or SeedSequence, optional
        Seed of the draws; by default a fresh one, recorded in `attrs`.
    parameters : mapping or Series, optional
        A value for each latent site of the reward.
    n_worlds : int
        Populations drawn of each size.

    Returns
    -------
    DataFrame
        By `n_agents`: `flow_gap`, the sum of absolute differences of the shares of states from
        the limit's, averaged over time and populations; `return_gap`, an agent's average return
        less the limit's, reward units; and the standard errors of both, `flow_se`, `return_se`.

    Raises
    ------
    ValueError
        If an argument does not fit the game.
    """
    is_a("game", game, MeanFieldGame)
    if game.stationary:
        raise ValueError("`finite_population` needs a game with a horizon; got a stationary one.")
    sizes = list(n_agents) if isinstance(n_agents, Sequence) else [n_agents]
    positive_int("n_worlds", n_worlds, least=2)
    random_seed = seed_of(random_seed)
    seeds = np.random.SeedSequence(random_seed)
    game, program = valued(game, bind(reward, site_values("parameters", parameters)))
    table = check_policy(game, policy).detach()
    with double_precision(), torch.no_grad():
        flow = flow_of_policy(game, table)
        limit = float(return_of(game, program, table, flow))
    shares = flow.sum(-1) if game.joint else flow
    rows = []
    for n, seed in zip(sizes, seeds.spawn(len(sizes)), strict=True):
        gaps = np.empty((n_worlds, 2))
        for k, state in enumerate(seed.generate_state(n_worlds)):
            panel = simulate(game, table, "empirical", n_agents=n, random_seed=int(state))
            occupancy = torch.from_numpy(panel.counts.actions / n)
            met = occupancy if game.joint else occupancy.sum(-1)
            with double_precision(), torch.no_grad():
                rewards = reward_table(program, RewardInputs(game, met))
            earned = discounted(game, (occupancy * rewards).sum((1, 2)))
            gaps[k] = float((occupancy.sum(-1) - shares).abs().sum(1).mean()), earned - limit
        mean, error = gaps.mean(0), gaps.std(0, ddof=1) / np.sqrt(n_worlds)
        rows.append((int(n), mean[0], error[0], mean[1], error[1]))
    columns = ["n_agents", "flow_gap", "flow_se", "return_gap", "return_se"]
    found = pd.DataFrame(rows, columns=columns).set_index("n_agents")
    found.attrs["random_seed"] = random_seed
    return found
