"""Sparse transitions give what the same tables give when dense."""

import games
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch

import mfgppl as mfg
from mfgppl._kernels import bridge
from mfgppl._kernels.dynamics import LANES
from mfgppl.density.of_model import density_of

SIDE = 9  # 81 states: two whole slices of lanes and a part


def reward(x):
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    effort = pyro.sample("effort", dist.HalfNormal(1.0))
    return -crowding * x.density * x.row - effort * (x.action != "stay")


def grid_tables(n_tables, seed=0):
    """Return tables (n, S, A, S) of walks on a grid that reach up to four cells, and few alike."""
    rng = np.random.default_rng(seed)
    n_cells = SIDE**2
    assert n_cells % LANES
    tables = np.zeros((n_tables, n_cells, 3, n_cells))
    for t, s, a in np.ndindex(n_tables, n_cells, 3):
        reached = rng.choice(n_cells, size=1 + (s + a) % 4, replace=False)
        tables[t, s, a, reached] = rng.dirichlet(np.ones(len(reached)))
    return tables


def grid(tables, *, sparse, horizon=6):
    """Return the game of some tables, given as they are or as scipy matrices."""
    n_cells = SIDE**2
    matrices = [scipy.sparse.csr_array(table.reshape(-1, n_cells)) for table in tables]
    dense = tables if len(tables) > 1 else tables[0]
    return mfg.MeanFieldGame(
        states={"row": list(range(SIDE)), "column": list(range(SIDE))},
        actions=["stay", "left", "right"],
        horizon=horizon,
        transition=(matrices if len(tables) > 1 else matrices[0]) if sparse else dense,
        initial=games.random_rows(3, n_cells),
    )


@pytest.fixture(scope="module", params=[1, 5], ids=["shared", "by time"])
def pair(request):
    """The same game twice, sparse and dense, and a panel of it."""
    tables = grid_tables(request.param)
    sparse, dense = grid(tables, sparse=True), grid(tables, sparse=False)
    panel = games.played(dense, reward, {"crowding": 2.0, "effort": 0.3}, 200, 1)
    return sparse, dense, panel


OPTIONS = [
    {"likelihood": "causal"},
    {"likelihood": "energy"},
    {"likelihood": "energy", "start": "conditional"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_likelihood_and_gradient(pair, options):
    """Kernel and twin, value and gradient, agree between the two forms."""
    table = torch.as_tensor(np.random.default_rng(2).standard_normal(pair[0].shape))
    found = []
    for game in pair[:2]:
        likelihood = mfg.TrajectoryModel(game, reward, pair[2], **options).law
        value, gradient = likelihood.evaluator()(table.numpy())
        leaf = table.clone().requires_grad_(True)
        twin = likelihood.log_likelihood(leaf)
        slope = torch.autograd.grad(twin, leaf)[0]
        log_policy = likelihood.log_policy(table.numpy())
        found.append((value, gradient.copy(), twin.item(), slope, log_policy))
    (value, gradient, twin, slope, log_policy), other = found
    assert value == pytest.approx(other[0], rel=1e-12)
    assert twin == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(gradient, other[1], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(slope, gradient, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(log_policy, other[4], rtol=1e-10)


def test_fit_and_standard_errors(pair):
    """Second derivatives and scores through the sparse twin equal those through the dense one."""
    fits = [
        mfg.mle(mfg.TrajectoryModel(game, reward, pair[2]), flow_bias=False, progressbar=False)
        for game in pair[:2]
    ]
    for kind in ("observed", "opg"):
        np.testing.assert_allclose(
            fits[0].cov_params(kind=kind), fits[1].cov_params(kind=kind), rtol=1e-7
        )
    np.testing.assert_allclose(fits[0].params, fits[1].params, rtol=1e-7)


def test_compiled_density(pair):
    """The compiled density takes either form."""
    theta = np.array([0.4, -0.2])
    values = [
        density_of(mfg.TrajectoryModel(g, reward, pair[2])).evaluator()(theta) for g in pair[:2]
    ]
    assert values[0][0] == pytest.approx(values[1][0], rel=1e-12)
    np.testing.assert_allclose(values[0][1], values[1][1], rtol=1e-10)


def test_simulation_follows_the_stored_entries(pair):
    """Steps of a simulated panel are those of the tables, in their proportions."""
    sparse, dense, _ = pair
    flow = dense.initial.repeat(6, 1)
    policy = np.full(sparse.shape, 1 / 3)
    panel = mfg.simulate(sparse, policy, flow, n_agents=40_000, random_seed=5)
    steps, n = panel.transition_counts()
    tables = dense.transition_along(flow)
    which = steps[:, 0] if len(tables) > 1 else 0
    probability = tables[which, steps[:, 1], steps[:, 2], steps[:, 3]].numpy()
    assert probability.min() > 0
    row = np.unique(steps[:, :3], axis=0, return_inverse=True)[1].ravel()
    visits = np.bincount(row, n)[row]
    expected = visits * probability
    z = (n - expected) / np.sqrt(expected * (1 - probability) + 1e-9)
    common = (expected > 20) & (probability < 1)
    assert common.sum() > 100
    assert abs((z[common] ** 2).mean() - 1) < 0.5


def test_steps_outside_the_stored_entries_are_refused(pair):
    """A step that no entry allows has probability zero."""
    sparse, _, panel = pair
    tables = grid_tables(len(sparse.transition_along(sparse.initial.repeat(6, 1))), seed=9)
    with pytest.raises(mfg.exceptions.DataError, match="step of probability zero"):
        mfg.TrajectoryModel(grid(tables, sparse=True), reward, panel)


def test_storage_grows_with_the_entries():
    """A world of 40,000 states is stored by its entries."""
    n_cells = 40_000
    table = torch.sparse_coo_tensor(
        torch.stack([torch.zeros(n_cells), *(torch.arange(n_cells),) * 3])[[0, 1, 0, 3]].long(),
        torch.ones(n_cells, dtype=torch.float64),
        (1, n_cells, 1, n_cells),
        check_invariants=True,
    )
    stored = bridge.tables_of(table)
    assert sum(array.nbytes for array in stored) < 40 * n_cells


def test_a_callable_may_return_sparse_matrices():
    """A function of the flow that returns scipy matrices is the function that returns arrays."""
    tables = grid_tables(1)[0]

    def transition(mean_field, time):
        drift = 0.5 * float(mean_field[0])
        mixed = (1 - drift) * tables + drift * np.eye(SIDE**2)[:, None, :]
        return scipy.sparse.csr_array(mixed.reshape(-1, SIDE**2))

    game = grid(tables[None], sparse=True)
    moved = mfg.MeanFieldGame(
        states={"row": list(range(SIDE)), "column": list(range(SIDE))},
        actions=game.actions,
        horizon=4,
        transition=transition,
        initial=game.initial,
    )
    found = mfg.solve_equilibrium(moved, reward, parameters={"crowding": 1.0, "effort": 0.2})
    assert found.converged
    along = moved.transition_along(found.value.mean_field)
    assert along.is_sparse
    flow = mfg.equilibrium.propagate_mean_field(found.value.policy, along.to_dense(), moved.initial)
    np.testing.assert_allclose(flow, found.value.mean_field, atol=1e-9)
