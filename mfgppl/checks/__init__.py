"""Whether a fitted model draws panels like the one observed, and predicts what it has not seen.

May import flows, calibration, counterfactuals and what is below them.
"""

from mfgppl.checks.cross_validation import kfold, leave_future_out
from mfgppl.checks.distance_from_equilibrium import observed_exploitability
from mfgppl.checks.imperfect_choices import imperfection
from mfgppl.checks.prior_contraction import contraction
from mfgppl.checks.runaway_crowds import runaway
from mfgppl.checks.standardised_residuals import residuals
from mfgppl.likelihood.replay import replay

__all__ = [
    "contraction",
    "imperfection",
    "kfold",
    "leave_future_out",
    "observed_exploitability",
    "replay",
    "residuals",
    "runaway",
]
