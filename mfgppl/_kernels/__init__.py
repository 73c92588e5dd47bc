"""Private numba loops and their bridge to torch.

How the sweeps over time are computed fast; each loop has a plain twin in a room above. Imports no
room; torch is met in `bridge` alone.
"""
