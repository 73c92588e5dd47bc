"""Points where the density or its slope is not finite are divergences, however it is evaluated."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from reference import tiny_case

import mfgppl as mfg
from mfgppl._quasi_newton import extended_value
from mfgppl.density.of_model import density_of


def kinked(x):
    """A reward whose value is finite for all `pull` and whose slope is NaN below 0.2.

    `where` weighs the slope of the branch not taken, infinite or NaN, by zero.
    """
    pull = pyro.sample("pull", dist.Normal(0.0, 1.0))
    root = torch.where(pull > 0.2, torch.sqrt(pull - 0.2), torch.zeros_like(pull))
    return root * (x.action == "a0")


def kinked_in_python(x):
    """The same with a branch that keeps it from being compiled."""
    pull = pyro.sample("pull", dist.Normal(0.0, 1.0))
    shift = 0.2 if pull > 0 else 0.1 + 0.1
    root = torch.where(pull > shift, torch.sqrt(pull - shift), torch.zeros_like(pull))
    return root * (x.action == "a0")


def built(program):
    case = tiny_case(4, n_paths=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.CompilationWarning)
        model = mfg.TrajectoryModel(case.game, program, case.panel)
        density_of(model)
    return model


@pytest.fixture(scope="module", params=[kinked, kinked_in_python], ids=["compiled", "python"])
def model(request):
    return built(request.param)


def test_the_slope_is_what_is_not_finite(model):
    """The value is finite where the slope is not, as what follows supposes."""
    density = density_of(model)
    assert (density.native() is None) == (model.reward is kinked_in_python)
    for pull, finite in ((0.0, False), (1.0, True)):
        value, slope = density.evaluator()(np.array([pull]))
        assert np.isfinite(value)
        assert np.isfinite(slope).all() == finite


@pytest.mark.parametrize("sampler", ["nutpie", "pyro"])
def test_a_slope_that_is_not_finite_is_a_divergence(model, sampler):
    """Draws keep to where the slope is finite, and the steps beyond count as divergences."""
    options = {
        "draws": 40,
        "tune": 40,
        "max_treedepth": 5,
        "chains": 1,
        "cores": 1,
        "random_seed": 2,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        tree = mfg.nuts(model, init={"pull": 1.5}, sampler=sampler, progressbar=False, **options)
    assert (tree["posterior"]["pull"] > 0.2).all()
    assert np.ptp(tree["posterior"]["pull"].values) > 0
    assert tree["sample_stats"]["diverging"].any()


@pytest.mark.parametrize(
    ("value", "slope"), [(np.nan, 0.0), (np.inf, 0.0), (1.0, np.nan), (1.0, np.inf)]
)
def test_the_guard_looks_at_both(value, slope):
    """A value or a slope that is not finite gives minus infinity and no slope."""
    checked = extended_value(lambda theta: (value, np.array([0.0, slope])))
    found, gradient = checked(np.zeros(2))
    assert found == -np.inf
    np.testing.assert_array_equal(gradient, np.zeros(2))
