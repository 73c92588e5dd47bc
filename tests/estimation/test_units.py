"""Estimates, their errors and what is said of them do not depend on the units of features."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from logits import COUNTS, log_odds, logit

import mfgppl as mfg
from mfgppl.density.climb import Objective
from mfgppl.density.curvature import analyse_curvature, describe_direction, root_of
from mfgppl.density.of_model import density_of
from mfgppl.estimation.svi import run_svi

FAST = {"svi_steps": 0, "progressbar": False}
SIZES = [(1.0, 1.0), (1e-8, 1.0), (1e8, 1e-8), (1e-10, 1e6)]
PRECISION = 1e-6  # relative


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("svi_steps", [0, 20])
def test_mle_is_the_log_odds_in_any_units(sizes, svi_steps):
    """Features of sizes that are powers of ten apart, under one prior: all known, no message."""
    fit = mfg.mle(logit(COUNTS, sizes), svi_steps=svi_steps, progressbar=False)
    estimates, errors = log_odds(COUNTS)
    assert fit.converged
    assert fit.messages == ()
    np.testing.assert_allclose(fit.params * np.array(sizes), estimates, rtol=PRECISION)
    np.testing.assert_allclose(fit.bse * np.array(sizes), errors, rtol=PRECISION)


@pytest.mark.parametrize("sizes", SIZES)
def test_cross_fit_and_wald_test_do_not_depend_on_units(sizes):
    """The sum over parts that do not look at the flow is the likelihood itself."""
    fit = mfg.flows.cross_fit(
        logit(COUNTS, sizes), folds=2, random_seed=1, init={"a": 0.0, "b": 0.0}
    )
    estimates, errors = log_odds(COUNTS)
    np.testing.assert_allclose(fit.params * np.array(sizes), estimates, rtol=PRECISION)
    np.testing.assert_allclose(fit.bse * np.array(sizes), errors, rtol=PRECISION)
    tested = mfg.hypotheses.wald_test(mfg.mle(logit(COUNTS, sizes), **FAST), "a = 0")
    assert tested.statistic == pytest.approx((estimates[0] / errors[0]) ** 2, rel=PRECISION)


def test_map_estimate_does_not_depend_on_units():
    """A prior in the units of its feature gives the same mode in these units."""
    modes = []
    for sizes in SIZES:
        model = logit(COUNTS, sizes, prior=lambda size: dist.Normal(0.0, 2.0 / size))
        fit = mfg.map_estimate(model, progressbar=False)
        assert fit.converged
        assert fit.messages == ()
        modes.append(np.concatenate([fit.params * np.array(sizes), fit.bse * np.array(sizes)]))
    for mode in modes[1:]:
        np.testing.assert_allclose(mode, modes[0], rtol=PRECISION)


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_small_positive_weight_is_not_at_the_edge_of_its_support(size):
    """A weight is small where its feature is large; at the edge it has no effect."""

    def positive(_):
        return dist.HalfNormal(1.0)

    fit = mfg.mle(logit({"a": 120, "b": 80}, (size,), positive), **FAST)
    assert fit.messages == ()
    assert fit.params["a"] * size == pytest.approx(np.log(1.5), rel=PRECISION)
    assert fit.bse["a"] * size == pytest.approx(np.sqrt((1 / 120 + 1 / 80) / 2), rel=PRECISION)
    with pytest.warns(mfg.exceptions.IdentificationWarning, match="'a' is at the edge"):
        fit = mfg.mle(logit({"a": 80, "b": 120}, (size,), positive), **FAST)
    assert np.isnan(fit.bse["a"])


def test_steps_of_svi_are_in_units_of_the_parameter():
    """Ten steps from the same start lead equally far, measured in the feature's units."""
    ends = []
    for size in (1.0, 1e-9, 1e7):
        model = logit({"a": 120, "b": 80}, (size,))
        likelihood = Objective(density_of(model), 0.0, 0.0)
        found = run_svi(
            likelihood, np.zeros(1), np.array([1 / size]), n_steps=10, learning_rate=0.05,
            random_seed=0, progressbar=False,
        )  # fmt: skip
        ends.append(float(found[0]) * size)
    assert 0.1 < ends[0] < 0.5
    np.testing.assert_allclose(ends, ends[0], rtol=PRECISION)


@pytest.mark.parametrize("sizes", [(1.0, 1.0), (1e-8, 1e8)])
def test_parameter_without_effect_is_named_whatever_the_size_of_the_others(sizes):
    """A constant of the state moves no choice: rounding is not information."""
    model = logit(COUNTS, sizes)
    known = model.reward

    def reward(x):
        idle = pyro.sample("idle", dist.Normal(0.0, 1.0))
        return known(x) + 1e5 * np.pi * idle * (x.state == "only")

    both = mfg.TrajectoryModel(model.game, reward, model.panel)
    with pytest.warns(mfg.exceptions.IdentificationWarning, match="do not identify idle"):
        fit = mfg.mle(both, **FAST)
    assert fit.converged
    assert np.isnan(fit.bse["idle"])
    np.testing.assert_allclose(
        fit.bse[["a", "b"]] * np.array(sizes), log_odds(COUNTS)[1], rtol=PRECISION
    )


def test_laplace_draws_do_not_depend_on_units():
    """Standard deviations of draws follow the features' sizes, however far these are apart."""
    spreads = []
    for sizes in [(1.0, 1.0), (1e9, 1e-9)]:
        model = logit(COUNTS, sizes, prior=lambda size: dist.Normal(0.0, 2.0 / size))
        draws = mfg.laplace(model, draws=1000, random_seed=1, progressbar=False)
        assert draws.attrs["pareto_k"] < 0.7
        posterior = draws["posterior"].dataset
        spreads.append([float(posterior[k].std()) * s for k, s in zip("ab", sizes, strict=True)])
    np.testing.assert_allclose(spreads[1], spreads[0], rtol=0.15)


def test_curvature_of_unlike_units_is_known():
    """Information of 1e-20 beside 1e20 is information."""
    information = np.array([[1e20, 0.5], [0.5, 1e-20]])
    found = analyse_curvature(information)
    assert found.known.all()
    unit = np.array([1e10, 1e-10])
    np.testing.assert_allclose(
        found.covariance * np.outer(unit, unit), [[1, -0.5], [-0.5, 1]] / np.array(0.75)
    )
    root = root_of(found.covariance)
    np.testing.assert_allclose(root @ root.T, found.covariance, rtol=1e-9)


def test_directions_are_named_by_their_effect():
    """A small weight of a large feature belongs to a direction."""
    direction = np.array([1.0, 1e-5])
    assert describe_direction(direction, ["a", "b"]) == "a"
    assert describe_direction(direction, ["a", "b"], np.array([1.0, 1e5])) == "a + 1e-05 b"
    unused = np.array([4e-17, 1.0, -1e-18])  # a site that the reward does not read, and rounding
    assert describe_direction(unused, ["a", "b", "c"], np.array([1.0, 0.0, 3.0])) == "b"


def test_starting_values_may_be_a_series_or_a_fit():
    """All ways to give the same start lead to the same point."""
    model = logit(COUNTS, (1.0, 1.0))
    fit = mfg.mle(model, **FAST)
    draws = mfg.laplace(model, draws=1000, random_seed=1, progressbar=False)
    for init in (fit, fit.params, fit.params.iloc[:1], draws):
        again = mfg.mle(model, init=init, **FAST)
        np.testing.assert_allclose(again.params, fit.params, rtol=PRECISION)


@pytest.mark.parametrize("init", [0, "a", [1.0], True])
def test_starts_that_are_none_are_refused(init):
    """What names no parameter is no start."""
    with pytest.raises(TypeError, match="`init` must be a mapping or Series"):
        mfg.mle(logit(COUNTS, (1.0, 1.0)), init=init, **FAST)
