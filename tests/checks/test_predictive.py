"""Predictive checks against laws worked out by hand."""

import functools
from dataclasses import replace

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
import xarray as xr
from games import ROADS_TRUTH, STANDARD_ERRORS, avoid_crowds, epidemic, fear, played, two_roads

import mfgppl as mfg
from mfgppl.checks.predictive import predictive_check
from mfgppl.data.selection import before
from mfgppl.plots.checks import plot_choice_check, plot_flow_check, plot_statistics
from mfgppl.posterior.fit_values import upper_tail

BUILT_IN = [
    "flow", "choice_by_state", "choice_by_time", "stays", "switches", "switchers",
    "spread of moves",
]  # fmt: skip


@functools.cache
def roads(n_agents=200, seed=1):
    """Drivers at the truth along the equilibrium's flow, and the policy."""
    game = two_roads()
    world = mfg.solve_equilibrium(game, avoid_crowds, parameters=ROADS_TRUTH, throw=True).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=n_agents, random_seed=seed)
    model = mfg.TrajectoryModel(game, avoid_crowds, panel, mean_field=world.mean_field)
    return model, world.policy.numpy()


def reached(policy, time):
    """Return the chance (2, 2) to be on each road at a time, by the road of the start."""
    chance = np.eye(2)
    for t in range(time):
        stay, turn = policy[t, :, 0], policy[t, :, 1]
        chance = chance * stay + (chance * turn)[:, ::-1]
    return chance


def test_bands_of_the_flow_are_quantiles_of_the_exact_law():
    """How many are on the left is a sum of two binomials, one a road of the start."""
    model, policy = roads()
    check = predictive_check(model, ROADS_TRUTH, draws=800, random_seed=1)
    first = model.panel.state[model.panel.offsets[:-1]]
    n = np.bincount(first, minlength=2)
    for t in (1, 3):
        left = reached(policy, t)[:, 0]
        laws = [scipy.stats.binom(n[k], left[k]).pmf(np.arange(n[k] + 1)) for k in (0, 1)]
        law = np.convolve(*laws)
        count = np.arange(len(law))
        mean, cumulative = law @ count, law.cumsum()
        spread = np.sqrt(law @ (count - mean) ** 2)
        found = check.arrays["flow"].sel(time=t, state="left") * n.sum()
        assert abs(float(found["mean"]) - mean) < STANDARD_ERRORS * spread / np.sqrt(800)
        for word, level in (("lower", 0.05), ("upper", 0.95)):
            error = STANDARD_ERRORS * np.sqrt(0.05 * 0.95 / 800)
            at = np.searchsorted(cumulative, [level - error, level + error])
            assert at[0] <= float(found[word]) <= at[1]
        seen = round(float(found["observed"]))
        above = law[seen + 1 :].sum() + 0.5 * law[seen]
        exact = 2 * min(above, 1 - above)
        shown = float(check.arrays["flow"]["p"].sel(time=t, state="left"))
        assert abs(shown - exact) < 2 * STANDARD_ERRORS * 0.5 / np.sqrt(800)


def test_the_first_states_are_not_chance_and_do_not_count():
    model, _ = roads()
    check = predictive_check(model, ROADS_TRUTH, draws=50, random_seed=2)
    start = check.arrays["flow"].isel(time=0)
    np.testing.assert_allclose(start["lower"], start["observed"], atol=1e-12)
    assert (start["p"] == 1).all()
    later = check.arrays["flow"].isel(time=slice(1, None))
    inside = (later["observed"] >= later["lower"]) & (later["observed"] <= later["upper"])
    assert check.table.loc["flow", "within"] == float(inside.mean())


def test_means_of_trajectories_statistics_equal_enumeration():
    """With three decisions all paths of a driver are listed, and their chances added up."""
    game = two_roads(horizon=3)
    panel = mfg.simulate(game, np.full(game.shape, 0.5), np.full((3, 2), 0.5), n_agents=100,
                         random_seed=3)  # fmt: skip
    model = mfg.TrajectoryModel(game, avoid_crowds, panel, mean_field=np.full((3, 2), 0.5))
    policy = mfg.policy(model, ROADS_TRUTH).values
    totals = {"stays": 0.0, "switches": 0.0, "switchers": 0.0}
    for start in panel.state[panel.offsets[:-1]]:
        for path in np.ndindex(2, 2, 2):
            chance, road = 1.0, start
            for t, action in enumerate(path):
                chance *= policy[t, road, action]
                road = road ^ action
            changes = (path[0] != path[1]) + (path[1] != path[2])
            totals["stays"] += chance * np.mean([path[0] == 0, path[1] == 0]) / 100
            totals["switches"] += chance * changes / 100
            totals["switchers"] += chance * (changes > 0) / 100
    check = predictive_check(model, ROADS_TRUTH, draws=500, random_seed=1)
    for name, exact in totals.items():
        error = np.sqrt(0.5 / 100 / 500)  # no statistic of one driver has a variance above 1/2
        assert abs(check.table.loc[name, "mean"] - exact) < STANDARD_ERRORS * error


def test_p_values_of_exchangeable_values_average_to_one_half():
    """Whichever of them is taken as observed, ties or not."""
    pool = np.random.default_rng(1).integers(0, 4, size=30).astype(float)
    found = [upper_tail(np.delete(pool, k), pool[k]) for k in range(len(pool))]
    assert np.isclose(np.mean(found), 0.5)
    distinct = np.random.default_rng(2).normal(size=9)
    found = [float(upper_tail(np.delete(distinct, k), distinct[k])) for k in range(9)]
    assert np.allclose(sorted(found), (np.arange(9) + 0.5) / 9)


@pytest.mark.slow
def test_p_values_at_the_truth_are_uniform():
    """Nothing is fitted here, so the p of arrays and of numbers are exact."""
    tables = [
        predictive_check(roads(100, k)[0], ROADS_TRUTH, draws=60, random_seed=k).table["p"]
        for k in range(100, 180)
    ]
    found = pd.DataFrame(tables)
    for name in ("flow", "choice_by_state", "choice_by_time", "stays", "switches"):
        assert scipy.stats.kstest(found[name], "uniform").pvalue > 0.01


def test_a_panel_of_the_model_passes_and_stubborn_drivers_do_not():
    """Half of the drivers never turn, half often do: choices are right on average alone."""
    model, policy = roads(400, 5)
    right = predictive_check(model, ROADS_TRUTH, random_seed=1)
    assert (right.table["p"] > 0.02).all()
    assert "all 7 statistics" in repr(right)
    game = model.game
    stubborn = np.stack([np.ones((4, 2)), np.zeros((4, 2))], axis=-1)
    other = 2 * policy - stubborn
    other = np.clip(other, 0.02, 0.98)
    other /= other.sum(-1, keepdims=True)
    panels = [
        mfg.simulate(game, p, model.mean_field, n_agents=300, random_seed=k).to_frame()
        for k, p in enumerate((stubborn, other))
    ]
    panels[1]["agent"] += 300
    mixed = mfg.Trajectories.from_frame(
        pd.concat(panels), state_labels={"state": ["left", "right"]},
        action_labels=["stay", "turn"],
    )  # fmt: skip
    wrong = mfg.TrajectoryModel(game, avoid_crowds, mixed, mean_field=model.mean_field)
    fit = mfg.mle(wrong, svi_steps=0, progressbar=False)
    check = predictive_check(wrong, fit, random_seed=1)
    assert check.table.loc["switchers", "p"] < 0.02
    assert check.table.loc["switchers", "observed"] < check.table.loc["switchers", "lower"]
    assert "switchers" in check.verdict


def test_own_statistics_keep_their_labels():
    model, _ = roads()

    def turns(panel):
        share = (panel.action.reshape(-1, 4) == 1).mean(0)
        return xr.DataArray(share, {"when": ["a", "b", "c", "d"]}, ("when",))

    own = {"turns": turns, "wrong": lambda panel: np.array([5.0, panel.action.mean()]),
           "flag": lambda panel: panel.action.max() == 1}  # fmt: skip
    check = predictive_check(model, ROADS_TRUTH, statistics=own, draws=40, random_seed=1)
    assert list(check.table.index) == [*BUILT_IN, *own]
    assert check.table.loc["turns", "at"].startswith("when=")
    assert check.table.loc["wrong", "at"] == "dim_0=1"  # the constant cannot deviate
    assert check.table.loc["flag", "observed"] == 1.0
    turned = check.arrays["turns"]["observed"].values
    expected = check.arrays["choice_by_time"]["observed"].sel(action="turn").values
    np.testing.assert_allclose(turned, expected)


def test_last_states_are_compared_like_with_like():
    """Where dynamics differ by time no state is drawn after the last decision."""
    game = epidemic()
    frame = played(game, fear, {"illness": 1.0, "distance": 0.5}, 30, 1).to_frame()
    ends = frame[frame["time"] == 3].assign(time=4, action=None)
    panel = mfg.Trajectories.from_frame(
        pd.concat([frame, ends]), state_labels={"state": ["healthy", "ill"]},
        action_labels=["out", "distance"],
    )  # fmt: skip
    assert (panel.time == 4).sum() == 30
    model = mfg.TrajectoryModel(game, fear, panel)
    rows = {"rows": lambda panel: len(panel.time)}
    check = predictive_check(
        model, {"illness": 1.0, "distance": 0.5}, statistics=rows, draws=5, random_seed=1
    )
    assert check.table.loc["rows", "observed"] == check.table.loc["rows", "mean"] == 120


def test_rows_before_a_time(visits):
    panel = mfg.Trajectories.from_frame(
        visits, agent="shop", time="month", state=["price", "stock"], action="move"
    )
    part = before(panel, 2)
    frame = panel.to_frame()
    kept = frame[frame["time"] < 5].reset_index(drop=True)
    assert part.to_frame().equals(kept)
    assert part.horizon == 2
    assert set(part.agents) == {"ann", "bob", "cyd", "dee"}


def test_a_stationary_game_is_checked_without_times():
    game = two_roads(horizon=None, discount=0.9)
    panel = played(game, avoid_crowds, ROADS_TRUTH, 100, 1)
    check = predictive_check(
        mfg.TrajectoryModel(game, avoid_crowds, panel), ROADS_TRUTH, draws=20, random_seed=1
    )
    assert check.arrays["flow"].sizes == {"time": 1, "state": 2}
    assert check.table.loc["switches", "p"] > 0.05


def test_posterior_draws_widen_the_bands():
    model, _ = roads()
    draws = mfg.laplace(model, draws=300, random_seed=1, progressbar=False)
    point = {k: float(v.mean()) for k, v in draws["posterior"].items()}
    widths = []
    for fit in (draws, point):
        found = predictive_check(model, fit, draws=300, random_seed=1).arrays["choice_by_state"]
        widths.append(float((found["upper"] - found["lower"]).mean()))
    assert widths[0] > 1.1 * widths[1]


def test_figures_show_what_was_checked():
    import matplotlib.pyplot as plt

    model, _ = roads()
    check = predictive_check(model, ROADS_TRUTH, draws=20, random_seed=1)
    flow, choice = plot_flow_check(check), plot_choice_check(check)
    for axis, state in zip(flow.axes, ("left", "right"), strict=False):
        expected = check.arrays["flow"]["observed"].sel(state=state)
        np.testing.assert_allclose(axis.lines[0].get_ydata(), expected)
    assert [a.get_title() for a in choice.axes] == ["stay", "turn"]
    rows = [t.get_text() for t in plot_statistics(check).axes[0].get_yticklabels()]
    assert rows == BUILT_IN[3:]
    plt.close("all")


@functools.cache
def one_bad_state_of_thirty(bad=4):
    """Check a fit of fair coins: agents stay in their state, and in one of them always act.

    State k has 2 (30 - k) agents, but for the last, which has none, and state 28, which has those
    asked for and acts each time.
    """
    states = [f"s{k:02d}" for k in range(30)]
    game = mfg.MeanFieldGame(
        states=states, actions=["rest", "act"], horizon=4,
        transition=torch.eye(30, dtype=torch.float64)[:, None, :].expand(30, 2, 30),
        initial=torch.full((30,), 1 / 30, dtype=torch.float64),
    )  # fmt: skip
    coins = np.random.default_rng(1)
    rows = [
        (f"{state} {i}", t, state, "act" if state == "s28" or coins.random() < 0.5 else "rest")
        for k, state in enumerate(states[:-1])
        for i in range(bad if state == "s28" else 2 * (30 - k))
        for t in range(4)
    ]
    panel = mfg.Trajectories.from_frame(
        pd.DataFrame(rows, columns=["agent", "time", "state", "action"]),
        state_labels={"state": states}, action_labels=["rest", "act"],
    )  # fmt: skip

    def indifferent(x):
        return pyro.sample("w", dist.Normal(0.0, 1.0)) * (x.action == "act")

    model = mfg.TrajectoryModel(game, indifferent, panel)
    return predictive_check(model, {"w": 0.0}, draws=100, random_seed=1)


def test_a_verdict_says_where_the_panel_deviates_most():
    """Each array that fails is followed by its worst entry; a scalar has none."""
    check = one_bad_state_of_thirty(bad=40)
    assert not check.passed
    found = check.verdict.removesuffix(".").split("chance): ")[1].split("; ")
    parts = {part.split(" (p")[0]: part for part in found}
    assert {"choice_by_state", "switchers"} <= set(parts)
    assert "), most at state=s28, action=" in parts["choice_by_state"]
    assert parts["switchers"].endswith(")")


def test_states_that_deviate_most_are_drawn():
    """The bad state, rarest of those visited, is in the figure; one without visits is not."""
    import matplotlib.pyplot as plt

    check = one_bad_state_of_thirty()
    figure = plot_choice_check(check, states=3)
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(shown) == 3
    assert "s28" in shown
    assert figure.legends[0].get_title().get_text() == "3 of 30 states, those that deviate most"
    everybody = plot_choice_check(check, states=29)
    names = [label.get_text() for label in everybody.axes[0].get_xticklabels()]
    assert "s29" not in names
    assert plot_choice_check(check, states=30).legends[0].get_title().get_text() == ""
    plt.close("all")


def test_the_flow_is_drawn_where_it_deviates_most():
    """Nobody moves, so that flows deviate nowhere until one state's is said to."""
    check = one_bad_state_of_thirty()
    flow = check.arrays["flow"].copy(deep=True)
    flow["deviation"].loc[{"state": "s20", "time": 2}] = 9.0
    figure = plot_flow_check(replace(check, arrays=check.arrays | {"flow": flow}), states=3)
    assert [a.get_title() for a in figure.axes if a.get_visible()] == ["s00", "s01", "s20"]
    assert figure.legends[0].get_title().get_text() == "3 of 30 states, those that deviate most"


@pytest.mark.parametrize("horizon", [1, 3])
def test_the_flow_is_drawn_in_the_order_of_the_games_states(horizon):
    """States stand as the game has them, not by their visits or in the order of the alphabet."""
    import matplotlib.pyplot as plt

    game = mfg.MeanFieldGame(
        states={"place": ["z", "m", "a"]}, actions=["go", "rest"], horizon=horizon,
        transition=np.repeat(np.eye(3)[:, None], 2, 1), initial=[0.1, 0.3, 0.6],
    )  # fmt: skip
    reward = mfg.linear_reward({"w": lambda x: x.action == "go"}, dist.Normal(0.0, 1.0))
    model = mfg.TrajectoryModel(game, reward, played(game, reward, {"w": 0.5}, 100, 1))
    check = predictive_check(model, {"w": 0.5}, draws=20, random_seed=1)
    flow = check.arrays["flow"]["observed"]
    assert (flow.mean("time").diff("state") > 0).all()
    names = ["z", "m", "a"]
    figure = plot_flow_check(check)
    if horizon == 1:
        (axis,) = figure.axes
        assert [t.get_text() for t in axis.get_xticklabels()] == names
        drawn = axis.lines[-1].get_ydata()[:, None]
    else:
        assert [axis.get_title() for axis in figure.axes] == [f"place {n}" for n in names]
        drawn = [axis.lines[-1].get_ydata() for axis in figure.axes]
    np.testing.assert_array_equal(drawn, flow.sel(state=names).transpose("state", "time"))
    plt.close("all")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": None}, TypeError, "`model` must be a TrajectoryModel"),
        ({"fit": 3}, TypeError, "`fit` must be posterior draws"),
        ({"fit": {"crowding": 1.0}}, ValueError, "effort"),
        ({"draws": 1}, ValueError, "`draws` must be at least 2"),
        ({"random_seed": -1}, ValueError, "`random_seed`"),
        ({"statistics": [np.mean]}, TypeError, "`statistics` must be a mapping"),
        ({"statistics": {"a": 3}}, TypeError, "'a' is a int"),
        ({"statistics": {"a": lambda p: "x"}}, ValueError, "'a' must be numeric"),
        ({"statistics": {"a": lambda p: p.action[p.action == 1]}}, ValueError, "one shape"),
        ({"seed": 1}, TypeError, "did you mean `random_seed`"),
    ],
)
def test_wrong_inputs(change, error, words):
    model, _ = roads()
    given = {"model": model, "fit": ROADS_TRUTH, "draws": 3, "random_seed": 1} | change
    with pytest.raises(error, match=words):
        predictive_check(given.pop("model"), given.pop("fit"), **given)


def test_the_energy_likelihood_is_refused():
    model, _ = roads()
    energy = mfg.TrajectoryModel(model.game, avoid_crowds, model.panel, likelihood="energy")
    with pytest.raises(ValueError, match="predictive_check needs likelihood='causal'"):
        predictive_check(energy, ROADS_TRUTH, random_seed=1)


def test_random_effects_may_be_drawn_anew():
    """Means over panels follow the prior of the effects where they are anew, else the values."""
    game = two_roads(horizon=3)

    def shaken(x):
        size = pyro.sample("size", dist.HalfNormal(1.0))
        month = mfg.period_effects(x, "month", dist.Normal(0.0, size))
        return mfg.Preferences(-0.5 * (x.action == "turn"), shock=month * (x.action == "turn"))

    uniform = np.full(game.shape, 0.5)
    flow = mfg.equilibrium.generate_mean_field(game, uniform)
    panel = mfg.simulate(game, uniform, flow, n_agents=2000, random_seed=1)
    model = mfg.TrajectoryModel(game, shaken, panel, mean_field=flow)
    values = {"size": 1.0, "month": np.array([1.0, -0.5])}

    def turns(panel):
        return panel.counts.actions[..., 1].sum(1) / panel.counts.actions.sum((1, 2))

    options = {"statistics": {"turns": turns}, "draws": 300, "random_seed": 2}
    held, anew = (
        mfg.predictive_check(model, values, redraw=sites, **options).arrays["turns"]
        for sites in ((), "month")
    )
    x = mfg.RewardInputs(game, flow)
    with pyro.poutine.condition(data={"month": torch.tensor([1.0, -0.5], dtype=torch.float64)}):
        month = mfg.period_effects(x, "month", dist.Normal(0.0, 1.0)).numpy().ravel()
    expected = 1 / (1 + np.exp(0.5 - month))
    np.testing.assert_allclose(held["mean"], expected, atol=5 * 0.5 / np.sqrt(2000 * 300))
    spread = np.sqrt(1 - 1 / 3)  # of an effect, by its prior
    z = np.random.default_rng(1).normal(0.0, spread, 200_000)
    law = 1 / (1 + np.exp(0.5 - z))
    np.testing.assert_allclose(anew["mean"], law.mean(), atol=5 * law.std() / np.sqrt(300))
    width = (anew["upper"] - anew["lower"]).values
    np.testing.assert_allclose(width, np.subtract(*np.quantile(law, [0.95, 0.05])), rtol=0.25)
    assert ((held["upper"] - held["lower"]).values < 0.3 * width).all()
    with pytest.raises(ValueError, match="`redraw` names 'mnth', which is no parameter; did you"):
        mfg.predictive_check(model, values, redraw="mnth", draws=2)
