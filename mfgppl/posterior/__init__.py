"""Posterior draws: samplers, approximations, their convergence, and results in files.

May import estimation and what is below it.
"""
