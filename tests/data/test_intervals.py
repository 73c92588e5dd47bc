"""Numbers as labelled intervals."""

import math

import numpy as np
import pandas as pd
import polars as pl
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
    assert binned[3] is None


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
    ],
)
def test_wrong_bins_are_refused(values, bins, error, words):
    """No number is dropped unsaid."""
    with pytest.raises(error, match=words):
        mfg.discretise(values, bins)
