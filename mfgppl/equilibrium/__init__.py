"""Forward problem: soft control, equilibria, simulation."""
