"""The report's section on the prior: what drives a posterior, and what fights the data."""

import functools
import json
import warnings

import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg
from mfgppl.models import market

pytestmark = pytest.mark.usefixtures("blank_figures")


@functools.cache
def market_panel():
    """Return 300 firms in equilibrium, with its flow."""
    game = market.game()
    world = mfg.solve_equilibrium(game, market.reward, parameters=market.TRUTH).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=300, random_seed=1)
    return panel, world.mean_field


def reported(spread, path):
    """Fit the market under a prior of crowding around 0; return its model and its sections."""

    def reward(x):
        margin = pyro.sample("margin", dist.HalfNormal(1.0))
        crowding = pyro.sample("crowding", dist.Normal(0.0, spread))
        menu_cost = pyro.sample("menu_cost", dist.HalfNormal(1.0))
        return margin * x.price - crowding * x.density - menu_cost * (x.action != "hold")

    panel, flow = market_panel()
    model = mfg.TrajectoryModel(market.game(), reward, panel, mean_field=flow)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        fit = mfg.nuts(
            model, draws=500, tune=500, chains=2, cores=1, random_seed=1, progressbar=False
        )
    mfg.report(fit, path, model=model)
    found = json.loads(path.with_suffix(".json").read_text("utf-8"))["sections"]
    return model, {s["title"]: s for s in found}


def test_a_prior_that_fights_the_data_is_red_beside_the_maximum_likelihood(tmp_path):
    """Crowding is 2, its prior 0 give or take 0.1: no tick, and both numbers in one line."""
    model, found = reported(0.1, tmp_path / "r.html")
    section = found["Sensitivity to the prior"]
    assert section["good"] is False
    assert "crowding" in section["numbers"]["prior against data"]
    assert "No parameter is driven" not in section["verdict"]
    fit = mfg.mle(model, progressbar=False)
    beside = f"{fit.params['crowding']:.3g} (standard error {fit.bse['crowding']:.2g})"
    assert (
        f"crowding contradicts the data: its maximum likelihood estimate is {beside}"
        in (section["verdict"])
    )
    assert section["table"]["crowding"]["mle"] == pytest.approx(fit.params["crowding"], rel=1e-4)


def test_a_wide_prior_keeps_its_tick(tmp_path):
    """Under a prior that gives way nothing contradicts and nothing is driven."""
    _, found = reported(5.0, tmp_path / "r.html")
    section = found["Sensitivity to the prior"]
    assert section["good"] is True
    assert section["numbers"]["prior against data"] == []
    assert section["verdict"] == "No parameter is driven by its prior."
