"""What a prior believes, and scales of weights: against closed forms and the solver."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import ROADS_TRUTH, avoid_crowds, epidemic, fear, lone, random_rows, shop, two_roads

import mfgppl as mfg
from mfgppl.design import prior
from mfgppl.design.prior import prior_predictive
from mfgppl.design.scales import default_scales, weakly_informative


def one_period(**changes):
    """Return a game of one decision in one of two states, with three actions."""
    arguments = {
        "states": ["low", "high"],
        "actions": ["stay", "go", "run"],
        "horizon": 1,
        "transition": random_rows(3, 2, 3, 2),
        "initial": [0.75, 0.25],
    }
    return mfg.MeanFieldGame(**(arguments | changes))


def taste(scale):
    """Return a reward program with one weight: going is worth it."""
    return mfg.linear_reward({"go": lambda x: x.action == "go"}, dist.Normal(0.0, scale))


def test_one_period_is_a_softmax_of_the_reward():
    """Policies are the softmax of the drawn weight over the temperature; all summaries follow."""
    found = prior_predictive(one_period(temperature=0.5), taste(2.0), draws=50, random_seed=1)
    weight = found.draws["go"].to_numpy()
    odds = np.exp(np.stack([0 * weight, weight, 0 * weight], -1) / 0.5)
    policy = odds / odds.sum(-1, keepdims=True)
    for state in ("low", "high"):
        np.testing.assert_allclose(found.policy.sel(time=0, state=state), policy, atol=1e-12)
    np.testing.assert_allclose(found.mean_field.isel(time=0), [[0.75, 0.25]] * 50)
    largest = policy.max(-1)
    entropy = -(policy * np.log(policy)).sum(-1) / np.log(3)
    np.testing.assert_allclose(found.draws["entropy"], entropy, atol=1e-12)
    np.testing.assert_array_equal(found.draws["certain"], largest > 0.99)
    np.testing.assert_array_equal(found.draws["uniform"], entropy > 0.99)
    np.testing.assert_allclose(found.table.loc[("high", "go"), "mean"], policy[:, 1].mean())
    np.testing.assert_allclose(
        found.table.loc[("low", "stay"), ["5%", "95%"]].to_numpy(float),
        np.quantile(policy[:, 0], [0.05, 0.95]),
    )
    assert found.largest["mean"] == pytest.approx(largest.mean())
    assert found.largest["50%"] == pytest.approx(np.sort(largest)[24])


def test_shares_weigh_the_visits_of_agents_who_have_a_choice():
    """A state without a choice counts for nothing, and others by their share of the crowd."""
    available = [[True, False, False], [True, True, False], [True, True, True]]

    def reward(x):
        pull = pyro.sample("pull", dist.Delta(torch.tensor(6.0)))
        return pull * (x.state == "b") * (x.action == "go") + 0.0 * pyro.sample(
            "idle", dist.Normal(0.0, 1.0)
        )

    game = one_period(
        states=["a", "b", "c"],
        initial=[0.5, 0.2, 0.3],
        transition=random_rows(4, 3, 3, 3),
        available=available,
    )
    found = prior_predictive(game, reward, draws=3, random_seed=1)
    assert 1 / (1 + np.exp(-6.0)) > 0.99
    np.testing.assert_allclose(found.draws["certain"], 0.4)
    np.testing.assert_allclose(found.draws["uniform"], 0.6)


def test_policies_are_those_of_the_solver():
    """Along their own flow, draws have the equilibrium's policy and flow."""
    game = epidemic()
    found = prior_predictive(game, fear, draws=5, random_seed=2)
    for draw, parameters in found.draws[["illness", "distance"]].iterrows():
        world = mfg.solve_equilibrium(game, fear, parameters=parameters, throw=True).value
        np.testing.assert_allclose(found.policy.sel(draw=draw), world.policy, atol=1e-8)
        np.testing.assert_allclose(found.mean_field.sel(draw=draw), world.mean_field, atol=1e-8)


def test_a_given_flow_is_faced_and_not_generated():
    """Policies are soft backward induction along the flow; the shares are where they lead."""
    game, flow = epidemic(), [[0.7, 0.3], [0.6, 0.4], [0.5, 0.5], [0.4, 0.6]]
    found = prior_predictive(game, fear, mean_field=flow, draws=4, random_seed=2, n_agents=2000)
    transition = game.transition_along(torch.tensor(flow, dtype=torch.float64))
    for draw, weights in found.draws[["illness", "distance"]].iterrows():
        reward = torch.zeros(game.shape)
        reward[:, 1, :] -= weights["illness"]
        reward[:, :, 1] -= weights["distance"]
        policy = mfg.equilibrium.soft_backward_induction(
            reward.double(), transition
        ).log_policy.exp()
        np.testing.assert_allclose(found.policy.sel(draw=draw), policy, atol=1e-6)
        shares = mfg.equilibrium.propagate_mean_field(policy, transition, game.initial)
        np.testing.assert_allclose(found.mean_field.sel(draw=draw), shares, atol=1e-6)
    error = np.sqrt(found.mean_field * (1 - found.mean_field) / 2000)
    assert (abs(found.observed["mean_field"] - found.mean_field) <= 5 * error + 1e-12).all()


def test_draws_are_those_of_the_prior():
    """The drawn weights have the prior's moments, and other seeds give other draws."""
    found = prior_predictive(one_period(), taste(2.0), draws=400, random_seed=1)
    weight = found.draws["go"]
    assert abs(weight.mean()) < 5 * 2.0 / np.sqrt(400)
    assert weight.std() == pytest.approx(2.0, rel=5 / np.sqrt(2 * 400))
    again, other = (
        prior_predictive(one_period(), taste(2.0), draws=5, random_seed=k, n_agents=10)
        for k in (1, 2)
    )
    repeated = prior_predictive(one_period(), taste(2.0), draws=5, random_seed=1, n_agents=10)
    assert again.draws.equals(repeated.draws)
    assert again.observed.equals(repeated.observed)
    assert not np.isin(other.draws["go"], again.draws["go"]).any()


def test_panels_show_shares_of_their_size():
    """Observed shares are multiples of 1 / n and NaN where nobody was."""
    game = one_period(initial=[1.0, 0.0])
    found = prior_predictive(game, taste(1.0), draws=3, random_seed=1, n_agents=7)
    counts = 7 * found.observed["share_by_state"].sel(state="low").to_numpy()
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-12)
    np.testing.assert_allclose(counts.sum(-1), 7)
    assert found.observed["share_by_state"].sel(state="high").isnull().all()
    assert found.table.loc["high"].isna().all(axis=None)


@pytest.mark.parametrize(
    ("scale", "words"),
    [(1000.0, "near-certain"), (1e-3, "arbitrary"), (2.0, "leaves choices open")],
)
def test_the_verdict_follows_the_width_of_the_prior(scale, words):
    """A prior much too wide, much too narrow, and a sound one."""
    found = prior_predictive(one_period(), taste(scale), draws=100, random_seed=1)
    assert words in found.verdict
    assert found.verdict in repr(found)


def test_draws_without_equilibrium_are_left_out_and_counted(monkeypatch):
    """Where no equilibrium is found the draw is missing, and if none is found it is said."""
    solve = prior.settled
    module = "mfgppl.design.prior.settled"

    def sometimes(game, reward, values, **options):
        found = solve(game, reward, values, **options)
        return found._replace(converged=bool(values["go"] > 0))

    monkeypatch.setattr(module, sometimes)
    found = prior_predictive(one_period(), taste(1.0), draws=40, random_seed=1)
    assert (found.draws["go"] > 0).all()
    assert found.n_failed == 40 - len(found.draws) > 5
    assert f"({found.n_failed} left out" in repr(found)
    monkeypatch.setattr(module, lambda *a, **k: solve(*a, **k)._replace(converged=False))
    with pytest.raises(mfg.exceptions.ConvergenceError, match="at none of 3 draws"):
        prior_predictive(one_period(), taste(1.0), draws=3, random_seed=1)


def test_a_joint_game_and_a_stationary_one():
    """Shares are over states alone; a stationary game has one time."""
    joint = prior_predictive(two_roads(joint=True), avoid_crowds, draws=2, random_seed=1)
    assert joint.mean_field.dims == ("draw", "time", "state")
    np.testing.assert_allclose(joint.mean_field.sum("state"), 1.0)
    game = shop(horizon=None)
    reward = mfg.linear_reward({"hold": lambda x: x.action == "hold"}, dist.Normal(0.0, 1.0))
    stationary = prior_predictive(game, reward, draws=2, random_seed=1)
    assert stationary.policy.sizes["time"] == 1


def test_scales_of_one_period_are_those_of_a_logistic_regression():
    """With two actions the log odds are the weight times the feature's difference."""
    rates = np.array([[0.0, 1.0, 0.0], [0.0, 3.0, 0.0]])[None]
    game = one_period(available=[[True, True, False]] * 2, temperature=0.5)
    table = default_scales(game, {"rate": rates})
    x = np.sqrt(0.75 * 1.0**2 + 0.25 * 3.0**2) / 0.5
    assert table.loc["rate", "log_odds"] == pytest.approx(x)
    assert table.loc["rate", "scale"] == pytest.approx(2.5 / x)
    assert table.loc["rate", ["low", "high"]].tolist() == [0.0, 3.0]


def test_log_odds_are_those_of_pairs_of_actions():
    """With three actions: the mean square over all ordered pairs, by listing them."""
    table = np.random.default_rng(1).normal(size=(1, 2, 3))
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    squares = [np.mean([(row[a] - row[b]) ** 2 for a, b in pairs]) for row in table[0]]
    found = default_scales(one_period(), {"f": table})
    assert found.loc["f", "log_odds"] == pytest.approx(np.sqrt(np.dot([0.75, 0.25], squares)))


def test_log_odds_are_slopes_of_the_log_policy():
    """On a longer game: finite differences of the solver's policy at weights of zero."""
    game = shop()
    feature = np.random.default_rng(2).normal(size=game.shape)
    flow = mfg.equilibrium.generate_mean_field(game, torch.full(game.shape, 1 / game.n_actions))
    step = 1e-4
    up, down = (
        mfg.equilibrium.soft_backward_induction(
            torch.tensor(k * feature),
            game.transition_along(flow),
            discount=game.discount,
            temperature=game.temperature,
        ).log_policy.numpy()
        for k in (step, -step)
    )
    slope = (up - down) / (2 * step)
    gaps = (slope[..., :, None] - slope[..., None, :]) ** 2
    n = game.n_actions
    square = (gaps.sum((-1, -2)) / (n * (n - 1)) * flow.numpy()).sum() / len(flow)
    found = default_scales(game, {"f": feature}, mean_field=flow)
    assert found.loc["f", "log_odds"] == pytest.approx(np.sqrt(square), rel=1e-5)


def test_scales_answer_units_temperature_and_log_odds():
    """A feature in tenths of its unit has a tenth of the scale; the rest is proportional."""
    game, feature = two_roads(), np.random.default_rng(3).normal(size=(4, 2, 2))
    base = default_scales(game, {"f": feature}).loc["f", "scale"]
    assert 10 * default_scales(game, {"f": 10 * feature})["scale"]["f"] == pytest.approx(base)
    hot = two_roads(temperature=2.0)
    assert default_scales(hot, {"f": feature})["scale"]["f"] == pytest.approx(2 * base)
    wide = default_scales(game, {"f": feature}, log_odds=5.0)
    assert wide["scale"]["f"] == pytest.approx(2 * base)


def test_what_no_choice_depends_on_has_no_scale():
    """A term of the crowd alone and a shaping get none, and the note says why."""
    game = two_roads()

    def reward(x):
        tide = pyro.sample("tide", dist.Normal(0.0, 1.0))
        idle = pyro.sample("idle", dist.Normal(0.0, 1.0))
        return avoid_crowds(x) + tide * x.share(state="left") + 0.0 * idle

    table = default_scales(game, reward)
    assert table.index[table["scale"].isna()].tolist() == ["tide", "idle"]
    assert "no choice depends on it" in table.loc["tide", "note"]
    assert "not in the reward" in table.loc["idle", "note"]
    assert set(mfg.identify(game, reward).directions) >= {"tide", "idle"}
    values = np.random.default_rng(4).normal(size=(5, 2))
    values[4] = 0.0
    follows = np.einsum("sax,tx->tsa", game.transition_along(game.initial)[0], values[1:])
    shaping = values[:4, :, None] - follows
    assert default_scales(game, {"shaping": shaping})["scale"].isna().all()


def test_scales_do_not_depend_on_the_priors_of_a_program():
    """A program with a bounded weight has the scales of its features, and so has its list."""
    game = two_roads()
    named = {"crowding": lambda x: -x.density, "effort": lambda x: -1.0 * (x.action == "turn")}
    by_program, by_features = default_scales(game, avoid_crowds), default_scales(game, named)
    np.testing.assert_allclose(by_program["scale"], by_features["scale"], rtol=1e-10)
    assert set(by_program.index) == set(ROADS_TRUTH)


def test_weakly_informative_rewards_have_these_scales():
    """Draws of the weights have the table's standard deviations, and keep choices open."""
    game = shop(discount=1.0, horizon=20)
    named = {"hold": lambda x: x.action == "hold", "price": "price"}
    table = default_scales(game, named)
    reward = weakly_informative(game, named)
    found = prior_predictive(
        game,
        reward,
        draws=200,
        random_seed=1,
        mean_field=mfg.equilibrium.generate_mean_field(game, torch.full(game.shape, 0.25)),
    )
    spread = found.draws[list(named)].std()
    np.testing.assert_allclose(spread, table["scale"], rtol=5 / np.sqrt(2 * 200))
    assert "leaves choices open" in found.verdict
    with pytest.raises(ValueError, match="'flat', which has no scale"):
        weakly_informative(game, {**named, "flat": lambda x: x.time})


WRONG = [
    (prior_predictive, {"draws": 0}, ValueError, "`draws` must be at least 1"),
    (prior_predictive, {"game": 3}, TypeError, "`game` must be a MeanFieldGame"),
    (prior_predictive, {"n_agents": 0}, ValueError, "`n_agents` must be at least 1"),
    (prior_predictive, {"mean_field": [[1.0]]}, ValueError, "`mean_field` must have shape"),
    (prior_predictive, {"seed": 1}, TypeError, "did you mean `random_seed`"),
    (prior_predictive, {"game": lone()}, ValueError, "there is no choice to explain"),
    (
        prior_predictive,
        {"game": shop(horizon=None), "n_agents": 5},
        ValueError,
        "`n_agents` needs a game with a horizon",
    ),
    (default_scales, {"log_odds": 0.0}, ValueError, "`log_odds` must be above 0"),
    (default_scales, {"reward": {}}, ValueError, "must name at least one feature"),
    (default_scales, {"game": lone()}, ValueError, "there is no choice to explain"),
    (weakly_informative, {"reward": None}, TypeError, "no argument `reward`"),
]


@pytest.mark.parametrize(("function", "change", "error", "words"), WRONG)
def test_wrong_inputs_say_what_is_wrong(function, change, error, words):
    """Messages name the argument and what came."""
    arguments = {"game": two_roads(), "reward": avoid_crowds}
    if function is prior_predictive:
        arguments["random_seed"] = 1
    with pytest.raises(error, match=words):
        function(**(arguments | change))


def test_a_reward_that_is_not_linear_has_no_default_scales():
    """Derivatives that depend on the parameters are refused."""

    def curved(x):
        return -(pyro.sample("effort", dist.Normal(0.0, 1.0)) ** 2) * (x.action == "turn")

    with pytest.raises(ValueError, match="must be linear in its parameters"):
        default_scales(two_roads(), curved)
    with pytest.raises(TypeError, match="`features` must be a formula, a mapping or a list"):
        weakly_informative(two_roads(), avoid_crowds)


@pytest.mark.parametrize("horizon", [1, 4, None])
def test_figures_show_the_table_and_the_flow(horizon):
    """Dots are the table's means, one panel per action; flows have one per state, or one of all."""
    constants = {"discount": 0.9} if horizon is None else {}
    game = shop(horizon=horizon, transition=random_rows(1, 6, 4, 6), **constants)
    reward = mfg.linear_reward({"hold": lambda x: x.action == "hold"}, dist.Normal(0.0, 2.0))
    found = prior_predictive(game, reward, draws=20, random_seed=1)
    with matplotlib.rc_context({"backend": "Agg"}):
        choices, flows = mfg.plots.plot_prior_choices(found), mfg.plots.plot_prior_flows(found)
    shown = [axis for axis in choices.axes if axis.get_visible()]
    for axis, action in zip(shown, game.actions, strict=True):
        means = found.table.xs(action, level="action")["mean"]
        np.testing.assert_allclose(axis.lines[0].get_ydata(), means)
    drawn = [axis.lines[0].get_ydata() for axis in flows.axes if axis.get_visible()]
    mean = found.mean_field.mean("draw").to_numpy()
    np.testing.assert_allclose(drawn, mean.T if horizon == 4 else mean, atol=1e-12)
    plt.close("all")
