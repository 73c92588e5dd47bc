"""One agent's problem along a given flow: tables in, tables out.

Soft backward induction, the law of motion, stationary policies. May import kernels alone.
"""
