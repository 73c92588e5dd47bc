"""Private numba loops and their bridge to torch."""
