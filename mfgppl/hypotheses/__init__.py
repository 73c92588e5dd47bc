"""Tests of estimates: Wald, likelihood ratio, score, Vuong; profile likelihood.

May import the posterior and what is below it.
"""

from mfgppl.estimation.delta_method import delta_method
from mfgppl.hypotheses.likelihood_tests import likelihood_ratio_test, score_test, wald_test
from mfgppl.hypotheses.profile import profile_likelihood
from mfgppl.hypotheses.vuong import vuong_test

__all__ = [
    "delta_method",
    "likelihood_ratio_test",
    "profile_likelihood",
    "score_test",
    "vuong_test",
    "wald_test",
]
