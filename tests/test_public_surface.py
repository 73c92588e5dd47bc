"""The public names, what calls leave behind, and the contract of the gallery."""

import functools
import inspect
import pkgutil
import random
import re
import subprocess
import sys
import types
import warnings
from importlib import import_module
from pathlib import Path

import games
import numpy as np
import pyro
import pytest
import torch

import mfgppl as mfg
import mfgppl.models

NAMESPACES = {
    name: getattr(mfg, name)
    for name in mfg.__all__
    if isinstance(getattr(mfg, name), types.ModuleType)
}
PUBLIC = [f"mfgppl.{name}" for name in mfg.__all__ if name not in {*NAMESPACES, "__version__"}]
PUBLIC += [f"mfgppl.{space}.{name}" for space, room in NAMESPACES.items() for name in room.__all__]


def resolved(path):
    """Return what a dotted public name stands for."""
    return functools.reduce(getattr, path.split(".")[1:], mfg)


def test_the_top_level_holds_the_workflow_and_namespaces():
    """There are at most 50 names, each is there, and a shell completes them."""
    assert len(mfg.__all__) <= 50
    assert len(set(mfg.__all__)) == len(mfg.__all__)
    assert set(mfg.__all__) <= set(dir(mfg))


def test_importing_the_package_loads_nothing_heavy():
    """Figures, samplers and torch wait until they are used."""
    code = "import sys, mfgppl; dir(mfgppl); print(*sorted(set(sys.modules) & {HEAVY}))"
    heavy = "{'torch', 'matplotlib', 'numba', 'pandas', 'xarray', 'nutpie'}"
    found = subprocess.run(
        [sys.executable, "-c", code.replace("{HEAVY}", heavy)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.split() == []


@pytest.mark.parametrize("name", NAMESPACES)
def test_a_namespace_lists_its_public_names(name):
    """Its `__all__` is sorted, and what it lists is there."""
    room = NAMESPACES[name]
    assert list(room.__all__) == sorted(room.__all__)
    assert all(hasattr(room, each) for each in room.__all__)


def test_a_name_is_public_in_one_place():
    """No function or record is offered twice."""
    seen = [id(resolved(path)) for path in PUBLIC]
    assert len(set(seen)) == len(seen)


def test_no_public_name_is_also_a_module():
    """`import mfgppl.report...` finds a package or nothing, never a function."""
    files = {p.stem for p in Path(mfg.__file__).parent.iterdir() if not p.name.startswith("_")}
    assert not files & (set(mfg.__all__) - set(NAMESPACES))
    for room in NAMESPACES.values():
        folder = Path(room.__file__)
        if folder.name == "__init__.py":
            assert not {p.stem for p in folder.parent.glob("*.py")} & set(room.__all__)


def test_the_reference_lists_every_public_name_once():
    """Under the name by which it is imported."""
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text()
    found = re.findall(r"auto(?:function|class|exception):: (mfgppl[\w.]+)", page)
    assert sorted(found) == sorted(p for p in PUBLIC if not p.startswith("mfgppl.datasets"))


@pytest.mark.parametrize("path", PUBLIC)
def test_every_public_name_is_documented(path):
    """Each public name has a docstring that begins with a sentence."""
    if not path.endswith("PANELS"):
        assert (inspect.getdoc(resolved(path)) or "").split("\n")[0].endswith(".")


# what each idea is called elsewhere in the field, and never here
OTHER_WORDS = {
    "level": "ci_prob",
    "hdi_prob": "ci_prob",
    "flow": "mean_field",
    "world": "mean_field",
    "seed": "random_seed",
    "n_chains": "chains",
}


def signatures():
    """Yield each public function and method with its parameters; nobody but us makes results."""
    for path in PUBLIC:
        found = resolved(path)
        members = vars(found).items() if inspect.isclass(found) else [("", found)]
        for name, member in members:
            made_by_users = name == "__init__" and not path.startswith("mfgppl.results")
            if inspect.isfunction(member) and (made_by_users or not name.startswith("_")):
                yield f"{path}.{name}".rstrip("."), inspect.signature(member).parameters


def test_one_idea_has_one_word():
    """No public function calls an interval's mass, the flow's treatment or a seed otherwise."""
    odd = [
        f"{path}({name})" for path, known in signatures() for name in known if name in OTHER_WORDS
    ]
    assert odd == []


def test_a_seed_is_optional_everywhere():
    """It is 0 or fresh where none is given."""
    seeds = {
        path: known["random_seed"].default for path, known in signatures() if "random_seed" in known
    }
    assert len(seeds) > 25
    assert {path: seed for path, seed in seeds.items() if seed not in (0, None)} == {}


def test_chains_run_on_cores_and_tasks_on_jobs():
    """Only the sampler of chains has `cores`, and it has no `n_jobs`."""
    of = {word: {p for p, known in signatures() if word in known} for word in ("cores", "n_jobs")}
    assert of["cores"] == {p for p, known in signatures() if "chains" in known} == {"mfgppl.nuts"}
    assert not of["cores"] & of["n_jobs"]


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
def test_no_call_changes_global_state(call, roads_model, monkeypatch):
    """Generators, default type, threads, validation and Pyro's parameters are as before; those of
    graphics cards are not seeded.
    """

    def seeded(seed):
        pytest.fail("the generators of graphics cards are the caller's")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
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
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
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
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
            pyro.set_rng_seed(seed)  # of torch, NumPy and Python
            fit = call(roads_model)
        known = (
            fit.params
            if isinstance(fit, mfg.results.PointEstimate)
            else fit["posterior"]["crowding"]
        )
        found.append(known.to_numpy())
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002
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
    assert set(gallery_model.COLUMNS) - {"types"} == {"agent", "time", "state", "action"}
    assert isinstance(gallery_model.game(), mfg.MeanFieldGame)
    assert callable(gallery_model.reward)
    assert callable(gallery_model.model)
    assert gallery_model.TRUTH is None or isinstance(gallery_model.TRUTH, dict)


def test_a_gallery_files_columns_read_its_table(gallery_model, gallery_panel):
    """A table with the columns that the file names gives the same counts as its panel."""
    names = gallery_model.COLUMNS
    wanted = [names["state"]] if isinstance(names["state"], str) else list(names["state"])
    frame = games.as_frame(gallery_panel)
    space = gallery_panel.space
    coordinates = list(space.within.coordinates)
    renamed = dict(zip(coordinates, wanted, strict=True))
    renamed |= {k: names[k] for k in ("agent", "time", "action")}
    labels = dict(zip(wanted, space.within.coordinates.values(), strict=True))
    again = mfg.Trajectories.from_frame(
        frame.rename(columns=renamed),
        **names,
        state_labels=labels,
        type_labels=space.cells.coordinates,
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


def test_a_name_of_a_namespace_is_found_from_the_top():
    """Whoever asks at the top is sent there, with a warning; what is nowhere is an error."""
    with pytest.warns(DeprecationWarning, match=r"it is mfgppl\.hypotheses\.wald_test\."):
        assert mfg.wald_test is mfg.hypotheses.wald_test
    with pytest.raises(AttributeError, match="no attribute 'wald'"):
        _ = mfg.wald
