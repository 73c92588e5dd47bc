"""Directions that the data do not identify are named with draws, and no others."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.posterior.unidentified import contracted, tied, unidentified_messages

STANDARD = dist.Normal(0.0, 1.0)


def one_step_table(takes=30, of=100):
    """Return the rows of agents in one state who decide once, `takes` of `of` for "a"."""
    rows = [(k, t, "only", "a" if k < takes else "b") for k in range(of) for t in (0, 1)]
    return pd.DataFrame(rows, columns=["agent", "time", "state", "action"])


GAME = mfg.MeanFieldGame(
    states=["only"], actions=["a", "b"], horizon=2, transition=np.ones((1, 2, 1)), initial=[1.0]
)
PANEL = mfg.Trajectories.from_frame(one_step_table(), action_labels=["a", "b"])


def collinear(x):
    """Two weights of one feature and its double: the data know `a + 2 b`."""
    a, b = (pyro.sample(k, STANDARD) for k in "ab")
    return (a + 2 * b) * (x.action == "a")


def positive(x):
    """The same of positive weights: the data know `a - 2 b`."""
    a, b = (pyro.sample(k, dist.LogNormal(0.0, 1.0)) for k in "ab")
    return (a - 2 * b) * (x.action == "a")


def single(x):
    return pyro.sample("w", STANDARD) * (x.action == "a")


def hierarchical(x):
    """No likelihood reads `mean`, which the prior ties to `w`."""
    mean = pyro.sample("mean", STANDARD)
    return pyro.sample("w", dist.Normal(mean, 0.3)) * (x.action == "a")


def scattered(x):
    """The same in two parts, whose sum the data know: which parts are flat depends on `scale`."""
    mean, part = (pyro.sample(k, STANDARD) for k in ("mean", "part"))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    return (mean + scale * part) * (x.action == "a")


def not_centred(x):
    """A weight for each time, of one law whose mean and spread are inferred with deviations."""
    mean = pyro.sample("mean", STANDARD)
    spread = pyro.sample("spread", dist.LogNormal(0.0, 0.5))
    lean = pyro.sample("lean", STANDARD.expand([2]).to_event(1))
    return (mean + spread * lean[x.time.long()]) * (x.action == "a")


def squared(x):
    return -(pyro.sample("w", STANDARD) ** 2) * (x.action == "a")


def drawn(reward, method, panel=PANEL):
    """Return draws and the messages of the warnings on what is not identified."""
    options = {
        "nuts": {"draws": 150, "tune": 150, "chains": 2, "cores": 1, "progressbar": False},
        "laplace": {"draws": 300, "progressbar": False},
        "vi": {"draws": 300, "max_steps": 500},
    }
    model = mfg.TrajectoryModel(GAME, reward, panel)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = getattr(mfg, method)(model, random_seed=1, **options[method])
    kind = mfg.exceptions.IdentificationWarning
    return tree, [str(w.message) for w in caught if w.category is kind]


@pytest.mark.parametrize("method", ["nuts", "laplace", "vi"])
def test_a_collinear_pair_is_named_with_its_weights(method):
    """Each weight contracts, their difference does not: the warning and the record name it."""
    tree, warned = drawn(collinear, method)
    said = ["the data do not identify a - 0.5 b; its posterior is its prior"]
    assert warned == said
    assert [m for m in tree.attrs["warnings"] if "identify" in m] == said


@pytest.mark.parametrize("reward", [single, hierarchical, scattered])
@pytest.mark.parametrize("method", ["nuts", "laplace"])
def test_what_data_or_hierarchy_identify_is_not_named(method, reward):
    """Neither a weight of its own feature nor what a prior is made of, in one part or in two."""
    tree, warned = drawn(reward, method)
    assert not warned
    assert not any("identify" in m for m in tree.attrs["warnings"])


@pytest.mark.parametrize("kept", [True, False])
def test_positive_weights_are_named_away_from_a_maximum(kept):
    """At a = 2 and b = 1 the likelihood slopes, and `a + b / 2` is flat, rows kept or not."""
    panel = PANEL if kept else mfg.CountedPanel.from_frame(one_step_table())
    density = density_of(mfg.TrajectoryModel(GAME, positive, panel))
    prior = np.stack([density.program.draw(seed) for seed in range(400)])
    # spread along (1, 1), where the ratio of the weights stays, with the variance of the prior
    theta = np.log([2.0, 1.0]) + (prior.mean(1) - prior.mean())[:, None]
    (message,) = unidentified_messages(density, theta.reshape(2, 200, 2))
    assert message.startswith("the data do not identify a + 0.5 b;")


def test_a_point_of_symmetry_is_not_a_flat_direction():
    """A square has no slope at zero, the mean of draws on both sides, and one everywhere else."""
    density = density_of(mfg.TrajectoryModel(GAME, squared, PANEL))
    sides = np.tile([-1.0, 1.0], 200).reshape(2, 200, 1)
    assert unidentified_messages(density, sides) == []


def test_a_hierarchy_written_by_deviations_is_no_ridge():
    """Draws may leave deviations their prior, which is what the user declared."""
    rows = [
        (k, t, "only", "a" if (k < 30, k % 10 < 3)[t] else "b") for k in range(100) for t in (0, 1)
    ]
    table = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    density = density_of(mfg.TrajectoryModel(GAME, not_centred, mfg.Trajectories.from_frame(table)))
    rng = np.random.default_rng(0)
    lean, log_spread = rng.standard_normal((4000, 2)), rng.normal(-0.3, 0.3, 4000)
    lean += np.array([0.5, -0.5])
    mean = rng.normal(-0.85, 0.2, 4000) - np.exp(log_spread) * lean.mean(1)
    draws = np.column_stack([mean, log_spread, lean]).reshape(4, 1000, 4)
    assert unidentified_messages(density, draws) == []


def test_contraction_is_that_of_the_part_which_data_leave_alone():
    """Priors of sizes 1 and 10: data on a + b leave `a - b / 100` as it was, not a + b, nor b."""
    rng = np.random.default_rng(1)
    scales = np.array([1.0, 10.0])
    prior = scales * rng.standard_normal((4000, 2))
    precision = np.diag(scales**-2) + 1e4 * np.ones((2, 2))
    draws = rng.multivariate_normal([0.0, 0.0], np.linalg.inv(precision), size=(4, 1000))
    directions = np.array([[1.0, -1.0], [1.0, 100.0], [0.0, 1.0]])
    assert contracted(directions, draws, prior).tolist() == [False, True, True]


def test_what_a_prior_ties_to_known_parameters_is_tied_through_others():
    """In a chain 0 - 1 - 2 of which 2 is known, 0 is tied; a pair 3 - 4 without others is not."""
    bend = -np.eye(5)
    for j, k in ((0, 1), (1, 2), (3, 4)):
        bend[j, k] = bend[k, j] = 0.3
    flat = np.eye(5)[[0, 1, 3, 4]]
    assert tied(bend, flat).tolist() == [True, True, False, False]
