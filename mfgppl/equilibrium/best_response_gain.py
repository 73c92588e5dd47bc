"""How far a policy is from an equilibrium: what one agent gains by leaving it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import differentiable_door, is_a
from mfgppl.equilibrium.linearisation import gain, valued_map
from mfgppl.equilibrium.response import check_policy
from mfgppl.game import MeanFieldGame
from mfgppl.reward.program import RewardProgram, bind
from mfgppl.reward.site_values import site_values
from mfgppl.reward.valued import at_start, parts_drawn


@differentiable_door
def exploitability(
    game: MeanFieldGame,
    reward: RewardProgram,
    policy: Any,
    *,
    parameters: Mapping[str, Any] | pd.Series | None = None,
) -> float:
    """Return `max_pi' J(mu^pi, pi') - J(mu^pi, pi)`, zero exactly at a mean field equilibrium.

    J is the expected sum of discounted rewards, from the game's initial distribution; in a
    stationary game from the distribution that the policy keeps.

    Parameters
    ----------
    game : MeanFieldGame
        The game; its temperature plays no part.
    reward : callable
        A reward program.
    policy : Tensor, array or DataArray, shape (T, S, A)
        Probability of each action. Its flow is generated with dynamics that answer it.
    parameters : mapping or Series, optional
        A value for each latent site of the reward.

    Returns
    -------
    float
        Reward units over the horizon, not negative.

    Raises
    ------
    ValueError
        If the policy does not fit the game.

    References
    ----------
    .. [1] Perrin, Perolat, Lauriere, Geist, Elie and Pietquin (2020), *Fictitious play for mean
       field games: continuous time analysis and applications*, NeurIPS.
    """
    return _gain(game, reward, policy, parameters, 0.0)


@differentiable_door
def regularised_exploitability(
    game: MeanFieldGame,
    reward: RewardProgram,
    policy: Any,
    *,
    parameters: Mapping[str, Any] | pd.Series | None = None,
) -> float:
    """Return the same with the game's temperature times the policies' entropy in J.

    It is zero exactly at the entropy-regularised equilibrium.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program.
    policy : Tensor, array or DataArray, shape (T, S, A)
        Probability of each action.
    parameters : mapping or Series, optional
        A value for each latent site of the reward.

    Returns
    -------
    float
        Reward units over the horizon, not negative.
    """
    _check_regularised(game, reward, parameters)
    return _gain(game, reward, policy, parameters, None)


@differentiable_door
def exploitability_by_type(
    game: MeanFieldGame,
    reward: RewardProgram,
    policy: Any,
    *,
    parameters: Mapping[str, Any] | pd.Series | None = None,
) -> pd.DataFrame:
    """Return what an agent of each type gains by leaving a policy that all others follow.

    Parameters
    ----------
    game : MeanFieldGame
        A game with types; its temperature plays no part.
    reward : callable
        A reward program.
    policy : Tensor, array or DataArray, shape (T, S, A)
        Probability of each action, over pairs of type and state.
    parameters : mapping or Series, optional
        A value for each latent site of the reward.

    Returns
    -------
    DataFrame
        By type: `share` of the crowd, and `exploitability`, reward units over the horizon, NaN for
        types that nobody has. The mean weighted by the shares is that of `exploitability`.

    Raises
    ------
    ValueError
        If the game has no types, or the policy does not fit it.
    """
    is_a("game", game, MeanFieldGame)
    space = game.space
    if not space.types:
        raise ValueError("`game` must have types; without them use exploitability.")
    shares = check_policy(game, policy).detach().numpy()
    response_map = valued_map(game, reward, parameters)
    evaluation = response_map.evaluate(shares)
    if not response_map.confirms(evaluation.flow):
        evaluation = response_map.evaluate(shares)
    gains = response_map.best(evaluation)[0][0] - evaluation.values[0]
    start = response_map.start(evaluation).reshape(space.n_cells, -1)
    mass = start.sum(1)
    summed = (start * gains.reshape(start.shape)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_type = np.maximum(summed / mass, 0.0)
    index = pd.DataFrame(space.cells.columns).set_index(list(space.types)).index
    return pd.DataFrame({"share": mass, "exploitability": by_type}, index)


def _gain(
    game: MeanFieldGame,
    reward: RewardProgram,
    policy: Any,
    parameters: Any,
    temperature: float | None,
) -> float:
    is_a("game", game, MeanFieldGame)
    shares = check_policy(game, policy).detach().numpy()
    response_map = valued_map(game, reward, parameters)
    response_map.confirms(response_map.evaluate(shares).flow)
    own = response_map.game.temperature if temperature is None else temperature
    return gain(response_map, shares, own)


def _check_regularised(game: MeanFieldGame, reward: RewardProgram, parameters: Any) -> None:
    """Raise a `ValueError` unless the noise is taste, and all that agents do is foreseen."""
    is_a("game", game, MeanFieldGame)
    program = bind(reward, site_values("parameters", parameters))
    strange = sorted({"shock", "lapse"} & set(parts_drawn(program, at_start(game))))
    if strange or not game.plain:
        what = f"a program with a {strange[0]}" if strange else f"{game}"
        raise ValueError(
            "the regularised exploitability belongs to agents of behaviour='entropy' without "
            f"shocks and lapses; got {what}. Use exploitability, or the residual of "
            "solve_equilibrium."
        )
