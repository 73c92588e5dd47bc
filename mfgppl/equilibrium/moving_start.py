"""A crowd's start that moves with the parameters: `mu^k_0(s) = w_k(s) mu_0(s)` of kinds k.

Log shares are recorded with their derivative as functions of the flat parameters; where that fails
they are run as they are.
"""

from collections.abc import Callable

import numpy as np
import pyro
import torch
from torch import Tensor

from mfgppl._compiler.lowering import lower
from mfgppl._compiler.operations import KNOWN
from mfgppl._compiler.tracing import pruned, record
from mfgppl._kernels import bridge
from mfgppl.equilibrium.exposures import Exposures
from mfgppl.equilibrium.recording import NOT_RECORDED
from mfgppl.reward.program import double_precision

AGREEMENT = 1e-10  # of what is recorded with what it records
Array = np.ndarray
Function = Callable[[Array], Array]
Differentiable = Callable[[Tensor], Tensor]


class MovingStart:
    """Shares of kinds, and the start of the crowd that they make.

    Parameters
    ----------
    log_shares : callable
        Flat parameters (P,) to log shares of nodes by state (N, S).
    initial : ndarray, shape (S,)
        The start of all kinds together.
    values : ndarray, shape (P,)
        Parameters at which the shares are recorded.

    Attributes
    ----------
    exposures : Exposures or None
        What agents read of the flow of all nodes: its sum over them.
    """

    def __init__(
        self, log_shares: Differentiable, initial: Array, values: Array, exposures: Exposures
    ) -> None:
        self._initial, self.exposures = initial, exposures
        size = len(values)

        def pulled(both: Tensor) -> Tensor:
            with torch.enable_grad():
                at = both[:size].detach().requires_grad_(True)
                weighed = (log_shares(at).reshape(-1) * both[size:]).sum()
                if not weighed.requires_grad:
                    return torch.zeros_like(both[:size])
                (slope,) = torch.autograd.grad(weighed, at, allow_unused=True)
            return torch.zeros_like(both[:size]) if slope is None else slope.contiguous()

        self._log_shares = _recorded(lambda at: log_shares(at).reshape(-1), values)
        n_shares = len(self._log_shares(values))
        self._pulled = _recorded(pulled, np.append(values, np.ones(n_shares)))

    def log_shares(self, values: Array) -> Array:
        """Return log shares (N, S) at flat parameters (P,)."""
        return self._log_shares(values).reshape(-1, len(self._initial))

    def initial(self, values: Array) -> Array:
        """Return the start (N * S,)."""
        return np.asarray((np.exp(self.log_shares(values)) * self._initial).ravel())

    def pulled(self, values: Array, weights: Array) -> Array:
        """Return the slope (P,) of log shares summed by weights (N, S)."""
        return self._pulled(np.append(values, weights))


def _recorded(function: Differentiable, point: Array) -> Function:
    """Return a function of a flat array on the tape machine, or as it is where that fails."""

    def plain(at: Array) -> Array:
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            found: Array = function(torch.from_numpy(np.array(at, dtype=float))).numpy()
        return found

    try:
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            given = torch.from_numpy(np.array(point, dtype=float))
            tape = lower(pruned(record([function], [given], KNOWN)))
    except NOT_RECORDED:
        return plain

    def played(at: Array) -> Array:
        return bridge.each_on_tape(tape, at[None])[0]

    elsewhere = point + np.linspace(0.01, 0.02, len(point)) * np.maximum(np.abs(point), 1.0)
    pairs = ((plain(at), played(at)) for at in (point, elsewhere))
    same = all(np.allclose(a, b, rtol=AGREEMENT, atol=AGREEMENT, equal_nan=True) for a, b in pairs)
    return played if same else plain
