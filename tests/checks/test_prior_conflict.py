"""Priors that contradict the data, against logits in closed form."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg
from mfgppl.checks.prior_conflict import prior_conflicts

LOG_ODDS = np.log(0.3 / 0.7)  # of 200 decisions, 60 for "a"
STD_ERR = (200 * 0.3 * 0.7) ** -0.5  # 0.154


def one_step(first=0.3):
    """Return a game of one state, and 100 agents who choose "a" by 30% at 1, by `first` at 0."""
    game = mfg.MeanFieldGame(
        states=["only"], actions=["a", "b"], horizon=2, transition=np.ones((1, 2, 1)), initial=[1.0]
    )
    shares = (first, 0.3)
    rows = [(k, t, "only", "a" if k < 100 * shares[t] else "b") for k in range(100) for t in (0, 1)]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    return game, mfg.Trajectories.from_frame(frame, action_labels=["a", "b"])


def judged(prior):
    """Return what contradicts the data in a logit, its table of contraction, draws and model."""

    def reward(x):
        return pyro.sample("w", prior) * (x.action == "a")

    return judged_of(reward, *one_step())


def judged_of(reward, game, panel):
    model = mfg.TrajectoryModel(game, reward, panel)
    draws = mfg.laplace(model, draws=2000, random_seed=1, progressbar=False)
    table = mfg.checks.contraction(draws, model, prior_draws=200)
    return prior_conflicts(draws, model, table), table, draws, model


def if_sensitive(table, draws, model):
    """Return what contradicts the data where all posteriors move with prior and likelihood."""
    sensitive = table.assign(prior_sensitivity=1.0, likelihood_sensitivity=1.0)
    return prior_conflicts(draws, model, sensitive)


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
    assert len(if_sensitive(table, draws, model)) == 0


def test_a_wide_prior_that_hardly_moves_the_posterior_does_not():
    """Three deviations of its prediction from the log odds, it moves them by 0.73 of one."""
    spread = 4 * STD_ERR
    prior = dist.Normal(LOG_ODDS + 3 * np.hypot(spread, STD_ERR), spread)
    _, *rest = judged(prior)
    assert len(if_sensitive(*rest)) == 0


def test_without_a_maximum_a_parameter_is_not_judged_and_those_beside_it_are():
    """All choose "a" at time 0, whose weight has no maximum; that of time 1 is a log odds."""

    def reward(x):
        first = pyro.sample("first", dist.Normal(0.0, 0.5))
        second = pyro.sample("second", dist.Normal(0.5, 0.1))
        return (first * (x.time == 0) + second * (x.time == 1)) * (x.action == "a")

    _, *rest = judged_of(reward, *one_step(first=1.0))
    found = if_sensitive(*rest)
    assert list(found.index) == ["second"]
    assert found.loc["second", "mle"] == pytest.approx(LOG_ODDS, abs=1e-3)
    assert found.loc["second", "std_err"] == pytest.approx((100 * 0.3 * 0.7) ** -0.5, rel=1e-3)
