"""MF-AIRL: its optimum, its bias under random dynamics, its sampler, its failures."""

import warnings

import games
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from baselines.worlds import ALONE, alone, as_they_should, coin, halves
from reference import finite_difference

import mfgppl as mfg
from mfgppl import baselines
from mfgppl.baselines.adversary import Discriminator, expected_moves, observed_moves
from mfgppl.baselines.sampler import Sampler
from mfgppl.baselines.task import task_of
from mfgppl.control.fixed_flow import occupancy_of
from mfgppl.models import sis
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import double_precision


@pytest.fixture
def duel():
    """A task of exact counts with its discriminator."""
    game = coin()
    panel = as_they_should(game, halves(game), 1024)
    task = task_of(panel, game, alone)
    program = Program(alone, task.inputs)
    return task, Discriminator(task, program, "table", expected=False, seed=0)


def test_moves_are_shares_of_all_choices(duel):
    """Observed and expected moves of the same policy agree, and each source's sum to 1."""
    task, _ = duel
    ours = observed_moves(task)
    occupancy = occupancy_of(halves(task.game), task.steps, task.start)
    theirs = expected_moves(task, occupancy)
    torch.testing.assert_close(ours.onward, theirs.onward)
    torch.testing.assert_close(ours.last, theirs.last)
    assert float(ours.onward.sum() + ours.last.sum()) == pytest.approx(1.0)
    torch.testing.assert_close(ours.occupancy, task.occupancy)


@pytest.mark.parametrize("expected", [False, True])
def test_the_loss_is_the_cross_entropy_by_a_loop(expected, duel):
    """`-E log D - E log(1 - D)` with `D = exp f / (exp f + pi)`, move by move."""
    task, judge = duel
    judge.expected = expected
    game = task.game
    random = np.random.default_rng(1)
    with torch.no_grad():
        judge.shaping[0].copy_(torch.from_numpy(random.normal(size=(3, 2))))
        judge.point.copy_(torch.tensor([0.7, -0.2], dtype=torch.float64))
    policy = torch.from_numpy(random.dirichlet(np.ones(2), size=(3, 2)))
    theirs = expected_moves(task, occupancy_of(policy, task.steps, task.start))
    with double_precision():
        loss, accuracy = judge.judge(theirs, policy.log())
    g, total, right = judge.shaping[0].detach().numpy(), 0.0, 0.0
    table = game.transition.numpy()
    for t, s, a in np.ndindex(*game.shape):
        base = 0.7 * (s == 1) + 0.2 * (a == 1) - g[t, s]
        for x in range(2) if t < 2 else [None]:
            f, log_pi = base, float(policy[t, s, a].log())
            if x is not None:
                f += table[s, a] @ g[t + 1] if expected else g[t + 1, x]
            source = observed_moves(task), theirs
            ours, sampled = (
                float(m.last[s, a] if x is None else m.onward[t, s, a, x]) for m in source
            )
            d = 1 / (1 + np.exp(log_pi - f))
            total -= ours * np.log(d) + sampled * np.log(1 - d)
            right += (ours * (d > 0.5) + sampled * (d < 0.5)) / 2
    assert float(loss.detach()) == pytest.approx(total, abs=1e-12)
    assert accuracy == pytest.approx(right, abs=1e-12)


def test_the_discriminators_gradient_is_the_losss(duel):
    """Autograd's gradient in reward and potential equals finite differences."""
    task, judge = duel
    policy = torch.full(task.game.shape, 0.5, dtype=torch.float64)
    theirs = expected_moves(task, occupancy_of(policy, task.steps, task.start))

    def loss_at(point):
        with torch.no_grad():
            judge.point.copy_(torch.from_numpy(point))
        with double_precision():
            return float(judge.judge(theirs, policy.log())[0].detach())

    point = np.array([0.4, 0.9])
    expected = finite_difference(loss_at, point)
    loss_at(point)
    with double_precision():
        judge.judge(theirs, policy.log())[0].backward()
    np.testing.assert_allclose(judge.point.grad.numpy(), expected, atol=1e-8)


def test_at_the_optimum_the_score_is_the_log_of_the_policy():
    """With the agents' own policy as sampler, `f = r + E g' - g` at rest is `log pi^E`.

    The reward is free at each time, state and action here, so that the class holds the optimum.
    """
    game = coin()
    policy = halves(game)
    task = task_of(as_they_should(game, policy, 1024), game, alone)
    program = Program(alone, task.inputs)
    judge = Discriminator(task, program, "table", expected=True, seed=0)
    table = torch.zeros(game.shape, dtype=torch.float64, requires_grad=True)
    judge.program = type("Free", (), {"table": lambda self, point: point})()
    judge.point = table
    theirs = expected_moves(task, occupancy_of(policy, task.steps, task.start))
    with double_precision():
        judge.settle(theirs, policy.log(), 2000)
        onward, last = judge.scores()
    found = torch.cat([onward[..., 0], last[None]]).detach()
    torch.testing.assert_close(found, policy.log(), atol=1e-4, rtol=0)


def test_under_deterministic_moves_it_is_the_causal_fit(roads_panel):
    """As printed, with an exact sampler: the same reward as MFIRL and maximum likelihood."""
    found = baselines.mfairl(roads_panel, games.two_roads(), reward=games.avoid_crowds)
    assert found.converged
    assert not found.messages
    same = baselines.mfirl(roads_panel, games.two_roads(), reward=games.avoid_crowds)
    np.testing.assert_allclose(found.params, same.params, atol=0.01)
    assert found.history["loss"].iloc[-1] == pytest.approx(np.log(4.0), abs=1e-3)


def test_under_random_moves_the_printed_score_is_biased_and_its_mean_is_not():
    """The potential of the state reached lets luck explain choices: infection's cost is lost."""
    game = sis.game(horizon=10)
    panel = games.played(game, sis.reward, sis.TRUTH, 2000, 1)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        for how in ("observed", "expected"):
            fit = baselines.mfairl(panel, game, reward=sis.reward, next_state=how)
            found[how] = fit.params["infection"]
    assert abs(found["expected"] - 1.0) < 0.25
    assert abs(found["observed"] - 1.0) > 2 * abs(found["expected"] - 1.0)


def test_the_sampler_learns_the_soft_policy_of_a_score_without_the_dynamics():
    """Natural policy gradient on draws ends near the soft best response by backward induction."""
    game = coin()
    panel = games.played(game, alone, ALONE, 50, 1)
    task = task_of(panel, game, alone)
    sampler = Sampler(task, 1, 400, 0.1)
    reward = torch.from_numpy(np.random.default_rng(3).normal(size=game.shape))
    for _ in range(150):
        sampler.draw()
        sampler.improve(reward[:-1, ..., None].expand(2, 2, 2, 2), reward[-1])
    _, log_policy = task.response(reward)
    shares = occupancy_of(log_policy.exp(), task.steps, task.start).sum(-1)
    off = ((sampler.log_policy.exp() - log_policy.exp()).abs().max(-1).values * shares).sum(-1)
    assert float(off.max()) < 0.06
    assert sampler.n_interactions == 150 * 400 * 3


def test_the_partition_function_by_importance_sampling_is_the_sum():
    """From a uniform sampler, within five errors of `sum_tau mu_0 prod P exp(sum f)`."""
    game = coin()
    panel = games.played(game, alone, ALONE, 50, 1)
    task = task_of(panel, game, alone)
    reward = torch.from_numpy(np.random.default_rng(3).normal(size=game.shape))
    values = torch.zeros(2, dtype=torch.float64)
    for t in (2, 1, 0):
        ahead = (game.transition @ values.exp()).log() if t < 2 else torch.zeros(2, 2)
        values = torch.logsumexp(reward[t] + ahead, -1)
    expected = float((task.start * values.exp()).sum().log())
    found = []
    for seed in range(20):
        sampler = Sampler(task, seed, 400, 0.1)
        sampler.draw()
        found.append(sampler.improve(reward[:-1, ..., None].expand(2, 2, 2, 2), reward[-1])[0])
    error = np.std(found, ddof=1) / np.sqrt(20)
    assert np.mean(found) == pytest.approx(expected, abs=5 * error + 2 * np.var(found))


def sides(x):
    """A reward for a side of `two_roads` and for turning, without a crowd."""
    left = pyro.sample("left", dist.Normal(0.0, 1.0))
    turn = pyro.sample("turn", dist.Normal(0.0, 1.0))
    return left * (x.state == "left") + turn * (x.action == "turn")


def test_the_sampled_method_recovers_a_known_reward():
    """Model-free, it is within 0.2 of the truth, and counts what it drew."""
    game, truth = games.two_roads(), {"left": 1.0, "turn": -0.5}
    panel = games.played(game, sides, truth, 1000, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        found = baselines.mfairl(
            panel, game, reward=sides, sampler="sampled", n_rounds=400, random_seed=1
        )
    for name, value in truth.items():
        assert found.params[name] == pytest.approx(value, abs=0.2)
    assert found.n_interactions == 400 * 100 * 4
    assert found.history["log_partition"].tail(100).median() == pytest.approx(0.0, abs=0.3)


def test_a_discriminator_that_has_won_is_reported():
    """Agents who take one of twenty ways are distinguished from a sampler that learns slowly."""
    ways = list(range(20))
    game = mfg.MeanFieldGame(
        states=ways,
        actions=[f"to {k}" for k in ways],
        horizon=2,
        transition=np.broadcast_to(np.eye(20), (20, 20, 20)),
        initial=np.full(20, 0.05),
    )
    policy = torch.zeros(game.shape, dtype=torch.float64)
    policy[..., 0] = 1.0
    flow = mfg.equilibrium.generate_mean_field(game, policy)
    panel = mfg.simulate(game, policy, flow, n_agents=200, random_seed=1)
    first = mfg.linear_reward({"first": lambda x: x.action == "to 0"}, dist.Normal(0.0, 1.0))
    with pytest.warns(mfg.exceptions.ConvergenceWarning) as caught:
        found = baselines.mfairl(
            panel, game, reward=first, sampler="sampled", n_rounds=20, policy_rate=0.01,
            discriminator_steps=20, learning_rate=0.2,
        )  # fmt: skip
    assert any("discriminator has saturated" in str(w.message) for w in caught)
    assert any("saturated" in line for line in found.messages)
    assert found.history["accuracy"].iloc[-1] > 0.95
