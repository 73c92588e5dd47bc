"""Estimates and intervals of one panel, by method."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from mfgppl._arguments import is_a
from mfgppl._replication import or_reason
from mfgppl.calibration.ranks import drawn_by, short_nuts
from mfgppl.data.trajectories import Trajectories
from mfgppl.density.draws import flat_draws
from mfgppl.density.of_model import density_of, redrawn
from mfgppl.estimation.bootstrap import resample
from mfgppl.estimation.point import mle
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.estimation.refits import maximum_near
from mfgppl.hypotheses.profile import profile_likelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.laplace import laplace
from mfgppl.posterior.variational import vi

REPLICATIONS = 199  # resampled panels of a bootstrap

# by name, or what takes a model and `random_seed` and returns draws or an estimate
Method = str | Callable[..., Any]


class FitFailed(RuntimeError):
    """A fit that gives no intervals, and why."""


class PanelFits:
    """Fits of one panel; those by maximum likelihood share one.

    Parameters
    ----------
    model : TrajectoryModel
        The model of the panel.
    truth : dict of str to array
        Where the search for the maximum starts, by site.
    ci_prob : float
        Mass of an interval.
    seed : int
        Seed of draws.
    """

    def __init__(
        self, model: TrajectoryModel, truth: dict[str, Any], ci_prob: float, seed: int
    ) -> None:
        self.model, self.truth, self.ci_prob, self.seed = model, truth, ci_prob, seed

    def intervals(self, method: Method) -> np.ndarray:
        """Return estimate, lower and upper end by parameter, (P, 3)."""
        if isinstance(method, str):
            return METHODS[method](self)
        fit = method(self.model, random_seed=self.seed)
        if isinstance(fit, PointEstimate):
            return self.wald(fit)
        return self.of_draws(fit)

    @functools.cached_property
    def point(self) -> PointEstimate:
        """The maximum likelihood fit, started at the truth."""
        fit = mle(self.model, init=self.truth, svi_steps=0, progressbar=False, flow_bias=False)
        if not fit.converged:
            raise FitFailed("the maximum likelihood fit did not converge")
        return fit

    def wald(self, fit: PointEstimate, kind: str = "observed") -> np.ndarray:
        """Return Wald intervals of an estimate by a kind of covariance."""
        if not fit.converged:
            raise FitFailed("the fit did not converge")
        ends = fit.conf_int(self.ci_prob, kind=kind)
        return np.column_stack([fit.params, ends["lower"], ends["upper"]])

    def bootstrap(self) -> np.ndarray:
        """Return percentiles of refits to resampled agents."""
        panel = is_a("panel", self.model.panel, Trajectories)
        seeds = np.random.SeedSequence(self.seed).generate_state(REPLICATIONS)
        panels = (resample(panel, panel.agents, int(seed)) for seed in seeds)
        outcomes = [or_reason(functools.partial(self._refit, drawn)) for drawn in panels]
        found = [estimate for estimate in outcomes if isinstance(estimate, np.ndarray)]
        fits = [estimate for estimate in found if np.isfinite(estimate).all()]
        if len(fits) < 0.9 * REPLICATIONS:
            raise FitFailed(
                "more than a tenth of the resampled fits did not converge, or do not determine a "
                "parameter"
            )
        return np.column_stack([self.point.params, *np.quantile(fits, self.tails, axis=0)])

    def _refit(self, panel: Trajectories) -> np.ndarray | None:
        return maximum_near(redrawn(self.model, panel), self.point)

    def profile(self) -> np.ndarray:
        """Return intervals by profile likelihood."""
        names = self.point.params.index
        profiles = [
            profile_likelihood(self.model, self.point, name, ci_prob=self.ci_prob, points=2)
            for name in names
        ]
        if not all(p.converged for p in profiles):
            raise FitFailed("a profile likelihood did not converge")
        return np.array([(p.estimate, p.lower, p.upper) for p in profiles])

    def of_draws(self, draws: Any) -> np.ndarray:
        """Return posterior means and equal-tailed intervals."""
        drawn_by("methods", draws)
        program = density_of(self.model).program
        flat = flat_draws(program, draws, argument="methods", finite=False)
        values = flat.reshape(-1, flat.shape[-1])
        return np.column_stack([values.mean(0), *np.quantile(values, self.tails, axis=0)])

    @property
    def tails(self) -> list[float]:
        """Probabilities of the ends of an equal-tailed interval."""
        return [(1 - self.ci_prob) / 2, (1 + self.ci_prob) / 2]


METHODS: dict[str, Callable[[PanelFits], np.ndarray]] = {
    "wald": lambda panel: panel.wald(panel.point),
    "cluster": lambda panel: panel.wald(panel.point, "cluster"),
    "bootstrap": PanelFits.bootstrap,
    "profile": PanelFits.profile,
    "laplace": lambda panel: panel.of_draws(
        laplace(
            panel.model,
            random_seed=panel.seed,
            log_likelihood=False,
            progressbar=False,
            flow_bias=False,
        )
    ),
    "vi": lambda panel: panel.of_draws(
        vi(panel.model, random_seed=panel.seed, log_likelihood=False, flow_bias=False)
    ),
    "nuts": lambda panel: panel.of_draws(short_nuts(panel.model, random_seed=panel.seed)),
}
