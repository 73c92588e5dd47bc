"""The coupled likelihood: the flow is the equilibrium under the reward itself.

`log L = sum_tsa N_t(s, a) log pi_t(a|s) + sum_tsax M_t(s, a, x) log P_t(x|s, a)`, both along
`mu(theta)`; the second sum is there where the crowd moves the dynamics, which are then informative
about it too.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mfgppl.data.panel import Counts
from mfgppl.data.trajectories import Trajectories
from mfgppl.likelihood.base_law import WithDynamics
from mfgppl.likelihood.causal import CausalLikelihood
from mfgppl.likelihood.stationary_games import StationaryLikelihood
from mfgppl.likelihood.terms import Term, move_places, moves


@dataclass(frozen=True, eq=False)
class CoupledLikelihood(WithDynamics):
    """The law of actions, and of the moves that the crowd drives, along a flow that is solved for.

    Attributes
    ----------
    transition : Tensor, shape (n, S, A, S) or (n, C, S, A, S), n = 1 or T-1
        Dynamics along the flow where the search for the equilibrium starts.
    counts : Counts
        Sufficient statistics of the panel.
    discount, temperature : float
        The game's constants.
    moves : Tensor, of the transition's shape, or None
        How often each move was seen, where the crowd moves the dynamics.
    stationary : bool
        Whether the game has no horizon; T is then 1, and there is one table.
    """

    transition: Tensor
    counts: Counts
    discount: float
    temperature: float
    moves: Tensor | None
    stationary: bool

    def along(self, transition: Tensor) -> CausalLikelihood | StationaryLikelihood:
        """Return the law of the actions along a flow, with its dynamics."""
        kind = StationaryLikelihood if self.stationary else CausalLikelihood
        return kind(transition, self.counts, self.discount, self.temperature)

    def log_policy(self, solved: np.ndarray) -> np.ndarray:
        """Return log policies as they come: they are solved for with the flow."""
        return solved

    def log_moves(self, transition: Tensor) -> Tensor:
        """Return what the moves add, with a slope also where others are impossible."""
        assert self.moves is not None
        seen = transition.masked_fill(self.moves == 0, 1.0)
        return (self.moves * seen.log()).sum()

    def terms(self, panel: Trajectories) -> list[Term]:
        """Return what each trajectory adds."""
        terms = self.along(self.transition).terms(panel)
        if self.moves is not None:
            terms.append(Term(1, *moves(panel, tuple(self.moves.shape)), 1.0))
        return terms


class Coupled(Protocol):
    """A law along a flow that is solved for, of agents of one kind or of several."""

    @property
    def moves(self) -> Tensor | None:
        """How often each move was seen, where the crowd moves the dynamics."""

    def along(self, transition: Tensor) -> Any:
        """Return the law of the actions along a flow, with its dynamics."""

    def log_moves(self, transition: Tensor) -> Tensor:
        """Return what the moves add."""


def tables_along(law: Coupled, core: Tensor, transition: Tensor) -> tuple[Tensor, ...]:
    """Return a law's tables along a flow, and the log transition where moves count."""
    tables: tuple[Tensor, ...] = law.along(transition).tables(core)
    return tables if law.moves is None else (*tables, transition.log())


def log_likelihood_along(law: Coupled, core: Tensor, transition: Tensor) -> Tensor:
    """Return the log likelihood along a flow, in plain torch."""
    value: Tensor = law.along(transition).log_likelihood(core)
    return value if law.moves is None else value + law.log_moves(transition)


def moves_seen(steps: np.ndarray, n: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """Return how often each move (t, s, a, x) was seen, in a table of a shape; later ones drop."""
    table, kept = np.zeros(shape), steps[:, 0] < shape[0]
    table.reshape(-1)[move_places(steps[kept], shape)] = n[kept]
    return torch.from_numpy(table)
