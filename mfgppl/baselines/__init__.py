"""Earlier methods of inverse reinforcement learning in mean field games, under one contract.

What came before this package, to compare with. May import equilibria and what is below them.
"""

from mfgppl.baselines.adversarial import mfairl
from mfgppl.baselines.cloning import behaviour_cloning
from mfgppl.baselines.estimate import Estimate
from mfgppl.baselines.individual_level import mfirl
from mfgppl.baselines.maximum_entropy import max_causal_entropy
from mfgppl.baselines.metrics import RecoveryMetrics, recovery_metrics
from mfgppl.baselines.population_level import plirl
from mfgppl.reward.neural_network import network_reward

__all__ = [
    "Estimate",
    "RecoveryMetrics",
    "behaviour_cloning",
    "max_causal_entropy",
    "mfairl",
    "mfirl",
    "network_reward",
    "plirl",
    "recovery_metrics",
]
