"""Networked crowds: graphons, networks drawn from them, and what a network can show.

May import what is below hypotheses and design.
"""

from mfgppl.networks.graphons import graphon, sampled

__all__ = ["graphon", "sampled"]
