"""Probabilistic inverse reinforcement learning in mean field games."""

from mfgppl import baselines, datasets
from mfgppl._version import __version__
from mfgppl.data.counting import CountedPanel
from mfgppl.data.trajectories import Trajectories
from mfgppl.diagnostics.calibration import sbc
from mfgppl.diagnostics.comparison import compare_models
from mfgppl.diagnostics.contraction import contraction
from mfgppl.diagnostics.counterfactual import counterfactual
from mfgppl.diagnostics.coupling import coupling_test
from mfgppl.diagnostics.design import agents_for, expected_widths
from mfgppl.diagnostics.identification import identify
from mfgppl.diagnostics.information import expected_errors, expected_information
from mfgppl.diagnostics.loo import loo
from mfgppl.diagnostics.observed import observed_exploitability
from mfgppl.diagnostics.predictive import predictive_check
from mfgppl.diagnostics.prior import prior_predictive
from mfgppl.diagnostics.recovery import recovery
from mfgppl.diagnostics.residuals import residuals
from mfgppl.diagnostics.runaway import runaway
from mfgppl.diagnostics.scales import default_scales, weakly_informative
from mfgppl.diagnostics.validation import kfold, leave_future_out
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
from mfgppl.inference.cross_fit import cross_fit
from mfgppl.inference.cut import cut_posterior
from mfgppl.inference.estimate import PointEstimate
from mfgppl.inference.hypotheses import (
    likelihood_ratio_test,
    score_test,
    wald_test,
)
from mfgppl.inference.laplace import laplace
from mfgppl.inference.nuts import nuts
from mfgppl.inference.point import map_estimate, mle
from mfgppl.inference.products import choice_probabilities, log_likelihood, policy
from mfgppl.inference.profile import profile_likelihood
from mfgppl.inference.pseudo_likelihood import nested_pseudo_likelihood
from mfgppl.inference.replay import replay
from mfgppl.inference.replication import replicate
from mfgppl.inference.results import load, save
from mfgppl.inference.transformed import delta_method
from mfgppl.inference.variational import vi
from mfgppl.inference.vuong import vuong_test
from mfgppl.interop.gymnasium import to_gymnasium
from mfgppl.interop.mfglib import from_mfglib, to_mfglib
from mfgppl.interop.openspiel import from_openspiel, to_openspiel
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.plays import Plays
from mfgppl.report.calibration_figures import plot_coverage, plot_ranks, plot_widths
from mfgppl.report.check_figures import (
    plot_choice_check,
    plot_exploitability,
    plot_flow_check,
    plot_residuals,
    plot_runaway,
    plot_statistics,
)
from mfgppl.report.counterfactual_figures import (
    plot_counterfactual,
    plot_counterfactual_difference,
    plot_counterfactual_statistics,
)
from mfgppl.report.coupling_figures import plot_coupling
from mfgppl.report.html import report
from mfgppl.report.prior_figures import plot_prior_choices, plot_prior_flows
from mfgppl.report.tables import compare_fits
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.network import network_reward
from mfgppl.reward.program import linear_reward
from mfgppl.reward.taxed import taxed

__all__ = [
    "CompilationWarning",
    "ConvergenceError",
    "ConvergenceWarning",
    "CountedPanel",
    "DataError",
    "IdentificationWarning",
    "MeanFieldGame",
    "Plays",
    "PointEstimate",
    "RewardInputs",
    "Trajectories",
    "TrajectoryModel",
    "__version__",
    "agents_for",
    "baselines",
    "bootstrap",
    "choice_probabilities",
    "compare_fits",
    "compare_models",
    "contraction",
    "counterfactual",
    "coupling_test",
    "cross_fit",
    "cut_posterior",
    "datasets",
    "default_scales",
    "delta_method",
    "expected_errors",
    "expected_information",
    "expected_return",
    "expected_widths",
    "exploitability",
    "find_equilibria",
    "finite_population",
    "from_mfglib",
    "from_openspiel",
    "generate_mean_field",
    "identify",
    "invariant_mean_field",
    "kfold",
    "laplace",
    "leave_future_out",
    "likelihood_ratio_test",
    "linear_reward",
    "load",
    "log_likelihood",
    "loo",
    "map_estimate",
    "mle",
    "nested_pseudo_likelihood",
    "network_reward",
    "nuts",
    "observed_exploitability",
    "plot_choice_check",
    "plot_counterfactual",
    "plot_counterfactual_difference",
    "plot_counterfactual_statistics",
    "plot_coupling",
    "plot_coverage",
    "plot_exploitability",
    "plot_flow_check",
    "plot_prior_choices",
    "plot_prior_flows",
    "plot_ranks",
    "plot_residuals",
    "plot_runaway",
    "plot_statistics",
    "plot_widths",
    "policy",
    "predictive_check",
    "prior_predictive",
    "profile_likelihood",
    "propagate_mean_field",
    "recovery",
    "regularised_exploitability",
    "replay",
    "replicate",
    "report",
    "residuals",
    "runaway",
    "save",
    "sbc",
    "score_test",
    "simulate",
    "social_optimum",
    "soft_backward_induction",
    "soft_policy_iteration",
    "solve_equilibrium",
    "solve_nash",
    "taxed",
    "to_gymnasium",
    "to_mfglib",
    "to_openspiel",
    "vi",
    "vuong_test",
    "wald_test",
    "weakly_informative",
]
