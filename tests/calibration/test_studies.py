"""Posteriors are calibrated and intervals cover: seeded subsets always, the study when asked."""

import importlib
from pathlib import Path

import numpy as np
import pytest

STOPPED = "ignore:A worker stopped:UserWarning"  # joblib renews workers that have grown

ANALYSES = str(Path(__file__).parents[2] / "analyses")


@pytest.fixture
def study(monkeypatch):
    """The calibration study, importable by its worker processes too."""
    monkeypatch.syspath_prepend(ANALYSES)
    monkeypatch.setenv("PYTHONPATH", ANALYSES)
    return importlib.import_module("calibration")


def named(study, game, method, mean_field):
    """Return a case of the study."""
    (case,) = (
        c for c in study.CASES
        if (c.game.__name__.split(".")[-1], c.method, c.mean_field) == (game, method, mean_field)
    )  # fmt: skip
    return case


def test_wald_intervals_cover_on_a_few_panels(study):
    """Over 24 panels and 3 parameters, coverage of 90% intervals is within 4 standard errors."""
    table = study.coverage_study("known flow", 24, n_jobs=1, methods="wald").table
    assert len(table) == 3
    # parameters of one panel are correlated: count panels, not intervals, as independent
    assert table["coverage"].mean() == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 24))
    assert table["coverage"].min() > 0.6


def test_nuts_is_calibrated_in_a_few_rounds(study):
    """Ranks of 20 rounds of the smallest game stay within the band."""
    check = study.posterior_check(named(study, "left_right", "NUTS", "known"), 20, n_jobs=1)
    assert check.calibrated, repr(check)


@pytest.mark.slow
@pytest.mark.filterwarnings(STOPPED)
def test_nuts_is_calibrated_in_the_full_study(study):
    """Over 200 rounds of each game NUTS stays within the bands; the two other cases do not."""
    for case in study.CASES:
        exact = case.fit is None and case.mean_field == "known"
        check = study.posterior_check(case, study.ROUNDS if exact else study.FEW_ROUNDS, n_jobs=-1)
        assert check.calibrated == exact, repr(check)


@pytest.mark.slow
@pytest.mark.filterwarnings(STOPPED)
def test_intervals_cover_in_the_full_study(study):
    """Over 500 panels each method covers within 3.5 Monte Carlo errors with the flow known."""
    table = study.coverage_study("known flow", study.PANELS, n_jobs=-1).table
    gap = (table["coverage"] - study.CI_PROB).abs()
    assert (gap <= 3.5 * table["coverage_error"]).all(), table.to_string()


@pytest.mark.slow
@pytest.mark.filterwarnings(STOPPED)
def test_plugged_in_flows_and_diagonal_families_do_not_cover(study):
    """The crowd's cost is missed where the flow is observed or its ridge is cut across."""
    observed = study.coverage_study("observed flow", study.FEW_PANELS, n_jobs=-1).table
    assert (observed["coverage"].xs("crowding", level="parameter") < 0.7).all()
    families = study.coverage_study("known flow, diagonal VI", study.FEW_PANELS, n_jobs=-1).table
    assert families.loc[("diagonal VI", "crowding"), "coverage"] < 0.7
