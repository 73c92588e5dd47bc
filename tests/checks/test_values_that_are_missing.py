"""What has no value never counts as passed."""

import numpy as np
import pandas as pd
import pytest

import mfgppl as mfg
from mfgppl.checks.predictive import PredictiveCheck
from mfgppl.posterior.fit_values import upper_tail


def checked(model, **statistics):
    values = {"crowding": 1.5, "effort": 0.4}
    return mfg.predictive_check(model, values, statistics=statistics, draws=20, random_seed=1)


def test_a_tail_without_draws_is_not_known():
    drawn = np.array([[np.nan, 1.0], [np.nan, np.nan], [np.nan, 3.0]])
    found = upper_tail(drawn, np.array([1.0, 2.0]))
    assert np.isnan(found[0])
    assert found[1] == pytest.approx((1 + 0.5) / 3)


def test_a_statistic_without_value_in_drawn_panels_has_no_p(roads_model):
    seen = []

    def only_first(panel):
        seen.append(panel)
        return 1.0 if len(seen) == 1 else np.nan

    found = checked(
        roads_model,
        only_first=only_first,
        never=lambda panel: np.nan,
        no_array=lambda panel: np.full(3, np.nan),
    )
    assert found.table.loc[["only_first", "never", "no_array"], "p"].isna().all()
    assert "without a value: only_first, never, no_array" in found.verdict or not found.passed


def test_a_check_of_nothing_is_not_passed():
    table = pd.DataFrame({"p": [np.nan, np.nan]}, ["one", "two"])
    found = PredictiveCheck(table, {}, 20)
    assert found.passed is None
    assert "No statistic" in found.verdict


def test_a_statistic_that_is_infinite_is_refused(roads_model):
    with pytest.raises(ValueError, match="'log' must be finite"):
        checked(roads_model, log=lambda panel: -np.inf)
