"""What a log density is: one protocol for plug-in and coupled models."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from mfgppl._kernels import bridge
from mfgppl.density.compiled_program import Compiled
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.parameters import Program

STARTS = 15  # draws from the prior whose median is where a search starts
TOLERANCE = 1e-11  # residual of an equilibrium that counts as one


class Certificates(NamedTuple):
    """What is known of the equilibria at some parameters.

    Attributes
    ----------
    residual : ndarray, shape (N,)
        Largest change of a share under one more response.
    n_equilibria : ndarray of int, shape (N,)
        Distinct ones met from several starts; 0 where none was found.
    """

    residual: np.ndarray
    n_equilibria: np.ndarray

    def messages(self) -> list[str]:
        """Return what speaks against the equilibria of draws, or of a point; empty if nothing."""
        n, several = len(self.residual), int((self.n_equilibria > 1).sum())
        none = int((~(self.residual <= TOLERANCE)).sum())
        at = f"at {{}} of {n} draws" if n > 1 else "at the estimate"
        messages = []
        if none:
            messages.append(
                f"no equilibrium is found {at.format(none)}: the fitted game has none that is "
                "reached from the flow observed."
            )
        if several:
            messages.append(
                f"the game has several equilibria {at.format(several)}; the likelihood is that of "
                "the one reached from the flow observed, and intervals do not count that the crowd "
                "may play another."
            )
        return messages


class LogDensity(Protocol):
    """The log density of a model over one flat vector of unconstrained parameters."""

    @property
    def model(self) -> TrajectoryModel:
        """The model."""

    @property
    def program(self) -> Program:
        """The reward program over that vector."""

    @property
    def n_dim(self) -> int:
        """The vector's length."""

    @property
    def path(self) -> str:
        """How it is evaluated."""

    @property
    def is_native(self) -> bool:
        """Whether it runs without Python."""

    def start(self, random_seed: int) -> np.ndarray:
        """Return unconstrained parameters (K,) where a search starts."""

    def native(self, *, prior: float = 1.0, jacobian: float = 1.0) -> bridge.NativeDensity | None:
        """Return it as a density that runs without Python, None where it cannot."""

    def evaluator(self, *, prior: float = 1.0, jacobian: float = 1.0) -> bridge.Evaluator:
        """Return theta to (log density, gradient), in a workspace of its own.

        Parameters
        ----------
        prior, jacobian : float
            Weights of the log prior and of the log Jacobian: (1, 1) is the unconstrained
            posterior, (1, 0) the constrained one, (0, 0) the log likelihood.
        """

    def constrained(self, points: np.ndarray) -> np.ndarray:
        """Return flat constrained parameters (N, P) at unconstrained points (N, n_dim)."""

    def record(self, points: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Return constrained values, deterministics and log priors by site at points."""

    def rewards(self, values: np.ndarray) -> np.ndarray:
        """Return reward tables (N, T, S, A) at flat constrained parameters (N, P)."""

    def second_derivatives(self, theta: np.ndarray, *, prior: float, jacobian: float) -> np.ndarray:
        """Return second derivatives (K, K) of the weighed density."""

    @property
    def compiled(self) -> Compiled:
        """The reward program ready for fast evaluation."""

    def for_model(self, model: TrajectoryModel) -> "LogDensity":
        """Return the density of a model with the same game, program and flow, of another panel."""

    def tables(self, values: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the tables (N, ...) whose entries trajectories add up, at values (N, P)."""

    def log_policies(self, values: np.ndarray) -> np.ndarray:
        """Return log policies (N, T, S, A) at flat constrained parameters (N, P)."""

    def flows(self, values: np.ndarray) -> np.ndarray:
        """Return the flows that agents face at flat constrained parameters (N, P)."""

    def heights(self, values: np.ndarray) -> np.ndarray:
        """Return log likelihoods (N,) at flat constrained parameters (N, P)."""

    def table_slopes(self, theta: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield the slopes of the tables in each unconstrained parameter."""

    def certificates(self, values: np.ndarray) -> Certificates | None:
        """Return what is known of the equilibria at values (N, P); None where none is solved."""
