"""What is said of fits of kinds that the panel does not show apart."""

import numpy as np
import pytest
from kinds_world import model_of, panel

from mfgppl.density.of_model import density_of
from mfgppl.estimation.twin_kinds import messages_of_kinds

FIRMS = panel(0, n=100)


@pytest.fixture(scope="module")
def density():
    return density_of(model_of(2, FIRMS))


def said(density, *, saddle=False, **given):
    values = {"margin": 0.3, "crowding": 2.0, "share": [0.6, 0.4], "menu": [0.4, 2.0]} | given
    flat = np.concatenate([np.ravel(values[s.name]) for s in density.program.sites])
    return messages_of_kinds(density, flat, saddle=saddle)


def test_nothing_is_said_of_two_kinds(density):
    assert said(density) == ()


def test_twins_are_named(density):
    """Kinds of one cost do the same; at a saddle the message names the way out."""
    (message,) = said(density, menu=[1.0, 1.0])
    assert message.startswith("kinds 0 and 1 of 'kind' do the same: the panel shows one kind fewer")
    (message,) = said(density, menu=[1.0, 1.0], saddle=True)
    assert "symmetric saddle" in message
    assert "restarts=10" in message
    assert said(density, menu=[1.0, 1.001]) == ()


def test_an_empty_kind_is_named(density):
    """One of which less than half an agent is expected, and its choices are not compared."""
    (message,) = said(density, share=[1 - 1e-6, 1e-6])
    assert message == (
        "kind 1 of 'kind' is empty: no agent is expected to be of it; fit fewer kinds"
    )
    assert said(density, share=[1e-6, 1 - 1e-6])[0].startswith("kind 0 of 'kind' is empty")
    assert said(density, share=[1 - 1e-6, 1e-6], menu=[1.0, 1.0]) == (message,)
