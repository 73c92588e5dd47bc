"""Environments of MFGLib as games, against MFGLib's own numbers."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import mfgppl as mfg
from mfgppl._compiler.lowering import lower
from mfgppl._compiler.operations import KNOWN
from mfgppl._compiler.tracing import record
from mfgppl._kernels import bridge
from mfgppl.reward.program import double_precision

pytest.importorskip("mfglib.alg")  # mfglib.metrics imports itself in a circle unless it follows

from mfglib.env import Environment

NEWER = importlib.util.find_spec("mfglib.metrics") is None  # 0.3 moved what judges
if NEWER:
    from mfglib.scoring import exploitability_score
    from mfglib.utils import mean_field_from_policy
else:
    from mfglib.mean_field import mean_field
    from mfglib.metrics import exploitability_score

SINGLE = 1e-6  # MFGLib computes in float32
NAMES = [
    "beach_bar",
    "building_evacuation",
    "conservative_treasure_hunting",
    "crowd_motion",
    "equilibrium_price",
    "left_right",
    "linear_quadratic",
    "random_linear",
    "rock_paper_scissors",
    "susceptible_infected",
]
JOINT = {"conservative_treasure_hunting", "equilibrium_price", "random_linear"}
SLOW = {"building_evacuation", "crowd_motion", "linear_quadratic"}  # at their defaults
MOVED_BY_CROWD = {
    "conservative_treasure_hunting",
    "linear_quadratic",
    "random_linear",
    "susceptible_infected",
}


@pytest.fixture(scope="module", params=NAMES)
def environment(request):
    """An environment of MFGLib at its defaults."""
    with torch.random.fork_rng(devices=[]):
        return getattr(Environment, request.param)()


@pytest.fixture(scope="module")
def imported(environment):
    """The game and the reward made of it."""
    return mfg.interop.from_mfglib(environment)


def random_rows(shape, seed):
    """Return positive rows that sum to 1 over the last axis, in float64."""
    draws = np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), size=shape[:-1])
    return torch.tensor(draws)


def as_flow(game, crowd):
    """Return a joint flow (T, S, A) as the mean field of a game."""
    return crowd if game.joint else crowd.sum(-1)


def rewards(imported, crowd):
    """Return the reward (T, S, A) along a joint flow (T, S, A)."""
    inputs = mfg.RewardInputs(imported.game, as_flow(imported.game, crowd))
    return imported.reward(inputs).broadcast_to(imported.game.shape)


def tables(game, crowd):
    """Return the transitions (T-1, S, A, S) along a joint flow, dense."""
    table = game.transition_along(as_flow(game, crowd))
    table = table.to_dense() if table.is_sparse else table
    return table.expand(game.shape[0] - 1, *table.shape[1:])


def generated(game, policy):
    """Return the joint flow (T, S, A) that a policy generates."""
    crowd = torch.zeros(game.shape, dtype=torch.float64)
    shares = game.initial
    for t in range(game.shape[0]):
        crowd[t] = shares[:, None] * policy[t]
        if t < game.shape[0] - 1:
            shares = torch.einsum("sa,sax->x", crowd[t], tables_at(game, crowd[t], t))
    return crowd


def tables_at(game, crowd, time):
    """Return the transition (S, A, S) at a time and a crowd (S, A)."""
    if callable(game.transition):
        return game.transition_at(as_flow(game, crowd[None])[0], time)
    table = game.transition if game.transition.ndim == 3 else game.transition[time]
    return table.to_dense() if table.is_sparse else table


def test_rewards_are_mfglibs(environment, imported):
    """At random crowds, each reward is MFGLib's own."""
    T, S, A = imported.game.shape
    crowd = random_rows((T, S * A), 1).reshape(T, S, A)
    ours = rewards(imported, crowd)
    assert ours.dtype == torch.float64
    for t in range(T):
        single = crowd[t].float().reshape(*environment.S, *environment.A)
        theirs = environment.reward(t, single).reshape(S, A)
        np.testing.assert_allclose(ours[t], theirs, rtol=10 * SINGLE, atol=SINGLE)


def test_transitions_are_mfglibs(environment, imported):
    """At random crowds, each transition is MFGLib's own, and its rows sum to 1 in float64."""
    T, S, A = imported.game.shape
    crowd = random_rows((T, S * A), 2).reshape(T, S, A)
    for t in range(T - 1):
        ours = tables_at(imported.game, crowd[t], t)
        single = crowd[t].float().reshape(*environment.S, *environment.A)
        theirs = environment.prob(t, single).reshape(S, S, A).permute(1, 2, 0)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=SINGLE)
        np.testing.assert_allclose(ours.sum(-1), 1.0, rtol=0, atol=1e-12)


def test_a_policys_flow_and_exploitability_are_mfglibs(environment, imported):
    """The flow of a random policy and what a best response to it gains are MFGLib's."""
    game = imported.game
    policy = random_rows(game.shape, 3)
    single = mfg.interop.to_mfglib(policy, environment)
    crowd = generated(game, policy)
    if NEWER:
        theirs = mean_field_from_policy(single, env=environment)
    else:
        theirs = mean_field(environment, single)
    theirs = theirs.reshape(game.shape)
    np.testing.assert_allclose(crowd, theirs, rtol=0, atol=10 * SINGLE)
    reward, steps = rewards(imported, crowd), tables(game, crowd)
    best = played = torch.zeros(game.n_states, dtype=torch.float64)
    for t in reversed(range(game.shape[0])):
        after = steps[t] if t < game.shape[0] - 1 else torch.zeros_like(steps[0])
        best = (reward[t] + after @ best).max(-1).values
        played = (policy[t] * (reward[t] + after @ played)).sum(-1)
    ours = float(game.initial @ (best - played))
    assert ours == pytest.approx(exploitability_score(environment, single), rel=1e-4)


def test_what_the_crowd_moves_is_found(request, environment, imported):
    """Games are joint where actions count, and transitions callable where the crowd moves them."""
    name = request.node.callspec.params["environment"]
    assert imported.game.joint == (name in JOINT)
    assert imported.game.crowd_moves_dynamics == (name in MOVED_BY_CROWD)


def test_large_tables_of_few_entries_are_sparse(environment, imported):
    """The two environments with hundreds of states have sparse transitions, the others not."""
    table = imported.game.transition
    assert (not callable(table) and table.is_sparse) == (imported.game.n_states >= 100)


def test_policies_come_back(environment, imported):
    """A policy in MFGLib's layout has its axes, its type, and the same numbers."""
    policy = random_rows(imported.game.shape, 4)
    theirs = mfg.interop.to_mfglib(policy, environment)
    assert theirs.shape == (environment.T + 1, *environment.S, *environment.A)
    assert theirs.dtype == torch.float32
    np.testing.assert_allclose(theirs.reshape(policy.shape), policy, rtol=0, atol=SINGLE)
    flat = theirs.reshape(policy.shape)
    np.testing.assert_allclose(flat.sum(-1), 1.0, rtol=0, atol=SINGLE)


def test_rewards_have_derivatives(imported):
    """Reverse and forward mode give the same directional derivative as central differences."""
    T, S, A = imported.game.shape
    crowd = random_rows((T, S * A), 5).reshape(T, S, A)
    towards = random_rows((T, S * A), 6).reshape(T, S, A) - crowd
    weights = random_rows((T, S * A), 7).reshape(T, S, A)

    def total(crowd):
        return (weights * rewards(imported, crowd)).sum()

    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(total(forward_ad.make_dual(crowd, towards))).tangent
    leaf = crowd.clone().requires_grad_()
    value = total(leaf)
    reverse = 0.0
    if value.requires_grad:
        reverse = float((torch.autograd.grad(value, leaf)[0] * towards).sum())
    step = 1e-6
    differences = (total(crowd + step * towards) - total(crowd - step * towards)) / (2 * step)
    assert reverse == pytest.approx(float(differences), rel=1e-5, abs=1e-7)
    assert (0.0 if dual is None else float(dual)) == pytest.approx(reverse, rel=1e-10, abs=1e-12)


def test_rewards_are_recorded(imported):
    """Recorded at one flow and run by the tape machine at another, rewards are the program's."""
    T, S, A = imported.game.shape
    first, second = random_rows((2, T, S * A), 8).reshape(2, T, S, A)

    def table(flow):
        flow = flow.reshape(imported.game.flow_shape)
        return imported.reward(mfg.RewardInputs(imported.game, flow)).contiguous().view(-1)

    with double_precision():
        tape = lower(record([table], [as_flow(imported.game, first).flatten()], KNOWN))
    flow = as_flow(imported.game, second).flatten()
    found = bridge.each_on_tape(tape, flow.numpy()[None])[0]
    np.testing.assert_allclose(found, table(flow), rtol=1e-12, atol=1e-12)


def test_an_equilibrium_is_hardly_exploitable():
    """MFGLib finds next to nothing to gain against the equilibrium at a low temperature."""
    environment = Environment.left_right()
    imported = mfg.interop.from_mfglib(environment, temperature=0.01)
    solution = mfg.solve_equilibrium(imported.game, imported.reward, damping=0.02, tolerance=1e-8)
    assert solution.converged
    score = exploitability_score(
        environment, mfg.interop.to_mfglib(solution.value.policy, environment)
    )
    assert 0 <= score < 0.02


def test_labels_follow_the_axes():
    """One axis gives integers, several give named coordinates, or joined action labels."""
    flat = mfg.interop.from_mfglib(Environment.beach_bar()).game
    grid = mfg.interop.from_mfglib(
        Environment.building_evacuation(n_floor=2, floor_l=3, floor_w=2)
    ).game
    price = mfg.interop.from_mfglib(Environment.equilibrium_price()).game
    assert flat.space.coordinates == {"state": (0, 1, 2, 3)}
    assert grid.space.coordinates == {"x0": (0, 1), "x1": (0, 1, 2), "x2": (0, 1)}
    assert price.actions[:4] == ("0, 0", "0, 1", "0, 2", "1, 0")


class Drifting:
    """A transition that depends on the time alone, over as many states as it is given."""

    def __init__(self, n_states):
        self.stay = torch.eye(n_states)[:, :, None]
        self.move = self.stay.roll(1, 0)

    def __call__(self, env, t, L_t):
        late = torch.tensor(t / 3, dtype=torch.float)
        return late * self.stay + (1 - late) * self.move


class Narrow:
    """A reward that asks for float32 in every way that MFGLib's own code does."""

    def __init__(self, n_states):
        self.parts = {"slope": [torch.rand(n_states, generator=torch.Generator().manual_seed(1))]}

    def __call__(self, env, t, L_t):
        one = torch.ones(env.S + env.A, dtype=torch.float)
        share = L_t.float().sum(-1).to(torch.float32)
        return one * (self.parts["slope"][0] * share)[:, None]


def drifting(n_states):
    """Return an environment of a drift over time with one action."""
    return Environment(
        T=3,
        S=(n_states,),
        A=(1,),
        mu0=torch.ones(n_states) / n_states,
        r_max=1.0,
        reward_fn=Narrow(n_states),
        transition_fn=Drifting(n_states),
    )


@pytest.mark.parametrize("n_states", [5, 120])
def test_a_drift_over_time_is_one_table_a_step(n_states):
    """A transition that changes with the time alone is a table for each step."""
    game = mfg.interop.from_mfglib(drifting(n_states)).game
    assert game.transition.shape == (3, n_states, 1, n_states)
    assert game.transition.is_sparse == (n_states >= 100)


def test_float32_is_widened_and_left_as_it_was():
    """Code that asks for float32 computes in float64; the environment and torch stay the same."""
    environment = drifting(5)
    before = torch.get_default_dtype(), torch.get_rng_state()
    imported = mfg.interop.from_mfglib(environment)
    crowd = random_rows((4, 5), 8)[..., None]
    slope = environment.reward_fn.parts["slope"][0]
    assert slope.dtype == torch.float32
    expected = slope.double()[:, None] * crowd
    np.testing.assert_allclose(rewards(imported, crowd), expected, rtol=1e-15, atol=0)
    assert torch.get_default_dtype() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.ones(1).float().dtype == torch.float32


def test_a_wrong_transition_is_refused():
    """Rows that are off by more than rounding reach the game's own error."""
    environment = drifting(5)
    environment.transition_fn.stay = 0.9 * environment.transition_fn.stay
    with pytest.raises(ValueError, match="each row of `transition` must sum to 1"):
        mfg.interop.from_mfglib(environment)


def test_wrong_shapes_are_refused():
    """Rewards and transitions of wrong shapes are named with the right ones."""
    environment = drifting(5)
    environment.reward_fn = lambda env, t, L_t: L_t.sum(-1)
    with pytest.raises(ValueError, match=r"rewards of shape .* = \(5, 1\); at time 0 it gives"):
        mfg.interop.from_mfglib(environment)
    environment = drifting(5)
    environment.transition_fn = lambda env, t, L_t: torch.eye(5)
    with pytest.raises(ValueError, match=r"transitions of shape .* = \(5, 5, 1\)"):
        mfg.interop.from_mfglib(environment)


@pytest.mark.parametrize("wrong", [None, "beach_bar", Environment.beach_bar])
def test_what_is_no_environment_is_refused(wrong):
    """The error says what must come, and what came."""
    with pytest.raises(TypeError, match="`environment` must be a Environment; got"):
        mfg.interop.from_mfglib(wrong)
    with pytest.raises(TypeError, match="`environment` must be a Environment; got"):
        mfg.interop.to_mfglib(torch.ones(1, 1, 1), wrong)


def test_wrong_policies_are_refused():
    """Shapes, signs, sums and types are checked."""
    environment = Environment.left_right()
    good = torch.full((2, 3, 2), 0.5)
    with pytest.raises(
        ValueError, match=r"`policy` must have shape .* = \(2, 3, 2\); got \(2, 3\)"
    ):
        mfg.interop.to_mfglib(good[..., 0], environment)
    with pytest.raises(ValueError, match="each row of `policy` must sum to 1"):
        mfg.interop.to_mfglib(0.9 * good, environment)
    with pytest.raises(ValueError, match="some are negative"):
        mfg.interop.to_mfglib(good * torch.tensor([3.0, -1.0]), environment)
    with pytest.raises(TypeError, match="`policy` must be an array of numbers; got str"):
        mfg.interop.to_mfglib("uniform", environment)


def test_without_the_library_the_extra_is_named(monkeypatch):
    """The import error says what to install."""
    monkeypatch.setitem(sys.modules, "mfglib.env", None)
    with pytest.raises(ImportError, match=r'pip install "mfgppl\[mfglib\]"'):
        mfg.interop.from_mfglib(None)


def test_the_soft_equilibrium_converges_within_the_tight_bound(environment, imported):
    """At temperature 1 the residual is below 1e-10; leaving gains at most `log A` a time."""
    game, reward = imported
    solution = mfg.solve_equilibrium(game, reward, throw=True)
    assert solution.residual < 1e-10
    gain = exploitability_score(
        environment, mfg.interop.to_mfglib(solution.value.policy, environment)
    )
    assert gain <= np.log(game.n_actions) * game.shape[0]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [pytest.param(name, {}, marks=[pytest.mark.slow] if name in SLOW else []) for name in NAMES]
    + [("linear_quadratic", {"el": 3, "m": 1})],
)
def test_nobody_gains_by_leaving_the_mean_field_equilibrium(name, sizes):
    """MFGLib itself finds an exploitability below 1e-4 of the reward's bound."""
    with torch.random.fork_rng(devices=[]):
        environment = getattr(Environment, name)(**sizes)
    game, reward = mfg.interop.from_mfglib(environment)
    tolerance = 1e-5 * environment.r_max
    found = mfg.solve_nash(game, reward, tolerance=tolerance, throw=True)
    judged = exploitability_score(
        environment, mfg.interop.to_mfglib(found.value.policy, environment)
    )
    assert judged <= 1e-4 * environment.r_max
