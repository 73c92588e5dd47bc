"""Reward programs and what they see.

What an agent may care about: inputs, programs, and their parameters as one vector. May import
games and what is below them.
"""
