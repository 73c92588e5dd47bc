"""Exploitability by enumeration, mean field equilibria of known games, and the social optimum."""

import numpy as np
import pyro
import pytest
import scipy.optimize
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
    pure_policies,
    random_policy,
    rewards_along,
    table_at,
    tables_along,
)
from games import ROADS_TRUTH, avoid_crowds, lone, two_roads

import mfgppl as mfg
from mfgppl.models import left_right, rock_paper_scissors

ROUNDING = 1e-10  # sums of a few dozen float64 numbers
TOLERANCE = 1e-4  # of exploitability, the solver's
METHODS = [
    "auto", "annealing", "mirror_descent", "fictitious_play", "prior_descent", "best_response",
]  # fmt: skip
SMALL = {"sizes": (2, 2), "horizon": 3, "discount": 0.8}


def gain_by_enumeration(game, policy, program=pay):
    """Return what the best of all deterministic policies earns more along a policy's flow."""
    flow = flow_of(game, policy)
    reward, tables = rewards_along(game, flow, program), tables_along(game, flow)
    best = max(earned(game, reward, tables, other) for other in pure_policies(game))
    return best - earned(game, reward, tables, policy)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", [pay, pay_by_branch])
def test_exploitability_is_the_best_gain_of_all_deterministic_policies(kind, program):
    """On games small enough to list all policies, along dynamics that answer the crowd too."""
    game = made(kind, **SMALL)
    for seed in (1, 2):
        policy = random_policy(game, seed)
        expected = gain_by_enumeration(game, policy)
        assert expected > 1e-3
        found = mfg.equilibrium.exploitability(game, program, policy)
        assert found == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize(
    ("sizes", "horizon"), [((1, 1), 1), ((1, 3), 2), ((3, 2), 1), ((3, 2), 2), ((2, 3), 2)]
)
@pytest.mark.parametrize("kind", ["masked", "moving", "joint"])
def test_exploitability_is_right_at_all_sizes(kind, sizes, horizon):
    """One state, one action, one decision, two of them, and three."""
    game = made(kind, sizes=sizes, horizon=horizon)
    policy = random_policy(game, 5)
    expected = gain_by_enumeration(game, policy)
    assert mfg.equilibrium.exploitability(game, pay, policy) == pytest.approx(
        expected, abs=ROUNDING
    )


@pytest.mark.parametrize("kind", STATIONARY)
def test_exploitability_of_stationary_games_solves_linear_systems(kind):
    """From the distribution that the policy keeps, the best of all deterministic policies is found
    by evaluating each.
    """
    game = made(kind, sizes=(3, 2), horizon=None, discount=0.8)
    policy = random_policy(game, 3)
    flow = kept_by(game, policy)
    reward, table = rewards_along(game, flow)[0], table_at(game, flow[0], 0)
    shares = flow[0].sum(-1) if game.joint else flow[0]
    worth = [shares @ lasting_values(game, reward, table, p[0]) for p in pure_policies(game)]
    own = shares @ lasting_values(game, reward, table, policy[0])
    found = mfg.equilibrium.exploitability(game, pay, policy)
    # values are ten times the rewards, along a distribution by power iteration
    assert found == pytest.approx(max(worth) - own, abs=1e-9)
    assert mfg.equilibrium.expected_return(game, pay, policy) == pytest.approx(own, abs=1e-9)


def test_a_distant_reward_is_seen_in_a_stationary_game():
    """On a ring of six places only the last pays, and each step costs: the best of all 64 policies
    walks on from everywhere, which a look at the next rewards does not show.
    """
    places = np.arange(6)
    transition = np.stack([np.eye(6), np.roll(np.eye(6), 1, axis=1)], axis=1)
    game = mfg.MeanFieldGame(
        states={"place": places.tolist()}, actions=["stay", "go"], horizon=None, discount=0.9,
        transition=transition, initial=np.ones(6) / 6,
    )  # fmt: skip

    def program(x):
        return 1.0 * (x.place == 5.0) - 0.05 * (x.action == "go")

    # half stay and half go, so that the ring fills alike
    policy = np.full((1, 6, 2), 0.5)
    reward = (places == 5)[:, None] - np.array([0.0, 0.05])
    worth = [lasting_values(game, reward, transition, p[0]).mean() for p in pure_policies(game)]
    own = lasting_values(game, reward, transition, policy[0]).mean()
    found = mfg.equilibrium.exploitability(game, program, policy)
    assert found == pytest.approx(max(worth) - own, abs=ROUNDING)


@pytest.mark.parametrize("kind", ["fixed", "masked", "moving", "joint"])
def test_regularised_exploitability_is_the_gain_over_all_policies(kind):
    """SciPy climbs over the logits of all policies along the flow; the gain is with entropy."""
    game = made(kind, **SMALL)
    policy = random_policy(game, 6)
    flow = flow_of(game, policy)
    reward, tables = rewards_along(game, flow), tables_along(game, flow)
    allowed = np.broadcast_to(game.available.numpy(), game.shape)

    def loss(logits):
        weights = np.exp(logits.reshape(game.shape)) * allowed
        other = weights / weights.sum(-1, keepdims=True)
        return -earned(game, reward, tables, other, game.temperature)

    best = -scipy.optimize.minimize(loss, np.zeros(policy.size), method="BFGS").fun
    expected = best - earned(game, reward, tables, policy, game.temperature)
    found = mfg.equilibrium.regularised_exploitability(game, pay, policy)
    # a gradient by differences leaves an error of its square
    assert found == pytest.approx(expected, abs=1e-8)
    assert found > 1e-3


def test_exploitability_of_drivers_by_hand():
    """All of the left lane (0.8) stay, the right lane (0.2) stays; crowding 1.5, effort 0.4, two
    decisions. Along this flow a road costs 1.2 or 0.3 at each time. A left driver who turns at once
    pays 1.2 + 0.4 + 0.3 and not 2.4: a gain of 0.5 for 0.8 of the drivers.
    """
    game = two_roads(horizon=2)
    stay = np.tile([1.0, 0.0], (2, 2, 1))
    found = mfg.equilibrium.exploitability(game, avoid_crowds, stay, parameters=ROADS_TRUTH)
    assert found == pytest.approx(0.8 * 0.5, abs=ROUNDING)
    # 0.8 (-2.4) + 0.2 (-0.6)
    earned_by_all = mfg.equilibrium.expected_return(
        game, avoid_crowds, stay, parameters=ROADS_TRUTH
    )
    assert earned_by_all == pytest.approx(-2.04, abs=ROUNDING)


def test_exploitability_is_zero_where_drivers_are_indifferent():
    """With l on the left at the second time, turning pays where `1.5 (l - (1 - l)) > 0.4`: in
    equilibrium l = 19/30, so a share of 5/24 turns on the left. Another share is exploitable.
    """
    game = two_roads(horizon=2)

    def turning(share):
        policy = np.tile([1.0, 0.0], (2, 2, 1))
        policy[0, 0] = [1 - share, share]
        return mfg.equilibrium.exploitability(game, avoid_crowds, policy, parameters=ROADS_TRUTH)

    assert turning(5 / 24) == pytest.approx(0.0, abs=ROUNDING)
    # l = 0.72: those who stay would save 1.5 (0.44) - 0.4 = 0.26, and 0.9 of the 0.8 stay
    assert turning(0.1) == pytest.approx(0.72 * 0.26, abs=ROUNDING)


@pytest.mark.parametrize("kind", KINDS)
def test_gains_are_never_negative_and_vanish_at_the_equilibrium(kind):
    """The regularised gain is zero at the soft equilibrium, and what is left of the plain one is
    at most the worth of the entropy, `temperature * log A` a period.
    """
    game = made(kind, horizon=4, discount=0.9)
    policy = mfg.solve_equilibrium(game, pay, tolerance=1e-12).value.policy
    assert 0.0 <= mfg.equilibrium.regularised_exploitability(game, pay, policy) <= ROUNDING
    bound = game.temperature * sum(0.9**t for t in range(4)) * np.log(game.n_actions)
    assert 0.0 <= mfg.equilibrium.exploitability(game, pay, policy) <= bound
    for seed in range(3):
        other = random_policy(game, seed)
        assert mfg.equilibrium.exploitability(game, pay, other) >= 0.0
        assert mfg.equilibrium.regularised_exploitability(game, pay, other) > 0.0


def test_one_state_and_action_leave_nothing_to_gain():
    """Size 1: both gains are zero."""
    policy = np.ones((1, 1, 1))
    assert mfg.equilibrium.exploitability(lone(), lambda x: x.density, policy) == 0.0
    assert mfg.equilibrium.regularised_exploitability(lone(), lambda x: x.density, policy) == 0.0


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (np.ones((4, 2)) / 2, r"\(T, S, A\) = \(4, 2, 2\)"),
        (np.ones((4, 2, 2)), "shares of actions"),
        (np.tile([1.5, -0.5], (4, 2, 1)), "shares of actions"),
        (np.ones((4, 2, 2)) / 2, "takes the action 'turn' in state 'left' at time 0"),
    ],
)
@pytest.mark.parametrize(
    "door",
    [
        mfg.equilibrium.exploitability,
        mfg.equilibrium.regularised_exploitability,
        mfg.equilibrium.expected_return,
    ],
)
def test_policies_that_do_not_fit_are_refused(door, policy, words):
    """Shapes, shares and actions that are not available raise a ValueError that names them."""
    game = two_roads(available=[[1, 0], [1, 1]])
    with pytest.raises(ValueError, match=words):
        door(game, avoid_crowds, policy, parameters=ROADS_TRUTH)


@pytest.mark.parametrize("kind", KINDS)
def test_the_return_adds_up_what_everybody_earns(kind):
    """Discounted rewards along the policy's own flow, by loops."""
    game = made(kind, horizon=4, discount=0.7)
    policy = random_policy(game, 8)
    flow = flow_of(game, policy)
    expected = earned(game, rewards_along(game, flow), tables_along(game, flow), policy)
    found = mfg.equilibrium.expected_return(game, pay, torch.as_tensor(policy))
    assert found == pytest.approx(expected, abs=ROUNDING)


def gain_of(game, file, policy):
    """Return the exploitability of a policy of a game of the gallery, by loops."""
    flow = flow_of(game, policy)
    along = torch.as_tensor(flow)
    table = mfg.RewardInputs(game, along)
    values = {k: torch.tensor(v) for k, v in file.TRUTH.items()}
    with pyro.condition(data=values):
        reward = file.reward(table).expand(game.shape).numpy()
    tables, value = tables_along(game, flow), np.zeros(game.n_states)
    for t in reversed(range(len(policy))):
        q = reward[t] + (game.discount * tables[t] @ value if t < len(policy) - 1 else 0.0)
        value = q.max(-1)
    return float(game.initial.numpy() @ value) - earned(game, reward, tables, policy)


# steps that the slower methods need to an exploitability of 1e-2
ROUGH = {"fictitious_play": 1e-2, "best_response": 1e-2, "mirror_descent": 1e-3}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_solves_left_right(method):
    """With p on the left the sides cost p and 2 (1 - p): two thirds go left."""
    game = left_right.game()
    aim = ROUGH.get(method, TOLERANCE)
    solution = mfg.solve_nash(
        game, left_right.reward, parameters=left_right.TRUTH, method=method, tolerance=aim,
        max_steps=3000,
    )  # fmt: skip
    assert solution.converged
    # the gain is the difference of the costs, |3 p - 2|, times the share that pays it
    assert float(solution.value.mean_field[1, 1]) == pytest.approx(2 / 3, abs=2 * aim)
    recomputed = gain_of(game, left_right, solution.value.policy.numpy())
    assert solution.residual == pytest.approx(recomputed, abs=ROUNDING)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_solves_rock_paper_scissors(method):
    """Hands are paid alike at the shares 26, 20, 31 of 77; the residual is the exploitability."""
    game = rock_paper_scissors.game(horizon=3)
    aim = {"auto": 1e-3}.get(method, ROUGH.get(method, TOLERANCE))
    solution = mfg.solve_nash(
        game, rock_paper_scissors.reward, parameters=rock_paper_scissors.TRUTH, method=method,
        tolerance=aim, max_steps=3000,
    )  # fmt: skip
    policy = solution.value.policy.numpy()
    recomputed = gain_of(game, rock_paper_scissors, policy)
    assert solution.residual == pytest.approx(recomputed, abs=ROUNDING)
    assert solution.converged == (solution.residual <= aim)
    if method in ("auto", "annealing"):
        assert solution.converged
        mix = np.array([0, 26, 20, 31]) / 77
        np.testing.assert_allclose(solution.value.mean_field[1:], [mix, mix], atol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_solves_the_two_roads(method):
    """Over two decisions 19/30 are on the left in the end, as the costs by hand say."""
    game = two_roads(horizon=2)
    aim = ROUGH.get(method, TOLERANCE)
    solution = mfg.solve_nash(
        game, avoid_crowds, parameters=ROADS_TRUTH, method=method, tolerance=aim, max_steps=3000
    )
    assert solution.converged
    left = float(solution.value.mean_field[1, 0])
    # off by d, those who could save 3 d are at least a fifth of all
    assert left == pytest.approx(19 / 30, abs=2 * aim)
    found = mfg.equilibrium.exploitability(
        game, avoid_crowds, solution.value.policy, parameters=ROADS_TRUTH
    )
    assert solution.residual == pytest.approx(found, abs=ROUNDING)


@pytest.mark.parametrize("kind", KINDS)
def test_games_of_every_kind_have_an_equilibrium_without_entropy(kind):
    """Taking turns gets within the tolerance, and enumeration of all policies agrees."""
    game = made(kind, **SMALL)
    solution = mfg.solve_nash(game, pay, max_steps=3000)
    assert solution.converged
    expected = gain_by_enumeration(game, solution.value.policy.numpy())
    assert solution.residual == pytest.approx(expected, abs=ROUNDING)
    assert expected <= TOLERANCE


def test_the_best_policy_met_is_kept():
    """Steps that lead away from a good start do not lose it."""
    game = two_roads(horizon=2)
    first = np.tile([1.0, 0.0], (2, 2, 1))
    first[0, 0] = [1 - 5 / 24, 5 / 24]
    solution = mfg.solve_nash(
        game, avoid_crowds, parameters=ROADS_TRUTH, policy=first, method="best_response",
        rate=0.9, tolerance=0.0, max_steps=5,
    )  # fmt: skip
    np.testing.assert_allclose(solution.value.policy, first, atol=ROUNDING)
    assert solution.residual <= ROUNDING


def test_an_unfinished_search_says_so():
    """Out of steps, the residual stays above the tolerance, the reason says it, `throw` raises."""
    arguments = {"parameters": ROADS_TRUTH, "method": "fictitious_play", "max_steps": 4}
    solution = mfg.solve_nash(two_roads(), avoid_crowds, **arguments)
    assert not solution.converged
    assert solution.n_steps == 4
    assert "above 1.0e-04 after 4 steps of fictitious play" in solution.reason
    with pytest.raises(mfg.exceptions.ConvergenceError, match="another `method`") as caught:
        mfg.solve_nash(two_roads(), avoid_crowds, throw=True, **arguments)
    assert solution.reason in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "deep"}, "`method` must be one of 'auto'"),
        ({"method": "annealing", "rate": 1.0}, "`rate` belongs to mirror_descent"),
        ({"method": "auto", "rate": 1.0}, "`rate` belongs to mirror_descent"),
        ({"method": "mirror_descent", "rate": 0.0}, "rate"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"max_steps": 0}, "max_steps"),
        ({"policy": np.ones((4, 2, 2))}, "shares of actions"),
    ],
)
def test_arguments_of_nash_that_do_not_fit_are_refused(change, words):
    """Methods, rates and policies that do not fit raise a ValueError that names them."""
    with pytest.raises(ValueError, match=words):
        mfg.solve_nash(two_roads(), avoid_crowds, parameters=ROADS_TRUTH, **change)


def grid_of_policies(n):
    """Yield the first decisions of `two_roads` on a grid; turning in the end pays nothing."""
    shares = np.linspace(0, 1, n)
    for left in shares:
        for right in shares:
            policy = np.tile([1.0, 0.0], (2, 2, 1))
            policy[0] = [[1 - left, left], [1 - right, right]]
            yield policy


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_the_social_optimum_is_the_best_of_a_grid(temperature):
    """No policy of a grid earns more, and the best of them little less; the cost of crowds is
    0.8^2 + 0.2^2 at first, then l^2 + (1 - l)^2, against 0.4 for each who turns.
    """
    game = two_roads(horizon=2)
    solution = mfg.equilibrium.social_optimum(
        game, avoid_crowds, parameters=ROADS_TRUTH, temperature=temperature, throw=True
    )

    def worth(policy):
        left = 0.8 * policy[0, 0, 0] + 0.2 * policy[0, 1, 1]
        shares = np.array([[0.8, 0.2], [left, 1 - left]])
        turns = (shares * policy[:, :, 1]).sum()
        logs = np.log(np.where(policy > 0, policy, 1.0))
        entropy = -(shares[..., None] * policy * logs).sum()
        return -1.5 * (shares**2).sum() - 0.4 * turns + temperature * entropy

    found = worth(solution.value.policy.numpy())
    turning = np.exp(-0.4 / temperature) if temperature else 0.0  # the last decision's odds
    best = -np.inf
    for policy in grid_of_policies(81):
        policy[1] = [[1 / (1 + turning), turning / (1 + turning)]] * 2
        best = max(best, worth(policy))
    # a grid 1/80 wide misses a smooth maximum by its square
    assert best - 1e-4 <= found <= best + 2e-3
    assert solution.residual <= TOLERANCE


def test_the_social_optimum_of_drivers_by_hand():
    """By turning d of the drivers on the left save 1.5 (l^2 + (1 - l)^2) at 0.4 d, l = 0.8 - d:
    the slope 1.5 (4 l - 2) = 0.4 gives l = 17/30, against 19/30 when each thinks of itself.
    """
    game = two_roads(horizon=2)
    solution = mfg.equilibrium.social_optimum(
        game, avoid_crowds, parameters=ROADS_TRUTH, throw=True
    )
    # a slope of 1e-4 over a curvature of 6
    assert float(solution.value.mean_field[1, 0]) == pytest.approx(17 / 30, abs=1e-4)


@pytest.mark.parametrize("kind", ["masked", "sparse", "moving", "joint", "joint moving"])
def test_no_random_policy_beats_the_social_optimum(kind):
    """What it earns by loops is at least what 200 random and all pure policies earn."""
    game = made(kind, **SMALL)
    solution = mfg.equilibrium.social_optimum(game, pay)

    def worth(policy):
        flow = flow_of(game, policy)
        return earned(game, rewards_along(game, flow), tables_along(game, flow), policy)

    found = worth(solution.value.policy.numpy())
    others = [random_policy(game, seed) for seed in range(200)]
    assert found >= max(map(worth, others)) - TOLERANCE
    assert found >= max(map(worth, pure_policies(game))) - TOLERANCE


def test_too_few_evaluations_leave_a_slope():
    """The slope that is left is reported, and `throw` raises it."""
    arguments = {"parameters": ROADS_TRUTH, "max_steps": 1, "tolerance": 1e-9}
    solution = mfg.equilibrium.social_optimum(two_roads(), avoid_crowds, **arguments)
    assert not solution.converged
    assert solution.residual > 1e-9
    with pytest.raises(mfg.exceptions.ConvergenceError, match="max_steps"):
        mfg.equilibrium.social_optimum(two_roads(), avoid_crowds, throw=True, **arguments)
    with pytest.raises(ValueError, match="temperature"):
        mfg.equilibrium.social_optimum(
            two_roads(), avoid_crowds, parameters=ROADS_TRUTH, temperature=-1.0
        )
