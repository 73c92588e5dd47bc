"""What every file of the gallery promises: a question, a source, an equilibrium, a recovery."""

import importlib
import inspect
import pkgutil
import warnings
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

import mfgppl as mfg
import mfgppl.models

NAMES = sorted(name for _, name, _ in pkgutil.iter_modules(mfgppl.models.__path__))
FILES = {name: importlib.import_module(f"mfgppl.models.{name}") for name in NAMES}
WITH_TRUTH = [name for name in NAMES if FILES[name].TRUTH is not None]
CHANGING = [name for name in NAMES if "changed" in inspect.signature(FILES[name].game).parameters]
REFERENCE = {"invest", "malware", "sis", "rock_paper_scissors", "left_right"}
RESIDUAL = 1e-10  # largest change of a share that counts as none
ROUNDING = 1e-10  # sums of a few hundred float64 numbers
N_AGENTS, SEED = 2000, 1
STANDARD_ERRORS = 3.0  # of an estimate
DOCS = Path(__file__).parents[2] / "docs"


def unidentified(name):
    """Return the parameters that a file says no panel can identify."""
    return tuple(getattr(FILES[name], "UNIDENTIFIED", ()))


def drawn(game, world, seed):
    """Return a panel of agents in an equilibrium, of twenty decisions in a stationary game."""
    n_times = 20 if game.stationary else None
    return mfg.simulate(
        game, world.policy, world.mean_field, n_agents=N_AGENTS, random_seed=seed, n_times=n_times
    )


def solve(file, game):
    """Return the equilibrium of a game at the file's true parameters."""
    return mfg.solve_equilibrium(game, file.reward, parameters=file.TRUTH, throw=True)


@pytest.fixture(scope="module")
def solutions():
    """Equilibria by name, each solved once."""
    found = {}

    def solved(name):
        if name not in found:
            found[name] = solve(FILES[name], FILES[name].game())
        return found[name]

    return solved


def test_the_reference_games_are_there_with_their_changed_dynamics():
    """The five reference games are files, and each offers its changed dynamics."""
    assert set(CHANGING) >= REFERENCE


@pytest.mark.parametrize("name", NAMES)
def test_a_file_asks_a_question_and_names_its_source(name):
    """The first line is a question; the last paragraph says where the game or its data are from."""
    paragraphs = inspect.getdoc(FILES[name]).split("\n\n")
    assert paragraphs[0].splitlines()[0].endswith("?")
    assert "Source: " in paragraphs[-1] or (
        FILES[name].TRUTH is None and "Data: " in paragraphs[-1]
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_game_needs_no_arguments(name):
    """`game()` is a mean field game with a start that sums to one."""
    game = FILES[name].game()
    assert isinstance(game, mfg.MeanFieldGame)
    assert float(game.initial.sum()) == pytest.approx(1.0, abs=ROUNDING)


@pytest.mark.parametrize("name", WITH_TRUTH)
def test_the_prior_allows_the_truth(name, solutions):
    """The reward's latent sites are the keys of TRUTH, each with a finite density there."""
    file, game = FILES[name], FILES[name].game()
    inputs = mfg.RewardInputs(game, solutions(name).value.mean_field)
    data = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in file.TRUTH.items()}
    with torch.random.fork_rng(devices=[]):
        trace = pyro.poutine.trace(pyro.poutine.condition(file.reward, data)).get_trace(inputs)
    sites = {k: s for k, s in trace.nodes.items() if s["type"] == "sample"}
    assert set(sites) == set(file.TRUTH)
    for name_of, site in sites.items():
        assert bool(site["fn"].support.check(data[name_of])), name_of
        assert np.isfinite(float(site["fn"].log_prob(data[name_of]))), name_of


@pytest.mark.parametrize("name", WITH_TRUTH)
def test_the_truth_has_an_equilibrium(name, solutions):
    """At temperature 1 the solver reaches its tolerance, on a flow of distributions."""
    assert FILES[name].game().temperature == 1.0
    solution = solutions(name)
    assert solution.converged
    assert solution.residual <= RESIDUAL
    totals = solution.value.mean_field.flatten(1).sum(1)
    np.testing.assert_allclose(totals, 1.0, atol=ROUNDING)


@pytest.mark.parametrize("name", WITH_TRUTH)
def test_the_gain_from_leaving_the_equilibrium_is_below_the_tight_bound(name, solutions):
    """Exploitability is at most `temperature * log A * sum_t discount^t` (Theorem 3, tightened)."""
    file, game = FILES[name], FILES[name].game()
    policy = solutions(name).value.policy
    gain = mfg.equilibrium.exploitability(game, file.reward, policy, parameters=file.TRUTH)
    times = game.discount ** np.arange(game.shape[0])
    total = 1 / (1 - game.discount) if game.stationary else times.sum()
    assert 0 <= gain <= game.temperature * np.log(game.n_actions) * total
    regularised = mfg.equilibrium.regularised_exploitability(
        game, file.reward, policy, parameters=file.TRUTH
    )
    assert regularised <= 1e-6  # what the solver's tolerance leaves


@pytest.mark.parametrize("name", CHANGING)
def test_changed_dynamics_are_others_and_have_an_equilibrium(name, solutions):
    """Along the same flow the tables differ; the changed game is solved too, to another flow."""
    flow = solutions(name).value.mean_field
    usual, changed = FILES[name].game(), FILES[name].game(changed=True)
    spread = torch.full(usual.flow_shape, 1.0 / usual.n_states, dtype=torch.float64)
    tables = [g.transition_along(spread) for g in (usual, changed)]
    assert float((tables[0] - tables[1]).abs().max()) > 0.01
    solution = solve(FILES[name], changed)
    assert solution.residual <= RESIDUAL
    assert float((solution.value.mean_field - flow).abs().max()) > 1e-3


@pytest.mark.parametrize("name", WITH_TRUTH)
def test_a_panel_gives_the_parameters_back(name, solutions):
    """With the flow known, each identified parameter is within three standard errors of the truth;
    each that is not identified is warned of and has no standard error.
    """
    file, game, world = FILES[name], FILES[name].game(), solutions(name).value
    panel = drawn(game, world, SEED)
    model = mfg.TrajectoryModel(game, file.reward, panel, mean_field=world.mean_field)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        point = mfg.mle(model, svi_steps=20, progressbar=False)
    said = [str(w.message) for w in caught if w.category is mfg.exceptions.IdentificationWarning]
    assert point.converged
    assert len(said) == len(unidentified(name)), said
    for parameter, truth in file.TRUTH.items():
        estimate, error = point.params[parameter], point.bse[parameter]
        if parameter in unidentified(name):
            assert not np.isfinite(error)
            assert any(parameter in message for message in said)
        else:
            assert abs(estimate - truth) <= STANDARD_ERRORS * error, (parameter, estimate, error)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_TRUTH)
def test_estimates_are_as_far_off_as_they_say(name, solutions):
    """Over ten panels of another seed each, estimates miss the truth by one standard error on
    average: the root mean square of ten standard normals is in (0.35, 1.9) but once in 1900.
    """
    file, game, world = FILES[name], FILES[name].game(), solutions(name).value
    away = []
    for seed in range(10, 20):
        panel = drawn(game, world, seed)
        model = mfg.TrajectoryModel(game, file.reward, panel, mean_field=world.mean_field)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
            point = mfg.mle(model, init=file.TRUTH, svi_steps=0, progressbar=False)
        known = [k for k in file.TRUTH if k not in unidentified(name)]
        away.append([(point.params[k] - file.TRUTH[k]) / point.bse[k] for k in known])
    size = np.sqrt(np.mean(np.square(away), axis=0))
    assert (size > 0.35).all(), size
    assert (size < 1.9).all(), size


@pytest.mark.parametrize("name", WITH_TRUTH)
def test_the_page_of_the_gallery_shows_the_file(name):
    """The page has a section with the file's own question, and a picture."""
    sections = (DOCS / "results" / "gallery" / "sections.md").read_text()
    assert f"## `{name}`\n\n**{FILES[name].__doc__.splitlines()[0]}**" in sections
    assert (DOCS / "results" / "gallery" / f"{name}.png").exists()
