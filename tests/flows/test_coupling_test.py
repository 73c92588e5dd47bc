"""Tests of coupling terms: what reflection alone gives, and what it does not explain."""

import functools
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
from games import ROADS_TRUTH, STANDARD_ERRORS, as_frame, avoid_crowds, played, two_roads

import mfgppl as mfg
from mfgppl.estimation.refits_along_flows import Refits
from mfgppl.flows.coupling import coupling_test
from mfgppl.plots.reflection import plot_coupling

ROADS = two_roads()


def alone(x):
    """Return the reward of `two_roads` without the crowd."""
    return -pyro.sample("effort", dist.HalfNormal(1.0)) * (x.action == "turn")


def pulled(x):
    """Return the reward of `two_roads` with a pull to the left road."""
    return avoid_crowds(x) + pyro.sample("pull", dist.Normal(0.0, 1.0)) * (x.state == "left")


ALONE, COUPLED = {"effort": 0.4}, {"effort": 2.0, "crowding": 3.0}


def models(panel, **arguments):
    """Return the model with coupling and the one without."""
    return [
        mfg.TrajectoryModel(ROADS, reward, panel, **arguments) for reward in (avoid_crowds, alone)
    ]


def result_of(reward, truth, seed, n_agents=200, replications=39, **arguments):
    panel = played(ROADS, reward, truth, n_agents, seed)
    return coupling_test(*models(panel), replications=replications, random_seed=1, **arguments)


@functools.cache
def without_coupling():
    return result_of(alone, ALONE, 1, replications=59)


@functools.cache
def with_coupling():
    return result_of(avoid_crowds, COUPLED, 2, n_agents=1000, replications=19)


def test_whoever_alone_determines_a_parameter_has_no_held_out_score():
    """The rest's refit would keep what the agent's own choices said of it."""
    frame = as_frame(played(ROADS, avoid_crowds, ROADS_TRUTH, 30, 2))
    one = frame["agent"].iloc[0]
    frame["kind"] = np.where(frame["agent"] == one, "rare", "common")
    panel = mfg.Trajectories.from_frame(frame, types=["kind"])
    game = two_roads(types={"kind": ["rare", "common"]}, initial=np.full(4, 0.25))
    terms = {
        "effort": lambda x: x.action == "turn",
        "own": lambda x: (x.kind == "rare") * (x.action == "turn"),
        "crowding": "density",
    }
    full, null = (
        mfg.TrajectoryModel(
            game, mfg.linear_reward({k: terms[k] for k in kept}, dist.Normal(0.0, 1.0)), panel
        )
        for kept in (("effort", "own", "crowding"), ("effort", "own"))
    )
    found = coupling_test(full, null, replications=19, folds=5, random_seed=1, progressbar=False)
    assert np.isnan(found.gains[str(one)])
    assert found.gains.isna().sum() == 30 // 5
    assert "6 of 30 agents have no held-out score" in repr(found)
    assert found.n_failed == 0


def by_time(x):
    """Return `alone` with an effort of its own at each time, as one site."""
    effort = pyro.sample("effort", dist.Normal(0.0, 3.0).expand([4]).to_event(1))
    return -effort[:, None, None] * (x.action == "turn")


def test_sites_may_be_vectors():
    """Both models have a site of four entries; the ratio is that of their fits."""
    panel = played(ROADS, alone, ALONE, 200, 1)

    def crowded(x):
        return by_time(x) - pyro.sample("crowding", dist.Normal(0.0, 1.0)) * x.density

    full, null = (mfg.TrajectoryModel(ROADS, reward, panel) for reward in (crowded, by_time))
    test = coupling_test(full, null, replications=19, random_seed=1)
    ratio = 2 * (mfg.mle(full, flow_bias=False).llf - mfg.mle(null).llf)
    assert test.statistic == pytest.approx(ratio, abs=1e-6)
    assert test.n_failed == 0
    assert list(test.estimates) == ["crowding"]


def test_the_table_is_what_its_parts_say():
    test, panel = without_coupling(), played(ROADS, alone, ALONE, 200, 1)
    full, null = (mfg.mle(m, svi_steps=0, flow_bias=False) for m in models(panel))
    assert test.statistic == pytest.approx(2 * (full.llf - null.llf), abs=1e-6)
    assert test.df == 1
    table = test.table
    naive = scipy.stats.chi2.sf(test.statistic, 1)
    assert table.loc["chi-squared", "p"] == pytest.approx(naive, rel=1e-4)
    assert table.loc["chi-squared", "upper"] == pytest.approx(scipy.stats.chi2.ppf(0.95, 1))
    assert test.p == ((test.drawn >= test.statistic).sum() + 1) / 60
    crowding = test.estimates["crowding"]
    assert crowding["observed"] == pytest.approx(full.params["crowding"], rel=1e-4)
    others = crowding.drop("observed")
    away = (others - crowding.mean()).abs() >= abs(crowding["observed"] - crowding.mean())
    assert table.loc["bootstrap estimates", "p"] == (away.sum() + 1) / 60
    gains = scipy.stats.ttest_1samp(test.gains, 0.0, alternative="greater")
    assert table.loc["held-out agents", "statistic"] == pytest.approx(gains.statistic)
    assert len(test.gains) == 200
    assert table["survives"].tolist() == [False, True, True, False, True]


def test_shifted_flows_are_shifted_in_a_circle():
    panel = played(ROADS, alone, ALONE, 200, 1)
    full, null = models(panel)
    flow = full.mean_field.numpy()
    moved = models(panel, mean_field=flow[[3, 0, 1, 2]])[0]
    by_hand = 2 * (mfg.mle(moved, svi_steps=0).llf - mfg.mle(null, svi_steps=0).llf)
    assert without_coupling().shifted.index.tolist() == [1, 2, 3]
    assert without_coupling().shifted[1] == pytest.approx(by_hand, abs=1e-4)


def test_reflection_swells_likelihood_ratios():
    """Where nobody looks at anybody they exceed their chi-squared law; the bootstrap knows."""
    drawn = without_coupling().drawn
    assert np.isfinite(drawn).all()
    assert (drawn >= 0).all()
    above = (drawn > scipy.stats.chi2.ppf(0.95, 1)).mean()
    assert above > 0.05 + STANDARD_ERRORS * np.sqrt(0.05 * 0.95 / 59)


def test_along_a_known_flow_ratios_are_chi_squared():
    """Without a flow made of the choices there is no reflection, and the textbook holds."""
    world = mfg.solve_equilibrium(ROADS, alone, parameters=ALONE, throw=True).value
    panel = played(ROADS, alone, ALONE, 400, 1)
    test = coupling_test(
        *models(panel, mean_field=world.mean_field), replications=99, random_seed=1
    )
    assert scipy.stats.kstest(test.drawn, scipy.stats.chi2(1).cdf).pvalue > 0.001


def test_coupling_that_is_there_is_found():
    test = with_coupling()
    assert test.p == 1 / 20
    assert "gain more than reflection alone" in test.verdict
    assert test.table.loc["bootstrap estimates", "p"] == 1 / 20
    assert test.table.loc["held-out agents", "p"] < 0.001
    assert "left out" not in test.verdict
    unlike = replace(test, gains=-test.gains)
    assert "; but agents left out are predicted worse with them, by " in unlike.verdict


def test_it_is_reproducible():
    first, again = (result_of(alone, ALONE, 3, n_agents=60, replications=19) for _ in range(2))
    np.testing.assert_array_equal(first.drawn, again.drawn)
    assert first.table.equals(again.table)
    assert first.verdict in repr(first)


def test_terms_of_the_crowd_that_stay_in_the_null_are_solved_for():
    """A pull to the left is tested in a world of congestion."""
    panel = played(ROADS, avoid_crowds, ROADS_TRUTH, 1000, 1)
    full, null = (mfg.TrajectoryModel(ROADS, r, panel) for r in (pulled, avoid_crowds))
    test = coupling_test(full, null, replications=19, random_seed=1)
    assert test.df == 1
    assert np.isfinite(test.drawn).sum() >= 15


@pytest.mark.slow
def test_the_bootstrap_has_its_size_and_chi_squared_has_not():
    """Of 200 worlds without coupling the bootstrap rejects about one in twenty."""
    ps = [result_of(alone, ALONE, k, n_agents=100, replications=19).table["p"] for k in range(200)]
    rejected = np.array([p <= 0.05 for p in ps]).mean(0)
    error = np.sqrt(0.05 * 0.95 / 200)
    assert (np.abs(rejected[1:3] - 0.05) < 3 * error).all()
    assert rejected[0] > 0.05 + 3 * error


def test_the_figure_shows_the_ratio_its_reference_and_the_textbook():
    import matplotlib.pyplot as plt

    figure = plot_coupling(without_coupling())
    ratio, estimate = figure.axes
    assert estimate.get_xlabel() == "estimate of crowding"
    assert {t.get_text() for t in figure.legends[0].get_texts()} == {
        "panels drawn without coupling",
        "chi-squared, 1 degree of freedom",
        "observed",
    }
    for axis in figure.axes:
        area = sum(bar.get_height() * bar.get_width() for bar in axis.patches)
        assert area == pytest.approx(1.0)
    observed = without_coupling().statistic
    assert observed in [line.get_xdata()[0] for line in ratio.lines]
    plt.close(figure)


def test_the_figure_shows_the_ratios_drawn_where_the_observed_one_is_far_out():
    """On an axis up to the observed ratio all those drawn would be one bar; it is written."""
    import matplotlib.pyplot as plt

    far = replace(without_coupling(), statistic=1e4)
    ratio = plot_coupling(far).axes[0]
    drawn = far.drawn.max()
    assert drawn < ratio.get_xlim()[1] < 2 * max(drawn, scipy.stats.chi2.ppf(0.99, 1))
    assert any("10000" in text.get_text() for text in ratio.texts)
    plt.close("all")


def test_wrong_inputs_are_refused():
    panel = played(ROADS, alone, ALONE, 20, 1)
    full, null = models(panel)
    other = models(played(ROADS, alone, ALONE, 20, 2))[1]
    counts = mfg.TrajectoryModel(ROADS, avoid_crowds, panel, likelihood="energy")
    for arguments, kind, words in [
        ((full, other), ValueError, "must be of the same panel and flow"),
        ((null, full), ValueError, "must have parameters that `null` lacks"),
        ((full, 3), TypeError, "`null` must be a TrajectoryModel"),
        ((counts, null), ValueError, "needs likelihood='causal'"),
    ]:
        with pytest.raises(kind, match=words):
            coupling_test(*arguments, random_seed=1, replications=19)
    with pytest.raises(ValueError, match="`replications` must be at least 19"):
        coupling_test(full, null, random_seed=1, replications=3)
    with pytest.raises(TypeError, match="must be a CouplingTest; got int"):
        plot_coupling(3)


@functools.cache
def coupled_test(kind):
    reward, truth = {"alone": (alone, ALONE), "crowd": (avoid_crowds, COUPLED)}[kind]
    panel = played(ROADS, reward, truth, 1000, 2)
    return coupling_test(*models(panel, mean_field="equilibrium"), replications=39, random_seed=1)


def test_of_coupled_models_rows_about_other_flows_are_left_out():
    """Their flow is no outcome of the choices explained: chi-squared survives."""
    test = coupled_test("crowd")
    rows = ["chi-squared", "bootstrap ratio", "bootstrap estimates"]
    assert test.table.index.tolist() == rows
    assert test.table["survives"].all()
    assert test.coupled
    assert len(test.shifted) == len(test.gains) == 0
    assert "more than chance alone" in test.verdict


def test_ratios_of_coupled_models_are_chi_squared_without_coupling():
    drawn = coupled_test("alone").drawn
    drawn = drawn[np.isfinite(drawn)]
    assert len(drawn) >= 35
    assert scipy.stats.kstest(drawn, scipy.stats.chi2(1).cdf).pvalue > 0.001


def test_models_of_one_panel_with_flows_of_two_kinds_are_refused():
    panel = played(ROADS, alone, ALONE, 200, 1)
    coupled = models(panel, mean_field="equilibrium")[0]
    with pytest.raises(ValueError, match="same panel and flow"):
        coupling_test(coupled, models(panel)[1], random_seed=1, replications=19)


def test_refits_in_a_recorded_world_are_those_of_models_compiled_anew():
    """One recording serves all flows: estimates, likelihoods and policies are the same."""
    panel, other = (played(ROADS, avoid_crowds, ROADS_TRUTH, 200, k) for k in (1, 2))
    model = models(panel)[0]
    refits = Refits(model, mfg.mle(model, svi_steps=0, flow_bias=False))
    assert refits.recorded
    fast, slow = refits(other), refits._compiled_anew(other, other.mean_field())
    assert fast.found.value == pytest.approx(slow.found.value, abs=1e-6)
    np.testing.assert_allclose(fast.values, slow.values, atol=1e-3)
    np.testing.assert_allclose(fast.log_policy, slow.log_policy, atol=1e-3)
