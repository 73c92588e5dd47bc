"""Policies along other flows and in other worlds: the fitted agents', by solving again."""

import numpy as np
import pytest
from games import ROADS_TRUTH, avoid_crowds, played, two_roads

import mfgppl as mfg


@pytest.fixture(scope="module")
def roads():
    """Drivers on two roads, and their model."""
    game = two_roads()
    return mfg.TrajectoryModel(game, avoid_crowds, played(game, avoid_crowds, ROADS_TRUTH, 60, 1))


def three_roads():
    """A world with a further road, to which those on the right turn."""
    transition = np.zeros((3, 2, 3))
    for road in range(3):
        transition[road, 0, road] = transition[road, 1, (road + 1) % 3] = 1.0
    return mfg.MeanFieldGame(
        states={"road": ["left", "right", "far"]}, actions=["stay", "turn"], horizon=4,
        transition=transition, initial=[0.6, 0.4, 0.0],
    )  # fmt: skip


def test_along_another_flow_it_is_that_of_the_model_along_it(roads):
    """The same table as of the model of the flow, and as of the model where the flow is its own."""
    other = np.full((4, 2), 0.5)
    expected = mfg.policy(roads.along(other), ROADS_TRUTH)
    np.testing.assert_allclose(
        mfg.policy(roads, ROADS_TRUTH, mean_field=other), expected, rtol=1e-10
    )
    own = mfg.policy(roads, ROADS_TRUTH, mean_field=roads.mean_field)
    np.testing.assert_allclose(own, mfg.policy(roads, ROADS_TRUTH), rtol=1e-10)


def test_in_a_world_of_more_states_it_is_the_equilibriums(roads):
    """Along the flow of the equilibrium there, agents play its policy."""
    world = three_roads()
    found = mfg.solve_equilibrium(world, avoid_crowds, parameters=ROADS_TRUTH, throw=True).value
    shares = mfg.policy(roads, ROADS_TRUTH, game=world, mean_field=found.mean_field)
    assert list(shares["state"].values) == ["left", "right", "far"]
    np.testing.assert_allclose(shares, found.policy, atol=1e-8)


def test_what_is_refused(roads):
    """A world without its flow, and a flow of another shape."""
    with pytest.raises(ValueError, match="`game` needs the flow that agents face there"):
        mfg.policy(roads, ROADS_TRUTH, game=three_roads())
    with pytest.raises(ValueError, match="`mean_field`"):
        mfg.policy(roads, ROADS_TRUTH, mean_field=np.full((4, 3), 1 / 3))
    with pytest.raises(TypeError, match="`game` must be"):
        mfg.policy(roads, ROADS_TRUTH, game="roads", mean_field=np.full((4, 2), 0.5))
