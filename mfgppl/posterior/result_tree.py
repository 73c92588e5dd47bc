"""Draws as one labelled tree in ArviZ's schema."""

import functools
import importlib.metadata
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr

from mfgppl._version import __version__
from mfgppl.data.space import state_labels, text_labels
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.data.type_axis import by_type
from mfgppl.density.over_draws import (
    LARGEST_BATCH,
    PANELS_AT_ONCE,
    action_shares,
    log_likelihoods,
    over_draws,
)
from mfgppl.density.protocol import LogDensity
from mfgppl.density.who_is_who import (
    agent_names,
    aligned,
    exchanges,
    kind_shares,
    node_shares,
    sites_of,
)
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.chains import Chain
from mfgppl.posterior.groups import labelled_groups
from mfgppl.reward.source import reward_source
from mfgppl.reward.valued import parts_drawn

OF_STATES = {"observed_data", "posterior_predictive", "constant_data"}  # groups
LARGEST_LOG_LIKELIHOOD = 2**27  # entries kept without being asked: 1 GB
KINDS_DRAWS = 250  # over whose mean the probabilities of agents' kinds are taken
PREDICTIVE_DRAWS = 250  # predictive draws over all chains
LARGEST_PREDICTIVE = 2**25  # entries of predictive counts that are kept


def to_datatree(
    density: LogDensity,
    chains: Sequence[Chain],
    attrs: dict[str, Any],
    log_likelihood: bool | None,
) -> xr.DataTree:
    """Return chains as a `DataTree` with all groups of a model but predictive draws."""
    model = density.model
    theta = np.stack([c.theta for c in chains])
    n_chains, n_draws, n_dim = theta.shape
    groups: dict[str, dict[str, Any]] = {
        group: {k: v.reshape(n_chains, n_draws, *v.shape[1:]) for k, v in values.items()}
        for group, values in recorded(density, theta.reshape(-1, n_dim)).items()
    }
    groups["sample_stats"] = {k: np.stack([c.stats[k] for c in chains]) for k in chains[0].stats}
    messages = list(model.messages)
    certificates = density.certificates(density.constrained(theta.reshape(-1, n_dim)))
    if certificates is not None:
        groups["sample_stats"] |= {
            "equilibrium_residual": certificates.residual.reshape(n_chains, n_draws),
            "n_equilibria": certificates.n_equilibria.reshape(n_chains, n_draws),
        }
        messages += certificates.messages()
    n_kept = n_chains * n_draws * model.panel.n_trajectories
    small = isinstance(model.panel, Trajectories) and n_kept <= LARGEST_LOG_LIKELIHOOD
    if log_likelihood or (log_likelihood is None and small):
        panel = with_rows(model.panel, "the log likelihood by trajectory")
        logs = log_likelihoods(density, density.constrained(theta.reshape(-1, n_dim)), panel)
        groups["log_likelihood"] = {"actions": logs.reshape(n_chains, n_draws, -1)}
    record = record_of(model, density) | attrs | {"warnings": messages}
    tree = _label(model, groups | _fixed_groups(model), record)
    of_kinds = _kinds_of_agents(density, thinned(theta, KINDS_DRAWS).reshape(-1, n_dim))
    if of_kinds is not None:
        tree["kinds"] = xr.DataTree(of_kinds)
    return tree


def predictive(density: LogDensity, chains: Sequence[Chain], seed: int) -> xr.DataTree:
    """Return predictive draws of actions at the states visited, of some draws of the chains."""
    theta = np.stack([c.theta for c in chains])
    kept = spaced(theta.shape[1], len(theta), PREDICTIVE_DRAWS)
    group = {"posterior_predictive": _predictive(density, theta[:, kept], seed)}
    tree = _label(density.model, group, {}, {"posterior_predictive": kept})
    return xr.DataTree(tree["posterior_predictive"].to_dataset())


def fixed_datatree(density: LogDensity, attrs: dict[str, Any]) -> xr.DataTree:
    """Return what a result holds whatever its draws: observed and constant data, attributes."""
    model = density.model
    return _label(model, _fixed_groups(model), record_of(model, density) | attrs)


def _fixed_groups(model: TrajectoryModel) -> dict[str, dict[str, Any]]:
    counts = model.law.counts.actions
    observed = action_shares(counts) | {"action_counts": counts}
    return {"observed_data": observed, "constant_data": _constants(model)}


def _label(
    model: TrajectoryModel,
    groups: dict[str, dict[str, Any]],
    attrs: dict[str, Any],
    draws: dict[str, Any] | None = None,
) -> xr.DataTree:
    coords, dims = labels(model)
    tree = labelled_groups(groups, coords=coords, dims=dims, draws=draws)
    for name in OF_STATES & set(tree.children):
        tree[name].dataset = by_type(tree[name].to_dataset(), model.game.space)
    tree.attrs.update(attrs)
    return tree


def one_labelling(density: LogDensity, chains: Sequence[Chain]) -> list[Chain]:
    """Return chains in whose draws a label of unseen kinds means the same kind."""
    if not exchanges(density):
        return list(chains)
    theta = np.concatenate([chain.theta for chain in chains])
    ends = np.cumsum([len(chain.theta) for chain in chains])[:-1]
    parts = np.split(aligned(density, theta), ends)
    return [chain._replace(theta=part) for chain, part in zip(chains, parts, strict=True)]


def _kinds_of_agents(density: LogDensity, theta: np.ndarray) -> xr.Dataset | None:
    """Return the posterior probability of each agent's kinds, over draws (N, n_dim)."""
    model = density.model
    sites = sites_of(model, kinds=True)
    if not sites:
        return None
    values = density.constrained(theta)
    mean = np.mean([node_shares(density, value) for value in values], axis=0)
    names = [site.name for site in sites]
    dims = ["agent", *names]
    assert isinstance(model.panel, Trajectories)
    coords: dict[str, Any] = {"agent": text_labels(agent_names(model.panel))}
    coords |= {site.name: np.arange(site.size) for site in sites}
    return xr.Dataset({"probability": (dims, kind_shares(model, mean, names))}, coords)


def labels(model: TrajectoryModel) -> tuple[dict[str, Any], dict[str, dict[str, list[str]]]]:
    """Return the coordinates of a model's results, and their dims by group and name."""
    game, panel = model.game, model.panel
    coords = {
        "time": np.array(panel.periods.resized(game.shape[0]).labels),
        "state": state_labels(game.space),
        "action": text_labels(game.actions),
    }
    if isinstance(panel, Trajectories):
        coords["trajectory"] = text_labels(panel.labels)
        if model.nodes is not None:
            coords["agent"] = text_labels(agent_names(panel))
    axes = [axis for entries in model.entries.values() for axis in entries]
    coords |= {name: text_labels(values) for name, values in axes}
    table = ["time", "state", "action"]
    observed = {
        "action_counts": table,
        "share_by_time": ["time", "action"],
        "share_by_state": ["state", "action"],
    }
    constant = {
        "mean_field": table[: len(game.flow_shape)],
        "initial": ["state"],
        "available": table[-game.available.ndim :],
        "visits": ["time", "state"],
    }
    return coords, {
        "posterior": {k: [name for name, _ in entries] for k, entries in model.entries.items()},
        "log_likelihood": {"actions": ["trajectory" if model.nodes is None else "agent"]},
        "observed_data": observed,
        "posterior_predictive": observed,
        "constant_data": constant | {f"feature_{k}": table for k in game.features},
    }


def recorded(density: LogDensity, points: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Return the groups posterior and log_prior at unconstrained points (N, n_dim)."""
    values, deterministics, priors = density.record(points)
    return {"posterior": values | deterministics, "log_prior": priors}


def _predictive(density: LogDensity, theta: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Draw the actions at the states visited, at draws (chain, draw, K).

    Where a draw has no equilibrium there are none, and its shares are NaN.
    """
    rng, model = np.random.default_rng(seed), density.model
    n_chains, n_draws, n_dim = theta.shape
    values = density.constrained(theta.reshape(-1, n_dim))
    visits = model.law.counts.actions.sum(-1).astype(np.int64)
    seen, entries = visits > 0, math.prod(model.game.shape)
    keeps_counts = len(values) * entries <= LARGEST_PREDICTIVE
    size = max(n_chains, min(LARGEST_BATCH // entries, PANELS_AT_ONCE))
    parts: list[dict[str, np.ndarray]] = []
    for k in range(0, len(values), size):
        chances = _chances(density, values[k : k + size], seen)
        played = np.isfinite(chances).all((1, 2))
        chances[~played] = 0.0
        counts = np.zeros((len(chances), *model.game.shape), dtype=np.min_scalar_type(visits.max()))
        counts[:, seen] = rng.multinomial(visits[seen] * played[:, None], chances)
        parts.append(action_shares(counts) | ({"action_counts": counts} if keeps_counts else {}))
    joined = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    return {k: v.reshape(n_chains, n_draws, *v.shape[1:]) for k, v in joined.items()}


def _chances(density: LogDensity, values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the policy where a mask (T, S) holds, (N, n, A), at constrained parameters (N, P)."""
    table = np.empty((len(values), int(seen.sum()), density.model.game.shape[-1]))

    def use(part: slice, given: np.ndarray) -> None:
        np.exp(density.log_policies(given)[:, seen], out=table[part])

    over_draws(density, values, use)
    table /= table.sum(-1, keepdims=True)
    return table


def thinned(theta: np.ndarray, n_wanted: int) -> np.ndarray:
    """Return evenly spaced draws of each chain, about `n_wanted` over all."""
    return theta[:, spaced(theta.shape[1], len(theta), n_wanted)]


def spaced(n_draws: int, n_chains: int, n_wanted: int) -> np.ndarray:
    """Return which draws of each chain to keep, evenly spaced, about `n_wanted` over all."""
    per_chain = min(n_draws, max(1, n_wanted // n_chains))
    return np.linspace(0, n_draws - 1, per_chain).round().astype(int)


def _constants(model: TrajectoryModel) -> dict[str, np.ndarray]:
    game = model.game
    features = {
        f"feature_{k}": model.inputs.stacked(v.broadcast_to(model.inputs.shape)).numpy()
        for k, v in game.features.items()
    }
    return {
        "mean_field": model.mean_field.numpy(),
        "initial": game.initial.numpy(),
        "available": game.available.numpy().astype(np.int8),
        "visits": model.law.counts.actions.sum(-1),
        **features,
    }


def _agents(model: TrajectoryModel) -> dict[str, Any]:
    """Return what makes agents more than soft maximisers of a reward by the game's constants."""
    game = model.game
    parts = parts_drawn(model.reward, model.inputs)
    usual = {"behaviour": "entropy", "lookahead": None, "beliefs": "equilibrium"}
    ways = {k: getattr(game, k) for k, v in usual.items() if getattr(game, k) != v}
    by_type = {k: v.tolist() for k, v in game.constants_by_type.items()}
    return {"parts": parts, "by_type": by_type, **ways}


_version = functools.cache(importlib.metadata.version)


def record_of(model: TrajectoryModel, density: LogDensity) -> dict[str, Any]:
    """Return what is worth knowing of a fit later, as plain attributes."""
    fingerprint = model.fingerprint()
    return {
        "inference_library": "mfgppl",
        "inference_library_version": __version__,
        "versions": json.dumps({k: _version(k) for k in ("torch", "pyro-ppl", "nutpie", "numpy")}),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "likelihood": model.likelihood,
        "start": model.start if model.likelihood == "energy" else "",
        "mean_field": model.flow_kind,
        "density_path": density.path,
        "discount": model.game.discount,
        "temperature": model.game.temperature,
        "agents": json.dumps(_agents(model)),
        "parameters": model.parameters,
        "reward_source": reward_source(model.reward),
        "priors": json.dumps(density.program.priors()),
        "audit": json.dumps(model.panel.audit(), default=str),
        "game_hash": fingerprint["game"],
        "data_hash": fingerprint["data"],
    }
