"""Corners of solvers and worlds: what is easily got wrong, each in its smallest case."""

import dataclasses

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from equilibrium.kinds import made, pay, random_policy
from games import ROADS_TRUTH, avoid_crowds, random_rows, two_roads
from torch.autograd import forward_ad

import mfgppl as mfg
from mfgppl.equilibrium.linearisation import response_map_of

EXACT, STEP, DIFFERENCES, ROUNDING = 1e-13, 1e-5, 2e-7, 1e-10
TRUTH = {"scale": 1.2, "crowding": 1.5}
PARTS = ["mean_field", "policy", "soft_values"]


def double(number):
    return torch.tensor(number, dtype=torch.float64)


def weighed(x):
    scale = pyro.sample("scale", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    crowd = x.occupancy if x.game.joint else x.density
    own = x.expect("rank") * x.rank / x.shape[1] ** 2
    return scale * x.base - crowding * crowd + crowding**2 * own


def weighed_by_branch(x):
    return weighed(x) if float(x.density.detach().min()) >= -1.0 else weighed(x) * 0.0


def solved(game, program, values):
    return mfg.solve_equilibrium(
        game, program, parameters=values, tolerance=EXACT, throw=True
    ).value


def weights_of(game, part, seed=3):
    shape = {"mean_field": game.flow_shape, "policy": game.shape, "soft_values": game.shape[:2]}
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape[part]))


@pytest.mark.parametrize("kind", ["moving", "joint moving"])
@pytest.mark.parametrize("sizes", [(2, 2), (3, 2), (4, 3), (10, 2)])
@pytest.mark.parametrize("horizon", [3, 4, 6])
def test_jacobian_moving(kind, sizes, horizon):
    """Where dynamics move with the crowd over several steps, it equals central differences."""
    game = made(kind, horizon=horizon, sizes=sizes)
    T, S, A = game.shape
    response_map = response_map_of(game, pay)
    flow = random_rows(8, T, S * A if game.joint else S)
    image = response_map.image(flow, game.temperature)
    rows = response_map.jacobian(image, game.temperature)
    expected = np.zeros(rows.shape)
    for j in range(flow.size):
        move = np.zeros(flow.shape)
        move.ravel()[j] = STEP
        up, down = (response_map.image(flow + d, game.temperature).generated for d in (move, -move))
        expected[j] = ((up - down) / (2 * STEP)).ravel()
    np.testing.assert_allclose(rows, expected, atol=DIFFERENCES)


@pytest.mark.parametrize("sizes", [(2, 2), (4, 3)])
def test_gradient_moving(sizes):
    """So does the gradient of the solution, through all steps."""
    game = made("moving", horizon=4, sizes=sizes)
    weights = weights_of(game, "mean_field")

    def value(crowding):
        found = solved(game, weighed, TRUTH | {"crowding": crowding})
        return (weights * found.mean_field).sum()

    at = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(at), at)
    expected = float(value(1.5 + STEP) - value(1.5 - STEP)) / (2 * STEP)
    assert float(slope) == pytest.approx(expected, abs=DIFFERENCES)


FORWARDS = [
    ("fixed", 4, weighed), ("masked", 4, weighed), ("sparse by time", 4, weighed),
    ("joint", 4, weighed), ("moving", 2, weighed), ("joint moving", 2, weighed),
    ("fixed", 4, weighed_by_branch), ("moving", 4, weighed_by_branch), ("fixed", None, weighed),
    ("joint moving", None, weighed),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "horizon", "program"), FORWARDS)
def test_forwards_and_backwards_agree(kind, horizon, program):
    """For any change u of the parameters and direction v, `<v, J u> = <J' v, u>`, and `J u` is the
    difference of equilibria that are solved again.
    """
    game = made(kind, horizon=horizon, discount=0.8)
    move = {"scale": 0.7, "crowding": -0.4}
    with forward_ad.dual_level():
        at = {k: forward_ad.make_dual(double(TRUTH[k]), double(u)) for k, u in move.items()}
        found = solved(game, program, at)
        tangents = [forward_ad.unpack_dual(getattr(found, part)).tangent for part in PARTS]
    up, down = (
        solved(game, program, {k: TRUTH[k] + h * u for k, u in move.items()}) for h in (STEP, -STEP)
    )
    leaves = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in TRUTH.items()}
    backwards = solved(game, program, leaves)
    for part, tangent in zip(PARTS, tangents, strict=True):
        expected = (getattr(up, part) - getattr(down, part)) / (2 * STEP)
        np.testing.assert_allclose(tangent, expected, atol=DIFFERENCES)
        weights = weights_of(game, part)
        value = (weights * getattr(backwards, part)).sum()
        slopes = torch.autograd.grad(value, [leaves[k] for k in move], retain_graph=True)
        pulled = sum(float(d) * u for d, u in zip(slopes, move.values(), strict=True))
        # iterative solutions are accurate to 1e-13, relative
        assert pulled == pytest.approx(float((weights * tangent).sum()), abs=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_two_classes_are_refused(seed):
    """A world of two parts keeps several distributions; where agents begin picks one of them."""
    table = np.zeros((7, 1, 7))
    table[:3, 0, :3], table[3:, 0, 3:] = random_rows(seed, 3, 3), random_rows(seed + 50, 4, 4)
    policy, steps = torch.ones(1, 7, 1, dtype=torch.float64), torch.as_tensor(table)
    with pytest.raises(ValueError, match="several distributions"):
        mfg.equilibrium.invariant_mean_field(policy, steps)
    # half begins in a seventh state of passage, which leads to both parts
    passage = np.zeros((8, 8))
    passage[:7, :7] = table[:, 0]
    passage[7] = random_rows(seed, 1, 8)[0]
    start = np.full(8, 1 / 14)
    start[7] = 0.5
    there = start @ np.linalg.matrix_power(passage, 2000)
    found = mfg.equilibrium.invariant_mean_field(
        torch.ones(1, 8, 1, dtype=torch.float64),
        torch.as_tensor(passage[:, None]),
        initial=torch.as_tensor(start),
    )
    np.testing.assert_allclose(found[0], there, atol=ROUNDING)


def test_a_constant_that_changes_is_seen():
    """What a program closes over may change between two solutions."""
    game, constants = two_roads(initial=[0.5, 0.5]), {"toll": 20.0}

    def program(x):
        return 3.0 * (x.state == "left") - constants["toll"] * torch.relu(x.density - 0.7)

    mfg.solve_equilibrium(game, program)
    constants["toll"] = 0.0
    again = mfg.solve_equilibrium(game, program).value.mean_field
    fresh = mfg.solve_equilibrium(two_roads(initial=[0.5, 0.5]), program).value.mean_field
    np.testing.assert_allclose(again, fresh, atol=1e-9)


def test_a_reward_need_not_be_hashable():
    """Any callable is a reward program, a dataclass among them."""

    @dataclasses.dataclass
    class Toll:
        size: float

        def __call__(self, x):
            return -self.size * x.density

    assert mfg.solve_equilibrium(two_roads(), Toll(1.0)).converged


def test_one_decision_with_moving_dynamics_is_fitted():
    """A horizon of 1 has no step, and its dynamics are never asked."""
    game = made("moving", horizon=1)
    panel = mfg.simulate(
        game, random_policy(game, 1), game.initial[None], n_agents=50, random_seed=1
    )
    model = mfg.TrajectoryModel(
        game, lambda x: pyro.sample("w", dist.Normal(0.0, 1.0)) * x.base, panel
    )
    assert mfg.mle(model, progressbar=False).converged


def test_returns_run_programs_in_double_precision():
    """Numbers without a type are float64 in whatever runs the program."""

    def program(x):
        return (x.mean_field @ torch.tensor([1.0, 0.5]))[:, None, None] * (x.action == "turn")

    policy = np.ones((4, 2, 2)) / 2
    mfg.equilibrium.exploitability(two_roads(), program, policy)
    mfg.equilibrium.expected_return(two_roads(), program, policy)
    mfg.equilibrium.finite_population(
        two_roads(), program, policy, n_agents=[3], random_seed=1, n_worlds=2
    )


@pytest.mark.parametrize("door", ["expected_return", "finite_population"])
def test_returns_take_parameters_that_require_grad(door):
    """Returns are numbers: parameters that require grad are taken as their values."""
    at = {k: torch.tensor(v, requires_grad=True) for k, v in ROADS_TRUTH.items()}
    policy = np.ones((4, 2, 2)) / 2
    more = {} if door == "expected_return" else {"n_agents": [3], "random_seed": 1, "n_worlds": 2}
    getattr(mfg.equilibrium, door)(two_roads(), avoid_crowds, policy, parameters=at, **more)


def split_panel():
    rows = [("a", t, t % 3, "x") for t in (0, 1, 2, 5, 6)] + [
        ("b", t, t % 3, "x") for t in range(8)
    ]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    frame.loc[len(frame)] = ("c", 3, 1, "y")
    return mfg.Trajectories.from_frame(frame, gaps="split")


def test_pooled_counts_equal_pooled_rows():
    """All statistics of a pooled panel agree, of an unbalanced one with gaps too."""
    panel = split_panel()
    rows, counts = panel.pooled(), mfg.CountedPanel.from_trajectories(panel).pooled()
    assert rows.n_late == counts.n_late
    for one, other in zip(rows.counts, counts.counts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pooled_trajectories_have_distinct_labels():
    """Two runs of one agent are distinguished although their times are gone."""
    labels = split_panel().pooled().labels
    assert len(set(labels.tolist())) == len(labels)


def test_a_policy_that_is_not_a_number_is_refused():
    """NaN is no share."""
    policy = np.ones((4, 2, 2)) / 2
    policy[0, 0] = np.nan
    with pytest.raises(ValueError, match="shares of actions"):
        mfg.equilibrium.exploitability(two_roads(), avoid_crowds, policy, parameters=ROADS_TRUTH)


@pytest.mark.parametrize("method", ["newton", "path"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_no_more_than_max_steps_are_taken(method, steps):
    """The budget holds also where a step tries several lengths, or a path begins hot."""
    solution = mfg.solve_equilibrium(
        two_roads(temperature=0.1),
        avoid_crowds,
        parameters={"crowding": 5.0, "effort": 0.4},
        method=method,
        max_steps=steps,
    )
    assert solution.n_steps <= steps


def test_mirror_descent_keeps_to_max_steps():
    """The last batch of steps is as short as it must be."""
    solution = mfg.solve_nash(
        two_roads(), avoid_crowds, parameters=ROADS_TRUTH, method="mirror_descent", max_steps=3
    )
    assert solution.n_steps <= 3


@pytest.mark.parametrize("method", ["auto", "fictitious_play", "best_response"])
def test_stationary_nash_survives_policies_that_keep_several_distributions(method):
    """Best responses may stay for ever on either road; the start says how many on which."""
    game = two_roads(horizon=None, discount=0.9)
    mfg.solve_nash(game, avoid_crowds, parameters=ROADS_TRUTH, method=method, max_steps=300)


def test_stationary_social_optimum_survives_them_too():
    """A planner may split the crowd for ever."""
    mfg.equilibrium.social_optimum(
        two_roads(horizon=None, discount=0.9), avoid_crowds, parameters=ROADS_TRUTH
    )


def test_rewards_are_masked_with_and_without_gradients():
    """An action that is not available has reward -inf in the solution either way."""
    game = two_roads(available=[[1, 0], [1, 1]])
    at = {k: torch.tensor(v).double().requires_grad_() for k, v in ROADS_TRUTH.items()}
    one = mfg.solve_equilibrium(game, avoid_crowds, parameters=at).value.reward.detach()
    other = mfg.solve_equilibrium(game, avoid_crowds, parameters=ROADS_TRUTH).value.reward
    np.testing.assert_allclose(one, other, atol=1e-9)


def test_a_branch_by_tolist_is_taken():
    """A branch that recording cannot see, and that the usual flows do not take, is found out."""

    def toll(x):
        return -x.density if max(x.density.ravel().tolist()) < 0.9999 else -9.0 * x.density

    game = two_roads(initial=[1.0, 0.0], available=[[1, 0], [1, 1]])
    stay = np.tile(np.eye(2)[[0, 0]], (4, 1, 1)).astype(float)
    assert mfg.equilibrium.expected_return(game, toll, stay) == -36.0
    assert mfg.solve_equilibrium(game, toll).value.reward[0, 0, 0] == -9.0


@pytest.mark.parametrize("discount", [0.99999, 0.999999])
def test_patient_agents_have_values(discount):
    """Rounding grows with 1 / (1 - discount), and the iteration knows it."""
    reward = torch.as_tensor(np.random.default_rng(1).normal(size=(1, 6, 3)))
    table = torch.as_tensor(random_rows(1, 6, 3, 6))
    for scale in (1.0, 1e3):
        mfg.equilibrium.soft_policy_iteration(scale * reward, table, discount=discount)


def test_labelled_policies_are_put_in_order():
    """Labels decide, as for all labelled arrays of a game."""
    shares = random_rows(3, 4, 2, 2)
    coords = {"state": ["left", "right"], "action": ["stay", "turn"]}
    policy = xr.DataArray(shares, dims=("time", "state", "action"), coords=coords)
    one, other = (
        mfg.equilibrium.expected_return(two_roads(), avoid_crowds, p, parameters=ROADS_TRUTH)
        for p in (shares, policy.isel(state=[1, 0]))
    )
    assert one == pytest.approx(other, abs=ROUNDING)


def test_the_social_optimum_is_reached_from_a_pure_start():
    """A start that never turns does not hide that turning pays."""
    stay = np.tile([1.0, 0.0], (2, 2, 1))
    assert mfg.equilibrium.social_optimum(
        two_roads(horizon=2), avoid_crowds, parameters=ROADS_TRUTH, policy=stay
    ).converged


def test_a_float32_flow_gets_a_message_that_helps():
    """Shares that sum to 1 but for single precision are named as such."""
    start = torch.tensor([[0.95, 0.05]] * 4)
    with pytest.raises(ValueError, match="Build it in float64"):
        mfg.solve_equilibrium(two_roads(), avoid_crowds, parameters=ROADS_TRUTH, mean_field=start)


def test_social_optimum_of_scipy_dynamics_is_refused_in_words():
    """Dynamics that scipy builds have no derivative, which the optimum needs."""
    with pytest.raises(ValueError, match="return a dense tensor"):
        mfg.equilibrium.social_optimum(made("moving sparse"), pay)
