"""Intervals hold the truth as often as they say: a seeded subset always, the study when asked."""

import importlib
from pathlib import Path

import numpy as np
import pytest

ANALYSES = str(Path(__file__).parents[1] / "analyses")
PARAMETERS = 3


@pytest.fixture
def calibration(monkeypatch):
    """The calibration study, importable by its worker processes too."""
    monkeypatch.syspath_prepend(ANALYSES)
    monkeypatch.setenv("PYTHONPATH", ANALYSES)
    return importlib.import_module("calibration")


def test_wald_intervals_cover_on_a_few_panels(calibration):
    """Over 24 panels and 3 parameters, coverage of 90% intervals is within 4 standard errors."""
    table = calibration.study(24, sample=False, n_jobs=1)
    known = table[table["flow"] == "known"]
    assert len(known) == PARAMETERS
    # parameters of one panel are correlated: count panels, not intervals, as independent
    assert known["coverage"].mean() == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 24))
    assert known["coverage"].min() > 0.6


@pytest.mark.slow
def test_intervals_cover_in_the_full_study(calibration):
    """Over 200 panels each parameter's coverage is within 3.5 Monte Carlo errors of 90%."""
    table = calibration.study(calibration.N_PANELS, sample=True)
    known = table[table["flow"] == "known"]
    assert set(known["method"]) == {"Wald", "NUTS"}
    gap = (known["coverage"] - calibration.LEVEL).abs()
    assert (gap <= 3.5 * known["mc_error"]).all(), known.to_string()
