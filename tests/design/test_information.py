"""How well data would identify, against simulated scores, differences and fits."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from equilibrium.kinds import KINDS, STATIONARY, made
from games import ROUNDING, STANDARD_ERRORS, avoid_crowds, played, two_roads

import mfgppl as mfg
from mfgppl.models import invest, malware, market
from mfgppl.reward.program import bind, reward_table

ALL_KINDS = [(kind, 3) for kind in KINDS] + [(kind, None) for kind in STATIONARY]
STEP = 1e-4  # of central second differences, whose error is STEP^2 and rounding / STEP^2
DIFFERENCES = 1e-5  # relative to the largest entry
TRUTH = {"base": 0.7, "turn": 0.4}


def tastes(x):
    """A random table and a price of one action, in unconstrained and positive parameters."""
    base, turn = (
        pyro.sample("base", dist.Normal(0.0, 1.0)),
        pyro.sample("turn", dist.HalfNormal(1.0)),
    )
    return base * x.base - turn * (x.action == "a1") - 0.3 * x.density


def log_policy(game, flow, reward, weights):
    """Return the soft policy at parameters, along a flow."""
    data = dict(zip(TRUTH, map(float, weights), strict=True))
    table = reward_table(bind(reward, data), mfg.RewardInputs(game, flow))
    masked = table.masked_fill(~game.available, -torch.inf)
    solve = (
        mfg.equilibrium.soft_policy_iteration
        if game.stationary
        else mfg.equilibrium.soft_backward_induction
    )
    along = game.transition_along(flow)
    found = solve(masked, along, discount=game.discount, temperature=game.temperature)
    return found.log_policy.numpy()


def expected_visits(game, world, n_times):
    """Return expected counts (T, S, A) of one agent from a large number of simulated ones."""
    shares = world.mean_field.numpy()
    shares = shares.sum(-1) if game.joint else shares
    if game.stationary:
        table = game.transition_along(world.mean_field).to_dense().numpy()[0]
        moved = np.einsum("sa,sax->sx", world.policy[0].numpy(), table)
        starts = [game.initial.numpy() @ np.linalg.matrix_power(moved, k) for k in range(n_times)]
        shares = np.sum(starts, axis=0)[None]
    return shares[..., None] * world.policy.numpy()


@pytest.mark.parametrize(("kind", "horizon"), ALL_KINDS)
def test_it_is_minus_the_expected_hessian(kind, horizon):
    """In games of every kind, second differences of the expected log likelihood agree."""
    game = made(kind, horizon=horizon)
    n_times = 5 if game.stationary else None
    world = mfg.solve_equilibrium(game, tastes, parameters=TRUTH, throw=True).value
    counts = expected_visits(game, world, n_times)

    def expected_log_likelihood(weights):
        values = log_policy(game, world.mean_field, tastes, weights)
        return (counts * np.where(counts > 0, values, 0.0)).sum()

    steps, at = STEP * np.eye(2), np.array(list(TRUTH.values()))
    hessian = np.zeros((2, 2))
    for i, j in np.ndindex(2, 2):
        signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
        terms = [a * b * expected_log_likelihood(at + a * steps[i] + b * steps[j])
                 for a, b in signs]  # fmt: skip
        hessian[i, j] = sum(terms) / (4 * STEP**2)
    found = mfg.design.expected_information(
        game, tastes, parameters=TRUTH, n_agents=1, n_times=n_times
    )
    size = np.abs(hessian).max()
    np.testing.assert_allclose(found.information, -hessian, rtol=0, atol=DIFFERENCES * size)


@pytest.mark.parametrize(("kind", "horizon"), [("moving", 3), ("masked", 3), ("joint", None)])
def test_it_is_the_mean_outer_product_of_simulated_scores(kind, horizon):
    """Gradients of simulated trajectories' log likelihoods vary as the information says."""
    game, n_agents = made(kind, horizon=horizon), 20_000
    n_times = 5 if game.stationary else game.horizon
    world = mfg.solve_equilibrium(game, tastes, parameters=TRUTH, throw=True).value
    drawn = mfg.simulate(
        game, world.policy, world.mean_field, n_agents=n_agents, random_seed=1,
        n_times=n_times if game.stationary else None,
    )  # fmt: skip
    at = np.array(list(TRUTH.values()))
    slopes = []
    for step in 1e-6 * np.eye(2):
        up, down = (log_policy(game, world.mean_field, tastes, at + k * step) for k in (1, -1))
        slopes.append(np.where(np.isfinite(up), up, 0) - np.where(np.isfinite(down), down, 0))
    when = np.zeros_like(drawn.time) if game.stationary else drawn.time
    by_row = np.stack(slopes)[:, when, drawn.state, drawn.action] / 2e-6
    scores = by_row.reshape(2, n_agents, n_times).sum(-1).T
    products = scores[:, :, None] * scores[:, None, :]
    found = mfg.design.expected_information(
        game, tastes, parameters=TRUTH, n_agents=1, n_times=n_times if game.stationary else None
    )
    error = products.std(0) / np.sqrt(n_agents)
    assert (np.abs(products.mean(0) - found.information.to_numpy()) < STANDARD_ERRORS * error).all()
    assert (error < 0.05 * np.abs(products.mean(0)).max()).all()


@pytest.mark.parametrize("example", [market, invest])
def test_standard_errors_are_those_of_a_fit(example):
    """The standard errors of a simulated panel of the same size differ by a few percent."""
    game = example.game()
    world = mfg.solve_equilibrium(game, example.reward, parameters=example.TRUTH, throw=True).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=2000, random_seed=1)
    model = mfg.TrajectoryModel(game, example.reward, panel, mean_field=world.mean_field)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        fit = mfg.mle(model, svi_steps=0)
    found = mfg.design.expected_information(
        game, example.reward, parameters=example.TRUTH, n_agents=2000
    )
    np.testing.assert_allclose(found.bse, fit.bse, rtol=0.05)
    at_fit = mfg.design.expected_information(game, example.reward, parameters=fit, n_agents=2000)
    np.testing.assert_allclose(at_fit.bse, fit.bse, rtol=0.05)


def test_invests_crowd_carries_no_information():
    """INVEST's term in the crowd's mean has information zero, no standard error, and a name."""
    found = mfg.design.expected_information(invest.game(), invest.reward, parameters=invest.TRUTH)
    assert abs(found.information.loc["crowd", "crowd"]) < ROUNDING
    assert list(found.bse.isna()) == [False, True, False]
    assert found.directions.index[0] == "crowd"
    assert np.isinf(found.directions["inflation"].iloc[0])
    assert np.isnan(found.directions["std_err"].iloc[0])
    assert found.directions["std_err"].iloc[1:].max() < 0.05


def test_malwares_ridge_is_named_with_its_weights():
    """MALWARE's worst direction trades `own` for the crowd's mean level times `crowd`."""
    game = malware.game()
    world = mfg.solve_equilibrium(game, malware.reward, parameters=malware.TRUTH, throw=True).value
    found = mfg.design.expected_information(game, malware.reward, parameters=malware.TRUTH)
    ridge = found.directions.iloc[0]
    assert ridge.name == "-0.311 own + crowd"
    settled = float((world.mean_field[15] * torch.arange(10)).sum()) / 10
    np.testing.assert_allclose(settled, 0.311, atol=0.002)
    ratio = found.directions["inflation"].iloc[0] / found.directions["inflation"].iloc[-1]
    assert 140 < ratio < 155
    assert found.bse["crowd"] > 10 * found.directions["std_err"].iloc[1]
    assert "-0.311 own + crowd" in repr(found)


def test_moves_are_independent_and_free_of_units():
    """The moves diagonalise the covariance; another unit changes names, not inflations."""

    def in_units(unit):
        def reward(x):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            return a * unit * x.density - b * (x.action == "turn")

        return reward

    plain, scaled = (
        mfg.design.expected_information(
            two_roads(), in_units(unit), parameters={"a": -1.5 / unit, "b": 0.4}
        )
        for unit in (1.0, 50.0)
    )
    np.testing.assert_allclose(
        plain.directions["inflation"], scaled.directions["inflation"], rtol=1e-8
    )
    np.testing.assert_allclose(plain.bse["a"], 50 * scaled.bse["a"], rtol=1e-8)
    np.testing.assert_allclose(
        plain.cov_params().to_numpy() @ plain.information.to_numpy(), np.eye(2), atol=1e-8
    )


def test_plays_share_the_agents():
    """Information of two plays is the mean of both; of n agents n times that of one."""
    game = two_roads()
    other = game.replace(initial=[0.1, 0.9])
    truth = {"crowding": 1.5, "effort": 0.4}
    alone = [
        mfg.design.expected_information(g, avoid_crowds, parameters=truth, n_agents=1).information
        for g in (game, other)
    ]
    both = mfg.design.expected_information(
        [game, other], avoid_crowds, parameters=truth, n_agents=10
    )
    np.testing.assert_allclose(both.information, 5 * (alone[0] + alone[1]), rtol=1e-10)


def test_alternatives_are_compared_by_row():
    """The table holds the standard errors of each world and size, NaN where nothing identifies."""
    game = invest.game()
    games = {"now": game, "longer": game.replace(horizon=40), "both": [game, game]}
    table = mfg.design.expected_errors(
        games, invest.reward, parameters=invest.TRUTH, n_agents=[100, 400]
    )
    assert list(table.index) == [(k, n) for k in games for n in (100, 400)]
    np.testing.assert_allclose(table.loc["now", 400], table.loc["now", 100] / 2)
    np.testing.assert_allclose(table.loc["both", 100], table.loc["now", 100])
    assert (table.loc["longer", 100] < table.loc["now", 100])[["worth", "invest"]].all()
    assert table["crowd"].isna().all()
    single = mfg.design.expected_information(
        game, invest.reward, parameters=invest.TRUTH, n_agents=100
    )
    pd.testing.assert_series_equal(table.loc["now", 100], single.bse, check_names=False)


def test_a_panel_of_a_stationary_game_matches_its_fit():
    """Twenty decisions in a game without horizon say what a fit to such a panel says."""
    game = made("moving", horizon=None)
    panel = played(game, tastes, TRUTH, 4000, 1)
    world = mfg.solve_equilibrium(game, tastes, parameters=TRUTH, throw=True).value
    fit = mfg.mle(mfg.TrajectoryModel(game, tastes, panel, mean_field=world.mean_field))
    found = mfg.design.expected_information(
        game, tastes, parameters=TRUTH, n_agents=4000, n_times=20
    )
    np.testing.assert_allclose(found.bse, fit.bse, rtol=0.05)


ROADS = {"crowding": 1.5, "effort": 0.4}


def ask(game=None, reward=avoid_crowds, **changes):
    arguments = {"parameters": ROADS} | changes
    return mfg.design.expected_information(
        two_roads() if game is None else game, reward, **arguments
    )


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ask(3), TypeError, "`game` must be a MeanFieldGame; got int"),
        (lambda: ask([]), ValueError, "at least one game"),
        (lambda: ask([3]), TypeError, "`game` must be a MeanFieldGame"),
        (lambda: ask(n_agents=0), ValueError, "`n_agents` must be at least 1"),
        (lambda: ask(n_times=3), ValueError, "belongs to stationary games"),
        (lambda: ask(made("fixed", horizon=None), tastes, parameters=TRUTH), ValueError,
         "say how many `n_times`"),
        (lambda: ask(parameters={"crowding": 1.0}), ValueError, "lacks the parameter 'effort'"),
        (lambda: ask(parameters=None), ValueError, "`parameters` lacks the parameter"),
        (lambda: ask(agents=3), TypeError, "did you mean `n_agents`"),
        (lambda: mfg.design.expected_errors({}, avoid_crowds, parameters=ROADS), TypeError,
         "`games` must be a mapping"),
        (lambda: mfg.design.expected_errors({"a": two_roads()}, avoid_crowds, parameters=ROADS,
                                     n_agents=[]), ValueError, "at least one size"),
        (lambda: mfg.design.expected_errors({"a": two_roads()}, avoid_crowds, parameters=ROADS,
                                     n_agents=[0]), ValueError, "`n_agents` must be at least 1"),
    ],
)  # fmt: skip
def test_wrong_inputs_say_what_is_wrong(call, error, words):
    """Messages name the argument and what came."""
    with pytest.raises(error, match=words):
        call()
