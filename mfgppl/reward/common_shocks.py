"""A reward program with shocks common to all agents, each period's of each action free."""

from dataclasses import replace
from typing import Any

import pyro.distributions as dist

from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.period_effects import period_effects
from mfgppl.reward.preferences import Preferences
from mfgppl.reward.program import RewardProgram, as_preferences, check_callable
from mfgppl.reward.source import reward_source

SITE = "free_periods"
WIDE = 10.0  # standard deviation of their prior, in temperatures


def free_reward(reward: RewardProgram, *, within: tuple[str, ...] = ()) -> RewardProgram:
    """Return a reward program with shocks of every period and action, which nobody foresees.

    Parameters
    ----------
    reward : callable
        A reward program.
    within : tuple of str
        Types, each combination of whose labels has shocks of its own; by default all agents share
        them.

    Returns
    -------
    callable
        A program with one more latent site, "free_periods".
    """
    check_callable(reward)

    def freed(x: RewardInputs) -> Preferences:
        preferences = as_preferences(reward(x))
        prior = dist.Normal(0.0, WIDE * x.game.temperature)
        shock = period_effects(x, SITE, prior, by=("action", *within))
        return replace(preferences, shock=_sum(preferences.shock, shock))

    freed.__doc__ = "A reward with shocks common to all agents."
    freed.source = f"{reward_source(reward)}\nwith free periods"  # type: ignore[attr-defined]
    return freed


def _sum(one: Any, other: Any) -> Any:
    return other if one is None else one + other
