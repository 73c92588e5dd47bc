"""How much parameters move rewards: the units in which a fit is climbed and judged.

A feature measured in other units changes estimates and their derivatives by powers of ten. What is
compared with a constant is therefore measured in the parameter's own effect on the reward.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pyro
import torch
from torch import Tensor

from mfgppl._keep import keep, kept_with
from mfgppl.density.protocol import LogDensity
from mfgppl.density.table_changes import table_changes
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import double_precision

ROUNDING = 1e-14  # change of a reward by a unit of a parameter, relative to it, that is none
PRIOR_DRAWS = 5  # at which the slope of the log prior is looked at


class Effects(NamedTuple):
    """What parameters do to rewards, and how large a panel shows it.

    Attributes
    ----------
    entries : ndarray, shape (P,)
        Largest change of a reward by a unit of each constrained parameter, in temperatures.
    n_decisions : int
        Decisions of the panel.
    n_steps : float
        Steps over which rewards add up in an agent's values.
    """

    entries: np.ndarray
    n_decisions: int
    n_steps: float

    def moves(self, slope: np.ndarray) -> np.ndarray:
        """Return the largest change of a reward by a unit of each unconstrained parameter (K,).

        Parameters
        ----------
        slope : ndarray, shape (P, K)
            Slope of the constrained in the unconstrained parameters.
        """
        return np.asarray(np.abs(slope).T @ self.entries)

    def sizes(self, slope: np.ndarray) -> np.ndarray:
        """Return the root of the largest information that unconstrained parameters can have (K,).

        What is below rounding of it is rounding.
        """
        return self.n_steps * np.sqrt(self.n_decisions) * self.moves(slope)


def slope_at(program: Program, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return flat constrained parameters (P,) and their slope (P, K) in the unconstrained ones.

    Those at the last point are kept, where several quantities are asked for in turn.
    """
    kept = kept_with(program)
    at, values, slope = kept.get("slope", (None, None, None))
    if at is None or not np.array_equal(at, theta, equal_nan=True):
        values, slope = _slope_at(program, theta)
        kept["slope"] = theta.copy(), values, slope
    return values.copy(), slope.copy()


def _slope_at(program: Program, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with double_precision(), pyro.validation_enabled(False):
        point = torch.from_numpy(theta.copy())
        slope = torch.autograd.functional.jacobian(lambda free: _values(program, free), point)
        return _values(program, point).numpy(), slope.numpy()


def bend_at(program: Program, theta: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return second derivatives (K, K) of the constrained parameters, summed by weights (P,)."""

    def weighted(free: Tensor) -> Tensor:
        return torch.from_numpy(weights) @ _values(program, free)

    with double_precision(), pyro.validation_enabled(False):
        point = torch.from_numpy(theta.copy())
        return torch.autograd.functional.hessian(weighted, point).numpy()


def prior_bend_at(program: Program, theta: np.ndarray) -> np.ndarray:
    """Return second derivatives (K, K) of the log prior in the unconstrained parameters."""

    def log_prior(free: Tensor) -> Tensor:
        return program.at(free).log_prior

    with double_precision(), pyro.validation_enabled(False):
        return torch.autograd.functional.hessian(log_prior, torch.from_numpy(theta.copy())).numpy()


def _values(program: Program, free: Tensor) -> Tensor:
    """Return flat constrained parameters (P,) of unconstrained ones (K,)."""
    return program.at(free).flat_values


def effects_of(density: LogDensity, theta: np.ndarray) -> Effects:
    """Return what parameters do to rewards, of a nonlinear reward where it is first asked for."""
    at = density.constrained(theta[None])[0]
    entries = keep(density, "entries", lambda: _entries(density, at))
    game = density.model.game
    length = 1 / (1 - game.discount) if game.horizon is None else game.horizon
    return Effects(entries, density.model.panel.n_decisions, float(length))


def climbing_units(
    density: LogDensity, effects: Effects, slope: np.ndarray, *, prior: float
) -> np.ndarray:
    """Return the step of each unconstrained parameter that is of order one (K,).

    It changes a reward by a temperature, or the log prior by a nat where that is less.
    """
    moves = effects.moves(slope)
    if prior:
        moves = np.maximum(moves, _prior_slopes(density))
    return 1 / np.where(moves > 0, moves, 1.0)


def _entries(density: LogDensity, values: np.ndarray) -> np.ndarray:
    temperature = density.model.game.temperature
    if density.compiled.affine is not None:
        matrix = density.compiled.affine.matrix
        return np.abs(matrix).max(1, initial=0.0) / temperature
    return _moved(density, values, np.eye(len(values))) / temperature


def idle_at(density: LogDensity, theta: np.ndarray) -> np.ndarray:
    """Return which unconstrained parameters (K,) change no reward, here or at prior draws.

    Where the table that agents answer is worked out from their plans, a change of no more than its
    rounding is none.
    """
    slope = slope_at(density.program, theta)[1]
    idle = effects_of(density, theta).moves(slope) == 0
    points = [theta, *(density.program.draw(seed) for seed in range(PRIOR_DRAWS))]
    for point in points if density.compiled.affine is None else []:
        if not idle.any():
            break
        values, slope = slope_at(density.program, point)
        idle[idle] = _moved(density, values, slope[:, idle].T) == 0
    return idle


def _moved(density: LogDensity, values: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the largest change of the reward along directions (n, P), 0 where it is rounding."""
    least = 0.0
    if not density.program.answers_reward:
        table = density.rewards(np.array(values, dtype=float)[None])
        least = ROUNDING * float(np.abs(table[np.isfinite(table)]).max(initial=0.0))
    changes = table_changes(density.program, np.array(values, dtype=float), directions)
    moved = np.array([np.abs(change).max(initial=0.0) for change in changes])
    return np.where(moved > least * np.abs(directions).max(1, initial=0.0), moved, 0.0)


def _prior_slopes(density: LogDensity) -> np.ndarray:
    """Return the mean size of the log prior's slope at draws from it (K,)."""
    both, one = (density.evaluator(prior=prior, jacobian=0.0) for prior in (1.0, 0.0))
    points = [density.program.draw(seed) for seed in range(PRIOR_DRAWS)]
    with np.errstate(all="ignore"):
        slopes = np.abs([both(p)[1] - one(p)[1].copy() for p in points])
    slopes[~np.isfinite(slopes)] = 0.0
    return np.asarray(slopes.mean(0))


def constrained_at(density: LogDensity, theta: np.ndarray) -> tuple[pd.Series, np.ndarray]:
    """Return the constrained parameters by name and their slope in the unconstrained ones."""
    flat, slope = slope_at(density.program, theta)
    return pd.Series(flat, density.program.entry_names(), name="estimate"), slope
