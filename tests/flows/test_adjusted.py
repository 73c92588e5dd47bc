"""Posterior draws moved and widened by what the jackknife measures."""

import functools
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from scipy.special import ndtri, stdtrit

import mfgppl as mfg
from mfgppl.models import market


def reward(x):
    """The market's reward under priors that say next to nothing."""
    margin, crowding, cost = (pyro.sample(k, dist.Normal(0.0, 100.0)) for k in market.TRUTH)
    return margin * x.price - crowding * x.density - cost * (x.action != "hold")


@functools.cache
def case():
    """A model, draws, and its jackknife."""
    panel = mfg.Trajectories.from_frame(market.frame(300, random_seed=3), **market.COLUMNS)
    model = mfg.TrajectoryModel(market.game(), reward, panel)
    draws = mfg.laplace(model, draws=4000, random_seed=1, progressbar=False, flow_bias=False)
    return model, draws, mfg.jackknife(model)


def test_with_a_flat_prior_draws_have_the_jackknifes_moments():
    """Its mean, and its covariance as wide as t, where that is the larger."""
    model, draws, jackknife = case()
    found = mfg.flows.adjust(draws, jackknife, model)
    moved = np.stack([found["adjusted_posterior"][k].values.ravel() for k in market.TRUTH], axis=1)
    own = np.stack([draws["posterior"][k].values.ravel() for k in market.TRUTH], axis=1)
    fit = mfg.mle(model, svi_steps=0, progressbar=False, flow_bias=False)
    shift = moved.mean(0) - own.mean(0)
    errors = 4 * own.std(0) / np.sqrt(len(own))
    assert (np.abs(shift - (jackknife.params - fit.params)) < errors + 0.05 * np.abs(shift)).all()
    wide = (stdtrit(19, 0.95) / ndtri(0.95)) * jackknife.bse
    np.testing.assert_allclose(moved.std(0)[:2], wide.iloc[:2], rtol=0.1)
    assert (moved.std(0) >= own.std(0) * 0.99).all()


def test_what_was_there_is_left():
    """The posterior as it was, the group named, and both in files."""
    model, draws, jackknife = case()
    found = mfg.flows.adjust(draws, jackknife, model)
    assert found["posterior"].equals(draws["posterior"])
    assert set(found["adjusted_posterior"].data_vars) == set(draws["posterior"].data_vars)
    assert "20 parts" in found["adjusted_posterior"].attrs["adjusted_by"]


def test_a_prior_that_decides_is_left_to_decide():
    """Where the prior knows all, neither place nor width of draws moves."""

    def strict(x):
        margin, crowding, cost = (
            pyro.sample(k, dist.Normal(v, 1e-4)) for k, v in market.TRUTH.items()
        )
        return margin * x.price - crowding * x.density - cost * (x.action != "hold")

    model, _, jackknife = case()
    tight = mfg.TrajectoryModel(market.game(), strict, model.panel)
    draws = mfg.laplace(tight, draws=500, random_seed=1, progressbar=False, flow_bias=False)
    found = mfg.flows.adjust(draws, jackknife, tight)
    for name in market.TRUTH:
        before, after = (found[g][name] for g in ("posterior", "adjusted_posterior"))
        assert abs(float(after.mean() - before.mean())) < 1e-3
        assert float(after.std()) < 2e-4


def test_a_positive_parameter_stays_positive():
    """On the unconstrained scale no draw leaves the support."""
    model, _, _ = case()
    own = market.model(model.panel)  # margin and menu cost are half-normal
    options = {"draws": 200, "tune": 200, "chains": 1, "progressbar": False, "flow_bias": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few draws
        draws = mfg.nuts(own, random_seed=1, **options)
    found = mfg.flows.adjust(draws, mfg.jackknife(own), own)
    assert float(found["adjusted_posterior"]["margin"].min()) > 0


def test_other_estimates_are_refused(roads_model):
    """One that is no jackknife's, or of another model."""
    model, draws, jackknife = case()
    fit = mfg.mle(model, svi_steps=0, progressbar=False, flow_bias=False)
    with pytest.raises(ValueError, match="kind 'mle'"):
        mfg.flows.adjust(draws, fit, model)
    with pytest.raises(ValueError, match="the model has"):
        mfg.flows.adjust(draws, jackknife, roads_model)
