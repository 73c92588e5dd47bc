"""Numbers as labelled intervals."""

import math
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mfgppl as mfg


def test_equal_shares_by_number_of_bins():
    """Four bins of a hundred numbers hold 25 each, and every number lies in its interval."""
    values = np.random.default_rng(0).gamma(2.0, size=100)
    binned = mfg.discretise(values, 4)
    assert sorted(binned.value_counts()) == [25] * 4
    ends = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    expected = np.maximum(np.searchsorted(ends, values), 1)
    order = {label: k for k, label in enumerate(sorted(set(binned), key=lambda v: float(
        v.split(",")[0][1:])), 1)}  # fmt: skip
    assert [order[label] for label in binned] == expected.tolist()


def test_given_ends():
    """Intervals are closed on the right, the first on both sides; infinite ends hold the rest."""
    binned = mfg.discretise([0, 1, 1.5, 2, 9], bins=[0, 1, 2, math.inf])
    assert binned.tolist() == ["[0, 1]", "[0, 1]", "(1, 2]", "(1, 2]", "(2, inf]"]


def test_panels_read_the_labels_in_order():
    """The labels of a type come by the ends of the intervals, not by their letters."""
    wealth = pd.Series([5.0, 20.0, 300.0, 300.0], name="wealth", index=list("wxyz"))
    binned = mfg.discretise(wealth, bins=[0, 10, 100, 1000])
    assert binned.index.tolist() == list("wxyz")
    assert binned.name == "wealth"
    frame = pd.DataFrame({"agent": [0, 1, 2, 3], "time": 0, "state": 0, "action": "x"})
    panel = mfg.Trajectories.from_frame(frame.assign(wealth=binned.to_numpy()), types=["wealth"])
    assert panel.space.coordinates["wealth"] == ("[0, 10]", "(10, 100]", "(100, 1e+03]")


def test_close_ends_keep_apart():
    """Ends are written with as many digits as tell them apart."""
    binned = mfg.discretise([1.0, 1.00001, 1.00002], bins=[1.0, 1.00001, 1.00002])
    assert binned.tolist() == ["[1, 1.00001]", "[1, 1.00001]", "(1.00001, 1.00002]"]


def test_repeated_and_missing_numbers():
    """Where numbers repeat there are fewer intervals; a missing number stays missing."""
    binned = mfg.discretise(pl.Series([0.0, 0.0, 0.0, None, 1.0, 2.0]), 4)
    assert len(set(binned.dropna())) == 2
    assert binned.isna().tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize(
    ("values", "bins", "error", "words"),
    [
        (["a", "b"], 2, TypeError, "`values` must hold numbers"),
        ([1.0, 2.0], ["a"], TypeError, "`bins` must hold numbers"),
        ([1.0, 2.0], 0, ValueError, "`bins` must be at least 1"),
        ([1.0, 2.0], 2.5, TypeError, "`bins` must be an integer"),
        ([1.0, 1.0], 2, ValueError, "two numbers that differ; all are 1"),
        ([], 2, ValueError, "at least one number"),
        ([1.0, 2.0], [1], ValueError, "two ascending ends or more"),
        ([1.0, 2.0], [2, 1], ValueError, r"two ascending ends or more; got \[2.0, 1.0\]"),
        ([1.0, 5.0], [0, 2], ValueError, "1 lie outside .*the first 5.*inf"),
        ([1.0, math.inf], 2, ValueError, "`values` must be finite numbers"),
    ],
)
def test_wrong_bins_are_refused(values, bins, error, words):
    """No number is dropped unsaid."""
    with pytest.raises(error, match=words):
        mfg.discretise(values, bins)


def test_labels_are_an_ordered_categorical_that_knows_ends_and_centres():
    """Ends as given, centres the means of the numbers, and the loss by the sum of squares."""
    values = pd.Series([1.0, 2.0, 6.0, 10.0], name="margin")
    binned = mfg.discretise(values, [0, 5, 10])
    low, high = binned.cat.categories
    assert (low, low.ends, low.centre) == ("[0, 5]", (0.0, 5.0), 1.5)
    assert (high, high.ends, high.centre) == ("(5, 10]", (5.0, 10.0), 8.0)
    assert binned.cat.ordered
    within, total = 0.5 + 8.0, float(((values - 4.75) ** 2).sum())
    assert binned.attrs["bins"]["lost"] == pytest.approx(within / total, rel=1e-14)


def test_labels_and_centres_as_asked():
    values = [1.0, 2.0, 6.0, 10.0]
    middle = mfg.discretise(values, [0, 5, 10], labels=["low", "high"], centres="middle")
    assert middle.tolist() == ["low", "low", "high", "high"]
    assert [v.centre for v in middle.cat.categories] == [2.5, 7.5]
    given = mfg.discretise(values, [0, 5, math.inf], centres=[0, 1])
    assert [v.centre for v in given.cat.categories] == [0.0, 1.0]
    empty = mfg.discretise(values, [-math.inf, 0, 4, 5, 20, math.inf])
    assert [v.centre for v in empty.cat.categories] == [0.0, 1.5, 4.5, 8.0, 20.0]


def test_natural_breaks_lose_least():
    """Of all ways to cut eleven numbers into three, by trial of each, these lose least."""
    values = np.array([0.0, 0.1, 0.4, 2.0, 2.1, 2.5, 2.6, 9.0, 9.9, 11.0, 0.3])
    ordered = np.sort(values)

    def lost(cuts):
        parts = np.split(ordered, cuts)
        return sum(((part - part.mean()) ** 2).sum() for part in parts)

    pairs = [(a, b) for a in range(1, 10) for b in range(a + 1, 11)]
    best = min(map(lost, pairs)) / ((values - values.mean()) ** 2).sum()
    binned = mfg.discretise(values, 3, method="breaks")
    assert binned.attrs["bins"]["lost"] == pytest.approx(best, rel=1e-12)
    assert binned.attrs["bins"]["lost"] < mfg.discretise(values, 3).attrs["bins"]["lost"]
    assert sorted(binned.value_counts()) == [3, 4, 4]


def test_natural_breaks_of_a_number_alone_and_of_few_numbers():
    assert len(mfg.discretise([0.0, 5.0, 5.1], 2, method="breaks").cat.categories) == 2
    assert len(mfg.discretise([0.0, 5.0, 5.0], 7, method="breaks").cat.categories) == 2


@pytest.mark.parametrize("made", [lambda f: f, pl.from_pandas, pa.Table.from_pandas])
def test_columns_of_a_table(made):
    """Those named are cut, the others stay, and attributes say how."""
    frame = pd.DataFrame({"margin": [1.0, 2.0, 3.0], "land": [5.0, 6.0, 9.0], "who": list("xyz")})
    cut = mfg.discretise(
        made(frame), margin=[0, 1.5, 9], land=3, labels={"margin": ["low", "high"]},
        centres={"margin": "middle"},
    )  # fmt: skip
    assert cut["margin"].tolist() == ["low", "high", "high"]
    assert cut["who"].tolist() == list("xyz")
    assert cut.attrs["bins"]["margin"]["centres"] == [0.75, 5.25]
    assert cut.attrs["bins"]["land"]["centres"] == [5.0, 6.0, 9.0]
    again = mfg.discretise(cut.assign(more=[1.0, 2.0, 3.0]), more=2)
    assert set(again.attrs["bins"]) == {"margin", "land", "more"}


FRAME = pd.DataFrame({"margin": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mfg.discretise(FRAME, 3), TypeError, r"`values` is a table, .*got `bins` = 3"),
        (lambda: mfg.discretise(FRAME), TypeError, r"`values` is a table, .*got no column"),
        (lambda: mfg.discretise([1.0, 2.0]), TypeError, "`values` is one column, .* `bins` and no"),
        (lambda: mfg.discretise([1.0, 2.0], margin=2), TypeError, "`values` is one column"),
        (lambda: mfg.discretise(FRAME, margni=2), ValueError, "no column 'margni'; the table has"),
        (lambda: mfg.discretise(FRAME, margin=2, labels=["a", "b"]), TypeError, "`labels` of a"),
        (lambda: mfg.discretise(FRAME, margin=2, labels={"land": []}), ValueError, "names 'land'"),
        (lambda: mfg.discretise([1.0, 2.0], 2, labels=["a"]), ValueError, "must be 2 texts"),
        (lambda: mfg.discretise([1.0, 2.0], 2, labels=[1, 2]), ValueError, "must be 2 texts"),
        (lambda: mfg.discretise([1.0, 2.0], 2, centres=[1]), ValueError, "`centres` must be 2"),
        (lambda: mfg.discretise([1.0, 2.0], 2, centres="median"), ValueError, "`centres` must be"),
        (lambda: mfg.discretise([1.0, 2.0], [0, math.inf], centres="middle"), ValueError,
         "cannot be the middle of a bin without end"),
        (lambda: mfg.discretise([1.0, 2.0], 2, method="jenks"), ValueError, "`method` must be"),
        (lambda: mfg.discretise(pl.from_pandas(FRAME).lazy(), margin=2), TypeError, "collect"),
    ],
)  # fmt: skip
def test_wrong_calls_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_natural_breaks_say_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "kmeans1d", None)
    with pytest.raises(ImportError, match=r"mfgppl\[tables\]"):
        mfg.discretise([1.0, 2.0, 3.0], 2, method="breaks")
