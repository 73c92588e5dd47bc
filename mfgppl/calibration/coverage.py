"""Recovery: do methods find a known truth again, and how often do their intervals hold it?"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mfgppl._arguments import (
    Seed,
    is_a,
    one_of,
    positive_int,
    real_between,
    seed_of,
    strict_keywords,
)
from mfgppl._replication import replicate
from mfgppl.calibration.interval_methods import METHODS, FitFailed, Method, PanelFits
from mfgppl.calibration.worlds import World, world_of
from mfgppl.density.of_model import density_of, redrawn
from mfgppl.exceptions import ConvergenceWarning, IdentificationWarning
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.requirements import TREATMENTS
from mfgppl.reward.program import RewardProgram
from mfgppl.reward.site_values import checked_values, site_values


@dataclass(frozen=True, eq=False, repr=False)
class Recovery:
    """Estimates and intervals of a known truth, by simulated panel.

    Attributes
    ----------
    intervals : DataFrame
        One row per panel, method and parameter: `estimate`, `lower`, `upper`.
    failures : DataFrame
        One row per panel and method that gave none: `panel`, `method`, `reason`.
    truth : Series
        The parameters at which agents play.
    methods : tuple of str
        The methods.
    n_panels : int
        Panels drawn.
    ci_prob : float
        Mass of an interval.
    mean_field : str
        "known", "empirical" or "equilibrium".
    random_seed : int
        Seed of everything.
    """

    intervals: pd.DataFrame
    failures: pd.DataFrame
    truth: pd.Series
    methods: tuple[str, ...]
    n_panels: int
    ci_prob: float
    mean_field: str
    random_seed: int

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """By method and parameter, means over the panels with a fit.

        `bias` and its Monte Carlo error `bias_error`, `rmse`, the mean `width` of the intervals,
        `coverage` (the share that hold the truth) and `coverage_error`, the Monte Carlo error that
        it has where it equals `ci_prob`, and `failed`, the share of panels without a fit.
        """
        rows = self.intervals.assign(truth=self.intervals["parameter"].map(self.truth))
        rows["error"] = rows["estimate"] - rows["truth"]
        rows["square"] = rows["error"] ** 2
        rows["width"] = rows["upper"] - rows["lower"]
        rows["inside"] = (rows["lower"] <= rows["truth"]) & (rows["truth"] <= rows["upper"])
        grouped = rows.groupby(["method", "parameter"])
        n, error = grouped.size(), grouped["error"]
        table = pd.DataFrame(
            {
                "bias": error.mean(),
                "bias_error": error.std(ddof=1) / np.sqrt(n),
                "rmse": np.sqrt(grouped["square"].mean()),
                "width": grouped["width"].mean(),
                "coverage": grouped["inside"].mean(),
                "coverage_error": np.sqrt(self.ci_prob * (1 - self.ci_prob) / n),
            }
        )
        order = pd.MultiIndex.from_product(
            [self.methods, self.truth.index], names=["method", "parameter"]
        )
        table = table.reindex(order)
        failed = [(self.failures["method"] == method).sum() for method, _ in order]
        return table.astype(float).assign(failed=np.array(failed) / self.n_panels)

    def __repr__(self) -> str:
        lines = [
            f"{self.n_panels} panels, {self.mean_field} flow, {100 * self.ci_prob:g}% intervals",
            self.table.to_string(float_format=lambda v: f"{v:.3g}"),
        ]
        counts = (self.failures["method"] + ": " + self.failures["reason"]).value_counts()
        lines += [f"not fitted: {k} x {why}" for why, k in counts.items()]
        return "\n".join(lines)


@strict_keywords
def recovery(
    game: MeanFieldGame,
    reward: RewardProgram,
    *,
    truth: Mapping[str, Any],
    n_agents: int,
    n_times: int | None = None,
    panels: int = 200,
    methods: str | Sequence[str] | Mapping[str, Method] = "wald",
    ci_prob: float = 0.9,
    mean_field: str = "known",
    random_seed: Seed = None,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> Recovery:
    """Simulate panels at a known truth, fit each, and count how often intervals hold the truth.

    The panels are of agents in the equilibrium at the truth; their dynamics are known.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program. Intervals of a posterior hold a fixed truth at their level only where its
        prior gives way to the data: give wide priors to judge them so, or use `sbc`.
    truth : mapping of str to value
        What agents want, by site.
    n_agents : int
        Agents in a panel.
    n_times : int, optional
        Decisions of each agent in a stationary game.
    panels : int
        Number of panels, at least 2.
    methods : str, sequence of str, or mapping
        "wald" (observed information), "cluster" (the sandwich over agents), "bootstrap"
        (percentiles of refits to 199 panels of resampled agents), "profile", "laplace", "vi" (full
        rank) and "nuts" (two chains of 500 draws). A mapping gives each a name of one's own, and
        may hold what takes a model and `random_seed` and returns draws, or an estimate with Wald
        intervals, as `cross_fit` does. The first four estimate by maximum likelihood, draws by the
        posterior mean with an equal-tailed interval.
    ci_prob : float in (0, 1)
        Mass of an interval.
    mean_field : {"known", "empirical", "equilibrium"}
        The flow in the fits: that at the truth; the panel's own, which is an estimate made of the
        very choices that are explained; or the equilibrium under the reward itself.
    random_seed : int or SeedSequence, optional
        Seed of everything; by default a fresh one, recorded.
    n_jobs, progressbar
        As in `replicate`.

    Returns
    -------
    Recovery
        With `table`, one row per method and parameter.

    Raises
    ------
    ConvergenceError
        If the equilibrium at the truth is not found.
    ValueError
        If an argument does not fit.
    """
    is_a("game", game, MeanFieldGame)
    positive_int("n_agents", n_agents)
    positive_int("panels", panels, least=2)
    real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
    one_of("mean_field", mean_field, TREATMENTS)
    random_seed = seed_of(random_seed)
    named = _methods_by_name(methods)
    site_values("truth", truth)
    world = world_of(game, reward, truth)
    first = world.panel(n_agents=n_agents, random_seed=0, n_times=n_times)
    flow = world.mean_field if mean_field == "known" else mean_field
    model = TrajectoryModel(game, reward, first, mean_field=flow)
    program = density_of(model).program
    values = checked_values("truth", truth, program.sites, complete=True)
    program.free(values, argument="truth")
    flat = np.concatenate([np.ravel(values[site.name]) for site in program.sites])
    study = _Study(model, world, values, named, ci_prob, n_agents, n_times)
    outcomes = replicate(
        study.fit, panels, random_seed=random_seed, n_jobs=n_jobs, progressbar=progressbar
    )
    names = ["panel", "method", "parameter", "estimate", "lower", "upper"]
    rows = [(k, *row) for k, (rows, _) in enumerate(outcomes) for row in rows]
    failed = [(k, *row) for k, (_, rows) in enumerate(outcomes) for row in rows]
    return Recovery(
        intervals=pd.DataFrame(rows, columns=names),
        failures=pd.DataFrame(failed, columns=["panel", "method", "reason"]),
        truth=pd.Series(flat, program.entry_names(), name="truth"),
        methods=tuple(named),
        n_panels=panels,
        ci_prob=ci_prob,
        mean_field=mean_field,
        random_seed=random_seed,
    )


def _methods_by_name(methods: Any) -> dict[str, Method]:
    """Return methods by name, else raise."""
    if isinstance(methods, str):
        methods = [methods]
    if not isinstance(methods, (Mapping, list, tuple)):
        raise TypeError(
            f"`methods` must be a name, a list of names or a mapping of names to methods; got "
            f"{methods!r}."
        )
    named = dict(methods) if isinstance(methods, Mapping) else {str(m): m for m in methods}
    if not named:
        raise ValueError(f"`methods` must name at least one of {', '.join(METHODS)}; got none.")
    for method in named.values():
        if not callable(method):
            one_of("methods", method, METHODS)
    return named


Row = tuple[str, str, float, float, float]  # method, parameter, estimate, lower, upper


class _Study(NamedTuple):
    """What all panels share."""

    model: TrajectoryModel
    world: World
    truth: dict[str, Any]
    methods: dict[str, Method]
    ci_prob: float
    n_agents: int
    n_times: int | None

    def fit(self, seed: int) -> tuple[list[Row], list[tuple[str, str]]]:
        """Draw a panel; return its intervals, and the methods that gave none with the reason."""
        with threadpool_limits(1):  # the products of a fit are too small to be shared out
            return self._fit(seed)

    def _fit(self, seed: int) -> tuple[list[Row], list[tuple[str, str]]]:
        of_panel, of_fit = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
        drawn = self.world.panel(n_agents=self.n_agents, random_seed=of_panel, n_times=self.n_times)
        panel = PanelFits(redrawn(self.model, drawn), self.truth, self.ci_prob, of_fit)
        names = density_of(self.model).program.entry_names()
        rows: list[Row] = []
        failed = []
        for name, method in self.methods.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    warnings.simplefilter("ignore", IdentificationWarning)
                    intervals = panel.intervals(method)
                if np.isnan(intervals).any():
                    raise FitFailed("an interval has no end")
            except (ValueError, ArithmeticError, RuntimeError) as error:
                words = (str(error).splitlines() or [""])[0][:80]
                failed.append((name, words))
                continue
            rows += [(name, p, *row) for p, row in zip(names, intervals.tolist(), strict=True)]
        return rows, failed
