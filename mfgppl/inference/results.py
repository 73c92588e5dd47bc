"""Draws as one labelled tree in ArviZ's schema."""

import importlib.metadata
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mfgppl._arguments import is_a
from mfgppl._version import __version__
from mfgppl.inference.chains import Chain
from mfgppl.inference.compiled import Density
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.terms import add_up
from mfgppl.reward.program import reward_source

LARGEST_LOG_LIKELIHOOD = 2**27  # entries kept without being asked: 1 GB
PREDICTIVE_DRAWS = 250  # predictive draws over all chains


def to_datatree(
    model: TrajectoryModel,
    density: Density,
    chains: Sequence[Chain],
    attrs: dict[str, Any],
    seed: int,
    log_likelihood: bool | None,
) -> xr.DataTree:
    """Return chains as a `DataTree` with all groups of a trajectory model."""
    theta = np.stack([c.theta for c in chains])
    groups: dict[str, dict[str, Any]] = _recorded(density, theta)
    groups["sample_stats"] = {k: np.stack([c.stats[k] for c in chains]) for k in chains[0].stats}
    n_kept = theta.shape[0] * theta.shape[1] * model.panel.n_trajectories
    if log_likelihood or (log_likelihood is None and n_kept <= LARGEST_LOG_LIKELIHOOD):
        groups["log_likelihood"] = {"actions": _by_trajectory(model, density, theta)}
    groups["posterior_predictive"] = _predictive(model, density, theta, seed)
    groups["observed_data"] = action_shares(model.likelihood.counts.actions)
    groups["observed_data"]["action_counts"] = model.likelihood.counts.actions
    groups["constant_data"] = _constants(model)
    from arviz_base import from_dict  # slow to import, and needed after sampling only

    coords, dims = labels(model)
    tree = from_dict({k: v for k, v in groups.items() if v}, coords=coords, dims=dims)
    tree.attrs.update(_record_of(model, density) | attrs)
    return tree


def labels(model: TrajectoryModel) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return coordinates and dims of everything that a model's results hold."""
    game, panel = model.game, model.panel
    coords = {
        "time": np.arange(game.horizon) + panel.first_time,
        "state": [str(v) for v in game.space.labels],
        "action": [str(v) for v in game.actions],
        "trajectory": [str(v) for v in panel.labels],
    }
    table = ["time", "state", "action"]
    dims = {
        "actions": ["trajectory"],
        "action_counts": table,
        "share_by_time": ["time", "action"],
        "share_by_state": ["state", "action"],
        "mean_field": ["time", "state"],
        "initial": ["state"],
        "available": ["state", "action"],
        "visits": ["time", "state"],
    }
    return coords, dims | {f"feature_{k}": table for k in game.features}


def action_shares(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return action shares by time and by state of counts (..., T, S, A), NaN where no decision."""
    shares = {}
    for name, axis in (("share_by_time", -2), ("share_by_state", -3)):
        summed = counts.sum(axis)
        totals = summed.sum(-1, keepdims=True)
        shares[name] = np.where(totals > 0, summed / np.maximum(totals, 1), np.nan)
    return shares


def _recorded(density: Density, theta: np.ndarray) -> dict[str, dict[str, Any]]:
    """Run the recorded part of the program at each draw."""
    n_chains, n_draws, n_dim = theta.shape
    values, deterministics, priors = (
        {k: v.reshape(n_chains, n_draws, *v.shape[1:]) for k, v in group.items()}
        for group in density.record(theta.reshape(-1, n_dim))
    )
    return {"posterior": values | deterministics, "log_prior": priors}


def _by_trajectory(model: TrajectoryModel, density: Density, theta: np.ndarray) -> np.ndarray:
    """Return the log likelihood by chain, draw and trajectory, nats."""
    likelihood, n = model.likelihood, model.panel.n_trajectories
    terms = likelihood.terms(model.panel)
    values = np.empty((*theta.shape[:2], n))

    def fill(chain: int) -> None:
        reward_at = density.rewards()
        for row, point in zip(values[chain], theta[chain], strict=True):
            row[:] = add_up(terms, likelihood.table_arrays(reward_at(point)), n)

    # the kernels release the interpreter's lock
    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(theta))))
    return values


def _predictive(
    model: TrajectoryModel, density: Density, theta: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Draw action shares at the states visited, from draws thinned evenly."""
    rng = np.random.default_rng(seed)
    thin = thinned(theta)
    visits = model.likelihood.counts.actions.sum(-1).astype(np.int64)
    shares, reward_at = [], density.rewards()
    for point in thin.reshape(-1, theta.shape[-1]):
        policy = np.exp(model.likelihood.log_policy(reward_at(point)))
        policy /= policy.sum(-1, keepdims=True)
        shares.append(action_shares(rng.multinomial(visits, policy)))
    return {
        k: np.stack([s[k] for s in shares]).reshape(*thin.shape[:2], *shares[0][k].shape)
        for k in shares[0]
    }


def thinned(theta: np.ndarray, n_wanted: int = PREDICTIVE_DRAWS) -> np.ndarray:
    """Return evenly spaced draws of each chain, about `n_wanted` over all."""
    n_chains, n_draws = theta.shape[:2]
    per_chain = min(n_draws, max(1, n_wanted // n_chains))
    return theta[:, np.linspace(0, n_draws - 1, per_chain).round().astype(int)]


def _constants(model: TrajectoryModel) -> dict[str, np.ndarray]:
    game = model.game
    features = {
        f"feature_{k}": np.broadcast_to(v.numpy(), game.shape) for k, v in game.features.items()
    }
    return {
        "mean_field": model.mean_field.numpy(),
        "initial": game.initial.numpy(),
        "available": game.available.numpy().astype(np.int8),
        "visits": model.likelihood.counts.actions.sum(-1),
        **features,
    }


def _record_of(model: TrajectoryModel, density: Density) -> dict[str, Any]:
    """Return what is worth knowing of a fit later, as plain attributes."""
    fingerprint = model.fingerprint()
    return {
        "inference_library": "mfgppl",
        "inference_library_version": __version__,
        "versions": json.dumps(
            {k: importlib.metadata.version(k) for k in ("torch", "pyro-ppl", "nutpie", "numpy")}
        ),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "likelihood": model.likelihood_name,
        "start": model.start if model.likelihood_name == "energy" else "",
        "density_path": density.path,
        "discount": model.game.discount,
        "temperature": model.game.temperature,
        "parameters": model.parameters,
        "reward_source": reward_source(model.reward),
        "priors": json.dumps(density.program.priors()),
        "audit": json.dumps(model.panel.audit(), default=str),
        "game_hash": fingerprint["game"],
        "data_hash": fingerprint["data"],
    }


def save(draws: xr.DataTree, path: str | Path) -> None:
    """Write a result to a netCDF file.

    Raises
    ------
    TypeError
        If `draws` is no DataTree.
    FileNotFoundError
        If the folder of `path` does not exist.
    """
    is_a("draws", draws, xr.DataTree)
    if not Path(path).parent.exists():
        raise FileNotFoundError(f"no folder {Path(path).parent} to write {Path(path).name} in")
    tree = draws.copy(deep=False)
    tree.attrs = {k: json.dumps(v) if isinstance(v, list) else v for k, v in draws.attrs.items()}
    tree.to_netcdf(path, engine="h5netcdf")


def load(path: str | Path) -> xr.DataTree:
    """Read a result from a netCDF file into memory.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a result of this package.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}: give the .nc file of a fit")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except OSError as error:
        raise ValueError(f"{path} is not a netCDF file: {error}") from None
    if tree.attrs.get("inference_library") != "mfgppl":
        raise ValueError(f"{path} is not a result of mfgppl; write one with mfgppl.save.")
    for name in ("warnings", "parameters"):
        value = tree.attrs.get(name, "[]")
        tree.attrs[name] = json.loads(value) if isinstance(value, str) else list(value)
    return tree
