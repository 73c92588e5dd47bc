"""What draws or an estimate say of behaviour: policies and choice probabilities."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from mfgppl._arguments import is_a, positive_int, strict_keywords
from mfgppl.data.trajectories import with_rows
from mfgppl.inference.compiled import density_of
from mfgppl.inference.estimate import PointEstimate, point_values
from mfgppl.inference.program import Program
from mfgppl.inference.results import (
    flat_draws,
    labels,
    log_likelihoods,
    policies,
    thinned,
)
from mfgppl.likelihood.model import TrajectoryModel

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
    values, kept = values_of(model, fit, draws)
    coords, _ = labels(model)
    table = ("time", "state", "action")
    coords = {k: coords[k] for k in table}
    density = density_of(model)
    if kept is None:
        return xr.DataArray(policies(density, values)[0], coords, table, name="policy")
    chains = len(values) // len(kept)
    coords = {"chain": np.arange(chains), "draw": kept, **coords}
    shape = (chains, len(kept), *model.game.shape)
    found = policies(density, values).reshape(shape)
    return xr.DataArray(found, coords, ("chain", "draw", *table), name="policy")


def values_of(model: TrajectoryModel, fit: Fit, draws: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return flat constrained parameters (N, K) of a fit, and which draws of each chain they are.

    Of draws at most `draws`, evenly spaced, a chain after the other; of a point one row and None.

    Raises
    ------
    TypeError
        If model or fit are none.
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
    program = density_of(model).program
    if not isinstance(fit, xr.DataTree):
        return _flat_point(program, fit)[None], None
    flat = flat_draws(program, fit)
    kept = thinned(np.broadcast_to(np.arange(flat.shape[1]), flat.shape[:2]), draws)[0]
    return flat[:, kept].reshape(-1, flat.shape[-1]), kept


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
    density = density_of(model)
    panel = with_rows(model.panel, "log_likelihood")
    values = log_likelihoods(density, _flat_point(density.program, fit)[None], panel)[0]
    coords = {"trajectory": labels(model)[0]["trajectory"]}
    return xr.DataArray(values, coords, ("trajectory",), name="log_likelihood")


def _flat_point(program: Program, fit: PointEstimate | Mapping[str, Any]) -> np.ndarray:
    """Return the flat constrained parameters (K,) of a point fit, else raise."""
    values = point_values(program, fit)
    program.free(values, argument="fit")
    return np.concatenate([np.ravel(values[site.name]) for site in program.sites]).astype(float)
