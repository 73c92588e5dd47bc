"""How wide intervals will be, before any data: by number of agents, horizon and plays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mfgppl._arguments import is_a, positive_int, real_between, strict_keywords
from mfgppl.design.information import Parameters, expected_errors
from mfgppl.game import MeanFieldGame
from mfgppl.reward.program import RewardProgram

Plays = MeanFieldGame | Sequence[MeanFieldGame]
COLUMNS = ("game", "horizon", "n_agents", "parameter", "std_err", "width")


@strict_keywords
def expected_widths(
    games: Plays | Mapping[str, Plays],
    reward: RewardProgram,
    *,
    parameters: Parameters,
    n_agents: int | Sequence[int] = 1000,
    horizons: int | Sequence[int] | None = None,
    ci_prob: float = 0.9,
) -> pd.DataFrame:
    """Return how wide intervals are expected to be in panels that could be collected.

    The width is `2 z std_err`, with z the normal quantile of its mass and the standard error of
    `expected_information`: it falls with the root of the number of agents, and the flow is known.

    Parameters
    ----------
    games : MeanFieldGame, list of them, or mapping of names to these
        Worlds that could be observed; of a list, each is seen through an equal share of agents.
    reward : callable
        A reward program.
    parameters : mapping of str to value, or PointEstimate
        What agents want.
    n_agents : int, or list of int
        Sizes of the panel, over all plays.
    horizons : int, or list of int, optional
        Horizons to play instead of the games' own; in a stationary game, decisions of each agent,
        which it needs.
    ci_prob : float in (0, 1)
        Mass of an interval.

    Returns
    -------
    DataFrame
        One row per game, horizon, size and parameter, with `std_err` and `width`; NaN where no
        data can identify. The mass is in `attrs["ci_prob"]`.

    Raises
    ------
    ConvergenceError
        If an equilibrium is not found.
    ValueError
        If an argument does not fit.
    """
    real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
    named = {name: _plays(play) for name, play in _by_name(games).items()}
    tables = []
    for length in _horizons(horizons):
        played = {
            name: [_with_horizon(play, length) for play in plays] for name, plays in named.items()
        }
        stationary = any(play.stationary for plays in played.values() for play in plays)
        errors = expected_errors(
            played, reward, parameters=parameters, n_agents=n_agents,
            n_times=length if stationary else None,
        )  # fmt: skip
        table = errors.reset_index().melt(
            ["game", "n_agents"], var_name="parameter", value_name="std_err"
        )
        table["horizon"] = [length or played[name][0].horizon for name in table["game"]]
        tables.append(table)
    widths = pd.concat(tables, ignore_index=True)
    widths["width"] = 2 * ndtri(0.5 + ci_prob / 2) * widths["std_err"]
    widths = widths[list(COLUMNS)]
    widths.attrs["ci_prob"] = ci_prob
    return widths


@strict_keywords
def agents_for(widths: pd.DataFrame, width: float) -> pd.DataFrame:
    """Return how many agents an expected width needs: widths fall with the root of their number.

    Parameters
    ----------
    widths : DataFrame
        As of `expected_widths`.
    width : float, positive
        The width wanted, in units of the parameter.

    Returns
    -------
    DataFrame
        One row per game and horizon, one column per parameter: the least number of agents,
        infinite where no data can identify.
    """
    is_a("widths", widths, pd.DataFrame, " Make it with expected_widths.")
    missing = [name for name in COLUMNS if name not in widths]
    if missing:
        raise ValueError(f"`widths` lacks the column {missing[0]!r}; make it with expected_widths.")
    real_between("width", width, above=0.0)
    keys = ["game", "horizon", "parameter"]
    first = widths.drop_duplicates(keys)
    exact = first["n_agents"] * (first["width"] / width) ** 2
    needed = np.ceil(exact.fillna(np.inf).to_numpy(float))
    table = first.assign(needed=needed).set_index(keys)["needed"].unstack("parameter")  # noqa: PD010
    return table[list(dict.fromkeys(first["parameter"]))]


def _by_name(games: Any) -> dict[str, Any]:
    if isinstance(games, Mapping):
        return dict(games)
    return {"game": games}


def _plays(games: Any) -> list[MeanFieldGame]:
    each = list(games) if isinstance(games, (list, tuple)) else [games]
    return [is_a("games", play, MeanFieldGame, " Name several: {'name': game}.") for play in each]


def _horizons(horizons: Any) -> list[int | None]:
    if horizons is None:
        return [None]
    listed = list(horizons) if isinstance(horizons, Sequence) else [horizons]
    if not listed:
        raise ValueError("`horizons` must name at least one; got none.")
    return [positive_int("horizons", h) for h in listed]


def _with_horizon(game: MeanFieldGame, horizon: int | None) -> MeanFieldGame:
    return game if horizon is None or game.stationary else game.replace(horizon=horizon)
