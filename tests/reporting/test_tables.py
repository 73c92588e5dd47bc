"""Tables of fits: the fits' own numbers, in text, HTML and LaTeX that parse."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
from games import ROADS_TRUTH, avoid_crowds, played, two_roads

import mfgppl as mfg
from mfgppl.models import pricing

FAST = {"svi_steps": 0, "progressbar": False}


@pytest.fixture(scope="module")
def fits():
    """Two fits of the bundled panel, with headings that markup must escape."""
    names = {"base": "base", "a & <b>_1": "both"}
    return {k: mfg.mle(pricing.model(name=v), **FAST) for k, v in names.items()}


@pytest.fixture(scope="module")
def draws():
    """Draws of the second fit's posterior."""
    return mfg.laplace(pricing.model(name="both"), draws=100, random_seed=1, progressbar=False)


@pytest.mark.parametrize("kind", ["observed", "opg", "cluster"])
def test_table_holds_the_numbers_of_the_fits(fits, kind):
    """Estimates, errors below them and criteria are the fits', rounded."""
    table = mfg.compare_fits(fits, kind=kind)
    for name, fit in fits.items():
        errors = fit.standard_errors(kind)
        for parameter, value in fit.params.items():
            row = list(table.cells.index).index(parameter)
            assert table.cells[name].iloc[row] == f"{value:.3f}"
            assert table.cells[name].iloc[row + 1] == f"({errors[parameter]:.3f})"
            assert table.estimates.loc[parameter, name] == value
        assert table.cells.loc["log likelihood", name] == f"{fit.llf:.3f}"
        assert table.cells.loc["AIC", name] == f"{fit.aic:.3f}"
        assert table.statistics.loc["BIC", name] == fit.bic
        assert table.cells.loc["decisions", name] == "13350"
        assert table.cells.loc["trajectories", name] == "534"
    assert table.cells["base"].iloc[list(table.cells.index).index("gap2")] == ""
    words = {"observed": "observed information", "opg": "outer product", "cluster": "by agent"}
    assert words[kind] in repr(table).splitlines()[-1]
    assert ("clusters" in table.statistics.index) is (kind == "cluster")


def test_html_parses_and_escapes(fits):
    """The page part is well-formed, holds each cell, and no heading is markup."""
    table = mfg.compare_fits(fits)
    root = ET.fromstring(f"<div>{table.to_html()}</div>")
    rows = [["".join(c.itertext()) for c in r.iter() if c.tag in ("th", "td")]
            for r in root.iter("tr")]  # fmt: skip
    assert rows[0] == ["", *fits]
    assert [r[1:] for r in rows[1:]] == table.cells.to_numpy().tolist()
    assert [p.text for p in root.iter("p")] == list(table.notes)
    assert table._repr_html_() == table.to_html()


def test_latex_parses_and_escapes(fits):
    """Environments close, each row has as many cells as columns, special characters are escaped."""
    table = mfg.compare_fits(fits)
    text = table.to_latex()
    opened, closed = re.findall(r"\\begin{(\w+)}", text), re.findall(r"\\end{(\w+)}", text)
    assert opened == closed == ["tabular"]
    rows = re.findall(r"^(.*) \\\\$", text, flags=re.MULTILINE)
    assert all(len(re.split(r"(?<!\\)&", row)) == 3 for row in rows)
    assert len(rows) == 1 + len(table.cells)
    assert r"a \& $<$b$>$\_1" in rows[0]
    body = [[c.strip() for c in re.split(r"(?<!\\)&", row)][1:] for row in rows[1:]]
    assert body == table.cells.to_numpy().tolist()


def test_stars_are_asked_for(fits):
    """Stars follow the p of the summary and are explained; without asking there are none."""
    plain, marked = mfg.compare_fits(fits), mfg.compare_fits(fits, stars=True)
    assert "*" not in repr(plain)
    p = fits["base"].summary()["p"]
    for parameter, value in p.items():
        stars = "***" if value < 0.01 else "**" if value < 0.05 else "*" if value < 0.1 else ""
        cell = marked.cells["base"].iloc[list(marked.cells.index).index(parameter)]
        assert re.sub(r"[^*]", "", cell) == stars
    assert "*** p < 0.01" in repr(marked)


def test_what_the_data_do_not_tell_and_other_data_are_marked(fits):
    """A missing error is a dash, a posterior mode and other data are notes."""
    game = mfg.MeanFieldGame(
        states=["only"], actions=["a", "b"], horizon=2, transition=np.ones((1, 2, 1)), initial=[1.0]
    )
    rows = [(k, t, "only", "a" if k < 3 else "b") for k in range(10) for t in (0, 1)]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])

    def reward(x):
        a, b = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in "ab")
        return (a + 2 * b) * (x.action == "a")

    model = mfg.TrajectoryModel(game, reward, mfg.Trajectories.from_frame(frame))
    with pytest.warns(mfg.exceptions.IdentificationWarning):
        flat = mfg.mle(model, **FAST)
    table = mfg.compare_fits({"flat": flat, "mode": mfg.map_estimate(model, **FAST), **fits})
    assert table.cells["flat"].iloc[1] == "(-)"
    assert any("mode: map (constrained)" in n for n in table.notes)
    assert any("different data" in n for n in table.notes)


def test_digits(fits):
    """Decimals are as asked; a number that they would round to zero keeps two digits."""
    value = fits["base"].params["cut"]
    for digits, expected in ((2, f"{value:.2f}"), (5, f"{value:.5f}"), (0, f"{value:.2g}")):
        assert mfg.compare_fits(fits, digits=digits).cells["base"].iloc[0] == expected


def test_wrong_inputs(fits):
    """The message says what came."""
    with pytest.raises(TypeError, match="mapping of headings to fits; got list"):
        mfg.compare_fits(list(fits.values()))
    with pytest.raises(TypeError, match=r"`fits\['x'\]` must be a point fit or draws; got float"):
        mfg.compare_fits({"x": 1.0})
    with pytest.raises(ValueError, match="`parameters` has 'gap3', which no fit has"):
        mfg.compare_fits(fits, parameters=["gap3"])
    with pytest.raises(TypeError, match="`parameters` must hold names"):
        mfg.compare_fits(fits, parameters={"costs": [1]})
    with pytest.raises(TypeError, match="`fixed_effects` must be a mapping"):
        mfg.compare_fits(fits, fixed_effects="level")
    with pytest.raises(ValueError, match="`fixed_effects` has 'month'"):
        mfg.compare_fits(fits, fixed_effects={"months": "month"})
    with pytest.raises(ValueError, match="`fits` is empty"):
        mfg.compare_fits({})
    with pytest.raises(ValueError, match="`kind` must be one of"):
        mfg.compare_fits(fits, kind="robust")
    with pytest.raises(TypeError, match="did you mean `stars`"):
        mfg.compare_fits(fits, star=True)


def test_draws_stand_beside_points(fits, draws):
    """Posterior means and deviations, the score of `loo`, and a note that says so."""
    table = mfg.compare_fits({"base": fits["base"], "draws": draws}, kind="cluster")
    posterior = draws["posterior"].dataset
    for name in draws.attrs["parameters"]:
        values = posterior[name].values
        assert table.estimates.loc[name, "draws"] == pytest.approx(values.mean(), rel=1e-9)
        assert table.std_err.loc[name, "draws"] == pytest.approx(values.std(), rel=1e-9)
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="Pareto shape"):  # few draws
        score = mfg.loo(draws).elpd
    assert table.statistics.loc["elpd (loo)", "draws"] == pytest.approx(score)
    assert np.isnan(table.statistics.loc["AIC", "draws"])
    assert np.isnan(table.statistics.loc["elpd (loo)", "base"])
    assert table.statistics.loc["decisions"].tolist() == [13350, 13350]
    assert list(table.statistics.index)[:2] == ["log likelihood", "AIC"]
    assert "draws: posterior means, standard deviations in brackets" in table.notes
    assert not any("different data" in note for note in table.notes)
    assert mfg.compare_fits({"draws": draws}).notes[0].startswith("posterior means")


def test_rows_come_in_groups_and_fixed_effects_in_one_row(fits):
    """Headings stand above their parameters; what is folded has a row of yes and no."""
    table = mfg.compare_fits(
        fits, parameters={"costs": ["raise", "cut"]}, fixed_effects={"gaps": "gap2"}
    )
    rows = list(table.cells.index)
    assert rows[:6] == ["costs", "raise", "", "cut", "", "gaps"]
    assert table.cells.iloc[0].tolist() == ["", ""]
    assert table.cells.loc["gaps"].tolist() == ["no", "yes"]
    assert "level" not in rows
    folded = mfg.compare_fits(fits, fixed_effects={"levels": ["level", "level2"]})
    assert [r for r in folded.cells.index if r][:4] == ["cut", "raise", "gap2", "levels"]
    assert folded.cells.loc["levels"].tolist() == ["yes", "yes"]


def test_periods_are_folded_by_their_site():
    """A vector's name stands for all its entries, which a fit without them lacks."""
    game = two_roads()
    panel = played(game, avoid_crowds, ROADS_TRUTH, 80, 2)

    def seasonal(x):
        days = mfg.period_effects(x, "day", dist.Normal(0.0, 3.0), by="action")
        return avoid_crowds(x) + days

    rewards = {"days": seasonal, "none": avoid_crowds}
    models = {k: mfg.TrajectoryModel(game, v, panel) for k, v in rewards.items()}
    fits = {k: mfg.map_estimate(v, **FAST) for k, v in models.items()}
    table = mfg.compare_fits(fits, fixed_effects={"days": "day"})
    assert table.cells.loc["days"].tolist() == ["yes", "no"]
    assert not any(name.startswith("day[") for name in table.cells.index)


def test_the_treatment_of_the_flow_is_a_row():
    """Plug-in, given, coupled, cross-fit and jackknife are named."""
    game = two_roads()
    panel = played(game, avoid_crowds, ROADS_TRUTH, 80, 2)
    model = mfg.TrajectoryModel(game, avoid_crowds, panel)
    fits = {
        "plug-in": mfg.mle(model, **FAST),
        "given": mfg.mle(model.along(model.mean_field), **FAST),
        "coupled": mfg.mle(model.along("equilibrium"), **FAST),
        "cross-fit": mfg.flows.cross_fit(model, folds=2),
        "jackknife": mfg.jackknife(model, parts=3),
    }
    assert mfg.compare_fits(fits).cells.loc["crowd's flow"].tolist() == list(fits)
    drawn = mfg.laplace(model, draws=50, random_seed=1, progressbar=False)
    for recorded, way in (("empirical", "plug-in"), ("equilibrium", "coupled"), ("known", "given")):
        drawn.attrs["mean_field"] = recorded
        assert mfg.compare_fits({"draws": drawn}).cells.loc["crowd's flow", "draws"] == way


def test_markdown_has_the_cells_and_escapes(fits):
    """Each row has as many cells as columns, and Markdown's characters are escaped."""
    table = mfg.compare_fits(fits, stars=True)
    lines = table.to_markdown().split("\n\n")[0].splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert {len(row) for row in rows} == {3}
    assert rows[0][2].strip() == r"a & \<b\>\_1"
    cells = [[c.strip().replace("\\", "") for c in row[1:]] for row in rows[2:]]
    assert cells == table.cells.to_numpy().tolist()


@pytest.mark.parametrize("gap", ["\n", "\r\n", " \n\n ", "\t", "\u2028"])
def test_a_heading_of_several_lines_stands_on_one(fits, gap):
    """A line's end inside a row would end the table, in Markdown and in LaTeX."""
    fit = fits["a & <b>_1"]
    table, usual = (mfg.compare_fits({f"own{space}costs": fit}) for space in (gap, " "))
    assert "own costs" in usual.to_markdown()
    assert "own costs" in usual.to_latex()
    assert table.to_markdown() == usual.to_markdown()
    assert table.to_latex() == usual.to_latex()


def test_a_summary_in_latex_escapes_names(fits):
    """Of fits as of draws; an underscore by itself is an error of LaTeX."""
    fit = fits["a & <b>_1"]
    named = replace(fit, params=fit.params.rename(lambda name: f"{name}_of & more"))
    for table in (named.summary(), mfg.results.summary(named)):
        text = table.to_latex()
        for name in fit.params.index:
            assert rf"{name}\_of \& more &" in text
        assert not re.search(r"(?<!\\)_", text)


def test_a_summary_has_one_layout_for_points_and_draws(fits, draws):
    """The first four columns are alike; the numbers are the fit's own."""
    fit = fits["a & <b>_1"]
    point, drawn = mfg.results.summary(fit, kind="cluster"), mfg.results.summary(draws)
    first = ["estimate", "error", "lower 90%", "upper 90%"]
    assert list(point.columns)[:4] == list(drawn.columns)[:4] == first
    own = fit.summary(kind="cluster")
    np.testing.assert_array_equal(point["error"], own["std_err"])
    np.testing.assert_array_equal(point["p"], own["p"])
    low = draws["posterior"]["cut"].quantile(0.05)
    assert drawn.loc["cut", "lower 90%"] == pytest.approx(float(low), rel=1e-6)
    grouped = mfg.results.summary(draws, parameters={"costs": ["raise"], "crowd": ["gap2"]})
    assert list(grouped.index) == [("costs", "raise"), ("crowd", "gap2")]
    assert "..." not in repr(point)
    with pytest.raises(ValueError, match="`kind` 'cluster' is of the standard errors of point"):
        mfg.results.summary(draws, kind="cluster")
    with pytest.raises(TypeError, match="`fit` must be a DataTree"):
        mfg.results.summary(3.0)
