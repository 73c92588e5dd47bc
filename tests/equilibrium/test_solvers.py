"""Entropy-regularised equilibria: every method, what it reports, and games of every kind."""

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import torch
from equilibrium.kinds import (
    KINDS,
    STATIONARY,
    kept_by,
    lasting_values,
    made,
    pay,
    pay_by_branch,
    pushed,
    rewards_along,
    soft_by_loops,
    table_at,
    tables_along,
)
from games import ROADS_TRUTH, avoid_crowds, lone, random_rows, two_roads

import mfgppl as mfg

TOLERANCE = 1e-10  # the solver's
SOLVER = 1e-9  # ten times the solver's tolerance
METHODS = ["auto", "damped", "anderson", "newton", "path"]
HARSH = {"crowding": 5.0, "effort": 0.4}  # with a low temperature, iteration alone goes in circles


def herd(x):
    """Reward of company on `two_roads`: with much of it there are two equilibria."""
    return 3.0 * (x.density - 0.5)


def residual_of(game, value, program=pay):
    """Return the largest change of a share under one more response, by loops."""
    flow = value.mean_field.numpy()
    tables = tables_along(game, flow)
    _, policy = soft_by_loops(game, rewards_along(game, flow, program), tables)
    return np.abs(pushed(game, policy, tables) - flow).max()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_equilibrium_of_a_monotone_game(method):
    """Where crowds repel there is one equilibrium, and each method ends there."""
    game = two_roads()
    flow = mfg.solve_equilibrium(
        game, avoid_crowds, parameters=ROADS_TRUTH, method=method, throw=True
    ).value.mean_field
    # a fixed point by SciPy, of the response by loops

    def gap(free):
        flow = np.stack([np.append(0.8, free), 1 - np.append(0.8, free)], axis=1)
        reward = -1.5 * flow[:, :, None] - np.array([0.0, 0.4])
        tables = tables_along(game, flow)
        _, policy = soft_by_loops(game, reward, tables)
        return pushed(game, policy, tables)[1:, 0] - free

    free = scipy.optimize.fsolve(gap, [0.5, 0.5, 0.5], xtol=1e-13)
    np.testing.assert_allclose(flow[1:, 0], free, atol=SOLVER)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_solves_every_kind_of_game(kind, method):
    """The residual is the true one, recomputed by loops, and lies within the tolerance."""
    game = made(kind, horizon=3)
    solution = mfg.solve_equilibrium(game, pay, method=method)
    assert solution.converged
    assert solution.residual <= TOLERANCE
    assert residual_of(game, solution.value) == pytest.approx(solution.residual, abs=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_policy_are_those_at_the_flow(kind):
    """Policy, soft values and reward of a solution equal the loops at its flow."""
    game = made(kind, horizon=4, discount=0.7, temperature=0.4)
    found = mfg.solve_equilibrium(game, pay).value
    flow = found.mean_field.numpy()
    reward = rewards_along(game, flow)
    values, policy = soft_by_loops(game, reward, tables_along(game, flow))
    np.testing.assert_allclose(found.policy, policy, atol=SOLVER)
    np.testing.assert_allclose(found.soft_values, values, atol=SOLVER)
    allowed = np.broadcast_to(game.available, game.shape)
    np.testing.assert_allclose(found.reward.numpy()[allowed], reward[allowed], atol=SOLVER)
    assert (found.reward.numpy()[~allowed] == -np.inf).all()


@pytest.mark.parametrize("kind", ["by time", "masked", "moving", "joint moving"])
@pytest.mark.parametrize("method", ["auto", "newton"])
def test_a_program_that_runs_as_it_is_gives_the_same(kind, method):
    """A reward with a branch on a value is not recorded and leads to the same flow."""
    game = made(kind, horizon=3)
    one = mfg.solve_equilibrium(game, pay, method=method).value.mean_field
    other = mfg.solve_equilibrium(game, pay_by_branch, method=method).value.mean_field
    np.testing.assert_allclose(one, other, atol=SOLVER)


def test_sparse_dynamics_that_move_with_the_crowd_equal_dense_ones():
    """A transition that returns scipy matrices has the equilibrium of the same dense one."""
    sparse, dense = (made(kind, horizon=5) for kind in ("moving sparse", "moving"))
    one, other = (mfg.solve_equilibrium(g, pay).value.mean_field for g in (sparse, dense))
    np.testing.assert_allclose(one, other, atol=SOLVER)


@pytest.mark.parametrize("kind", STATIONARY)
@pytest.mark.parametrize("method", ["auto", "damped", "newton"])
def test_every_method_solves_stationary_games(kind, method):
    """The policy is the soft best response by value iteration, and power iteration along the
    dynamics at the flow keeps the flow.
    """
    game = made(kind, horizon=None, discount=0.8)
    solution = mfg.solve_equilibrium(game, pay, method=method)
    assert solution.converged
    found = solution.value
    flow, policy = found.mean_field.numpy(), found.policy.numpy()
    reward, table = rewards_along(game, flow)[0], table_at(game, flow[0], 0)
    reward = np.where(game.available, reward, -np.inf)
    values = np.zeros(game.n_states)
    for _ in range(200):  # 0.8^200 is below 1e-19
        q = reward + game.discount * table @ values
        values = game.temperature * np.log(np.exp(q / game.temperature).sum(-1))
    np.testing.assert_allclose(found.soft_values[0], values, atol=SOLVER)
    np.testing.assert_allclose(
        policy[0], np.exp((q - values[:, None]) / game.temperature), atol=SOLVER
    )
    np.testing.assert_allclose(kept_by(game, policy), flow, atol=SOLVER)
    alone = lasting_values(game, np.where(game.available, reward, 0.0), table, policy[0], 0.6)
    np.testing.assert_allclose(alone, values, atol=SOLVER)


@pytest.mark.parametrize("method", METHODS)
def test_small_games_are_solved_at_once(method):
    """One state, one action, one decision: nothing is left to find."""
    solution = mfg.solve_equilibrium(lone(), lambda x: x.density, method=method)
    assert solution.converged
    assert solution.residual == 0.0
    assert solution.value.mean_field.tolist() == [[1.0]]


@pytest.mark.parametrize("method", ["auto", "path", "newton"])
def test_a_cold_game_is_solved_where_iteration_goes_in_circles(method):
    """At a low temperature damping of one swings between the roads for ever; the others get
    there.
    """
    game = two_roads(temperature=0.05)
    plain = mfg.solve_equilibrium(game, avoid_crowds, parameters=HARSH, damping=1.0, max_steps=300)
    assert not plain.converged
    assert plain.residual > 1e-2
    solution = mfg.solve_equilibrium(game, avoid_crowds, parameters=HARSH, method=method)
    assert solution.converged

    def reward(x):
        return -5.0 * x.density - 0.4 * (x.action == "turn")

    assert residual_of(game, solution.value, reward) <= 1e-9


@pytest.mark.parametrize("method", ["auto", "damped", "anderson"])
def test_a_failure_is_named(method):
    """Out of steps, the solution says so, with the residual of the best flow it met."""
    game = two_roads(temperature=0.05)
    arguments = {"parameters": HARSH, "method": method, "max_steps": 3}
    solution = mfg.solve_equilibrium(game, avoid_crowds, **arguments)
    assert not solution.converged
    assert solution.n_steps <= 3
    assert "above 1.0e-10" in solution.reason

    def reward(x):
        return -5.0 * x.density - 0.4 * (x.action == "turn")

    assert residual_of(game, solution.value, reward) == pytest.approx(solution.residual, abs=1e-12)
    with pytest.raises(mfg.exceptions.ConvergenceError, match="temperature") as caught:
        mfg.solve_equilibrium(game, avoid_crowds, throw=True, **arguments)
    assert solution.reason in str(caught.value)


def test_a_constant_damping_is_taken_as_given():
    """One damped step moves a half of the way from the start to its response."""
    game = two_roads()
    solution = mfg.solve_equilibrium(
        game, avoid_crowds, parameters=ROADS_TRUTH, damping=0.5, max_steps=2
    )
    start = np.tile([0.8, 0.2], (4, 1))
    reward = -1.5 * start[:, :, None] - np.array([0.0, 0.4])
    tables = tables_along(game, start)
    _, policy = soft_by_loops(game, reward, tables)
    halfway = 0.5 * start + 0.5 * pushed(game, policy, tables)
    np.testing.assert_allclose(solution.value.mean_field, halfway, atol=1e-12)


@pytest.mark.parametrize("method", ["damped", "anderson", "newton"])
def test_a_method_begins_at_the_given_flow(method):
    """From an equilibrium as start, one response suffices; a tensor that requires grad is read."""
    game = two_roads()
    arguments = {"parameters": ROADS_TRUTH, "method": method}
    first = mfg.solve_equilibrium(game, avoid_crowds, **arguments).value.mean_field
    start = first.clone().requires_grad_()
    again = mfg.solve_equilibrium(game, avoid_crowds, mean_field=start, **arguments)
    assert again.n_steps == 1
    assert not again.value.mean_field.requires_grad


def test_the_start_decides_between_two_equilibria():
    """Where company is good, each of two starts leads to its own side."""
    game = two_roads(initial=[0.5, 0.5], temperature=0.5)
    left, right = (
        mfg.solve_equilibrium(
            game, herd, mean_field=torch.tensor([[0.5, 0.5], *[side] * 3], dtype=torch.float64)
        ).value.mean_field
        for side in ([0.95, 0.05], [0.05, 0.95])
    )
    assert float(left[-1, 0]) > 0.6
    np.testing.assert_allclose(left, right.flip(1), atol=1e-8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "annealed"}, "`method` must be one of 'auto'"),
        ({"method": "newton", "damping": 0.5}, "`damping` belongs to method='damped'"),
        ({"damping": 0.0}, "damping"),
        ({"damping": 1.5}, "damping"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_steps": 0}, "max_steps"),
        ({"mean_field": torch.ones(3, 2) / 2}, r"`mean_field` must have shape \(T, S\) = \(4, 2\)"),
        ({"mean_field": torch.ones(4, 2)}, "`mean_field` must sum to 1 at each time; at time 0"),
        ({"mean_field": -torch.eye(2).repeat(2, 1)}, "negative"),
        ({"parameters": {"crowding": 1.0}}, "lack"),
        ({"parameters": ROADS_TRUTH | {"toll": 1.0}}, "toll"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, words):
    """Options, starts and parameters that do not fit raise a ValueError that names them."""
    arguments = {"parameters": ROADS_TRUTH} | change
    with pytest.raises(ValueError, match=words):
        mfg.solve_equilibrium(two_roads(), avoid_crowds, **arguments)


def test_a_joint_game_takes_joint_starts_alone():
    """A flow over states alone does not fit where the crowd is one of states and actions."""
    game = made("joint")
    with pytest.raises(ValueError, match=r"\(T, S, A\) = \(3, 3, 2\)"):
        mfg.solve_equilibrium(game, pay, mean_field=torch.ones(3, 3) / 3)
    start = torch.as_tensor(random_rows(1, 3, 6)).reshape(3, 3, 2)
    one = mfg.solve_equilibrium(game, pay, mean_field=start).value.mean_field
    other = mfg.solve_equilibrium(game, pay).value.mean_field
    np.testing.assert_allclose(one, other, atol=1e-8)


def test_a_reward_that_fails_is_told_at_the_door():
    """Errors of the program are its own, and a reward that is not finite names its place."""

    def broken(x):
        return x.density / (x.action == "stay")

    with pytest.raises(ValueError, match=r"not finite.*'turn'"):
        mfg.solve_equilibrium(two_roads(), broken)
    with pytest.raises(AttributeError, match=r"x\.weather"):
        mfg.solve_equilibrium(two_roads(), lambda x: x.weather)


def test_one_game_serves_all_parameters():
    """Solving at one set of values leaves nothing behind for the next."""
    game = two_roads()
    for crowding in (1.5, -0.2, 4.0, 1.5):
        values = {"crowding": crowding, "effort": 0.4}
        one, fresh = (
            mfg.solve_equilibrium(g, avoid_crowds, parameters=values).value.mean_field
            for g in (game, two_roads())
        )
        np.testing.assert_allclose(one, fresh, atol=SOLVER)


def test_rewards_that_close_over_numbers_are_told_apart():
    """Programs of one source but other constants, used on one game, give their own answers."""
    game = two_roads(horizon=2)

    def program(toll):
        return lambda x: -toll * (x.action == "turn") + 0.0 * x.density

    for toll in (0.0, 1.0, 3.0):
        found = mfg.solve_equilibrium(game, program(toll)).value
        # nothing but the toll weighs on the choice
        expected = np.exp(-toll) / (1 + np.exp(-toll))
        np.testing.assert_allclose(found.policy[:, :, 1], expected, atol=SOLVER)


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_the_discount_weighs_what_follows(discount):
    """The log odds of turning are the discounted difference of what the roads are worth next."""
    game = two_roads(discount=discount, horizon=2, temperature=0.8)
    found = mfg.solve_equilibrium(game, avoid_crowds, parameters=ROADS_TRUTH).value
    left, right = found.mean_field[1].tolist()
    # at the last time either road is worth its crowd and the choice of turning or not
    stay, turn = found.policy[0, 0].tolist()
    odds = np.log(turn / stay)
    expected = (-0.4 + discount * (-1.5) * (right - left)) / 0.8
    assert odds == pytest.approx(expected, abs=SOLVER)


def test_find_equilibria_finds_both_of_a_coordination_game():
    """With one choice the share x on the left solves `log x / (1 - x) = 12 x - 6`: two sides, found
    both, and an even split between them. All starts are accounted for, and the counts fall.
    """
    game = two_roads(initial=[0.5, 0.5], temperature=0.5, horizon=2)
    found = mfg.equilibrium.find_equilibria(game, herd, n_starts=12, random_seed=1)
    assert sum(found.counts) + found.n_failed == found.n_starts == 12
    assert found.n_distinct == len(found.solutions) == len(found.counts)
    assert found.counts == sorted(found.counts, reverse=True)

    def gap(x):
        return np.log(x / (1 - x)) - 12 * x + 6

    side = scipy.optimize.brentq(gap, 0.6, 1 - 1e-9, xtol=1e-14)
    shares = sorted(float(s.value.mean_field[1, 0]) for s in found.solutions)
    assert shares[0] == pytest.approx(1 - side, abs=SOLVER)
    assert shares[-1] == pytest.approx(side, abs=SOLVER)
    np.testing.assert_allclose(shares[1:-1], 0.5, atol=SOLVER)
    assert all(s.converged and s.residual <= TOLERANCE for s in found.solutions)


def test_equilibria_are_led_by_the_one_reached_most_often():
    """Where the left is better in itself the sides are not reached as often; counts fall."""
    game = two_roads(initial=[0.5, 0.5], temperature=0.5, horizon=2)

    def tilted(x):
        return herd(x) + 0.4 * (x.state == "left")

    found = mfg.equilibrium.find_equilibria(game, tilted, n_starts=15, random_seed=2)
    assert found.n_distinct > 1
    assert found.counts[0] > found.counts[-1]
    assert found.counts == sorted(found.counts, reverse=True)


def test_find_equilibria_finds_one_where_crowds_repel():
    """All starts of a monotone game lead to one flow, and the seed decides nothing about it."""
    arguments = {"parameters": ROADS_TRUTH, "n_starts": 5}
    one, other = (
        mfg.equilibrium.find_equilibria(two_roads(), avoid_crowds, random_seed=k, **arguments)
        for k in (0, 9)
    )
    assert one.counts == other.counts == [5]
    flows = [found.solutions[0].value.mean_field for found in (one, other)]
    np.testing.assert_allclose(*flows, atol=1e-8)


def test_find_equilibria_counts_the_starts_that_fail():
    """With too few steps no start leads anywhere, which is counted and not hidden."""
    found = mfg.equilibrium.find_equilibria(
        two_roads(temperature=0.05), avoid_crowds, parameters=HARSH, n_starts=4, max_steps=2
    )
    assert (found.n_failed, found.n_distinct, found.counts) == (4, 0, [])
