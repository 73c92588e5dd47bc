"""The rank test at one point of the parameters, and what it looks at."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from mfgppl.density.curvature import TOUCHES
from mfgppl.reward.parameters import Program

NOTHING = 1e-9  # effect on what is seen, relative to the reward's change, that counts as none
FOR_MEDIAN = 15  # prior draws whose median stands in for parameters that are not given


@dataclass(frozen=True, eq=False)
class RankTest:
    """The rank test at one point.

    Attributes
    ----------
    rows : ndarray, shape (N, K)
        Effect of each parameter on what is seen, the policy or log probabilities of histories, in
        units of its effect on the reward.
    size : ndarray, shape (K,)
        Those units.
    jacobian : ndarray, shape (P, K)
        Slope of the constrained in the unconstrained parameters.
    values : ndarray, shape (P,)
        The constrained parameters.
    """

    rows: np.ndarray
    size: np.ndarray
    jacobian: np.ndarray
    values: np.ndarray

    @property
    def flat(self) -> np.ndarray:
        """The flat directions (n_flat, K), unconstrained."""
        return self._scaled_flat / self.size

    @property
    def rank(self) -> int:
        """Number of directions that are not flat."""
        return len(self.size) - len(self._scaled_flat)

    @property
    def known(self) -> np.ndarray:
        """Which constrained parameters (P,) lie outside the flat directions."""
        touched = (self._scaled_flat**2).sum(0) > TOUCHES
        known: np.ndarray = ~(self.jacobian[:, touched] != 0).any(1)
        return known

    def leaves(self, direction: np.ndarray) -> bool:
        """Return whether a constrained direction (P,) leaves what is seen as it is."""
        scaled = self.size * (np.linalg.pinv(self.jacobian) @ direction)
        size = max(float(np.linalg.norm(scaled)), 1e-300)
        return bool(np.linalg.norm(self.rows @ scaled) <= 10 * NOTHING * size)

    @functools.cached_property
    def _scaled_flat(self) -> np.ndarray:
        _, sizes, vectors = np.linalg.svd(self.rows)
        known = np.zeros(len(vectors), dtype=bool)
        known[: len(sizes)] = sizes > NOTHING
        return np.asarray(vectors[~known])


Tested = tuple[list[RankTest], tuple[str, ...]]  # at each point, and what is doubtful in words


class Evidence(Protocol):
    """What panels show of the parameters of a program."""

    @property
    def program(self) -> Program:
        """The program, along the flow of agents who act at random."""
        ...

    def middle(self) -> np.ndarray:
        """Return unconstrained parameters (K,) in the middle of the prior."""
        ...

    def equilibrium(self, theta: np.ndarray) -> Tensor:
        """Return the flow in the equilibrium at a point, else raise `ConvergenceError`."""
        ...

    def tests(self, flows: Sequence[Tensor], points: Sequence[np.ndarray]) -> Tested:
        """Return the rank tests at points, of panels along flows."""
        ...


def effects_by_entry(jacobian: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the effects of constrained parameters (P,) of those of unconstrained ones (K,)."""
    weights = np.abs(np.linalg.pinv(jacobian / np.where(sizes > 0, sizes, 1.0)))
    effects = weights.max(0, initial=0.0)
    return np.where(effects > 0, effects, 1.0)
