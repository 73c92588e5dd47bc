"""What the crowd would do in another world, with the uncertainty of a fit.

May import hypotheses and design, and what is below them.
"""
