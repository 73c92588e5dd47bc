"""What is known around an anchor makes searches shorter, and changes nothing that they find."""

import functools

import numpy as np
import pytest
from games import ROADS_TRUTH, avoid_crowds, played, two_roads

import mfgppl as mfg
from mfgppl.density.expansion import continued
from mfgppl.density.of_model import density_of
from mfgppl.equilibrium.response_map import ResponseMap
from mfgppl.models import malware, market, sis, treasure_hunting

SOLVER = 1e-7  # a residual of 1e-11, some hundred nats, and what `(I - F_mu)^-1` makes of it
SECOND_ORDER = 0.05  # of differences over equilibria a hundredth of the crowd apart, relative
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


@functools.cache
def density_at(name):
    game, reward, truth = CASES[name]
    panel = played(game, reward, truth, 60, 1)
    return density_of(mfg.TrajectoryModel(game, reward, panel, mean_field="equilibrium"))


@pytest.fixture
def known_as(monkeypatch):
    """Let a density know something else around its anchor."""

    def put(density, expansion):
        monkeypatch.setattr(density, "anchor", density.anchor._replace(expansion=expansion))
        monkeypatch.setattr(density, "_local", type(density._local)())

    return put


def points(density, n=4, spread=0.3):
    rng = np.random.default_rng(3)
    return density.anchor.theta + spread * rng.standard_normal((n, density.n_dim))


def found_at(density):
    evaluate = density.evaluator()
    return [(value, slope.copy()) for value, slope in map(evaluate, points(density))]


@cases
@pytest.mark.parametrize("other", ["nothing", "another"])
def test_what_is_found_does_not_depend_on_it(name, other, known_as):
    """Value and gradient are the same without it, and with one that is wrong throughout."""
    density = density_at(name)
    with_it, own = found_at(density), density.anchor.expansion
    assert own is not None
    if other == "nothing":
        known_as(density, None)
    else:
        drifts = None if own.drifts is None else -3 * own.drifts
        known_as(density, own._replace(bend=-5 * own.bend, drifts=drifts))
    for (value, slope), (expected, gradient) in zip(with_it, found_at(density), strict=True):
        assert value == pytest.approx(expected, abs=SOLVER)
        np.testing.assert_allclose(slope, gradient, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["market", "sis", "malware"])
def test_searches_are_shorter(name, known_as, monkeypatch):
    """Responses, and sweeps back for their slopes, are fewer at the same points."""
    density, n = density_at(name), {}
    for kind in ("image", "pull"):
        plain = getattr(ResponseMap, kind)

        def counting(self, *given, kind=kind, plain=plain, **named):
            n[kind] = n.get(kind, 0) + 1
            return plain(self, *given, **named)

        monkeypatch.setattr(ResponseMap, kind, counting)
    found_at(density)
    with_it = dict(n)
    known_as(density, None)
    n.clear()
    found_at(density)
    assert with_it["image"] < n["image"]
    assert with_it["pull"] < n["pull"]


@cases
def test_bends_are_those_of_equilibria(name):
    """The second difference of equilibria along a direction, at a fifth of the step."""
    density = density_at(name)
    anchor, search = density.anchor, density._search()
    along = np.random.default_rng(2).standard_normal(len(anchor.values))
    along *= 0.002 / np.abs(np.tensordot(along, anchor.tangent, 1)).max()
    ahead, behind = (search.at(anchor.values + s * along).flow for s in (1.0, -1.0))
    expected = ahead + behind - 2 * anchor.flow
    found = np.tensordot(np.outer(along, along), anchor.expansion.bend, 2)
    np.testing.assert_allclose(found, expected, atol=SECOND_ORDER * np.abs(expected).max())


@pytest.mark.parametrize("name", ["market", "sis", "malware"])
def test_drifts_follow_the_inverse(name):
    """`(I - J)^-1` some way off is met ten times as closely as by that of the anchor."""
    density = density_at(name)
    search = density._search()
    values = density.constrained(density.anchor.theta[None] + 0.05)[0]
    image = search.at(values)
    rows = search.put(values).jacobian(image, density.model.game.temperature)
    right = np.random.default_rng(4).standard_normal(image.flow.size)
    expected = np.linalg.solve(np.eye(right.size) - rows.T, right)
    search._begin(values, density.anchor.expansion)
    near = search._closed(right.reshape(image.flow.shape)).ravel()
    still = search._solved(right, transposed=False)
    assert np.linalg.norm(near - expected) < 0.1 * np.linalg.norm(still - expected)
    transposed = np.linalg.solve(np.eye(right.size) - rows, right)
    near = search._nearly(right.reshape(image.flow.shape)).ravel()
    still = search._solved(right, transposed=True)
    assert np.linalg.norm(near - transposed) < 0.1 * np.linalg.norm(still - transposed)


def test_a_series_ends_where_its_terms_grow():
    """A drift as large as one adds nothing; a small one adds what it must."""
    first = np.array([1.0, -2.0])
    np.testing.assert_array_equal(continued(first, 2 * np.eye(2, dtype=np.float32)), first)
    small = continued(first, np.float32(0.125) * np.eye(2, dtype=np.float32))
    np.testing.assert_allclose(small, first * (1 + 0.125 + 0.125**2))
