"""Agents as the unit of a likelihood with kinds; several coefficients; games without a horizon."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import ROUNDING, random_rows
from kinds_world import GAME, POOLED, S, model_of, panel, program
from scipy.special import logsumexp

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.estimation.point import scores_of

FIRMS = panel(3, n=150)


def test_identical_histories_are_summed_once():
    """Each agent twice: as many histories as before, of twice the weight and log likelihood."""
    once = model_of(2, FIRMS)
    twice = model_of(2, FIRMS.subset(np.tile(np.arange(FIRMS.n_trajectories), 2)))
    before, after = once.law.histories, twice.law.histories
    assert len(after.start) == len(before.start) < 150
    assert after.weight.sum() == 300
    np.testing.assert_array_equal(np.sort(after.weight), np.sort(2 * before.weight))
    value = density_of(once).constrained(density_of(once).program.draw(0)[None])
    height = density_of(once).heights(value)[0]
    assert density_of(twice).heights(value)[0] == pytest.approx(2 * height, rel=1e-12)


def test_sandwiches_are_of_agents_and_clusters():
    """`A^-1 B A^-1 G / (G - 1)`, with the scores of agents or of cities added up by loops."""
    table = FIRMS.to_frame()
    table["city"] = table["agent"] % 10
    table = table[~((table["time"] == 6) & (table["agent"] % 4 == 0))]  # two trajectories of some
    rows = mfg.Trajectories.from_frame(
        table, state="price", state_labels={"price": range(S)},
        action_labels=["down", "none", "up"], gaps="split", groups=["city"],
    )  # fmt: skip
    model = mfg.TrajectoryModel(GAME, program(2), rows, mean_field=POOLED)
    fit = mfg.mle(model, flow_bias=False, progressbar=False)
    density = density_of(model)
    scores = scores_of(density, fit.theta)
    assert len(scores) > 150
    bread = np.linalg.inv(-density.second_derivatives(fit.theta, prior=0.0, jacobian=0.0))
    for groups, of in (("agent", rows.agents), ("city", rows.groups["city"])):
        names = list(dict.fromkeys(of))
        summed = np.array([scores[[o == name for o in of]].sum(0) for name in names])
        G = len(names)
        meat = summed.T @ summed * G / (G - 1)
        expected = fit.jacobian @ bread @ meat @ bread @ fit.jacobian.T
        found = fit.cov_params("cluster", groups=groups)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


def test_correlated_coefficients_by_integration():
    """A bivariate normal law of two costs, on a grid of both."""
    centre, root = np.array([0.4, -0.3]), np.array([[0.7, 0.0], [0.5, 0.4]])

    def correlated(x):
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        law = dist.MultivariateNormal(
            shift + torch.from_numpy(centre), scale_tril=torch.from_numpy(root)
        )
        with x.agents(nodes=25):
            both = pyro.sample("both", law)
        return -both[..., 0] * (x.action == "up") - both[..., 1] * (x.action == "down")

    def fixed(x):
        both = pyro.sample("both", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        return -both[..., 0] * (x.action == "up") - both[..., 1] * (x.action == "down")

    few = FIRMS.subset(np.arange(12))
    found = mfg.log_likelihood(
        mfg.TrajectoryModel(GAME, correlated, few, mean_field=POOLED), {"shift": 0.1}
    ).values
    grid = np.linspace(-6.0, 6.0, 61)
    points = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    plain = mfg.TrajectoryModel(GAME, fixed, few, mean_field=POOLED)
    policies = density_of(plain).log_policies(0.1 + centre + points @ root.T)
    weights = -0.5 * (points**2).sum(1)
    weights -= logsumexp(weights)
    owner = few.owner[few.trajectory]
    for j in range(12):
        own = (owner == j) & (few.action >= 0)
        logs = policies[:, few.time[own], few.state[own], few.action[own]].sum(1)
        assert found[j] == pytest.approx(logsumexp(weights + logs), abs=1e-6)


def test_a_scale_of_the_reward_by_kind_is_a_temperature_by_kind():
    """One kind at a temperature of its own is one whose reward is that much smaller."""

    def of(how):
        def agent(x):
            margin = pyro.sample("margin", dist.Normal(0.0, 1.0))
            heat = pyro.sample("heat", dist.LogNormal(0.0, 0.5))
            share = pyro.sample("share", dist.Beta(2.0, 2.0))
            with x.agents:
                kind = pyro.sample("kind", dist.Categorical(torch.stack([share, 1 - share])))
            level = torch.where(kind == 1, heat, torch.ones(()))
            reward = margin * x.price - 0.8 * (x.action != "none")
            if how == "scale":
                return reward / level
            return mfg.Preferences(reward, temperature=level)

        return mfg.TrajectoryModel(GAME, agent, FIRMS, mean_field=POOLED)

    given = {"margin": 0.4, "heat": 1.7, "share": 0.3}
    found = [mfg.log_likelihood(of(how), given).values for how in ("scale", "temperature")]
    np.testing.assert_allclose(found[0], found[1], atol=ROUNDING)


N_STATES = 12


def for_ever(n_kinds):
    """Return machines that wear and are replaced, without a horizon, of so many kinds."""
    game = mfg.MeanFieldGame(
        states={"wear": range(N_STATES)}, actions=["keep", "replace"], horizon=None, discount=0.9,
        transition=random_rows(5, N_STATES, 2, N_STATES), initial=np.ones(N_STATES) / N_STATES,
    )  # fmt: skip

    def agent(x):
        share = pyro.sample("share", dist.Dirichlet(torch.ones(n_kinds)))
        cost = pyro.sample("cost", dist.Normal(1.0, 1.0).expand([n_kinds]).to_event(1))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(share))
        return -cost[kind] * (x.action == "replace") - slope * x.wear * (x.action == "keep")

    rng = np.random.default_rng(2)
    rows = [(j, t, rng.integers(N_STATES), rng.choice(["keep", "replace"]))
            for j in range(40) for t in range(6)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["agent", "time", "wear", "action"])
    machines = mfg.Trajectories.from_frame(
        table, state="wear", state_labels={"wear": range(N_STATES)},
        action_labels=["keep", "replace"],
    )  # fmt: skip
    flow = np.ones((1, N_STATES)) / N_STATES
    return mfg.TrajectoryModel(game, agent, machines, mean_field=flow)


@pytest.mark.parametrize("n_kinds", [1, 2, 3])
def test_kernel_and_library_agree_without_a_horizon(n_kinds, monkeypatch):
    """And with the twin in torch, whatever was asked before: each kind keeps its own factors."""
    model = for_ever(n_kinds)
    density = density_of(model)
    points = [density.program.draw(seed) for seed in range(3)]
    found = []
    for small in (300, 1):
        monkeypatch.setattr("mfgppl.likelihood.stationary_games.SMALL", small)
        evaluate = density.evaluator(prior=0.0, jacobian=0.0)
        for theta in (*points, *points):
            value, slope = evaluate(theta)
            found.append(np.append(value, slope.copy()))
    first, again, large, later = np.array(found).reshape(4, 3, -1)
    size = np.abs(first).max()
    for other in (again, large, later):
        np.testing.assert_allclose(other, first, atol=1e-10 * size)
    for theta, (value, *_) in zip(points, first, strict=True):
        core = density.rewards(density.constrained(theta[None]))[0]
        twin = model.law.log_likelihood(torch.from_numpy(core)).item()
        assert value == pytest.approx(twin, rel=1e-10)
