"""Second derivatives by slopes of the policy are those of the plain torch twin."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from equilibrium.kinds import made

import mfgppl as mfg
from mfgppl.data.panel import Counts
from mfgppl.density.of_model import density_of
from mfgppl.likelihood.causal import CausalLikelihood
from mfgppl.likelihood.stationary_games import StationaryLikelihood

ROUNDING = 1e-9  # relative to the largest entry
CASES = [
    (kind, horizon, layout)
    for kind in ("dense", "shared", "sparse")
    for horizon, layout in ((1, "one"), (2, "one"), (5, "one"), (5, "each"), (None, "one"))
]


def case_of(kind, horizon, layout):
    """A law of 2 cells of 4 states, a reward with an action that is not available, 3 directions."""
    rng = np.random.default_rng(3)
    C, S, A, T = 2, 4, 3, horizon or 1
    n = T - 1 if layout == "each" else 1
    table = torch.from_numpy(
        rng.dirichlet(np.ones(S), size=(n, 1 if kind == "shared" else C, S, A))
    )
    transition = table.expand(n, C, S, A, S)
    if kind == "sparse":
        apart = transition[:, :, :, :, None] * torch.eye(C).to(transition)[:, None, None, :, None]
        transition = apart.reshape(n, C * S, A, C * S).to_sparse()
    reward = torch.from_numpy(rng.normal(size=(T, C * S, A)))
    reward[:, 1, 2] = -torch.inf
    counts = rng.poisson(9.0, size=reward.shape).astype(float)
    counts[:, 1, 2] = 0.0
    empty = np.zeros((T, C * S))
    kind_of_law = StationaryLikelihood if horizon is None else CausalLikelihood
    law = kind_of_law(transition, Counts(counts, empty, empty, 0 * counts), 0.9, 0.7)
    return law, reward, torch.from_numpy(rng.normal(size=(3, *reward.shape)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_directions_of_the_reward(case):
    """Dense, sparse, by cell, one table or one a step, with a horizon and without."""
    law, reward, changes = case_of(*case)
    gradient = torch.from_numpy(law.evaluator()(reward.numpy())[1])

    def value(z):
        return law.log_likelihood(reward + torch.tensordot(z, changes, 1))

    expected = torch.autograd.functional.hessian(value, torch.zeros(3, dtype=torch.float64))
    found = law.bend(reward, gradient, changes)
    size = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING * size)


def curved(x):
    """A reward that is not linear in its parameters, with a prior on the positive line."""
    a = pyro.sample("a", dist.LogNormal(0.0, 0.5))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    return -a * b * x.density - torch.exp(0.3 * b) * (x.action == "a1") + a * x.base


def straight(x):
    """A reward that is linear in its parameters, one of which is positive."""
    a = pyro.sample("a", dist.LogNormal(0.0, 0.5))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    return -a * x.density - b * (x.action == "a1") + x.base


@pytest.mark.parametrize("horizon", [4, None])
@pytest.mark.parametrize("reward", [curved, straight])
@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, 1.0)])
def test_of_a_whole_density(reward, horizon, weights):
    """With transforms, prior and rewards that bend; some actions are not available."""
    changes = {"discount": 0.9} if horizon is None else {}
    game = made("masked", sizes=(4, 3), horizon=horizon, **changes)
    policy = game.available.double().expand(game.shape)
    policy = policy / policy.sum(-1, keepdim=True)
    flow = torch.full(game.shape[:2], 1 / 4)
    seen = {"n_times": 6} if horizon is None else {}
    panel = mfg.simulate(game, policy, flow, n_agents=30, random_seed=1, **seen)
    density = density_of(mfg.TrajectoryModel(game, reward, panel, mean_field=flow))
    theta, (prior, jacobian) = np.array([0.3, -0.4]), weights
    found = density.second_derivatives(theta, prior=prior, jacobian=jacobian)

    def twin(run):
        return density.law.log_likelihood(run.reward)

    expected = density._twice(theta, twin, prior=prior, jacobian=jacobian)
    np.testing.assert_allclose(found, expected, atol=ROUNDING * np.abs(expected).max())
