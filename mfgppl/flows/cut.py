"""The cut posterior: flow and dynamics from their own posteriors, the reward given each draw."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr

from mfgppl._arguments import (
    Seed,
    check_function,
    is_a,
    kept_seed,
    not_negative,
    one_of,
    positive_int,
    seed_of,
    strict_keywords,
)
from mfgppl._replication import replicate
from mfgppl.data.space import state_labels, text_labels
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.data.type_axis import by_type
from mfgppl.density.climb import Objective, climb_held
from mfgppl.density.curvature import analyse_curvature
from mfgppl.density.draws import parameters_of
from mfgppl.density.of_model import density_of
from mfgppl.estimation.point import map_estimate
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.exceptions import ConvergenceError, ConvergenceWarning, DataError
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.groups import labelled_groups
from mfgppl.posterior.result_tree import fixed_datatree, labels, recorded, thinned
from mfgppl.reward.parameters import Program

RESAMPLED = ["agents", "times"]
DYNAMICS = ["known", "estimated"]
FitFlow = Callable[..., xr.DataTree]


@strict_keywords
def cut_posterior(
    model: TrajectoryModel,
    *,
    flows: int = 100,
    draws: int = 2000,
    fit: FitFlow | None = None,
    resample: str = "agents",
    prior_count: float | None = None,
    dynamics: str = "known",
    random_seed: Seed = None,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> xr.DataTree:
    """Draw the reward given flows drawn from their own posterior, and pool with equal weights.

    The flow learns from the states that agents were seen in and from nothing else: what the
    choices would say of it is cut. Intervals then count the error of the flow, which the posterior
    along one flow leaves out. Nothing is corrected: a flow drawn holds the panel's error and that
    of its draw, so that coupling terms lie nearer to zero than along the panel's own flow, and the
    outcomes of the choices being explained are still in it (reflection). Where that matters
    `cross_fit` or `nested_pseudo_likelihood` should stand beside it.

    Parameters
    ----------
    model : TrajectoryModel
        The model; the panel's trajectories are needed one by one.
    flows : int
        Flows drawn, at least 2.
    draws : int
        Draws over all flows.
    fit : callable, optional
        Draws from the posterior of a model, called as `fit(model, random_seed=...)`, as `laplace`
        or `functools.partial(nuts, draws=200, chains=1, progressbar=False)`. By default the normal
        at the posterior's mode along each flow, over unconstrained values.
    resample : {"agents", "times"}
        "agents" weighs agents by a flat Dirichlet (the Bayesian bootstrap), which keeps an agent's
        dependence over time; "times" draws the shares of each time from a Dirichlet of its counts,
        as if the times were panels of other agents: the flow's parts then err independently.
    prior_count : float, optional
        For "times": pseudo-count of each state, by default 1 / S.
    dynamics : {"known", "estimated"}
        "estimated" draws the transition along with each flow: each row from a Dirichlet with the
        game's row as mean and as many counts as the panel has moves from it, so that what is
        impossible stays so and rows never followed stay as they are. For a coupled model, whose
        flow is solved for, it alone is drawn.
    random_seed : int or SeedSequence, optional
        Seed of it all; by default a fresh one, recorded.
    n_jobs, progressbar
        As in `replicate`.

    Returns
    -------
    DataTree
        With one chain that holds the draws of one flow after the other; `sample_stats` says of
        which `flow` each is. R-hat and effective sizes say nothing of such a mixture. The group
        `drawn` has the flows, and the transitions if these are estimated. Attributes `n_flows` and
        `n_failed`: flows along which a fit was had, and was not.

    Warns
    -----
    ConvergenceWarning
        If the fit failed along some flows, which are then left out.

    Raises
    ------
    ConvergenceError
        If it failed along more than half of them.
    ValueError
        If an option is wrong, or the panel does not keep its trajectories.

    References
    ----------
    .. [1] Rubin (1981), *The Bayesian bootstrap*, Annals of Statistics 9.
    .. [2] Plummer (2015), *Cuts in Bayesian graphical models*, Statistics and Computing 25.
    """
    is_a("model", model, TrajectoryModel)
    positive_int("flows", flows, least=2)
    positive_int("draws", draws)
    random_seed = seed_of(random_seed)
    one_of("resample", resample, RESAMPLED)
    if fit is not None:
        check_function("fit", fit, "be a function of a model")
    if prior_count is not None and resample != "times":
        raise ValueError("`prior_count` belongs to resample='times'; leave it out for 'agents'.")
    one_of("dynamics", dynamics, DYNAMICS)
    panel = with_rows(model.panel, "cut_posterior")
    if dynamics == "estimated":
        _check_estimated(model)
    elif model.coupled:
        raise ValueError(
            "a coupled model has no flow to draw; with dynamics='estimated' its transition is "
            "drawn, else use laplace or nuts."
        )
    per_flow = -(-draws // flows)
    mode = None if fit is not None else _mode(model)

    def one(seed: int) -> _Drawn | str:
        rng = np.random.default_rng(seed)
        flow = None if model.coupled else draw_flow(model, panel, rng, resample, prior_count)
        game, table = model.game, None
        if dynamics == "estimated":
            table = draw_transition(model, panel, rng)
            game = game.replace(transition=_as_argument(game, table))
        try:
            here = model.with_panel(panel, mean_field=flow, game=game)
            if mode is not None:
                groups = _from_normal(here, mode, per_flow, seed)
            else:
                groups = _from_tree(here, fit(here, random_seed=seed), per_flow)  # type: ignore[misc]
            return _Drawn(groups, flow, table)
        except (DataError, ConvergenceError) as error:
            return str(error)

    found = replicate(one, flows, random_seed=random_seed, n_jobs=n_jobs, progressbar=progressbar)
    pooled = [f for f in found if isinstance(f, _Drawn)]
    failures = [f for f in found if isinstance(f, str)]
    if len(failures) > flows / 2:
        raise ConvergenceError(
            f"the fit failed along {len(failures)} of {flows} flows drawn, first: {failures[0]}"
        )
    tree = _pooled(model, pooled)
    messages = list(model.messages)
    if failures:
        messages.append(
            f"the fit failed along {len(failures)} of {flows} flows drawn, which are left out; "
            f"first: {failures[0]}"
        )
    if messages:
        warnings.warn("\n".join(messages), ConvergenceWarning, stacklevel=3)
    tree.attrs.update(
        sampler="cut",
        resample=resample,
        random_seed=kept_seed(random_seed),
        n_flows=len(pooled),
        n_failed=len(failures),
        warnings=messages,
    )
    return tree


def draw_flow(
    model: TrajectoryModel,
    panel: Trajectories,
    rng: np.random.Generator,
    resample: str,
    prior_count: float | None = None,
) -> np.ndarray:
    """Draw a flow (T, S), or (T, S, A) in a joint game, from its own posterior.

    Parameters
    ----------
    model : TrajectoryModel
        The model that is to take it.
    panel : Trajectories
        Its panel.
    rng : Generator
        Source of the draw.
    resample : {"agents", "times"}
        See `cut_posterior`.
    prior_count : float, optional
        Pseudo-count for "times".
    """
    visits = np.zeros(model.game.flow_shape)
    acted = panel.action >= 0 if model.game.joint else panel.time < panel.horizon
    where = [panel.time[acted], panel.state[acted]]
    where += [panel.action[acted]] if model.game.joint else []
    if resample == "times":
        np.add.at(visits, tuple(where), 1.0)
        prior = 1 / visits[0].size if prior_count is None else prior_count
        mass = rng.standard_gamma(visits + not_negative("prior_count", prior))
    else:
        owner, agents = pd.factorize(panel.agents)
        weight = rng.standard_gamma(1.0, len(agents))[owner][panel.trajectory[acted]]
        np.add.at(visits, tuple(where), weight)
        mass = visits
    totals = mass.sum(axis=tuple(range(1, mass.ndim)), keepdims=True)
    empty = np.flatnonzero(totals == 0)
    if len(empty):
        raise ValueError(
            f"no agent is observed at time {panel.time_label(empty[0])}: the mean field is not "
            "known there; use resample='times' with a `prior_count` above 0."
        )
    return np.asarray(mass / totals)


def draw_transition(
    model: TrajectoryModel, panel: Trajectories, rng: np.random.Generator
) -> np.ndarray:
    """Draw a transition (S, A, S), led by types where they have tables of their own, and by time.

    Rows are Dirichlet with the game's rows as mean and the moves seen from them as counts.

    Parameters
    ----------
    model : TrajectoryModel
        The model that is to take it; its dynamics are fixed and dense.
    panel : Trajectories
        Its panel.
    rng : Generator
        Source of the draw.

    Returns
    -------
    ndarray, shape (S, A, S), (C, S, A, S), (T-1, S, A, S) or (T-1, C, S, A, S)
        As the game has one table or several; S is the number of states of one type.
    """
    game = model.game
    along = game.transition_along(model.mean_field)
    apart = along.ndim == 5 and along.stride(1) != 0
    table = (along[:, 0] if along.ndim == 5 and not apart else along).numpy()
    (t, s, a, _), n = (v.T for v in panel.transition_counts())
    kept = t < len(table) if game.tables_by_time else np.ones(len(t), dtype=bool)
    step = t[kept] if game.tables_by_time else np.zeros(kept.sum(), dtype=np.int64)
    cell, state = np.divmod(s[kept], table.shape[-1])
    seen = np.zeros(table.shape[:-1])
    np.add.at(seen, (step, *([cell] if apart else []), state, a[kept]), n[kept])
    mass = rng.standard_gamma(seen[..., None] * table)
    totals = mass.sum(-1, keepdims=True)
    drawn = np.where(totals > 0, mass / np.where(totals > 0, totals, 1.0), table)
    return drawn if game.tables_by_time else drawn[0]


def _as_argument(game: MeanFieldGame, table: np.ndarray) -> Any:
    """Return a transition as a game takes it: labelled where types have tables of their own."""
    space, by_time = game.space, int(game.tables_by_time)
    if table.ndim == 3 + by_time:
        return table
    sizes = space.cells.shape
    shape = (*table.shape[:by_time], *sizes, *table.shape[by_time + 1 :])
    dims = [*(["time"] * by_time), *space.types, "state", "action", "next_state"]
    return xr.DataArray(table.reshape(shape), dims=dims)


def _check_estimated(model: TrajectoryModel) -> None:
    """Raise unless the dynamics are a table that rows can be drawn of."""
    game = model.game
    fixed = not game.crowd_moves_dynamics
    if not fixed or game.transition_along(model.mean_field).layout != torch.strided:
        kind = "a sparse one" if fixed else "a function of the crowd"
        raise ValueError(
            f"dynamics='estimated' needs a game with a dense transition, as of "
            f"panel.estimate_transition(); got {kind}."
        )


class _Drawn(NamedTuple):
    """What one flow gave.

    Attributes
    ----------
    groups : dict of dict of str to ndarray
        Draws (n, ...) by group and name.
    flow, transition : ndarray, or None
        What was drawn before the reward.
    """

    groups: dict[str, dict[str, np.ndarray]]
    flow: np.ndarray | None
    transition: np.ndarray | None


def _mode(model: TrajectoryModel) -> PointEstimate:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each flow's own fit is checked
        return map_estimate(model, space="unconstrained", progressbar=False, flow_bias=False)


def _from_normal(
    model: TrajectoryModel, start: PointEstimate, n: int, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Draw from the normal at the posterior's mode near a start."""
    density = density_of(model)
    objective = Objective(density, 1.0, 1.0)
    found = climb_held(objective, start.theta, np.zeros(density.n_dim, dtype=bool))
    curvature = analyse_curvature(-objective.second_derivatives(found.theta))
    if not found.converged or curvature.saddle or len(curvature.flat):
        raise ConvergenceError("the posterior along the flow has no mode near the panel's own.")
    rng = np.random.default_rng([seed, 1])
    theta = rng.multivariate_normal(found.theta, curvature.covariance, size=n, method="cholesky")
    return {k: v for k, v in recorded(density, theta).items() if v}


def _from_tree(model: TrajectoryModel, tree: Any, n: int) -> dict[str, dict[str, np.ndarray]]:
    """Take `n` evenly spaced draws of a fit."""
    is_a("fit(model, random_seed=...)", tree, xr.DataTree)
    program: Program = density_of(model).program
    found = {}
    for name, values in parameters_of(program, tree, argument="fit(model)", finite=False).items():
        flat = values.reshape(-1, *values.shape[2:])
        if len(flat) < n:
            raise ValueError(f"`fit` gives {len(flat)} draws a flow; {n} are needed.")
        if not np.isfinite(flat).all():
            raise ConvergenceError("the fit along the flow has draws that are not finite.")
        found[name] = thinned(flat[None], n)[0]
    return {"posterior": found}


def _pooled(model: TrajectoryModel, found: list[_Drawn]) -> xr.DataTree:
    """Return the draws of all flows in one chain."""
    groups: dict[str, dict[str, Any]] = {
        group: {k: np.concatenate([f.groups[group][k] for f in found])[None] for k in values}
        for group, values in found[0].groups.items()
    }
    lengths = [len(next(iter(f.groups["posterior"].values()))) for f in found]
    groups["sample_stats"] = {"flow": np.repeat(np.arange(len(found)), lengths)[None]}
    coords, dims = labels(model)
    tree = fixed_datatree(density_of(model), {})
    for name, child in labelled_groups(groups, coords=coords, dims=dims).children.items():
        tree[name] = child
    tree["drawn"] = xr.DataTree(_conditions(model, found, coords))
    return tree


def _conditions(model: TrajectoryModel, found: list[_Drawn], coords: dict[str, Any]) -> xr.Dataset:
    """Return the flows and the transitions that were drawn."""
    table = ("time", "state", "action")
    named = {
        "mean_field": ("flow", *table[: len(model.game.flow_shape)]),
        "transition": ("flow", "step", "type", "state", "action", "next_state"),
    }
    drawn = {
        "mean_field": [f.flow for f in found if f.flow is not None],
        "transition": [f.transition for f in found if f.transition is not None],
    }
    arrays: dict[str, Any] = {}
    for name, values in drawn.items():
        if values:
            dims = named[name]
            if name == "transition":
                by_time = model.game.tables_by_time
                apart = values[0].ndim == 4 + by_time
                kept_dims = {"step": by_time, "type": apart}
                dims = tuple(d for d in dims if kept_dims.get(d, True))
            arrays[name] = (dims, np.stack(values))
    space = model.game.space
    tables = xr.Dataset({k: v for k, v in arrays.items() if k == "transition"})
    labels_of = {"state": state_labels(space.within), "action": coords["action"]}
    if space.types:
        labels_of["type"] = text_labels(space.cells.labels)
    tables = tables.assign_coords({k: v for k, v in labels_of.items() if k in tables.dims})
    flows = {k: v for k, v in arrays.items() if k == "mean_field"}
    kept = {k: v for k, v in coords.items() if any(k in dims for dims, _ in flows.values())}
    return xr.merge([by_type(xr.Dataset(flows, kept), space), tables], join="exact")
