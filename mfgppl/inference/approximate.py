"""Draws from an approximation of the posterior, judged by the weights that would correct them.

Each draw keeps its log density under posterior and approximation; the Pareto shape of their ratios
judges the latter.
"""

import secrets
import warnings
from typing import Any

import numpy as np
import xarray as xr

from mfgppl._arguments import positive_int
from mfgppl.exceptions import ConvergenceWarning
from mfgppl.inference.chains import Chain
from mfgppl.inference.compiled import density_of
from mfgppl.inference.results import to_datatree
from mfgppl.likelihood.model import TrajectoryModel

GOOD_PARETO = 0.7  # shape of the weights' tail up to which an approximation serves
ALIKE = 1e-9  # spread of log weights that is no more than rounding


def seed_of(random_seed: int | None) -> int:
    """Return the seed given, or a fresh one."""
    if random_seed is None:
        return secrets.randbits(32)
    return positive_int("random_seed", random_seed, least=0)


def pareto_shape(log_weight: np.ndarray) -> float:
    """Return the shape of the weights' upper tail; minus infinity where they are all alike."""
    from arviz_stats.base import array_stats  # slow to import, and needed at the end only

    if np.ptp(log_weight) < ALIKE:
        return -np.inf
    _, shape = array_stats.psislw(-log_weight)  # takes log likelihoods left out, weights' inverse
    return float(shape)


def finished(
    model: TrajectoryModel,
    theta: np.ndarray,
    log_q: np.ndarray,
    attrs: dict[str, Any],
    messages: list[str],
    random_seed: int,
    log_likelihood: bool | None,
) -> xr.DataTree:
    """Return draws with their weights as a tree, and warn where they should not be trusted."""
    density = density_of(model)
    evaluate = density.evaluator()
    lp = np.array([evaluate(point)[0] for point in theta])
    pareto = pareto_shape(lp - log_q)
    if not pareto <= GOOD_PARETO:
        messages.append(
            f"the Pareto shape of the weights is {pareto:.2f} (at most {GOOD_PARETO} is good): the "
            "approximation is not the posterior; use `nuts`, or another `guide`."
        )
    chain = Chain(theta, {"lp": lp, "log_q": log_q})
    record = attrs | {"random_seed": int(random_seed), "pareto_k": pareto, "compile_time": 0.0}
    tree = to_datatree(model, density, [chain], record, random_seed, log_likelihood)
    tree.attrs["warnings"] = messages
    if messages:
        warnings.warn("\n".join(messages), ConvergenceWarning, stacklevel=4)
    return tree
