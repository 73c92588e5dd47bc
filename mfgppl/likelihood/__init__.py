"""The causal and the energy likelihood, and the Pyro model on top of them.

How probable a panel is. May import equilibria and what is below them.
"""
