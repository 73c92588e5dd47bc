"""What a climb led to: a maximum, a point that is none, or a likelihood that has none."""

import warnings
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from mfgppl.density.curvature import (
    Curvature,
    analyse_curvature,
    describe_direction,
    readable,
    without,
    without_effect,
)
from mfgppl.density.sizes import Effects
from mfgppl.estimation.newton import Climb, Height
from mfgppl.estimation.separation import is_endless, separated_along, weak_directions
from mfgppl.exceptions import ConvergenceWarning, IdentificationWarning

NOT_IDENTIFIED = "the data do not identify "  # begins what names a flat direction
NEAR, JUMP = 1e-8, 1e-6  # temperatures about a kink, and the jump relative to the largest slope
EDGE = 1e-5  # temperatures by which a reward moves where a parameter counts as at its edge


class Judgement(NamedTuple):
    """What a climb led to.

    Attributes
    ----------
    converged : bool
        Whether it is a maximum, within tolerance.
    reason : str
        Why it ended.
    information : ndarray, shape (K, K)
        Minus the second derivatives; nothing along directions that separate choices.
    curvature : Curvature
        What it says of each direction.
    sizes : ndarray, shape (K,)
        Root of the largest information that each parameter can have.
    edge : ndarray of bool, shape (P,)
        Which constrained parameters are at the edge of their support.
    separated : ndarray, shape (K,), or None
        A direction along which the likelihood rises without end.
    flat : ndarray, shape (n_flat, K)
        Directions that the data do not know, but for those that separate choices.
    entries : ndarray, shape (P,)
        Largest change of a reward by a unit of each constrained parameter, in temperatures.
    """

    converged: bool
    reason: str
    information: np.ndarray
    curvature: Curvature
    sizes: np.ndarray
    edge: np.ndarray
    separated: np.ndarray | None
    flat: np.ndarray
    entries: np.ndarray


def judged(
    height: Height,
    end: Climb,
    effects: Effects,
    slope: np.ndarray,
    probes: np.ndarray | None,
    names: list[str],
    *,
    tolerance: float,
    with_prior: bool,
) -> Judgement:
    """Say what a climb led to.

    Parameters
    ----------
    height : Height
        What was climbed.
    end : Climb
        Where it ended.
    effects : Effects
        What parameters do to rewards.
    slope : ndarray, shape (P, K)
        Slope of the constrained in the unconstrained parameters there.
    probes : ndarray, shape (n_points, J, K), or None
        Gradients by trajectory at several points.
    names : list of str
        The constrained parameters.
    tolerance : float
        Residual, in standard errors, that counts as none.
    with_prior : bool
        Whether a prior gives parameters a scale too.
    """
    information, sizes, moves = end.information, effects.sizes(slope), effects.moves(slope)
    separated = separated_along(height, end.theta, information, moves, effects.n_decisions)
    curvature = analyse_curvature(information, probes, sizes)
    flat = curvature.flat
    if separated is not None:
        scale = np.where(moves > 0, moves, 1.0)
        weak = weak_directions(information, moves, effects.n_decisions)
        standard = without(information / np.outer(scale, scale), weak)
        information = standard * np.outer(scale, scale)
        curvature = analyse_curvature(information, probes, sizes)
        flat = _open(height, end, moves, probes, sizes)
    finite = bool(np.isfinite(information).all())
    small = end.residual <= tolerance
    reason = f"{end.residual:.1e} standard errors from the maximum"
    if not finite:
        reason = "near the point the fitted game has no equilibrium that is found"
    if curvature.saddle:
        reason += ", but the point is not a maximum"
    if separated is not None:
        reason = _no_maximum(slope @ separated, names, effects.entries)
    converged = small and finite and not curvature.saddle and separated is None
    edge = at_edge(slope, effects.entries, with_prior)
    return Judgement(
        converged, reason, information, curvature, sizes, edge, separated, flat, effects.entries
    )


def _open(
    height: Height,
    end: Climb,
    moves: np.ndarray,
    probes: np.ndarray | None,
    sizes: np.ndarray,
) -> np.ndarray:
    """Return directions without effect (n, K) that do not separate choices either."""
    flat = np.zeros((0, len(moves))) if probes is None else without_effect(probes, sizes)
    ends = [
        any(is_endless(height, end.theta, end.value, s * row, moves) for s in (1.0, -1.0))
        for row in flat
    ]
    return flat[~np.array(ends, dtype=bool)]


def _no_maximum(direction: np.ndarray, names: list[str], entries: np.ndarray) -> str:
    combination = describe_direction(direction, names, entries)
    way = "rises" if direction[np.abs(direction).argmax()] > 0 else "falls"
    return (
        f"no maximum: the choices are separated along {combination}, and the likelihood rises for "
        f"ever as that {way}"
    )


def at_edge(slope: np.ndarray, entries: np.ndarray, with_prior: bool) -> np.ndarray:
    """Return which constrained parameters (P,) no longer move with their unconstrained ones.

    By their effect on the reward, where they have one; with a prior by their own unit too. A
    support without an edge has the slope 1 everywhere.
    """
    steep = np.abs(slope).max(1, initial=0.0)
    unit = np.where(entries > 0, np.maximum(entries, 1.0) if with_prior else entries, 1.0)
    return np.asarray((steep != 1.0) & (steep * unit < EDGE))


def warn_of(
    judgement: Judgement,
    params: pd.Series,
    slope: np.ndarray,
    *,
    hierarchical: bool,
    stacklevel: int,
) -> tuple[str, ...]:
    """Warn of what makes the numbers unusable; return the messages for the record."""
    names, edge = list(params.index), judgement.edge
    messages = []
    if not judgement.converged:
        messages.append(f"the fit did not converge: {judgement.reason}")
        warnings.warn(messages[-1], ConvergenceWarning, stacklevel=stacklevel)
    for name in params.index[edge]:
        messages.append(
            f"{name!r} is at the edge of its support ({params[name]:.3g}); it has no standard error"
            + ("; the mode of a hierarchical prior collapses there: use nuts" * hierarchical)
        )
        warnings.warn(messages[-1], IdentificationWarning, stacklevel=stacklevel)
    # around a collapsed mode the curvature has no scale, and its flat directions no meaning
    flat = judgement.flat[:0] if hierarchical and edge.any() else judgement.flat
    for weights in combinations(flat, slope, names, judgement.entries, edge):
        messages.append(f"{NOT_IDENTIFIED}{weights}; its parameters have no standard error")
        warnings.warn(messages[-1], IdentificationWarning, stacklevel=stacklevel)
    return tuple(messages)


def kinks(height: Height, theta: np.ndarray, effects: Effects, slope: np.ndarray) -> np.ndarray:
    """Return in which unconstrained parameters (K,) the slope jumps at a point.

    Under behaviour="boltzmann" what follows is worth what the best action is: where two tie, the
    likelihood has a kink, and no curvature.
    """
    moves, sizes = effects.moves(slope), effects.sizes(slope)
    jumps = np.zeros(len(theta), dtype=bool)
    for k in np.flatnonzero(moves > 0):
        step = np.zeros_like(theta)
        step[k] = NEAR / moves[k]
        above = height.value_and_gradient(theta + step)[1][k]
        below = height.value_and_gradient(theta - step)[1][k]
        jumps[k] = abs(above - below) > JUMP * sizes[k] ** 2 / moves[k]
    return jumps


def combinations(
    flat: np.ndarray,
    slope: np.ndarray,
    names: list[str],
    entries: np.ndarray,
    edge: np.ndarray | None = None,
) -> list[str]:
    """Return in words what unconstrained directions (n, K) move, but for parameters at an edge."""
    moved = [slope @ direction for direction in flat]
    inside = slice(None) if edge is None else ~edge
    moved = [row for row in moved if np.abs(row[inside]).max(initial=0.0) > 0.0]
    if len(moved) > 1:
        moved = list(readable(np.stack(moved, axis=1), np.where(entries > 0, entries, 1.0)))
    return [describe_direction(row, names, entries) for row in moved]


def warned(messages: Iterable[str], stacklevel: int) -> tuple[str, ...]:
    """Warn of what speaks against a fit beside its climb; return it for the record."""
    messages = tuple(messages)
    for message in messages:
        warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)
    return messages
