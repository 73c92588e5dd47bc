"""The causal and the energy likelihood, and the Pyro model on top of them."""
