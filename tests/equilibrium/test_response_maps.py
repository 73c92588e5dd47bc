"""Games over arrays: responses, turns and their slopes against torch and against plain loops."""

import numpy as np
import pytest
import torch
from equilibrium.kinds import (
    KINDS,
    STATIONARY,
    earned,
    flow_of,
    kept_by,
    lasting_values,
    made,
    pay,
    pay_by_branch,
    pushed,
    random_policy,
    rewards_along,
    soft_by_loops,
    table_at,
    tables_along,
)
from games import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st

import mfgppl as mfg
from mfgppl.equilibrium.flat_flows import uniform_flow
from mfgppl.equilibrium.linearisation import response_map_of
from mfgppl.equilibrium.response import soft_response
from mfgppl.equilibrium.response_map import ResponseMap

ROUNDING = 1e-10  # sums of a few dozen float64 numbers
LONG_SUMS = 1e-9  # sums of tens of thousands of them, in another order
DIFFERENCES = 1e-7  # error of central differences with a step of 1e-5, of quantities of order 1
STEP = 1e-5
SIZES = [((1, 1), 1), ((1, 2), 2), ((2, 1), 3), ((2, 2), 1), ((2, 2), 2), ((5, 3), 6)]


def some_flow(game, seed):
    """Return a random flow (T, F)."""
    T, S, A = game.shape
    return random_rows(seed, T, S * A if game.joint else S)


def assert_image_is_the_response(game, program, seed, atol=ROUNDING):
    """Compare a world's response to a random flow with loops over arrays."""
    flow = some_flow(game, seed)
    image = response_map_of(game, program).image(flow, game.temperature)
    reward, tables = rewards_along(game, flow), tables_along(game, flow)
    values, policy = soft_by_loops(game, reward, tables)
    generated = pushed(game, policy, tables).reshape(flow.shape)
    np.testing.assert_allclose(image.policy, policy, atol=atol)
    np.testing.assert_allclose(image.values, values, atol=atol)
    np.testing.assert_allclose(image.generated, generated, atol=atol)
    allowed = np.broadcast_to(game.available.numpy(), game.shape)
    np.testing.assert_allclose(image.reward[allowed], reward[allowed], atol=atol)
    assert (image.reward[~allowed] == -np.inf).all()
    assert image.residual == pytest.approx(np.abs(generated - flow).max(), abs=atol)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", [pay, pay_by_branch])
def test_an_image_is_the_soft_response_by_loops(kind, program):
    """Reward, soft values, policy and generated flow equal loops over time, state and action,
    whether the program runs on the tape machine or as it is.
    """
    game = made(kind, horizon=4)
    recorded = program is pay and kind != "moving sparse"
    assert ResponseMap(game, program).recorded == recorded
    assert_image_is_the_response(game, program, seed=5)


@pytest.mark.parametrize("kind", ["fixed", "moving", "joint moving", "sparse"])
@pytest.mark.parametrize(("sizes", "horizon"), SIZES)
def test_an_image_is_right_at_all_sizes(kind, sizes, horizon):
    """One state, one action, one decision, two of them, and many."""
    assert_image_is_the_response(made(kind, sizes=sizes, horizon=horizon), pay, seed=2)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    horizon=st.integers(2, 4),
    discount=st.sampled_from([1.0, 0.7]),
    temperature=st.sampled_from([0.2, 1.0, 7.0]),
    seed=st.integers(0, 100),
)
def test_any_image_is_the_soft_response(kind, sizes, horizon, discount, temperature, seed):
    """On drawn games the kernels equal both the loops and the differentiable twin in torch."""
    game = made(
        kind, seed=seed, sizes=sizes, horizon=horizon, discount=discount, temperature=temperature
    )
    assert_image_is_the_response(game, pay, seed)
    flow = some_flow(game, seed)
    image = response_map_of(game, pay).image(flow, temperature)
    along = torch.as_tensor(flow).reshape(game.flow_shape)
    twin = soft_response(game, pay, along, temperature=temperature)
    np.testing.assert_allclose(image.policy, twin.policy, atol=ROUNDING)
    np.testing.assert_allclose(image.values, twin.soft_values, atol=ROUNDING)
    generated = twin.mean_field.numpy().reshape(flow.shape)
    np.testing.assert_allclose(image.generated, generated, atol=ROUNDING)


@pytest.mark.parametrize("kind", ["fixed", "moving", "sparse", "joint"])
@pytest.mark.parametrize("n_states", [33, 130])
def test_many_states_take_the_library_and_the_lanes(kind, n_states):
    """From 100 states on a library multiplies, and sparse rows come in slices of 32: neither loses
    a state where the number is no multiple of either.
    """
    game = made(kind, sizes=(n_states, 2), horizon=2 if kind == "moving" else 3)
    flow = some_flow(game, 3)
    response_map = response_map_of(game, pay)
    image = response_map.image(flow, game.temperature)
    values, policy = soft_by_loops(game, rewards_along(game, flow), tables_along(game, flow))
    np.testing.assert_allclose(image.policy, policy, atol=LONG_SUMS)
    np.testing.assert_allclose(image.values, values, atol=LONG_SUMS)
    shares = game.initial.numpy()
    for t, table in enumerate(tables_along(game, flow)):
        here = shares[:, None] * policy[t] if game.joint else shares
        np.testing.assert_allclose(image.generated[t], here.ravel(), atol=LONG_SUMS)
        shares = np.einsum("s,sa,sax->x", shares, policy[t], table)
    evaluation = response_map.evaluate(policy)
    along = mfg.equilibrium.generate_mean_field(game, policy).numpy().reshape(flow.shape)
    np.testing.assert_allclose(evaluation.flow, along, atol=LONG_SUMS)
    change = np.random.default_rng(4).normal(size=flow.shape) / n_states
    up, down = (
        response_map.image(flow + h * change, game.temperature).generated for h in (STEP, -STEP)
    )
    image = response_map.image(flow, game.temperature)
    slope = response_map.change(image, game.temperature, change)
    np.testing.assert_allclose(slope, (up - down) / (2 * STEP), atol=DIFFERENCES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", [pay, pay_by_branch])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_a_turn_is_the_policy_with_its_own_crowd(kind, program, temperature):
    """The flow is that which the policy generates where the dynamics answer it, and the values of
    the start average to what the policy earns along it.
    """
    game = made(kind, horizon=4)
    policy = random_policy(game, 7)
    evaluation = response_map_of(game, program).evaluate(policy, temperature)
    flow = flow_of(game, policy)
    np.testing.assert_allclose(evaluation.flow, flow.reshape(evaluation.flow.shape), atol=ROUNDING)
    torch_flow = mfg.equilibrium.generate_mean_field(game, torch.as_tensor(policy))
    np.testing.assert_allclose(torch_flow, flow, atol=ROUNDING)
    reward, tables = rewards_along(game, flow), tables_along(game, flow)
    worth = earned(game, reward, tables, policy, temperature)
    assert float(game.initial.numpy() @ evaluation.values[0]) == pytest.approx(worth, abs=ROUNDING)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", [pay, pay_by_branch])
def test_occupancies_follow_the_evaluation_given(kind, program):
    """Shares of a second policy go along the first one's dynamics, whatever came in between."""
    game = made(kind, horizon=4)
    first, second = random_policy(game, 1), random_policy(game, 2)
    response_map = response_map_of(game, program)
    evaluation = response_map.evaluate(first)
    response_map.evaluate(second)
    tables = tables_along(game, flow_of(game, first))
    shares, expected = game.initial.numpy(), []
    for t in range(4):
        expected.append(shares[:, None] * second[t])
        if t < 3:
            shares = np.einsum("sa,sax->x", expected[t], tables[t])
    np.testing.assert_allclose(response_map.occupancy(evaluation, second), expected, atol=ROUNDING)


@pytest.mark.parametrize("kind", KINDS)
def test_mirror_descent_adds_up_q(kind):
    """Five recorded steps equal five steps by turns of an unrecorded world."""
    game = made(kind, horizon=4)
    logits = np.log(np.maximum(random_policy(game, 3), 1e-300))
    logits[:, ~game.available.numpy()] = -np.inf
    one = response_map_of(game, pay).mirrored(logits, 0.3, 5)
    other = response_map_of(game, pay_by_branch).mirrored(logits, 0.3, 5)
    np.testing.assert_allclose(one, other, atol=ROUNDING)
    by_hand = logits.copy()
    for _ in range(5):
        weights = np.exp(by_hand)
        policy = weights / weights.sum(-1, keepdims=True)
        flow = flow_of(game, policy)
        reward, tables = rewards_along(game, flow), tables_along(game, flow)
        values = np.zeros((5, game.n_states))
        for t in reversed(range(4)):
            q = reward[t] + (game.discount * tables[t] @ values[t + 1] if t < 3 else 0.0)
            values[t] = (policy[t] * q).sum(-1)
            by_hand[t] += 0.3 * q
    np.testing.assert_allclose(one, by_hand, atol=ROUNDING)


STILL = [kind for kind in KINDS if "moving" not in kind]
SLOPES = [(kind, T) for kind in STILL for T in (1, 2, 4) if T > 1 or "by time" not in kind]
SLOPES += [(kind, T) for kind in ("moving", "joint moving") for T in (1, 2)]


@pytest.mark.parametrize(("kind", "horizon"), SLOPES)
def test_the_jacobian_is_the_derivative_of_the_image(kind, horizon):
    """Row j of the matrix is the central difference of the generated flow in entry j, and the
    slope along a change is the change times the matrix.
    """
    game = made(kind, horizon=horizon)
    response_map, flow = response_map_of(game, pay), some_flow(game, 8)
    image = response_map.image(flow, game.temperature)
    rows = response_map.jacobian(image, game.temperature)
    expected = np.zeros(rows.shape)
    for j in range(flow.size):
        move = np.zeros(flow.shape)
        move.ravel()[j] = STEP
        up, down = (response_map.image(flow + d, game.temperature).generated for d in (move, -move))
        expected[j] = ((up - down) / (2 * STEP)).ravel()
    np.testing.assert_allclose(rows, expected, atol=DIFFERENCES)
    change = np.random.default_rng(1).normal(size=flow.shape)
    image = response_map.image(flow, game.temperature)
    slope = response_map.change(image, game.temperature, change)
    np.testing.assert_allclose(slope.ravel(), change.ravel() @ rows, atol=ROUNDING)


def test_a_slope_is_taken_where_it_is_asked_for():
    """Slopes at one flow do not depend on which flow the world has seen last."""
    game = made("joint moving", horizon=4)
    response_map, here, there = response_map_of(game, pay), some_flow(game, 1), some_flow(game, 2)
    image = response_map.image(here, game.temperature)
    first = response_map.jacobian(image, game.temperature)
    response_map.image(there, game.temperature)
    np.testing.assert_array_equal(response_map.jacobian(image, game.temperature), first)


def test_what_cannot_be_recorded_has_no_kernel_slopes():
    """A program that looks at a value is not recorded, and says so instead of giving slopes."""
    game = made("moving")
    response_map, flow = response_map_of(game, pay_by_branch), some_flow(game, 1)
    image = response_map.image(flow, game.temperature)
    assert not response_map.recorded
    assert response_map.jacobian(image, game.temperature) is None
    assert response_map.change(image, game.temperature, flow) is None


def test_a_branch_far_from_the_usual_flows_is_still_taken():
    """A threshold that no random flow reaches changes the reward where a flow does reach it."""

    def toll(x):
        return -x.density if float(x.density.max()) < 0.9999 else -9.0 * x.density

    game = made("fixed")
    everybody = np.tile([1.0, 0.0, 0.0], (3, 1))
    image = response_map_of(game, toll).image(everybody, 1.0)
    np.testing.assert_allclose(image.reward[:, 0], -9.0, atol=ROUNDING)


@pytest.mark.parametrize("kind", STATIONARY)
def test_a_stationary_turn_solves_linear_systems(kind):
    """The flow is what power iteration settles at, and values solve `V = r_pi + discount P_pi V`
    with the policy's entropy.
    """
    game = made(kind, horizon=None)
    policy, response_map = random_policy(game, 4), response_map_of(game, pay)
    flow = kept_by(game, policy)
    reward = rewards_along(game, flow)[0]
    for temperature in (0.0, 0.6):
        evaluation = response_map.evaluate(policy, temperature)
        np.testing.assert_allclose(evaluation.flow.ravel(), flow.ravel(), atol=ROUNDING)
        values = lasting_values(game, reward, table_at(game, flow[0], 0), policy[0], temperature)
        np.testing.assert_allclose(evaluation.values[0], values, atol=ROUNDING)


def test_the_flow_to_start_from_fits_the_game():
    """Everybody stays, and in a joint game takes the available actions alike."""
    game = made("masked")
    np.testing.assert_array_equal(uniform_flow(game), np.tile(game.initial, (3, 1)))
    joint = uniform_flow(made("joint"))
    np.testing.assert_allclose(joint.sum(1), 1.0, atol=ROUNDING)
    np.testing.assert_allclose(joint[:, ::2], joint[:, 1::2], atol=ROUNDING)
