"""PLIRL: the planner's problem, its partition functions, and what Theorem 1 makes of it."""

import sys
import warnings
from importlib import import_module
from pathlib import Path

import games
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from baselines.worlds import ALONE, alone, coin

import mfgppl as mfg
from mfgppl import baselines
from mfgppl.baselines.flow_samples import drawn_flows, log_weights, returns_of
from mfgppl.baselines.planner import optimal_plan
from mfgppl.baselines.task import task_of
from mfgppl.models import equilibrium_price, sis
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import double_precision

ANALYSES = Path(__file__).parents[2] / "analyses"


@pytest.fixture(scope="module")
def cooperative():
    """The dial from competition to cooperation of the analysis."""
    sys.path.insert(0, str(ANALYSES))
    try:
        return import_module("cooperation").cooperative
    finally:
        sys.path.remove(str(ANALYSES))


@pytest.mark.parametrize("name", ["roads", "epidemic"])
def test_the_planner_finds_the_social_optimum_with_entropy(name):
    """Natural gradient steps end where `social_optimum`'s L-BFGS does, by another road."""
    if name == "roads":
        game, reward, truth = games.two_roads(), games.avoid_crowds, games.ROADS_TRUTH
    else:
        game, reward, truth = sis.game(horizon=12), sis.reward, sis.TRUTH
    best = mfg.equilibrium.social_optimum(
        game, reward, parameters=truth, temperature=1.0, throw=True
    )
    panel = mfg.simulate(game, best.value.policy, best.value.mean_field, n_agents=40, random_seed=1)
    task = task_of(panel, game, reward)
    program = Program(reward, task.inputs)
    point = torch.tensor([np.log(v) if k != "crowding" else v for k, v in truth.items()])
    uniform = torch.full(game.shape, 0.5, dtype=torch.float64)
    with double_precision():
        plan = optimal_plan(
            task, program, point.to(torch.float64), uniform, tolerance=1e-7, max_steps=500
        )
    assert plan.residual <= 1e-7
    torch.testing.assert_close(plan.mean_field, best.value.mean_field, atol=1e-4, rtol=0)


def test_without_a_crowd_the_planner_is_one_agent():
    """Nobody affects anybody: PLIRL and MFIRL are one problem where the flow moves as it should."""
    game = coin(horizon=6)
    panel = games.played(game, alone, ALONE, 500, 1)
    one = baselines.plirl(panel, game, reward=alone)
    other = baselines.mfirl(panel, game, reward=alone)
    assert one.converged
    np.testing.assert_allclose(one.params, other.params, atol=1e-3)


@pytest.mark.parametrize("cooperation", [0.0, 1.0])
def test_plirl_is_right_where_agents_cooperate_and_biased_where_they_do_not(
    cooperation, cooperative
):
    """Theorem 1 on the cartel: the cost of a unit is found at c = 1, and as nothing at c = 0.

    The individual-level method, given what agents of that cooperation earn, is right at both.
    """
    file = equilibrium_price
    game, truth = file.game(), file.TRUTH
    acted = cooperative(game, file.reward, cooperation)
    world = mfg.solve_equilibrium(game, acted, parameters=truth, throw=True).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=5000, random_seed=1)
    planner = baselines.plirl(panel, game, reward=file.reward)
    individual = baselines.mfirl(panel, game, reward=acted)
    assert planner.converged
    assert individual.converged
    assert individual.params["unit"] == pytest.approx(truth["unit"], abs=0.15)
    if cooperation == 1.0:
        assert planner.params["unit"] == pytest.approx(truth["unit"], abs=0.15)
    else:
        assert planner.params["unit"] < 0.3
    for name in ("convex", "material", "rush", "storage"):
        assert planner.params[name] == pytest.approx(truth[name], abs=0.15)


def bonus(x):
    """A reward for being on the left."""
    return pyro.sample("bonus", dist.Normal(0.0, 1.0)) * (x.state == "left")


def one_choice():
    """All start on the left and choose once whether to stay there."""
    return games.two_roads(horizon=2, initial=[1.0, 0.0])


def test_the_sampled_partition_function_is_the_integral():
    """Importance sampling from a shifted law gives `log Z` by quadrature, to five errors."""
    game, population, worth = one_choice(), 20, 0.8
    panel = games.played(game, bonus, {"bonus": worth}, 50, 1)
    task = task_of(panel, game, bonus)
    task = task._replace(game=game.replace(initial=task.start))
    program = Program(bonus, task.inputs)
    mean = torch.zeros(game.shape, dtype=torch.float64)
    mean[0, 0, 0] = 0.5
    deviation = torch.full_like(mean, 1.8)
    with double_precision():
        flows = drawn_flows(task, mean, deviation, 1500, torch.Generator().manual_seed(1))
        returns = returns_of(task, program, torch.tensor([worth]), flows)
    found = log_weights(flows, returns, mean, deviation, beta=1.0, population=population)
    found = found - population * flows.entropy
    found = found + population * _entropy_of_first(flows.policy)
    shares = np.exp(found.numpy() - found.numpy().max())
    log_partition = np.log(shares.mean()) + found.numpy().max()
    error = shares.std() / shares.mean() / np.sqrt(len(shares))
    grid = np.linspace(-20, 20, 4001) * np.sqrt(2)  # difference of two logits of deviation 2
    density = np.exp(-0.5 * (grid / (2 * np.sqrt(2))) ** 2) / (2 * np.sqrt(2) * np.sqrt(2 * np.pi))
    stays = 1 / (1 + np.exp(-grid))
    entropy = -(stays * np.log(stays + 1e-300) + (1 - stays) * np.log1p(-stays + 1e-300))
    energy = population * (worth * (1 + stays) + entropy)
    expected = np.log(np.trapezoid(density * np.exp(energy), grid))
    assert log_partition == pytest.approx(expected, abs=5 * error)


def _entropy_of_first(policy):
    """Entropy of the one choice that moves anybody; the quadrature has no other."""
    first = policy[:, 0, 0]
    return -torch.special.xlogy(first, first).sum(-1)


def test_sampled_plirl_recovers_a_known_reward():
    """Within 0.25 of the exact partition function's answer, itself within 0.25 of the truth."""
    game = one_choice()
    panel = games.played(game, bonus, {"bonus": 1.0}, 2000, 1)
    exact = baselines.plirl(panel, game, reward=bonus)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        sampled = baselines.plirl(
            panel, game, reward=bonus, partition="sampled", n_rounds=75, n_flows=40, random_seed=1
        )
    assert exact.params["bonus"] == pytest.approx(1.0, abs=0.25)
    assert sampled.params["bonus"] == pytest.approx(exact.params["bonus"], abs=0.25)
    assert sampled.n_interactions == 75 * 40 * 2


def test_collapsed_importance_weights_are_reported():
    """Many choices and few flows: the estimate rests on one draw, and the result says so."""
    game = coin(horizon=6)
    panel = games.played(game, alone, ALONE, 100, 1)
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="importance weights have collapsed"):
        found = baselines.plirl(
            panel, game, reward=alone, partition="sampled", n_rounds=8, n_flows=10, population=5000
        )
    assert not found.converged
