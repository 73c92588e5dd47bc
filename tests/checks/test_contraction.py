"""How much of a posterior is prior: against priors of known variance and models of known kind."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import xarray as xr
from games import ROADS_TRUTH, avoid_crowds, played, two_roads

import mfgppl as mfg

SD_OF_SD = 5 / np.sqrt(2 * 2000)  # five standard errors of a standard deviation of 2,000 draws


def tree(**sites):
    """Return draws (chain, draw) as a result without further groups."""
    posterior = xr.Dataset({k: (("chain", "draw"), v) for k, v in sites.items()})
    return xr.DataTree.from_dict({"posterior": posterior})


def sampled(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        return mfg.nuts(
            model, draws=500, tune=500, chains=2, cores=1, random_seed=1, progressbar=False
        )


def test_contraction_compares_with_the_priors_variance(roads_model):
    """Draws with a tenth of the prior's standard deviation contract by 0.99."""
    rng = np.random.default_rng(1)
    draws = tree(
        crowding=0.1 * rng.standard_normal((4, 5000)),
        effort=np.abs(rng.standard_normal((4, 5000))),
    )
    table = mfg.checks.contraction(draws, roads_model, prior_draws=2000)
    sd = np.array([1.0, np.sqrt(1 - 2 / np.pi)])
    np.testing.assert_allclose(table["prior_sd"], sd, rtol=SD_OF_SD)
    np.testing.assert_allclose(table.loc["crowding", "contraction"], 0.99, atol=0.002)
    assert abs(table.loc["effort", "contraction"]) < 0.1
    assert list(table["verdict"]) == ["data-driven", "prior-driven"]
    assert table[["prior_sensitivity", "likelihood_sensitivity"]].isna().all(axis=None)


def test_what_no_data_tell_is_driven_by_the_prior():
    """A term in the crowd's shares at each time is prior-driven, the others are not."""

    def reward(x):
        tide = pyro.sample("tide", dist.Normal(0.0, 1.0))
        return avoid_crowds(x) + tide * x.share(state="left")

    game = two_roads()
    truth = {**ROADS_TRUTH, "tide": 0.0}
    model = mfg.TrajectoryModel(game, reward, played(game, reward, truth, 500, 1))
    table = mfg.checks.contraction(sampled(model), model)
    assert table["verdict"].to_dict() == {
        "crowding": "data-driven", "effort": "data-driven", "tide": "prior-driven"
    }  # fmt: skip
    assert table.loc["tide", "likelihood_sensitivity"] < 0.05
    assert table.loc["effort", "likelihood_sensitivity"] > 0.05


def test_entries_of_a_vector_have_rows():
    """A vector site has one row per entry, in the order of its sensitivities."""

    def reward(x):
        costs = pyro.sample("costs", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        return -costs[0] - costs[1] * (x.action == "turn")

    game = two_roads()
    world = mfg.solve_equilibrium(game, reward, parameters={"costs": [0.0, 0.5]}).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=500, random_seed=1)
    model = mfg.TrajectoryModel(game, reward, panel)
    table = mfg.checks.contraction(sampled(model), model)
    assert table["verdict"].to_dict() == {"costs[0]": "prior-driven", "costs[1]": "data-driven"}
    assert table["likelihood_sensitivity"].is_monotonic_increasing


def draws_of(**sites):
    return tree(**{k: np.zeros((1, 4)) for k in sites})


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"draws": 3}, TypeError, "`draws` must be a DataTree"),
        ({"model": 3}, TypeError, "`model` must be a TrajectoryModel"),
        ({"draws": draws_of(effort=0)}, ValueError, "`draws` lacks the parameter 'crowding'"),
        ({"draws": xr.DataTree()}, ValueError, "must have the group posterior"),
        ({"prior_draws": 1}, ValueError, "`prior_draws` must be at least 2"),
        ({"seed": 1}, TypeError, "did you mean `random_seed`"),
    ],
)
def test_wrong_inputs_say_what_is_wrong(change, error, words, roads_model):
    """Messages name the argument and what came."""
    arguments = {"draws": draws_of(crowding=0, effort=0), "model": roads_model} | change
    with pytest.raises(error, match=words):
        mfg.checks.contraction(**arguments)
