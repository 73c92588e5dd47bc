"""What agents do along a flow, as the reward table whose soft best response it is.

Laws, solvers and tests know one agent, who answers a reward by the soft best response. Whatever
another agent does, `temperature * log pi` is a reward to which that agent's answer is `pi`: its
soft values are zero. So a program's preferences, the game's law of behaviour, its lookahead and
beliefs are worked out here, once, and all that follows takes them. What a policy is worth is not
read from such a table, but from `reward_and_end`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mfgppl._generated_flow import flow_of_policy
from mfgppl.control.plans import Plan, plan, plan_for_ever
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.preferences import (
    Preferences,
    agent_of,
    reward_and_end,
    terminal_of,
    with_last,
)

# a program at fixed parameters, along any flow
Asked = Callable[[RewardInputs], Preferences]


def is_plain(preferences: Preferences, game: MeanFieldGame) -> bool:
    """Return whether agents are soft maximisers of the reward and its end by the game's constants.

    The table they answer is then the reward itself.
    """
    return game.plain and not set(preferences.parts) - {"reward", "terminal"}


def as_reward(preferences: Preferences, inputs: RewardInputs, ask: Asked) -> Tensor:
    """Return the reward (T, S, A) whose soft best response is what agents do.

    Parameters
    ----------
    preferences : Preferences
        What the program returned along the flow.
    inputs : RewardInputs
        The game along that flow.
    ask : callable
        The program along other flows, which beliefs may ask for.

    Returns
    -------
    Tensor, shape (T, S, A)
        Reward units, over stacked states; finite also where an action is not available.
    """
    game = inputs.game
    if inputs.energy:
        return _of_energy(preferences, inputs)
    if is_plain(preferences, game):
        return reward_and_end(preferences, inputs)
    if game.plain and set(preferences.parts) <= {"reward", "terminal", "temperature"}:
        scale = game.temperature / agent_of(preferences, inputs).temperature
        return reward_and_end(preferences, inputs) * scale
    return game.temperature * plan_of(preferences, inputs, ask).log_policy


def plan_of(preferences: Preferences, inputs: RewardInputs, ask: Asked) -> Plan:
    """Return what agents do and expect, by the game's law, lookahead and beliefs."""
    game = inputs.game
    if game.beliefs == "static" and not game.stationary:
        return _static(inputs, ask)
    if isinstance(game.beliefs, int):
        along = _level(game, game.beliefs, ask)
        return _along(ask(along), along)
    return _along(preferences, inputs)


def _along(preferences: Preferences, inputs: RewardInputs, *, first: int = 0) -> Plan:
    """Return the plan against the flow of the inputs, from a time on."""
    game, agent = inputs.game, agent_of(preferences, inputs).since(first)
    available = game.available.expand(game.shape)[first:]
    steps = game.steps_along(inputs.whole_flow, checked=game.stationary)
    if game.stationary:
        return plan_for_ever(agent, steps, available, lookahead=game.lookahead)
    return plan(agent, steps, available, law=game.behaviour, lookahead=game.lookahead, first=first)


def _static(inputs: RewardInputs, ask: Asked) -> Plan:
    """Return what agents do who take the crowd, at each time, to stay as it is."""
    values, log_policies = [], []
    for t, crowd in enumerate(inputs.whole_flow):
        still = inputs.along(crowd[None].expand(inputs.game.flow_shape))
        found = _along(ask(still), still, first=t)
        values.append(found.values[0])
        log_policies.append(found.log_policy[0])
    return Plan(torch.stack(values), torch.stack(log_policies))


def _level(game: MeanFieldGame, level: int, ask: Asked) -> RewardInputs:
    """Return the inputs along the flow that agents of a level expect: of those a level below."""
    available = game.available.expand(game.shape)
    uniform = available.to(torch.float64)
    flow = flow_of_policy(game, uniform / uniform.sum(-1, keepdim=True), checked=False)
    for _ in range(level - 1):
        along = RewardInputs(game, flow)
        policy = _along(ask(along), along).log_policy.exp().masked_fill(~available, 0.0)
        flow = flow_of_policy(game, policy, checked=False)
    return RewardInputs(game, flow)


def _of_energy(preferences: Preferences, inputs: RewardInputs) -> Tensor:
    """Return the reward of Theorem 4's trajectories, those that reach the end with its worth.

    Raises
    ------
    ValueError
        If there are parts that the energy law does not know.
    """
    unknown = sorted(set(preferences.parts) - {"reward", "terminal", "temperature"})
    if unknown:
        raise ValueError(
            f"likelihood='energy' knows no {unknown[0]}: Theorem 4's trajectories have a reward, a "
            "temperature and a terminal value alone; use likelihood='causal'."
        )
    game = inputs.game
    agent = agent_of(preferences, inputs)
    reward = agent.reward * (game.temperature / agent.temperature)
    worth = terminal_of(preferences, inputs)
    if worth is None:
        return reward
    by_state = agent.temperature[:, 0] if agent.temperature.ndim else agent.temperature
    steps = game.last_move(inputs.whole_flow[-1])
    return with_last(reward, game.temperature * steps.log_expected(0, worth / by_state))
