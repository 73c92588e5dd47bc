"""Treatments of the crowd's flow between plug-in and coupled."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from games import (
    ROADS_TRUTH,
    STANDARD_ERRORS,
    as_frame,
    avoid_crowds,
    epidemic,
    fear,
    played,
    two_roads,
)
from logits import logit

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.estimation.refits_along_flows import Refits
from mfgppl.exceptions import ConvergenceError, ConvergenceWarning
from mfgppl.flows import cross_fitting
from mfgppl.flows.cross_fitting import SummedObjective, cross_fit
from mfgppl.flows.cut import cut_posterior, draw_flow, draw_transition
from mfgppl.flows.pseudo_likelihood import nested_pseudo_likelihood
from mfgppl.models import market

ROADS = two_roads()


@functools.cache
def market_model(n_agents, seed=1, horizon=6):
    """Return the market over a few months, and a panel in its equilibrium."""
    game = market.game().replace(horizon=horizon, features={})
    panel = played(game, market.reward, market.TRUTH, n_agents, seed)
    return mfg.TrajectoryModel(game, market.reward, panel)


def roads_model(n_agents, seed):
    return mfg.TrajectoryModel(
        ROADS, avoid_crowds, played(ROADS, avoid_crowds, ROADS_TRUTH, n_agents, seed)
    )


def doubled():
    """Return a model whose panel is the same agents twice, the copies distinguished by a column."""
    frame = as_frame(played(ROADS, avoid_crowds, ROADS_TRUTH, 40, 2))
    twice = [frame.assign(agent=frame["agent"].astype(str) + k, copy=k) for k in "ab"]
    panel = mfg.Trajectories.from_frame(pd.concat(twice), state="state", groups=["copy"])
    return mfg.TrajectoryModel(ROADS, avoid_crowds, panel)


# cross-fitting


def test_cross_fit_is_the_mle_where_the_rest_has_the_panels_flow():
    model = doubled()
    fit = mfg.mle(model, svi_steps=0, flow_bias=False)
    crossed = cross_fit(model, by="copy", folds=None, random_seed=1, init={"effort": 0.1})
    np.testing.assert_allclose(crossed.params, fit.params, rtol=1e-7)
    assert crossed.llf == pytest.approx(fit.llf, rel=1e-12)
    np.testing.assert_allclose(crossed.bse, fit.bse, rtol=1e-7)
    np.testing.assert_allclose(
        crossed.standard_errors("cluster"), fit.standard_errors("cluster"), rtol=1e-6
    )


def test_derivatives_of_the_sum_are_its_differences():
    model = roads_model(30, 1)
    parts = [model.panel.subset(np.arange(30) % 3 == k) for k in range(3)]
    total = SummedObjective(
        [density_of(model.with_panel(p, mean_field=model.mean_field)) for p in parts]
    )
    theta, h = np.array([0.3, -0.4]), 1e-5
    value, gradient = total.value_and_gradient(theta)
    assert value == pytest.approx(SummedObjective([density_of(model)]).value_and_gradient(theta)[0])
    hessian = total.second_derivatives(theta)
    for k, away in enumerate(h * np.eye(2)):
        ends = [total.value_and_gradient(theta + d) for d in (away, -away)]
        assert gradient[k] == pytest.approx((ends[0][0] - ends[1][0]) / (2 * h), rel=1e-6)
        np.testing.assert_allclose(hessian[k], (ends[0][1] - ends[1][1]) / (2 * h), rtol=1e-6)


def test_each_part_faces_the_flow_of_the_rest():
    """The sum by hand, agent by agent, for parts of one agent each."""
    model = roads_model(7, 2)
    with pytest.warns(mfg.exceptions.IdentificationWarning, match="'effort' is at the edge"):
        fit = cross_fit(model, folds=None, random_seed=1, init=ROADS_TRUTH)
    by_hand = 0.0
    for j in range(7):
        rest = model.panel.subset(np.arange(7) != j)
        part = model.with_panel(model.panel.subset([j]), mean_field=rest.mean_field())
        by_hand += float(mfg.log_likelihood(part, fit.params.to_dict()).sum())
    assert fit.llf == pytest.approx(by_hand, rel=1e-10)
    assert np.abs(fit.scores.sum(0)).max() <= 1e-6


def test_cross_fit_takes_most_of_the_reflection_away():
    """Of the plug-in's bias towards conformity, less than half is left."""
    plugged, crossed = [], []
    for seed in range(10):
        model = roads_model(100, seed)
        fit = mfg.mle(model, init=ROADS_TRUTH, svi_steps=0, flow_bias=False)
        plugged.append(fit.params["crowding"])
        crossed.append(cross_fit(model, folds=3, random_seed=1, init=fit).params["crowding"])
    gained = np.subtract(crossed, plugged)
    assert (gained > 0).all()  # by chance once in 1024
    truth = ROADS_TRUTH["crowding"]
    assert abs(np.mean(crossed) - truth) < 0.5 * abs(np.mean(plugged) - truth)


def test_cross_fit_is_reproducible_and_its_parts_are_random():
    model = roads_model(20, 1)
    first, again, other = (
        cross_fit(model, folds=2, random_seed=k, init=ROADS_TRUTH).params for k in (1, 1, 2)
    )
    assert first.equals(again)
    assert not first.equals(other)


def test_cross_fit_shows_how_many_parts_are_ready(monkeypatch):
    """With a bar on a terminal, that of its starting fit too, and none unless wanted."""
    seen = []
    monkeypatch.setattr(cross_fitting, "progress", lambda items, label, wanted, total: (
        seen.append((label, wanted, total)), iter(items))[1])  # fmt: skip
    small = logit({"a": 4, "b": 2}, (1.0,))
    for wanted in (True, False):
        mfg.flows.cross_fit(small, folds=3, init={"a": 0.0}, progressbar=wanted)
    assert seen == [("cross-fit", True, 3), ("cross-fit", False, 3)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"folds": 1}, "at least 2"),
        ({"by": "copy"}, "`by` must be one of 'agent'"),
        ({"tolerance": 0.0}, "`tolerance` must be above 0"),
        ({"random_seed": -1}, "`random_seed` must be at least 0"),
    ],
)
def test_wrong_parts_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        cross_fit(roads_model(20, 1), **({"random_seed": 1} | arguments))


def test_a_rest_that_nobody_is_in_is_refused():
    frame = as_frame(played(ROADS, avoid_crowds, ROADS_TRUTH, 3, 2))
    frame = frame[(frame["agent"] == frame["agent"].iloc[0]) | (frame["time"] < 2)]
    model = mfg.TrajectoryModel(ROADS, avoid_crowds, mfg.Trajectories.from_frame(frame))
    with pytest.raises(ValueError, match="flow of the rest of a part: no agent is observed") as got:
        cross_fit(model, folds=None, random_seed=1, init=ROADS_TRUTH)
    assert "choose other `folds`" in str(got.value)
    assert "prior_count" not in str(got.value)
    rest = model.panel.subset(model.panel.agents != frame["agent"].iloc[0])
    with pytest.raises(ValueError, match=r"say mean_field=panel.mean_field\(prior_count=1.0\)"):
        model.with_panel(rest)


# nested pseudo-likelihood


@functools.cache
def fixed_point():
    return nested_pseudo_likelihood(market_model(400), init=market.TRUTH)


def test_the_fixed_point_is_an_equilibrium_of_the_fitted_game():
    found, game = fixed_point(), market_model(400).game
    assert found.converged
    assert "fixed point" in found.reason
    along_it = mfg.TrajectoryModel(
        game, market.reward, market_model(400).panel, mean_field=found.mean_field
    )
    generated = mfg.equilibrium.generate_mean_field(
        game, mfg.policy(along_it, found.params.to_dict())
    )
    assert float((generated - found.mean_field).abs().max()) <= 1e-7
    world = mfg.solve_equilibrium(game, market.reward, parameters=found.params, throw=True).value
    assert float((world.mean_field - found.mean_field).abs().max()) <= 1e-7
    assert mfg.mle(along_it, svi_steps=0, flow_bias=False).llf == pytest.approx(
        found.estimate.llf, rel=1e-10
    )


def test_the_path_says_how_it_went():
    path = fixed_point().path
    assert list(path.columns) == ["change", "llf", "margin", "crowding", "menu_cost"]
    plug_in = mfg.mle(market_model(400), svi_steps=0, flow_bias=False)
    assert path["llf"].iloc[0] == pytest.approx(plug_in.llf)
    assert path["crowding"].iloc[0] == pytest.approx(plug_in.params["crowding"], rel=1e-5)
    assert path["change"].iloc[-1] == fixed_point().residual <= 1e-8


def test_many_agents_lead_to_the_truth():
    model = market_model(10_000)
    found = nested_pseudo_likelihood(model, init=market.TRUTH, tolerance=1e-5)
    z = (found.params - np.array(list(market.TRUTH.values()))) / found.estimate.bse
    assert (z.abs() < STANDARD_ERRORS).all()


def test_standard_errors_are_of_the_coupled_score():
    """The slope of the score along the equilibria, by a line through wider differences."""
    found, model = fixed_point(), market_model(400)
    density = density_of(model)

    def score(theta):
        values = density.program.by_site(density.constrained(theta[None])[0])
        world = mfg.solve_equilibrium(model.game, market.reward, parameters=values, throw=True)
        moved = density_of(model.with_panel(model.panel, mean_field=world.value.mean_field))
        return moved.evaluator(prior=0.0, jacobian=0.0)(theta)[1].copy()

    theta, plain = (
        found.estimate.theta,
        mfg.mle(
            model.with_panel(model.panel, mean_field=found.mean_field), svi_steps=0, flow_bias=False
        ),
    )
    slope = np.stack(
        [(score(theta + d) - score(theta - d)) / 2e-3 for d in 1e-3 * np.eye(3)], axis=1
    )
    inverse = np.linalg.inv(slope)
    by_hand = plain.jacobian @ inverse @ plain.information @ inverse.T @ plain.jacobian.T
    np.testing.assert_allclose(found.estimate.bse, np.sqrt(np.diag(by_hand)), rtol=1e-3)
    scores = plain.scores
    robust = 400 / 399 * inverse @ scores.T @ scores @ inverse.T
    robust = np.sqrt(np.diag(plain.jacobian @ robust @ plain.jacobian.T))
    np.testing.assert_allclose(found.estimate.standard_errors("cluster"), robust, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no fixed point")  # such worlds are counted below
def test_standard_errors_are_the_spread_of_estimates():
    """In a hundred worlds, nearly all of which have a fixed point."""
    fits = [
        nested_pseudo_likelihood(market_model(400, k), init=market.TRUTH, tolerance=1e-6)
        for k in range(100)
    ]
    estimates = np.array([f.params for f in fits if f.converged])
    errors = np.array([f.estimate.bse for f in fits if f.converged])
    assert len(estimates) >= 95
    ratio = estimates.std(0, ddof=1) / np.sqrt((errors**2).mean(0))
    assert (np.abs(ratio - 1) < STANDARD_ERRORS / np.sqrt(2 * len(estimates))).all()


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        (functools.partial(market_model, 300, 3, 24), {"damping": 1.0}, "cycle: flows take turns"),
        (functools.partial(roads_model, 100, 1), {}, "runs away"),
        (functools.partial(roads_model, 100, 0), {"max_steps": 2}, "too few steps"),
    ],
)
def test_endings_without_a_fixed_point_are_named(model, arguments, words):
    """The published iteration takes turns in a congested game; a fit that herds runs away."""
    with pytest.warns(ConvergenceWarning, match="no fixed point was reached"):
        found = nested_pseudo_likelihood(
            model(), init=mfg.mle(model(), svi_steps=0, flow_bias=False), **arguments
        )
    assert not found.converged
    assert found.reason.startswith(words)
    helps = "use mfg.flows.efficient_pseudo_likelihood" in found.reason
    assert helps == (words != "too few steps")
    assert "NOT converged" in repr(found)


def test_the_first_flow_may_be_given():
    model = market_model(400)
    start = torch.full((6, 8), 1 / 8, dtype=torch.float64)
    found = nested_pseudo_likelihood(model, mean_field=start, init=market.TRUTH, tolerance=1e-6)
    assert found.converged
    np.testing.assert_allclose(found.params, fixed_point().params, rtol=1e-4)


def test_a_program_that_is_compiled_along_each_flow_leads_to_the_same(monkeypatch):
    """What is recorded once for all flows saves time alone."""
    model = market_model(100)
    found = nested_pseudo_likelihood(model, init=market.TRUTH, tolerance=1e-2)
    monkeypatch.setattr(Refits, "_recorded_response_map", lambda self: None)
    anew = nested_pseudo_likelihood(model, init=market.TRUTH, tolerance=1e-2)
    np.testing.assert_allclose(anew.path, found.path, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(anew.estimate.bse, found.estimate.bse, rtol=1e-5)


def test_wrong_inputs_of_the_iteration_are_refused():
    model = roads_model(20, 1)
    with pytest.raises(ValueError, match="`damping` must lie in"):
        nested_pseudo_likelihood(model, damping=0.0)
    with pytest.raises(ValueError, match="`mean_field` must have shape"):
        nested_pseudo_likelihood(model, mean_field=np.ones((2, 2)))
    energy = mfg.TrajectoryModel(ROADS, avoid_crowds, model.panel, likelihood="energy")
    with pytest.raises(ValueError, match="needs likelihood='causal'"):
        nested_pseudo_likelihood(energy)


# cut posterior


def flows_of(model, resample, n=4000, **arguments):
    rng = np.random.default_rng(1)
    return np.stack([draw_flow(model, model.panel, rng, resample, **arguments) for _ in range(n)])


def test_bayesian_bootstrap_flows_have_rubins_moments():
    """Mean mu; covariance of two shares (share of both - product) / (J + 1)."""
    model, n = roads_model(30, 1), 8000
    drawn, mu = flows_of(model, "agents", n), model.mean_field.numpy()
    variance = mu * (1 - mu) / 31
    assert (np.abs(drawn.mean(0) - mu) <= STANDARD_ERRORS * np.sqrt(variance / n)).all()
    np.testing.assert_allclose(drawn.var(0), variance, rtol=STANDARD_ERRORS * np.sqrt(2.5 / n))
    states = model.panel.state.reshape(30, -1)
    both = (states[:, 0] == 0) & (states[:, 1] == 0)
    expected = (both.mean() - mu[0, 0] * mu[1, 0]) / 31
    found = np.cov(drawn[:, 0, 0], drawn[:, 1, 0])[0, 1]
    error = np.sqrt(variance[0, 0] * variance[1, 0] / n)
    assert abs(found - expected) < STANDARD_ERRORS * error
    assert abs(expected) > STANDARD_ERRORS * error  # dependence over time there is


def test_flows_by_time_are_dirichlet_and_independent_over_time():
    model, n, prior = roads_model(30, 1), 4000, 2.0
    drawn = flows_of(model, "times", n, prior_count=prior)
    counts = model.panel.visits[:4] + prior
    mean = counts / 34
    variance = mean * (1 - mean) / 35
    assert (np.abs(drawn.mean(0) - mean) <= STANDARD_ERRORS * np.sqrt(variance / n)).all()
    np.testing.assert_allclose(drawn.var(0), variance, rtol=STANDARD_ERRORS * np.sqrt(2.5 / n))
    covariance = np.cov(drawn[:, 0, 0], drawn[:, 1, 0])[0, 1]
    assert abs(covariance) < STANDARD_ERRORS * np.sqrt(variance[0, 0] * variance[1, 0] / n)


def test_along_a_known_flow_it_is_the_posterior():
    """A huge pseudo-count makes the flow the uniform one, whatever was seen."""
    model = roads_model(400, 3)
    cut = cut_posterior(
        model, flows=2, draws=4000, resample="times", prior_count=1e14, random_seed=1
    )["posterior"].dataset
    known = model.with_panel(model.panel, mean_field=np.full((4, 2), 0.5))
    plain = mfg.map_estimate(known, space="unconstrained", svi_steps=0, flow_bias=False)
    values = np.stack([cut["crowding"].values[0], np.log(cut["effort"].values[0])])
    covariance = np.linalg.inv(plain.information)
    error = np.sqrt(np.diag(covariance) / 4000)
    assert (np.abs(values.mean(1) - plain.theta) < STANDARD_ERRORS * error).all()
    ratio = values.var(1) / np.diag(covariance)
    np.testing.assert_allclose(ratio, 1.0, atol=STANDARD_ERRORS * np.sqrt(2 / 4000))


def test_its_variance_is_that_within_and_between_flows():
    """The law of total variance, with modes found one by one along the same flows."""
    model, modes = roads_model(200, 1), []
    tree = cut_posterior(model, flows=5, draws=4000, random_seed=1)
    for stream in np.random.SeedSequence(1).spawn(5):
        rng = np.random.default_rng(int(stream.generate_state(1)[0]))
        here = model.with_panel(
            model.panel, mean_field=draw_flow(model, model.panel, rng, "agents")
        )
        modes.append(mfg.map_estimate(here, space="unconstrained", svi_steps=0, flow_bias=False))
    crowding = tree["posterior"]["crowding"].values.reshape(5, 800)
    errors = np.array([m.bse["crowding"] for m in modes])
    found = np.array([m.params["crowding"] for m in modes])
    away = (crowding.mean(1) - found) / (errors / np.sqrt(800))
    assert (np.abs(away) < STANDARD_ERRORS).all()
    total = (errors**2).mean() + found.var()
    assert crowding.var() == pytest.approx(total, rel=STANDARD_ERRORS * np.sqrt(2 / 4000))
    assert found.var() > 0.01 * total


def test_draws_are_pooled_with_equal_weights_and_labelled_by_flow():
    model = market_model(100)
    tree = cut_posterior(model, flows=3, draws=60, random_seed=1)
    flow = tree["sample_stats"]["flow"].values
    assert flow.shape == (1, 60)
    assert (np.bincount(flow[0]) == 20).all()
    assert (tree.attrs["n_flows"], tree.attrs["n_failed"]) == (3, 0)
    again = cut_posterior(model, flows=3, draws=60, random_seed=1)
    for name in model.parameters:
        found = tree["posterior"][name].values
        assert (found == again["posterior"][name].values).all()
        within = [found[flow == k].std() for k in range(3)]
        assert found.std() > 0.9 * np.mean(within)
    assert mfg.policy(model, tree, draws=5).sizes["draw"] == 5


def test_any_sampler_fits_along_the_flows_and_failures_are_counted():
    model, asked = market_model(100), []

    def fit(here, *, random_seed):
        asked.append(here.mean_field.numpy())
        if len(asked) == 2:
            raise ConvergenceError("no mode")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a normal that is not quite the posterior
            return mfg.laplace(here, draws=100, random_seed=random_seed, log_likelihood=False)

    with pytest.warns(ConvergenceWarning, match="failed along 1 of 4 flows drawn.*no mode"):
        tree = cut_posterior(model, flows=4, draws=40, fit=fit, random_seed=1, progressbar=False)
    assert (tree.attrs["n_flows"], tree.attrs["n_failed"]) == (3, 1)
    assert len(np.unique(asked, axis=0)) == 4
    assert tree["posterior"].sizes["draw"] == 30


def test_a_fit_that_mostly_fails_is_an_error():
    def fit(here, *, random_seed):
        raise ConvergenceError("no mode")

    with pytest.raises(ConvergenceError, match="failed along 4 of 4 flows drawn, first: no mode"):
        cut_posterior(market_model(100), flows=4, fit=fit, random_seed=1)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"flows": 1}, ValueError, "`flows` must be at least 2"),
        ({"resample": "rows"}, ValueError, "`resample` must be one of 'agents', 'times'"),
        ({"prior_count": 1.0}, ValueError, "`prior_count` belongs to resample='times'"),
        ({"prior_count": -1.0, "resample": "times"}, ValueError, "must be finite and not negative"),
        ({"fit": 3}, TypeError, "`fit` must be a function of a model"),
        ({"fit": lambda m, random_seed: 3}, TypeError, "must be a DataTree; got int"),
    ],
)
def test_wrong_inputs_of_the_cut_are_refused(arguments, kind, words):
    with pytest.raises(kind, match=words):
        cut_posterior(roads_model(20, 1), **({"random_seed": 1, "flows": 3} | arguments))


# uncertain dynamics


def rough_model(n_agents, seed=1, **arguments):
    """Return the market with its dynamics estimated on the panel itself."""
    game = market.game().replace(horizon=6, features={})
    panel = played(game, market.reward, market.TRUTH, n_agents, seed)
    estimated = game.replace(transition=panel.estimate_transition(prior_count=0.5))
    return mfg.TrajectoryModel(estimated, market.reward, panel, **arguments)


def test_transitions_drawn_are_dirichlet_around_the_games():
    """Mean P; variance P (1 - P) / (n + 1), with n the moves seen from the row."""
    model, n = rough_model(60), 1500
    rng = np.random.default_rng(1)
    drawn = np.stack([draw_transition(model, model.panel, rng) for _ in range(n)])
    mean = model.game.transition.numpy()
    steps, seen = model.panel.transition_counts()
    moves = np.zeros(mean.shape[:2])
    np.add.at(moves, tuple(steps[:, 1:3].T), seen)
    variance = mean * (1 - mean) / (moves[..., None] + 1)
    error = STANDARD_ERRORS * np.sqrt(variance / n)
    often = np.broadcast_to(moves[..., None] >= 20, mean.shape)
    assert (np.abs(drawn.mean(0) - mean) <= error + 1e-12)[often].all()
    clear = often & (mean > 0.05)
    np.testing.assert_allclose(drawn.var(0)[clear], variance[clear], rtol=0.3)
    np.testing.assert_allclose(drawn.sum(-1), 1.0)
    assert (drawn[:, mean == 0] == 0).all()


def test_rows_never_followed_stay_as_the_game_has_them():
    panel = played(ROADS, avoid_crowds, ROADS_TRUTH, 1, 1)
    game = two_roads(transition=np.full((2, 2, 2), 0.5))
    model = mfg.TrajectoryModel(game, avoid_crowds, panel, mean_field=np.full((4, 2), 0.5))
    drawn = draw_transition(model, model.panel, np.random.default_rng(1))
    steps, _ = model.panel.transition_counts()
    seen = np.zeros((2, 2), dtype=bool)
    seen[tuple(steps[:, 1:3].T)] = True
    assert not seen.all()
    assert (drawn[~seen] == 0.5).all()
    assert (drawn[seen] != 0.5).all()


def test_dynamics_by_time_are_drawn_by_time():
    game = ROADS.replace(transition=np.full((3, 2, 2, 2), 0.5))
    model = mfg.TrajectoryModel(game, avoid_crowds, roads_model(20, 1).panel)
    drawn = draw_transition(model, model.panel, np.random.default_rng(1))
    assert drawn.shape == (3, 2, 2, 2)
    assert not np.allclose(drawn[0], drawn[1])


def test_uncertain_dynamics_widen_the_posterior():
    """By the variance, between transitions drawn, of the modes that they lead to."""
    model, modes = rough_model(60, mean_field="equilibrium"), []
    tree = cut_posterior(model, flows=3, draws=1500, dynamics="estimated", random_seed=1)
    assert tree["drawn"]["transition"].sizes == {
        "flow": 3, "state": 8, "action": 3, "next_state": 8,
    }  # fmt: skip
    for table in tree["drawn"]["transition"].values:
        here = model.with_panel(model.panel, game=model.game.replace(transition=table))
        modes.append(mfg.map_estimate(here, space="unconstrained", svi_steps=0, progressbar=False))
    margin = tree["posterior"]["margin"].values.reshape(3, 500)
    errors = np.array([m.bse["margin"] / m.params["margin"] for m in modes])
    found = np.log([m.params["margin"] for m in modes])
    away = (np.log(margin).mean(1) - found) / (errors / np.sqrt(500))
    assert (np.abs(away) < STANDARD_ERRORS).all()
    spread = STANDARD_ERRORS * np.sqrt(2 / 1500)
    assert np.log(margin).var() == pytest.approx((errors**2).mean() + found.var(), rel=spread)
    assert found.std() > 0.0


def test_what_cannot_be_drawn_is_refused():
    panel = roads_model(20, 1).panel
    coupled = mfg.TrajectoryModel(ROADS, avoid_crowds, panel, mean_field="equilibrium")
    with pytest.raises(ValueError, match="a coupled model has no flow to draw"):
        cut_posterior(coupled, random_seed=1)
    with pytest.raises(ValueError, match="`dynamics` must be one of 'known', 'estimated'"):
        cut_posterior(roads_model(20, 1), dynamics="estimate", random_seed=1)
    sick = mfg.TrajectoryModel(
        epidemic(), fear, played(epidemic(), fear, {"illness": 1.0, "distance": 0.5}, 20, 1)
    )
    with pytest.raises(ValueError, match=r"dense transition, .* got a function of the crowd"):
        cut_posterior(sick, dynamics="estimated", random_seed=1)
    moves = scipy.sparse.csr_array(ROADS.transition.numpy().reshape(4, 2))
    sparse = mfg.TrajectoryModel(ROADS.replace(transition=moves), avoid_crowds, panel)
    with pytest.raises(ValueError, match=r"dense transition, .* got a sparse one"):
        cut_posterior(sparse, dynamics="estimated", random_seed=1)
