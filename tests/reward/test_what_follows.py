"""What follows from agents who are more than a reward: worth, distance, records, words."""

import json

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import random_rows

import mfgppl as mfg

S, A, T, N = 3, 2, 4, 200
TABLE, INITIAL = random_rows(41, S, A, S), random_rows(42, S)
SHOCK = torch.tensor([0.5, -0.2, -0.4, 0.1], dtype=torch.float64)[:, None, None]


def game(**changes):
    arguments = {
        "states": range(S), "actions": ["stay", "move"], "horizon": T, "initial": INITIAL,
        "transition": TABLE, "discount": 0.9,
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


def reward(x):
    pay = pyro.sample("pay", dist.Normal(0.0, 2.0))
    return pay * (x.action == "move") * (1.0 - x.state) - x.density


def shaken(x):
    return mfg.Preferences(reward(x), shock=SHOCK * (x.action == "move"), lapse=0.2, discount=0.7)


def played(world, program):
    """Return the model of a panel in equilibrium, its flow known, and the fit."""
    found = mfg.solve_equilibrium(world, program, parameters={"pay": 0.8}, throw=True).value
    panel = mfg.simulate(world, found.policy, found.mean_field, n_agents=N, random_seed=1)
    model = mfg.TrajectoryModel(world, program, panel, mean_field=found.mean_field)
    return model, mfg.mle(model, svi_steps=0, progressbar=False)


@pytest.fixture(scope="module")
def shaken_fit():
    return played(game(), shaken)


@pytest.fixture(scope="module")
def typed_fit():
    world = game(
        types={"size": ["small", "large"]}, initial=np.tile(INITIAL, 2) / 2,
        discount={"small": 0.9, "large": 0.5}, temperature={"small": 0.6, "large": 1.4},
    )  # fmt: skip
    return played(world, reward)


def earned(policy, flow, rewards, discount):
    """Return the discounted income of a crowd, added up."""
    return sum(
        discount**t * flow[t, s] * policy[t, s, a] * rewards[t, s, a]
        for t in range(T)
        for s in range(S)
        for a in range(A)
    )


def rewards_along(flow, pay):
    return pay * np.arange(A) * (1.0 - np.arange(S)[:, None]) - flow[:, :, None]


def test_welfare_is_what_is_earned(shaken_fit):
    """By the program's own discount, without shocks; entropy is of no worth to these."""
    model, fit = shaken_fit
    found = mfg.counterfactual(
        model, fit, model.game.replace(behaviour="boltzmann"), n_jobs=1, progressbar=False
    )
    pay = fit.params["pay"]
    for world, law in (("baseline", "entropy"), ("changed", "boltzmann")):
        here = model.game.replace(behaviour=law)
        solved = mfg.solve_equilibrium(here, shaken, parameters=fit.params, throw=True).value
        flow, policy = solved.mean_field.numpy(), solved.policy.numpy()
        expected = earned(policy, flow, rewards_along(flow, pay), 0.7)
        shown = found.draws["welfare"].sel(world=world).item()
        assert shown == pytest.approx(expected, rel=1e-8)
    assert "welfare_with_entropy" not in found.draws
    assert found.changes == ("behaviour",)
    assert "Changed: behaviour." in found.verdict


def test_welfare_by_type_is_by_each_types_discount(typed_fit):
    """Summed over types of half the crowd each."""
    model, fit = typed_fit
    dearer = model.game.replace(discount={"small": 0.9, "large": 0.6})
    found = mfg.counterfactual(model, fit, dearer, n_jobs=1, progressbar=False)
    assert found.changes == ("discount",)
    for world, large in (("baseline", 0.5), ("changed", 0.6)):
        here = model.game.replace(discount={"small": 0.9, "large": large})
        solved = mfg.solve_equilibrium(here, reward, parameters=fit.params, throw=True).value
        flow = solved.mean_field.numpy().reshape(T, 2, S)
        policy = solved.policy.numpy().reshape(T, 2, S, A)
        rewards = rewards_along(flow.sum(1), fit.params["pay"])
        total = sum(
            earned(policy[:, c], flow[:, c], rewards, discount)
            for c, discount in enumerate((0.9, large))
        )
        assert found.draws["welfare"].sel(world=world).item() == pytest.approx(total, rel=1e-8)


def test_the_distance_from_equilibrium_has_the_measures_that_there_are(shaken_fit, typed_fit):
    """No regularised exploitability beside shocks; none at all where types value differently."""
    names = {
        "plain": ["regularised exploitability", "exploitability", "distance of the flow"],
        "shaken": ["exploitability", "distance of the flow"],
        "typed": ["distance of the flow"],
    }
    fits = {"plain": played(game(), reward), "shaken": shaken_fit, "typed": typed_fit}
    for kind, (model, fit) in fits.items():
        found = mfg.checks.observed_exploitability(model, fit, draws=20, random_seed=1)
        assert list(found.table.index) == names[kind]
        assert np.isfinite(found.table.to_numpy()).all()
        assert found.passed is not None


@pytest.mark.usefixtures("few_panels", "blank_figures")
def test_the_report_says_what_agents_are(shaken_fit, typed_fit, tmp_path):
    """Constants of the program's own and by type, parts and laws, each with a row."""
    model, fit = shaken_fit
    page = mfg.report(fit, tmp_path / "a.html", model=model).read_text("utf-8")
    assert "the program&#39;s own" in page
    assert "shock, lapse" in page
    page = mfg.report(typed_fit[1], tmp_path / "b.html", model=typed_fit[0]).read_text("utf-8")
    assert "0.9, 0.5" in page
    assert "0.6, 1.4" in page
    myopic = model.game.replace(lookahead=2)
    here = mfg.TrajectoryModel(myopic, shaken, model.panel, mean_field=model.mean_field)
    draws = mfg.laplace(here, draws=50, random_seed=1, flow_bias=False)
    known = json.loads(draws.attrs["agents"])
    assert known == {"parts": ["shock", "discount", "lapse"], "by_type": {}, "lookahead": 2}


def test_a_stationary_game_knows_lapses_discounts_and_short_plans():
    """By value iteration; a discount of one is refused."""
    world = game(horizon=None)

    def endless(x):
        return mfg.Preferences(reward(x), lapse=0.2, discount=0.7, temperature=0.6)

    found = mfg.solve_equilibrium(world, endless, parameters={"pay": 0.8}, throw=True).value
    flow = found.mean_field.numpy()
    rewards = 0.8 * np.arange(A) * (1.0 - np.arange(S)[:, None]) - flow[0][:, None]
    values = np.zeros(S)
    for _ in range(200):
        q_values = rewards + 0.7 * TABLE @ values
        values = 0.6 * np.log(np.exp(q_values / 0.6).sum(-1))
    soft = np.exp((q_values - values[:, None]) / 0.6)
    np.testing.assert_allclose(found.policy[0], 0.8 * soft + 0.1, atol=1e-9)
    np.testing.assert_allclose(found.soft_values[0], values, atol=1e-9)
    myopic = mfg.solve_equilibrium(
        game(horizon=None, lookahead=1), reward, parameters={"pay": 0.8}, throw=True
    ).value
    rewards = 0.8 * np.arange(A) * (1.0 - np.arange(S)[:, None])
    np.testing.assert_allclose(
        myopic.policy[0], np.exp(rewards) / np.exp(rewards).sum(-1, keepdims=True), atol=1e-9
    )
    with pytest.raises(ValueError, match="below 1 in a stationary game; it has 1"):
        mfg.solve_equilibrium(
            world, lambda x: mfg.Preferences(reward(x), discount=1.0), parameters={"pay": 0.8}
        )


def test_sure_choices_and_wrong_parts():
    """No lapse beside a choice that is sure; parts that are not finite are named."""

    def sure(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 2.0))
        return mfg.Preferences(3000.0 * pay * (x.action == "move"), lapse=0.0)

    found = mfg.solve_equilibrium(game(), sure, parameters={"pay": 1.0}, throw=True).value
    np.testing.assert_allclose(found.policy[..., 1], 1.0)
    for part, value in [("terminal", np.nan), ("shock", np.inf)]:
        with pytest.raises(ValueError, match=f"the {part}.* is not finite everywhere"):
            mfg.solve_equilibrium(
                game(), lambda x, p=part, v=value: mfg.Preferences(reward(x), **{p: v}),
                parameters={"pay": 1.0},
            )  # fmt: skip
    with pytest.raises(ValueError, match=r"must be at least 0 and at most 1; it has 1\.5"):
        mfg.solve_equilibrium(
            game(),
            lambda x: mfg.Preferences(reward(x), lapse=np.array([0.1, 0.1, 1.5])[:, None]),
            parameters={"pay": 1.0},
        )
    with pytest.raises(ValueError, match=r"w\[x\.price\.codes\]"):
        mfg.solve_equilibrium(
            game(), lambda x: mfg.Preferences(reward(x), terminal=torch.ones(S)),
            parameters={"pay": 1.0},
        )  # fmt: skip
