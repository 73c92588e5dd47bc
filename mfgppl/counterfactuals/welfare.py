"""What an equilibrium is worth to the crowd."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfgppl.equilibrium.response import Equilibrium
from mfgppl.equilibrium.returns import discounted
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, bind, double_precision
from mfgppl.reward.valued import worth_table

NAMES = ("welfare", "welfare_with_entropy", "welfare_fitted")  # the last by the fitted reward


def worth_of(
    game: MeanFieldGame, found: Equilibrium, fitted: RewardProgram | None, values: dict[str, Any]
) -> np.ndarray:
    """Return the welfare `NAMES` of an equilibrium.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    found : Equilibrium
        Its equilibrium, with the reward along it.
    fitted : callable, optional
        The reward program of the fit, where that is another.
    values : dict
        The parameters by site.
    """
    policy, shares = found.policy, shares_of(game, found)
    entropy = -(shares * torch.special.xlogy(policy, policy).sum(-1)).sum(1)
    plain = _earned(game, found, found.reward)
    by_fit = plain
    if fitted is not None:
        with double_precision():
            inputs = RewardInputs(game, found.mean_field)
            by_fit = _earned(game, found, worth_table(bind(fitted, values), inputs))
    total = plain + game.temperature * discounted(game, entropy)
    return np.array([float(plain), float(total), float(by_fit)])


def _earned(game: MeanFieldGame, found: Equilibrium, rewards: Tensor) -> Tensor:
    """Return the discounted reward of the crowd's policy."""
    income = torch.where(found.policy > 0, found.policy * rewards, 0.0).sum(-1)
    return discounted(game, (shares_of(game, found) * income).sum(1))


def shares_of(game: MeanFieldGame, found: Equilibrium) -> Tensor:
    """Return shares of the states (T, S)."""
    return found.mean_field.sum(-1) if game.joint else found.mean_field
