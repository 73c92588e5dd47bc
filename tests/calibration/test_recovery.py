"""Recovery and expected widths: against Fisher information, other fits, and real failures."""

import functools

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import ROADS_TRUTH, ROUNDING, avoid_crowds, played, two_roads
from scipy.special import ndtri

import mfgppl as mfg
from mfgppl.calibration.coverage import recovery
from mfgppl.density.of_model import density_of, redrawn
from mfgppl.design.widths import agents_for, expected_widths
from mfgppl.estimation.bootstrap import resample
from mfgppl.estimation.refits import maximum_near
from mfgppl.models import left_right, stationary_repair
from mfgppl.plots.calibration import plot_coverage, plot_widths

PANELS = 40
Z = ndtri(0.95)


def run(**changes):
    """Recover the parameters of `two_roads`."""
    arguments = {
        "game": two_roads(), "reward": avoid_crowds, "truth": ROADS_TRUTH, "n_agents": 400,
        "panels": 4, "random_seed": 1, "progressbar": False,
    }  # fmt: skip
    arguments |= changes
    return recovery(arguments.pop("game"), arguments.pop("reward"), **arguments)


@pytest.fixture(scope="module")
def known():
    return run(panels=PANELS, methods=("wald", "cluster"))


def test_errors_and_widths_are_those_of_the_information(known):
    """Estimates spread as the Fisher information says, and Wald intervals are as wide."""
    bse = mfg.design.expected_information(
        two_roads(), avoid_crowds, parameters=ROADS_TRUTH, n_agents=400
    ).bse
    found = known.table.loc["wald"]
    np.testing.assert_allclose(found["rmse"], bse[found.index], rtol=4 / np.sqrt(2 * PANELS))
    np.testing.assert_allclose(found["width"], 2 * Z * bse[found.index], rtol=0.03)
    assert (found["bias"].abs() < 4 * found["bias_error"]).all()
    assert (found["failed"] == 0).all()


def test_intervals_cover(known):
    """Wald intervals and the sandwich hold the truth nine times in ten."""
    table = known.table
    np.testing.assert_allclose(table["coverage_error"], np.sqrt(0.09 / PANELS))
    assert ((table["coverage"] - 0.9).abs() < 4 * table["coverage_error"]).all()
    assert known.intervals.groupby("method").size().to_dict() == {
        "cluster": 2 * PANELS, "wald": 2 * PANELS
    }  # fmt: skip


def test_the_table_is_the_mean_over_panels(known):
    """Bias, error and coverage are those of the intervals, counted by hand."""
    rows = known.intervals.query("method == 'cluster' and parameter == 'effort'")
    error = rows["estimate"] - ROADS_TRUTH["effort"]
    row = known.table.loc["cluster", "effort"]
    assert row["bias"] == pytest.approx(sum(error) / PANELS)
    assert row["rmse"] == pytest.approx(np.sqrt(sum(error**2) / PANELS))
    inside = [low <= ROADS_TRUTH["effort"] <= high for low, high in
              zip(rows["lower"], rows["upper"], strict=True)]  # fmt: skip
    assert row["coverage"] == pytest.approx(sum(inside) / PANELS)


def wide(x):
    """Reward of `two_roads` under wide priors without an edge."""
    crowding, effort = (pyro.sample(k, dist.Normal(0.0, 20.0)) for k in ROADS_TRUTH)
    return -crowding * x.density - effort * (x.action == "turn")


def test_all_methods_agree_where_the_data_are_many():
    """With 2,000 agents and wide priors, intervals of all methods nearly coincide."""
    fast = functools.partial(
        mfg.vi, max_steps=500, particles=4, learning_rate=0.003, log_likelihood=False
    )
    methods = {k: k for k in ("wald", "cluster", "bootstrap", "profile", "laplace", "nuts")}
    found = run(reward=wide, n_agents=2000, panels=2, methods={**methods, "fast vi": fast})
    assert found.failures.empty
    assert found.methods == (*methods, "fast vi")
    wald = found.intervals.query("method == 'wald'").set_index(["panel", "parameter"])
    width = wald["upper"] - wald["lower"]
    for _, rows in found.intervals.groupby("method"):
        rows = rows.set_index(["panel", "parameter"])
        for column in ("estimate", "lower", "upper"):
            assert ((rows[column] - wald[column]).abs() < 0.2 * width).all()


def test_the_observed_flow_is_another_model():
    """With the panel's own flow plugged in, the same panels give other estimates."""
    one, other = run(), run(mean_field="empirical")
    gap = (one.intervals["estimate"] - other.intervals["estimate"]).abs()
    assert (gap > 1e-6).all()
    assert "empirical flow" in repr(other)


def test_fits_that_fail_are_counted():
    """At the edge of a support an estimate has no Wald interval; a sampler may raise."""

    def broken(model, *, random_seed):
        raise RuntimeError("out of order\nfor long")

    truth = {"crowding": 1.0, "effort": 0.02}
    found = run(truth=truth, n_agents=30, panels=8, methods={"wald": "wald", "mine": broken})
    table = found.table
    n_wald = len(found.intervals) / 2
    assert table.loc[("wald", "effort"), "failed"] == 1 - n_wald / 8 > 0
    assert table.loc[("mine", "effort"), "failed"] == 1
    assert np.isnan(table.loc[("mine", "effort"), "coverage"])
    assert "not fitted: 8 x mine: out of order" in repr(found)
    assert len(found.failures) + n_wald == 2 * 8


@pytest.mark.slow
def test_results_do_not_depend_on_the_workers():
    """Two processes find what one does."""
    one, two = (run(panels=2, methods=["wald", "bootstrap"], n_jobs=n) for n in (1, 2))
    pd.testing.assert_frame_equal(one.intervals, two.intervals)


def test_stationary_games_are_recovered_over_given_times():
    """Nine times as many times seen give intervals a third as wide."""
    game, truth = stationary_repair.game(), stationary_repair.TRUTH
    few, many = (
        recovery(
            game, stationary_repair.reward, truth=truth, n_agents=60, n_times=n, panels=2,
            random_seed=1, progressbar=False,
        ).table["width"]
        for n in (10, 90)
    )  # fmt: skip
    np.testing.assert_allclose(few / many, 3, rtol=0.25)


@pytest.mark.parametrize(
    ("game", "reward", "truth"),
    [
        (two_roads(), avoid_crowds, ROADS_TRUTH),
        (stationary_repair.game(), stationary_repair.reward, stationary_repair.TRUTH),
    ],
)
def test_a_model_drawn_again_is_the_model_built_anew(game, reward, truth):
    """Shared dynamics and program give density, fit and scores of a model built from scratch."""
    panel = played(game, reward, truth, 50, 3)
    world = mfg.solve_equilibrium(game, reward, parameters=truth).value
    first = mfg.TrajectoryModel(game, reward, panel, mean_field=world.mean_field)
    again = resample(panel, panel.agents, 5)
    shared, anew = redrawn(first, again), first.with_panel(again)
    theta = np.array([0.3, -0.2])
    for a, b in zip(density_of(shared).evaluator()(theta), density_of(anew).evaluator()(theta),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=ROUNDING)
    one, two = (mfg.mle(m, init=truth, svi_steps=0, progressbar=False) for m in (shared, anew))
    np.testing.assert_allclose(one.params, two.params, rtol=1e-7)
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-6)
    assert density_of(shared).compiled is density_of(first).compiled
    assert shared.panel.n_decisions == again.n_decisions
    assert torch.equal(shared.observed, anew.observed)


def test_a_refit_near_is_the_maximum(roads_model):
    """From a like panel's fit it ends within a hundredth of a standard error of the maximum."""
    fit = mfg.mle(roads_model, progressbar=False)
    again = roads_model.with_panel(resample(roads_model.panel, roads_model.panel.agents, 7))
    found, expected = maximum_near(again, fit), mfg.mle(again, progressbar=False)
    assert (np.abs(found - expected.params) < 0.01 * expected.bse).all()


def test_expected_widths_are_twice_z_standard_errors():
    """By game, horizon and size they follow from the information of each."""
    game = two_roads()
    games = {"one": game, "both": [game, game.replace(initial=[0.1, 0.9])]}
    table = expected_widths(
        games,
        avoid_crowds,
        parameters=ROADS_TRUTH,
        n_agents=[100, 900],
        horizons=[2, 4],
        ci_prob=0.5,
    )
    assert len(table) == 2 * 2 * 2 * 2
    plays = [g.replace(horizon=2) for g in games["both"]]
    bse = mfg.design.expected_information(
        plays, avoid_crowds, parameters=ROADS_TRUTH, n_agents=900
    ).bse
    found = table.query("game == 'both' and horizon == 2 and n_agents == 900")
    found = found.set_index("parameter")
    np.testing.assert_allclose(found["std_err"], bse[found.index], rtol=ROUNDING)
    np.testing.assert_allclose(table["width"], 2 * ndtri(0.75) * table["std_err"], rtol=ROUNDING)
    assert table.attrs["ci_prob"] == 0.5
    alone = expected_widths(game, avoid_crowds, parameters=ROADS_TRUTH, n_agents=100)
    assert set(alone["horizon"]) == {4}


def test_agents_for_a_width_are_the_fewest():
    """With as many agents the width is reached, with one fewer it is not."""
    table = expected_widths(two_roads(), avoid_crowds, parameters=ROADS_TRUTH, n_agents=[50, 70])
    needed = int(agents_for(table, 0.3).loc[("game", 4), "crowding"])
    around = expected_widths(
        two_roads(), avoid_crowds, parameters=ROADS_TRUTH, n_agents=[needed - 1, needed]
    )
    more, less = around.query("parameter == 'crowding'")["width"]
    assert less <= 0.3 < more


def test_what_no_data_tell_needs_infinitely_many_agents():
    """A term in the crowd's shares alone has no width, and no number of agents helps."""

    def reward(x):
        tide = pyro.sample("tide", dist.Normal(0.0, 1.0))
        return avoid_crowds(x) + tide * x.share(state="left")

    table = expected_widths(two_roads(), reward, parameters={**ROADS_TRUTH, "tide": 1.0})
    needed = agents_for(table, 1.0)
    assert np.isinf(needed["tide"]).all()
    assert np.isfinite(needed[["crowding", "effort"]]).all(axis=None)
    assert set(needed) == {*ROADS_TRUTH, "tide"}


def test_widths_of_a_stationary_game_are_by_decisions():
    """Horizons are numbers of decisions where the game has none."""
    game, reward = stationary_repair.game(), stationary_repair.reward
    truth = stationary_repair.TRUTH
    table = expected_widths(game, reward, parameters=truth, horizons=[5, 20])
    bse = mfg.design.expected_information(game, reward, parameters=truth, n_times=20).bse
    found = table.query("horizon == 20").set_index("parameter")["std_err"]
    np.testing.assert_allclose(found, bse[found.index], rtol=ROUNDING)


def test_figures_show_what_the_tables_hold(known):
    """Each coverage and width is a point of its figure."""
    axis = plot_coverage(known).axes[0]
    shown = np.sort(np.concatenate([line.get_xdata() for line in axis.lines[1:]]))
    assert set(known.table["coverage"]) <= set(shown)
    widths = expected_widths(two_roads(), avoid_crowds, parameters=ROADS_TRUTH, n_agents=[10, 90])
    axes = plot_widths(widths).axes
    assert [a.get_title() for a in axes] == list(dict.fromkeys(widths["parameter"]))
    for axis in axes:
        expected = widths[widths["parameter"] == axis.get_title()]["width"]
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), expected)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"game": 3}, TypeError, "`game` must be a MeanFieldGame"),
        ({"methods": "walt"}, ValueError, "`methods` must be one of 'wald'.*did you mean `wald`"),
        ({"methods": []}, ValueError, "`methods` must name at least one"),
        (
            {"methods": {"mine": lambda model, random_seed: 1}},
            TypeError,
            "`methods` must return draws",
        ),
        ({"mean_field": "seen"}, ValueError, "`mean_field` must be one of 'known', 'emp"),
        ({"ci_prob": 90}, ValueError, "`ci_prob` must lie in"),
        ({"panels": 1}, ValueError, "`panels` must be at least 2"),
        ({"n_agents": 0}, ValueError, "`n_agents` must be at least 1"),
        ({"truth": {"crowding": 1.0}}, ValueError, "'effort'"),
        ({"truth": {"crowding": 1.0, "effort": -1.0}}, ValueError, "outside the support"),
        ({"n_times": 3}, ValueError, "`n_times` belongs to stationary games"),
        ({"game": two_roads(horizon=None, discount=0.9)}, ValueError, "say how many `n_times`"),
        ({"n_panels": 3}, TypeError, "did you mean `panels`"),
    ],
)
def test_wrong_inputs_say_what_is_wrong(change, error, words):
    """Messages name the argument and what came."""
    with pytest.raises(error, match=words):
        run(**change)


TABLE = pd.DataFrame({"game": [], "horizon": [], "n_agents": [], "parameter": [], "std_err": []})


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: agents_for(TABLE, 1.0), ValueError, "`widths` lacks the column 'width'"),
        (lambda: agents_for(3, 1.0), TypeError, "`widths` must be a DataFrame"),
        (lambda: agents_for(TABLE.assign(width=[]), 0.0), ValueError, "`width` must be above 0"),
        (lambda: plot_widths(TABLE), ValueError, "`widths` lacks the column 'width'"),
        (lambda: plot_coverage(3), TypeError, "`recovery` must be a Recovery"),
        (
            lambda: expected_widths({"a": 3}, avoid_crowds, parameters=ROADS_TRUTH),
            TypeError,
            "`games` must be a MeanFieldGame",
        ),
        (
            lambda: expected_widths(two_roads(), avoid_crowds, parameters={}, horizons=[]),
            ValueError,
            "`horizons` must name at least one",
        ),
        (
            lambda: expected_widths(two_roads(), avoid_crowds, parameters={}, ci_prob=2),
            ValueError,
            "`ci_prob` must lie in",
        ),
    ],
)
def test_wrong_designs_say_what_is_wrong(call, error, words):
    """Messages name the argument and what came."""
    with pytest.raises(error, match=words):
        call()


# the coupled likelihood


def sides(panels, **arguments):
    """Recover what company costs where all of the coupling lies in the future flow."""
    return recovery(
        left_right.game(horizon=6), left_right.reward, truth=left_right.TRUTH, n_agents=1000,
        panels=panels, random_seed=20250, progressbar=False, **arguments,
    )  # fmt: skip


def test_the_coupled_likelihood_counts_the_error_of_the_flow():
    """Its intervals are wider than the plug-in's, by a half at least, on the same panels."""
    coupled, plug_in = (sides(6, mean_field=flow) for flow in ("equilibrium", "empirical"))
    widths = [found.table.loc[("wald", "crowding"), "width"] for found in (coupled, plug_in)]
    assert widths[0] > 1.5 * widths[1]
    assert not len(coupled.failures)
    assert coupled.mean_field == "equilibrium"


def test_a_method_may_return_an_estimate():
    """Its Wald intervals are those of the method by name."""

    def own(model, *, random_seed):
        return mfg.mle(model, init=left_right.TRUTH, svi_steps=0, progressbar=False)

    found = sides(3, mean_field="empirical", methods={"own": own, "wald": "wald"}).intervals
    by_method = [rows[["estimate", "lower", "upper"]] for _, rows in found.groupby("method")]
    np.testing.assert_allclose(*by_method, rtol=1e-9)


@pytest.mark.slow
def test_intervals_of_the_coupled_likelihood_cover_where_the_plug_ins_do_not():
    """Ninety per cent within three Monte Carlo errors; the plug-in's far below."""
    coupled, plug_in = (
        sides(200, mean_field=flow).table.loc[("wald", "crowding")]
        for flow in ("equilibrium", "empirical")
    )
    assert abs(coupled["coverage"] - 0.9) < 3 * coupled["coverage_error"]
    assert plug_in["coverage"] < 0.9 - 5 * plug_in["coverage_error"]
