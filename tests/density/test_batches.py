"""Many draws at once give what each gives alone."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from reference import tiny_case

import mfgppl as mfg
from mfgppl.density import over_draws
from mfgppl.density.of_model import density_of


def linear(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    return w[0] * x.density + w[1] * (x.action == "a0")


def curved(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    return torch.tanh(w[0] * x.density) + scale * w[1] * (x.action == "a0")


def solved(x):
    """A triangular solve stays in torch."""
    w = pyro.sample("w", dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 0.3))
    return w[0] * x.density * w[1] + w[1] * (x.action == "a0")


@pytest.fixture(params=[linear, curved, solved], ids=lambda f: f.__name__)
def density(request):
    """A density that is evaluated through a matrix, on the tape, or in torch."""
    case = tiny_case(4, masked=True)
    return density_of(mfg.TrajectoryModel(case.game, request.param, case.panel))


def test_rewards_of_many_draws(density, monkeypatch):
    """Rows are the tables of the program itself, in batches of any size."""
    program = density.program
    points = np.random.default_rng(0).standard_normal((37, density.n_dim))
    values = density.constrained(points)
    found = density.rewards(values)
    for row, flat in zip(found, values, strict=True):
        sites = program.by_site(torch.as_tensor(flat))
        with torch.no_grad():
            expected = program.core_at(sites)
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("at_once", [1, 5, 64])
def test_policies_of_many_draws(density, monkeypatch, at_once):
    """Policies equal those of soft backward induction, draw by draw."""
    monkeypatch.setattr(over_draws, "DRAWS_AT_ONCE", at_once)
    model = density.model
    values = density.constrained(np.random.default_rng(1).standard_normal((23, density.n_dim)))
    found = over_draws.policies(density, values)
    for policy, reward in zip(found, density.rewards(values), strict=True):
        alone = mfg.equilibrium.soft_backward_induction(
            torch.as_tensor(reward),
            model.law.transition,
            discount=model.game.discount,
            temperature=model.game.temperature,
        )
        np.testing.assert_allclose(policy, alone.log_policy.exp(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"likelihood": "causal"}, {"likelihood": "energy"},
                {"likelihood": "energy", "start": "conditional"}], ids=str
)  # fmt: skip
def test_tables_of_many_rewards(options):
    """The tables of both likelihoods keep the axes in front."""
    case = tiny_case(4)
    likelihood = mfg.TrajectoryModel(case.game, linear, case.panel, **options).law
    rewards = np.random.default_rng(2).standard_normal((2, 3, *case.game.shape))
    many = likelihood.table_arrays(rewards)
    for index in np.ndindex(2, 3):
        for table, alone in zip(many, likelihood.table_arrays(rewards[index]), strict=True):
            np.testing.assert_allclose(table[index], alone, rtol=1e-12, atol=1e-13)


def test_a_large_dense_world_reads_its_tables_once_for_all_draws():
    """From 100 states the library's products are used; they agree with the twin."""
    rng = np.random.default_rng(3)
    S, A, T = 120, 2, 4
    tables = rng.dirichlet(np.ones(S), size=(S, A))
    game = mfg.MeanFieldGame(
        states=range(S), actions=["a0", "a1"], horizon=T, transition=tables,
        initial=np.full(S, 1 / S), discount=0.9,
    )  # fmt: skip
    policy = np.full(game.shape, 0.5)
    panel = mfg.simulate(game, policy, game.initial.repeat(T, 1), n_agents=500, random_seed=1)
    likelihood = mfg.TrajectoryModel(game, linear, panel).law
    rewards = rng.standard_normal((5, *game.shape))
    for reward, found in zip(rewards, likelihood.log_policy(rewards), strict=True):
        leaf = torch.tensor(reward, requires_grad=True)
        np.testing.assert_allclose(found, likelihood.tables(leaf)[0].detach(), atol=1e-11)
        value, gradient = likelihood.evaluator()(reward)
        twin = likelihood.log_likelihood(leaf)
        assert value == pytest.approx(twin.item(), rel=1e-12)
        np.testing.assert_allclose(gradient, torch.autograd.grad(twin, leaf)[0], atol=1e-9)
