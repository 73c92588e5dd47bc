"""The base of laws: their dynamics as arrays, and what has a log likelihood of its own."""

import abc
from typing import Protocol

from torch import Tensor

from mfgppl._keep import Keeper, keep, kept
from mfgppl._kernels import bridge
from mfgppl.data.panel import Counts
from mfgppl.data.trajectories import Trajectories
from mfgppl.likelihood.terms import Term, Units, add_up


class HasTables(Protocol):
    """What knows its dynamics as arrays."""

    @property
    def kernel_tables(self) -> bridge.Tables:
        """The transition as the arrays that the kernels read."""


class WithDynamics(Keeper, abc.ABC):
    """Base of the laws of trajectories.

    Attributes
    ----------
    transition : Tensor, shape (n, S, A, S) or (n, C, S, A, S), n = 1 or T-1
        Dynamics along the flow.
    counts : Counts
        Sufficient statistics of the panel.
    """

    transition: Tensor
    counts: Counts

    @property
    def core_shape(self) -> tuple[int, ...]:
        """Shape of a reward as the law takes it, (T, S, A) where agents are of one kind."""
        return self.counts.actions.shape

    @property
    @kept
    def kernel_tables(self) -> bridge.Tables:
        """The transition as the arrays that the kernels read."""
        return bridge.tables_of(self.transition)

    @abc.abstractmethod
    def terms(self, panel: Trajectories) -> list[Term]:
        """Return what each trajectory adds."""

    def units(self, panel: Trajectories) -> Units:
        """Return each trajectory of a panel, coded as the law's."""
        terms, n = self.terms(panel), panel.n_trajectories
        return Units(n, lambda tables: add_up(terms, tables, n))

    def share_dynamics(self, law: HasTables) -> None:
        """Take over the arrays of a law with the same transition."""
        keep(self, "kernel_tables", lambda: law.kernel_tables)
