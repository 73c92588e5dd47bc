"""From tensor programs to the tape machine: a record of operations, and its instructions.

How a program of tensors becomes instructions, its derivative and a proof of linearity. May import
kernels.
"""
