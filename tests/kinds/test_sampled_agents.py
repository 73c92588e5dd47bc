"""Coefficients of agents that are sampled, one parameter for each."""

import warnings

import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from kinds_world import GAME, POOLED, panel

import mfgppl as mfg
from mfgppl.density.of_model import density_of

N = 40
FIRMS = panel(7, n=N)


def program(x, **options):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with x.agents(**options):
        cost = pyro.sample("cost", dist.Normal(mean, spread))
    return -cost * (x.action != "none") - 0.5 * x.density


def model(**options):
    return mfg.TrajectoryModel(GAME, lambda x: program(x, **options), FIRMS, mean_field=POOLED)


def by_hand(mean, spread, deviation):
    """Return the log likelihood of each agent by a model of its own."""

    def plain(x):
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
        return -cost * (x.action != "none") - 0.5 * x.density

    found = []
    for j in range(N):
        own = FIRMS.subset(np.arange(FIRMS.n_trajectories) == j)
        alone = density_of(mfg.TrajectoryModel(GAME, plain, own, mean_field=POOLED))
        found.append(alone.heights(np.array([[mean + spread * deviation[j]]]))[0])
    return np.array(found)


def test_each_agent_acts_by_its_own_coefficient():
    """The density is that of agents one by one, and its gradient that of finite differences."""
    here, deviation = model(sampled=True), np.random.default_rng(0).standard_normal(N)
    density = density_of(here)
    given = {"mean": 0.7, "spread": 0.6, "cost_deviation": deviation}
    expected = by_hand(0.7, 0.6, deviation)
    values = np.concatenate([np.ravel(given[s.name]) for s in density.program.sites])
    assert density.heights(values[None])[0] == pytest.approx(expected.sum(), abs=1e-8)
    np.testing.assert_allclose(mfg.log_likelihood(here, given).values, expected, atol=1e-9)
    theta, evaluate = density.program.free(given), density.evaluator()
    value, gradient = evaluate(theta)
    gradient = gradient.copy()
    for k in (0, 1, 2, N):
        step = 1e-5 * np.eye(len(theta))[k]
        slope = (evaluate(theta + step)[0] - evaluate(theta - step)[0]) / 2e-5
        assert gradient[k] == pytest.approx(slope, rel=1e-5, abs=1e-5)
    conditioned = pyro.poutine.condition(
        here, data={k: torch.as_tensor(v, dtype=torch.float64) for k, v in given.items()}
    )
    trace = pyro.poutine.trace(conditioned).get_trace()
    assert "cost" not in trace.nodes
    jacobian = density.evaluator(prior=0.0, jacobian=1.0)(theta)[0] - expected.sum()
    total = float(trace.log_prob_sum()) + jacobian
    assert total == pytest.approx(value, abs=1e-8)


def test_coefficients_share_the_agents_and_stand_beside_kinds():
    """Two numbers, a vector and a kind: agents are one axis, not one for each coefficient."""

    def several(x):
        share = pyro.sample("share", dist.Beta(1.0, 1.0))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(torch.stack([share, 1 - share])))
        with x.agents(sampled=True):
            cost = pyro.sample("cost", dist.LogNormal(0.0, 0.5))
            both = pyro.sample("both", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
        taste = both[..., 0] * x.price + both[..., 1] * x.density
        return 0.1 * taste - cost * (1 + kind) * (x.action != "none")

    here = mfg.TrajectoryModel(GAME, several, FIRMS, mean_field=POOLED)
    assert here.law.n_nodes == 2 * N
    assert here.sites["cost_deviation"] == (N,)
    assert here.sites["both_deviation"] == (N, 2)
    assert [name for name, _ in here.entries["both_deviation"]] == ["agent", "both_entry"]
    density = density_of(here)
    theta, evaluate = density.program.draw(3), density.evaluator(prior=0.0, jacobian=0.0)
    slope = evaluate(theta)[1].copy()
    step = 1e-5 * np.random.default_rng(1).standard_normal(len(theta))
    rise = (evaluate(theta + step)[0] - evaluate(theta - step)[0]) / 2
    assert slope @ step == pytest.approx(rise, rel=1e-4, abs=1e-8)


def test_draws_are_labelled_by_agent():
    """And `mle`, which has no prior for them, refuses."""
    here = model(sampled=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = mfg.nuts(here, draws=10, tune=10, chains=1, random_seed=1, progressbar=False)
    found = draws["posterior"]["cost_deviation"]
    assert found.dims == ("chain", "draw", "agent")
    assert list(found["agent"].values) == [str(a) for a in FIRMS.agents]
    with pytest.raises(ValueError, match="which mle drops"):
        mfg.mle(here)


def test_what_cannot_be_sampled_is_refused():
    """Kinds, games without a panel, other agents, equilibria, and options of sums."""

    def of_kinds(x):
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with x.agents(sampled=True):
            kind = pyro.sample("kind", dist.Categorical(torch.ones(2)))
        return -cost[kind] * (x.action != "none")

    with pytest.raises(ValueError, match="kinds are summed over, exactly"):
        mfg.TrajectoryModel(GAME, of_kinds, FIRMS, mean_field=POOLED)
    with pytest.raises(ValueError, match="there are no agents here"):
        mfg.identify(GAME, lambda x: program(x, sampled=True))
    with pytest.raises(ValueError, match="there are no agents here"):
        mfg.TrajectoryModel(
            GAME, lambda x: program(x, sampled=True), mfg.CountedPanel.from_trajectories(FIRMS),
            mean_field=POOLED,
        )  # fmt: skip
    with pytest.raises(ValueError, match="made of shares"):
        model(sampled=True).along("equilibrium")
    with pytest.raises(ValueError, match="no coefficient is sampled for the agent"):
        model(sampled=True).law.of_panel(panel(8, n=N + 1))
    for options in ({"nodes": 5}, {"known": "survey"}):
        with pytest.raises(ValueError, match="leave out `nodes`"):
            model(sampled=True, **options)
    with pytest.raises(TypeError, match="sampled"):
        model(sampled="yes")


@pytest.mark.slow
def test_a_quadrature_is_the_integral_that_sampling_takes():
    """The posterior of mean and spread, within Monte Carlo error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = [
            mfg.nuts(m, draws=1500, tune=1000, chains=2, random_seed=3, progressbar=False)
            for m in (model(nodes=25), model(sampled=True))
        ]
    for name in ("mean", "spread"):
        each = [d["posterior"][name] for d in draws]
        errors = [float(d.std()) / np.sqrt(float(arviz_stats.ess(d.values))) for d in each]
        away = abs(float(each[0].mean()) - float(each[1].mean()))
        assert away < 4 * np.hypot(*errors)
        assert float(each[0].std()) == pytest.approx(float(each[1].std()), rel=0.15)
