"""How well data would identify the parameters: Fisher information, exact and before any data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from mfgppl._arguments import is_a, positive_int, strict_keywords
from mfgppl.control.steps import Steps
from mfgppl.density.curvature import (
    ROUNDING,
    Curvature,
    analyse_curvature,
    describe_direction,
    readable,
)
from mfgppl.design.choices import equilibrium_at
from mfgppl.design.derivatives import (
    advantages,
    program_along,
    slopes_at,
    steps_of,
)
from mfgppl.design.identification import free_point
from mfgppl.design.rank_test import effects_by_entry
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.game import MeanFieldGame
from mfgppl.reward.program import RewardProgram

Parameters = Mapping[str, Any] | PointEstimate


@dataclass(frozen=True, eq=False, repr=False)
class ExpectedInformation:
    """What a panel is expected to say about the parameters.

    Attributes
    ----------
    params : Series
        The parameters at which agents play, constrained.
    n_agents : int
        Number of agents.
    n_decisions : int
        Decisions of each.
    scores : ndarray, shape (N, K)
        Derivatives of the log policy in the unconstrained parameters, one row per state and action,
        times the root of its expected number in the panel: their outer product is the information.
    jacobian : ndarray, shape (P, K)
        Slope of the constrained in the unconstrained parameters.
    curvature : Curvature
        Known and flat directions, unconstrained.
    sizes : ndarray, shape (K,)
        Root of the largest information that each unconstrained parameter can have.
    """

    params: pd.Series
    n_agents: int
    n_decisions: int
    scores: np.ndarray
    jacobian: np.ndarray
    curvature: Curvature
    sizes: np.ndarray

    @property
    def information(self) -> pd.DataFrame:
        """Fisher information of the panel over the constrained parameters, shape (P, P)."""
        size = np.where(self.sizes > 0, self.sizes, 1.0)
        rows = (self.scores / size) @ np.linalg.pinv(self.jacobian / size)
        return pd.DataFrame(rows.T @ rows, self.params.index, self.params.index)

    def cov_params(self) -> pd.DataFrame:
        """Return the inverse information; NaN for parameters that no data can identify."""
        matrix = self.jacobian @ self.curvature.covariance @ self.jacobian.T
        unknown = (self.jacobian[:, ~self.curvature.known] != 0).any(1)
        matrix[unknown, :] = matrix[:, unknown] = np.nan
        return pd.DataFrame(matrix, self.params.index, self.params.index)

    @property
    def bse(self) -> pd.Series:
        """Expected standard errors; NaN for parameters that no data can identify."""
        return pd.Series(np.sqrt(np.diag(self.cov_params())), self.params.index, name="std_err")

    @property
    def directions(self) -> pd.DataFrame:
        """Independent combinations of the parameters, the worst known first.

        The index says in which proportions the parameters move, the largest by 1. `std_err` is the
        expected standard error of that move, in units of its first parameter. `inflation` is free
        of units: 1 for parameters that are distinguished as if the others were known; the ratio of
        the largest to the smallest is how long the ridge is for its width. A move that no data can
        identify has no standard error.
        """
        names = list(self.params.index)
        size = np.where(self.sizes > 0, self.sizes, 1.0)
        effects = effects_by_entry(self.jacobian, size)
        flat = readable(self.jacobian @ self.curvature.flat.T, effects)
        rows = [(describe_direction(row, names, effects), np.nan, np.inf) for row in flat]
        across, _ = np.linalg.qr((self.curvature.flat * size).T)
        scores = self.scores / size
        scores = scores - scores @ across @ across.T
        scale = np.linalg.norm(scores, axis=0)
        scale[scale <= ROUNDING] = 1.0
        standard = scores / scale
        eigenvalues, vectors = np.linalg.eigh(standard.T @ standard)
        for value, vector in list(zip(eigenvalues, vectors.T, strict=True))[len(flat) :]:
            moved = self.jacobian @ (vector / scale / size)
            inflation = max(float(value), ROUNDING) ** -0.5
            largest = float(np.abs(moved).max())
            described = describe_direction(moved, names, effects)
            rows.append((described, largest * inflation, inflation))
        columns = ["direction", "std_err", "inflation"]
        return pd.DataFrame(rows, columns=columns).set_index("direction")

    def __repr__(self) -> str:
        table = pd.DataFrame({"value": self.params, "std_err": self.bse})
        return "\n".join(
            [
                f"expected of {self.n_agents} agents with {self.n_decisions} decisions each",
                table.to_string(float_format=lambda v: f"{v:.4g}"),
                "moves of the parameters, the worst known first",
                self.directions.to_string(float_format=lambda v: f"{v:.4g}"),
            ]
        )


@strict_keywords
def expected_information(
    game: MeanFieldGame | Sequence[MeanFieldGame],
    reward: RewardProgram,
    *,
    parameters: Parameters,
    n_agents: int = 1000,
    n_times: int | None = None,
) -> ExpectedInformation:
    """Return the Fisher information of the causal likelihood at the equilibrium of parameters.

    `I = n_agents * sum_t sum_s mu_t(s) sum_a pi_t(a|s) d log pi_t(a|s) d log pi_t(a|s)'`, with the
    flow held fixed as in the likelihood; nothing is simulated. The sampling error of an observed
    flow that is plugged in is not part of it.

    Parameters
    ----------
    game : MeanFieldGame, or list of them
        The game that is played; of several plays, each is seen through an equal share of agents.
    reward : callable
        A reward program.
    parameters : mapping of str to value, or PointEstimate
        What agents want.
    n_agents : int
        Agents in the panel, over all plays.
    n_times : int, optional
        Decisions of each agent in a stationary game.

    Returns
    -------
    ExpectedInformation
        With standard errors `bse`, and `directions` that names ridges.

    Raises
    ------
    ConvergenceError
        If the equilibrium is not found.
    ValueError
        If an argument does not fit.
    """
    games = list(game) if isinstance(game, (list, tuple)) else [game]
    if not games:
        raise ValueError("`game` must hold at least one game; got none.")
    positive_int("n_agents", n_agents)
    plays = [_play(one, reward, parameters, n_times) for one in games]
    share = n_agents / len(plays)
    scores = np.sqrt(share) * np.concatenate([play.scores for play in plays])
    first = plays[0]
    n_decisions = max(play.n_decisions for play in plays)
    sizes = np.sqrt(n_agents * n_decisions) * np.max([play.sizes for play in plays], axis=0)
    return ExpectedInformation(
        params=first.params,
        n_agents=n_agents,
        n_decisions=n_decisions,
        scores=scores,
        jacobian=first.jacobian,
        curvature=analyse_curvature(scores.T @ scores, scores[None], sizes),
        sizes=sizes,
    )


@strict_keywords
def expected_errors(
    games: Mapping[str, MeanFieldGame | Sequence[MeanFieldGame]],
    reward: RewardProgram,
    *,
    parameters: Parameters,
    n_agents: int | Sequence[int] = 1000,
    n_times: int | None = None,
) -> pd.DataFrame:
    """Compare the standard errors to expect of panels that could be collected.

    Parameters
    ----------
    games : mapping of str to MeanFieldGame, or to a list of them
        Worlds by name, as `game.replace(initial=...)`; of a list, each is seen through an equal
        share of agents.
    reward, parameters, n_times
        As in `expected_information`.
    n_agents : int, or list of int
        Sizes of the panel.

    Returns
    -------
    DataFrame
        One row per world and size, one column per parameter; NaN where no data can identify.
    """
    if not isinstance(games, Mapping) or not games:
        raise TypeError(f"`games` must be a mapping of names to games; got {games!r}.")
    sizes = [n_agents] if not isinstance(n_agents, Sequence) else list(n_agents)
    if not sizes:
        raise ValueError("`n_agents` must name at least one size; got none.")
    rows = {}
    for name, game in games.items():
        single = expected_information(
            game, reward, parameters=parameters, n_agents=1, n_times=n_times
        )
        for size in sizes:
            rows[name, size] = single.bse / np.sqrt(positive_int("n_agents", size))
    table = pd.DataFrame(rows).T
    table.index.names = ["game", "n_agents"]
    return table


class _Play(NamedTuple):
    """One agent's part in an equilibrium; the fields are those of `ExpectedInformation`."""

    params: pd.Series
    n_decisions: int
    scores: np.ndarray
    jacobian: np.ndarray
    sizes: np.ndarray


def _play(game: Any, reward: RewardProgram, parameters: Parameters, n_times: int | None) -> _Play:
    is_a("game", game, MeanFieldGame, " Several plays are a list of them.")
    n_decisions = _decisions(game, n_times)
    program = program_along(game, reward)
    theta = free_point(program, parameters)
    world = equilibrium_at(program, theta)
    program = program_along(game, reward, world.mean_field)
    slopes, steps = slopes_at(program, theta), steps_of(program)
    policy = world.policy
    log_slopes = advantages(slopes.features, policy, steps, game) / game.temperature
    often = _visits(game, policy, steps, n_decisions)[:, :, None] * policy
    taken = often > 0
    rows = (log_slopes[:, taken] * often[taken].sqrt()).T.numpy()
    params = pd.Series(slopes.values, program.entry_names(), name="value")
    steps_long = 1 / (1 - game.discount) if game.stationary else game.shape[0]
    largest = slopes.features.abs().flatten(1).amax(1).numpy()
    return _Play(
        params, n_decisions, rows, slopes.jacobian, steps_long * largest / game.temperature
    )


def _decisions(game: MeanFieldGame, n_times: int | None) -> int:
    if game.horizon is None:
        if n_times is None:
            raise ValueError("a stationary game has no horizon: say how many `n_times` are seen.")
        return positive_int("n_times", n_times)
    if n_times is not None and positive_int("n_times", n_times) != game.horizon:
        raise ValueError(
            f"`n_times` belongs to stationary games; this game's horizon is {game.horizon}: "
            "change it with game.replace(horizon=...)."
        )
    return game.horizon


def _visits(
    game: MeanFieldGame, policy: torch.Tensor, steps: Steps, n_decisions: int
) -> torch.Tensor:
    """Return how often one agent is expected in each state, (T, S)."""
    shares = [game.initial]
    for t in range(n_decisions - 1):
        k = 0 if game.stationary else t
        shares.append(steps.pushed(k, shares[-1][:, None] * policy[k]))
    visits = torch.stack(shares)
    return visits.sum(0, keepdim=True) if game.stationary else visits
