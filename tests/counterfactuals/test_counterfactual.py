"""Counterfactual equilibria: what is solved, paired, counted and warned of."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from games import ROADS_TRUTH, avoid_crowds, epidemic, fear, played, two_roads
from scipy.special import logsumexp

import mfgppl as mfg
from mfgppl.counterfactuals.counterfactual import counterfactual
from mfgppl.models import multiple_equilibria
from mfgppl.plots.two_worlds import (
    plot_counterfactual,
    plot_counterfactual_difference,
    plot_counterfactual_statistics,
)
from mfgppl.reward.taxed import taxed

SOLVER = 1e-8  # of two solutions with residuals of 1e-10
RESIDUAL = 1e-10


def slippery(chance=0.7, **changes):
    """Return `two_roads` where a turn succeeds with some chance."""
    stay, turn = np.eye(2), np.eye(2)[::-1]
    moves = np.stack([stay, chance * turn + (1 - chance) * stay], axis=1)
    return two_roads(**({"transition": moves} | changes))


def likes_right(x):
    """Return a reward without a crowd."""
    right = pyro.sample("right", dist.Normal(0.0, 1.0))
    effort = pyro.sample("effort", dist.Normal(0.0, 1.0))
    return right * (x.state == "right") - effort * (x.action == "turn")


def model_of(game, reward, truth, n_agents=50):
    return mfg.TrajectoryModel(game, reward, played(game, reward, truth, n_agents, 1))


@pytest.fixture(scope="module")
def roads():
    return model_of(two_roads(), avoid_crowds, ROADS_TRUTH)


def as_draws(**columns):
    """Return draws of two chains."""
    values = {k: (("chain", "draw"), np.reshape(v, (2, -1))) for k, v in columns.items()}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(values)})


def some_draws(n=12, seed=1):
    rng = np.random.default_rng(seed)
    return {"crowding": rng.normal(1.5, 0.3, n), "effort": rng.normal(0.4, 0.1, n)}


def by_hand(moves, start, right, effort, horizon=4):
    """Return policy, flow and welfare of `likes_right` by one backward and one forward pass."""
    reward = np.array([[0.0, -effort], [right, right - effort]])
    values, policy = np.zeros(2), []
    for t in range(horizon):
        q = reward + (moves @ values if t else 0.0)
        values = logsumexp(q, axis=1)
        policy.insert(0, np.exp(q - values[:, None]))
    flow, shares, plain = [], np.array(start), 0.0
    for step in policy:
        flow.append(shares)
        plain += (shares[:, None] * step * reward).sum()
        shares = np.einsum("s,sa,sax->x", shares, step, moves)
    return np.array(policy), np.array(flow), plain, np.dot(start, values)


def test_without_a_crowd_both_worlds_are_one_backward_induction():
    truth = {"right": 0.8, "effort": 0.5}
    model, changed = model_of(two_roads(), likes_right, truth), slippery(initial=[0.4, 0.6])
    fit = as_draws(right=[0.8, 1.0, -0.3, 0.0], effort=[0.5, 0.2, 0.1, 0.0])
    found = counterfactual(model, fit, changed)
    for world, game in (("baseline", two_roads()), ("changed", changed)):
        for k, (right, effort) in enumerate(found.draws["parameters"].values):
            here = found.draws.sel(world=world, draw=k)
            moves, start = game.transition.numpy(), game.initial.numpy()
            policy, flow, plain, total = by_hand(moves, start, right, effort)
            np.testing.assert_allclose(here["policy"], policy, atol=SOLVER)
            np.testing.assert_allclose(here["flow"], flow, atol=SOLVER)
            np.testing.assert_allclose(here["welfare"], plain, atol=SOLVER)
            np.testing.assert_allclose(here["welfare_with_entropy"], total, atol=SOLVER)
    assert found.changes == ("transition", "initial")
    assert found.n_failed == found.n_several == found.n_switched == 0


def test_the_same_world_makes_no_difference(roads):
    found = counterfactual(roads, as_draws(**some_draws()), roads.game.replace())
    difference = found.draws.sel(world="difference").drop_vars("parameters")
    assert all((difference[name] == 0.0).all() for name in difference)
    assert found.changes == ()
    assert "Changed: nothing" in repr(found)


def test_a_symmetric_crowd_turns_with_the_odds_of_its_effort(roads):
    """With even roads both are worth as much whatever the crowding, at any temperature."""
    even = two_roads(initial=[0.5, 0.5])
    changed = even.replace(temperature=2.0)
    found = counterfactual(roads, as_draws(**some_draws()), changed, baseline=even)
    effort = found.draws["parameters"].sel(parameter="effort")
    for world, heat in (("baseline", 1.0), ("changed", 2.0)):
        here = found.draws.sel(world=world)
        np.testing.assert_allclose(here["flow"], 0.5, atol=SOLVER)
        turning = 1 / (1 + np.exp(effort / heat))
        gap = here["policy"].sel(action="turn") - turning
        assert float(np.abs(gap).max()) < SOLVER


@pytest.mark.parametrize("kind", ["roads", "epidemic", "stationary", "joint"])
def test_a_point_gives_what_the_solver_gives(kind):
    game, reward, truth = two_roads(), avoid_crowds, ROADS_TRUTH
    if kind == "stationary":
        game = slippery(horizon=None, discount=0.8)
    if kind == "joint":
        game = two_roads(joint=True)
    if kind == "epidemic":
        game, reward, truth = epidemic(), fear, {"illness": 1.0, "distance": 0.5}
    model = model_of(game, reward, truth)
    changed = game.replace(discount=0.5, temperature=0.8)
    point, parameters = truth, truth
    if kind != "stationary":
        point = mfg.mle(model, progressbar=False)
        parameters = point.params.to_dict()
    found = counterfactual(model, point, changed)
    assert found.draws.sizes["draw"] == 1
    for world, one in (("baseline", game), ("changed", changed)):
        solved = mfg.solve_equilibrium(one, reward, parameters=parameters, throw=True).value
        flow = solved.mean_field.sum(-1) if kind == "joint" else solved.mean_field
        here = found.draws.sel(world=world, draw=0)
        np.testing.assert_allclose(here["flow"], flow, atol=SOLVER)
        np.testing.assert_allclose(here["policy"], solved.policy, atol=SOLVER)
        earned = mfg.equilibrium.expected_return(one, reward, solved.policy, parameters=parameters)
        np.testing.assert_allclose(here["welfare"], earned, atol=SOLVER)
    values = {k: found.table.loc[("welfare", "difference"), k] for k in ("mean", "lower", "upper")}
    assert len(set(values.values())) == 1


def test_bands_are_quantiles_of_draws_solved_one_by_one(roads):
    drawn, changed = some_draws(30), slippery()
    found = counterfactual(roads, as_draws(**drawn), changed)
    flows = np.empty((2, 30, 4, 2))
    for k in range(30):
        parameters = {name: v[k] for name, v in drawn.items()}
        for w, game in enumerate((roads.game, changed)):
            solved = mfg.solve_equilibrium(game, avoid_crowds, parameters=parameters)
            flows[w, k] = solved.value.mean_field
    bands = found.bands(0.8)["flow"]
    for world, flow in (("baseline", flows[0]), ("changed", flows[1]),
                        ("difference", flows[1] - flows[0])):  # fmt: skip
        low, high = np.quantile(flow, [0.1, 0.9], axis=0)
        expected = {"mean": flow.mean(0), "lower": low, "upper": high}
        for band, values in expected.items():
            np.testing.assert_allclose(bands.sel(world=world, band=band), values, atol=SOLVER)
    welfare = found.draws["welfare"].sel(world="difference")
    row = found.table.loc[("welfare", "difference")]
    np.testing.assert_allclose(row[["lower", "upper"]], np.quantile(welfare, [0.05, 0.95]))
    assert row["positive"] == float((welfare > 0).mean())


def test_statistics_see_both_worlds(roads):
    asked = {
        "peak": lambda world: world.flow.sel(state="right").max(),
        "turns": lambda world: (world.flow * world.policy.sel(action="turn")).sum("state"),
        "last": lambda world: world.flow.values[-1],
        "heat": lambda world: world.game.temperature,
    }
    changed = roads.game.replace(temperature=2.0)
    found = counterfactual(roads, as_draws(**some_draws(4)), changed, statistics=asked).draws
    assert found["turns"].dims == ("world", "draw", "time")
    right = found["flow"].sel(state="right")
    both = {"world": ["baseline", "changed"]}
    np.testing.assert_array_equal(found["peak"].sel(both), right.max("time").sel(both))
    np.testing.assert_array_equal(found["last"][:2], found["flow"][:2, :, -1])
    assert found["heat"].isel(draw=0).values.tolist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "tax",
    [
        {"right": 0.3},
        lambda x: 0.3 * (x.state == "right"),
        [[[0.0], [0.3]]],
        "toll",
    ],
)
def test_a_taxed_reward_is_the_reward_less_the_tax(tax):
    game = two_roads(features={"toll": ("state", [0.0, 0.3])})
    inputs = mfg.RewardInputs(game, torch.full((4, 2), 0.5, dtype=torch.float64))
    with pyro.condition(data={k: torch.tensor(v) for k, v in ROADS_TRUTH.items()}):
        before, after = avoid_crowds(inputs), taxed(avoid_crowds, tax)(inputs)
    apart = (before - after).expand(game.shape)
    np.testing.assert_allclose(apart[:, 0], 0.0, atol=1e-15)
    np.testing.assert_allclose(apart[:, 1], 0.3, atol=1e-15)


def test_a_tax_moves_the_crowd_and_is_paid_out_of_its_welfare(roads):
    """What the tax brings in is the share of the taxed times the tax."""
    found = counterfactual(
        roads, as_draws(**some_draws()), roads.game, reward=taxed(avoid_crowds, {"right": 0.4})
    )
    assert found.changes == ("reward",)
    worlds = found.draws
    paid = 0.4 * worlds["flow"].sel(world="changed", state="right").sum("time")
    lost = (worlds["welfare_fitted"] - worlds["welfare"]).sel(world="changed")
    np.testing.assert_allclose(lost, paid, atol=SOLVER)
    left = worlds["flow"].sel(world="difference", state="right")
    assert (left[:, 1:] < 0).all()
    flat = {"left": 1.0, "right": 1.0}  # a tax on everybody moves nobody
    even = counterfactual(roads, ROADS_TRUTH, roads.game, reward=taxed(avoid_crowds, flat))
    assert float(np.abs(even.draws["flow"].sel(world="difference")).max()) < SOLVER
    np.testing.assert_allclose(even.draws["welfare"].sel(world="difference"), -4.0, atol=SOLVER)


def test_fits_of_all_kinds_are_read(roads):
    replications = pd.DataFrame(some_draws(6)).rename_axis("replication")
    replications.iloc[2] = np.nan
    found = counterfactual(roads, replications, slippery())
    assert found.draws.sizes["draw"] == 5
    assert "Replications without an estimate, left out: 1" in repr(found)
    np.testing.assert_array_equal(found.draws["parameters"], replications.dropna())
    draws = as_draws(**some_draws(6))
    assert counterfactual(roads, draws, slippery(), draws=4).draws.sizes["draw"] == 4


@pytest.mark.slow
def test_workers_do_not_matter(roads):
    fit = as_draws(**some_draws(50))
    found = [counterfactual(roads, fit, slippery(), n_jobs=n, draws=50) for n in (None, 2)]
    xr.testing.assert_identical(found[0].draws, found[1].draws)
    pd.testing.assert_frame_equal(found[0].status, found[1].status)


def test_draws_without_an_equilibrium_are_counted(roads):
    with pytest.warns(
        mfg.exceptions.ConvergenceWarning, match="of 12 draws 12 have no equilibrium"
    ):
        found = counterfactual(roads, as_draws(**some_draws()), slippery(), max_steps=1)
    assert found.n_failed == 12
    assert (found.status["residual_changed"] > RESIDUAL).all()
    assert found.table.drop(columns="positive").isna().all(axis=None)
    assert np.isnan(found.bands()["flow"]).all()
    assert "12 draws: 12 failed" in repr(found)
    with pytest.raises(ValueError, match="no draw with both equilibria"):
        plot_counterfactual(found)


def test_draws_that_fail_leave_the_others_alone(roads):
    """One draw with a crowd that chases itself needs more steps than the others."""
    drawn = {"crowding": [1.5, 1.4, 40.0, 1.6], "effort": [0.4, 0.4, 0.1, 0.4]}
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="of 4 draws 1 have no equilibrium"):
        found = counterfactual(roads, as_draws(**drawn), slippery(), max_steps=20)
    assert found.status["failed"].tolist() == [False, False, True, False]
    kept = as_draws(**{k: v[:2] for k, v in drawn.items()})
    alone = counterfactual(roads, kept, slippery())
    np.testing.assert_allclose(found.draws["flow"][:, :2], alone.draws["flow"], atol=SOLVER)
    assert np.isfinite(found.table["mean"]).all()


def standards(company=2.0):
    """Return the flows of equilibria, the one with least of the second standard first."""
    found = mfg.equilibrium.find_equilibria(
        multiple_equilibria.game(),
        multiple_equilibria.reward,
        parameters={"company": company, "effort": 1.0},
        n_starts=60,
    )
    flows = [s.value.mean_field for s in found.solutions]
    return sorted(flows, key=lambda flow: float(flow[-1, 1]))


def test_several_equilibria_are_reported_and_chosen():
    game, truth = multiple_equilibria.game(), multiple_equilibria.TRUTH
    flows = standards()
    assert len(flows) > 1
    model = model_of(game, multiple_equilibria.reward, truth)
    near = as_draws(company=[2.0, 2.01, 1.99, 2.02], effort=[1.0, 1.0, 1.0, 1.0])
    for flow in (flows[0], flows[-1]):
        found = counterfactual(model, near, game, mean_field=flow)
        assert found.n_several == 4
        assert found.n_switched == 0
        assert found.n_branches["changed"] > 1
        assert "equilibria at the reference" in repr(found)
        reached = found.draws["flow"].sel(world="changed", draw=0)
        np.testing.assert_allclose(reached, flow, atol=1e-6)


def test_draws_beyond_the_end_of_a_branch_switch():
    """Where company is worth little, nobody comes to the second standard any more."""
    game, truth = multiple_equilibria.game(), multiple_equilibria.TRUTH
    assert len(standards(0.5)) == 1
    model = model_of(game, multiple_equilibria.reward, truth)
    company = [1.98, 1.99, 2.0, 2.01, 2.02, 2.03, 0.5, 2.04]
    fit = as_draws(company=company, effort=np.ones(8))
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="1 are on another branch"):
        found = counterfactual(model, fit, game, mean_field=standards()[-1])
    assert found.status["switched"].tolist() == [c == 0.5 for c in company]
    ends = found.draws["flow"].sel(world="changed", state="second")[:, -1]
    assert (ends.values > 0.5).tolist() == [c != 0.5 for c in company]
    without = found.bands(switched=False)["flow"].sel(world="changed", state="second")
    np.testing.assert_allclose(
        without.sel(band="mean")[-1], ends.values[[c != 0.5 for c in company]].mean()
    )


def right_or_there(x):
    """Return pay for being on the right road, and for choosing it: before the end one shapes."""
    there = pyro.sample("there", dist.Normal(0.0, 1.0))
    chosen = pyro.sample("chosen", dist.Normal(0.0, 1.0))
    stays, turns = x.action == "stay", x.action == "turn"
    on_right, on_left = x.state == "right", x.state == "left"
    chooses = on_right * stays + on_left * turns
    return there * on_right * (x.time > 0) + chosen * chooses * (x.time < 3)


def test_what_no_data_can_tell_is_named_where_it_matters():
    truth = {"there": 0.5, "chosen": 0.5}
    model = model_of(two_roads(), right_or_there, truth)
    known = mfg.identify(model.game, right_or_there, mean_field=model.mean_field)
    assert len(known.directions) == 1
    fit = as_draws(there=[0.0, 0.5, 0.2, 1.0], chosen=[1.0, 0.5, 0.8, 0.0])
    with pytest.warns(mfg.exceptions.IdentificationWarning, match="there - chosen"):
        found = counterfactual(model, fit, slippery(0.3))
    policy = found.draws["policy"]
    spread = policy.std("draw").max(["time", "state", "action"])
    assert float(spread.sel(world="baseline")) < SOLVER  # the draws behave alike
    assert float(spread.sel(world="changed")) > 0.01
    assert "No data can identify" in repr(found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = counterfactual(model, fit, two_roads(initial=[0.1, 0.9], temperature=2.0))
    assert same.unidentified == ()


def test_parameters_at_the_edge_are_said_not_to_be_looked_at(roads):
    found = counterfactual(roads, {"crowding": 1.0, "effort": 0.0}, slippery())
    assert found.unidentified is None
    assert "was not looked at" in repr(found)


def test_figures_show_the_bands(roads):
    import matplotlib.pyplot as plt

    found = counterfactual(roads, as_draws(**some_draws()), slippery())
    flows = plot_counterfactual(found, states=1, ci_prob=0.5)
    visited = found.bands(0.5)["flow"].sel(band="mean", world="changed", state="left")
    np.testing.assert_array_equal(flows.axes[0].lines[1].get_ydata(), visited)
    difference = plot_counterfactual_difference(found)
    assert [axis.get_title() for axis in difference.axes] == ["left", "right"]
    rows = plot_counterfactual_statistics(found)
    assert len(rows.axes) == 4
    plt.close("all")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": 1}, TypeError, "`model` must be a TrajectoryModel"),
        ({"fit": 1}, TypeError, "`fit` must be posterior draws"),
        ({"fit": pd.DataFrame({"toll": [1.0]})}, ValueError, "`fit` has the columns"),
        ({"changed": 1}, TypeError, "`changed` must be a MeanFieldGame; got int"),
        ({"changed": two_roads(horizon=5)}, ValueError, "same horizon as the model's game, 4"),
        ({"changed": two_roads(states=["a", "b"])}, ValueError, "must have the same states"),
        ({"changed": two_roads(actions=["go", "turn"])}, ValueError, "must have the same actions"),
        ({"baseline": two_roads(joint=True)}, ValueError, "`baseline` must have the same joint"),
        ({"reward": likes_right}, ValueError, "must have the latent sites of the model's"),
        ({"reward": taxed(avoid_crowds, {"lift": 1})}, ValueError, "`tax` names the state 'lift'"),
        ({"statistics": {"a": 1}}, TypeError, "functions of a world; 'a' is a int"),
        ({"statistics": {"flow": len}}, ValueError, "there already; rename it"),
        ({"statistics": {"a": lambda w: "x"}}, ValueError, "'a' must be numeric"),
        ({"draws": 0}, ValueError, "`draws` must be at least 1"),
        ({"mean_field": [[1.0]]}, ValueError, "`mean_field` must have shape"),
        ({"tolerance": 0.0}, ValueError, "`tolerance` must be above 0"),
        ({"taxes": 1}, TypeError, "has no argument `taxes`"),
    ],
)
def test_wrong_inputs(roads, change, error, words):
    given = {"model": roads, "fit": ROADS_TRUTH, "changed": slippery()} | change
    with pytest.raises(error, match=words):
        counterfactual(given.pop("model"), given.pop("fit"), given.pop("changed"), **given)
