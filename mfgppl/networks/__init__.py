"""Networked crowds: graphons, networks drawn from them, and what a network can show.

May import what is below hypotheses and design.
"""

from mfgppl.networks.graphons import graphon, sampled
from mfgppl.networks.peers import dynamics, simulate
from mfgppl.networks.structure import audit

__all__ = ["audit", "dynamics", "graphon", "sampled", "simulate"]
