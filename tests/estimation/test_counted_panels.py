"""A counted panel gives the fits that its rows give, and says what it cannot give."""

import dataclasses

import numpy as np
import pytest
from games import as_frame, avoid_crowds, shop
from reference import tiny_case

import mfgppl as mfg


@pytest.fixture
def pair(roads_panel):
    """The same panel twice: with its rows, and counted from them."""
    return roads_panel, mfg.CountedPanel.from_frame(as_frame(roads_panel))


def test_fits_are_equal(pair, roads_model):
    """Estimates, standard errors, draws and hashes of the data agree."""
    game = roads_model.game
    models = [mfg.TrajectoryModel(game, avoid_crowds, panel) for panel in pair]
    first, second = (mfg.mle(model, progressbar=False) for model in models)
    np.testing.assert_array_equal(first.params, second.params)
    np.testing.assert_allclose(first.bse, second.bse, rtol=1e-9)
    assert second.bic == pytest.approx(first.bic)
    assert f"{pair[0].n_trajectories} trajectories" in repr(second)
    options = {"draws": 50, "tune": 50, "random_seed": 1, "progressbar": False}
    with pytest.warns(mfg.exceptions.ConvergenceWarning):
        draws = [mfg.nuts(model, **options) for model in models]
    assert draws[0]["posterior"].equals(draws[1]["posterior"])
    assert draws[0]["observed_data"].equals(draws[1]["observed_data"])
    assert "log_likelihood" in draws[0].children
    assert "log_likelihood" not in draws[1].children


@pytest.mark.parametrize("options", [{"likelihood": "causal"}, {"likelihood": "energy"}], ids=str)
def test_longer_horizons(options):
    """Under a horizon beyond the panel's, all trajectories end early, counted or with rows."""
    case = tiny_case(4)
    counted = mfg.CountedPanel.from_frame(
        as_frame(case.panel),
        state_labels=dict(case.panel.space.coordinates),
        action_labels=case.panel.actions,
    )
    for longer in (case.panel.horizon, case.panel.horizon + 1, case.panel.horizon + 3):
        expected = dataclasses.replace(case.panel, horizon=longer).counts
        for panel in (case.panel, counted):
            for found, wanted in zip(panel.counts_over(longer), expected, strict=True):
                np.testing.assert_array_equal(found, wanted)


def test_what_needs_rows_says_so(pair, roads_model, tmp_path):
    """Each names what needs the trajectories and how to keep them."""
    model = mfg.TrajectoryModel(roads_model.game, avoid_crowds, pair[1])
    fit = mfg.mle(model, progressbar=False)
    words = "needs the trajectories one by one.*Trajectories.from_frame"
    with pytest.raises(ValueError, match=words):
        fit.cov_params("cluster")
    with pytest.raises(ValueError, match=words):
        fit.cov_params("opg")
    with pytest.raises(ValueError, match=f"bootstrap {words}"):
        mfg.bootstrap(model, random_seed=1)
    with pytest.raises(ValueError, match=f"log_likelihood {words}"):
        mfg.log_likelihood(model, fit)
    with pytest.raises(ValueError, match=f"`log_likelihood` {words}"):
        mfg.nuts(model, log_likelihood=True)


@pytest.mark.usefixtures("few_panels", "blank_figures")
def test_the_report_leaves_out_what_is_not_there(pair, roads_model, tmp_path):
    """A report of a counted panel has no leave-one-out table and needs none."""
    model = mfg.TrajectoryModel(roads_model.game, avoid_crowds, pair[1])
    with pytest.warns(mfg.exceptions.ConvergenceWarning):
        draws = mfg.nuts(model, draws=50, tune=50, random_seed=1, progressbar=False)
    mfg.report(draws, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_moves_that_the_game_forbids_are_named(visits):
    """Actions that are not available are found in the counts."""
    counted = mfg.CountedPanel.from_frame(
        visits, agent="shop", time="month", state=["price", "stock"], action="move"
    )
    available = np.ones((6, 4), dtype=bool)
    available[:, 0] = False  # raise
    with pytest.raises(mfg.exceptions.DataError, match=r"not available in its state.*time=4"):
        mfg.TrajectoryModel(
            shop(available=available, horizon=3),
            lambda x: avoid_crowds(x),
            counted,
        )
