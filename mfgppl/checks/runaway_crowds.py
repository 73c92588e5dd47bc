"""Does the fitted game stay near the crowd that was seen, or does it run away?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from mfgppl._arguments import Seed, is_a, positive_int, real_between, seed_of, strict_keywords
from mfgppl._progress import progress
from mfgppl.counterfactuals.equilibria_of_draws import Search, attempt
from mfgppl.counterfactuals.welfare import shares_of
from mfgppl.data.panel import flow_distance, flow_shares
from mfgppl.density.of_model import density_of
from mfgppl.equilibrium.fixed_point import SAME
from mfgppl.equilibrium.solution import Solution
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.requirements import observed_flow
from mfgppl.posterior.fit_values import (
    CI_PROB,
    TAILS,
    nearest_to_mean,
    values_around,
    values_or_replications,
)
from mfgppl.posterior.policies import Fit


@dataclass(frozen=True, eq=False, repr=False)
class Runaway:
    """Equilibria of the fitted game, draw by draw, beside the flow that was seen.

    Attributes
    ----------
    table : DataFrame
        One row per draw, labelled by chain and draw of the fit: `converged`; `residual`, the
        largest change of a share under one more response; `distance`, the total variation between
        the equilibrium's flow and the observed one, and `largest`, the largest share of one state,
        both means over time and NaN without an
        equilibrium; `several`, whether two starts end in different equilibria; `runs_away`.
    beyond : float
        Total variation beyond which a draw runs away.
    largest : float
        Largest share of one state in the observed flow, mean over time.
    chance : float
        Total variation that sampling alone gives a panel of this size, mean over time: its
        expectation where agents are independent draws of the observed flow.
    n_left_out : int
        Replications without an estimate.
    """

    table: pd.DataFrame
    beyond: float
    largest: float
    chance: float
    n_left_out: int

    @property
    def probability(self) -> float:
        """Share of draws that run away."""
        return float(self.table["runs_away"].mean())

    @property
    def n_failed(self) -> int:
        """Draws at which no equilibrium was found."""
        return int((~self.table["converged"]).sum())

    @property
    def verdict(self) -> str:
        """Whether the fitted game runs away, in one sentence."""
        table, n = self.table, len(self.table)
        away = int(table["runs_away"].sum())
        if not away:
            return (
                f"At none of {n} draws does the fitted game run away: its flow stays within "
                f"{table['distance'].max():.2g} of the observed one."
            )
        far = table.loc[table["runs_away"] & table["converged"], "largest"]
        how = [f"{self.n_failed} of them without an equilibrium"] if self.n_failed else []
        how += [f"{far.mean():.0%} of the crowd in one state on average"] if len(far) else []
        return (
            f"The fitted game runs away with probability {self.probability:.2g}: at {away} of {n} "
            f"draws, {', '.join(how)}."
        )

    def __repr__(self) -> str:
        table = self.table
        rows = {
            name: [table[name].mean(), *table[name].quantile(TAILS), seen]
            for name, seen in (("distance", self.chance), ("largest", self.largest))
        }
        columns = ["mean", "lower", "upper", "observed"]
        shown = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        lines = [
            f"{len(table)} draws; equal-tailed {100 * CI_PROB:g}% intervals; a draw runs away "
            f"beyond a total variation of {self.beyond:g}",
            shown.to_string(float_format=lambda v: f"{v:.3g}", na_rep=""),
            "distance, observed: what sampling alone gives a panel of this size",
            f"{self.n_failed} without an equilibrium, {int(table['several'].sum())} with several",
            self.verdict,
        ]
        if self.n_left_out:
            lines.append(f"Replications without an estimate, left out: {self.n_left_out}.")
        return "\n".join(lines)


@strict_keywords
def runaway(
    model: TrajectoryModel,
    fit: Fit | pd.DataFrame,
    *,
    draws: int = 200,
    beyond: float = 0.2,
    tolerance: float = 1e-10,
    max_steps: int = 1000,
    random_seed: Seed = 0,
    progressbar: bool = True,
) -> Runaway:
    """Solve the fitted game at each draw and compare its flow with the observed one.

    A fit along a given flow never asks whether the crowd that it describes is one that its own
    reward brings about. Under a strong conformity it may not be: the crowd of the solved game
    gathers in one state. At each draw the equilibrium is sought from the observed flow, and from
    the equilibrium of the draw nearest to the mean; the former is taken where both lead to one.

    Parameters
    ----------
    model : TrajectoryModel
        The model that was fitted.
    fit : DataTree, DataFrame, PointEstimate or mapping
        Posterior draws; replications of `bootstrap`; a point estimate, around which parameters are
        drawn from the normal of its curvature; or values by site, one draw.
    draws : int
        Draws at most, evenly spaced, as many of each chain: 50 of four chains are 48.
    beyond : float in (0, 1)
        Total variation from the observed flow, mean over time, that is running away. `chance` in
        the result says how much of it a small panel has by sampling alone.
    tolerance, max_steps
        As in `solve_equilibrium`, for each start.
    random_seed : int or SeedSequence
        Seed of the draws around a point estimate.
    progressbar : bool
        Whether to show progress on a terminal.

    Returns
    -------
    Runaway
        With the `table` of draws, the `probability` and a `verdict`.

    Raises
    ------
    ValueError
        If the fit has other parameters than the model, or an option is out of range.
    """
    is_a("model", model, TrajectoryModel)
    positive_int("draws", draws)
    random_seed = seed_of(random_seed)
    real_between("beyond", beyond, above=0.0, upto=1.0, strict=True)
    real_between("tolerance", tolerance, above=0.0)
    search = Search(tolerance, positive_int("max_steps", max_steps), n_starts=1)
    if isinstance(fit, PointEstimate):
        (values, index), n_left_out = values_around(model, fit, draws, random_seed), 0
    else:
        values, index, n_left_out = values_or_replications(model, fit, draws)
    seen = observed_flow(model)
    centre = _search_from(model, values[nearest_to_mean(values)], [seen], search)
    starts = [seen, *(one.value.mean_field for one in centre if one.converged)]
    rows = [
        _row(model, _search_from(model, value, starts, search))
        for value in progress(values, "equilibria", progressbar)
    ]
    table = pd.DataFrame(rows, index)
    table["runs_away"] = ~(table["distance"] <= beyond)
    shares = flow_shares(model.panel)
    return Runaway(
        table, beyond, float(np.nanmean(shares.max(-1))), _by_chance(model, shares), n_left_out
    )


def _search_from(
    model: TrajectoryModel, value: np.ndarray, starts: list[Tensor], search: Search
) -> list[Solution]:
    """Return where the searches from some starts end at flat parameters (K,)."""
    sites = density_of(model).program.by_site(value)
    ends = [attempt(model.game, model.reward, sites, start, search) for start in starts]
    return [end for end in ends if end is not None]


def _row(model: TrajectoryModel, ends: list[Solution]) -> dict[str, Any]:
    """Return a draw's row of the table."""
    equilibria = [end.value for end in ends if end.converged]
    row: dict[str, Any] = {
        "converged": bool(equilibria),
        "residual": min((end.residual for end in ends), default=np.inf),
        "distance": np.nan,
        "largest": np.nan,
        "several": False,
    }
    if equilibria:
        shares = [shares_of(model.game, one).detach().numpy() for one in equilibria]
        row["distance"] = flow_distance(model.panel, shares[0])
        row["largest"] = float(shares[0].max(-1).mean())
        row["several"] = bool(np.abs(shares[0] - shares[-1]).max() > SAME)
    return row


def _by_chance(model: TrajectoryModel, shares: np.ndarray) -> float:
    """Return the expected total variation of a panel drawn from its own flow (T, S)."""
    n = model.panel.visits[: model.panel.horizon].sum(-1, keepdims=True)
    errors = np.sqrt(shares * (1 - shares) / np.maximum(n, 1))  # the mean of |N(0, 1)| is below
    return float(np.nanmean(0.5 * np.sqrt(2 / np.pi) * errors.sum(-1)))
