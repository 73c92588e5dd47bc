"""Treatments of the crowd's flow side by side: what they are, and which one a panel supports."""

import functools

import games
import matplotlib
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg
from mfgppl.models import market, sis

matplotlib.use("Agg")
PARTS, FOLDS = 5, 3  # the jackknife fits without each two parts


@functools.cache
def firms():
    """The market's model of 300 firms in equilibrium."""
    panel = mfg.Trajectories.from_frame(market.frame(300, random_seed=3), **market.COLUMNS)
    return market.model(panel)


@functools.cache
def found():
    """Its treatments."""
    return mfg.flows.treatments(firms(), parts=PARTS, folds=FOLDS, replications=39, random_seed=1)


def test_each_fit_is_that_of_its_own_function():
    """Parts and folds by the seed given."""
    fits, model = found().fits, firms()
    own = {
        "plug-in": mfg.mle(model, svi_steps=0, progressbar=False),
        "jackknife": mfg.jackknife(model, parts=PARTS, random_seed=1),
        "cross-fit": mfg.flows.cross_fit(model, folds=FOLDS, random_seed=1),
        "coupled": mfg.flows.efficient_pseudo_likelihood(model).estimate,
    }
    assert list(fits) == list(own)
    for name, fit in own.items():
        pd.testing.assert_series_equal(fits[name].params, fit.params, rtol=1e-5)
        rows = found().table.xs(name, level="treatment")
        assert rows["std_err"].tolist() == fits[name].bse.tolist()


def test_a_crowd_in_equilibrium_whose_count_costs_much_is_coupled():
    """The verdict says which coefficients are off, and by what the crowd counts as near."""
    assert found().p_equilibrium > 0.05
    assert found().recommended == "coupled"
    assert "margin, crowding off" in found().verdict
    assert "coupled: assumes that" in repr(found())


def test_a_count_that_costs_little_leaves_the_plug_in():
    """In an epidemic whose crowd enters by the dynamics."""
    game = sis.game(horizon=10)
    world = mfg.solve_equilibrium(game, sis.reward, parameters=sis.TRUTH).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=300, random_seed=1)
    few = mfg.flows.treatments(
        mfg.TrajectoryModel(game, sis.reward, panel), parts=PARTS, folds=FOLDS, replications=9
    )
    assert few.recommended == "plug-in"
    assert "good enough" in few.verdict


def test_a_crowd_in_no_equilibrium_gets_the_jackknife():
    """Firms of which all but a few began elsewhere than the game says."""
    game = market.game()
    world = mfg.solve_equilibrium(game, market.reward, parameters=market.TRUTH).value
    elsewhere = game.replace(initial=np.array([0.3, 0.3, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]))
    flow = mfg.equilibrium.generate_mean_field(elsewhere, world.policy)
    panel = mfg.simulate(elsewhere, world.policy, flow, n_agents=300, random_seed=1)
    model = mfg.TrajectoryModel(game, market.reward, panel)
    away = mfg.flows.treatments(model, parts=PARTS, folds=FOLDS, replications=39, random_seed=1)
    assert away.p_equilibrium < 0.05
    assert away.recommended == "jackknife"
    assert "farther from the equilibrium" in away.verdict


def test_a_treatment_without_an_estimate_says_why():
    """The nested iteration cycles where the crowd answers itself strongly."""
    with pytest.MonkeyPatch.context() as patch:

        def fails(*args, **options):
            raise mfg.exceptions.ConvergenceError("it cycles")

        patch.setattr("mfgppl.flows.side_by_side.nested_pseudo_likelihood", fails)
        both = mfg.flows.treatments(firms(), parts=PARTS, folds=FOLDS, nested=True, replications=9)
    assert both.failures == {"nested": "it cycles"}
    assert "nested: no estimate, it cycles" in repr(both)


def test_a_test_of_the_crowds_terms_joins_on_request(roads_model):
    """Its verdict is among the lines."""

    def null(x):
        return -pyro.sample("effort", dist.HalfNormal(1.0)) * (x.action == "turn")

    without = mfg.TrajectoryModel(games.two_roads(), null, roads_model.panel)
    both = mfg.flows.treatments(
        roads_model, null=without, parts=PARTS, folds=FOLDS, replications=19, random_seed=1
    )
    assert both.coupling.verdict in repr(both)


@pytest.mark.usefixtures("few_panels", "blank_figures")
def test_the_figure_and_the_section_of_a_report(tmp_path):
    """A panel for each parameter; the verdict on the page."""
    figure = mfg.plots.plot_treatments(found())
    assert [axis.get_xlabel() for axis in figure.axes] == list(market.TRUTH)
    fit = found().fits["plug-in"]
    page = mfg.report(fit, tmp_path / "a.html", model=firms(), treatments=found())
    assert "How should the crowd" in page.read_text()
    with pytest.raises(TypeError, match=r"mfg\.flows\.treatments"):
        mfg.report(fit, tmp_path / "b.html", model=firms(), treatments=fit)


def test_wrong_models_are_refused(roads_model):
    """A flow that is given or solved for, a counted panel, the energy likelihood."""
    counted = roads_model.with_panel(mfg.CountedPanel.from_trajectories(roads_model.panel))
    energy = mfg.TrajectoryModel(
        games.two_roads(), games.avoid_crowds, roads_model.panel, likelihood="energy"
    )
    for model, message in (
        (roads_model.along("equilibrium"), "panel's own flow"),
        (roads_model.along(roads_model.mean_field), "panel's own flow"),
        (counted, "treatments"),
        (energy, "causal"),
    ):
        with pytest.raises(ValueError, match=message):
            mfg.flows.treatments(model)
