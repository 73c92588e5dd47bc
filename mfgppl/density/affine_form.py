"""The form of a reward that is affine in its parameters, proved by its recorded operations."""

import math
from typing import NamedTuple

import numpy as np
import pyro
import torch

from mfgppl._compiler.linearity import is_affine
from mfgppl._compiler.operations import KNOWN
from mfgppl._compiler.tracing import Trace, pruned, record, replay
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import double_precision


class Features(NamedTuple):
    """A reward that is affine in the constrained parameters: `offset + weights @ matrix`.

    Attributes
    ----------
    matrix : ndarray, shape (K, T * S * A)
        Its slope, one row per parameter; zero where an action is not available.
    offset : ndarray, shape (T * S * A,)
        Its value at zero, -inf where an action is not available.
    """

    matrix: np.ndarray
    offset: np.ndarray


def recorded_table(program: Program) -> Trace:
    """Record what a law reads as a function of the flat parameters.

    Raises
    ------
    Untraceable
        If the program reads the value of a parameter.
    """
    with double_precision(), pyro.validation_enabled(False), torch.no_grad():
        point = program.at(torch.from_numpy(program.draw(1))).flat_values
        return pruned(record([program.flat_core], [point], KNOWN))


def affine_form(program: Program, trace: Trace) -> Features | None:
    """Return slope and offset of a recorded reward; None unless each operation is affine."""
    if not is_affine(trace):
        return None
    table = replay(trace, 0)
    size = sum(math.prod(site.shape) for site in program.sites)
    offset = table(torch.zeros(size, dtype=torch.float64)).numpy().copy()
    forbidden = (~program.game.available).expand(program.game.shape).reshape(-1).numpy()
    at_zero = np.where(forbidden, 0.0, offset)
    rows = [table(unit).numpy() for unit in torch.eye(size, dtype=torch.float64)]
    matrix = np.where(forbidden, 0.0, np.stack(rows)) - at_zero
    if not (np.isfinite(matrix).all() and np.isfinite(at_zero).all()):
        return None
    return Features(np.ascontiguousarray(matrix), np.where(forbidden, -np.inf, at_zero))
