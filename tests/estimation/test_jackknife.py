"""The group jackknife, and what each plug-in fit says that its counted flow costs."""

import functools
import importlib
import pickle

import games
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats

import mfgppl as mfg
from mfgppl.equilibrium.response import soft_response
from mfgppl.models import malware, market, sis
from mfgppl.results import CountedFlow
from mfgppl.reward.program import bind

FIT = functools.partial(mfg.mle, svi_steps=0, progressbar=False, flow_bias=False)


@functools.cache
def uneven():
    """A model of forty drivers in eight firms, some of whom leave early."""
    panel = games.played(games.two_roads(), games.avoid_crowds, games.ROADS_TRUTH, 40, 3)
    frame = panel.to_frame()
    frame["firm"] = frame["agent"].astype(str).str[-1]
    gone = (frame["agent"].astype("category").cat.codes % 3 == 0) & (frame["time"] >= 3)
    columns = {"agent": "agent", "time": "time", "state": "state", "action": "action"}
    columns["groups"] = ["firm"]
    panel = mfg.Trajectories.from_frame(frame[~gone], **columns)
    return mfg.TrajectoryModel(games.two_roads(), avoid_crowds, panel)


def avoid_crowds(x):
    """The crowd on one's road costs, turning costs; no edge of a support is near."""
    crowding, effort = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in ("crowding", "effort"))
    return -crowding * x.density - effort * (x.action == "turn")


def by_hand(model, parts):
    """Return the corrected estimate and its covariance by loops over rebuilt panels."""
    panel, n = model.panel, len(parts)
    exact = functools.partial(FIT, tolerance=1e-10)
    whole = exact(model).params

    @functools.cache
    def without(*left_out):
        gone = np.concatenate([parts[k] for k in left_out])
        rest = panel.subset(np.setdiff1d(np.arange(panel.n_trajectories), gone))
        return exact(model.with_panel(rest), init=whole).params.to_numpy()

    one = np.array([without(g) for g in range(n)])
    corrected = n * whole.to_numpy() - (n - 1) * one.mean(0)
    corrections = []
    for g in range(n):
        two = [without(min(g, h), max(g, h)) for h in range(n) if h != g]
        corrections.append((n - 1) * one[g] - (n - 2) * np.mean(two, axis=0))
    return corrected, (n - 1) / n * n * np.cov(np.array(corrections).T, ddof=0)


def with_an_end(x):
    """What a road is worth after the last period is part of the preferences."""
    end = pyro.sample("end", dist.Normal(0.0, 1.0))
    return mfg.Preferences(avoid_crowds(x), terminal=end * (x.state == "left"))


@functools.cache
def ended():
    """The model of forty drivers for whom the end has a worth."""
    panel = games.played(games.two_roads(), games.avoid_crowds, games.ROADS_TRUTH, 40, 3)
    return mfg.TrajectoryModel(games.two_roads(), with_an_end, panel)


@functools.cache
def typed():
    """The model of sixty drivers of two cities that do not meet, with costs of their own."""

    def by_city(x):
        effort = pyro.sample("effort", x.city.each(dist.Normal(0.0, 1.0)))
        crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
        return -crowding * x.density - effort[x.city.codes] * (x.action == "turn")

    game = games.two_roads(types={"city": ["a", "b"]}, meets="city", initial=[0.4, 0.1, 0.2, 0.3])
    truth = {"crowding": 1.5, "effort": [0.2, 0.8]}
    return mfg.TrajectoryModel(game, by_city, games.played(game, by_city, truth, 60, 3))


@functools.cache
def one_of_them():
    """The model of forty drivers of whom a single one has an effort of its own."""

    def by_kind(x):
        own = pyro.sample("own", dist.Normal(0.0, 1.0))
        return avoid_crowds(x) - own * (x.kind == "rare") * (x.action == "turn")

    frame = games.played(games.two_roads(), games.avoid_crowds, games.ROADS_TRUTH, 40, 3).to_frame()
    frame["kind"] = np.where(frame["agent"] == frame["agent"].iloc[0], "rare", "common")
    game = games.two_roads(types={"kind": ["rare", "common"]}, initial=[0.02, 0.02, 0.48, 0.48])
    panel = mfg.Trajectories.from_frame(frame, types=["kind"])
    return mfg.TrajectoryModel(game, by_kind, panel)


def test_what_a_part_alone_determines_is_not_corrected():
    """Without its one agent a parameter has no estimate: no jackknife, and no bias measured."""
    model = one_of_them()
    with pytest.raises(mfg.exceptions.ConvergenceError, match=r"1 of 5 parts alone .* 'own'"):
        mfg.jackknife(model, parts=5, random_seed=1)
    fit = mfg.mle(model, svi_steps=0, progressbar=False)
    assert np.isfinite(fit.bse).all()
    table = fit.counted_flow.table
    assert np.isnan(table.loc["own", ["bias", "coverage", "corrected"]]).all()
    others = table.loc[["crowding", "effort"], ["bias", "coverage", "corrected"]]
    assert np.isfinite(others).all(axis=None)
    assert fit.counted_flow.unmeasured == ["own"]


@pytest.mark.parametrize(
    ("make", "by"), [(uneven, None), (uneven, "firm"), (ended, None), (typed, None)]
)
def test_it_equals_a_loop_of_refits_on_rebuilt_panels(make, by):
    """By agent and by cluster, of a panel with early exits; with an end's worth; with types."""
    model, n = make(), 4
    owners = model.panel.agents if by is None else model.panel.groups[by]
    found = mfg.jackknife(model, parts=n, by=by, random_seed=1)
    codes, units = pd.factorize(owners)
    order = np.random.default_rng(1).permutation(len(units))
    fold = np.empty(len(units), dtype=int)
    fold[order] = np.arange(len(units)) % n
    parts = [np.flatnonzero(fold[codes] == k) for k in range(n)]
    params, covariance = by_hand(model, parts)
    np.testing.assert_allclose(found.params, params, atol=1e-8)
    np.testing.assert_allclose(found.cov_params(), covariance, rtol=1e-5)


def test_intervals_are_of_t():
    """Quantiles and p values have as many degrees of freedom as there are parts, less one."""
    found = mfg.jackknife(uneven(), parts=8)
    half = scipy.stats.t.ppf(0.95, 7) * found.bse
    np.testing.assert_allclose(found.conf_int(0.9)["upper"] - found.params, half)
    z = found.params / found.bse
    np.testing.assert_allclose(found.summary()["p"], 2 * scipy.stats.t.sf(abs(z), 7))
    assert "t with 7 degrees" in repr(found)


def test_tests_count_the_degrees_of_freedom():
    """One restriction is the t test; two are Hotelling's."""
    found = mfg.jackknife(uneven(), parts=8)
    one = mfg.hypotheses.wald_test(found, "crowding = 1")
    t = (found.params["crowding"] - 1) / found.bse["crowding"]
    assert one.p == pytest.approx(2 * scipy.stats.t.sf(abs(t), 7))
    two = mfg.hypotheses.wald_test(found, "crowding = 1, effort = 0")
    gap = found.params.to_numpy() - [1, 0]
    squared = gap @ np.linalg.solve(found.cov_params(), gap)
    assert two.p == pytest.approx(scipy.stats.f.sf(squared * 6 / (7 * 2), 2, 6))


@functools.cache
def market_model(n, seed):
    """Return the market's model of n firms."""
    panel = mfg.Trajectories.from_frame(market.frame(n, random_seed=seed), **market.COLUMNS)
    return market.model(panel)


def test_a_fit_says_what_its_counted_flow_costs():
    """The printed fit, its messages and its table name the crowd's coefficient and the remedy."""
    fit = mfg.mle(market_model(300, 3), svi_steps=0, progressbar=False)
    (message,) = fit.messages
    assert "counted from 300 agents" in message
    assert "crowding 1.49" in message
    assert "menu_cost" not in message
    assert message in repr(fit)
    assert fit.counted_flow.untrusted == ["margin", "crowding"]
    np.testing.assert_array_equal(fit.summary()["flow_bias"], fit.counted_flow.table["bias_se"])
    corrected = mfg.jackknife(market_model(300, 3))
    np.testing.assert_allclose(fit.counted_flow.table["corrected"], corrected.params)
    assert mfg.mle(market_model(300, 3), svi_steps=0, flow_bias=False).messages == ()


def test_agents_who_differ_make_the_expected_coverage_that_of_clustered_errors():
    """Halves of the firms find a change dear and cheap; `menu_cost` has no bias from the flow."""
    game, frames = market.game(), []
    flow = mfg.solve_equilibrium(game, market.reward, parameters=market.TRUTH).value.mean_field
    for half, cost in enumerate((0.1, 1.8)):
        firms = market.TRUTH | {"menu_cost": cost}
        along = soft_response(game, bind(market.reward, firms), flow, temperature=1.0)
        seen = mfg.simulate(game, along.policy, flow, n_agents=150, random_seed=half)
        frames.append(seen.to_frame().assign(agent=lambda f, half=half: f["agent"] + 150 * half))
    panel = mfg.Trajectories.from_frame(
        pd.concat(frames), state=["price", "stock"], state_labels=game.space.coordinates,
        action_labels=game.actions,
    )  # fmt: skip
    fit = mfg.mle(mfg.TrajectoryModel(game, market.reward, panel), svi_steps=0, progressbar=False)
    cost = fit.counted_flow.table.loc["menu_cost"]
    wider = fit.standard_errors("cluster")["menu_cost"] / fit.bse["menu_cost"]
    assert wider > 1.7
    assert abs(cost["bias_se"]) < 0.2
    z = scipy.stats.norm.ppf(0.95)
    expected = scipy.stats.norm.cdf(z / wider) - scipy.stats.norm.cdf(-z / wider)
    assert cost["coverage"] == pytest.approx(expected, abs=0.05)  # the flow adds a little
    assert cost["error"] == pytest.approx(wider * fit.bse["menu_cost"], rel=0.1)
    assert "menu_cost" in fit.counted_flow.untrusted
    (message,) = fit.messages
    times = cost["error"] / fit.bse["menu_cost"]
    assert f"where the right one is {times:.1f} times as large" in message


def test_a_bias_that_is_small_is_a_line_and_no_warning():
    """In an epidemic whose crowd enters by the dynamics, counting costs little."""
    game = sis.game(horizon=10)
    world = mfg.solve_equilibrium(game, sis.reward, parameters=sis.TRUTH).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=300, random_seed=1)
    fit = mfg.mle(mfg.TrajectoryModel(game, sis.reward, panel), svi_steps=0, progressbar=False)
    assert fit.counted_flow.messages() == fit.messages == ()
    assert str(fit.counted_flow) in repr(fit)


def test_what_reads_no_counted_flow_is_not_mentioned(roads_model):
    """A reward without the crowd, a flow that is given, one that is solved for."""

    def alone(x):
        return -pyro.sample("effort", dist.Normal(0.0, 1.0)) * (x.action == "turn")

    free = mfg.TrajectoryModel(games.two_roads(), alone, roads_model.panel)
    for model in (
        free,
        roads_model.along(roads_model.mean_field),
        roads_model.along("equilibrium"),
    ):
        fit = mfg.mle(model, svi_steps=0, progressbar=False)
        assert fit.counted_flow is None
        assert "flow_bias" not in fit.summary()


def test_a_counted_panel_says_that_the_cost_is_not_measured(roads_model):
    """It keeps no agents to leave out."""
    panel = mfg.CountedPanel.from_trajectories(roads_model.panel)
    model = mfg.TrajectoryModel(games.two_roads(), games.avoid_crowds, panel)
    fit = mfg.mle(model, svi_steps=0, progressbar=False)
    assert "not measured: a counted panel" in fit.messages[-1]
    with pytest.raises(ValueError, match="jackknife"):
        mfg.jackknife(model)


def test_the_record_survives_files_and_processes(roads_model):
    """As text in attributes, and pickled."""
    record = mfg.mle(roads_model, svi_steps=0, progressbar=False).counted_flow
    for copy in (CountedFlow.from_json(record.to_json()), pickle.loads(pickle.dumps(record))):
        pd.testing.assert_frame_equal(copy.table, record.table, check_names=False)
        assert str(copy) == str(record)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": 2}, "more parts than parameters; there are 2 parts and 2"),
        ({"parts": 1}, "`parts`"),
        ({"by": "colour"}, "`by`"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(options, message):
    """Too few parts, and groups that are none."""
    with pytest.raises(ValueError, match=message):
        mfg.jackknife(uneven(), **options)


def test_a_flow_that_is_solved_for_needs_no_jackknife(roads_model):
    """The refusal says why."""
    with pytest.raises(ValueError, match="counts its error already"):
        mfg.jackknife(roads_model.along("equilibrium"))


@pytest.mark.filterwarnings("ignore::mfgppl.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("method", "options"),
    [
        (mfg.laplace, {}),
        (mfg.vi, {"max_steps": 100}),
        (mfg.nuts, {"tune": 50, "chains": 2, "progressbar": False}),
    ],
)
def test_draws_carry_it(method, options):
    """Results have it among their warnings and as a record, unless it is turned off."""
    model = market_model(100, 3)
    options = {"draws": 50, "random_seed": 1} | options
    draws = method(model, **options)
    record = CountedFlow.from_json(draws.attrs["counted_flow"])
    assert len(record.messages()) == 1
    assert set(record.messages()) <= set(draws.attrs["warnings"])
    assert "counted_flow" not in method(model, flow_bias=False, **options).attrs


@pytest.mark.filterwarnings("ignore::mfgppl.exceptions.ConvergenceWarning")  # of the weights
def test_a_bias_too_large_for_the_jackknife_is_said(gallery):
    """Five standard errors among 300 agents, of which it removes two thirds; not among 1,000."""
    model = gallery("lasry_lions", 300)
    found = mfg.jackknife(model)
    (message,) = found.messages
    errors = abs(found.counted_flow.table.loc["crowding", "bias_se"])
    assert f"puts crowding off by {errors:.1f} standard errors, of which the jackknife" in message
    draws = mfg.laplace(model, draws=50, random_seed=1, progressbar=False)
    assert message in mfg.flows.adjust(draws, found, model).attrs["warnings"]
    assert mfg.jackknife(gallery("lasry_lions", 1000)).messages == ()


@pytest.fixture
def gallery():
    def model_of(name, n_agents):
        module = importlib.import_module(f"mfgppl.models.{name}")
        panel = games.played(module.game(), module.reward, module.TRUTH, n_agents, 3)
        return mfg.TrajectoryModel(module.game(), module.reward, panel)

    return model_of


def test_a_bias_that_leaving_out_does_not_show_is_seen_by_the_cross_fit():
    """In the spread of malware the level hardly moves: the plug-in reads chance, and says so."""
    game = malware.game()
    world = mfg.solve_equilibrium(game, malware.reward, parameters=malware.TRUTH).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=300, random_seed=2)
    model = mfg.TrajectoryModel(game, malware.reward, panel)
    fit = mfg.mle(model, svi_steps=0, progressbar=False)
    cost = fit.counted_flow
    assert cost.saturated == ["own", "crowd"]
    assert abs(cost.table["bias_se"]["crowd"]) < 1  # the jackknife alone is blind here
    assert "does not fall with the number of agents" in fit.messages[-1]
    crossed = mfg.flows.cross_fit(model, folds=20, random_seed=1)
    gap = cost.table["cross_fit"] - crossed.params
    assert (gap.abs() < fit.bse).all()  # one Newton step of it
