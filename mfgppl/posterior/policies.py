"""What draws or an estimate say of behaviour: policies, choice probabilities, log likelihoods."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr

from mfgppl._arguments import is_a, positive_int, strict_keywords
from mfgppl.data.space import state_labels, text_labels
from mfgppl.data.trajectories import with_rows
from mfgppl.data.type_axis import by_type
from mfgppl.density.draws import flat_draws, is_tree, received
from mfgppl.density.of_model import density_of
from mfgppl.density.over_draws import log_likelihoods, policies
from mfgppl.equilibrium.response import soft_response
from mfgppl.estimation.point_estimate import PointEstimate, point_values
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.groups import SAMPLES
from mfgppl.posterior.result_tree import labels, spaced
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import bind

Fit = xr.DataTree | PointEstimate | Mapping[str, Any]


@strict_keywords
def policy(
    model: TrajectoryModel,
    fit: Fit,
    *,
    game: MeanFieldGame | None = None,
    mean_field: Any = None,
    draws: int = 1000,
) -> xr.DataArray:
    """Return the probability of each action along the model's flow, or in another world, by draw.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the flow that agents face.
    fit : DataTree, PointEstimate or mapping
        Posterior draws, a point estimate, or values by site.
    game : MeanFieldGame, optional
        Another world to predict in, of more states or other dynamics, whose reward is the model's
        program; it needs `mean_field`.
    mean_field : array, shape (T, S), or (T, S, A) in a joint game, optional
        Another flow for agents to face, such as one of `solve_equilibrium`; by default the model's.
    draws : int
        Draws to use at most, evenly spaced over all chains.

    Returns
    -------
    DataArray
        Dims (chain, draw, type, time, state, action), without chain and draw for a point and
        without type where the game has none.

    Raises
    ------
    ValueError
        If the fit has other parameters than the model, or a world comes without its flow.
    """
    values, kept = values_of(model, fit, draws)
    if game is None and mean_field is None:
        world, tables = model.game, policies(density_of(model), values)
    else:
        world, tables = _elsewhere(model, values, game, mean_field)
    coords: dict[str, Any] = {
        "time": np.arange(world.shape[0]) + model.panel.first_time,
        "state": state_labels(world.space),
        "action": text_labels(world.actions),
    }
    dims: tuple[str, ...] = ("time", "state", "action")
    if kept is None:
        return by_type(xr.DataArray(tables[0], coords, dims, name="policy"), world.space)
    coords |= {"chain": kept.chain, "draw": kept.draw}
    tables = tables.reshape(len(kept.chain), len(kept.draw), *world.shape)
    return by_type(
        xr.DataArray(tables, coords, ("chain", "draw", *dims), name="policy"), world.space
    )


def _elsewhere(
    model: TrajectoryModel, values: np.ndarray, game: MeanFieldGame | None, mean_field: Any
) -> tuple[MeanFieldGame, np.ndarray]:
    """Return another world, and the policies (N, T, S, A) of agents who face a flow there."""
    world = model.game if game is None else is_a("game", game, MeanFieldGame)
    if mean_field is None:
        raise ValueError(
            "`game` needs the flow that agents face there: give `mean_field`, such as that of "
            "solve_equilibrium."
        )
    if model.likelihood != "causal" or model.nodes is not None:
        raise ValueError(
            "`mean_field` of another world needs likelihood='causal' and agents without unseen "
            "kinds or coefficients of their own; solve for those with counterfactual."
        )
    flow, program = world.check_flow("mean_field", mean_field).detach(), density_of(model).program
    with torch.no_grad():
        found = [
            soft_response(
                world, bind(model.reward, program.by_site(v)), flow, temperature=world.temperature
            ).policy.numpy()
            for v in values
        ]
    return world, np.stack(found)


class Kept(NamedTuple):
    """Which draws of a fit were used, all of them of each chain.

    Attributes
    ----------
    chain, draw : ndarray
        Their labels in the fit, positions where it has none.
    labelled : bool
        Whether it has some.
    """

    chain: np.ndarray
    draw: np.ndarray
    labelled: bool

    def labels(self) -> pd.Index:
        """Return the labels of the draws, a chain after the other; numbers where there are none."""
        if not self.labelled:
            return pd.RangeIndex(len(self.chain) * len(self.draw), name="draw")
        return pd.MultiIndex.from_product([self.chain, self.draw], names=["chain", "draw"])


def values_of(model: TrajectoryModel, fit: Fit, draws: int) -> tuple[np.ndarray, Kept | None]:
    """Return flat constrained parameters (N, K) of a fit, and which draws of each chain they are.

    Of draws at most `draws`, evenly spaced, a chain after the other; of a point one row and None.

    Raises
    ------
    TypeError
        If model or fit are none.
    ValueError
        If the fit has other parameters than the model, or draws that are not finite.
    """
    is_a("model", model, TrajectoryModel)
    positive_int("draws", draws)
    if not (is_tree(fit) or isinstance(fit, (PointEstimate, Mapping))):
        raise TypeError(
            "`fit` must be posterior draws, a point estimate or a mapping of parameters to values; "
            f"got {type(fit).__name__}."
        )
    program = density_of(model).program
    if not is_tree(fit):
        return _flat_point(program, fit)[None], None
    tree = received(fit, finite=())
    flat = flat_draws(program, tree)
    coords, places = tree["posterior"].coords, spaced(flat.shape[1], len(flat), draws)
    chain, draw = (
        coords[k].values if k in coords else np.arange(n)
        for k, n in zip(SAMPLES, flat.shape, strict=False)
    )
    kept = Kept(chain, draw[places], all(k in coords for k in SAMPLES))
    return flat[:, places].reshape(-1, flat.shape[-1]), kept


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
        Dims (chain, draw, type, state, action), without chain and draw for a point and without
        type where the game has none; NaN in states that nobody visits.
    """
    probabilities = policy(model, fit, draws=draws)
    coords, dims = labels(model)[0], ("time", "state")
    seen = model.law.counts.actions.sum(-1)
    visits = by_type(xr.DataArray(seen, {k: coords[k] for k in dims}, dims), model.game.space)
    total = visits.sum("time")
    averaged = (probabilities * visits).sum("time") / total.where(total > 0)
    return averaged.rename("choice_probability")


@strict_keywords
def log_likelihood(model: TrajectoryModel, fit: PointEstimate | Mapping[str, Any]) -> xr.DataArray:
    """Return the log likelihood of each trajectory at given parameters.

    Of each agent where their kinds are not seen.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    fit : PointEstimate or mapping
        A point estimate, or values by site. Draws hold theirs in the group log_likelihood.

    Returns
    -------
    DataArray
        Dims (trajectory,) or (agent,), nats; their sum is the log likelihood of the panel.
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
    coords, dims = labels(model)
    (unit,) = dims["log_likelihood"]["actions"]
    return xr.DataArray(values, {unit: coords[unit]}, (unit,), name="log_likelihood")


def _flat_point(program: Program, fit: PointEstimate | Mapping[str, Any]) -> np.ndarray:
    """Return the flat constrained parameters (K,) of a point fit, else raise."""
    values = point_values(program, fit)
    program.free(values, argument="fit")
    return np.concatenate([np.ravel(values[site.name]) for site in program.sites]).astype(float)
