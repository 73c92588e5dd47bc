"""Fits: the compiled density, point estimates, draws, their products."""
