"""What draws or an estimate say of behaviour: policies and choice probabilities."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from mfgppl._arguments import is_a, positive_int, strict_keywords
from mfgppl.inference.estimate import PointEstimate, point_values
from mfgppl.inference.program import Program
from mfgppl.inference.results import labels, parameters_of, thinned
from mfgppl.likelihood.model import TrajectoryModel, double_precision
from mfgppl.likelihood.terms import add_up

Fit = xr.DataTree | PointEstimate | Mapping[str, Any]


@strict_keywords
def policy(model: TrajectoryModel, fit: Fit, *, draws: int = 1000) -> xr.DataArray:
    """Return the probability of each action along the model's flow, by draw.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the flow that agents face.
    fit : DataTree, PointEstimate or mapping
        Posterior draws, a point estimate, or values by site.
    draws : int
        Draws to use at most, evenly spaced over all chains.

    Returns
    -------
    DataArray
        Dims (chain, draw, time, state, action), without chain and draw for a point.

    Raises
    ------
    ValueError
        If the fit has other parameters than the model.
    """
    is_a("model", model, TrajectoryModel)
    positive_int("draws", draws)
    if not isinstance(fit, (xr.DataTree, PointEstimate, Mapping)):
        raise TypeError(
            "`fit` must be posterior draws, a point estimate or a mapping of parameters to values; "
            f"got {type(fit).__name__}."
        )
    program = Program(model)
    coords, _ = labels(model)
    table = ("time", "state", "action")
    coords = {k: coords[k] for k in table}
    if not isinstance(fit, xr.DataTree):
        values = point_values(program, fit)
        return xr.DataArray(_policy_at(model, program, values), coords, table, name="policy")
    posterior = parameters_of(program, fit)
    n_chains, n_draws = (next(iter(posterior.values())).shape[k] for k in (0, 1))
    index = np.broadcast_to(np.arange(n_draws), (n_chains, n_draws))
    kept = thinned(index, draws)
    rows = [
        _policy_at(model, program, {k: v[c, d] for k, v in posterior.items()})
        for c in range(n_chains)
        for d in kept[c]
    ]
    array = np.stack(rows).reshape(n_chains, -1, *model.game.shape)
    coords = {"chain": np.arange(n_chains), "draw": kept[0], **coords}
    return xr.DataArray(array, coords, ("chain", "draw", *table), name="policy")


@strict_keywords
def choice_probabilities(model: TrajectoryModel, fit: Fit, *, draws: int = 1000) -> xr.DataArray:
    """Return the probability of each action by state, averaged over the observed visits.

    Parameters
    ----------
    model, fit, draws
        As in `policy`.

    Returns
    -------
    DataArray
        Dims (chain, draw, state, action), without chain and draw for a point; NaN in states that
        nobody visits.
    """
    probabilities = policy(model, fit, draws=draws)
    visits = xr.DataArray(
        model.likelihood.counts.actions.sum(-1),
        {k: probabilities[k] for k in ("time", "state")},
        ("time", "state"),
    )
    total = visits.sum("time")
    averaged = (probabilities * visits).sum("time") / total.where(total > 0)
    return averaged.rename("choice_probability")


@strict_keywords
def log_likelihood(model: TrajectoryModel, fit: PointEstimate | Mapping[str, Any]) -> xr.DataArray:
    """Return the log likelihood of each trajectory at given parameters.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    fit : PointEstimate or mapping
        A point estimate, or values by site. Draws hold theirs in the group log_likelihood.

    Returns
    -------
    DataArray
        Dims (trajectory,), nats; their sum is the log likelihood of the panel.
    """
    is_a("model", model, TrajectoryModel)
    if not isinstance(fit, (PointEstimate, Mapping)):
        raise TypeError(
            "`fit` must be a point estimate or a mapping of parameters to values; "
            f"got {type(fit).__name__}."
        )
    program = Program(model)
    reward = _reward_at(model, program, point_values(program, fit))
    likelihood, n = model.likelihood, model.panel.n_trajectories
    values = add_up(likelihood.terms(model.panel), likelihood.table_arrays(reward), n)
    coords = {"trajectory": labels(model)[0]["trajectory"]}
    return xr.DataArray(values, coords, ("trajectory",), name="log_likelihood")


def _policy_at(model: TrajectoryModel, program: Program, values: dict[str, Any]) -> np.ndarray:
    return np.exp(model.likelihood.log_policy(_reward_at(model, program, values)))


def _reward_at(model: TrajectoryModel, program: Program, values: dict[str, Any]) -> np.ndarray:
    """Return the reward table at values by site, -inf where not available."""
    tensors = {k: torch.tensor(np.asarray(v, dtype=float)) for k, v in values.items()}
    program.free(tensors, argument="fit")
    with double_precision(), torch.no_grad():
        reward = model.masked(program.reward_at(tensors))
    return np.ascontiguousarray(reward.numpy())
