"""Several plays of a game: each has its own crowd, one reward explains them all."""

import functools
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import (
    ROADS_TRUTH,
    ROUNDING,
    STANDARD_ERRORS,
    as_frame,
    avoid_crowds,
    played,
    two_roads,
)

import mfgppl as mfg
from mfgppl.exceptions import DataError, IdentificationWarning
from mfgppl.inference.compiled import density_of
from mfgppl.likelihood.plays import clusters_of
from mfgppl.models import market

STARTS = {"north": [0.8, 0.2], "south": [0.3, 0.7], "west": [0.5, 0.5]}
CITIES = {name: two_roads(initial=start) for name, start in STARTS.items()}


@functools.cache
def panels(n_agents=60):
    return {
        name: played(game, avoid_crowds, ROADS_TRUTH, n_agents, k)
        for k, (name, game) in enumerate(CITIES.items())
    }


def apart(x):
    """Return the reward with an effort of its own in each city."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    effort = pyro.sample("effort", dist.HalfNormal(1.0).expand([3]).to_event(1))
    return -crowding * x.density - effort[x.play.codes] * (x.action == "turn")


def partly(x):
    """Return the reward with efforts that are partially pooled."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    effort = pyro.sample("effort", dist.Normal(mean, spread).expand([3]).to_event(1))
    pyro.deterministic("here", effort[x.play.codes].reshape(()))
    return -crowding * x.density - effort[x.play.codes] * (x.action == "turn")


@functools.cache
def plays(reward=avoid_crowds, **arguments):
    return mfg.Plays(CITIES, reward, panels(), **arguments)


def test_the_likelihood_is_the_sum_of_the_plays():
    """Prior once, likelihoods added up; the gradient too."""
    for flow in ("empirical", "equilibrium"):
        density = density_of(plays(mean_field=flow))
        single = [
            density_of(mfg.TrajectoryModel(CITIES[k], avoid_crowds, panel, mean_field=flow))
            for k, panel in panels().items()
        ]
        theta = np.array([0.7, -0.5])
        value, gradient = density.evaluator()(theta)
        parts = [one.evaluator(prior=0.0, jacobian=0.0)(theta) for one in single]
        first = single[0].evaluator()(theta)
        expected = first[0] + parts[1][0] + parts[2][0]
        assert value == pytest.approx(expected, abs=1e-8)
        slopes = first[1] + parts[1][1] + parts[2][1]
        np.testing.assert_allclose(gradient, slopes, rtol=1e-7)


@pytest.mark.parametrize("likelihood", ["causal", "energy"])
def test_the_pyro_model_has_the_same_density(likelihood):
    model = plays(partly, likelihood=likelihood)
    density = density_of(model)
    theta = density.program.draw(1)
    values = density.program.by_site(torch.from_numpy(density.constrained(theta[None])[0]))
    trace = pyro.poutine.trace(pyro.poutine.condition(model, data=values)).get_trace()
    trace.compute_log_prob()
    total = sum(float(site["log_prob_sum"]) for site in trace.nodes.values() if "fn" in site)
    expected = density.evaluator(prior=1.0, jacobian=0.0)(theta)[0]
    assert total == pytest.approx(expected, rel=ROUNDING)
    assert {f"{name}/actions" for name in STARTS} < set(trace.nodes)


def test_one_reward_for_all_is_the_fit_of_the_games_side_by_side():
    """Cities as a coordinate that never changes, along the same flows, give the same maximum."""
    fit = mfg.mle(plays(), svi_steps=0)
    frames = [as_frame(p).assign(city=c, agent=lambda f, c=c: f["agent"].astype(str) + c)
              for c, p in panels().items()]  # fmt: skip
    frame = pd.concat(frames).rename(columns={"state": "road"})
    together = mfg.Trajectories.from_frame(frame, state=["city", "road"])
    stay, turn = np.eye(2), np.eye(2)[::-1]
    moves = np.zeros((3, 2, 2, 3, 2))
    for city in range(3):
        moves[city, :, 0, city], moves[city, :, 1, city] = stay, turn
    shares = np.concatenate([p.mean_field() for p in panels().values()], axis=1)
    game = mfg.MeanFieldGame(
        states={"city": list(STARTS), "road": ["left", "right"]},
        actions=["stay", "turn"],
        horizon=4,
        transition=moves.reshape(6, 2, 6),
        initial=np.concatenate(list(STARTS.values())) / 3,
    )

    def thrice(x):
        crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
        effort = pyro.sample("effort", dist.HalfNormal(1.0))
        return -crowding * 3 * x.density - effort * (x.action == "turn")

    side_by_side = mfg.TrajectoryModel(game, thrice, together, mean_field=shares / 3)
    expected = mfg.mle(side_by_side, svi_steps=0)
    assert fit.llf == pytest.approx(expected.llf, rel=ROUNDING)
    np.testing.assert_allclose(fit.params, expected.params, rtol=1e-6)
    np.testing.assert_allclose(fit.bse, expected.bse, rtol=1e-6)
    assert (fit.nobs, fit.n_trajectories) == (expected.nobs, expected.n_trajectories)
    np.testing.assert_allclose(
        fit.standard_errors("opg"), expected.standard_errors("opg"), rtol=1e-5
    )


def test_what_differs_is_fitted_in_its_own_play():
    """With nothing in common, the plays' own fits come back."""

    def nothing_shared(x):
        crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        effort = pyro.sample("effort", dist.HalfNormal(1.0).expand([3]).to_event(1))
        k = x.play.codes
        return -crowding[k] * x.density - effort[k] * (x.action == "turn")

    fit = mfg.mle(plays(nothing_shared), svi_steps=0)
    for k, (name, panel) in enumerate(panels().items()):
        own = mfg.mle(mfg.TrajectoryModel(CITIES[name], avoid_crowds, panel), svi_steps=0)
        found = fit.params[[f"crowding[{k}]", f"effort[{k}]"]].to_numpy()
        np.testing.assert_allclose(found, own.params, rtol=1e-4)


def test_clusters_go_across_plays():
    model = plays()
    found = clusters_of(model)
    assert list(found) == ["agent", "play"]
    assert found["play"].tolist() == ["north"] * 60 + ["south"] * 60 + ["west"] * 60
    fit = mfg.mle(model, svi_steps=0)
    with pytest.raises(ValueError, match="`groups` must be one of 'agent', 'play'"):
        fit.standard_errors("cluster", groups="city")
    assert (fit.standard_errors("cluster", groups="play") > 0).all()


def test_draws_have_the_plays_as_a_dimension():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few draws
        tree = mfg.nuts(plays(partly), draws=60, tune=60, chains=2, random_seed=1)
    assert tree["posterior"]["effort"].sizes == {"chain": 2, "draw": 60, "effort_dim_0": 3}
    here = tree["posterior"]["here"]
    assert here.dims == ("chain", "draw", "play")
    np.testing.assert_array_equal(here.values, tree["posterior"]["effort"].values)
    assert tree["log_likelihood"]["actions"].sizes["trajectory"] == 180
    assert tree["log_likelihood"]["trajectory"].values[60] == "south: 0"
    shares = tree["observed_data"]["share_by_time"].sel(play="south").values
    expected = plays(partly)["south"].likelihood.counts.actions.sum(1)
    np.testing.assert_allclose(shares, expected / expected.sum(-1, keepdims=True))
    assert tree["constant_data"]["mean_field"].dims[0] == "play"
    assert tree.attrs["plays"] == list(STARTS)


def test_each_play_is_a_model_of_its_own():
    """Draws of all answer questions about one crowd."""
    model = plays(apart)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sixty agents are too few for a normal posterior
        tree = mfg.laplace(model, draws=20, random_seed=1, progressbar=False)
    of_south = mfg.policy(model["south"], tree)
    assert of_south.sizes["draw"] == 20
    values = {k: tree["posterior"][k].values[0, 0] for k in model.parameters}
    inputs = model["south"].inputs
    weight = values["effort"][1]
    table = -values["crowding"] * inputs.density.numpy() - weight * np.array([0.0, 1.0])
    expected = density_of(model["south"]).rewards(
        np.concatenate([np.ravel(values[k]) for k in model.parameters])[None]
    )
    np.testing.assert_allclose(np.broadcast_to(table, expected.shape[1:]), expected[0], rtol=1e-9)
    found = mfg.counterfactual(
        model["south"], tree, CITIES["south"].replace(initial=[0.5, 0.5]), draws=5, n_starts=2,
        progressbar=False,
    )  # fmt: skip
    assert found.n_failed == 0


def test_many_agents_of_different_crowds_lead_to_the_truth():
    game = market.game().replace(horizon=6, features={})
    rng = np.random.default_rng(1)
    games = {k: game.replace(initial=rng.dirichlet(np.ones(8))) for k in ("a", "b", "c")}
    seen = {k: played(g, market.reward, market.TRUTH, 4000, 1) for k, g in games.items()}
    fit = mfg.mle(mfg.Plays(games, market.reward, seen, mean_field="equilibrium"))
    z = (fit.params - np.array(list(market.TRUTH.values()))) / fit.bse
    assert (z.abs() < STANDARD_ERRORS).all()
    alone = mfg.mle(
        mfg.TrajectoryModel(games["a"], market.reward, seen["a"], mean_field="equilibrium")
    )
    assert (fit.bse < alone.bse).all()


def test_a_panel_is_split_by_its_groups():
    frame = as_frame(played(two_roads(), avoid_crowds, ROADS_TRUTH, 9, 1))
    frame["city"] = frame["agent"] % 3
    panel = mfg.Trajectories.from_frame(frame, state="state", groups=["city"])
    parts = panel.split("city")
    assert list(parts) == [0, 1, 2]
    assert [p.n_agents for p in parts.values()] == [3, 3, 3]
    assert (parts[1].groups["city"] == 1).all()
    with pytest.raises(ValueError, match="`by` must be one of 'city'"):
        panel.split("town")


def test_a_dependence_that_one_crowd_hides_is_seen_at_several():
    """Where the crowd never moves, its term is a constant of the road; at three it is not."""

    def taste(x):
        crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
        left = pyro.sample("left", dist.Normal(0.0, 1.0))
        here = (x.state == "left") * (x.time < 3)
        return (left - crowding * x.mean_field[0, 0]) * here

    one = mfg.TrajectoryModel(CITIES["north"], taste, panels()["north"])
    with pytest.warns(IdentificationWarning, match="crowding"):
        mfg.mle(one, svi_steps=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = mfg.mle(plays(taste), svi_steps=0)
    assert (fit.bse > 0).all()


def test_wrong_plays_are_refused():
    seen = panels()
    north = {"north": seen["north"]}
    with pytest.raises(ValueError, match="at least two plays; got \\['north'\\]"):
        mfg.Plays(two_roads(), avoid_crowds, north)
    with pytest.raises(TypeError, match=r"`panels` must be a Mapping; got Trajectories\. Split"):
        mfg.Plays(two_roads(), avoid_crowds, seen["north"])
    with pytest.raises(ValueError, match="`game` must have the plays"):
        mfg.Plays({"north": two_roads()}, avoid_crowds, seen)
    with pytest.raises(ValueError, match="play 'north': `mean_field` must be 'empirical'"):
        mfg.Plays(CITIES, avoid_crowds, seen, mean_field="emprical")
    with pytest.raises(ValueError, match="play 'south': the panel has 4 decision times"):
        mfg.Plays(CITIES | {"south": two_roads(horizon=5)}, avoid_crowds, seen)
    closed = two_roads(available=[[True, False], [True, True]])
    with pytest.raises(DataError, match="action not available in its state, in play 'south'"):
        mfg.Plays(CITIES | {"south": closed}, avoid_crowds, seen)
    longer = {"north": two_roads(), "south": two_roads(horizon=5)}
    flows = {name: np.full(game.shape[:2], 0.5) for name, game in longer.items()}
    two = {name: seen[name] for name in longer}
    with pytest.raises(ValueError, match="the same states, actions and horizon"):
        mfg.Plays(longer, avoid_crowds, two, mean_field=flows)

    def by_play(x):
        name = "a" if float((x.play == "north").sum()) else "b"
        return pyro.sample(name, dist.Normal(0.0, 1.0)) * (x.action == "turn")

    with pytest.raises(ValueError, match="declare all in each play"):
        mfg.Plays(CITIES, by_play, seen)
    with pytest.raises(KeyError, match="no play 'east'; the plays are 'north', 'south', 'west'"):
        plays()["east"]
    with pytest.raises(AttributeError, match=r"x\.play, which of several a program is in"):
        mfg.TrajectoryModel(two_roads(), apart, seen["north"])
    with pytest.raises(TypeError, match="`model` must be a TrajectoryModel or Plays; got int"):
        mfg.mle(3)


def test_standard_errors_shrink_as_plays_are_pooled():
    """Three efforts of their own leave the shared coupling better known than one city does."""
    fit = mfg.mle(plays(apart), svi_steps=0)
    assert list(fit.params.index) == ["crowding", "effort[0]", "effort[1]", "effort[2]"]
    north = mfg.TrajectoryModel(CITIES["north"], avoid_crowds, panels()["north"])
    assert fit.bse["crowding"] < mfg.mle(north, svi_steps=0).bse["crowding"]
