"""What an equilibrium is worth to the crowd."""

import numpy as np
import torch
from torch import Tensor

from mfgppl.equilibrium.response import Equilibrium
from mfgppl.equilibrium.returns import discounted
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import RewardProgram, double_precision
from mfgppl.reward.valued import constants_of, worth_table

NAMES = ("welfare", "welfare_with_entropy", "welfare_fitted")  # the last by the fitted reward


def worth_of(
    game: MeanFieldGame, found: Equilibrium, fitted: RewardProgram | None, program: RewardProgram
) -> np.ndarray:
    """Return the welfare `NAMES` of an equilibrium.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    found : Equilibrium
        Its equilibrium, with the reward along it.
    fitted : callable, optional
        The reward program of the fit, its parameters fixed, where that is another.
    program : callable
        The reward program of the world, likewise; each type's welfare is by its own discount.
    """
    constants, policy = constants_of(game, program), found.policy
    plain = _earned(game, found, found.reward, constants.discount)
    by_fit, total = plain, torch.full_like(plain, torch.nan)
    if fitted is not None:
        with double_precision():
            rewards = worth_table(fitted, RewardInputs(game, found.mean_field))
            by_fit = _earned(game, found, rewards, constants.discount)
    if constants.taste:
        entropy = -torch.special.xlogy(policy, policy).sum(-1) * constants.temperature
        total = plain + discounted(game, shares_of(game, found) * entropy, constants.discount)
    return np.array([float(plain), float(total), float(by_fit)])


def _earned(game: MeanFieldGame, found: Equilibrium, rewards: Tensor, discount: Tensor) -> Tensor:
    """Return the discounted reward of the crowd's policy."""
    income = torch.where(found.policy > 0, found.policy * rewards, 0.0).sum(-1)
    return discounted(game, shares_of(game, found) * income, discount)


def shares_of(game: MeanFieldGame, found: Equilibrium) -> Tensor:
    """Return shares of the states (T, S)."""
    return found.mean_field.sum(-1) if game.joint else found.mean_field
