"""Where chains start: at values, at the last draws of another result, or at random."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from mfgppl._quasi_newton import extended_value
from mfgppl.density.draws import is_tree, parameters_of, received
from mfgppl.density.protocol import LogDensity
from mfgppl.estimation.point_estimate import PointEstimate, point_values
from mfgppl.reward.program import check_finite


class Start(NamedTuple):
    """Where a chain starts.

    Attributes
    ----------
    theta : ndarray, shape (K,)
        Unconstrained parameters.
    step_size : float or None
        The step that it starts with, None where none is known.
    """

    theta: np.ndarray
    step_size: float | None


def starts_of_chains(
    density: LogDensity,
    init: Mapping[str, Any] | PointEstimate | xr.DataTree | None,
    seeds: Sequence[int],
) -> list[Start]:
    """Return where each chain starts."""
    if is_tree(init):
        return last_draws(density, init, len(seeds))
    centre = None
    if init is not None:
        values = point_values(density.program, init, argument="init")
        centre = density.program.free(values, argument="init")
    return [Start(_random_start(density, centre, seed), None) for seed in seeds]


def last_draws(density: LogDensity, draws: Any, n: int) -> list[Start]:
    """Return the last draws and step sizes of a result's chains, several of one if need be."""
    draws = received(draws, "init")
    posterior = parameters_of(density.program, draws, argument="init")
    n_chains, n_draws = next(iter(posterior.values())).shape[:2]
    apart = max(1, n_draws // -(-n // n_chains))  # between the draws taken of one chain
    steps = np.full((n_chains, 1), np.nan)
    if "sample_stats" in draws.children and "step_size" in draws["sample_stats"]:
        steps = draws["sample_stats"].dataset["step_size"].values
    starts = []
    for k in range(n):
        chain, draw = k % n_chains, (-1 - k // n_chains * apart) % n_draws
        values = {name: v[chain, draw] for name, v in posterior.items()}
        theta = density.program.free(values, argument="init")
        step = float(steps[chain, -1])
        starts.append(Start(theta, step if np.isfinite(step) else None))
    return starts


def _random_start(density: LogDensity, centre: np.ndarray | None, seed: int) -> np.ndarray:
    """Return where a chain starts: a point of finite density."""
    rng = np.random.default_rng(seed)
    evaluate = extended_value(density.evaluator())
    for _ in range(100):
        if centre is None:
            theta = rng.uniform(-2.0, 2.0, density.n_dim)
        else:
            theta = centre + 0.05 * rng.standard_normal(density.n_dim)
        if np.isfinite(evaluate(theta)[0]):
            return theta
    model = density.model
    reward = torch.as_tensor(density.rewards(density.constrained(theta[None]))[0])
    check_finite(reward.masked_fill(model.forbidden, 0.0), model.game)
    raise ValueError(
        "no starting point of finite log density in 100 tries; pass `init` with values by site."
    )
