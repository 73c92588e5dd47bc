"""Labels of entries: in names of sites, and in values of parameters that come as a fit's."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.linalg

import mfgppl as mfg
from mfgppl.models import market


@pytest.fixture(scope="module")
def world():
    base = market.game().replace(horizon=6, features={})
    sizes = {"size": ["small", "large"]}
    return base.replace(types=sizes, initial=np.tile(base.initial.numpy(), 2) / 2)


def by_size(x):
    cost = pyro.sample("cost", x.size.each(dist.HalfNormal(1.0)))
    return 0.3 * x.price - cost[x.size.codes] * (x.action != "hold")


def by_month(x):
    return mfg.period_effects(x, "month", dist.Normal(0.0, 1.0), by=["action", "size"])


def test_entries_come_by_label_in_any_order(world):
    """A fit, its params, and these in another order: the same equilibrium."""
    given = {"cost": [1.2, 0.6]}
    expected = mfg.solve_equilibrium(world, by_size, parameters=given).value.policy
    params = pd.Series([0.6, 1.2], ["cost[large]", "cost[small]"])
    for values in (params, params[::-1]):
        found = mfg.solve_equilibrium(world, by_size, parameters=values).value.policy
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match=r"must give the entries \['small', 'large'\] of 'cost'"):
        mfg.solve_equilibrium(world, by_size, parameters=params.rename({"cost[small]": "cost[a]"}))
    drawn = mfg.simulate(world, expected, np.ones((6, 16)) / 16, n_agents=100, random_seed=0)
    model = mfg.TrajectoryModel(world, by_size, drawn, mean_field=np.ones((6, 16)) / 16)
    fit = mfg.mle(model, progressbar=False)
    assert list(fit.params.index) == ["cost[small]", "cost[large]"]
    of_fit = mfg.solve_equilibrium(world, by_size, parameters=fit).value.policy
    by_hand = {"cost": fit.params.to_numpy()}
    there = mfg.solve_equilibrium(world, by_size, parameters=by_hand).value.policy
    np.testing.assert_array_equal(of_fit, there)


def test_period_effects_have_labelled_dimensions(world):
    """Types with their labels, in the order of axes, then contrasts."""
    drawn = mfg.simulate(world, np.full((6, 16, 3), 1 / 3), np.ones((6, 16)) / 16, n_agents=50,
                         random_seed=0)  # fmt: skip
    model = mfg.TrajectoryModel(world, by_month, drawn, mean_field=np.ones((6, 16)) / 16)
    draws = mfg.laplace(model, draws=10, random_seed=0)["posterior"]["month"]
    assert draws.dims[2:] == ("size", "month_contrast", "month_action_contrast")
    assert list(draws["size"].values) == ["small", "large"]
    fit = mfg.mle(model, flow_bias=False, progressbar=False)
    assert fit.params.index[0] == "month[small, before vs 1, before vs hold]"
    assert fit.params.index[-1] == "month[large, before vs 5, before vs raise]"


def by_year(x):
    cost = pyro.sample("cost", dist.HalfNormal(1.0))
    years = mfg.period_effects(x, "years", dist.Normal(0.0, 1.0))
    return 0.3 * x.price + (years - cost) * (x.action == "raise")


def test_tables_give_effects_by_the_label_of_the_period():
    """For a point by the delta method and for draws, they are those that the program adds."""
    years = [1972, 1974, 1976, 1978]
    game = market.game().replace(horizon=years, features={})
    flow = np.full((4, 8), 1 / 8)
    drawn = mfg.simulate(game, np.full((4, 8, 3), 1 / 3), flow, n_agents=200, random_seed=0)
    model = mfg.TrajectoryModel(game, by_year, drawn, mean_field=flow)
    fit = mfg.mle(model, flow_bias=False, progressbar=False)
    names = [f"years[{year}]" for year in years]
    assert list(fit.params.index[1:]) == [f"years[before vs {year}]" for year in years[1:]]
    table = mfg.results.summary(fit, model=model)
    assert list(table.index) == ["cost", *names]
    contrasts = fit.params.to_numpy()[1:]
    basis = scipy.linalg.helmert(4)
    np.testing.assert_allclose(table["estimate"].iloc[1:], basis.T @ contrasts)
    covariance = fit.cov_params().to_numpy()[1:, 1:]
    errors = np.sqrt(np.diag(basis.T @ covariance @ basis))
    np.testing.assert_allclose(table["error"].iloc[1:], errors)
    assert abs(table["estimate"].iloc[1:].sum()) < 1e-10
    np.testing.assert_allclose(table["estimate"].iloc[0], fit.params["cost"])
    draws = mfg.laplace(model, draws=300, random_seed=0)
    effects = draws["posterior"]["years"].values @ basis
    found = mfg.results.summary(draws, model=model)
    np.testing.assert_allclose(found.loc[names, "estimate"], effects.mean((0, 1)))
    other = mfg.TrajectoryModel(game, market.reward, drawn, mean_field=flow)
    with pytest.raises(ValueError, match="`model` must be the fitted one; its parameters are"):
        mfg.results.summary(fit, model=other)


def test_a_value_of_another_shape_is_refused_where_it_is_met(world):
    with pytest.raises(ValueError, match=r"'month' the shape \(6, 2\); its site has \(2, 5, 2\)"):
        mfg.solve_equilibrium(world, by_month, parameters={"month": np.zeros((6, 2))})


def test_a_misspelt_part_has_a_suggestion():
    with pytest.raises(TypeError, match="did you mean `terminal`"):
        mfg.Preferences(0.0, termnal=1.0)
