"""Values at many draws: policies, log likelihoods by trajectory, shares of actions."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from mfgppl.data.trajectories import Trajectories
from mfgppl.density.protocol import LogDensity
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.replay import replay, replay_kinds

LARGEST_BATCH, DRAWS_AT_ONCE = 2**22, 16  # reward entries (32 MB) and draws worked on together
PANELS_AT_ONCE = 64  # whose policies are computed together


def action_shares(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return action shares by time and by state of counts (..., T, S, A), NaN where no decision."""
    shares = {}
    for name, axis in (("share_by_time", -2), ("share_by_state", -3)):
        summed = counts.sum(axis)
        totals = summed.sum(-1, keepdims=True)
        shares[name] = np.where(totals > 0, summed / np.maximum(totals, 1), np.nan)
    return shares


def over_draws(
    density: LogDensity, values: np.ndarray, use: Callable[[slice, np.ndarray], None]
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
    entries = math.prod(density.model.law.core_shape)
    size = int(np.clip(LARGEST_BATCH // entries, 1, DRAWS_AT_ONCE))
    parts = [slice(k, k + size) for k in range(0, len(values), size)]
    if len(parts) == 1:  # no threads to start
        use(parts[0], values)
        return
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda part: use(part, values[part]), parts))


def log_likelihoods(density: LogDensity, values: np.ndarray, panel: Trajectories) -> np.ndarray:
    """Return the log likelihood (N, J) of a panel's trajectories, nats.

    Of its agents where their kinds are not seen, as no trajectory has one by itself.

    Parameters
    ----------
    density : Density
        Of a model, whose law and flow are used; the panel may be another.
    values : ndarray, shape (N, K)
        Flat constrained parameters.
    panel : Trajectories
        Coded as the model's.
    """
    units = density.model.law.units(panel)
    found = np.empty((len(values), units.n))

    def use(part: slice, given: np.ndarray) -> None:
        tables = density.tables(given)
        for k, row in enumerate(found[part]):
            row[:] = units.log_likelihoods([table[k] for table in tables])

    over_draws(density, values, use)
    return found


def panel_at(density: LogDensity, value: np.ndarray, *, random_seed: int) -> Trajectories:
    """Draw the panel of a density's model again, at flat constrained parameters (P,)."""
    model = density.model
    if isinstance(model.law, KindsLikelihood):
        core, flow = density.rewards(value[None])[0], torch.from_numpy(density.flows(value[None]))
        return replay_kinds(model, core, flow=flow[0], random_seed=random_seed)[0]
    policy = policies(density, value[None])[0]
    policy /= policy.sum(-1, keepdims=True)
    return replay(model, policy, random_seed=random_seed)


def panels_at(
    density: LogDensity, values: np.ndarray, seeds: Sequence[int]
) -> Iterator[Trajectories]:
    """Draw the panel again at each of some flat constrained parameters (N, P)."""
    if isinstance(density.model.law, KindsLikelihood):
        for value, seed in zip(values, seeds, strict=True):
            yield panel_at(density, value, random_seed=seed)
        return
    entries = math.prod(density.model.game.shape)
    size = int(np.clip(LARGEST_BATCH // entries, 1, PANELS_AT_ONCE))
    for k in range(0, len(values), size):
        table = policies(density, values[k : k + size])
        table /= table.sum(-1, keepdims=True)
        for policy, seed in zip(table, seeds[k : k + size], strict=True):
            yield replay(density.model, policy, random_seed=seed)


def policies(density: LogDensity, values: np.ndarray) -> np.ndarray:
    """Return policies (N, T, S, A) at flat constrained parameters (N, K)."""
    table = np.empty((len(values), *density.model.game.shape))

    def use(part: slice, given: np.ndarray) -> None:
        np.exp(density.log_policies(given), out=table[part])

    over_draws(density, values, use)
    return table
