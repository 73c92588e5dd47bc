# The public face: what `import mfgppl` offers. Names are loaded when they are first used.

from . import (
    baselines,
    calibration,
    checks,
    datasets,
    design,
    equilibrium,
    exceptions,
    flows,
    hypotheses,
    interop,
    kinds,
    networks,
    plots,
    results,
)
from ._version import __version__
from .checks.loo import loo
from .checks.model_comparison import compare_models
from .checks.predictive import predictive_check
from .counterfactuals.counterfactual import counterfactual
from .counterfactuals.effects import effects
from .data.counting import CountedPanel
from .data.intervals import discretise
from .data.trajectories import Trajectories
from .design.identification import identify
from .design.prior import prior_predictive
from .equilibrium.fixed_point import solve_equilibrium
from .equilibrium.nash import solve_nash
from .equilibrium.simulation import simulate
from .estimation.bootstrap import bootstrap
from .estimation.group_jackknife import jackknife
from .estimation.point import map_estimate, mle
from .game import MeanFieldGame
from .likelihood.model import TrajectoryModel
from .network import Network
from .posterior.laplace import laplace
from .posterior.nuts import nuts
from .posterior.policies import choice_probabilities, log_likelihood, policy
from .posterior.result_files import load, save
from .posterior.variational import vi
from .reporting.page import report
from .reporting.tables import compare_fits
from .reward.inputs import RewardInputs
from .reward.linear import linear_reward
from .reward.period_effects import period_effects
from .reward.preferences import Preferences
from .reward.taxed import taxed

__all__ = [
    # a panel
    "CountedPanel",
    "Trajectories",
    "discretise",
    # a game and what its agents may care about
    "MeanFieldGame",
    "Network",
    "Preferences",
    "RewardInputs",
    "linear_reward",
    "period_effects",
    "taxed",
    # the forward problem
    "simulate",
    "solve_equilibrium",
    "solve_nash",
    # the model
    "TrajectoryModel",
    # before the data
    "identify",
    "prior_predictive",
    # fits
    "bootstrap",
    "jackknife",
    "laplace",
    "map_estimate",
    "mle",
    "nuts",
    "vi",
    # what a fit says
    "choice_probabilities",
    "compare_fits",
    "compare_models",
    "counterfactual",
    "effects",
    "load",
    "log_likelihood",
    "loo",
    "policy",
    "predictive_check",
    "report",
    "save",
    # everything else, by question
    "baselines",
    "calibration",
    "checks",
    "datasets",
    "design",
    "equilibrium",
    "exceptions",
    "flows",
    "hypotheses",
    "interop",
    "kinds",
    "networks",
    "plots",
    "results",
    "__version__",
]
