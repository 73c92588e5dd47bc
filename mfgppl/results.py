"""The records that functions return, and the summary of any fit."""

from mfgppl.calibration.coverage import Recovery
from mfgppl.calibration.ranks import Calibration
from mfgppl.checks.distance_from_equilibrium import ObservedExploitability
from mfgppl.checks.imperfect_choices import Imperfection
from mfgppl.checks.predictive import PredictiveCheck
from mfgppl.checks.runaway_crowds import Runaway
from mfgppl.checks.standardised_residuals import Residuals
from mfgppl.control.soft_control import SoftSolution
from mfgppl.counterfactuals.effects_record import Effects
from mfgppl.counterfactuals.record import Counterfactual, World
from mfgppl.data.bins import Bins
from mfgppl.data.panel import Counts
from mfgppl.data.periods import Periods
from mfgppl.design.cuts import BinsMatter
from mfgppl.design.identification import Identification
from mfgppl.design.information import ExpectedInformation
from mfgppl.design.prior import PriorPredictive
from mfgppl.equilibrium.fixed_point import Equilibria
from mfgppl.equilibrium.response import Equilibrium
from mfgppl.equilibrium.solution import Solution
from mfgppl.estimation.counted_flow import CountedFlow
from mfgppl.estimation.delta_method import DeltaEstimate
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.flows.coupling import CouplingTest
from mfgppl.flows.efficient import EfficientPseudoLikelihood
from mfgppl.flows.pseudo_likelihood import NestedPseudoLikelihood
from mfgppl.flows.side_by_side import Treatments
from mfgppl.hypotheses.likelihood_tests import HypothesisTest
from mfgppl.hypotheses.profile import Profile
from mfgppl.hypotheses.vuong import VuongTest
from mfgppl.kinds.description import Description
from mfgppl.kinds.number import NumberOfKinds
from mfgppl.networks.structure import NetworkAudit
from mfgppl.reporting.points_and_draws import summary
from mfgppl.reporting.tables import FitTable
from mfgppl.reward.crowd_met import Crowd
from mfgppl.reward.linear import LinearReward

__all__ = [
    "Bins",
    "BinsMatter",
    "Calibration",
    "CountedFlow",
    "Counterfactual",
    "Counts",
    "CouplingTest",
    "Crowd",
    "DeltaEstimate",
    "Description",
    "Effects",
    "EfficientPseudoLikelihood",
    "Equilibria",
    "Equilibrium",
    "ExpectedInformation",
    "FitTable",
    "HypothesisTest",
    "Identification",
    "Imperfection",
    "LinearReward",
    "NestedPseudoLikelihood",
    "NetworkAudit",
    "NumberOfKinds",
    "ObservedExploitability",
    "Periods",
    "PointEstimate",
    "PredictiveCheck",
    "PriorPredictive",
    "Profile",
    "Recovery",
    "Residuals",
    "Runaway",
    "SoftSolution",
    "Solution",
    "Treatments",
    "VuongTest",
    "World",
    "summary",
]
