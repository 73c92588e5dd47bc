"""The report: verdict first, everything in one file, user text escaped."""

import re
import warnings

import arviz_stats
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg

EVIL = "<script>alert('x')</script>"
STRENGTH = 7.5


def evil_reward(x):
    """<script>alert('docstring')</script>"""
    return pyro.sample("w", dist.Normal(0.0, 1.0)) * (x.action == EVIL) * STRENGTH


@pytest.fixture(scope="module")
def fitted():
    """A short fit of a panel whose labels and program hold markup."""
    rows = [
        (f"{EVIL}{k}", t, EVIL if k % 2 else "calm", EVIL if (k + t) % 3 else "stay")
        for k in range(30)
        for t in range(3)
    ]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    panel = mfg.Trajectories.from_frame(frame)
    game = mfg.MeanFieldGame(
        states=panel.space.coordinates, actions=panel.actions, horizon=3,
        transition=panel.estimate_transition(prior_count=1.0),
        initial=panel.initial_distribution(),
    )  # fmt: skip
    model = mfg.TrajectoryModel(game, evil_reward, panel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        return mfg.nuts(model, draws=100, tune=100, chains=2, random_seed=1, progressbar=False)


@pytest.fixture(scope="module")
def page(fitted, tmp_path_factory):
    """The text of its report."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert mfg.report(fitted, path, title=f"About {EVIL}") == path
    return path.read_text("utf-8")


def test_user_text_is_escaped(page):
    """No label, title or source reaches the page as markup."""
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_values_that_the_program_reads_stand_below_its_source(page):
    """Numbers and texts of the module are on the page, escaped as the rest."""
    program = page[page.index("<pre") : page.index("</pre>")]
    assert "# STRENGTH = 7.5" in program
    assert "# EVIL = &#34;&lt;script&gt;" in program


def test_page_is_self_contained(page):
    """Images are in the page; nothing is fetched."""
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    images = [s for s in sources if not s.startswith("#")]
    assert len(images) >= 5
    assert all(s.startswith("data:image/png;base64,") for s in images)


def test_verdict_comes_first_and_carries_all_warnings(fitted, page):
    """Before any number the page says whether to rely on the draws, and why not."""
    messages = fitted.attrs["warnings"]
    assert any("2 chains" in m for m in messages)
    verdict, first = page.index("Do not rely on these numbers yet"), page.index("<h2")
    assert verdict < first
    for message in messages:
        start = message.split("(")[0].strip()
        assert verdict < page.index(start) < first


def test_estimates_are_arviz_numbers_with_level_and_kind(fitted, page):
    """The table holds ArviZ's summary and names its interval."""
    table = arviz_stats.summary(fitted, ci_prob=0.9, ci_kind="eti", round_to="none")
    assert "equal-tailed 90%" in page
    assert f"{table.loc['w', 'mean']:.4g}" in page
    assert "eti90_lb" in page


def test_sections_are_there(page):
    """Data audit, model, priors, program, predictive checks, LOO and record are on the page."""
    for words in (
        "The panel", "Priors", "Normal(loc=0, scale=1)", "Reward program", "pyro.sample",
        "Does the model predict what was seen?", "Left out one by one", "random_seed", "90% band",
        "What these numbers do not show",
    ):  # fmt: skip
        assert words in page


def test_a_loaded_result_gives_the_same_page(fitted, page, tmp_path):
    """A report of the saved file says the same, warnings included."""
    mfg.save(fitted, tmp_path / "fit.nc")
    again = tmp_path / "again.html"
    mfg.report(mfg.load(tmp_path / "fit.nc"), again, title=f"About {EVIL}")

    def words(text):
        return re.sub(r'src="[^"]*"', "", text)

    assert words(again.read_text("utf-8")) == words(page)


def test_priors_that_depend_on_parameters_are_called_that_and_odd_shapes_are_drawn(tmp_path):
    """A hierarchical prior shows no number drawn by chance; a (1, 3) site gets its figures."""
    frame = pd.DataFrame(
        [(k, t, "s", "a" if (k + t) % 3 else "b") for k in range(30) for t in range(3)],
        columns=["agent", "time", "state", "action"],
    )
    panel = mfg.Trajectories.from_frame(frame)
    game = mfg.MeanFieldGame(
        states=["s"], actions=["a", "b"], horizon=3, transition=[[[1.0], [1.0]]], initial=[1.0]
    )

    def reward(x):
        centre = pyro.sample("centre", dist.Normal(0.0, 2.0))
        w = pyro.sample("w", dist.Normal(centre, 0.5).expand([1, 3]).to_event(2)).reshape(-1)
        return w[0] * (x.action == "a") + w[1] * x.density

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        draws = mfg.nuts(
            mfg.TrajectoryModel(game, reward, panel), draws=50, tune=50, chains=2, random_seed=1,
            progressbar=False,
        )  # fmt: skip
    page = mfg.report(draws, tmp_path / "r.html").read_text("utf-8")
    assert "Normal(loc=(depends on other parameters), scale=0.5), shape (1, 3)" in page
    assert "Normal(loc=0, scale=2)" in page
