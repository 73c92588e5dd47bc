"""Mean field games of OpenSpiel, against OpenSpiel's own numbers."""

import sys

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import mfgppl as mfg
from mfgppl._compiler.operations import KNOWN
from mfgppl._compiler.tracing import Untraceable, record

pytest.importorskip("pyspiel")

import pyspiel
from open_spiel.python.mfg import games  # noqa: F401  registers the games written in Python
from open_spiel.python.mfg.algorithms.distribution import DistributionPolicy
from open_spiel.python.mfg.algorithms.nash_conv import NashConv
from open_spiel.python.mfg.games import (  # noqa: F401  not among the others
    linear_quadratic,
    normal_form_game,
)
from open_spiel.python.policy import UniformRandomPolicy

ROUNDING = 1e-10
WALLS = {
    "size": 4,
    "horizon": 5,
    "forbidden_states": "[0|0;1|1]",
    "initial_distribution": "[2|2;3|3]",
    "initial_distribution_value": "[0.25;0.75]",
}
GAMES = {
    "line": ("mfg_crowd_modelling", {}),
    "grid": ("mfg_crowd_modelling_2d", {}),
    "walls": ("mfg_crowd_modelling_2d", WALLS),
    "congested": ("mfg_crowd_modelling_2d", {"size": 3, "horizon": 3, "with_congestion": True}),
    "roads": ("mfg_dynamic_routing", {}),
    "long roads": ("mfg_dynamic_routing", {"max_num_time_step": 25, "time_step_length": 0.5}),
    "garnet": ("mfg_garnet", {}),
    "lone garnet": ("mfg_garnet", {"eta": 0.0, "seed": 3, "size": 6, "horizon": 5}),
    "python line": ("python_mfg_crowd_modelling", {"size": 6, "horizon": 4}),
    "python roads": ("python_mfg_dynamic_routing", {"max_num_time_step": 20}),
    "predators": ("python_mfg_predator_prey", {"horizon": 3}),
    "two crowds": ("python_mfg_crowd_avoidance", {"horizon": 3}),
    "mean": ("mean_field_lin_quad", {"horizon": 4}),
}
ROADS = {"roads", "long roads", "python roads"}


@pytest.fixture(scope="module", params=GAMES)
def spiel(request):
    """A mean field game of OpenSpiel."""
    return pyspiel.load_game(*GAMES[request.param])


@pytest.fixture(scope="module")
def imported(spiel):
    """The game and the reward made of it."""
    return mfg.interop.from_openspiel(spiel)


def uniform(game):
    """Return the policy (T, S, A) that takes all available actions alike."""
    allowed = game.available.to(torch.float64)
    return (allowed / allowed.sum(-1, keepdim=True)).expand(game.shape)


def uneven(game):
    """Return a random policy (T, S, A)."""
    random = torch.tensor(np.random.default_rng(1).random(game.shape)) ** 3 * game.available
    return random / random.sum(-1, keepdim=True)


def table_at(game, crowd, time):
    """Return the transition (S, A, S) at a time and a crowd (S, A)."""
    if callable(game.transition):
        return game.transition_at(crowd if game.joint else crowd.sum(-1), time).to_dense()
    by_time = game.transition.ndim == 4 + (game.n_cells > 1 and not game.transition.is_sparse)
    table = game.transition[time] if by_time else game.transition
    if game.n_cells == 1 or table.is_sparse:
        return table.to_dense() if table.is_sparse else table
    whole = torch.zeros(game.n_states, game.n_actions, game.n_states, dtype=torch.float64)
    S = game.n_states // game.n_cells
    for c, block in enumerate(table):
        whole[c * S : (c + 1) * S, :, c * S : (c + 1) * S] = block
    return whole


def reward_of(imported, flow):
    """Return the reward (T, S, A) along a flow, one population after the other."""
    game = imported.game
    inputs = mfg.RewardInputs(game, flow)
    return inputs.stacked(imported.reward(inputs).broadcast_to(inputs.shape))


def generated(game, policy):
    """Return the joint flow (T, S, A) of a policy and the transitions along it."""
    crowd, tables, shares = [], [], game.initial
    for t in range(game.shape[0]):
        crowd.append(shares[:, None] * policy[t])
        tables.append(table_at(game, crowd[-1], min(t, game.n_steps - 1)))
        shares = torch.einsum("sa,sax->x", crowd[-1], tables[-1])
    return torch.stack(crowd), tables


def gain(imported, policy):
    """Return what a best response gains against a policy, by backward induction."""
    game = imported.game
    crowd, tables = generated(game, policy)
    reward = reward_of(imported, crowd if game.joint else crowd.sum(-1))
    best = played = torch.zeros(game.n_states, dtype=torch.float64)
    for t in reversed(range(game.shape[0])):
        q_values = reward[t] + tables[t] @ best
        best = q_values.masked_fill(~game.available, -torch.inf).max(-1).values
        played = (policy[t] * (reward[t] + tables[t] @ played)).sum(-1)
    return float(game.initial @ (best - played))


def n_populations(spiel):
    """Return how many populations OpenSpiel sums over."""
    return len(spiel.new_initial_states())


def test_the_uniform_policys_gain_is_nash_conv(spiel, imported):
    """A best response to the uniform policy gains what OpenSpiel says."""
    ours = n_populations(spiel) * gain(imported, uniform(imported.game))
    theirs = NashConv(spiel, UniformRandomPolicy(spiel)).nash_conv()
    assert ours == pytest.approx(theirs, rel=ROUNDING, abs=ROUNDING)


def test_a_policy_on_the_way_back_has_our_gain(spiel, imported):
    """OpenSpiel judges a random policy in its own form as the tables do."""
    policy = uneven(imported.game)
    ours = n_populations(spiel) * gain(imported, policy)
    theirs = NashConv(spiel, mfg.interop.to_openspiel(policy, spiel)).nash_conv()
    assert ours == pytest.approx(theirs, rel=ROUNDING, abs=ROUNDING)


def test_the_flow_is_openspiels_distribution(spiel, imported):
    """Each state that can be reached has OpenSpiel's probability at each time."""
    game = imported.game
    flow = generated(game, uniform(game))[0].sum(-1)
    theirs = DistributionPolicy(spiel, UniformRandomPolicy(spiel)).distribution
    decisions = [sorted(v for v in row.tolist() if v) for row in flow]
    levels = levels_of(spiel, theirs)
    assert len(levels) == game.horizon
    for ours, level in zip(decisions, levels, strict=True):
        shares = sorted(v / n_populations(spiel) for v in level if v)
        np.testing.assert_allclose(ours, shares, rtol=0, atol=ROUNDING)


def levels_of(spiel, distribution):
    """Return OpenSpiel's probabilities of the decision nodes, a list for each time."""
    nodes = {s.observation_string(0): s for s in spiel.new_initial_states()}
    levels = []
    while nodes and not next(iter(nodes.values())).is_terminal():
        first = next(iter(nodes.values()))
        if not first.is_chance_node() and not first.is_mean_field_node():
            levels.append([distribution[name] for name in nodes])
        after = [child for state in nodes.values() for child in children(state, distribution)]
        reached = [s for s in after if s.observation_string(0) in distribution]
        nodes = {}
        for state in reached:
            nodes.setdefault(state.observation_string(0), state)
    return levels


def children(state, distribution):
    """Return the states that follow under a distribution."""
    if not state.is_mean_field_node():
        return [state.child(action) for action in state.legal_actions()]
    informed = state.clone()
    informed.update_distribution([distribution.get(k, 0.0) for k in state.distribution_support()])
    return [informed]


@pytest.mark.parametrize("name", ["line", "grid", "walls", "garnet", "python line"])
def test_crowd_rewards_become_a_formula(name):
    """Where the reward falls with the log of the own density, it has that derivative."""
    game, reward = mfg.interop.from_openspiel(pyspiel.load_game(*GAMES[name]))
    reached = generated(game, uniform(game))[0].sum(-1)[1:] > 0
    draws = np.random.default_rng(1).dirichlet(np.ones(game.n_states), size=game.horizon)
    flow = torch.tensor(draws).requires_grad_()
    reward(mfg.RewardInputs(game, flow))[..., 0].sum().backward()
    expected = torch.where(reached, -1 / flow.detach()[1:], 0.0)
    np.testing.assert_allclose(flow.grad[1:], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["congested", "mean", "predators"])
def test_what_is_read_has_derivatives(name):
    """Reverse and forward mode agree, and give the change of the rewards along a direction."""
    game, reward = mfg.interop.from_openspiel(pyspiel.load_game(*GAMES[name]))
    even = np.full(game.n_states, 5.0)  # a density near zero has no differences
    draws = np.random.default_rng(2).dirichlet(even, size=(2, game.horizon))
    flow, towards = torch.tensor(draws[0]), torch.tensor(draws[1] - draws[0])

    def total(flow):
        return reward(mfg.RewardInputs(game, flow)).square().sum()

    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(total(forward_ad.make_dual(flow, towards))).tangent
    leaf = flow.clone().requires_grad_()
    reverse = float((torch.autograd.grad(total(leaf), leaf)[0] * towards).sum())
    step = 1e-6
    change = (total(flow + step * towards) - total(flow - step * towards)) / (2 * step)
    assert reverse == pytest.approx(float(change), rel=1e-5)
    assert float(dual) == pytest.approx(reverse, rel=ROUNDING)


@pytest.mark.parametrize("name", ["congested", "mean", "roads"])
def test_what_is_read_is_never_recorded(name):
    """A recorder of operations hears that rewards or travel times depend on values."""
    game, reward = mfg.interop.from_openspiel(pyspiel.load_game(*GAMES[name]))
    flow = torch.full(game.flow_shape, 1 / np.prod(game.flow_shape[1:]), dtype=torch.float64)

    def stage(flow):
        if game.joint:
            return game.transition_along(flow).to_dense()
        return reward(mfg.RewardInputs(game, flow))

    with pytest.raises((Untraceable, ValueError), match="needs the value"):
        record([stage], [flow], KNOWN)


def test_only_roads_move_the_agents(request, imported):
    """Travel times depend on the volume of a road; nowhere else does the crowd move anybody."""
    on_roads = request.node.callspec.params["spiel"] in ROADS
    assert imported.game.crowd_moves_dynamics == imported.game.joint == on_roads


def test_states_of_different_times_share_a_label():
    """A cell is one state whatever the time; numbers become numeric labels."""
    line = mfg.interop.from_openspiel(pyspiel.load_game("mfg_crowd_modelling")).game
    grid = mfg.interop.from_openspiel(pyspiel.load_game(*GAMES["walls"])).game
    assert line.space.coordinates == {"state": tuple(range(10))}
    assert "0, 0" not in grid.space.labels
    assert grid.n_states == 14


def test_an_equilibrium_is_hardly_exploitable():
    """OpenSpiel finds next to nothing to gain against the equilibrium at a low temperature."""
    spiel = pyspiel.load_game("mfg_crowd_modelling", {"size": 5, "horizon": 4})
    imported = mfg.interop.from_openspiel(spiel, temperature=0.02)
    solution = mfg.solve_equilibrium(imported.game, imported.reward, damping=0.02, tolerance=1e-8)
    assert solution.converged
    theirs = NashConv(spiel, mfg.interop.to_openspiel(solution.value.policy, spiel)).nash_conv()
    uniformly = NashConv(spiel, UniformRandomPolicy(spiel)).nash_conv()
    assert 0 <= theirs < 0.1 * uniformly


def test_a_game_that_ends_where_the_distribution_is_informed_is_refused():
    """Its payoff comes after the last decision and depends on what is announced."""
    spiel = pyspiel.load_game("mean_field_nfg")
    with pytest.raises(ValueError, match="mean_field_nfg ends where the distribution is announced"):
        mfg.interop.from_openspiel(spiel)


@pytest.mark.parametrize("wrong", [None, "mfg_garnet"])
def test_what_is_no_game_is_refused(wrong):
    """The error says what must come, and what came."""
    with pytest.raises(TypeError, match="`game` must be a Game; got"):
        mfg.interop.from_openspiel(wrong)
    with pytest.raises(TypeError, match="`game` must be a Game; got"):
        mfg.interop.to_openspiel(torch.ones(1, 1, 1), wrong)


def test_other_games_are_refused():
    """A game of two players is no mean field game, and the error names its dynamics."""
    with pytest.raises(ValueError, match=r"kuhn_poker has the dynamics SEQUENTIAL"):
        mfg.interop.from_openspiel(pyspiel.load_game("kuhn_poker"))


def test_wrong_policies_are_refused():
    """The shape is checked against the game."""
    spiel = pyspiel.load_game("mfg_garnet")
    with pytest.raises(ValueError, match=r"`policy` must have shape .* = \(10, 10, 3\)"):
        mfg.interop.to_openspiel(torch.ones(2, 10, 3) / 3, spiel)


def test_without_the_library_the_extra_is_named(monkeypatch):
    """The import error says what to install."""
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    with pytest.raises(ImportError, match=r'pip install "mfgppl\[openspiel\]"'):
        mfg.interop.from_openspiel(None)


def test_populations_are_types():
    """Each with the same states and a third of the crowd; its equilibrium is OpenSpiel's too."""
    spiel = pyspiel.load_game(*GAMES["predators"])
    imported = mfg.interop.from_openspiel(spiel)
    game = imported.game
    assert game.space.coordinates["population"] == (0, 1, 2)
    assert game.n_cells == 3
    assert not any("pop" in str(label) for label in game.space.within.labels)
    np.testing.assert_allclose(game.initial.reshape(3, -1).sum(1), 1 / 3)
    solution = mfg.solve_equilibrium(game, imported.reward)
    assert solution.converged
    policy = solution.value.policy
    shares = mfg.equilibrium.exploitability_by_type(game, imported.reward, policy)
    theirs = NashConv(spiel, mfg.interop.to_openspiel(policy, spiel)).nash_conv()
    assert 3 * (shares["share"] * shares["exploitability"]).sum() == pytest.approx(theirs, rel=1e-9)
