"""What is known at an anchor makes searches shorter, and changes nothing that they find."""

import functools

import numpy as np
import pytest
from games import ROADS_TRUTH, avoid_crowds, played, two_roads

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.equilibrium.response_map import ResponseMap
from mfgppl.models import malware, market, sis, treasure_hunting

SOLVER = 1e-7  # a residual of 1e-11, some hundred nats, and what `(I - F_mu)^-1` makes of it
CASES = {
    "two roads": (two_roads(), avoid_crowds, ROADS_TRUTH),
    "market": (market.game().replace(horizon=8, features={}), market.reward, market.TRUTH),
    "sis": (sis.game().replace(horizon=12), sis.reward, sis.TRUTH),
    "malware": (malware.game().replace(horizon=6), malware.reward, malware.TRUTH),
    "joint": (
        treasure_hunting.game().replace(horizon=4), treasure_hunting.reward, treasure_hunting.TRUTH,
    ),
}  # fmt: skip
cases = pytest.mark.parametrize("name", CASES)


class Wrong:
    """A system that closes nothing."""

    def closed(self, gap):
        return -3.0 * gap

    weighed = start = closed


@functools.cache
def density_at(name):
    game, reward, truth = CASES[name]
    panel = played(game, reward, truth, 60, 1)
    return density_of(mfg.TrajectoryModel(game, reward, panel, mean_field="equilibrium"))


def found_at(density, n=4, spread=0.3):
    rng = np.random.default_rng(3)
    points = density.anchor.theta + spread * rng.standard_normal((n, density.n_dim))
    evaluate = density.evaluator()
    return [(value, slope.copy()) for value, slope in map(evaluate, points)]


@cases
@pytest.mark.parametrize("other", ["nothing", "a wrong system", "a wrong tangent"])
def test_what_is_found_does_not_depend_on_it(name, other, monkeypatch):
    """Value and gradient are the same without what is known, and with what is wrong."""
    density = density_at(name)
    with_it, anchor = found_at(density), density.anchor
    change = {
        "nothing": {"system": None, "tangent": 0.0 * anchor.tangent},
        "a wrong system": {"system": Wrong()},
        "a wrong tangent": {"tangent": -2.0 * anchor.tangent},
    }[other]
    monkeypatch.setattr(density, "anchor", anchor._replace(**change))
    monkeypatch.setattr(density, "_local", type(density._local)())
    for (value, slope), (expected, gradient) in zip(with_it, found_at(density), strict=True):
        assert value == pytest.approx(expected, abs=SOLVER)
        np.testing.assert_allclose(slope, gradient, rtol=1e-6, atol=1e-5)


@pytest.fixture
def counted(monkeypatch):
    """Count responses, and sweeps back for their slopes."""
    n = {"image": 0, "pull": 0}
    for kind in n:
        plain = getattr(ResponseMap, kind)

        def counting(self, *given, kind=kind, plain=plain, **named):
            n[kind] += 1
            return plain(self, *given, **named)

        monkeypatch.setattr(ResponseMap, kind, counting)
    return n


@pytest.mark.parametrize("name", ["market", "sis", "malware"])
def test_at_the_anchor_one_response_is_enough(name, counted):
    """Its slope takes two sweeps back: the panel's own, and that of the flow's worth."""
    density = density_at(name)
    evaluate = density.evaluator()
    counted.update(image=0, pull=0)
    evaluate(density.anchor.theta)
    assert counted == {"image": 1, "pull": 2}


@pytest.mark.parametrize("name", ["market", "sis", "malware"])
def test_searches_are_newtons(name, counted):
    """Digits double: residuals fall from a hundredth below 1e-13 within six steps."""
    density = density_at(name)
    evaluate = density.evaluator()
    rng = np.random.default_rng(5)
    for _ in range(5):
        counted.update(image=0, pull=0)
        evaluate(density.anchor.theta + 0.3 * rng.standard_normal(density.n_dim))
        assert counted["image"] <= 7
        assert counted["pull"] <= 4
