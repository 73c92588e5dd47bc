"""Running away: where the fitted game's own crowd goes, beside the one that was seen."""

import functools
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from games import ROADS_TRUTH, avoid_crowds, epidemic, fear, played, random_rows, two_roads

import mfgppl as mfg
from mfgppl.checks import runaway_crowds as module
from mfgppl.checks.runaway_crowds import runaway
from mfgppl.models import multiple_equilibria as standards

SOLVER = 1e-9  # ten times the tolerance of an equilibrium
MILD, STRONG = {"company": 0.0, "effort": 0.2}, {"company": 4.0, "effort": 0.2}


@functools.cache
def undecided():
    """Return the model of 400 agents who change standards at random, towards half and half."""
    game = standards.game()
    policy = torch.full(game.shape, 0.5, dtype=torch.float64)
    flow = mfg.equilibrium.generate_mean_field(game, policy)
    return standards.model(mfg.simulate(game, policy, flow, n_agents=400, random_seed=1))


@functools.cache
def settled():
    """Return the model of 300 agents who stay with the first standard, in equilibrium."""
    game = standards.game()
    found = mfg.equilibrium.find_equilibria(
        game, standards.reward, parameters=standards.TRUTH
    ).solutions
    first = min((s.value for s in found), key=lambda world: float(world.mean_field[-1, 1]))
    panel = mfg.simulate(game, first.policy, first.mean_field, n_agents=300, random_seed=1)
    return standards.model(panel)


def costs(x):
    """Reward without a crowd."""
    return pyro.sample("cost", dist.Normal(0.0, 1.0)) * (x.action == "raise") - 0.1 * x.price


def test_a_game_without_coupling_stays_within_what_sampling_gives():
    """Its one equilibrium generated the panel: the distance is a sampled total variation."""
    states = {"price": [3, 1, 2], "stock": ["low", "high"]}
    rows = {"transition": random_rows(1, 6, 2, 6), "initial": random_rows(2, 6)}
    game = mfg.MeanFieldGame(states=states, actions=["raise", "hold"], horizon=6, **rows)
    panel = played(game, costs, {"cost": 0.5}, 500, 1)
    model = mfg.TrajectoryModel(game, costs, panel)
    found = runaway(model, mfg.mle(model, progressbar=False), draws=50)
    assert found.probability == 0.0
    assert found.n_failed == 0
    assert not found.table["several"].any()
    assert 0.6 * found.chance < found.table["distance"].mean() < 1.5 * found.chance
    assert "At none of 50 draws" in found.verdict


def test_what_sampling_gives_is_the_mean_over_drawn_panels():
    """Panels drawn from the model's own flow lie as far from it as `chance` says."""
    model = undecided()
    rng, flow = np.random.default_rng(1), model.panel.mean_field()
    drawn = np.array([[rng.multinomial(400, row) / 400 for row in flow] for _ in range(300)])
    apart = 0.5 * np.abs(drawn - flow).sum(-1).mean()
    assert runaway(model, MILD).chance == pytest.approx(apart, rel=0.03)


def test_a_strongly_conformist_game_runs_away():
    """A crowd seen half and half gathers under a reward that makes company worth much."""
    mild, strong = (runaway(undecided(), values) for values in (MILD, STRONG))
    assert (mild.probability, strong.probability) == (0.0, 1.0)
    assert strong.table["largest"].item() > 0.9
    assert strong.largest < 0.6
    assert "probability 1: at 1 of 1 draws, 96% of the crowd in one state" in strong.verdict
    assert strong.verdict in repr(strong)


def test_the_distance_is_the_total_variation_to_the_equilibrium():
    """Half the sum of absolute differences of shares, averaged over time, by other functions."""
    model = undecided()
    world = mfg.solve_equilibrium(model.game, standards.reward, parameters=STRONG,
                                  mean_field=model.mean_field, throw=True).value  # fmt: skip
    frame = model.panel.to_frame().dropna()
    seen = pd.crosstab(frame["time"], frame["standard"], normalize="index")
    gap = np.abs(seen[["first", "second"]].to_numpy() - world.mean_field.numpy())
    row = runaway(model, STRONG).table.iloc[0]
    assert row["distance"] == pytest.approx(0.5 * gap.sum(1).mean(), abs=SOLVER)
    assert row["largest"] == pytest.approx(float(world.mean_field.max(1).values.mean()), abs=SOLVER)


def test_beyond_is_where_running_away_begins():
    distance = runaway(undecided(), STRONG).table["distance"].item()
    assert runaway(undecided(), STRONG, beyond=distance + 0.01).probability == 0.0
    assert runaway(undecided(), STRONG, beyond=distance - 0.01).probability == 1.0


def test_draws_points_and_replications_are_solved_one_by_one():
    """Half of the draws conform; a replication without an estimate is left out and said."""
    drawn = {"company": [[0.0, 4.0, 0.0, 4.0]], "effort": [[0.2] * 4]}
    draws = xr.Dataset({k: (("chain", "draw"), v) for k, v in drawn.items()})
    found = runaway(undecided(), xr.DataTree.from_dict({"posterior": draws}))
    assert found.table["runs_away"].tolist() == [False, True, False, True]
    assert found.probability == 0.5
    frame = pd.DataFrame({"company": [0.0, np.nan, 4.0], "effort": [0.2, 0.2, 0.2]})
    resampled = runaway(undecided(), frame)
    assert resampled.table["runs_away"].tolist() == [False, True]
    assert resampled.n_left_out == 1
    assert "left out: 1" in repr(resampled)


def test_a_point_estimate_is_drawn_around():
    """As many draws as asked, the same for the same seed, others for another."""
    point = mfg.mle(undecided(), progressbar=False)
    one, again, other = (runaway(undecided(), point, draws=10, random_seed=k) for k in (1, 1, 2))
    assert len(one.table) == 10
    assert one.table["distance"].nunique() == 10
    pd.testing.assert_frame_equal(one.table, again.table)
    assert (one.table["distance"] != other.table["distance"]).any()


def test_several_equilibria_at_a_draw_are_counted():
    """From the observed flow the crowd stays; from the mean draw's equilibrium, where changing
    pays, it does not.
    """
    draws = pd.DataFrame({"company": [2.0, 2.0, 2.0], "effort": [1.0, -1.0, -2.0]})
    table = runaway(settled(), draws).table
    assert table["several"].tolist() == [True, False, False]
    assert table["runs_away"].tolist() == [False, True, True]


def test_a_draw_without_an_equilibrium_runs_away(monkeypatch):
    real = module.attempt
    monkeypatch.setattr(module, "attempt", lambda *a: real(*a)._replace(converged=False))
    found = runaway(undecided(), MILD)
    assert found.probability == 1.0
    assert found.n_failed == 1
    assert "1 of them without an equilibrium." in found.verdict
    monkeypatch.setattr(module, "attempt", lambda *a: None)
    assert runaway(undecided(), MILD).table["residual"].item() == np.inf


@pytest.mark.parametrize("kind", ["epidemic", "stationary", "joint"])
def test_other_kinds_of_games(kind):
    """Dynamics that answer the crowd, no horizon, a crowd of states and actions."""
    game, reward, truth = two_roads(horizon=None, discount=0.8), avoid_crowds, ROADS_TRUTH
    if kind == "epidemic":
        game, reward, truth = epidemic(), fear, {"illness": 1.0, "distance": 0.5}
    if kind == "joint":
        game = two_roads(joint=True)
    model = mfg.TrajectoryModel(game, reward, played(game, reward, truth, 400, 4))
    found = runaway(model, truth)
    assert found.n_failed == 0
    assert found.table["distance"].item() < 5 * found.chance


def test_the_figure_shows_the_bound_and_the_observed_share():
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = mfg.plots.plot_runaway(runaway(undecided(), STRONG))
    left, right = figure.axes
    assert [line.get_xdata()[0] for line in left.lines][1] == 0.2
    assert right.lines[0].get_xdata()[0] == pytest.approx(
        undecided().panel.mean_field().max(1).mean()
    )
    assert sum(bar.get_height() for bar in left.patches) == 1
    plt.close("all")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": 1}, TypeError, "`model` must be a TrajectoryModel"),
        ({"fit": 1}, TypeError, "`fit` must be posterior draws"),
        ({"fit": pd.DataFrame({"a": [1.0]})}, ValueError, r"`fit` has the columns \['a'\]"),
        ({"draws": 0}, ValueError, "`draws` must be at least 1"),
        ({"beyond": 1.0}, ValueError, r"`beyond` must lie in \(0, 1\)"),
        ({"beyond": "far"}, TypeError, "`beyond` must be a number"),
        ({"tolerance": 0.0}, ValueError, "`tolerance` must be above 0"),
        ({"max_steps": 0}, ValueError, "`max_steps` must be at least 1"),
        ({"random_seed": -1}, ValueError, "`random_seed` must be at least 0"),
        ({"seed": 1}, TypeError, "did you mean `random_seed`"),
    ],
)
def test_wrong_inputs(roads_model, change, error, words):
    given = {"model": roads_model, "fit": ROADS_TRUTH} | change
    with pytest.raises(error, match=words):
        runaway(given.pop("model"), given.pop("fit"), **given)


def test_the_figure_needs_a_result():
    with pytest.raises(TypeError, match="`result` must be a Runaway"):
        mfg.plots.plot_runaway(3)
