"""Tables of fits: the fits' own numbers, in text, HTML and LaTeX that parse."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg
from mfgppl.models import pricing

FAST = {"svi_steps": 0, "progressbar": False}


@pytest.fixture(scope="module")
def fits():
    """Two fits of the bundled panel, with headings that markup must escape."""
    names = {"base": "base", "a & <b>_1": "both"}
    return {k: mfg.mle(pricing.model(name=v), **FAST) for k, v in names.items()}


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
    with pytest.raises(TypeError, match="mapping of headings to point fits; got list"):
        mfg.compare_fits(list(fits.values()))
    with pytest.raises(TypeError, match="'x' is a float"):
        mfg.compare_fits({"x": 1.0})
    with pytest.raises(ValueError, match="`fits` is empty"):
        mfg.compare_fits({})
    with pytest.raises(ValueError, match="`kind` must be one of"):
        mfg.compare_fits(fits, kind="robust")
    with pytest.raises(TypeError, match="did you mean `stars`"):
        mfg.compare_fits(fits, star=True)
