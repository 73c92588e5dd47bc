"""Linear systems of a response by sweeps over time, against the whole matrix of derivatives."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import random_rows

import mfgppl as mfg
from mfgppl.equilibrium.linearisation import inverse, response_map_of
from mfgppl.models import malware, market, sir, sis, treasure_hunting

T, S, A = 5, 4, 3
ROUNDING = 1e-11  # relative: sums of some hundred numbers, in systems that are well conditioned
FLOW = random_rows(11, T, S)
TABLE = random_rows(12, S, A, S)
TABLES = random_rows(13, T - 1, S, A, S)
TRUTH = {"pay": 0.5, "crowding": 1.5}
AVAILABLE = np.ones((S, A), dtype=bool)
AVAILABLE[1, 2] = AVAILABLE[3, 0] = False


def reward(x):
    pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    return pay * x.state * (x.action == "b") - crowding * x.density**2 * (x.action != "c")


def slowed(crowd, time):
    """Return dynamics that the crowd of the first state slows down, more at later times."""
    stay = torch.eye(S, dtype=torch.float64)[:, None, :].expand(-1, A, -1)
    slow = crowd[0] / (2 + time)
    return slow * stay + (1 - slow) * torch.from_numpy(TABLE)


def of_yesterday(x):
    """Return a reward that reads the flow of the time before."""
    pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    before = torch.cat([x.mean_field[:1], x.mean_field[:-1]])
    return pay * x.state * (x.action == "b") - crowding * before[:, :, None]


def of_the_full(x):
    """Return a reward that reads the crowd of the first state, and others when they are crowded."""
    pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    full = torch.where(x.density > 0.97, x.density, torch.zeros_like(x.density))
    first = x.mean_field[:, :1, None]
    return pay * x.state * (x.action == "b") - crowding * (first + full) * (x.action != "c")


def game(**changes):
    arguments = {
        "states": range(S), "actions": ["a", "b", "c"], "horizon": T, "transition": TABLE,
        "initial": random_rows(14, S), "discount": 0.9,
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


TWO_TYPES = {"types": {"kind": ["one", "other"]}, "initial": random_rows(15, 2 * S)}
WORLDS = {
    "plain": (game(), reward, TRUTH),
    "tables by time": (game(transition=TABLES), reward, TRUTH),
    "moving tables": (game(transition=slowed), reward, TRUTH),
    "some actions": (game(available=AVAILABLE), reward, TRUTH),
    "one decision": (game(horizon=1), reward, TRUTH),
    "two types": (game(**TWO_TYPES), reward, TRUTH),
    "two types, moving": (game(**TWO_TYPES, transition=slowed), reward, TRUTH),
    "market": (market.game(), market.reward, market.TRUTH),
    "sis": (sis.game(), sis.reward, sis.TRUTH),
    "sir": (sir.game(), sir.reward, sir.TRUTH),
    "malware": (malware.game(), malware.reward, malware.TRUTH),
}


def system_of(world, program, truth, flow=None, temperature=0.7):
    """Return a response map, its response to a flow, and `I - J` there, whole."""
    response_map = response_map_of(world, program, truth)
    n_times, n_states, _ = world.shape
    image = response_map.image(
        random_rows(16, n_times, n_states) if flow is None else flow, temperature
    )
    whole = np.eye(image.flow.size) - response_map.jacobian(image, temperature).T
    return response_map, image, whole


@pytest.mark.parametrize("name", WORLDS)
def test_sweeps_solve_the_system_both_ways(name):
    response_map, image, whole = system_of(*WORLDS[name])
    sweeps = response_map.sweeps(image, 0.7)
    right = np.random.default_rng(1).standard_normal(image.flow.shape)
    for solve, matrix in ((sweeps.closed, whole), (sweeps.weighed, whole.T)):
        expected = np.linalg.solve(matrix, right.ravel()).reshape(right.shape)
        np.testing.assert_allclose(solve(right), expected, atol=ROUNDING * np.abs(expected).max())


def test_a_response_after_others_is_that_of_its_own_flow():
    """Tables that the crowd moves are put again along the flow that is asked about."""
    response_map, image, whole = system_of(*WORLDS["moving tables"])
    response_map.image(FLOW, 0.7)
    right = np.random.default_rng(1).standard_normal(image.flow.shape)
    expected = np.linalg.solve(whole, right.ravel()).reshape(right.shape)
    found = response_map.sweeps(image, 0.7).closed(right)
    np.testing.assert_allclose(found, expected, atol=ROUNDING * np.abs(expected).max())


@pytest.mark.parametrize(("name", "n"), [("malware", 1), ("sis", 1), ("plain", S), ("market", 8)])
def test_what_is_read_of_a_flow_is_found(name, n):
    """As many numbers as the derivatives of reward and dynamics have dimensions."""
    response_map, _, _ = system_of(*WORLDS[name])
    reads = response_map.reads
    assert reads.shape == (n, response_map.game.n_states)
    np.testing.assert_allclose(reads @ reads.T, np.eye(n), atol=1e-12)


REFUSED = {
    "another time's flow": (game(), of_yesterday, TRUTH),
    "more than was seen": (game(), of_the_full, TRUTH),
    "joint": (treasure_hunting.game(), treasure_hunting.reward, treasure_hunting.TRUTH),
}


@pytest.mark.parametrize("name", REFUSED)
def test_where_sweeps_do_not_serve_the_whole_matrix_does(name):
    """Also where a flow is read through more than its derivatives elsewhere have shown."""
    world, program, truth = REFUSED[name]
    n_times, width = world.shape[0], np.prod(world.shape[1:]) if world.joint else world.shape[1]
    flow = random_rows(17, n_times, width)
    if name == "more than was seen":
        flow = np.tile([0.005, 0.985, 0.005, 0.005], (n_times, 1))
    response_map, image, whole = system_of(world, program, truth, flow)
    assert (response_map.sweeps(image, 0.7) is None) == (name != "more than was seen")
    right = np.random.default_rng(1).standard_normal(image.flow.shape)
    for solve, matrix in zip(inverse(response_map, image, 0.7), (whole, whole.T), strict=True):
        expected = np.linalg.solve(matrix, right.ravel()).reshape(right.shape)
        np.testing.assert_allclose(solve(right), expected, atol=1e-8 * np.abs(expected).max())
