"""Every public name of the equilibrium room on three networks: blocks, a graphon, an edge list."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import ROUNDING, random_rows

import mfgppl as mfg
from mfgppl import equilibrium as rooms

N, S, T = 4, 3, 5
NAMES = ["a", "b", "c", "d"]
BLOCKS = pd.DataFrame(np.kron(np.eye(2), np.ones((2, 2))), NAMES, NAMES)
LIST = pd.DataFrame({"from": list("aabcd"), "to": list("bcadb"), "weight": [1.0, 2.0, 1.0, 0.5, 3]})
NETWORKS = {
    "blocks": (NAMES, mfg.Network(BLOCKS, self_loops=True)),
    "graphon": ((0.125, 0.375, 0.625, 0.875),
                mfg.networks.graphon("uniform_attachment", positions=N)),
    "edges": (NAMES, mfg.Network(LIST)),
}  # fmt: skip
TRUTH = {"worth": 0.4, "crowding": 1.0}


def agent(x):
    worth = pyro.sample("worth", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    return worth * x.state * (x.action == "go") - crowding * x.density


@pytest.fixture(params=NETWORKS)
def game(request):
    labels, network = NETWORKS[request.param]
    return mfg.MeanFieldGame(
        types={"place": labels}, states=range(S), actions=["go", "stay"], horizon=T,
        transition=random_rows(61, S, 2, S), initial=random_rows(62, N * S), meets=network,
        temperature=0.5,
    )  # fmt: skip


@pytest.fixture
def solved(game):
    found = mfg.solve_equilibrium(game, agent, parameters=TRUTH, tolerance=1e-11, throw=True)
    assert found.residual < ROUNDING
    return found.value


def by_hand(game, policy):
    """Return the flow, exposures and reward along them, cell by cell in NumPy."""
    weights = game.meets.matrix[game.meets.row]
    mass = game.initial.numpy().reshape(N, S)
    table, flow = game.transition.numpy().reshape(-1, S, 2, S)[0], [mass]
    policy = np.asarray(policy).reshape(T, N, S, 2)
    for t in range(T - 1):
        flow.append(np.einsum("cs,csa,sax->cx", flow[-1], policy[t], table))
    met = np.stack([weights @ f for f in flow])
    if game.meets.normalised:
        met = met / met.sum(2, keepdims=True)
    go = np.array([1.0, 0.0])
    reward = TRUTH["worth"] * np.arange(S)[:, None] * go - TRUTH["crowding"] * met[..., None]
    return np.stack(flow), reward, table, policy


def test_the_equilibrium_is_a_fixed_point_by_hand(game, solved):
    """Soft best responses to the exposures, cell by cell, generate the flow itself."""
    flow, reward, table, policy = by_hand(game, solved.policy)
    np.testing.assert_allclose(flow.reshape(T, -1), solved.mean_field, atol=1e-10)
    values = np.zeros((N, S))
    for t in reversed(range(T)):
        q = reward[t] + np.einsum("sax,cx->csa", table, values)
        values = 0.5 * np.log(np.exp(q / 0.5).sum(-1))
        np.testing.assert_allclose(policy[t], np.exp((q - values[..., None]) / 0.5), atol=1e-9)


def test_returns_and_exploitability_by_hand(game, solved):
    """By dynamic programming over each cell, weighed by its mass; by position and for all."""
    flow, reward, table, policy = by_hand(game, solved.policy)
    own, best = np.zeros((N, S)), np.zeros((N, S))
    for t in reversed(range(T)):
        q = reward[t] + np.einsum("sax,cx->csa", table, own)
        own = (policy[t] * q).sum(-1)
        best = (reward[t] + np.einsum("sax,cx->csa", table, best)).max(-1)
    options = {"parameters": TRUTH}
    start = flow[0]
    assert rooms.expected_return(game, agent, solved.policy, **options) == pytest.approx(
        (start * own).sum()
    )
    gain = rooms.exploitability(game, agent, solved.policy, **options)
    assert gain == pytest.approx((start * (best - own)).sum())
    by_place = rooms.exploitability_by_type(game, agent, solved.policy, **options)
    each = (start * (best - own)).sum(1) / start.sum(1)
    np.testing.assert_allclose(by_place["exploitability"], each, atol=1e-10)
    assert rooms.regularised_exploitability(game, agent, solved.policy, **options) < 1e-9


def test_flows_that_policies_generate(game, solved):
    flow, *_ = by_hand(game, solved.policy)
    made = rooms.generate_mean_field(game, solved.policy)
    np.testing.assert_allclose(made, flow.reshape(T, -1), atol=1e-12)


def test_other_equilibria_are_sought(game):
    found = rooms.find_equilibria(game, agent, parameters=TRUTH, n_starts=3, random_seed=1)
    assert found.n_failed == 0
    assert len(found.solutions) >= 1


@pytest.mark.parametrize("method", ["fictitious_play", "mirror_descent"])
def test_nash_equilibria(game, method):
    """Nobody gains much by leaving what the solver ends at."""
    found = mfg.solve_nash(game, agent, parameters=TRUTH, method=method, tolerance=1e-2)
    gain = rooms.exploitability(game, agent, found.value.policy, parameters=TRUTH)
    assert found.converged
    assert gain <= 1e-2 + ROUNDING


def test_the_social_optimum_is_no_worse_for_all(game, solved):
    found = rooms.social_optimum(game, agent, parameters=TRUTH, max_steps=200)
    options = {"parameters": TRUTH}
    best = rooms.expected_return(game, agent, found.value.policy, **options)
    assert best >= rooms.expected_return(game, agent, solved.policy, **options) - 1e-6


def test_finite_populations(game, solved):
    """Agents who meet each other on the network tend to its flow."""
    table = rooms.finite_population(
        game, agent, solved.policy, n_agents=[50, 800], parameters=TRUTH, n_worlds=4, random_seed=1
    )
    assert len(table) == 2
    panel = mfg.simulate(game, solved.policy, "empirical", n_agents=4000, random_seed=1)
    assert np.abs(panel.mean_field() - solved.mean_field.numpy()).max() < 5 * 0.5 / 4000**0.5


def test_implicit_gradients_are_differences(game):
    """Of the flow in equilibrium, in a parameter."""

    def statistic(value):
        values = {"worth": TRUTH["worth"], "crowding": value}
        flow = mfg.solve_equilibrium(
            game, agent, parameters=values, tolerance=1e-12, throw=True
        ).value.mean_field
        return (flow * torch.arange(flow.numel()).reshape(flow.shape)).sum()

    value = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(statistic(value), value)
    step = 1e-4
    difference = (statistic(1.0 + step) - statistic(1.0 - step)) / (2 * step)
    assert float(slope) == pytest.approx(float(difference), rel=1e-5)


def test_games_without_a_horizon(game):
    """A stationary equilibrium keeps its flow, and nobody gains more than the bound by leaving."""
    forever = game.replace(horizon=None, discount=0.8)
    found = mfg.solve_equilibrium(forever, agent, parameters=TRUTH, throw=True)
    assert found.residual < ROUNDING
    policy = np.asarray(found.value.policy)[0].reshape(N, S, 2)
    flow = np.asarray(found.value.mean_field).reshape(N, S)
    table = game.transition.numpy().reshape(-1, S, 2, S)[0]
    moved = np.einsum("cs,csa,sax->cx", flow, policy, table)
    np.testing.assert_allclose(moved, flow, atol=ROUNDING)
    gain = rooms.exploitability(forever, agent, found.value.policy, parameters=TRUTH)
    assert 0 <= gain <= 0.5 * np.log(2) / 0.2


@pytest.mark.parametrize("treatment", ["empirical", "equilibrium"])
def test_fits_recover_the_coupling(game, solved, treatment):
    """Estimates of 4,000 agents lie within five standard errors of the truth."""
    panel = mfg.simulate(game, solved.policy, solved.mean_field, n_agents=4000, random_seed=2)
    flow = "equilibrium" if treatment == "equilibrium" else solved.mean_field
    fit = mfg.mle(mfg.TrajectoryModel(game, agent, panel, mean_field=flow), progressbar=False)
    z = (fit.params - pd.Series(TRUTH)) / fit.bse
    assert fit.converged
    assert (z.abs() < 5).all()
