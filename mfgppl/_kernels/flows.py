"""What is done with a flow (T, F) by itself."""

import numpy as np

from mfgppl._kernels import caching
from mfgppl._kernels.dynamics import jit_options

jit = caching.jit(**jit_options)


@jit
def gap(flow, generated):
    """Return the largest change of a share; NaN where one is."""
    largest = 0.0
    for t in range(flow.shape[0]):
        for i in range(flow.shape[1]):
            change = abs(generated[t, i] - flow[t, i])
            if change != change:
                return np.nan
            largest = max(largest, change)
    return largest


@jit
def as_shares(flow, out):
    """Fill a flow (T, F) without negative shares, each time's summing to one."""
    for t in range(flow.shape[0]):
        total = 0.0
        for i in range(flow.shape[1]):
            out[t, i] = max(flow[t, i], 0.0) if flow[t, i] == flow[t, i] else np.nan
            total += out[t, i]
        for i in range(flow.shape[1]):
            out[t, i] /= total
