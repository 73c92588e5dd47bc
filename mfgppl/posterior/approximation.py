"""Draws from an approximation of the posterior, judged by the weights that would correct them.

Each draw keeps its log density under posterior and approximation; the Pareto shape of their ratios
judges the latter.
"""

from typing import Any

import numpy as np
import scipy.special
import xarray as xr

from mfgppl._arguments import kept_seed
from mfgppl.density.of_model import density_of
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.chains import Chain
from mfgppl.posterior.doubts import FLOW, KNOWN, UNIDENTIFIED, Draws, note
from mfgppl.posterior.result_tree import (
    one_labelling,
    predictive,
    to_datatree,
)

JUDGED = 1000  # draws at least from which an approximation is judged
FEWEST = 10.0  # effective draws of these below which their weights have no shape
GOOD_PARETO = 0.7  # shape of the weights' tail up to which an approximation serves
ALIKE = 1e-9  # spread of log weights that is no more than rounding


def pareto_shape(log_weight: np.ndarray) -> float:
    """Return the shape of the weights' upper tail; minus infinity where they are all alike.

    Infinity where a few draws have all the weight, whose tail cannot be seen. Draws of no weight,
    -inf, lie below the tail.
    """
    from arviz_stats.base import array_stats  # slow to import, and needed at the end only

    held = np.isfinite(log_weight)
    if not held.any():
        return np.inf
    log_weight = np.where(held, log_weight, log_weight[held].min())
    if np.ptp(log_weight) < ALIKE:
        return -np.inf
    if len(log_weight) * effective_share(log_weight) < FEWEST:
        return np.inf
    _, shape = array_stats.psislw(-log_weight)  # takes log likelihoods left out, weights' inverse
    return float(shape)


def effective_share(log_weight: np.ndarray) -> float:
    """Return the effective number of weighted draws over their number (Kish)."""
    first, second = scipy.special.logsumexp(log_weight), scipy.special.logsumexp(2 * log_weight)
    if first == -np.inf:
        return 0.0
    return float(np.exp(2 * first - second) / len(log_weight))


def _of_lost(n_lost: int, n: int) -> str:
    """Return what is said of draws at which the posterior has no density."""
    return (
        f"the posterior has no density at {n_lost} of {n} draws (along a flow that is solved for, "
        "no equilibrium is found there): their weights are zero, and the approximation reaches "
        "where the model does not hold; use `nuts`, or a prior that stays away from there."
    )


def weighted_tree(
    model: TrajectoryModel,
    theta: np.ndarray,
    log_q: np.ndarray,
    draws: int,
    attrs: dict[str, Any],
    messages: list[str],
    random_seed: int,
    log_likelihood: bool | None,
    flow_bias: bool,
) -> xr.DataTree:
    """Return the first draws with their weights as a tree; warn where all are not to be trusted.

    Parameters
    ----------
    theta, log_q : ndarray, shape (N, K) and (N,)
        Points and their log density under the approximation, at least `JUDGED` of them.
    draws : int
        How many of these are kept.
    """
    density = density_of(model)
    evaluate = density.evaluator()
    lp = np.nan_to_num([evaluate(point)[0] for point in theta], nan=-np.inf, neginf=-np.inf)
    if n_lost := int(np.isneginf(lp).sum()):
        messages = [*messages, _of_lost(n_lost, len(lp))]
    pareto, share = pareto_shape(lp - log_q), effective_share(lp - log_q)
    if not pareto <= GOOD_PARETO:
        messages.append(
            f"the Pareto shape of the weights is {pareto:.2f} (at most {GOOD_PARETO} is good): the "
            "approximation is not the posterior; use `nuts`, or another `guide`."
        )
    stats = {"lp": lp[:draws], "log_q": log_q[:draws]}
    (chain,) = one_labelling(density, [Chain(theta[:draws], stats)])
    record = attrs | {
        "random_seed": kept_seed(random_seed),
        "pareto_k": pareto,
        "effective_share": share,
        "compile_time": 0.0,
    }
    tree = to_datatree(density, [chain], record, log_likelihood)
    tree["posterior_predictive"] = predictive(density, [chain], random_seed)
    tree.attrs["warnings"] = messages + tree.attrs["warnings"]
    drawn = Draws(density, chain.theta[None], tree)
    note(drawn, (KNOWN, UNIDENTIFIED, *[FLOW] * flow_bias)).warn(stacklevel=5)
    return tree
