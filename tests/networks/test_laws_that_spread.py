"""Laws of 51 states that spread: the map and the panel of an analysis."""

import importlib
from pathlib import Path

import numpy as np
import pytest

import mfgppl as mfg

ANALYSES = str(Path(__file__).parents[2] / "analyses")


@pytest.fixture
def adoption(monkeypatch):
    """The analysis."""
    monkeypatch.syspath_prepend(ANALYSES)
    return importlib.import_module("adoption")


def test_the_map_has_what_every_atlas_says_of_it(adoption):
    """Missouri and Tennessee border on eight states, none on more; Maine on one; two on nobody."""
    edges = adoption.borders()
    degrees = edges["from"].value_counts()
    assert not edges.duplicated().any()
    assert set(degrees[degrees == 8].index) == {"Missouri", "Tennessee"}
    assert degrees.max() == 8
    assert list(degrees[degrees == 1].index) == ["Maine"]
    assert set(adoption.table()["state"]) - set(degrees.index) == {"Alaska", "Hawaii"}
    assert set(degrees.index) >= adoption.SOUTH


def test_each_state_that_has_the_law_at_the_end_passed_it_or_had_it_before(adoption):
    frame = adoption.table()
    has = frame["law"].eq("yes").groupby(frame["year"]).sum()
    assert (frame["action"] == "pass").sum() == has[1999] - has[1977]
    later = frame[frame["year"] > 1977].groupby("state")["law"].first()
    assert set(later[later == "yes"].index) >= {"Vermont", "Washington"}  # which had it before


def test_rows_without_a_choice_add_nothing_to_the_likelihood(adoption):
    """The log likelihood is that of the choices of states that do not have the law yet."""
    panel = adoption.observed(adoption.table(), adoption.borders())
    model, fit = adoption.fit(panel, ("around", "south", "end"))
    policy = mfg.policy(model, fit).transpose("time", "type", "state", "action")
    made = panel.counts.actions.reshape(policy.shape)
    open_ = np.array([str(label).startswith("no") for label in policy["state"].values])
    choices = made[:, :, open_] * np.log(policy.values[:, :, open_])
    assert made[:, :, ~open_].sum() > 0
    assert choices.sum() == pytest.approx(fit.llf, abs=1e-8)
