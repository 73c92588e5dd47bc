"""Scores of what a fit has not seen."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from mfgppl._arguments import check_function, is_a, one_of
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.density.of_model import density_of, of_panel
from mfgppl.density.over_draws import log_likelihoods
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.policies import Fit, values_of

if TYPE_CHECKING:
    from arviz_stats import ELPDData

FitMethod = Callable[[TrajectoryModel], Fit]
ALL_DRAWS = 10**9


class Units:
    """What is left out together.

    Attributes
    ----------
    by : str
        What they are; agents in place of trajectories where their kinds are not seen, as these
        belong together then.
    codes : ndarray of int, shape (J,)
        The unit of each trajectory.
    of_scores : ndarray of int
        The unit of each score: of each trajectory, or of each agent whose kind is not seen.
    labels : list of str
        Names of the units.
    """

    def __init__(self, model: TrajectoryModel, by: str, what: str) -> None:
        is_a("model", model, TrajectoryModel)
        self.model, self.panel = model, with_rows(model.panel, what)
        one_of("by", by, ["trajectory", "agent", *self.panel.groups])
        unseen = model.nodes is not None
        self.by = "agent" if unseen and by == "trajectory" else by
        of = {"trajectory": self.panel.labels, "agent": self.panel.agents, **self.panel.groups}
        self.codes, names = pd.factorize(np.asarray(of[self.by], dtype=object))
        self.of_scores = self.scored(np.ones(len(self.codes), dtype=bool))
        self.labels = [str(v) for v in names]

    def scored(self, kept: np.ndarray) -> np.ndarray:
        """Return the unit of each score of a panel of some trajectories, by a mask."""
        codes = self.codes[kept]
        if self.model.nodes is None:
            return codes
        return np.asarray(codes[np.unique(self.panel.owner[kept], return_index=True)[1]])


def summed_by(by_trajectory: np.ndarray, units: Units) -> np.ndarray:
    """Return log likelihoods (..., J) of trajectories or agents added up by unit."""
    sums = np.zeros((len(units.labels), *by_trajectory.shape[:-1]))
    np.add.at(sums, units.of_scores, np.moveaxis(by_trajectory, -1, 0))
    return np.moveaxis(sums, 0, -1)


def held_out(units: Units, fit_method: FitMethod, held: np.ndarray, mean_field: Any) -> np.ndarray:
    """Return the scores of units (n,) under a fit of all others."""
    left = np.isin(units.codes, held)
    if left.all():
        raise ValueError("nothing is left to fit; there must be at least two to leave one out.")
    training = of_panel(units.model, units.panel.subset(~left), mean_field)
    by_draw = scores(training, fit_method(training), units.panel.subset(left))
    order = np.searchsorted(np.sort(held), units.scored(left))
    summed = np.zeros((len(held), len(by_draw)))
    np.add.at(summed, order, by_draw.T)
    return log_mean(summed.T)[np.searchsorted(np.sort(held), held)]


def flow_of_crowd(model: TrajectoryModel) -> Any:
    """Return what other agents of a model's crowd face, as the constructor takes a flow."""
    return "equilibrium" if model.coupled else model.mean_field


def scores(model: TrajectoryModel, fit: Fit, panel: Trajectories) -> np.ndarray:
    """Return the log likelihood (N, J) of a panel's trajectories by draw of a model's fit."""
    values, _ = values_of(model, fit, ALL_DRAWS)
    return log_likelihoods(density_of(model), values, panel)


def log_mean(logs: np.ndarray) -> np.ndarray:
    """Return the log of the mean likelihood over draws, of logs (N, ...)."""
    return np.asarray(logsumexp(logs, axis=0) - math.log(len(logs)))


def as_elpd(kind: str, values: xr.DataArray, *, n_folds: int, n_draws: int = 1) -> "ELPDData":
    """Return scores, by what was left out, as ArviZ's record."""
    from arviz_stats import ELPDData  # slow to import

    n, score = values.size, values.values
    record = {
        "elpd": float(score.sum()),
        "se": math.sqrt(n * score.var()),
        "p": math.nan,
        "n_samples": n_draws,
        "n_data_points": n,
        "scale": "log",
        "warning": False,
        "good_k": math.nan,
        "elpd_i": values,
    }
    if "kind" in {field.name for field in dataclasses.fields(ELPDData)}:  # before ArviZ 1
        return ELPDData(kind=kind, n_folds=n_folds, **record)
    return _kind_of_record(kind)(n_folds=n_folds, **record)


@functools.cache
def _kind_of_record(kind: str) -> Any:
    """Return ArviZ's record of scores, from version 1 on, where each kind is a class."""
    from arviz_stats import ELPDData

    return dataclasses.make_dataclass(
        "ELPDDataLeftOut",
        [("n_folds", int, 1)],
        bases=(ELPDData,),
        namespace={
            "_kind": kind,
            "_display_kind": kind.removeprefix("loo_"),
            "_header": lambda self: f"Computed from {self.n_folds}-fold cross validation.",
        },
        repr=False,
    )


def check_method(fit_method: Any) -> None:
    """Raise unless a function is given."""
    check_function("fit_method", fit_method, "be a function that fits a model, as mle")
