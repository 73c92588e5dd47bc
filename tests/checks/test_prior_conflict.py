"""Priors that contradict the data, against logits in closed form."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg
from mfgppl.checks.prior_conflict import prior_conflicts

LOG_ODDS = np.log(0.3 / 0.7)  # of 200 decisions, 60 for "a"
STD_ERR = (200 * 0.3 * 0.7) ** -0.5  # 0.154


def model_under(prior, share=0.3):
    """Return a logit of 100 agents who decide twice in one state."""
    game = mfg.MeanFieldGame(
        states=["only"], actions=["a", "b"], horizon=2, transition=np.ones((1, 2, 1)), initial=[1.0]
    )
    rows = [(k, t, "only", "a" if k < 100 * share else "b") for k in range(100) for t in (0, 1)]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    panel = mfg.Trajectories.from_frame(frame, action_labels=["a", "b"])

    def reward(x):
        return pyro.sample("w", prior) * (x.action == "a")

    return mfg.TrajectoryModel(game, reward, panel)


def judged(prior, **model):
    """Return what contradicts the data, and the table of contraction."""
    model = model_under(prior, **model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        draws = mfg.laplace(model, draws=2000, random_seed=1, progressbar=False)
    table = mfg.checks.contraction(draws, model, prior_draws=200)
    return prior_conflicts(draws, model, table), table, draws, model


def test_a_tight_prior_elsewhere_contradicts_the_data():
    """Its maximum likelihood is the log odds, with the standard error of a logit."""
    found, table, draws, _ = judged(dist.Normal(0.3, 0.1))
    assert (table.loc["w", ["prior_sensitivity", "likelihood_sensitivity"]] > 0.05).all()
    assert found.loc["w", "mle"] == pytest.approx(LOG_ODDS, abs=1e-5)
    assert found.loc["w", "std_err"] == pytest.approx(STD_ERR, rel=1e-5)
    assert found.loc["w", "posterior_mean"] == pytest.approx(float(draws["posterior"]["w"].mean()))


@pytest.mark.parametrize(
    "prior", [dist.Normal(0.0, 10.0), dist.Normal(LOG_ODDS, 0.1), dist.Normal(0.3, 2.0)]
)
def test_a_wide_prior_and_a_prior_that_fits_do_not(prior):
    """Whatever their sensitivities are."""
    assert len(judged(prior)[0]) == 0


def test_a_tight_prior_within_the_errors_of_the_data_does_not():
    """The log odds are 1.3 standard errors from it, and many of the posterior's deviations."""
    prior = dist.Normal(LOG_ODDS + 1.3 * STD_ERR, 0.02)
    _, table, draws, model = judged(prior)
    away = abs(float(draws["posterior"]["w"].mean()) - LOG_ODDS)
    assert away > 2 * float(draws["posterior"]["w"].std())
    sensitive = table.assign(prior_sensitivity=1.0, likelihood_sensitivity=1.0)
    assert len(prior_conflicts(draws, model, sensitive)) == 0


def test_without_a_maximum_nothing_contradicts():
    """All choose "a": the likelihood has no maximum to hold against the prior."""
    _, table, draws, model = judged(dist.Normal(0.0, 0.5), share=1.0)
    sensitive = table.assign(prior_sensitivity=1.0, likelihood_sensitivity=1.0)
    assert len(prior_conflicts(draws, model, sensitive)) == 0
