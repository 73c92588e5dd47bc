"""Outer steps: quasi-Newton for smooth inner problems, subgradient steps for others."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfgppl._quasi_newton import maximise


class Point(NamedTuple):
    """An objective at one point.

    Attributes
    ----------
    value : float
        The objective.
    slope : ndarray
        Its gradient, or a subgradient.
    reached : Tensor, shape (T, S, A)
        The occupancy of the inner problem's solution.
    gap : float
        Total variation of the data's occupancy from it, averaged over time.
    """

    value: float
    slope: np.ndarray
    reached: Tensor
    gap: float


Objective = Callable[[np.ndarray], Point]


class Climb(NamedTuple):
    """Where an ascent ended.

    Attributes
    ----------
    point : ndarray
        The parameters.
    history : list of dict
        `objective`, `gradient` (largest entry) and `gap` (of occupancies) of each evaluation.
    slope : float
        Largest entry of the gradient at the end.
    reached : Tensor, shape (T, S, A)
        The inner problem's occupancy at the end.
    """

    point: np.ndarray
    history: list[dict[str, float]]
    slope: float
    reached: Tensor


def quasi_newton(
    objective: Objective, start: np.ndarray, *, max_steps: int, tolerance: float
) -> Climb:
    """Maximise a smooth objective by SciPy's L-BFGS.

    Parameters
    ----------
    objective : callable
        A point to value, gradient and gap of occupancies.
    start : ndarray
        Where to start.
    max_steps : int
        Evaluations at most.
    tolerance : float
        Largest entry of the gradient that counts as zero.
    """
    history: list[dict[str, float]] = []

    def height(point: np.ndarray) -> tuple[float, np.ndarray]:
        at = objective(point)
        history.append(_row(at))
        return at.value, at.slope

    point, _, _ = maximise(
        height,
        start,
        tolerance=tolerance,
        gain=1e-15,
        max_steps=max_steps,
        max_evaluations=max_steps,
    )
    at = objective(point)
    return Climb(point, history, float(np.abs(at.slope).max()), at.reached)


def subgradient(
    objective: Objective, start: np.ndarray, *, max_steps: int, learning_rate: float
) -> Climb:
    """Maximise an objective with kinks by Adam with falling steps; return its best point.

    Parameters
    ----------
    objective : callable
        A point to value, a subgradient and gap of occupancies.
    start : ndarray
        Where to start.
    max_steps : int
        Steps.
    learning_rate : float
        The first step's size; it falls as one over the root of the steps.
    """
    point = torch.tensor(start, dtype=torch.float64)
    adam = torch.optim.Adam([point], lr=learning_rate)
    best, where, history = objective(start), start, []
    for k in range(max_steps):
        at = objective(point.numpy())
        history.append(_row(at))
        if at.value > best.value:
            best, where = at, point.numpy().copy()
        point.grad = torch.from_numpy(-at.slope)
        adam.param_groups[0]["lr"] = learning_rate / (1.0 + k / 10.0) ** 0.5
        adam.step()
    return Climb(where, history, float(np.abs(best.slope).max()), best.reached)


def _row(at: Point) -> dict[str, float]:
    return {
        "objective": at.value,
        "gradient": float(np.abs(at.slope).max(initial=0.0)),
        "gap": at.gap,
    }
