"""Games without a horizon: discounted values, and the distributions that policies keep."""

import numpy as np
import pytest
import scipy.sparse
import torch
from equilibrium.kinds import STATIONARY, kept_by, made, pay, random_policy
from games import avoid_crowds, random_rows, two_roads

import mfgppl as mfg
from mfgppl.control.steps import as_steps

ROUNDING = 1e-10  # sums of a few dozen float64 numbers
DIFFERENCES = 1e-7  # error of central differences with a step of 1e-5, of quantities of order 1
STEP = 1e-5


def case(seed, S=4, A=3):
    """Return a random reward (1, S, A) and transition (S, A, S)."""
    reward = np.random.default_rng(seed).normal(size=(1, S, A))
    return torch.as_tensor(reward), torch.as_tensor(random_rows(seed, S, A, S))


def iterated(reward, transition, discount, temperature, n=5000):
    """Return values (S,) and policy (S, A) of plain value iteration."""
    values = np.zeros(len(transition))
    for _ in range(n):
        q = reward[0] + discount * transition @ values
        top = q.max(-1)
        weights = np.exp((q - top[:, None]) / temperature)
        values = top + temperature * np.log(weights.sum(-1))
    return values, weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("discount", [0.1, 0.9, 0.99])
@pytest.mark.parametrize("temperature", [0.01, 0.5, 20.0])
def test_soft_policy_iteration_is_where_value_iteration_ends(discount, temperature):
    """Values and policy equal 5,000 plain iterations, 0.99^5000 being below 1e-21."""
    reward, transition = case(1)
    found = mfg.equilibrium.soft_policy_iteration(
        reward, transition, discount=discount, temperature=temperature
    )
    values, policy = iterated(reward.numpy(), transition.numpy(), discount, temperature)
    scale = max(1.0, np.abs(values).max())
    np.testing.assert_allclose(found.soft_values[0], values, atol=ROUNDING * scale)
    # a difference of values over the temperature
    slack = ROUNDING * scale / min(temperature, 1.0)
    np.testing.assert_allclose(found.log_policy[0].exp(), policy, atol=slack)
    again = reward[0] + discount * transition @ found.soft_values[0]
    np.testing.assert_allclose(found.q_values[0], again, atol=ROUNDING * scale)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (2, 1), (40, 3)])
def test_soft_policy_iteration_at_all_sizes(sizes):
    """One state, one action, and many; sparse tables give the same as dense ones."""
    reward, transition = case(2, *sizes)
    found = mfg.equilibrium.soft_policy_iteration(reward, transition, discount=0.8)
    values, policy = iterated(reward.numpy(), transition.numpy(), 0.8, 1.0, n=300)
    np.testing.assert_allclose(found.soft_values[0], values, atol=ROUNDING)
    np.testing.assert_allclose(found.log_policy[0].exp(), policy, atol=ROUNDING)
    sparse = mfg.equilibrium.soft_policy_iteration(
        reward, transition[None].to_sparse(), discount=0.8
    )
    np.testing.assert_allclose(sparse.soft_values, found.soft_values, atol=ROUNDING)


def test_values_of_one_state_are_a_geometric_series():
    """With one state the value is `temperature log sum exp(r / temperature) / (1 - discount)`."""
    reward = torch.tensor([[[0.3, -1.0]]], dtype=torch.float64)
    table = torch.ones(1, 2, 1, dtype=torch.float64)
    found = mfg.equilibrium.soft_policy_iteration(reward, table, discount=0.75, temperature=0.5)
    expected = 0.5 * np.log(np.exp(0.6) + np.exp(-2.0)) / 0.25
    assert float(found.soft_values) == pytest.approx(expected, abs=ROUNDING)


def test_actions_that_are_not_available_are_never_taken():
    """A reward of -inf has probability 0, and the values are those of the other actions."""
    reward, transition = case(3)
    reward[0, 2, 0] = -torch.inf
    found = mfg.equilibrium.soft_policy_iteration(reward, transition, discount=0.9)
    values, policy = iterated(reward.numpy(), transition.numpy(), 0.9, 1.0, n=500)
    np.testing.assert_allclose(found.soft_values[0], values, atol=ROUNDING)
    assert float(found.log_policy[0, 2, 0].exp()) == 0.0
    np.testing.assert_allclose(found.log_policy[0].exp(), policy, atol=ROUNDING)


def test_values_have_first_and_second_derivatives():
    """In reward and transition the gradient and the Hessian equal differences of values and of
    gradients.
    """
    reward, transition = case(4, 3, 2)
    weights = torch.tensor([0.2, 1.0, -0.5], dtype=torch.float64)

    def value(r, p):
        return (
            weights * mfg.equilibrium.soft_policy_iteration(r, p, discount=0.8).soft_values[0]
        ).sum()

    def slopes(r, p):
        at = [v.clone().requires_grad_() for v in (r, p)]
        return torch.autograd.grad(value(*at), at)

    at = [v.clone().requires_grad_() for v in (reward, transition)]
    first = torch.autograd.grad(value(*at), at, create_graph=True)
    moves = [
        torch.as_tensor(np.random.default_rng(k).normal(size=v.shape)) for k, v in enumerate(at)
    ]
    for k in range(2):
        up, down = (
            [v + h * moves[j] if j == k else v for j, v in enumerate((reward, transition))]
            for h in (STEP, -STEP)
        )
        expected = float(value(*up) - value(*down)) / (2 * STEP)
        found = float((first[k].detach() * moves[k]).sum())
        assert found == pytest.approx(expected, abs=1e-6)  # values of order ten
        second = torch.autograd.grad((first[0] * moves[0]).sum(), at[k], retain_graph=True)[0]
        expected = float(((slopes(*up)[0] - slopes(*down)[0]) * moves[0]).sum()) / (2 * STEP)
        assert float((second * moves[k]).sum()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"discount": 1.0}, "discount"),
        ({"discount": 0.0}, "discount"),
        ({"temperature": 0.0}, "temperature"),
        ({"reward": torch.zeros(2, 4, 3)}, r"`reward` must have shape \(1, S, A\)"),
        ({"transition": torch.ones(4, 2, 4) / 4}, r"\(S, A, S\) = \(4, 3, 4\)"),
        ({"transition": torch.ones(2, 4, 3, 4) / 4}, "`transition` must have shape"),
    ],
)
def test_control_that_does_not_fit_is_refused(change, words):
    """Shapes and constants that do not fit raise a ValueError that names them."""
    reward, transition = case(1)
    arguments = {"reward": reward, "transition": transition, "discount": 0.9} | change
    with pytest.raises(ValueError, match=words):
        mfg.equilibrium.soft_policy_iteration(**arguments)


def test_rewards_that_are_not_numbers_are_refused():
    """A NaN is an error instead of a value."""
    reward, transition = case(1)
    reward[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="`reward` must be finite"):
        mfg.equilibrium.soft_policy_iteration(reward, transition, discount=0.9)


@pytest.mark.parametrize(("S", "A"), [(1, 1), (2, 2), (7, 3)])
def test_an_invariant_distribution_is_where_power_iteration_ends(S, A):
    """Moving on ten thousand times from anywhere leads to it, and it sums to one."""
    transition, policy = random_rows(5, S, A, S), random_rows(6, 1, S, A)
    found = mfg.equilibrium.invariant_mean_field(
        torch.as_tensor(policy), torch.as_tensor(transition)
    )
    along = np.einsum("sa,sax->sx", policy[0], transition)
    shares = np.eye(S)[0]
    for _ in range(10_000):
        shares = shares @ along
    np.testing.assert_allclose(found[0], shares, atol=ROUNDING)
    sparse = torch.as_tensor(transition)[None].to_sparse()
    np.testing.assert_allclose(
        mfg.equilibrium.invariant_mean_field(torch.as_tensor(policy), sparse), found, atol=ROUNDING
    )


def test_states_that_are_left_for_ever_are_empty():
    """A chain into an absorbing state ends there; one that goes in a circle is spread alike."""
    chain = np.zeros((3, 1, 3))
    chain[0, 0, 1] = chain[1, 0, 2] = chain[2, 0, 2] = 1.0
    one = torch.ones(1, 3, 1, dtype=torch.float64)
    found = mfg.equilibrium.invariant_mean_field(one, torch.as_tensor(chain))
    np.testing.assert_allclose(found, [[0, 0, 1]], atol=ROUNDING)
    circle = np.roll(np.eye(3), 1, axis=1)[:, None]
    found = mfg.equilibrium.invariant_mean_field(one, torch.as_tensor(circle))
    np.testing.assert_allclose(found, np.full((1, 3), 1 / 3), atol=ROUNDING)


def test_an_invariant_distribution_has_derivatives():
    """Its gradient in the policy equals differences."""
    transition = torch.as_tensor(random_rows(7, 3, 2, 3))
    logits = torch.as_tensor(np.random.default_rng(8).normal(size=(1, 3, 2)))
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def value(at):
        return (weights * mfg.equilibrium.invariant_mean_field(at.softmax(-1), transition)[0]).sum()

    at = logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(at), at)
    for index in np.ndindex(1, 3, 2):
        move = torch.zeros(1, 3, 2, dtype=torch.float64)
        move[index] = STEP
        expected = float(value(logits + move) - value(logits - move)) / (2 * STEP)
        assert float(slope[index]) == pytest.approx(expected, abs=DIFFERENCES)


def test_two_parts_without_a_way_between_them_need_a_start():
    """Where all stay in their place every distribution is kept, and the start is the answer."""
    stay = torch.eye(2, dtype=torch.float64)[:, None]
    with pytest.raises(ValueError, match="several distributions"):
        mfg.equilibrium.invariant_mean_field(torch.ones(1, 2, 1, dtype=torch.float64), stay)
    with pytest.raises(ValueError, match=r"`policy` must have shape \(1, S, A\)"):
        mfg.equilibrium.invariant_mean_field(torch.ones(2, 2, 1, dtype=torch.float64), stay)
    game = two_roads(horizon=None, discount=0.9)
    always_stay = np.tile([1.0, 0.0], (1, 2, 1))
    np.testing.assert_array_equal(
        mfg.equilibrium.generate_mean_field(game, always_stay), [[0.8, 0.2]]
    )
    # staying costs 0.8 / (1 - 0.9) = 8 on the left; turning at once 0.8 + 0.9 * 0.2 / (1 - 0.9)
    gain = mfg.equilibrium.exploitability(game, lambda x: -x.density, always_stay)
    assert gain == pytest.approx(0.8 * (8.0 - 2.6), abs=ROUNDING)


@pytest.mark.parametrize("kind", STATIONARY)
def test_a_policy_settles_where_its_dynamics_answer_the_crowd(kind):
    """The generated flow is where power iteration along answering dynamics ends."""
    game = made(kind, horizon=None)
    policy = random_policy(game, 2)
    found = mfg.equilibrium.generate_mean_field(game, policy)
    assert tuple(found.shape) == game.flow_shape
    np.testing.assert_allclose(found, kept_by(game, policy), atol=ROUNDING)


def test_a_crowd_that_never_settles_is_told(monkeypatch):
    """Dynamics that send everybody where few are keep changing, which is an error."""
    monkeypatch.setattr("mfgppl._generated_flow.MAX_ROUNDS", 200)

    def flee(crowd, time):
        to_right = torch.sigmoid(60.0 * (crowd[0] - 0.5)).clamp(0.01, 0.99)
        row = torch.stack([1 - to_right, to_right])
        return row.expand(2, 1, 2)

    game = mfg.MeanFieldGame(
        states=[0, 1], actions=["go"], horizon=None, discount=0.9, transition=flee,
        initial=[0.9, 0.1],
    )  # fmt: skip
    with pytest.raises(mfg.exceptions.ConvergenceError, match="did not settle"):
        mfg.equilibrium.generate_mean_field(game, np.ones((1, 2, 1)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"discount": 1.0}, "without `horizon` needs a `discount` below 1"),
        ({"transition": random_rows(1, 1, 2, 2, 2)}, r"\(S, A, S\) = \(2, 2, 2\)"),
        ({"transition": [scipy.sparse.eye_array(4, 2)]}, "stationary game takes one `transition`"),
    ],
)
def test_stationary_games_that_cannot_be_are_refused(change, words):
    """No discount, and tables by time, do not fit a game without a horizon."""
    with pytest.raises(ValueError, match=words):
        two_roads(**({"horizon": None, "discount": 0.9} | change))


def test_a_stationary_game_is_the_limit_of_long_ones():
    """At the first time of a long game whose crowd begins at the stationary distribution, agents
    act and fare as in the game without a horizon.
    """
    parameters = {"crowding": 1.5, "effort": 0.4}
    leaky = 0.9 * np.stack([np.eye(2), np.eye(2)[::-1]], axis=1) + 0.05
    leaky[0, :, :] = [[0.8, 0.2], [0.3, 0.7]]
    endless = two_roads(horizon=None, discount=0.6, transition=leaky)
    found = mfg.solve_equilibrium(endless, avoid_crowds, parameters=parameters).value
    long = two_roads(
        horizon=60, discount=0.6, transition=leaky, initial=found.mean_field[0].numpy()
    )
    other = mfg.solve_equilibrium(long, avoid_crowds, parameters=parameters).value
    # 0.6^60 is below 1e-13; ten times the solver's tolerance
    np.testing.assert_allclose(other.policy[0], found.policy[0], atol=1e-9)
    np.testing.assert_allclose(other.mean_field[20], found.mean_field[0], atol=1e-9)


def test_a_stationary_reward_sees_one_time():
    """Inputs have a time axis of length one, and the game says so of itself."""
    game = made("joint", horizon=None)
    assert game.shape == (1, 3, 2)
    assert "stationary" in repr(game)
    found = mfg.solve_equilibrium(game, pay).value
    assert tuple(found.mean_field.shape) == tuple(found.policy.shape) == (1, 3, 2)
    assert tuple(found.soft_values.shape) == (1, 3)


@pytest.mark.parametrize("back", [False, True])
def test_what_a_policy_carries_is_solved_cell_by_cell(back):
    """It solves the linear system over all stacked states, dense and sparse, either way."""
    tables, policy = random_rows(41, 3, 4, 2, 4), torch.from_numpy(random_rows(42, 12, 2))
    right = torch.from_numpy(np.random.default_rng(43).normal(size=12))
    dense = as_steps(torch.from_numpy(tables)[None], 1)
    moved = dense.under(0, policy)
    system = torch.eye(12, dtype=torch.float64) - 0.9 * (moved.T if back else moved)
    found = dense.carried(0, policy, right, discount=0.9, back=back)
    assert torch.allclose(system @ found, right, atol=ROUNDING)
    stacked = np.zeros((12, 2, 12))
    for c in range(3):
        stacked[4 * c : 4 * c + 4, :, 4 * c : 4 * c + 4] = tables[c]
    sparse = as_steps(torch.from_numpy(stacked).to_sparse()[None], 1)
    assert torch.allclose(
        sparse.carried(0, policy, right, discount=0.9, back=back), found, atol=ROUNDING
    )
