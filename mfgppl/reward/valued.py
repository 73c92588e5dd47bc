"""A program as those read it who value policies: its reward and its end, no more.

The table that agents answer (`reward_table`) carries shocks, lapses and laws of behaviour, which
say what agents do and not what it is worth to them.
"""

from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from mfgppl._modes import seeded
from mfgppl.game import MeanFieldGame
from mfgppl.reward.behaviour import Declared, agent_of, plan_of
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.preferences import Preferences, check_parts
from mfgppl.reward.program import (
    RewardProgram,
    as_preferences,
    asked,
    check_callable,
    check_finite,
    checked_table,
    double_precision,
    ran,
)


class Outlook(NamedTuple):
    """What agents earn and expect along a flow.

    Attributes
    ----------
    reward : Tensor, shape (T, S, A)
        The reward of decisions, that of the last with the discounted terminal value; -inf where an
        action is not available.
    values : Tensor, shape (T, S)
        Values of the states by the game's law of behaviour, reward units.
    """

    reward: Tensor
    values: Tensor


def outlook(program: RewardProgram, inputs: RewardInputs) -> Outlook | None:
    """Return what agents earn and expect; None where the table that they answer says it."""
    return _outlook(asked(program, inputs))


def faced(program: RewardProgram, inputs: RewardInputs) -> tuple[Tensor, Outlook | None]:
    """Return the table that agents answer, checked, and their outlook, by one run."""
    check_callable(program)
    declared = asked(program, inputs)
    return checked_table(declared), _outlook(declared)


def _outlook(declared: Declared) -> Outlook | None:
    if declared.plain:
        return None
    reward = agent_of(declared).reward_and_end
    masked = reward.masked_fill(~declared.game.available, -torch.inf)
    return Outlook(masked, plan_of(declared).values)


def worth_table(program: RewardProgram, inputs: RewardInputs) -> Tensor:
    """Return what decisions are worth (T, S, A), the last with the discounted terminal value.

    Raises
    ------
    TypeError, ValueError
        As `reward_table`.
    """
    declared = asked(program, inputs)
    check_parts(declared.preferences, declared.inputs)
    reward = agent_of(declared).reward_and_end
    check_finite(reward, inputs.game)
    return reward


def valued(game: MeanFieldGame, program: RewardProgram) -> tuple[MeanFieldGame, RewardProgram]:
    """Return the game of the same worth in which agents are plain.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    program : callable
        A reward program whose parameters are fixed.

    Returns
    -------
    game, program
        Themselves where agents are plain. Else the reward and its end alone, in the game with the
        discount and temperature that the program declares.

    Raises
    ------
    ValueError
        If discount or temperature differ by type, as nothing values policies then.
    """
    with double_precision(), torch.no_grad():
        declared = asked(program, at_start(game))
        if declared.plain:
            return game, program
        check_parts(declared.preferences, declared.inputs)
        agent = agent_of(declared)
    constants = {}
    for name in ("discount", "temperature"):
        values = getattr(agent, name).reshape(-1)
        if float(values.max() - values.min()) > 0:
            raise ValueError(
                f"each type has a {name} of its own, and policies are valued by one "
                "for all; value the types apart, in a game of each."
            )
        constants[name] = float(values[0])
    plain = {"behaviour": "entropy", "lookahead": None, "beliefs": "equilibrium"}
    return game.replace(**constants, **plain), _alone(program)


def _alone(program: RewardProgram) -> RewardProgram:
    """Return a program with nothing but its reward and its end."""

    def alone(x: RewardInputs) -> Any:
        preferences = as_preferences(program(x))
        return Preferences(preferences.reward, terminal=preferences.terminal)

    return alone


class Constants(NamedTuple):
    """Weights of agents, by stacked state.

    Attributes
    ----------
    discount, temperature : Tensor, shape (S,)
        Of the next period, and of the noise in reward units.
    taste : bool
        Whether the noise is taste and all that agents do is foreseen, so that entropy is of worth.
    """

    discount: Tensor
    temperature: Tensor
    taste: bool


def constants_of(game: MeanFieldGame, program: RewardProgram) -> Constants:
    """Return the constants that a program with fixed parameters declares, else the game's."""
    with double_precision(), torch.no_grad():
        agent = agent_of(asked(program, at_start(game)))
    discount, temperature = (
        value.reshape(-1).expand(game.n_states) for value in (agent.discount, agent.temperature)
    )
    foreseen = agent.shock is None and agent.lapse is None
    return Constants(discount, temperature, foreseen and game.behaviour == "entropy")


def at_start(game: MeanFieldGame) -> RewardInputs:
    """Return the inputs along a crowd that stays where it began."""
    start = game.initial[:, None] / game.n_actions if game.joint else game.initial
    return RewardInputs(game, start.expand(game.flow_shape))


def parts_drawn(program: RewardProgram, inputs: RewardInputs) -> list[str]:
    """Return the names of the parts that a program declares beside its reward."""
    return [name for name in _drawn(program, inputs).preferences.parts if name != "reward"]


def answers_reward(program: RewardProgram, inputs: RewardInputs) -> bool:
    """Return whether agents are soft maximisers of the reward and its end, at any parameters."""
    return _drawn(program, inputs).plain


def _drawn(program: RewardProgram, inputs: RewardInputs) -> Declared:
    """Return what a program declares at parameters drawn."""
    with double_precision(), seeded(0), pyro.poutine.block():
        return ran(program, inputs).declared
