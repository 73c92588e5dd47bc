"""Metrics of recovery against what they must be."""

import games
import numpy as np
import pandas as pd
import pytest
import torch
from baselines.worlds import ALONE, alone, coin

import mfgppl as mfg
from mfgppl import baselines


def measured(game, recovered, **options):
    """Return the metrics of a reward beside the truth of `coin`."""
    return baselines.recovery_metrics(game, alone, recovered, parameters=ALONE, **options)


def bound(height, cost):
    """Return the reward of `coin` at parameters."""
    return lambda x: height * (x.state == "high") - cost * (x.action == "toss")


def test_the_truth_deviates_from_nothing():
    """At the true reward all deviations are zero and the correlation is one."""
    found = measured(coin(), bound(**ALONE))
    assert found.mean_field_deviation == pytest.approx(0.0, abs=1e-10)
    assert found.policy_deviation == pytest.approx(0.0, abs=1e-10)
    assert found.reward_correlation == pytest.approx(1.0)
    assert found.reward_distance == pytest.approx(0.0, abs=1e-6)
    assert found.expected_return == pytest.approx(found.true_return)
    game = coin()
    policy = mfg.solve_equilibrium(game, alone, parameters=ALONE).value.policy
    direct = mfg.equilibrium.exploitability(game, alone, policy, parameters=ALONE)
    assert found.exploitability == pytest.approx(direct)


def test_deviations_are_divergences_by_hand():
    """Both sums, from the two equilibria, by a loop."""
    game = coin()
    other = bound(0.2, 1.5)
    found = measured(game, other)
    truth = mfg.solve_equilibrium(game, alone, parameters=ALONE).value
    worlds = truth, mfg.solve_equilibrium(game, other).value
    flows, policies = ([v[k].numpy() for v in worlds] for k in (0, 1))
    flow = policy = 0.0
    for t, s in np.ndindex(3, 2):
        flow += flows[0][t, s] * np.log(flows[0][t, s] / flows[1][t, s])
        for a in range(2):
            ratio = policies[0][t, s, a] / policies[1][t, s, a]
            policy += flows[0][t, s] * policies[0][t, s, a] * np.log(ratio)
    assert found.mean_field_deviation == pytest.approx(flow, abs=1e-12)
    assert found.policy_deviation == pytest.approx(policy, abs=1e-12)


def test_the_distance_ignores_shaping_and_scale_and_knows_signs():
    """0 for `3 r + shaping`, 1 for `-r`; the plain correlation sees the shaping."""
    game = coin()
    potential = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 2)))
    shaping = potential[:, :, None].expand(game.shape).clone()
    shaping[:-1] -= torch.einsum("sax,tx->tsa", game.transition, potential[1:])
    shaped = measured(game, lambda x: 3.0 * bound(**ALONE)(x) + 5.0 * shaping)
    assert shaped.reward_distance == pytest.approx(0.0, abs=1e-6)
    assert shaped.reward_correlation < 0.9
    opposite = measured(game, bound(-ALONE["height"], -ALONE["cost"]))
    assert opposite.reward_distance == pytest.approx(1.0)
    assert opposite.reward_correlation == pytest.approx(-1.0)


def test_parameters_of_both_may_be_given_as_series():
    """A program with a fit's parameters is the program with them fixed."""
    game, values = coin(), {"height": 0.2, "cost": 1.5}
    fixed = measured(game, bound(**values))
    series = baselines.recovery_metrics(
        game, alone, alone, parameters=pd.Series(ALONE), recovered_parameters=pd.Series(values)
    )
    np.testing.assert_allclose(series, fixed, atol=1e-9)


def test_a_policy_can_be_judged_without_a_reward():
    """A cloned policy has deviations and an exploitability, and no reward."""
    game = coin()
    panel = games.played(game, alone, ALONE, 400, 1)
    clone = baselines.behaviour_cloning(panel, game)
    found = measured(game, None, policy=clone.policy)
    assert 0 < found.policy_deviation < 0.05
    assert np.isnan(found.reward_distance)


def test_a_constant_reward_has_no_correlation():
    """Nan for the table, and half way between equal and opposite is not claimed either."""
    found = measured(coin(), lambda x: torch.zeros(()))
    assert np.isnan(found.reward_correlation)
    assert np.isnan(found.reward_distance)


def test_a_joint_game_is_measured_by_its_shares_of_states():
    """The metrics of a joint game are those of the same game without the joint flow."""
    plain, joint = measured(coin(), bound(1.0, 1.0)), measured(coin(joint=True), bound(1.0, 1.0))
    np.testing.assert_allclose(plain[:6], joint[:6], atol=1e-8)
