"""The exploitability of an observed crowd: zero in equilibrium, and what is beyond chance."""

import functools

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr
from games import (
    ROADS_TRUTH,
    ROUNDING,
    STANDARD_ERRORS,
    avoid_crowds,
    epidemic,
    fear,
    played,
    two_roads,
)

import mfgppl as mfg
from mfgppl.checks.distance_from_equilibrium import observed_exploitability
from mfgppl.models import market
from mfgppl.plots.checks import plot_exploitability

NOTHING = {"crowding": 0.0, "effort": 0.0}
LABELS = {"state_labels": {"state": ["left", "right"]}, "action_labels": ["stay", "turn"]}


def all_paths(horizon=3, copies=1):
    """Return drivers from both roads who take each course of action once."""
    rows = []
    for agent, (start, *path) in enumerate(np.ndindex(2, *[2] * horizon, copies)):
        road = start
        for t, action in enumerate(path[:horizon]):
            rows.append((agent, t, ["left", "right"][road], ["stay", "turn"][action]))
            road ^= action
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    frame["half"] = frame["agent"] % 2
    return mfg.Trajectories.from_frame(frame, groups=["half"], **LABELS)


def even(horizon=3):
    return two_roads(horizon=horizon, initial=[0.5, 0.5])


@functools.cache
def shops():
    game = market.game().replace(horizon=8, features={})
    solved = mfg.solve_equilibrium(game, market.reward, parameters=market.TRUTH, throw=True)
    return game, solved.value


def market_panel(policy, seed, n_agents=300):
    game, truth = shops()
    panel = mfg.simulate(game, policy, truth.mean_field, n_agents=n_agents, random_seed=seed)
    return mfg.TrajectoryModel(game, market.reward, panel)


def test_a_panel_whose_shares_are_exactly_in_equilibrium_is_not_exploitable():
    """Without rewards all policies are optimal, and the even one is the regularised answer."""
    model = mfg.TrajectoryModel(even(), avoid_crowds, all_paths())
    found = observed_exploitability(model, NOTHING, draws=20, random_seed=1)
    rounds = found.rounds
    assert (rounds[["regularised", "plain", "distance"]].abs() < ROUNDING).all(axis=None)
    assert (rounds["regularised_reference"] > 0.001).all()  # sampling noise alone
    assert found.filled == 0.0
    assert found.table.loc["regularised exploitability", "p"] > 0.9


def test_measures_are_those_of_the_empirical_policy():
    """The public functions at shares of actions counted with pandas, the fitted ones elsewhere."""
    game = two_roads(horizon=5)
    panel = played(game, avoid_crowds, ROADS_TRUTH, 6, 3)
    model = mfg.TrajectoryModel(game, avoid_crowds, panel)
    fitted = mfg.policy(model, ROADS_TRUTH)
    counts = panel.to_frame().groupby(["time", "state", "action"]).size()
    policy, filled = fitted.copy(), np.zeros((5, 2), dtype=bool)
    for t in range(5):
        for s in ("left", "right"):
            here = counts.get((t, s))
            filled[t, ["left", "right"].index(s)] = here is None
            if here is not None:
                for a in ("stay", "turn"):
                    policy.loc[{"time": t, "state": s, "action": a}] = here.get(a, 0) / here.sum()
    assert filled.any()
    found = observed_exploitability(model, ROADS_TRUTH, draws=3, random_seed=1)
    arguments = (game, avoid_crowds, policy)
    plain = mfg.equilibrium.exploitability(*arguments, parameters=ROADS_TRUTH)
    regularised = mfg.equilibrium.regularised_exploitability(*arguments, parameters=ROADS_TRUTH)
    np.testing.assert_allclose(found.rounds["plain"], plain, rtol=1e-9)
    np.testing.assert_allclose(found.rounds["regularised"], regularised, rtol=1e-9)
    world = mfg.solve_equilibrium(game, avoid_crowds, parameters=ROADS_TRUTH).value
    apart = 0.5 * np.abs(panel.mean_field() - world.mean_field.numpy()).sum(1).mean()
    np.testing.assert_allclose(found.rounds["distance"], apart, rtol=1e-6)
    flow = mfg.equilibrium.generate_mean_field(game, np.asarray(policy)).numpy()
    np.testing.assert_allclose(found.filled, flow[filled].sum() / 5)


def equilibrium_ps(seeds):
    """Return the p of each measure of panels in the equilibrium, at the truth."""
    truth = shops()[1]
    found = [
        observed_exploitability(
            market_panel(truth.policy, seed), market.TRUTH, draws=60, random_seed=seed
        ).table["p"]
        for seed in seeds
    ]
    return np.array(found)


@pytest.mark.slow
def test_p_values_of_crowds_in_equilibrium_are_uniform():
    for ps in equilibrium_ps(range(100, 180)).T:
        assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01


def test_a_crowd_that_plays_an_equilibrium_is_not_rejected():
    ps = equilibrium_ps(range(6))
    assert (ps[:, 0] > 0.05).all()
    assert all(scipy.stats.kstest(p, "uniform").pvalue > 0.01 for p in ps.T)
    model = market_panel(shops()[1].policy, 1)
    found = observed_exploitability(model, market.TRUTH, draws=60, random_seed=1)
    assert "as near to equilibrium" in found.verdict


def test_a_crowd_at_random_under_a_strong_reward_is_rejected():
    game = shops()[0]
    at_random = np.full(game.shape, 1 / 3)
    strong = {"margin": 1.0, "crowding": 2.0, "menu_cost": 1.5}
    wrong = observed_exploitability(market_panel(at_random, 1), strong, draws=60, random_seed=1)
    assert (wrong.table["p"] < 0.02).all()
    assert (wrong.table["lower"] > wrong.table["reference_upper"]).all()
    assert "further from equilibrium" in repr(wrong)


def test_the_interval_covers_what_other_panels_of_the_world_show():
    """Its width is that of the measure over panels drawn anew, within a factor."""
    _, truth = shops()
    first = observed_exploitability(market_panel(truth.policy, 1), market.TRUTH, draws=60,
                                    random_seed=1)  # fmt: skip
    anew = [
        observed_exploitability(market_panel(truth.policy, 50 + k), market.TRUTH, draws=2,
                                random_seed=1).rounds["plain"].iloc[0]
        for k in range(20)
    ]  # fmt: skip
    row = first.table.loc["exploitability"]
    width = (row["upper"] - row["lower"]) / (2 * 1.645)
    assert 0.6 < width / np.std(anew, ddof=1) < 1.7


def test_posterior_draws_each_have_their_own_world():
    _, truth = shops()
    model = market_panel(truth.policy, 2)
    drawn = {k: (("chain", "draw"), v + np.arange(20).reshape(2, 10) / 100)
             for k, v in market.TRUTH.items()}  # fmt: skip
    draws = xr.DataTree.from_dict({"posterior": xr.Dataset(drawn)})
    found = observed_exploitability(model, draws, draws=10, random_seed=1)
    assert len(found.rounds) == 10
    assert found.rounds["regularised"].nunique() == 10


def test_groups_are_resampled_whole():
    """With two groups a resampled panel is one of them twice or the panel itself."""
    model = mfg.TrajectoryModel(even(), avoid_crowds, all_paths(copies=2))
    kinds = {
        cluster: observed_exploitability(
            model, NOTHING, draws=30, cluster=cluster, random_seed=1
        ).rounds["regularised_resampled"]
        for cluster in ("agent", "half")
    }
    assert kinds["half"].round(9).nunique() <= 3
    assert kinds["agent"].round(9).nunique() > 10


def test_draws_without_an_equilibrium_are_counted(monkeypatch):
    model = mfg.TrajectoryModel(even(), avoid_crowds, all_paths())
    from mfgppl.checks import distance_from_equilibrium as observed

    real = observed.solved_from

    def fails(*args, **kwargs):
        return real(*args, **kwargs)._replace(converged=False)

    monkeypatch.setattr(observed, "solved_from", fails)
    found = observed_exploitability(model, NOTHING, draws=3, random_seed=1)
    assert found.n_failed == 3
    assert found.table.isna().all(axis=None)
    assert "No equilibrium" in repr(found)
    assert "3 of 3 draws without" in repr(found)


@pytest.mark.parametrize("kind", ["epidemic", "stationary", "joint"])
def test_other_kinds_of_games(kind):
    """Dynamics that answer the crowd, no horizon, a crowd of states and actions."""
    game, reward, truth = two_roads(horizon=None, discount=0.8), avoid_crowds, ROADS_TRUTH
    if kind == "epidemic":
        game, reward, truth = epidemic(), fear, {"illness": 1.0, "distance": 0.5}
    if kind == "joint":
        game = two_roads(joint=True)
    model = mfg.TrajectoryModel(game, reward, played(game, reward, truth, 200, 4))
    found = observed_exploitability(model, truth, draws=20, random_seed=1)
    assert found.n_failed == 0
    assert (found.table["p"] > 0.02).all()
    error = found.rounds["distance_reference"].std() / np.sqrt(20)
    assert found.table.loc["distance of the flow", "reference"] > STANDARD_ERRORS * error


def test_the_figure_shows_the_table():
    import matplotlib.pyplot as plt

    model = mfg.TrajectoryModel(even(), avoid_crowds, all_paths())
    found = observed_exploitability(model, NOTHING, draws=5, random_seed=1)
    figure = plot_exploitability(found)
    assert len(figure.axes) == 3
    dots = sorted(float(line.get_xdata()[0]) for line in figure.axes[0].lines)
    expected = found.table.iloc[0][["observed", "reference"]]
    np.testing.assert_allclose(dots, sorted(expected))
    plt.close("all")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": 1}, TypeError, "`model` must be a TrajectoryModel"),
        ({"fit": 1}, TypeError, "`fit` must be posterior draws"),
        ({"draws": 1}, ValueError, "`draws` must be at least 2"),
        ({"cluster": "firm"}, ValueError, "`cluster` must be one of 'agent'; got 'firm'"),
        ({"random_seed": "a"}, TypeError, "`random_seed` must be an integer"),
        ({"clusters": "agent"}, TypeError, "did you mean `cluster`"),
    ],
)
def test_wrong_inputs(roads_model, change, error, words):
    given = {"model": roads_model, "fit": ROADS_TRUTH, "random_seed": 1} | change
    with pytest.raises(error, match=words):
        observed_exploitability(given.pop("model"), given.pop("fit"), **given)
