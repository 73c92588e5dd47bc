"""What agents are and do along a flow, as the reward table whose soft best response it is.

Laws, solvers and tests know one agent, who answers a reward by the soft best response. Whatever
another agent does, `temperature * log pi` is a reward to which that agent's answer is `pi`: its
soft values are zero. So a program's preferences, the game's law of behaviour, its lookahead and
beliefs are worked out here, once, and all that follows takes them. What a policy is worth is not
read from such a table, but from the reward and its end.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mfgppl._generated_flow import flow_of_policy, uniform_policy
from mfgppl.control.plans import Agent, Plan, plan, plan_for_ever, with_last
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.preferences import Preferences, spread

# a program at fixed parameters, along any flow
Asked = Callable[[RewardInputs], Preferences]


class Declared(NamedTuple):
    """What a program declares of agents of one kind along a flow.

    Attributes
    ----------
    preferences : Preferences
        What it returned.
    inputs : RewardInputs
        The game along that flow.
    ask : callable
        The program at the same parameters along other flows, which beliefs may ask for.
    """

    preferences: Preferences
    inputs: RewardInputs
    ask: Asked

    @property
    def game(self) -> MeanFieldGame:
        """The game."""
        return self.inputs.game

    @property
    def plain(self) -> bool:
        """Whether agents are soft maximisers of the reward and its end by the game's constants.

        The table they answer is then the reward itself.
        """
        return self.game.plain and not set(self.preferences.parts) - {"reward", "terminal"}

    def along(self, mean_field: Tensor) -> "Declared":
        """Return the same along another flow."""
        inputs = self.inputs.along(mean_field)
        return Declared(self.ask(inputs), inputs, self.ask)


def agent_of(declared: Declared) -> Agent:
    """Return what an agent is, in tables over pairs of type and state."""
    reward = _table("reward", declared)
    assert reward is not None
    return Agent(
        reward=reward,
        ending=_ending_of(declared),
        shock=_table("shock", declared),
        discount=_constant("discount", declared),
        temperature=_constant("temperature", declared),
        lapse=_table("lapse", declared),
    )


def _table(name: str, declared: Declared) -> Tensor | None:
    """Return a part by time over stacked states, (T, S, A) or (T, S, 1); None where none is."""
    part, inputs = getattr(declared.preferences, name), declared.inputs
    return None if part is None else inputs.stacked(spread(name, part, inputs))


def _worth(declared: Declared) -> Tensor | None:
    """Return what states are worth after the last decision, (S,)."""
    worth = declared.preferences.terminal
    return None if worth is None else spread("terminal", worth, declared.inputs).reshape(-1)


def _ending_of(declared: Declared) -> Tensor | None:
    """Return its mean after the last decision, (S, A).

    Raises
    ------
    ValueError
        If the game has no table of the move after the last decision.
    """
    worth = _worth(declared)
    if worth is None:
        return None
    return declared.game.last_move(declared.inputs.whole_flow[-1]).expected(0, worth)


def _constant(name: str, declared: Declared) -> Tensor:
    """Return a constant as a number, or by stacked state (S, 1) where it differs by type."""
    part, game = getattr(declared.preferences, name), declared.game
    if part is None:
        part = game.constants_by_type.get(name, getattr(game, name))
    value = torch.as_tensor(part, dtype=torch.float64)
    if value.numel() == 1:
        return value.reshape(())
    *_, _, S, _ = declared.inputs.shape
    return value.reshape(-1, 1).expand(-1, S).reshape(-1, 1)


def as_reward(declared: Declared) -> Tensor:
    """Return the reward (T, S, A) whose soft best response is what agents do.

    In reward units, over stacked states; finite also where an action is not available.
    """
    game, parts = declared.game, declared.preferences.parts
    if declared.inputs.energy:
        return _of_energy(declared)
    if not game.plain or set(parts) - {"reward", "terminal", "temperature"}:
        return game.temperature * plan_of(declared).log_policy
    agent = agent_of(declared)
    if "temperature" not in parts:
        return agent.reward_and_end
    return agent.reward_and_end * (game.temperature / agent.temperature)


def plan_of(declared: Declared) -> Plan:
    """Return what agents do and expect, by the game's law, lookahead and beliefs."""
    game = declared.game
    if game.beliefs == "static" and not game.stationary:
        return _static(declared)
    if isinstance(game.beliefs, int):
        return _along(_level(declared, game.beliefs))
    return _along(declared)


def _along(declared: Declared, *, first: int = 0) -> Plan:
    """Return the plan against the flow of the inputs, from a time on."""
    game, agent = declared.game, agent_of(declared).since(first)
    available = game.available.expand(game.shape)[first:]
    steps = game.steps_along(declared.inputs.whole_flow, checked=game.stationary)
    if game.stationary:
        return plan_for_ever(agent, steps, available, lookahead=game.lookahead)
    return plan(agent, steps, available, law=game.behaviour, lookahead=game.lookahead, first=first)


def _static(declared: Declared) -> Plan:
    """Return what agents do who take the crowd, at each time, to stay as it is."""
    values, log_policies = [], []
    for t, crowd in enumerate(declared.inputs.whole_flow):
        still = crowd[None].expand(declared.game.flow_shape)
        found = _along(declared.along(still), first=t)
        values.append(found.values[0])
        log_policies.append(found.log_policy[0])
    return Plan(torch.stack(values), torch.stack(log_policies))


def _level(declared: Declared, level: int) -> Declared:
    """Return the same along the flow that agents of a level expect: of those a level below."""
    game = declared.game
    if level == 1:
        policy = uniform_policy(game)
    else:
        below = _along(_level(declared, level - 1)).log_policy.exp()
        policy = below.masked_fill(~game.available.expand(game.shape), 0.0)
    return declared.along(flow_of_policy(game, policy, checked=False))


def _of_energy(declared: Declared) -> Tensor:
    """Return the reward of Theorem 4's trajectories, those that reach the end with its worth.

    Raises
    ------
    ValueError
        If there are parts that the energy law does not know.
    """
    unknown = sorted(set(declared.preferences.parts) - {"reward", "terminal", "temperature"})
    if unknown:
        raise ValueError(
            f"likelihood='energy' knows no {unknown[0]}: Theorem 4's trajectories have a reward, a "
            "temperature and a terminal value alone; use likelihood='causal'."
        )
    game, agent = declared.game, agent_of(declared)
    reward = agent.reward * (game.temperature / agent.temperature)
    worth = _worth(declared)
    if worth is None:
        return reward
    by_state = agent.temperature[:, 0] if agent.temperature.ndim else agent.temperature
    steps = game.last_move(declared.inputs.whole_flow[-1])
    return with_last(reward, game.temperature * steps.log_expected(0, worth / by_state))
