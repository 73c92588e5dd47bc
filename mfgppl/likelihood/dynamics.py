"""The dynamics of a law as the arrays that kernels read, worked out once."""

from torch import Tensor

from mfgppl._keep import Keeper, keep
from mfgppl._kernels import bridge


class WithDynamics(Keeper):
    """Base of the laws of trajectories.

    Attributes
    ----------
    transition : Tensor, shape (n, S, A, S) or (n, C, S, A, S), n = 1 or T-1
        Dynamics along the flow.
    """

    transition: Tensor

    @property
    def kernel_tables(self) -> bridge.Tables:
        """The transition as the arrays that the kernels read."""
        return keep(self, "kernel_tables", lambda: bridge.tables_of(self.transition))

    def share_dynamics(self, law: "WithDynamics") -> None:
        """Read the arrays of a law with the same transition."""
        keep(self, "kernel_tables", lambda: law.kernel_tables)
