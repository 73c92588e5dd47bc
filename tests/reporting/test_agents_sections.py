"""Sections on what agents share and what they leave on the table: words and numbers agree."""

import json
import types

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import mfgppl as mfg
from mfgppl.reporting.agents_sections import away, shared_shocks

LEVELS, MONTHS = 4, 8
pytestmark = pytest.mark.usefixtures("blank_figures")


def game():
    moves = np.zeros((LEVELS, 3, LEVELS))
    for level in range(LEVELS):
        for k, step in enumerate((-1, 0, 1)):
            moves[level, k, min(max(level + step, 0), LEVELS - 1)] += 0.8
            moves[level, k, level] += 0.2
    return mfg.MeanFieldGame(
        states={"price": range(LEVELS)}, actions=["lower", "hold", "raise"], horizon=MONTHS,
        transition=moves, initial=np.ones(LEVELS) / LEVELS,
    )  # fmt: skip


def alone(x):
    worth, cost = (pyro.sample(name, dist.Normal(0.0, 3.0)) for name in ("worth", "cost"))
    return worth * x.price - cost * (x.action != "hold")


def crowded(x):
    return alone(x) - pyro.sample("crowding", dist.Normal(0.0, 3.0)) * x.density


@pytest.fixture(scope="module")
def panel():
    """Firms whom shocks meet and who look at nobody."""
    drawn = np.random.default_rng(3).normal(0.0, 0.6, (MONTHS, 2))
    shock = torch.from_numpy(np.insert(drawn - drawn.mean(0), 1, 0.0, axis=1))[:, None, :]

    def shaken(x):
        return mfg.Preferences(0.1 * x.price - 0.5 * (x.action != "hold"), shock=shock)

    found = mfg.solve_equilibrium(game(), shaken, throw=True).value
    return mfg.simulate(game(), found.policy, found.mean_field, n_agents=400, random_seed=1)


@pytest.fixture(scope="module")
def models(panel):
    return [mfg.TrajectoryModel(game(), program, panel) for program in (crowded, alone)]


@pytest.fixture(scope="module")
def fit(models):
    return mfg.mle(models[0], svi_steps=0, progressbar=False)


def page_of(path, fit, **options):
    """Return the sections of a report's numbers by title, and the page."""
    mfg.report(fit, path, **options)
    sections = json.loads(path.with_suffix(".json").read_text("utf-8"))["sections"]
    return {s["title"]: s for s in sections}, path.read_text("utf-8")


@pytest.fixture(scope="module")
def coupling(models):
    """The tests of coupling without free periods and with them."""
    options = {"replications": 39, "random_seed": 1, "progressbar": False, "n_jobs": 1}
    return [mfg.flows.coupling_test(*models, free=free, **options) for free in (None, "time")]


SHARED = "Is it the crowd, or what all agents share?"
SCORES = "What do agents leave on the table?"


def test_a_crowd_without_free_periods_is_told_so(models, fit, tmp_path):
    """Where the reward reads the crowd and declares no shocks; else there is nothing to say."""
    sections, _ = page_of(tmp_path / "r.html", fit, model=models[0])
    verdict = sections[SHARED]["verdict"]
    assert verdict.startswith("Not tried: terms of the crowd that are fitted without free")
    assert SCORES not in sections
    freed = mfg.flows.with_free_periods(models[0])
    assert "free_periods" in freed.parameters
    for model in (models[1], freed):
        assert shared_shocks(types.SimpleNamespace(model=model, coupling=None)) is None


def test_the_test_of_coupling_and_the_scorecard_speak_in_the_report(
    models, fit, coupling, tmp_path
):
    """Shocks pass for a crowd unless periods are free; the words are those of the test."""
    plain, free = coupling
    assert plain.p <= 0.05 < free.p
    assert plain.df == free.df == 1
    scores = mfg.checks.imperfection(models[0], fit)
    sections, page = page_of(
        tmp_path / "r.html", fit, model=models[0], coupling=free, imperfection=scores
    )
    section = sections[SHARED]
    estimate = free.estimates.loc["observed", "crowding"]
    assert f"With free periods crowding is {estimate:.3g}" in section["verdict"]
    assert f"crowding {fit.params['crowding']:.3g}" in section["verdict"]
    assert section["good"] is False
    assert section["verdict"].split(";")[0] in page.replace("&#39;", "'")
    assert free.verdict.startswith("with free periods ")
    other = shared_shocks(types.SimpleNamespace(model=models[0], coupling=plain, fit=fit))
    assert other.verdict.startswith("Without free periods")
    assert other.good is None
    loss = sections[SCORES]["numbers"]["loss"]
    assert loss == pytest.approx(scores.table["loss"].mean(), rel=1e-5)
    assert "the noise is taste" in page


def test_wrong_words_for_free_periods_are_refused(models, fit, tmp_path):
    with pytest.raises(ValueError, match="`free` names 'tim', which is no axis of shocks; did"):
        mfg.flows.coupling_test(*models, free="tim")
    with pytest.raises(ValueError, match="`free` must name 'time'"):
        mfg.flows.coupling_test(*models, free=[])
    with pytest.raises(ValueError, match="free periods already"):
        mfg.flows.with_free_periods(mfg.flows.with_free_periods(models[0]))
    with pytest.raises(TypeError, match="`coupling` must be a CouplingTest"):
        mfg.report(fit, tmp_path / "r.html", model=models[0], coupling=fit)
    with pytest.raises(TypeError, match="`imperfection` must be a"):
        mfg.report(fit, tmp_path / "r.html", model=models[0], imperfection=fit)
    with pytest.raises(TypeError, match="`runaway` must be a Runaway"):
        mfg.report(fit, tmp_path / "r.html", model=models[0], runaway=fit)


def test_a_game_that_runs_away_speaks_against_the_fit():
    """Its verdict, draws without an equilibrium or with several, and a mark."""
    columns = ["converged", "residual", "distance", "largest", "several", "runs_away"]
    still = pd.DataFrame([[True, 0.0, 0.05, 0.6, False, False]] * 4, columns=columns)
    moved = still.assign(several=[True, False, False, False], runs_away=[True] + [False] * 3)
    subject = types.SimpleNamespace(runaway=None)
    assert away(subject) is None
    for table, good in ((still, True), (moved, False)):
        subject.runaway = mfg.results.Runaway(table, 0.2, 0.6, 0.02, 0)
        section = away(subject)
        assert section.good is good
        assert section.verdict.startswith(subject.runaway.verdict)
        assert ("At 1 of 4 draws it has several equilibria" in section.verdict) is not good
        assert section.numbers["draws with several equilibria"] == (0 if good else 1)
