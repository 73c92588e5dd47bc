"""Figures of finished results. May import everything but the report and the command line."""

from mfgppl.plots.calibration import plot_coverage, plot_ranks, plot_widths
from mfgppl.plots.checks import (
    plot_choice_check,
    plot_exploitability,
    plot_flow_check,
    plot_residuals,
    plot_runaway,
    plot_statistics,
)
from mfgppl.plots.effects_on_choices import plot_effects
from mfgppl.plots.kinds_and_policies import plot_kinds, plot_number_of_kinds
from mfgppl.plots.losses import plot_imperfection
from mfgppl.plots.networks import plot_network
from mfgppl.plots.prior_beliefs import plot_prior_choices, plot_prior_flows
from mfgppl.plots.reflection import plot_coupling
from mfgppl.plots.treatments_of_flows import plot_treatments
from mfgppl.plots.two_worlds import (
    plot_counterfactual,
    plot_counterfactual_difference,
    plot_counterfactual_statistics,
)
from mfgppl.plots.types import plot_types

__all__ = [
    "plot_choice_check",
    "plot_counterfactual",
    "plot_counterfactual_difference",
    "plot_counterfactual_statistics",
    "plot_coupling",
    "plot_coverage",
    "plot_effects",
    "plot_exploitability",
    "plot_flow_check",
    "plot_imperfection",
    "plot_kinds",
    "plot_network",
    "plot_number_of_kinds",
    "plot_prior_choices",
    "plot_prior_flows",
    "plot_ranks",
    "plot_residuals",
    "plot_runaway",
    "plot_statistics",
    "plot_treatments",
    "plot_types",
    "plot_widths",
]
