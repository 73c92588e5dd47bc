"""Priors that fight the data: a posterior far from the maximum of the likelihood."""

import warnings

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._keep import kept
from mfgppl.checks.prior_contraction import SENSITIVE
from mfgppl.density.draws import flat_draws
from mfgppl.density.of_model import density_of
from mfgppl.estimation.point import mle
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.exceptions import ConvergenceError
from mfgppl.likelihood.model import TrajectoryModel

FAR = 2.0  # standard deviations


def prior_conflicts(
    draws: xr.DataTree, model: TrajectoryModel, table: pd.DataFrame
) -> pd.DataFrame:
    """Return the parameters whose prior contradicts the data, with their maximum likelihood.

    A parameter is looked at if its posterior moves with both prior and likelihood, or with the
    prior where draws without log likelihoods do not say more. Its prior then contradicts the data
    if the maximum likelihood estimate is farther from the posterior mean

    - than two posterior standard deviations: whoever reads the interval is misled by it; and
    - than two times `sqrt(std_err ** 2 - posterior_sd ** 2)`: by more than chance explains. With a
      normal prior N(m, t^2) and a normal likelihood the posterior mean is efficient if the prior
      holds, and the variance of the difference is the difference of variances, as in Hausman's
      test. The ratio is then `|mle - m| / sqrt(std_err ** 2 + t ** 2)`, Box's prior predictive
      check.

    The likelihood is maximised only if there is a parameter to look at. One without a standard
    error is not judged, as it has no maximum; nor is any if the fit does not converge.

    Parameters
    ----------
    draws : DataTree
        Posterior draws of the model.
    model : TrajectoryModel
        The model.
    table : DataFrame
        What `contraction` gives for them.

    Returns
    -------
    DataFrame
        One row per parameter in conflict: `posterior_mean`, `posterior_sd`, `mle`, `std_err`.

    References
    ----------
    .. [1] Box (1980), *Sampling and Bayes' inference in scientific modelling and robustness*,
       JRSS A 143.
    .. [2] Hausman (1978), *Specification tests in econometrics*, Econometrica 46.
    .. [3] Kallioinen, Paananen, Bürkner and Vehtari (2024), *Detecting and diagnosing prior and
       likelihood sensitivity with power-scaling*, Statistics and Computing 34.
    """
    suspects = table["prior_sensitivity"] > SENSITIVE
    suspects &= ~(table["likelihood_sensitivity"] <= SENSITIVE)
    none = pd.DataFrame(columns=["posterior_mean", "posterior_sd", "mle", "std_err"], dtype=float)
    maximum = likelihood_maximum(model) if suspects.any() else None
    if maximum is None:
        return none
    flat = flat_draws(density_of(model).program, draws, argument="draws")
    compared = pd.DataFrame(
        {
            "posterior_mean": flat.mean((0, 1)),
            "posterior_sd": table["posterior_sd"],
            "mle": maximum.params,
            "std_err": maximum.bse,
        },
        index=table.index,
    )
    distance = (compared["mle"] - compared["posterior_mean"]).abs()
    gained = (compared["std_err"] ** 2 - compared["posterior_sd"] ** 2).clip(lower=0.0)
    far = (distance > FAR * compared["posterior_sd"]) & (distance > FAR * np.sqrt(gained))
    return compared[far & suspects & compared["std_err"].notna()]


@kept
def likelihood_maximum(model: TrajectoryModel) -> PointEstimate | None:
    """Return the maximum likelihood estimate, None where there is no maximum.

    It is kept with the model.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that is not asked for
        try:
            fit = mle(model, progressbar=False, flow_bias=False)
        except ConvergenceError:
            return None
    # where choices are separated along one direction, the parameters beside it are at their maximum
    if not fit.converged and fit.separated is None:
        return None
    return fit
