"""The log density of a model over one flat vector of unconstrained parameters.

Compiled once from the reward program and the likelihood; its derivatives, its maximum, its values
at many draws. May import likelihoods and what is below them.
"""
