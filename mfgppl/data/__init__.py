"""Panels: reading, checking, counting.

What is in a table of agents: its faults, counts, flow and moves. May import control and what is
below it.
"""
