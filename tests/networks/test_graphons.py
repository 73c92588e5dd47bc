"""Graphons: published and independent numbers, limits, exposures of low rank."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import ROUNDING, random_rows

import mfgppl as mfg
from mfgppl.equilibrium.exposures import exposures_of
from mfgppl.equilibrium.linearisation import response_map_of
from mfgppl.models import beach_graphon, investment_graphon, sis_graphon


def epidemic(graphon, temperature):
    """Return the equilibrium of the epidemic at 100 positions, its flow and policy by position."""
    world = sis_graphon.game(graphon=graphon, positions=100, temperature=temperature)
    options = {"parameters": sis_graphon.TRUTH}
    solved = mfg.solve_equilibrium(
        world, sis_graphon.reward, tolerance=1e-11, throw=True, **options
    ).value
    gain = mfg.equilibrium.exploitability(world, sis_graphon.reward, solved.policy, **options)
    flow = 100 * np.asarray(solved.mean_field).reshape(50, 100, 2)
    return flow, np.asarray(solved.policy).reshape(50, 100, 2, 2), gain


@pytest.mark.parametrize(
    ("law", "temperature", "gain"),
    [
        (lambda x: 1 - np.maximum.outer(x, x), 0.101, 0.784234),
        (lambda x: 1 - np.outer(x, x), 0.3, 2.601696),
        (lambda x: np.full((len(x), len(x)), 0.5), 0.101, 0.676890),
    ],
)
def test_published_exploitability_at_end_points(law, temperature, gain):
    """Cui and Koeppl (2022): 101 positions with both ends, agents who plan to be perfect later."""
    ends = np.linspace(0, 1, 101)
    labels = [float(x) for x in ends]
    network = mfg.Network(
        pd.DataFrame(law(ends), labels, labels),
        normalise=None, self_loops=True, isolates=True, labels=labels,
    )  # fmt: skip
    world = sis_graphon.game(positions=2, temperature=temperature).replace(
        types={"position": labels}, meets=network, initial=np.full(202, 0.5 / 101),
        behaviour="boltzmann",
    )  # fmt: skip
    options = {"parameters": sis_graphon.TRUTH}
    solved = mfg.solve_equilibrium(world, sis_graphon.reward, throw=True, **options).value
    found = mfg.equilibrium.exploitability(world, sis_graphon.reward, solved.policy, **options)
    assert found == pytest.approx(gain, abs=5e-7)


# worked out independently, for middles of intervals and soft maximisers
def test_the_epidemic_under_uniform_attachment():
    flow, policy, gain = epidemic("uniform_attachment", 0.101)
    np.testing.assert_allclose(flow[25, [0, 50, 99], 1], [0.1484, 0.1458, 0.0043], atol=5e-5)
    np.testing.assert_allclose(policy[25, [0, 50, 99], 0, 1], [0.3809, 0.1774, 0.0074], atol=5e-5)
    assert gain == pytest.approx(0.814802, abs=5e-7)


def test_the_epidemic_under_ranked_attachment():
    assert epidemic("ranked_attachment", 0.3)[2] == pytest.approx(2.374721, abs=5e-7)


def test_the_epidemic_where_all_meet_alike():
    flow, _, gain = epidemic("erdos_renyi", 0.101)
    np.testing.assert_allclose(flow[25, :, 1], 0.146593, atol=5e-7)
    assert gain == pytest.approx(0.799301, abs=5e-7)


@pytest.mark.parametrize(
    ("law", "quality"),
    [
        (lambda x: 1 - np.maximum.outer(x, x), [4.1499, 4.9760, 7.4407]),
        (lambda x: 1 - np.outer(x, x), [2.8064, 3.9586, 4.9873]),
    ],
)
def test_investment_in_nash_equilibrium_at_end_points(law, quality):
    """101 positions that include both ends, as independently solved."""
    ends = np.linspace(0, 1, 101)
    labels = [float(x) for x in ends]
    network = mfg.Network(
        pd.DataFrame(law(ends), labels, labels),
        normalise=None, self_loops=True, isolates=True, labels=labels,
    )  # fmt: skip
    initial = np.zeros((101, 10))
    initial[:, 0] = 1 / 101
    world = investment_graphon.game(positions=2).replace(
        types={"position": labels}, meets=network, initial=initial.ravel()
    )
    solved = mfg.solve_nash(
        world, investment_graphon.reward, parameters=investment_graphon.TRUTH, throw=True
    ).value
    mean = 101 * np.asarray(solved.mean_field)[-1].reshape(101, 10) @ np.arange(10)
    np.testing.assert_allclose(mean[[0, 50, 100]], quality, atol=5e-5)


def test_laws_by_name_are_their_formulas():
    x = (np.arange(4) + 0.5) / 4
    one, other = np.meshgrid(x, x, indexing="ij")
    for law, values, numbers in (
        ("uniform_attachment", 1 - np.maximum(one, other), {}),
        ("ranked_attachment", 1 - one * other, {}),
        ("erdos_renyi", np.full((4, 4), 0.3), {"p": 0.3}),
        ("power_law", 0.6**2 * (one * other) ** -0.4, {"a": 0.4}),
        (lambda x, y: x + y, one + other, {}),
        ([[1.0, 0.0], [0.2, 0.5]], np.kron([[1.0, 0.0], [0.2, 0.5]], np.ones((2, 2))), {}),
    ):
        network = mfg.networks.graphon(law, positions=4, **numbers)
        assert network.labels == tuple(x)
        np.testing.assert_allclose(network.to_scipy().toarray(), values, rtol=1e-14)


@pytest.mark.parametrize(
    ("law", "rank"),
    [("ranked_attachment", 2), ("erdos_renyi", 1), ("power_law", 1), ([[1, 0], [0, 1]], 2)],
)
def test_exposures_of_low_rank_are_found_and_used(law, rank):
    """Linear systems are as large as the rank, and derivatives are those of the whole system."""
    world = beach_graphon.game(positions=12, horizon=5).replace(
        meets=mfg.networks.graphon(law, positions=12)
    )
    assert exposures_of(world, by_cell=False).reads.shape == (rank, 12)
    found = response_map_of(world, beach_graphon.reward, beach_graphon.TRUTH)
    assert found.exposures is not None
    assert found.recorded


def test_positions_tend_to_a_limit():
    """Twice as many positions make a quarter of the error, as the middle of intervals does."""

    def infected(positions):
        world = sis_graphon.game(positions=positions, horizon=20)
        solved = mfg.solve_equilibrium(world, sis_graphon.reward, parameters=sis_graphon.TRUTH)
        return float(solved.value.mean_field[15].reshape(-1, 2)[:, 1].sum())

    values = [infected(n) for n in (5, 10, 20, 40)]
    steps = np.abs(np.diff(values))
    assert (steps[1:] < 0.35 * steps[:-1]).all()


def test_a_drawn_network_has_the_graphons_degrees():
    """Each node sees another with the graphon's weight as probability, both ways."""
    n = 400
    network = mfg.networks.sampled("ranked_attachment", nodes=n, random_seed=1)
    matrix = network.to_scipy()
    assert (matrix != matrix.T).nnz == 0
    assert matrix.diagonal().sum() == 0
    frame = network.to_frame()
    place = np.full(n, np.nan)
    place[frame["from"]] = frame["from_position"]
    expected = (1 - np.outer(place, place)).sum(1) - (1 - place**2)
    deviation = np.sqrt(((1 - np.outer(place, place)) * np.outer(place, place)).sum(1))
    z = (matrix.sum(1) - expected) / deviation
    assert abs(z.mean()) < 5 / np.sqrt(n / 2)
    assert z.std() == pytest.approx(1.0, abs=0.2)
    again = mfg.networks.sampled("ranked_attachment", nodes=n, random_seed=1)
    pd.testing.assert_frame_equal(frame, again.to_frame())


@pytest.mark.parametrize(
    ("call", "error", "what"),
    [
        (lambda: mfg.networks.graphon("power"), ValueError, "did you mean `power_law`"),
        (lambda: mfg.networks.graphon("power_law", a=1.0), ValueError, r"\(0, 1\)"),
        (lambda: mfg.networks.graphon("power_law", p=0.1), TypeError, "takes a="),
        (lambda: mfg.networks.graphon("ranked_attachment", p=0.1), TypeError, "takes no number"),
        (lambda: mfg.networks.graphon(lambda x, y: -x, positions=3), ValueError, "not negative"),
        (lambda: mfg.networks.graphon([[1, 2, 3]]), ValueError, "must be square"),
        (lambda: mfg.networks.sampled(2**70), ValueError, "`law`.*must be square"),
        (lambda: mfg.networks.graphon(np.eye(2), positions=5), ValueError, "multiple of the 2"),
        (lambda: mfg.networks.graphon(lambda x, y: 1.0 if x < y else 0.0), ValueError, "np.where"),
        (lambda: mfg.networks.graphon("erdos_renyi", positions=0), ValueError, "at least 1"),
        (lambda: mfg.networks.sampled("power_law", random_seed=0), ValueError, "above 1"),
    ],
)
def test_wrong_graphons(call, error, what):
    with pytest.raises(error, match=what):
        call()


def branches(met, time):
    """Dynamics that cannot be asked for many crowds at once."""
    caught = float(met[1]) if float(met[1]) > 0 else 0.0
    rows = [[[1 - 0.8 * caught, 0.8 * caught], [1.0, 0.0]], [[0.2, 0.8], [0.2, 0.8]]]
    return torch.tensor(rows, dtype=torch.float64)


def at_once(met, time):
    caught = 0.8 * met[1]
    out = torch.stack([1 - caught, caught])
    other = torch.tensor([[1.0, 0.0], [0.2, 0.8]], dtype=torch.float64)
    return torch.stack([torch.stack([out, other[0]]), other[1].expand(2, 2)])


def test_dynamics_are_asked_for_all_crowds_at_once_or_one_by_one():
    """Where a function can only be called for one crowd it is, with the same result."""
    network = mfg.networks.graphon("uniform_attachment", positions=6)
    options = {
        "types": {"position": network.labels}, "states": ["well", "ill"], "horizon": 5,
        "actions": ["out", "in"], "initial": random_rows(91, 12), "meets": network,
    }  # fmt: skip
    worlds = [mfg.MeanFieldGame(transition=f, **options) for f in (branches, at_once)]
    flow = torch.from_numpy(random_rows(92, 5, 12))
    one, many = (world.transition_along(flow) for world in worlds)
    assert torch.allclose(one, many, atol=ROUNDING)

    def agent(x):
        return -pyro.sample("ill", dist.Normal(0.0, 1.0)) * (x.state == "ill") - (x.action == "in")

    assert response_map_of(worlds[1], agent, {"ill": 1.0}).recorded
    flows = [
        mfg.solve_equilibrium(world, agent, parameters={"ill": 1.0}, throw=True).value.mean_field
        for world in worlds
    ]
    assert torch.allclose(*flows, atol=1e-9)


def test_a_wrong_table_of_one_crowd_of_many_is_named():
    def leaks(met, time):
        return at_once(met, time) * (1 + 0.1 * met[1])

    network = mfg.networks.graphon("uniform_attachment", positions=3)
    with pytest.raises(ValueError, match=r"each row of `transition` must sum to 1.*state='well'"):
        mfg.MeanFieldGame(
            types={"position": network.labels}, states=["well", "ill"], horizon=3,
            actions=["out", "in"], initial=random_rows(93, 6), meets=network, transition=leaks,
        )  # fmt: skip
