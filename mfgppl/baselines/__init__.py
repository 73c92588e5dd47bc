"""Earlier methods of inverse reinforcement learning in mean field games, under one contract."""

from mfgppl.baselines.cloning import behaviour_cloning
from mfgppl.baselines.estimate import Estimate
from mfgppl.baselines.maximum_entropy import max_causal_entropy
from mfgppl.baselines.metrics import RecoveryMetrics, recovery_metrics
from mfgppl.baselines.mfairl import mfairl
from mfgppl.baselines.mfirl import mfirl
from mfgppl.baselines.plirl import plirl

__all__ = [
    "Estimate",
    "RecoveryMetrics",
    "behaviour_cloning",
    "max_causal_entropy",
    "mfairl",
    "mfirl",
    "plirl",
    "recovery_metrics",
]
