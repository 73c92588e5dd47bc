"""Whether intervals and posteriors hold what they say, in simulated worlds.

May import hypotheses and design, and what is below them.
"""

from mfgppl._replication import replicate
from mfgppl.calibration.coverage import recovery
from mfgppl.calibration.ranks import sbc

__all__ = ["recovery", "replicate", "sbc"]
