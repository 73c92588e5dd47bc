"""How well data would tell the parameters: Fisher information, exact and before any data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from mfgppl._arguments import is_a, positive_int, strict_keywords
from mfgppl.diagnostics.identification import equilibrium_at, free_point, readable
from mfgppl.diagnostics.slopes import advantages, program_along, slopes_at, steps_of
from mfgppl.equilibrium.response import generate_mean_field
from mfgppl.equilibrium.steps import Steps
from mfgppl.equilibrium.world import uniform_policy
from mfgppl.game import MeanFieldGame
from mfgppl.inference.curvature import (
    ROUNDING,
    Curvature,
    analyse_curvature,
    describe_direction,
)
from mfgppl.inference.estimate import PointEstimate
from mfgppl.reward.program import RewardProgram

Parameters = Mapping[str, Any] | PointEstimate


@dataclass(frozen=True, eq=False, repr=False)
class ExpectedInformation:
    """What a panel is expected to tell of the parameters.

    Attributes
    ----------
    params : Series
        The parameters at which agents play, constrained.
    n_agents : int
        Number of agents.
    n_decisions : int
        Decisions of each.
    scores : ndarray, shape (N, K)
        Derivatives of the log policy in the unconstrained parameters, a row a state and action,
        times the root of its expected number in the panel: their outer product is the information.
    jacobian : ndarray, shape (P, K)
        Slope of the constrained in the unconstrained parameters.
    curvature : Curvature
        Known and flat directions, unconstrained.
    """

    params: pd.Series
    n_agents: int
    n_decisions: int
    scores: np.ndarray
    jacobian: np.ndarray
    curvature: Curvature

    @property
    def information(self) -> pd.DataFrame:
        """Fisher information of the panel over the constrained parameters, shape (P, P)."""
        rows = self.scores @ np.linalg.pinv(self.jacobian)
        return pd.DataFrame(rows.T @ rows, self.params.index, self.params.index)

    def cov_params(self) -> pd.DataFrame:
        """Return the inverse information; NaN for parameters that no data can tell."""
        matrix = self.jacobian @ self.curvature.covariance @ self.jacobian.T
        unknown = (self.jacobian[:, ~self.curvature.known] != 0).any(1)
        matrix[unknown, :] = matrix[:, unknown] = np.nan
        return pd.DataFrame(matrix, self.params.index, self.params.index)

    @property
    def bse(self) -> pd.Series:
        """Expected standard errors; NaN for parameters that no data can tell."""
        return pd.Series(np.sqrt(np.diag(self.cov_params())), self.params.index, name="std_err")

    @property
    def directions(self) -> pd.DataFrame:
        """Independent combinations of the parameters, the worst known first.

        The index says in which proportions the parameters move, the largest by 1. `std_err` is the
        expected standard error of that move, in units of its first parameter. `inflation` is free
        of units: 1 for parameters that are told apart as if the others were known; the ratio of the
        largest to the smallest is how long the ridge is for its width. A move that no data can
        tell has no standard error.
        """
        names = list(self.params.index)
        flat = readable(self.jacobian @ self.curvature.flat.T)
        rows = [(describe_direction(row, names), np.nan, np.inf) for row in flat]
        across, _ = np.linalg.qr(self.curvature.flat.T)
        told = self.scores - self.scores @ across @ across.T
        scale = np.linalg.norm(told, axis=0)
        scale[scale <= ROUNDING * scale.max()] = 1.0
        standard = told / scale
        eigenvalues, vectors = np.linalg.eigh(standard.T @ standard)
        for value, vector in list(zip(eigenvalues, vectors.T, strict=True))[len(flat) :]:
            moved = self.jacobian @ (vector / scale)
            inflation = max(float(value), ROUNDING) ** -0.5
            size = float(np.abs(moved).max())
            rows.append((describe_direction(moved, names), size * inflation, inflation))
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
    return ExpectedInformation(
        params=first.params,
        n_agents=n_agents,
        n_decisions=max(play.n_decisions for play in plays),
        scores=scores,
        jacobian=first.jacobian,
        curvature=analyse_curvature(scores.T @ scores, scores[None]),
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
        A row a world and size, a column a parameter; NaN where no data can tell.
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


def _play(game: Any, reward: RewardProgram, parameters: Parameters, n_times: int | None) -> _Play:
    is_a("game", game, MeanFieldGame, " Several plays are a list of them.")
    n_decisions = _decisions(game, n_times)
    anyhow = generate_mean_field(game, torch.from_numpy(uniform_policy(game)))
    program = program_along(game, reward, anyhow.detach())
    theta = free_point(program, parameters)
    world = equilibrium_at(game, reward, program, theta)
    program = program_along(game, reward, world.mean_field)
    slopes, steps = slopes_at(program, theta), steps_of(program)
    policy = world.policy
    log_slopes = advantages(slopes.features, policy, steps, game) / game.temperature
    often = _visits(game, policy, steps, n_decisions)[:, :, None] * policy
    taken = often > 0
    rows = (log_slopes[:, taken] * often[taken].sqrt()).T.numpy()
    params = pd.Series(slopes.values, program.entry_names(), name="value")
    return _Play(params, n_decisions, rows, slopes.jacobian)


def _decisions(game: MeanFieldGame, n_times: int | None) -> int:
    if game.horizon is None:
        if n_times is None:
            raise ValueError("a stationary game has no horizon: say how many `n_times` are seen.")
        return positive_int("n_times", n_times)
    if n_times is not None and n_times != game.horizon:
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
