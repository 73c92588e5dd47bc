"""Taxes by the labels of a product space."""

import numpy as np
import pytest

import mfgppl as mfg
from mfgppl.reward.inputs import RewardInputs


def stalls():
    """Return inputs of a game of two places times two sizes."""
    game = mfg.MeanFieldGame(
        states={"place": ["north", "south"], "size": [1, 2]}, actions=["stay", "go"], horizon=2,
        initial=np.ones(4) / 4, transition=np.full((4, 2, 4), 0.25),
    )  # fmt: skip
    return RewardInputs(game, game.initial.expand(2, 4))


@pytest.mark.parametrize("label", [("south", 1), "south, 1"])
def test_states_of_a_product_space_are_taxed_by_tuple_or_by_name(label):
    """Both name the third of four states, and no other pays."""
    x = stalls()
    after = mfg.taxed(lambda x: 2.0 + 0.0 * x.density, {label: 0.5})(x)
    np.testing.assert_allclose(after[0, :, 0], [2.0, 2.0, 1.5, 2.0])


def test_a_state_named_twice_or_never_is_refused():
    x = stalls()
    with pytest.raises(ValueError, match=r"'south', 1.* twice"):
        mfg.taxed(lambda x: x.density, {("south", 1): 0.5, "south, 1": 0.5})(x)
    with pytest.raises(ValueError, match=r"names the state .'south', 3"):
        mfg.taxed(lambda x: x.density, {("south", 3): 0.5})(x)
