"""How far the observed behaviour is from an equilibrium of the fitted game."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from mfgppl._arguments import Seed, one_of, positive_int, seed_of, strict_keywords
from mfgppl._generated_flow import flow_of_policy
from mfgppl._replication import seeds_of
from mfgppl.counterfactuals.welfare import shares_of
from mfgppl.data.panel import flow_distance
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.density.of_model import density_of
from mfgppl.density.over_draws import policies
from mfgppl.equilibrium.fixed_point import MAX_STEPS, TOLERANCE, solved_from
from mfgppl.equilibrium.flat_flows import flat_shape
from mfgppl.equilibrium.iterations import Budget
from mfgppl.equilibrium.linearisation import AnyResponseMap, gain, moved_map, response_map_of
from mfgppl.equilibrium.response import Equilibrium
from mfgppl.estimation.bootstrap import resample
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.replay import draw_again
from mfgppl.likelihood.requirements import needs_causal, observed_flow
from mfgppl.posterior.fit_values import CI_PROB, TAILS, upper_tail, values_around
from mfgppl.posterior.policies import Fit
from mfgppl.reward.program import RewardProgram
from mfgppl.reward.valued import constants_of, valued

MEASURES = {
    "regularised": "regularised exploitability",
    "plain": "exploitability",
    "distance": "distance of the flow",
}
FEWEST = 20  # rounds below which no p is small
UNUSUAL = 0.05  # chance to call a crowd in equilibrium further away, by Bonferroni


@dataclass(frozen=True, eq=False, repr=False)
class ObservedExploitability:
    """How far the observed behaviour is from equilibrium, beside panels that play one.

    Attributes
    ----------
    table : DataFrame
        One row per measure: the regularised exploitability of the empirical policy, where noise is
        taste and there are neither shocks nor lapses, and the plain one, where one discount serves,
        reward units over the horizon, and the distance of the observed flow from the equilibrium
        found from it (total variation, averaged over time). `observed` with `lower` and `upper`
        (equal-tailed 90 %, over posterior draws and resampled agents); `reference` with
        `reference_lower` and `reference_upper`, the same of panels of the same size that play the
        equilibrium; `p`, the chance that such a panel is further away.
    rounds : DataFrame
        One row per draw, labelled by chain and draw of the fit; NaN where no equilibrium was found.
    filled : float
        Share of the empirical policy's own flow at times and states that nobody visits, where the
        fitted policy stands in.
    n_failed : int
        Draws at which no equilibrium was found.
    cluster : str
        What was resampled.
    """

    table: pd.DataFrame
    rounds: pd.DataFrame
    filled: float
    n_failed: int
    cluster: str

    @property
    def passed(self) -> bool | None:
        """Whether the crowd is as near as a panel that plays one; None if too few are known."""
        p = self._judged_rows["p"]
        unknown = len(self.rounds) - self.n_failed < FEWEST or p.isna().any()
        return None if unknown else bool((p >= UNUSUAL / len(p)).all())

    @property
    def _judged_rows(self) -> pd.DataFrame:
        """The distance, and the exploitability, regularised where agents have such."""
        names = [MEASURES[k] for k in ("regularised", "plain") if MEASURES[k] in self.table.index]
        return self.table.loc[[*names[:1], MEASURES["distance"]]]

    @property
    def verdict(self) -> str:
        """Whether the crowd is near an equilibrium of the fitted game, in one sentence."""
        judged = self._judged_rows
        if self.passed is None and self.n_failed < len(self.rounds):
            n = len(self.rounds) - self.n_failed
            return f"{n} draws with an equilibrium are too few to judge; {FEWEST} are needed."
        if self.passed is None:
            return "No equilibrium of the fitted game was found, so nothing can be compared."
        gaps = ", ".join(
            f"{name} {row['observed']:.3g} against {row['reference']:.3g} (p = {row['p']:.2g})"
            for name, row in judged.iterrows()
        )
        if not self.passed:
            return f"The crowd is further from equilibrium than chance takes it: {gaps}."
        return f"The crowd is as near to equilibrium as a panel of its size that plays one: {gaps}."

    def __repr__(self) -> str:
        return "\n".join(
            [
                f"{len(self.rounds)} draws, resampled by {self.cluster}; equal-tailed "
                f"{100 * CI_PROB:g}% intervals",
                self.table.to_string(float_format=lambda v: f"{v:.3g}"),
                f"{100 * self.filled:.2g}% of the flow is where nobody is seen; {self.n_failed} of "
                f"{len(self.rounds)} draws without an equilibrium",
                self.verdict,
            ]
        )


@strict_keywords
def observed_exploitability(
    model: TrajectoryModel,
    fit: Fit,
    *,
    draws: int = 200,
    cluster: str = "agent",
    random_seed: Seed = 0,
) -> ObservedExploitability:
    """Ask whether the observed crowd is near any equilibrium of the fitted game.

    The empirical policy is the share of each action at each time and state; where nobody is seen,
    the fitted policy. A few visits make it noisy, so it is exploitable even if all agents play an
    equilibrium: what counts is the comparison with panels of the same size that are drawn, by
    `replay`, from the equilibrium at each draw. That one is found from the observed flow.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the causal likelihood.
    fit : DataTree, PointEstimate or mapping
        Posterior draws; a point estimate, around which parameters are drawn from the normal of its
        curvature; or values by site, taken as known.
    draws : int
        Rounds, of which 20 allow a verdict; at most one a posterior draw, these evenly spaced.
    cluster : str
        What is resampled for the interval: "agent", or one of the panel's `groups`. Resampled
        panels carry the noise of sampling twice; their mean is moved to that of the observed one.
    random_seed : int or SeedSequence
        Seed of resampled and drawn panels.

    Returns
    -------
    ObservedExploitability
        With the `table` of the three measures.

    Raises
    ------
    ValueError
        If the likelihood is not causal, the panel does not keep its trajectories, or has no such
        groups.
    """
    positive_int("draws", draws, least=2)
    random_seed = seed_of(random_seed)
    values, index = values_around(model, fit, draws, random_seed)
    needs_causal(model, "observed_exploitability")
    panel = with_rows(model.panel, "observed_exploitability")
    one_of("cluster", cluster, ["agent", *panel.groups])
    owners = panel.agents if cluster == "agent" else panel.groups[cluster]
    density, solver, rows = density_of(model), _Solver(model), []
    seeds = np.reshape(seeds_of(random_seed, 2 * len(values)), (-1, 2)).tolist()
    for value, (first, second) in zip(values, seeds, strict=True):
        fitted, response_map, equilibrium = solver.at(value, density)
        again = resample(panel, owners, first)
        near = None if equilibrium is None else _draw_in_equilibrium(model, equilibrium, second)
        row: dict[str, float] = {}
        for label, one in (("", panel), ("_resampled", again), ("_reference", near)):
            measured = _measures(model, one, fitted, response_map, equilibrium)
            row |= {f"{k}{label}": v for k, v in measured.items()}
        rows.append(row)
    rounds = pd.DataFrame(rows, index)
    known = {k: name for k, name in MEASURES.items() if k in solver.measures}
    table = pd.DataFrame({name: _row(rounds, k) for k, name in known.items()}).T
    return ObservedExploitability(
        table.rename_axis("measure"),
        rounds.drop(columns=["filled_resampled", "filled_reference"]),
        float(rounds["filled"].mean()),
        int(rounds["distance_reference"].isna().sum()),
        cluster,
    )


class _AtParameters(NamedTuple):
    fitted: np.ndarray
    response_map: AnyResponseMap | None
    equilibrium: Equilibrium | None


class _Solver:
    """What is computed once for all rounds at the same parameters."""

    def __init__(self, model: TrajectoryModel) -> None:
        self.model = model
        self.start = observed_flow(model).numpy().reshape(flat_shape(model.game)).copy()
        self.value: np.ndarray | None = None
        self.measures = list(MEASURES)
        self._kept: AnyResponseMap | None = None

    def at(self, value: np.ndarray, density: Any) -> _AtParameters:
        """Return the fitted policy, the world and the equilibrium at flat parameters."""
        if self.value is None or not np.array_equal(self.value, value):
            game, reward = self.model.game, self.model.reward
            self._kept = moved_map(self._kept, game, reward, density.program, value)
            with torch.no_grad():
                solution = solved_from(self._kept, self.start, Budget(TOLERANCE, MAX_STEPS))
            equilibrium = solution.value if solution.converged else None
            fitted = policies(density, value[None])[0]
            program = self._kept.program
            self.measures = _measures_of(game, program)
            response_map = None
            if "plain" in self.measures:
                plain, alone = valued(game, program)
                response_map = self._kept if plain is game else response_map_of(plain, alone)
                response_map.confirms(response_map.evaluate(fitted).flow)
            self.solved = _AtParameters(fitted, response_map, equilibrium)
            self.value = value
        return self.solved


def _measures_of(game: MeanFieldGame, program: RewardProgram) -> list[str]:
    """Return which measures there are of agents."""
    constants = constants_of(game, program)
    weights = (constants.discount, constants.temperature)
    if any(float(w.max() - w.min()) > 0 for w in weights):  # nothing values all policies
        return ["distance"]
    taste = constants.taste and game.plain
    return list(MEASURES) if taste else ["plain", "distance"]


def _draw_in_equilibrium(
    model: TrajectoryModel, equilibrium: Equilibrium, seed: int
) -> Trajectories:
    """Draw the panel again in an equilibrium, where it moves the dynamics too."""
    panel = with_rows(model.panel, "observed_exploitability")
    flow = equilibrium.mean_field.detach()
    return draw_again(model.game, panel, equilibrium.policy.detach(), flow, seed)


def _measures(
    model: TrajectoryModel,
    panel: Trajectories | None,
    fitted: np.ndarray,
    response_map: AnyResponseMap | None,
    equilibrium: Equilibrium | None,
) -> dict[str, float]:
    """Return the measures of one panel, and the share that the fitted policy fills."""
    if panel is None:
        return dict.fromkeys([*MEASURES, "filled"], np.nan)
    policy, nobody = _empirical_policy(panel, fitted)
    if response_map is None:
        flow = flow_of_policy(model.game, torch.from_numpy(policy)).numpy()
        gains = dict.fromkeys(["regularised", "plain"], np.nan)
    else:
        flow = response_map.evaluate(policy).flow
        own = response_map.game.temperature
        gains = {
            "regularised": gain(response_map, policy, own), "plain": gain(response_map, policy)
        }  # fmt: skip
    shares = flow.reshape(*policy.shape[:2], -1).sum(-1)
    return gains | {
        "distance": np.nan if equilibrium is None else _distance(model, panel, equilibrium),
        "filled": float(shares[nobody].sum() / len(shares)),
    }


def _empirical_policy(panel: Trajectories, fitted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return shares of actions (T, S, A), fitted ones where nobody decides, and where (T, S)."""
    counts = panel.counts_over(len(fitted)).actions
    n = counts.sum(-1)
    nobody = n == 0
    shares = counts / np.maximum(n, 1)[..., None]
    return np.where(nobody[..., None], fitted, shares), nobody


def _distance(model: TrajectoryModel, panel: Trajectories, equilibrium: Equilibrium) -> float:
    return flow_distance(panel, shares_of(model.game, equilibrium).detach().numpy())


def _row(rounds: pd.DataFrame, name: str) -> dict[str, float]:
    """Return a measure's row of the table, over the rounds that have an equilibrium."""
    solved = rounds[rounds["distance_reference"].notna()]
    observed, again, reference = (
        solved[name + label].to_numpy() for label in ("", "_resampled", "_reference")
    )
    if not len(solved):
        words = ["observed", "lower", "upper", "reference", "reference_lower", "reference_upper"]
        return dict.fromkeys([*words, "p"], np.nan)
    centred = np.maximum(again - again.mean() + observed.mean(), 0.0)
    lower, upper = np.quantile(centred, TAILS)
    below, above = np.quantile(reference, TAILS)
    # each draw has its own pair: a posterior predictive p of a discrepancy
    p = float(upper_tail(reference - observed, 0.0))
    return {
        "observed": observed.mean(),
        "lower": lower,
        "upper": upper,
        "reference": reference.mean(),
        "reference_lower": below,
        "reference_upper": above,
        "p": p,
    }
