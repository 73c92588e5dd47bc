"""MFIRL and its objectives: gradients, normalisations, degenerate rewards."""

import warnings

import games
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from baselines.worlds import ALONE, alone, as_they_should, climbing, coin, halves
from reference import finite_difference

import mfgppl as mfg
from mfgppl import baselines
from mfgppl.baselines.matching import entropy_objective, hard_gap, regret_objective, soft_gap
from mfgppl.baselines.task import task_of
from mfgppl.control.fixed_flow import advantages, best_response
from mfgppl.control.steps import as_steps
from mfgppl.reward.parameters import Program


def random_table(game, seed):
    """Return a random reward table."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=game.shape))


@pytest.mark.parametrize("gap", [soft_gap, hard_gap])
def test_the_slope_is_the_derivative_of_the_value(gap, roads_panel):
    """Both objectives' slopes in the reward equal finite differences."""
    task = task_of(roads_panel, games.two_roads(discount=0.9, temperature=0.7), None)
    reward = random_table(task.game, 1)
    _, slope, _ = gap(task, reward)
    expected = finite_difference(lambda r: gap(task, torch.from_numpy(r))[0], reward.numpy())
    np.testing.assert_allclose(slope.numpy(), expected, atol=1e-8)


@pytest.mark.parametrize("normalised", [True, False])
def test_the_regrets_slope_in_the_parameters_is_its_derivative(normalised, roads_panel):
    """Through the reward program too, with and without the normalisation."""
    task = task_of(roads_panel, games.two_roads(), games.avoid_crowds)
    program = Program(games.avoid_crowds, task.inputs)
    objective = regret_objective(task, program, unit_advantage=normalised)
    point = np.array([0.8, -0.3])
    expected = finite_difference(lambda p: objective(p).value, point)
    np.testing.assert_allclose(objective(point).slope, expected, atol=1e-8)


def test_under_deterministic_moves_the_gradient_is_the_causal_likelihoods(roads_panel):
    """With a soft inner problem, `E_D[sum grad r] - E_pi[sum grad r]` is that of log L."""
    task = task_of(roads_panel, games.two_roads(temperature=0.7), games.avoid_crowds)
    model = mfg.TrajectoryModel(task.game, games.avoid_crowds, roads_panel)
    for seed in (1, 2, 3):
        reward = random_table(task.game, seed)
        _, slope, _ = soft_gap(task, reward)
        _, causal = model.law.evaluator()(reward.numpy())
        np.testing.assert_allclose(slope.numpy() * 60, causal, atol=1e-10)


def test_where_moves_are_as_frequent_as_they_should_be_it_is_too():
    """Random dynamics: equal where the panel has no noise of its own, and not with noise."""
    game = coin()
    policy = halves(game)
    whole = as_they_should(game, policy, 1024)
    noisy = mfg.simulate(game, policy, whole.mean_field(), n_agents=64, random_seed=1)
    reward, off = random_table(game, 1), []
    for panel in (whole, noisy):
        task = task_of(panel, game, None)
        _, slope, _ = soft_gap(task, reward)
        model = mfg.TrajectoryModel(game, climbing, panel)
        _, causal = model.law.evaluator()(reward.numpy())
        off.append(np.abs(slope.numpy() - causal / panel.n_trajectories).max())
    assert off[0] < 1e-10
    assert off[1] > 1e-3


def test_constant_rewards_and_their_shapings_have_no_advantages():
    """`c + v_t(s) - gamma E v_{t+1}` is what the normalisation takes out, and nothing else is."""
    game = coin(discount=0.9)
    steps = as_steps(game.transition_along(game.initial), game.horizon)
    potential = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 2)))
    shaping = potential[:, :, None].expand(game.shape).clone()
    for t in range(2):
        shaping[t] -= game.discount * steps.expected(t, potential[t + 1])
    bare = random_table(game, 2)
    found, shaped = (
        advantages(r, steps, game.available, discount=0.9) for r in (bare, bare + shaping + 3.0)
    )
    torch.testing.assert_close(found, shaped)
    zero = advantages(shaping + 3.0, steps, game.available, discount=0.9)
    torch.testing.assert_close(zero, torch.zeros_like(zero))
    assert found.abs().max() > 0.1


def test_the_best_response_beats_every_deterministic_policy():
    """Its value is the largest of all 2^6 deterministic policies, by enumeration."""
    game = coin()
    reward = random_table(game, 4)
    steps = as_steps(game.transition_along(game.initial), game.horizon)
    values, _ = best_response(reward, steps, discount=1.0)
    best = -np.inf
    for code in range(2**6):
        choice = torch.tensor([code >> k & 1 for k in range(6)]).reshape(3, 2)
        policy = torch.nn.functional.one_hot(choice, 2).to(torch.float64)
        shares, total = game.initial, 0.0
        for t in range(3):
            taken = shares[:, None] * policy[t]
            total += float((taken * reward[t]).sum())
            shares = steps.pushed(t, taken)
        best = max(best, total)
    assert float(game.initial @ values[0]) == pytest.approx(best, abs=1e-12)


def test_as_printed_a_constant_reward_is_optimal_and_it_is_said():
    """Without a normalisation the regret shrinks with the reward, to nothing."""
    game = games.two_roads()
    panel = games.played(game, games.avoid_crowds, games.ROADS_TRUTH, 200, 1)
    with pytest.warns(
        mfg.exceptions.ConvergenceWarning, match="degenerate: constant up to shaping"
    ):
        found = baselines.mfirl(
            panel, game, reward=games.avoid_crowds, normalisation="none", max_steps=800
        )
    assert any("degenerate" in line for line in found.messages)
    assert found.params.abs().max() < 0.01
    task = task_of(panel, game, games.avoid_crowds)
    objective = regret_objective(
        task, Program(games.avoid_crowds, task.inputs), unit_advantage=False
    )
    assert objective(np.array([0.0, -40.0])).value == pytest.approx(0.0, abs=1e-12)
    assert objective(np.array([1.5, np.log(0.4)])).value < 0


def test_the_normalised_regret_finds_a_direction_where_agents_are_sharp():
    """At a low temperature the hard problem ends near the true reward's direction.

    Agents who are all but deterministic leave a cone of rewards: the truth is no better by the
    objective than what is found, and little of the distance from opposite rewards, 1, is left.
    """
    game = coin(temperature=0.05, horizon=6)
    panel = games.played(game, alone, ALONE, 400, 1)
    found = baselines.mfirl(panel, game, reward=alone, normalisation="advantage")
    task = task_of(panel, game, alone)
    objective = regret_objective(task, Program(alone, task.inputs), unit_advantage=True)
    assert objective(found.params.to_numpy()).value >= objective(np.array([1.5, 0.5])).value
    metrics = baselines.recovery_metrics(game, alone, found.reward_program, parameters=ALONE)
    assert metrics.reward_distance < 0.2


def test_mfirl_recovers_a_known_reward():
    """Within three of the causal fit's standard errors of the truth, and of its estimate."""
    game, truth = coin(horizon=8), {"height": 1.5, "cost": 0.5}
    panel = games.played(game, alone, truth, 2000, 1)
    found = baselines.mfirl(panel, game, reward=alone)
    causal = mfg.mle(mfg.TrajectoryModel(game, alone, panel), svi_steps=20, progressbar=False)
    assert found.converged
    assert not found.messages
    for name, value in truth.items():
        assert abs(found.params[name] - value) < 4 * causal.bse[name]
        assert abs(found.params[name] - causal.params[name]) < 4 * causal.bse[name]


def test_under_deterministic_moves_mfirl_is_the_causal_fit(roads_panel):
    """Same gradient, same maximum."""
    found = baselines.mfirl(roads_panel, games.two_roads(), reward=games.avoid_crowds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        causal = mfg.mle(
            mfg.TrajectoryModel(games.two_roads(), games.avoid_crowds, roads_panel), svi_steps=20
        )
    np.testing.assert_allclose(found.params, causal.params[found.params.index], atol=1e-4)


def test_a_constant_of_the_reward_stays_where_it_was():
    """A direction that no choice depends on has the gradient zero."""
    game = coin()
    panel = as_they_should(game, halves(game), 1024)
    task = task_of(panel, game, climbing)

    def lifted(x):
        return climbing(x) + pyro.sample("lift", dist.Normal(0.0, 1.0))

    program = Program(lifted, task.inputs)
    assert abs(entropy_objective(task, program)(program.draw(0)).slope[-1]) < 1e-12


def test_without_a_crowd_the_method_sees_the_average_flow():
    """It equals MFIRL where no crowd matters, and is off where the crowd moves."""
    game = coin(horizon=8)
    panel = games.played(game, alone, ALONE, 500, 1)
    one = baselines.max_causal_entropy(panel, game, reward=alone)
    other = baselines.mfirl(panel, game, reward=alone)
    np.testing.assert_allclose(one.params, other.params, atol=1e-4)
    roads = games.two_roads(initial=[1.0, 0.0])
    panel = games.played(roads, games.avoid_crowds, games.ROADS_TRUTH, 2000, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        blind = baselines.max_causal_entropy(panel, roads, reward=games.avoid_crowds)
        seeing = baselines.mfirl(panel, roads, reward=games.avoid_crowds)
    metrics = [
        baselines.recovery_metrics(
            roads, games.avoid_crowds, fit.reward_program, parameters=games.ROADS_TRUTH
        )
        for fit in (blind, seeing)
    ]
    assert metrics[1].policy_deviation < 0.02
    assert metrics[0].policy_deviation > 3 * metrics[1].policy_deviation


def test_cloning_counts():
    """Frequencies of actions, with a pseudo-count, by time or pooled."""
    game = coin()
    panel = as_they_should(game, halves(game), 1024)
    exact = baselines.behaviour_cloning(panel, game, prior_count=0.0)
    torch.testing.assert_close(exact.policy, halves(game))
    counts = panel.counts.actions[0, 0]
    smooth = baselines.behaviour_cloning(panel, game, prior_count=2.0)
    expected = (counts + 2.0) / (counts + 2.0).sum()
    np.testing.assert_allclose(smooth.policy[0, 0].numpy(), expected)
    pooled = baselines.behaviour_cloning(panel, game, prior_count=0.0, by_time=False)
    total = panel.counts.actions.sum(0)
    np.testing.assert_allclose(pooled.policy[1].numpy(), total / total.sum(-1, keepdims=True))


def test_a_reward_that_cannot_express_the_choices_is_reported():
    """The gradient is zero at the best of a poor class, while occupancies stay apart."""
    game = coin(horizon=8)
    panel = games.played(game, alone, {"height": 3.0, "cost": -2.0}, 2000, 1)
    poor = mfg.linear_reward({"company": "density"}, dist.Normal(0.0, 1.0))
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="gradient has vanished"):
        found = baselines.mfirl(panel, game, reward=poor)
    assert any("cannot express" in line for line in found.messages)
