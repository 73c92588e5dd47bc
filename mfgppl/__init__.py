"""Probabilistic inverse reinforcement learning in mean field games."""

from mfgppl import datasets
from mfgppl._version import __version__
from mfgppl.data.counting import CountedPanel
from mfgppl.data.trajectories import Trajectories
from mfgppl.equilibrium.exploitability import exploitability, regularised_exploitability
from mfgppl.equilibrium.fixed_point import find_equilibria, solve_equilibrium
from mfgppl.equilibrium.nash import solve_nash
from mfgppl.equilibrium.response import generate_mean_field
from mfgppl.equilibrium.returns import expected_return, social_optimum
from mfgppl.equilibrium.simulation import finite_population, simulate
from mfgppl.equilibrium.soft_control import propagate_mean_field, soft_backward_induction
from mfgppl.equilibrium.stationary import invariant_mean_field, soft_policy_iteration
from mfgppl.exceptions import (
    CompilationWarning,
    ConvergenceError,
    ConvergenceWarning,
    DataError,
    IdentificationWarning,
)
from mfgppl.game import MeanFieldGame
from mfgppl.inference.bootstrap import bootstrap
from mfgppl.inference.estimate import PointEstimate
from mfgppl.inference.nuts import nuts
from mfgppl.inference.point import map_estimate, mle
from mfgppl.inference.products import choice_probabilities, log_likelihood, policy
from mfgppl.inference.replication import replicate
from mfgppl.inference.results import load, save
from mfgppl.interop.mfglib import from_mfglib, to_mfglib
from mfgppl.interop.openspiel import from_openspiel, to_openspiel
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.report.html import report
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import linear_reward

__all__ = [
    "CompilationWarning",
    "ConvergenceError",
    "ConvergenceWarning",
    "CountedPanel",
    "DataError",
    "IdentificationWarning",
    "MeanFieldGame",
    "PointEstimate",
    "RewardInputs",
    "Trajectories",
    "TrajectoryModel",
    "__version__",
    "bootstrap",
    "choice_probabilities",
    "datasets",
    "expected_return",
    "exploitability",
    "find_equilibria",
    "finite_population",
    "from_mfglib",
    "from_openspiel",
    "generate_mean_field",
    "invariant_mean_field",
    "linear_reward",
    "load",
    "log_likelihood",
    "map_estimate",
    "mle",
    "nuts",
    "policy",
    "propagate_mean_field",
    "regularised_exploitability",
    "replicate",
    "report",
    "save",
    "simulate",
    "social_optimum",
    "soft_backward_induction",
    "soft_policy_iteration",
    "solve_equilibrium",
    "solve_nash",
    "to_mfglib",
    "to_openspiel",
]
