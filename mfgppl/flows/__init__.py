"""The crowd's flow as an estimate: cross-fitting, nested pseudo-likelihood, cut posteriors, tests.

May import hypotheses and design, and what is below them.
"""

from mfgppl.flows.adjusted import adjust
from mfgppl.flows.coupling import coupling_test
from mfgppl.flows.cross_fitting import cross_fit
from mfgppl.flows.cut import cut_posterior
from mfgppl.flows.efficient import efficient_pseudo_likelihood
from mfgppl.flows.free_periods import with_free_periods
from mfgppl.flows.pseudo_likelihood import nested_pseudo_likelihood
from mfgppl.flows.side_by_side import treatments

__all__ = [
    "adjust",
    "coupling_test",
    "cross_fit",
    "cut_posterior",
    "efficient_pseudo_likelihood",
    "nested_pseudo_likelihood",
    "treatments",
    "with_free_periods",
]
