"""The kernel of games without a horizon equals its plain twin, whatever the search begins at."""

import itertools

import mpmath
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch

import mfgppl as mfg
from mfgppl._kernels import stationary
from mfgppl.data.panel import Counts
from mfgppl.density.of_model import density_of
from mfgppl.likelihood.stationary_games import StationaryLikelihood

ROUNDING = 1e-10
NEAR_ONE = 1e-8  # of the twin, whose values lose four digits at a discount of 0.9999
FAR_OFF = 1e-6  # of its gradient where rewards are tens of temperatures apart
SIZES = [(1, 1, 1), (1, 1, 3), (1, 12, 2), (3, 5, 3), (2, 40, 2)]  # cells, states of each, actions
DISCOUNTS = [0.3, 0.95, 0.9999]
CASES = list(itertools.product(SIZES, DISCOUNTS, ["dense", "shared", "sparse"]))
cases = pytest.mark.parametrize("case", CASES, ids=str)


def law_of(case, seed=0, *, counts=None):
    """A law with random dynamics within cells and counts; some actions are never taken."""
    (C, S, A), discount, kind = case
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.ones(S), size=(1, 1 if kind == "shared" else C, S, A))
    table[..., 0, :] = 0.7 * np.eye(S) + 0.3 * table[..., 0, :]  # mixes slowly
    transition = torch.from_numpy(table).expand(1, C, S, A, S)
    if kind == "sparse":
        apart = transition[:, :, :, :, None] * torch.eye(C).to(transition)[:, None, None, :, None]
        transition = apart.reshape(1, C * S, A, C * S).to_sparse()
    if counts is None:
        counts = rng.poisson(rng.gamma(0.5, 20.0, size=(1, C * S, A))).astype(float)
    empty = np.zeros((1, C * S))
    return StationaryLikelihood(transition, Counts(counts, empty, empty, 0 * counts), discount, 0.7)


def rewards_of(case, n=3):
    """Rewards around those of the counts and far from them; one action is not available."""
    (C, S, A), *_ = case
    rng = np.random.default_rng(5)
    rewards = np.logspace(-1, 1, n)[:, None, None, None] * rng.normal(size=(n, 1, C * S, A))
    if A > 2:
        rewards[:, 0, 0, -1] = -np.inf
    return rewards


@cases
def test_value_and_gradient_are_those_of_the_twin(case):
    """Autograd of policy iteration in torch gives the kernel's numbers, dense, sparse, by cell."""
    law = law_of(case)
    law.counts.actions[~np.isfinite(rewards_of(case)[0])] = 0.0
    for reward in rewards_of(case):
        value, gradient = law.evaluator()(reward)
        at = torch.tensor(reward, requires_grad=True)
        twin = law.log_likelihood(at)
        (slope,) = torch.autograd.grad(twin, at)
        close = NEAR_ONE if case[1] > 0.999 else ROUNDING
        assert value == pytest.approx(twin.item(), rel=close, abs=close)
        size = max(1.0, float(slope.abs().max()))
        np.testing.assert_allclose(gradient, slope.numpy(), atol=close * size)


@pytest.mark.parametrize("k", range(3))
def test_near_one_the_kernel_keeps_its_digits(k):
    """At a discount of 0.9999 value and gradient are those of arithmetic of forty digits."""
    case = ((1, 6, 2), 0.9999, "dense")
    law, reward = law_of(case), rewards_of(case)[k]
    value, gradient = law.evaluator()(reward)
    expected, slope = in_forty_digits(law, reward[0])
    assert value == pytest.approx(expected, rel=1e-11)
    np.testing.assert_allclose(gradient[0], slope, atol=1e-10 * np.abs(slope).max())


def in_forty_digits(law, reward):
    """Value and gradient (S, A) by Newton's method and one linear system."""
    with mpmath.workdps(40):
        exact = np.vectorize(mpmath.mpf, otypes=[object])
        moves, counts, reward = (
            exact(v) for v in (law.transition[0, 0].numpy(), law.counts.actions[0], reward)
        )
        beta, discount = mpmath.mpf(law.temperature), mpmath.mpf(law.discount)
        exp, log = (np.vectorize(f, otypes=[object]) for f in (mpmath.exp, mpmath.log))

        def solved(matrix, right):
            return np.array(list(mpmath.lu_solve(mpmath.matrix(matrix), mpmath.matrix(right))))

        values = exact(np.zeros(len(reward)))
        for _ in range(30):
            q_values = reward + discount * (moves @ values)
            soft = beta * log(exp(q_values / beta).sum(-1))
            policy = exp((q_values - soft[:, None]) / beta)
            system = np.eye(len(reward)) - discount * (policy[..., None] * moves).sum(1)
            change = solved(system, soft - values)
            values = values + change
        assert abs(change).max() < 1e-30
        direct = (counts - policy * counts.sum(-1, keepdims=True)) / beta
        carried = solved(system.T, discount * (direct[..., None] * moves).sum((0, 1)))
        slope = direct + policy * carried[:, None]
        value = (counts * (q_values - soft[:, None])).sum() / beta
        return float(value), slope.astype(float)


@cases
def test_what_is_found_does_not_depend_on_where_the_search_begins(case):
    """Policies are those of the twin for counts of one action alone, of none, and of all."""
    rewards = rewards_of(case)
    expected = [law_of(case).tables(torch.from_numpy(r))[0].numpy() for r in rewards]
    lopsided = np.zeros(rewards.shape[1:])
    lopsided[..., -1] = 1e6
    for counts in (lopsided, 0 * lopsided, 0 * lopsided + 50.0):
        found = law_of(case, counts=counts).log_policy(rewards)
        np.testing.assert_allclose(found, expected, atol=ROUNDING)


@cases
def test_slopes_of_the_policy_are_those_of_the_twin(case):
    """Slopes of the log policy are torch's forward derivative of the twin where it is finite."""
    law, reward = law_of(case), torch.from_numpy(rewards_of(case)[1])
    change = torch.from_numpy(np.random.default_rng(1).normal(size=reward.shape))
    ((found,),) = law.table_slopes(reward, change[None])
    (expected,) = torch.func.jvp(law.tables, (reward,), (change,))[1]
    expected = expected.masked_fill(torch.isneginf(reward), 0.0)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@cases
def test_large_worlds_have_the_same_numbers(case, monkeypatch):
    """By LAPACK, which is quicker there, value, gradient and policies are those of the kernel."""
    law, rewards = law_of(case), rewards_of(case)
    law.counts.actions[~np.isfinite(rewards[0])] = 0.0
    policies, evaluate = law.log_policy(rewards), law.evaluator()
    small = [(value, slope.copy()) for value, slope in map(evaluate, rewards)]
    monkeypatch.setattr("mfgppl.likelihood.stationary_games.SMALL", 0)
    close = FAR_OFF if case[1] > 0.999 else ROUNDING
    np.testing.assert_allclose(law.log_policy(rewards), policies, atol=close)
    for (value, slope), (expected, gradient) in zip(
        map(law.evaluator(), rewards), small, strict=True
    ):
        assert value == pytest.approx(expected, rel=close, abs=close)
        np.testing.assert_allclose(slope, gradient, atol=close * max(1.0, np.abs(gradient).max()))


@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_factors_solve_a_system_and_its_transposed(n):
    """Solutions equal NumPy's, of matrices that are diagonally dominant by columns."""
    rng = np.random.default_rng(n)
    moves = rng.dirichlet(np.ones(n), size=n).T * (rng.random((n, n)) < 0.5)
    matrix, right = np.eye(n) - 0.9999 * moves, rng.normal(size=n)
    factors, one, other = matrix.copy(), right.copy(), right.copy()
    stationary.factor(factors)
    stationary.solve(factors, one)
    stationary.solve_transposed(factors, other)
    np.testing.assert_allclose(one, np.linalg.solve(matrix, right), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(other, np.linalg.solve(matrix.T, right), rtol=1e-8, atol=1e-8)


def test_rewards_that_are_no_numbers_have_no_value():
    """NaN in a reward is NaN in the value, and no endless search."""
    case = ((1, 12, 2), 0.95, "dense")
    reward, counts = rewards_of(case)[0], np.ones((1, 12, 2))
    reward[0, 0, 0] = np.nan
    assert np.isnan(law_of(case, counts=counts).evaluator()(reward)[0])


def wear(x):
    """Reward of a machine: wear costs, and so does a repair."""
    cost = pyro.sample("cost", dist.HalfNormal(2.0))
    repair = pyro.sample("repair", dist.Normal(2.0, 2.0))
    return -cost * x.wear - repair * (x.action == "repair")


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_the_whole_density_runs_without_python(layout):
    """The C function gives the numbers of the stages one by one, for a reward with prior."""
    moves = np.zeros((8, 2, 8))
    for s in range(8):
        moves[s, 0, s], moves[s, 0, min(s + 1, 7)] = 0.4, 0.6
        moves[s, 1, 0] += 1.0
    moves[7, 0, 7] = 1.0
    game = mfg.MeanFieldGame(
        states={"wear": range(8)}, actions=["run", "repair"], horizon=None, discount=0.999,
        transition=moves if layout == "dense" else scipy.sparse.csr_array(moves.reshape(16, 8)),
        initial=np.ones(8) / 8,
    )  # fmt: skip
    world = mfg.solve_equilibrium(game, wear, parameters={"cost": 0.3, "repair": 1.0}).value
    panel = mfg.simulate(
        game, world.policy, world.mean_field, n_agents=50, random_seed=1, n_times=20
    )
    density = density_of(mfg.TrajectoryModel(game, wear, panel))
    assert density.is_native
    for prior, jacobian in ((1.0, 1.0), (0.0, 0.0)):
        native = density.native(prior=prior, jacobian=jacobian)
        stages = density._by_stages(prior, jacobian)
        for theta in (np.array([-1.0, 1.0]), np.array([1.5, -2.0])):
            (value, gradient), (expected, slope) = native(theta), stages(theta)
            assert value == pytest.approx(expected, rel=ROUNDING)
            np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-9)
