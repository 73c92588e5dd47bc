"""Forward problem: soft control, equilibria, simulation.

What a crowd does under a reward. May import reward programs and what is below them.
"""

from mfgppl.control.soft_control import propagate_mean_field, soft_backward_induction
from mfgppl.control.stationary_control import invariant_mean_field, soft_policy_iteration
from mfgppl.equilibrium.best_response_gain import (
    exploitability,
    exploitability_by_type,
    regularised_exploitability,
)
from mfgppl.equilibrium.fixed_point import find_equilibria
from mfgppl.equilibrium.response import generate_mean_field
from mfgppl.equilibrium.returns import expected_return, social_optimum
from mfgppl.equilibrium.simulation import finite_population

__all__ = [
    "expected_return",
    "exploitability",
    "exploitability_by_type",
    "find_equilibria",
    "finite_population",
    "generate_mean_field",
    "invariant_mean_field",
    "propagate_mean_field",
    "regularised_exploitability",
    "social_optimum",
    "soft_backward_induction",
    "soft_policy_iteration",
]
