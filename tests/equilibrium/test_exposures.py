"""Linear systems over what is read of the crowd, against the whole matrix of derivatives."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import random_rows

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.equilibrium.linearisation import inverse, response_map_of

C, S, A, T = 5, 3, 2, 4
LABELS = [f"place {k}" for k in range(C)]
WHERE = (np.arange(C) + 0.5) / C
MATRIX = pd.DataFrame(1 - np.outer(WHERE, WHERE), LABELS, LABELS)  # of rank two
TABLES = random_rows(61, C, S, A, S)
INITIAL = random_rows(62, C * S)
EMPTY = INITIAL.copy()
EMPTY[:S] = 0.0
EMPTY /= EMPTY.sum()
REGIONS = {
    "types": {"region": ["north", "south"], "size": ["small", "large"]}, "meets": "region",
    "transition": TABLES[0], "initial": random_rows(63, 4 * S),
}  # fmt: skip
DESERTED = np.concatenate([np.zeros(2 * S), random_rows(64, 2 * S)])
TRUTH = {"pay": 0.5, "crowding": 1.5}


def slowed(crowd, time):
    """Return dynamics that the crowd met slows down."""
    crowd = crowd / crowd.sum()  # an exposure need not sum to one
    stay = torch.eye(S, dtype=torch.float64)[:, None, :].expand(-1, A, -1)
    return crowd[:, None, None] * stay + (1 - crowd[:, None, None]) * torch.from_numpy(TABLES[0])


def reward(x):
    pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    return pay * x.state * (x.action == "b") - crowding * x.density * x.state


def game(**changes):
    arguments = {
        "states": range(S), "actions": ["a", "b"], "types": {"place": LABELS}, "horizon": T,
        "transition": dict(zip(LABELS, TABLES, strict=True)), "initial": INITIAL, "meets": MATRIX,
        "discount": 0.9,
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


GAMES = {
    "matrix": {},
    "matrix, moving": {"transition": slowed},
    "matrix, joint": {"joint": True},
    "matrix, a place without anybody": {"initial": EMPTY},
    "everyone": {"meets": "everyone"},
    "two regions": REGIONS,
    "two regions, one without anybody": REGIONS | {"initial": DESERTED},
}
RANKS = {"everyone": 1}


@pytest.mark.parametrize("kind", GAMES)
def test_inverses_are_those_of_the_whole_matrix(kind):
    """Both ways, for changes that keep the mass of each cell, as all changes of a flow do."""
    world = game(**GAMES[kind])
    response_map = response_map_of(world, reward, TRUTH)
    assert response_map.exposures.reads.shape == (RANKS.get(kind, 2), world.n_cells)
    flow = mfg.solve_equilibrium(world, reward, parameters=TRUTH, throw=True).value.mean_field
    image = response_map.image(flow.numpy().reshape(T, -1), 1.0)
    forward, back = inverse(response_map, image, 1.0)
    whole = np.eye(image.flow.size) - response_map.jacobian(image, 1.0).T
    rng = np.random.default_rng(1)
    change = rng.normal(size=(T, world.n_cells, image.flow.shape[1] // world.n_cells))
    change = (change - change.mean(-1, keepdims=True)).reshape(T, -1)
    change *= np.repeat(
        world.initial.numpy().reshape(world.n_cells, -1).sum(1) > 0,
        change.shape[1] // world.n_cells,
    )
    expected = np.linalg.solve(whole, change.ravel())
    np.testing.assert_allclose(forward(change).ravel(), expected, atol=1e-11)
    weights = rng.normal(size=change.shape)
    felt = np.linalg.solve(whole.T, weights.ravel()) @ change.ravel()
    assert (back(weights) * change).sum() == pytest.approx(felt, rel=1e-10)


@pytest.mark.parametrize("kind", ["matrix", "matrix, moving"])
def test_the_coupled_likelihood_along_exposures_has_the_slope_of_its_differences(kind):
    world = game(**GAMES[kind])
    found = mfg.solve_equilibrium(world, reward, parameters=TRUTH, throw=True).value
    panel = mfg.simulate(world, found.policy, found.mean_field, n_agents=200, random_seed=1)
    density = density_of(mfg.TrajectoryModel(world, reward, panel, mean_field="equilibrium"))
    evaluate, theta = density.evaluator(prior=0.0, jacobian=0.0), np.array([0.4, 1.2])
    gradient = evaluate(theta)[1].copy()
    steps = 1e-5 * np.eye(2)
    numbers = [(evaluate(theta + h)[0] - evaluate(theta - h)[0]) / 2e-5 for h in steps]
    np.testing.assert_allclose(gradient, numbers, rtol=1e-6)
    assert density.path == "coupled"
