"""Draws as one labelled tree in ArviZ's schema."""

import importlib.metadata
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mfgppl._arguments import is_a
from mfgppl._version import __version__
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.inference import store
from mfgppl.inference.chains import Chain
from mfgppl.inference.checks import convergence_messages
from mfgppl.inference.compiled import AnyDensity, OneDensity, PlaysDensity, parts_of
from mfgppl.inference.coupled import CoupledDensity
from mfgppl.inference.joined import joined
from mfgppl.inference.program import Program
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.terms import add_up
from mfgppl.reward.program import reward_source

LARGEST_LOG_LIKELIHOOD = 2**27  # entries kept without being asked: 1 GB
PREDICTIVE_DRAWS = 250  # predictive draws over all chains
LARGEST_BATCH, DRAWS_AT_ONCE = 2**22, 16  # reward entries (32 MB) and draws worked on together


def to_datatree(
    density: AnyDensity,
    chains: Sequence[Chain],
    attrs: dict[str, Any],
    seed: int,
    log_likelihood: bool | None,
) -> xr.DataTree:
    """Return chains as a `DataTree` with all groups of a model."""
    options = (chains, attrs, seed, log_likelihood)
    if isinstance(density, PlaysDensity):
        return joined(density, [_of_one(part, *options) for part in density.parts])
    return _of_one(density, *options)


def _of_one(
    density: OneDensity,
    chains: Sequence[Chain],
    attrs: dict[str, Any],
    seed: int,
    log_likelihood: bool | None,
) -> xr.DataTree:
    model = density.model
    theta = np.stack([c.theta for c in chains])
    n_chains, n_draws, n_dim = theta.shape
    groups: dict[str, dict[str, Any]] = {
        group: {k: v.reshape(n_chains, n_draws, *v.shape[1:]) for k, v in values.items()}
        for group, values in recorded(density, theta.reshape(-1, n_dim)).items()
    }
    groups["sample_stats"] = {k: np.stack([c.stats[k] for c in chains]) for k in chains[0].stats}
    messages: list[str] = []
    if isinstance(density, CoupledDensity):
        found = density.certificates(density.constrained(theta.reshape(-1, n_dim)))
        groups["sample_stats"] |= {
            "equilibrium_residual": found.residual.reshape(n_chains, n_draws),
            "n_equilibria": found.n_equilibria.reshape(n_chains, n_draws),
        }
        messages = density.messages(found)
    n_kept = n_chains * n_draws * model.panel.n_trajectories
    small = isinstance(model.panel, Trajectories) and n_kept <= LARGEST_LOG_LIKELIHOOD
    if log_likelihood or (log_likelihood is None and small):
        panel = with_rows(model.panel, "the log likelihood by trajectory")
        logs = log_likelihoods(density, density.constrained(theta.reshape(-1, n_dim)), panel)
        groups["log_likelihood"] = {"actions": logs.reshape(n_chains, n_draws, -1)}
    groups["posterior_predictive"] = _predictive(model, density, theta, seed)
    record = record_of(model, density) | attrs | {"warnings": messages}
    return _labelled(model, groups | _fixed(model), record)


def fixed_datatree(density: AnyDensity, attrs: dict[str, Any]) -> xr.DataTree:
    """Return what a result holds whatever its draws: observed and constant data, attributes."""
    trees = [
        _labelled(part.model, _fixed(part.model), record_of(part.model, part) | attrs)
        for part in parts_of(density)
    ]
    return joined(density, trees) if isinstance(density, PlaysDensity) else trees[0]


def _fixed(model: TrajectoryModel) -> dict[str, dict[str, Any]]:
    counts = model.likelihood.counts.actions
    observed = action_shares(counts) | {"action_counts": counts}
    return {"observed_data": observed, "constant_data": _constants(model)}


def _labelled(
    model: TrajectoryModel, groups: dict[str, dict[str, Any]], attrs: dict[str, Any]
) -> xr.DataTree:
    from arviz_base import from_dict  # slow to import, and needed after sampling only

    coords, dims = labels(model)
    tree = from_dict({k: v for k, v in groups.items() if v}, coords=coords, dims=dims)
    tree.attrs.update(attrs)
    return tree


def labels(model: TrajectoryModel) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return coordinates and dims of everything that a model's results hold."""
    game, panel = model.game, model.panel
    coords = {
        "time": np.arange(game.shape[0]) + panel.first_time,
        "state": [str(v) for v in game.space.labels],
        "action": [str(v) for v in game.actions],
    }
    if isinstance(panel, Trajectories):
        coords["trajectory"] = [str(v) for v in panel.labels]
    table = ["time", "state", "action"]
    dims = {
        "actions": ["trajectory"],
        "action_counts": table,
        "share_by_time": ["time", "action"],
        "share_by_state": ["state", "action"],
        "mean_field": table[: len(game.flow_shape)],
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


def recorded(density: AnyDensity, points: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Return the groups posterior and log_prior at unconstrained points (N, n_dim)."""
    values, deterministics, priors = density.record(points)
    return {"posterior": values | deterministics, "log_prior": priors}


def over_draws(
    density: OneDensity, values: np.ndarray, use: Callable[[slice, np.ndarray], None]
) -> None:
    """Call a function with a few draws at a time, on all cores.

    Parameters
    ----------
    values : ndarray, shape (N, K)
        Flat constrained parameters.
    use : callable
        Takes which draws these are, and their values; runs in several threads, as kernels release
        the interpreter's lock.
    """
    entries = math.prod(density.model.game.shape)
    size = int(np.clip(LARGEST_BATCH // entries, 1, DRAWS_AT_ONCE))
    parts = [slice(k, k + size) for k in range(0, len(values), size)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda part: use(part, values[part]), parts))


def log_likelihoods(density: OneDensity, values: np.ndarray, panel: Trajectories) -> np.ndarray:
    """Return the log likelihood (N, J) of a panel's trajectories, nats.

    Parameters
    ----------
    density : Density
        Of a model, whose law and flow are used; the panel may be another.
    values : ndarray, shape (N, K)
        Flat constrained parameters.
    panel : Trajectories
        Coded as the model's.
    """
    n = panel.n_trajectories
    terms = density.model.likelihood.terms(panel)
    found = np.empty((len(values), n))

    def use(part: slice, given: np.ndarray) -> None:
        tables = density.tables(given)
        for k, row in enumerate(found[part]):
            row[:] = add_up(terms, [table[k] for table in tables], n)

    over_draws(density, values, use)
    return found


def policies(density: OneDensity, values: np.ndarray) -> np.ndarray:
    """Return policies (N, T, S, A) at flat constrained parameters (N, K)."""
    found = np.empty((len(values), *density.model.game.shape))

    def use(part: slice, given: np.ndarray) -> None:
        np.exp(density.log_policies(given), out=found[part])

    over_draws(density, values, use)
    return found


def _predictive(
    model: TrajectoryModel, density: OneDensity, theta: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Draw action shares at the states visited, from draws thinned evenly."""
    rng = np.random.default_rng(seed)
    thin = thinned(theta)
    visits = model.likelihood.counts.actions.sum(-1).astype(np.int64)
    shares = []
    for part in np.array_split(thin.reshape(-1, theta.shape[-1]), thin.shape[1]):
        for policy in policies(density, density.constrained(part)):
            policy /= policy.sum(-1, keepdims=True)
            shares.append(action_shares(rng.multinomial(visits, policy)))
    return {
        k: np.stack([s[k] for s in shares]).reshape(*thin.shape[:2], *shares[0][k].shape)
        for k in shares[0]
    }


def parameters_of(
    program: Program, draws: xr.DataTree, *, argument: str = "fit"
) -> dict[str, np.ndarray]:
    """Return posterior draws by site, else raise a `ValueError`."""
    if "posterior" not in draws.children:
        raise ValueError(
            f"`{argument}` must have the group posterior; it has {list(draws.children)}."
        )
    posterior = draws["posterior"].dataset
    missing = [s.name for s in program.sites if s.name not in posterior]
    if missing:
        raise ValueError(f"`{argument}` lacks the parameter {missing[0]!r} of the model.")
    return {s.name: posterior[s.name].values for s in program.sites}


def flat_draws(program: Program, draws: xr.DataTree, *, argument: str = "fit") -> np.ndarray:
    """Return constrained posterior draws (chain, draw, K), else raise a `ValueError`."""
    sites = parameters_of(program, draws, argument=argument).values()
    return np.concatenate([v.reshape(*v.shape[:2], -1) for v in sites], axis=-1)


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


def record_of(model: TrajectoryModel, density: OneDensity) -> dict[str, Any]:
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
        "flow": model.flow_kind,
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
    """Write a result to a netCDF file, or to a zarr store where `path` ends in .zarr.

    Raises
    ------
    TypeError
        If `draws` is no DataTree.
    FileNotFoundError
        If the folder of `path` does not exist.
    FileExistsError
        If there is a zarr store at `path` already.
    """
    is_a("draws", draws, xr.DataTree)
    path = Path(path)
    if not path.parent.exists():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} in")
    if path.suffix == ".zarr":
        if path.exists():
            raise FileExistsError(f"{path} exists; remove it, or write to another store")
        store.write_zarr(draws, path)
    else:
        store.with_plain_attributes(draws).to_netcdf(path, engine="h5netcdf")


def load(path: str | Path) -> xr.DataTree:
    """Read a result into memory, from a netCDF file or a zarr store.

    A store whose run was killed gives the draws that all its chains have, labelled as interrupted.

    Raises
    ------
    FileNotFoundError
        If there is no such file or store.
    ValueError
        If it is not a result of this package, or a store holds no draws yet.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}: give the .nc file or the .zarr store of a fit")
    tree = _read_store(path) if path.is_dir() else _read_file(path)
    if tree.attrs.get("inference_library") != "mfgppl":
        raise ValueError(f"{path} is not a result of mfgppl; write one with mfgppl.save.")
    for name in ("warnings", "parameters", "mode_weights"):
        if name not in tree.attrs and name == "mode_weights":
            continue
        value = tree.attrs.get(name, "[]")
        tree.attrs[name] = json.loads(value) if isinstance(value, str) else list(value)
    return tree


def _read_file(path: Path) -> xr.DataTree:
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            return opened.load()
    except OSError as error:
        raise ValueError(f"{path} is not a netCDF file: {error}") from None


def _read_store(path: Path) -> xr.DataTree:
    if not store.is_store(path):
        raise ValueError(f"{path} is a folder and no zarr store; give the .zarr store of a fit.")
    return _unfinished(path) if store.is_running(path) else store.read_zarr(path)


def _unfinished(path: Path) -> xr.DataTree:
    """Return what a run had written when it was killed as a shorter result that says so."""
    from arviz_base import from_dict  # slow to import, and needed after sampling only

    tree, chains = store.read_unfinished(path)
    if not chains:
        raise ValueError(f"{path} holds no draws after tuning; the run ended too early.")
    n = min(len(chain["sample_stats"]["lp"]) for chain in chains)
    drawn = {
        group: {name: np.stack([c[group][name][:n] for c in chains]) for name in values}
        for group, values in chains[0].items()
    }
    for name, child in from_dict(drawn).children.items():
        tree[name] = child
    tree.attrs["interrupted"] = 1
    tree.attrs["warnings"] = convergence_messages(tree)
    return tree
