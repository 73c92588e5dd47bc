"""Names of sites beside names of results: no draw is lost, and what no file can hold is refused."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import ROADS_TRUTH, avoid_crowds, played, two_roads

import mfgppl as mfg
from mfgppl.data.space import StateSpace, state_labels, text_labels
from mfgppl.posterior.groups import labelled_groups

MET = [
    ("mean_field", "visits"), ("initial", "available"), ("action_counts", "share_by_time"),
    ("model", "a.b"), ("a..b", "plates"), ("agent", "forward"),
]  # fmt: skip


def model_of(reward):
    game = two_roads()
    return mfg.TrajectoryModel(game, reward, played(game, avoid_crowds, ROADS_TRUTH, 60, 1))


def of_two(first, second, shape=()):
    """Return a reward with two sites of given names, the first one of a shape."""

    def reward(x):
        prior = dist.Normal(torch.zeros(shape), 1.0)
        turn = pyro.sample(first, prior.to_event(len(shape))).sum()
        stay = pyro.sample(second, dist.Normal(0.0, 1.0))
        return turn * (x.action == "turn") + stay * x.density

    return reward


def drawn(reward):
    return mfg.laplace(model_of(reward), draws=50, random_seed=1, progressbar=False)


@pytest.fixture(scope="module")
def plainly_named():
    """Draws of two sites that meet no name."""
    return drawn(of_two("w", "v"))["posterior"]


@pytest.mark.parametrize("names", MET, ids=str)
@pytest.mark.filterwarnings("ignore::mfgppl.exceptions.ConvergenceWarning")
def test_a_site_called_as_something_else_keeps_its_draws(names, plainly_named, tmp_path):
    found = drawn(of_two(*names))
    for name, plain in zip(names, "wv", strict=True):
        assert found["posterior"][name].dims == ("chain", "draw")
        np.testing.assert_allclose(found["posterior"][name], plainly_named[plain], rtol=1e-6)
    mfg.save(found, tmp_path / "fit.nc")
    assert mfg.load(tmp_path / "fit.nc")["posterior"].equals(found["posterior"])


@pytest.mark.parametrize("names", [("a", "a.b"), ("model", "plates"), ("forward", "..b")])
def test_the_estimate_does_not_depend_on_what_sites_are_called(names):
    one, other = (
        mfg.mle(model_of(of_two(*pair)), progressbar=False) for pair in (("w", "v"), names)
    )
    assert list(other.params.index) == list(names)
    np.testing.assert_allclose(other.params, one.params, rtol=1e-5)


@pytest.mark.parametrize("name", ["a_dim_0", "a_dim_0_"])
@pytest.mark.filterwarnings("ignore::mfgppl.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::mfgppl.exceptions.IdentificationWarning")
def test_a_scalar_called_as_a_dimension_of_a_vector_is_in_the_posterior(name):
    posterior = drawn(of_two("a", name, (3,)))["posterior"]
    assert set(posterior.data_vars) == {"a", name}
    assert posterior[name].dims == ("chain", "draw")
    assert posterior["a"].sizes == {"chain": 1, "draw": 50, posterior["a"].dims[-1]: 3}


def test_dimensions_meet_no_other_array_of_their_group():
    shapes = {"a": (3,), "a_dim_0": (2,), "a_dim_0_": (), "a_dim_0_dim_0": ()}
    values = {k: np.random.default_rng(1).normal(size=(2, 5, *v)) for k, v in shapes.items()}
    posterior = labelled_groups({"posterior": values})["posterior"]
    assert set(posterior.data_vars) == set(shapes)
    assert posterior["a"].dims[2] != posterior["a_dim_0"].dims[2]
    for name, array in values.items():
        np.testing.assert_array_equal(posterior[name], array)


@pytest.mark.parametrize("name", ["a/b", ".", "..", "", "a\0", "x" * 201, ".zarray", "\ud800"])
def test_what_no_file_can_hold_is_refused_when_the_model_is_made(name):
    with pytest.raises(ValueError, match="cannot be called"):
        model_of(of_two("w", name))


@pytest.mark.parametrize("name", ["chain", "draw", "column"])
def test_dimensions_of_results_are_refused(name):
    with pytest.raises(ValueError, match=f"cannot be called '{name}'"):
        model_of(of_two("w", name))


def test_an_entry_of_another_site_is_refused():
    with pytest.raises(ValueError, match="entry of the site 'a'"):
        model_of(of_two("a", "a[1]", (3,)))
    assert model_of(of_two("a", "a[3]", (3,))).parameters == ["a", "a[3]"]


def test_recorded_values_are_refused_likewise():
    def reward(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        return pyro.deterministic("w/2", w / 2) * x.density

    with pytest.raises(ValueError, match="'w/2'"):
        model_of(reward)


def test_labels_of_results_differ_where_their_texts_would_meet():
    assert text_labels([1, "2"]) == ["1", "2"]
    assert text_labels([1, "1"]) == ["1", "'1'"]
    space = StateSpace.from_labels({"x": ["a, b", "a"], "y": ["c", "b, c"]})
    assert state_labels(space) == ["'a, b', 'c'", "'a, b', 'b, c'", "'a', 'c'", "'a', 'b, c'"]
    plain = StateSpace.from_labels({"x": [0, 1], "y": ["low", "high"]})
    assert state_labels(plain) == ["0, low", "0, high", "1, low", "1, high"]
