"""The public names, what calls leave behind, and the contract of the gallery."""

import inspect
import pkgutil
import random
import types
import warnings
from importlib import import_module

import games
import numpy as np
import pyro
import pytest
import torch

import mfgppl as mfg
import mfgppl.models


def test_all_is_sorted_and_equals_what_is_visible():
    """`__all__` lists every public name, the version, and two namespaces; rooms are not public."""
    visible = {
        name
        for name, value in vars(mfg).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert list(mfg.__all__) == sorted(mfg.__all__)
    assert set(mfg.__all__) == visible | {"__version__", "baselines", "datasets"}


def test_the_baselines_are_a_namespace_of_their_own():
    """Its `__all__` is sorted and complete, and each name is documented."""
    room = mfg.baselines
    visible = {
        name
        for name, value in vars(room).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert list(room.__all__) == sorted(visible)
    for name in room.__all__:
        assert (inspect.getdoc(getattr(room, name)) or "").split("\n")[0].endswith(".")


@pytest.mark.parametrize("name", [n for n in mfg.__all__ if not n.startswith("__")])
def test_every_public_name_is_documented(name):
    """Each public name has a docstring that begins with a sentence."""
    first = (inspect.getdoc(getattr(mfg, name)) or "").split("\n")[0]
    assert first.endswith(".")


def fit_mle(model):
    return mfg.mle(model, svi_steps=10)


def fit_map(model):
    return mfg.map_estimate(model, svi_steps=10)


def sample_by_nutpie(model):
    return mfg.nuts(model, draws=10, tune=20, chains=2, cores=1, random_seed=1)


def sample_in_processes(model):
    return mfg.nuts(model, draws=10, tune=20, chains=2, cores=2, random_seed=1)


def sample_by_pyro(model):
    return mfg.nuts(model, draws=5, tune=10, chains=1, cores=1, random_seed=1, sampler="pyro")


def sample_with_a_fresh_seed(model):
    return mfg.nuts(model, draws=10, tune=20, chains=1, cores=1)


def simulate(model):
    return games.played(games.two_roads(), games.avoid_crowds, games.ROADS_TRUTH, 10, 1)


def build(model):
    return mfg.TrajectoryModel(model.game, model.reward, model.panel)


@pytest.mark.parametrize(
    "call",
    [
        fit_mle,
        fit_map,
        sample_by_nutpie,
        sample_in_processes,
        sample_by_pyro,
        sample_with_a_fresh_seed,
        simulate,
        build,
    ],
)
def test_no_call_changes_global_state(call, roads_model):
    """Generators, default type, threads, validation and Pyro's parameters are as before."""
    pyro.clear_param_store()
    pyro.param("mine", torch.tensor(3.0))
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002
    settings = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        pyro.settings.get(),
        np.geterr(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.ConvergenceWarning)
        call(roads_model)
    after = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002
    assert after[0] == states[0]
    assert all(np.array_equal(a, b) for a, b in zip(after[1], states[1], strict=True))
    assert torch.equal(after[2], states[2])
    assert settings == (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        pyro.settings.get(),
        np.geterr(),
    )
    assert {k: v.item() for k, v in pyro.get_param_store().items()} == {"mine": 3.0}
    pyro.clear_param_store()


@pytest.mark.parametrize("call", [fit_mle, sample_by_nutpie, sample_by_pyro])
def test_global_seeds_do_not_change_a_fit(call, roads_model):
    """A fit with a seed of its own gives the same numbers under any global seed."""
    found = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", mfg.ConvergenceWarning)
            torch.manual_seed(seed)
            fit = call(roads_model)
        known = fit.params if isinstance(fit, mfg.PointEstimate) else fit["posterior"]["crowding"]
        found.append(known.to_numpy())
    np.testing.assert_array_equal(found[0], found[1])


GALLERY = [name for _, name, _ in pkgutil.iter_modules(mfgppl.models.__path__)]


def test_the_gallery_is_not_empty():
    """The contract below is asserted of something."""
    assert "pricing" in GALLERY


@pytest.fixture(scope="module", params=GALLERY)
def gallery_model(request):
    """A file of the gallery."""
    return import_module(f"mfgppl.models.{request.param}")


@pytest.fixture(scope="module")
def gallery_panel(gallery_model):
    """The panel of a file: its own, or one played in the equilibrium at its true parameters."""
    if gallery_model.TRUTH is None:
        return gallery_model.panel()
    game, truth = gallery_model.game(), gallery_model.TRUTH
    return games.played(game, gallery_model.reward, truth, 100, 1)


def test_a_gallery_file_keeps_its_promises(gallery_model):
    """Each file has a docstring with its source, COLUMNS, TRUTH, `game`, `reward` and `model`."""
    first = gallery_model.__doc__.split("\n")[0]
    assert len(first) > 10
    assert set(gallery_model.COLUMNS) == {"agent", "time", "state", "action"}
    assert isinstance(gallery_model.game(), mfg.MeanFieldGame)
    assert callable(gallery_model.reward)
    assert callable(gallery_model.model)
    assert gallery_model.TRUTH is None or isinstance(gallery_model.TRUTH, dict)


def test_a_gallery_files_columns_read_its_table(gallery_model, gallery_panel):
    """A table with the columns that the file names gives the same counts as its panel."""
    names = gallery_model.COLUMNS
    wanted = [names["state"]] if isinstance(names["state"], str) else list(names["state"])
    frame = games.as_frame(gallery_panel)
    coordinates = list(gallery_panel.space.coordinates)
    renamed = dict(zip(coordinates, wanted, strict=True))
    renamed |= {k: names[k] for k in ("agent", "time", "action")}
    labels = dict(zip(wanted, gallery_panel.space.coordinates.values(), strict=True))
    again = mfg.Trajectories.from_frame(
        frame.rename(columns=renamed),
        **names,
        state_labels=labels,
        action_labels=gallery_panel.actions,
    )
    np.testing.assert_array_equal(again.counts.actions, gallery_panel.counts.actions)


def test_a_gallery_files_model_has_a_finite_density(gallery_model, gallery_panel):
    """At the true parameters, or at a draw from the prior, the log density is finite."""
    model = gallery_model.model(gallery_panel)
    assert isinstance(model, mfg.TrajectoryModel)
    truth = gallery_model.TRUTH or {}
    data = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in truth.items()}
    conditioned = pyro.condition(model, data=data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        trace = pyro.poutine.trace(conditioned).get_trace()
    assert np.isfinite(float(trace.log_prob_sum()))


def test_a_gallery_files_truth_names_its_parameters(gallery_model, gallery_panel):
    """The true parameters are those of the reward, no more and no fewer."""
    if gallery_model.TRUTH is not None:
        model = gallery_model.model(gallery_panel)
        assert set(gallery_model.TRUTH) == set(model.parameters)
