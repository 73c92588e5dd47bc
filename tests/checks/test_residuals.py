"""Residuals of choices: their law at the truth, and what they point at."""

import functools

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from games import ROADS_TRUTH, STANDARD_ERRORS, avoid_crowds, two_roads

import mfgppl as mfg
from mfgppl.checks.standardised_residuals import residuals
from mfgppl.models import market
from mfgppl.plots.checks import plot_residuals


@functools.cache
def world():
    game = market.game().replace(horizon=8, features={})
    solved = mfg.solve_equilibrium(game, market.reward, parameters=market.TRUTH, throw=True)
    return game, solved.value


def model_of(policy, seed, n_agents=400):
    """Return the market's model of a panel that follows a policy, along the known flow."""
    game, truth = world()
    panel = mfg.simulate(game, policy, truth.mean_field, n_agents=n_agents, random_seed=seed)
    return mfg.TrajectoryModel(game, market.reward, panel, mean_field=truth.mean_field)


@functools.cache
def at_the_truth():
    """Residuals of panels drawn at the truth."""
    return [residuals(model_of(world()[1].policy, k), market.TRUTH) for k in range(40)]


def test_residuals_at_the_truth_have_mean_zero_and_variance_one():
    found = at_the_truth()
    cells = np.stack([f.cells["residual"].values for f in found])
    known = cells[:, ~np.isnan(cells).any(0)]
    assert known.shape[1] > 150
    error = 1 / np.sqrt(len(cells))
    assert (np.abs(known.mean(0)) < STANDARD_ERRORS * error).all()
    # cells of a row move together, rows do not
    assert abs(known.mean()) < STANDARD_ERRORS / np.sqrt(known.size / 3)
    assert abs((known**2).mean() - 1) < STANDARD_ERRORS * np.sqrt(2.5 / (known.size / 3))


def test_chi_squared_sums_follow_their_law_at_the_truth():
    found = at_the_truth()
    for by in ("by_state", "by_time"):
        tables = np.stack([getattr(f, by)[["chi2", "df"]].to_numpy() for f in found])
        total, expected = tables.sum((0, 1))
        assert abs(total - expected) < STANDARD_ERRORS * np.sqrt(2.5 * expected)
    ps = np.concatenate([f.by_state["p"].to_numpy() for f in found])
    assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01


def test_sums_are_pearsons_where_no_cell_is_left_out():
    model = model_of(world()[1].policy, 1, n_agents=4000)
    found = residuals(model, market.TRUTH)
    policy = mfg.policy(model, market.TRUTH).values
    counts = model.law.counts.actions
    n = counts.sum(-1, keepdims=True)
    assert (n * policy > 1).all()
    each = [
        [scipy.stats.chisquare(counts[t, s], n[t, s] * policy[t, s]).statistic for s in range(8)]
        for t in range(8)
    ]
    np.testing.assert_allclose(found.by_state["chi2"], np.sum(each, axis=0))
    np.testing.assert_allclose(found.by_time["chi2"], np.sum(each, axis=1))
    np.testing.assert_allclose(found.by_state["df"], 8 * 2)
    np.testing.assert_allclose(found.by_time["visits"], 4000)


def test_a_changed_choice_is_found_where_it_was_changed():
    """At one time and state the agents raise more often than the model says."""
    policy = world()[1].policy.clone()
    policy[5, 3] = policy.new_tensor([0.1, 0.2, 0.7])
    found = residuals(model_of(policy, 2), market.TRUTH)
    worst = found.table.iloc[0]
    assert (worst["time"], worst["state"], worst["action"]) == (5, "1, high", "raise")
    assert worst["residual"] > 4
    assert found.by_state["p"].idxmin() == "1, high"
    assert found.by_time["p"].idxmin() == 5
    assert "1, high" in repr(found)


def test_draws_add_the_posteriors_variance():
    """By the law of total variance, worked out here from the policies of all draws."""
    model = model_of(world()[1].policy, 3)
    rng = np.random.default_rng(1)
    drawn = {
        k: (("chain", "draw"), v + 0.05 * rng.random((2, 50))) for k, v in market.TRUTH.items()
    }
    draws = xr.DataTree.from_dict({"posterior": xr.Dataset(drawn)})
    found = residuals(model, draws, draws=100)
    policy = mfg.policy(model, draws, draws=100).stack(sample=("chain", "draw"))
    n = model.law.counts.actions.sum(-1, keepdims=True)
    policies = policy.transpose("time", "state", "action", "sample").values
    within = n * (policies * (1 - policies)).mean(-1)
    variance = within + n**2 * policies.var(-1)
    expected = n * policies.mean(-1)
    by_hand = (model.law.counts.actions - expected) / np.sqrt(variance)
    kept = ~np.isnan(found.cells["residual"].values)
    np.testing.assert_allclose(found.cells["residual"].values[kept], by_hand[kept])
    np.testing.assert_allclose(found.cells["expected"], expected)


def test_cells_without_agents_or_with_few_expected_have_no_residual():
    model = model_of(world()[1].policy, 4, n_agents=30)
    found = residuals(model, market.TRUTH, least=2.0)
    expected = found.cells["expected"].values
    n = model.law.counts.actions.sum(-1, keepdims=True)
    assert (n == 0).any()
    left_out = (expected < 2.0) | (n - expected < 2.0)
    assert (np.isnan(found.cells["residual"].values) == left_out).all()
    alone = residuals(model, market.TRUTH, least=1e6)
    assert alone.table.empty
    assert alone.by_state["p"].isna().all()


def test_the_energy_likelihood_and_a_counted_panel_have_residuals(roads_panel):
    counted = mfg.CountedPanel.from_frame(
        roads_panel.to_frame(), state_labels={"state": ["left", "right"]},
        action_labels=["stay", "turn"],
    )  # fmt: skip
    one, other = (
        residuals(mfg.TrajectoryModel(two_roads(), avoid_crowds, panel, **kind), ROADS_TRUTH)
        for panel, kind in ((roads_panel, {"likelihood": "energy"}), (counted, {}))
    )
    assert one.cells["observed"].equals(other.cells["observed"])
    assert np.isfinite(one.by_time["chi2"]).all()


def test_the_figure_has_a_panel_an_action():
    import matplotlib.pyplot as plt

    found = residuals(model_of(world()[1].policy, 5), market.TRUTH)
    figure = plot_residuals(found, states=5)
    drawn = figure.axes[0].images[0].get_array()
    most = np.sort(np.argsort(-found.by_state["visits"].to_numpy(), kind="stable")[:5])
    expected = found.cells["residual"].sel(action="lower").isel(state=most)
    np.testing.assert_allclose(drawn.filled(np.nan), expected.transpose("state", "time"))
    assert [a.get_title() for a in figure.axes[:3]] == ["lower", "hold", "raise"]
    plt.close("all")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": 1}, TypeError, "`model` must be a TrajectoryModel"),
        ({"fit": "mle"}, TypeError, "`fit` must be posterior draws"),
        ({"least": 0}, ValueError, "`least` must be above 0"),
        ({"draws": 0}, ValueError, "`draws` must be at least 1"),
        ({"samples": 3}, TypeError, "did you mean `draws`"),
    ],
)
def test_wrong_inputs(roads_model, change, error, words):
    given = {"model": roads_model, "fit": ROADS_TRUTH} | change
    with pytest.raises(error, match=words):
        residuals(given.pop("model"), given.pop("fit"), **given)
