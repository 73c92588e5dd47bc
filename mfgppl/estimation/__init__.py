"""Point estimates: maximum likelihood, posterior modes, their errors and refits of many panels.

May import densities and what is below them.
"""
