"""Vuong's comparison of two models that need not nest each other."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtr

from mfgppl._arguments import Seed, is_a, one_of, positive_int, seed_of, strict_keywords
from mfgppl.data.trajectories import with_rows
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.hypotheses.comparable import ROUNDING, check_mle, check_same_data, n_known
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.policies import log_likelihood


@dataclass(frozen=True, eq=False, repr=False)
class VuongTest:
    """Vuong's comparison of two models of the same trajectories.

    Attributes
    ----------
    statistic : float
        Difference of the (corrected) log likelihoods over its standard error; positive where the
        first model is closer to the data.
    p : float
        Two-sided, by the standard normal law.
    difference : float
        Difference of the log likelihoods, less the correction, nats.
    std_err : float
        Its standard error, nats.
    n : int
        Number of trajectories, or of clusters.
    variance_statistic : float
        Sum of squared deviations of the differences by trajectory.
    variance_p : float
        Chance of a larger one if the models cannot be distinguished; where it is not small,
        `statistic` has no normal law.
    correction : str
        "none", "aic" or "bic".
    groups : str
        What counts as one observation.
    """

    statistic: float
    p: float
    difference: float
    std_err: float
    n: int
    variance_statistic: float
    variance_p: float
    correction: str
    groups: str

    def __repr__(self) -> str:
        side = "first" if self.statistic > 0 else "second"
        lines = [
            f"Vuong test over {self.n} clusters ({self.groups}): difference of log likelihoods "
            f"{self.difference:.4g} nats (std_err {self.std_err:.3g}, correction "
            f"{self.correction}), z = {self.statistic:.3g}, p = {self.p:.3g}: the {side} model is "
            "closer",
            f"variance pre-test: {self.variance_statistic:.4g}, p = {self.variance_p:.3g}; where "
            "this p is not small, the models cannot be distinguished and z has no normal law",
        ]
        return "\n".join(lines)


@strict_keywords
def vuong_test(
    model_a: TrajectoryModel,
    fit_a: PointEstimate,
    model_b: TrajectoryModel,
    fit_b: PointEstimate,
    *,
    correction: str = "none",
    groups: str = "agent",
    simulations: int = 100_000,
    random_seed: Seed = 0,
) -> VuongTest:
    """Compare two models that need not nest each other by their log likelihoods by trajectory.

    Under the hypothesis that both are equally close to the truth, the sum of the differences over
    its standard error is standard normal, provided that the models can be distinguished: that is
    what the variance pre-test says. Its law is a weighted sum of chi-squared ones, which is
    simulated.

    Parameters
    ----------
    model_a, model_b : TrajectoryModel
        Two models of the same panel.
    fit_a, fit_b : PointEstimate
        Their maximum likelihood estimates.
    correction : {"none", "aic", "bic"}
        What is taken off for each parameter that the data identify: nothing, 1, or log(n) / 2 nats.
    groups : str
        What counts as one observation: "agent", or one of the panel's groups.
    simulations : int
        Draws of the law of the variance.
    random_seed : int or SeedSequence
        Their seed.

    Returns
    -------
    VuongTest
        `statistic`, `p`, `difference`, `std_err`, and the pre-test's `variance_p`.

    Raises
    ------
    ValueError
        If the panels differ or are counted, a fit is not its model's, or the log likelihoods are
        the same for each trajectory.

    References
    ----------
    .. [1] Vuong (1989), *Likelihood ratio tests for model selection and non-nested hypotheses*,
       Econometrica 57, theorems 4.1 and 5.1.
    """
    for name, model in (("model_a", model_a), ("model_b", model_b)):
        is_a(name, model, TrajectoryModel)
        with_rows(model.panel, "vuong_test")
    check_mle("fit_a", fit_a)
    check_mle("fit_b", fit_b)
    one_of("correction", correction, ["none", "aic", "bic"])
    positive_int("simulations", simulations)
    random_seed = seed_of(random_seed)
    check_same_data(fit_a, fit_b, "`fit_a` and `fit_b`")
    one_of("groups", groups, list(fit_a.groups))
    codes, clusters = pd.factorize(fit_a.groups[groups])
    n = len(clusters)
    by_row = _log_likelihoods(model_a, fit_a, "a") - _log_likelihoods(model_b, fit_b, "b")
    gaps = np.bincount(codes, by_row)
    spread = float(((gaps - gaps.mean()) ** 2).sum())
    if spread <= ROUNDING**2 * max(1.0, fit_a.llf**2) or n < 2:
        raise ValueError(
            "`model_a` and `model_b` give each of the clusters the same log likelihood, or there "
            f"is one cluster only (n = {n}): they cannot be compared."
        )
    rate = {"none": 0.0, "aic": 1.0, "bic": 0.5 * np.log(n)}[correction]
    difference = float(gaps.sum() - rate * (n_known(fit_a) - n_known(fit_b)))
    error = float(np.sqrt(spread))
    z = difference / error
    rng = np.random.default_rng(random_seed)
    weights = _variance_weights(fit_a, fit_b, codes)
    draws = rng.chisquare(1.0, (simulations, len(weights))) @ weights
    return VuongTest(
        statistic=z,
        p=float(2 * ndtr(-abs(z))),
        difference=difference,
        std_err=error,
        n=n,
        variance_statistic=spread,
        variance_p=float((1 + (draws > spread).sum()) / (1 + simulations)),
        correction=correction,
        groups=groups,
    )


def _log_likelihoods(model: TrajectoryModel, fit: PointEstimate, which: str) -> np.ndarray:
    """Return log likelihoods by trajectory, else raise where they are not the fit's.

    That of an agent whose kind is not seen stands with its first trajectory.
    """
    terms = log_likelihood(model, fit).to_numpy()
    if abs(terms.sum() - fit.llf) > 1e-6 * max(1.0, abs(fit.llf)):
        raise ValueError(
            f"`fit_{which}` is not a fit of `model_{which}`: its log likelihood is {fit.llf:.6g}, "
            f"the model gives {terms.sum():.6g}."
        )
    if model.nodes is None:
        return terms
    panel = with_rows(model.panel, "vuong_test")
    rows = np.zeros(panel.n_trajectories)
    rows[panel.first_of_owner] = terms
    return rows


def _variance_weights(a: PointEstimate, b: PointEstimate, codes: np.ndarray) -> np.ndarray:
    """Return the weights of chi-squared laws that the sum of squared deviations has.

    They are the squares of the eigenvalues of [[Baa Ia^-1, Bab Ib^-1], [-Bba Ia^-1, -Bbb Ib^-1]],
    with B the outer products of the gradients and I the information.
    """
    sides = []
    for fit in (a, b):
        covariance = fit.curvature.covariance
        summed = np.zeros((codes.max() + 1, len(fit.theta)))
        np.add.at(summed, codes, np.asarray(fit.scores))
        sides.append((covariance, summed))
    (cov_a, scores_a), (cov_b, scores_b) = sides
    scores = np.concatenate([scores_a, scores_b], axis=1)
    left = np.concatenate([scores_a @ cov_a, scores_b @ cov_b], axis=1)
    signs = np.repeat([1.0, -1.0], [scores_a.shape[1], scores_b.shape[1]])
    matrix = signs[:, None] * (scores.T @ left)
    weights: np.ndarray = np.linalg.eigvals(matrix).real ** 2
    return weights
