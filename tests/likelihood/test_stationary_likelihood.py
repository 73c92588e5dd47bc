"""Panels of games without a horizon, and of games whose crowd is one of states and actions."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from equilibrium.kinds import made
from games import as_frame, avoid_crowds, random_rows, two_roads
from reference import finite_difference

import mfgppl as mfg
from mfgppl.data.panel import Counts
from mfgppl.likelihood.stationary_games import StationaryLikelihood

ROUNDING = 1e-10  # sums of a few dozen float64 numbers
DIFFERENCES = 1e-5  # error of central differences with a step of 1e-5, of hundreds of nats
STANDARD_ERRORS = 3.0  # of an estimate
TRUTH = {"crowding": 2.0, "effort": 0.6}


def endless(**changes):
    """Return roads without a horizon; drivers drift to the left by chance."""
    leaky = [[[0.95, 0.05], [0.3, 0.7]], [[0.3, 0.7], [0.9, 0.1]]]
    return two_roads(**({"horizon": None, "discount": 0.8, "transition": leaky} | changes))


@pytest.fixture(scope="module")
def world():
    """The equilibrium of the roads without a horizon."""
    return mfg.solve_equilibrium(endless(), avoid_crowds, parameters=TRUTH, throw=True).value


@pytest.fixture(scope="module")
def panel(world):
    """Twenty decisions of 300 drivers, who begin at the stationary distribution."""
    game = endless(initial=world.mean_field[0].numpy())
    return mfg.simulate(
        game, world.policy, world.mean_field, n_agents=300, random_seed=4, n_times=20
    )


def iterated(game, reward, transition):
    """Return the log policy (S, A) of plain value iteration; 0.8^200 is below 1e-19."""
    values, beta = np.zeros(game.n_states), game.temperature
    for _ in range(200):
        q = reward[0] + game.discount * transition @ values
        top = q.max(-1)
        values = top + beta * np.log(np.exp((q - top[:, None]) / beta).sum(-1))
    return (q - values[:, None]) / beta


CASES = [("fixed", 1.0), ("fixed", 0.3), ("masked", 0.6), ("sparse", 0.6), ("moving", 0.6)]


def likelihood_case(kind, temperature):
    """Return a game, its likelihood for random counts, a random reward and the dynamics."""
    game = made(kind, sizes=(4, 3), horizon=None, discount=0.8, temperature=temperature)
    rng = np.random.default_rng(2)
    flow = torch.as_tensor(random_rows(3, 1, 4))
    transition = game.transition_along(flow)
    counts = np.zeros((1, 4, 3))
    allowed = game.available.numpy()
    counts[0][allowed] = rng.integers(0, 30, size=allowed.sum())
    empty = np.zeros((1, 4))
    likelihood = StationaryLikelihood(
        transition, Counts(counts, empty, empty, np.zeros((1, 4, 3))), 0.8, temperature
    )
    reward = np.where(allowed, rng.normal(size=(1, 4, 3)), -np.inf)
    return game, likelihood, reward, transition.to_dense().numpy()[0]


def counted(counts, log_policy):
    """Return the log likelihood of counts, by a loop over those that are not zero."""
    return sum(n * log_policy[i] for i, n in np.ndenumerate(counts) if n > 0)


@pytest.mark.parametrize(("kind", "temperature"), CASES)
def test_value_and_gradient_are_those_of_value_iteration(kind, temperature):
    """The kernel and its twin equal the counts times the log policy of plain value iteration, and
    their gradients its differences.
    """
    game, likelihood, reward, transition = likelihood_case(kind, temperature)
    counts = likelihood.counts.actions[0]

    def value(table):
        return counted(counts, iterated(game, table, transition))

    found, gradient = likelihood.evaluator()(reward)
    # hundreds of nats
    assert found == pytest.approx(value(reward), rel=ROUNDING)
    at = torch.tensor(reward, requires_grad=True)
    twin = likelihood.log_likelihood(at)
    assert twin.item() == pytest.approx(value(reward), rel=ROUNDING)
    (slope,) = torch.autograd.grad(twin, at)
    allowed = np.isfinite(reward)
    with np.errstate(invalid="ignore"):
        expected = finite_difference(value, reward)
    np.testing.assert_allclose(gradient[allowed], expected[allowed], atol=DIFFERENCES)
    np.testing.assert_allclose(slope.numpy()[allowed], expected[allowed], atol=DIFFERENCES)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[~allowed], 0.0, atol=ROUNDING)


def test_the_twin_has_second_derivatives():
    """The Hessian along a direction equals differences of the gradient."""
    _, likelihood, reward, _ = likelihood_case("fixed", 0.6)
    move = torch.as_tensor(np.random.default_rng(5).normal(size=reward.shape))

    def slope(table, **options):
        return torch.autograd.grad(likelihood.log_likelihood(table), table, **options)[0]

    at = torch.tensor(reward, requires_grad=True)
    (second,) = torch.autograd.grad((slope(at, create_graph=True) * move).sum(), at)
    up, down = (slope((torch.tensor(reward) + h * move).requires_grad_()) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(second, (up - down) / 2e-5, atol=10 * DIFFERENCES)


def test_other_counts_may_be_given():
    """Value and gradient are linear in the counts, and those of no decision are zero."""
    _, likelihood, reward, _ = likelihood_case("fixed", 0.6)
    counts = likelihood.counts.actions
    value, gradient = likelihood.evaluator()(reward)
    twice, steeper = likelihood.evaluator(2 * counts)(reward)
    assert twice == pytest.approx(2 * value, rel=ROUNDING)
    np.testing.assert_allclose(steeper, 2 * gradient, rtol=ROUNDING)
    nothing, level = likelihood.evaluator(0 * counts)(reward)
    assert nothing == 0.0
    np.testing.assert_array_equal(level, 0.0)


def test_tables_keep_the_axes_of_draws():
    """Log policies of several rewards at once are those of each."""
    game, likelihood, reward, transition = likelihood_case("fixed", 0.6)
    many = np.stack([reward, reward[:, ::-1], 2 * reward]).reshape(3, 1, 1, 4, 3)
    (tables,) = likelihood.table_arrays(many)
    assert tables.shape == many.shape
    for table, one in zip(tables, many, strict=True):
        np.testing.assert_allclose(table[0, 0], iterated(game, one[0], transition), atol=ROUNDING)


@pytest.mark.parametrize("known", [False, True])
def test_a_stationary_panel_is_fitted(world, panel, known):
    """Estimates lie within three standard errors of the truth, with the panel's own distribution
    and with the true one.
    """
    flow = world.mean_field if known else "empirical"
    model = mfg.TrajectoryModel(endless(), avoid_crowds, panel, mean_field=flow)
    fit = mfg.mle(model, flow_bias=False, progressbar=False)
    assert fit.converged
    assert fit.nobs == 6000
    off = (fit.params - pd.Series(TRUTH)).abs()
    assert (off <= STANDARD_ERRORS * fit.bse).all()
    assert (fit.bse < 1.0).all()
    # the log likelihood at the estimate, by value iteration
    shares = model.mean_field[0].numpy()
    reward = -fit.params["crowding"] * shares[:, None] - fit.params["effort"] * np.array([0.0, 1.0])
    log_policy = iterated(endless(), reward[None], endless().transition.numpy())
    assert fit.llf == pytest.approx(counted(panel.counts.actions.sum(0), log_policy), rel=1e-9)


def test_a_stationary_model_uses_all_times_as_one(world, panel):
    """The flow is the share of all visits, and counts are sums over time; a panel of counts alone
    gives the same fit.
    """
    model = mfg.TrajectoryModel(endless(), avoid_crowds, panel)
    np.testing.assert_allclose(model.mean_field[0], panel.visits.sum(0) / 6000, atol=ROUNDING)
    np.testing.assert_array_equal(model.law.counts.actions[0], panel.counts.actions.sum(0))
    counts = mfg.CountedPanel.from_trajectories(panel)
    other = mfg.TrajectoryModel(endless(), avoid_crowds, counts)
    one, two = (mfg.mle(m, flow_bias=False, progressbar=False) for m in (model, other))
    np.testing.assert_allclose(one.params, two.params, rtol=1e-6)
    assert one.llf == pytest.approx(two.llf, rel=ROUNDING)


def test_pooled_rows_equal_pooled_counts(panel):
    """Pooling rows and pooling counts give the same decisions, visits, flows and steps."""
    rows = panel.pooled()
    counts = mfg.CountedPanel.from_trajectories(panel).pooled()
    assert rows.horizon == counts.horizon == 1
    np.testing.assert_array_equal(rows.counts.actions, counts.counts.actions)
    np.testing.assert_array_equal(rows.counts.starts, counts.counts.starts)
    np.testing.assert_array_equal(rows.visits, counts.visits)
    np.testing.assert_array_equal(rows.mean_field(), counts.mean_field())
    np.testing.assert_array_equal(rows.occupancy(), counts.occupancy())
    for one, other in zip(rows.transition_counts(), counts.transition_counts(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert rows.transition_counts()[1].sum() == 300 * 19


def test_each_driver_adds_its_own_log_likelihood(panel):
    """Terms by trajectory are the log policy at the driver's decisions, and add up to the whole."""
    model = mfg.TrajectoryModel(endless(), avoid_crowds, panel)
    fit = mfg.mle(model, flow_bias=False, progressbar=False)
    each = mfg.log_likelihood(model, fit)
    reward = -fit.params["crowding"] * model.mean_field[0].numpy()[:, None]
    reward = reward - fit.params["effort"] * np.array([0.0, 1.0])
    log_policy = iterated(endless(), reward[None], endless().transition.numpy())
    by_hand = log_policy[panel.state, panel.action].reshape(300, 20).sum(1)
    np.testing.assert_allclose(np.ravel(each), by_hand, atol=1e-9)
    assert float(each.sum()) == pytest.approx(fit.llf, rel=1e-9)


@pytest.mark.usefixtures("few_panels", "blank_figures")
def test_draws_of_a_stationary_posterior_and_their_report(world, panel, tmp_path):
    """A few draws surround the truth, and the report is written of them."""
    model = mfg.TrajectoryModel(endless(), avoid_crowds, panel, mean_field=world.mean_field)
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="2 chains; 4 or more"):
        draws = mfg.nuts(
            model, draws=100, tune=150, chains=2, cores=1, random_seed=1, progressbar=False
        )
    fit = mfg.mle(model, flow_bias=False, progressbar=False)
    for name in TRUTH:
        drawn = draws["posterior"][name]
        assert abs(float(drawn.mean()) - fit.params[name]) <= fit.bse[name]
        assert 0.5 * fit.bse[name] <= float(drawn.std()) <= 2.0 * fit.bse[name]
    page = mfg.report(draws, tmp_path / "report.html").read_text()
    assert "crowding" in page


def by_choice(x):
    """Reward of a joint game: company in one's own choice costs, and so does the second action."""
    company = pyro.sample("company", dist.Normal(0.0, 3.0))
    effort = pyro.sample("effort", dist.Normal(0.0, 1.0))
    return -company * x.occupancy - effort * (x.action == "a1") + x.base


JOINT_TRUTH = {"company": 2.0, "effort": 0.5}


@pytest.fixture(scope="module")
def crossing():
    """A joint game whose dynamics move with the crowd, its equilibrium and a panel of it."""
    game = made("joint moving", horizon=5)
    found = mfg.solve_equilibrium(game, by_choice, parameters=JOINT_TRUTH, throw=True).value
    panel = mfg.simulate(game, found.policy, found.mean_field, n_agents=2000, random_seed=6)
    return game, found, panel


def test_the_flow_of_a_joint_panel_is_its_occupancy(crossing):
    """The model's flow is the share of each state and action among the decisions of a time."""
    game, _, panel = crossing
    model = mfg.TrajectoryModel(game, by_choice, panel)
    table = as_frame(panel)
    shares = table.pivot_table(index=["time", "rank"], columns="action", aggfunc="size") / 2000
    np.testing.assert_allclose(
        model.mean_field.numpy().reshape(15, 2), shares.to_numpy(), atol=ROUNDING
    )
    np.testing.assert_allclose(model.inputs.density[..., 0], panel.mean_field(), atol=ROUNDING)


@pytest.mark.parametrize("known", [False, True])
def test_a_joint_game_is_fitted(crossing, known):
    """With the flow known the estimates lie within three standard errors of the truth; the panel's
    own flow leads to finite estimates near those.
    """
    game, found, panel = crossing
    flow = found.mean_field if known else "empirical"
    model = mfg.TrajectoryModel(game, by_choice, panel, mean_field=flow)
    fit = mfg.mle(model, flow_bias=False, progressbar=False)
    assert fit.converged
    if known:
        off = (fit.params - pd.Series(JOINT_TRUTH)).abs()
        assert (off <= STANDARD_ERRORS * fit.bse).all()
    assert np.isfinite(fit.params).all()


def test_a_joint_flow_has_the_axes_of_states_and_actions(crossing):
    """A flow over states alone is refused where the crowd is joint, and the other way round."""
    game, found, panel = crossing
    with pytest.raises(ValueError, match=r"`mean_field` must have shape \(T, S, A\) = \(5, 3, 2\)"):
        mfg.TrajectoryModel(game, by_choice, panel, mean_field=found.mean_field.sum(-1))
    plain = made("fixed", horizon=5)
    drawn = mfg.simulate(
        plain, np.ones((5, 3, 2)) / 2, np.ones((5, 3)) / 3, n_agents=5, random_seed=1
    )
    with pytest.raises(ValueError, match=r"\(T, S\) = \(5, 3\)"):
        mfg.TrajectoryModel(
            plain, lambda x: pyro.sample("c", dist.Normal(0.0, 1.0)) * x.density, drawn,
            mean_field=found.mean_field,
        )  # fmt: skip


def test_occupancy_is_refused_where_the_crowd_is_one_of_states():
    """The message says what the game's mean field is, and what gives it actions."""
    with pytest.raises(AttributeError, match=r"joint=True"):
        mfg.solve_equilibrium(two_roads(), lambda x: -x.occupancy)


def test_a_stationary_joint_model_pools_its_occupancy():
    """All decisions of all times are one distribution over states and actions."""
    game = made("joint", horizon=None, discount=0.8)
    found = mfg.solve_equilibrium(game, by_choice, parameters=JOINT_TRUTH, throw=True).value
    panel = mfg.simulate(
        game, found.policy, found.mean_field, n_agents=200, random_seed=2, n_times=15
    )
    model = mfg.TrajectoryModel(game, by_choice, panel)
    expected = panel.counts.actions.sum(0) / 3000
    np.testing.assert_allclose(model.mean_field[0], expected, atol=ROUNDING)
    fit = mfg.mle(
        mfg.TrajectoryModel(game, by_choice, panel, mean_field=found.mean_field),
        progressbar=False,
    )
    off = (fit.params - pd.Series(JOINT_TRUTH)).abs()
    assert (off <= STANDARD_ERRORS * fit.bse).all()
