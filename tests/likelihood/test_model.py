"""The trajectory model is an ordinary Pyro model, and checks what it is given."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from reference import tiny_case

import mfgppl as mfg
from mfgppl.models import pricing
from mfgppl.reward.program import double_precision


def pull(x):
    return pyro.sample("pull", dist.Normal(0.0, 1.0)) * (x.action == "a0")


@pytest.fixture(scope="module")
def model():
    """A one-parameter model of a tiny panel."""
    case = tiny_case(4, n_paths=60)
    return mfg.TrajectoryModel(case.game, pull, case.panel)


def posterior_by_grid(model):
    """Return mean and standard deviation of the single parameter by a fine grid."""
    grid = np.linspace(-4, 4, 801)
    table = torch.zeros(model.game.shape, dtype=torch.float64)
    table[:, :, 0] = 1.0
    log = np.array([model.law.log_likelihood(w * table).item() for w in grid])
    weight = np.exp(log - grid**2 / 2 - (log - grid**2 / 2).max())
    weight /= weight.sum()
    mean = weight @ grid
    return mean, np.sqrt(weight @ (grid - mean) ** 2)


def test_log_prob_sum_is_prior_plus_likelihood(model):
    """A trace's log joint is the prior's plus the twin's log likelihood."""
    values = {"pull": torch.tensor(0.7, dtype=torch.float64)}
    trace = pyro.poutine.trace(pyro.poutine.condition(model, values)).get_trace()
    reward = trace.nodes["_RETURN"]["value"]
    expected = model.law.log_likelihood(reward) - 0.5 * 0.7**2 - 0.5 * np.log(2 * np.pi)
    assert trace.log_prob_sum().item() == pytest.approx(expected.item(), abs=1e-10)


def test_pyro_svi_with_a_mean_field_guide_finds_the_posterior(model):
    """Pyro's AutoNormal, used by hand, is within a quarter of a deviation of the grid's mean."""
    mean, deviation = posterior_by_grid(model)
    with pyro.get_param_store().scope(), torch.random.fork_rng(), double_precision():
        torch.manual_seed(0)
        guide = AutoNormal(model)
        svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.98}), Trace_ELBO(4))
        for _ in range(200):
            svi.step()
        found = guide.median()["pull"].item()
    assert found == pytest.approx(mean, abs=0.25 * deviation)


def test_pyro_mcmc_runs_on_the_model(model):
    """Pyro's MCMC driver takes the model as it is and agrees with the grid."""
    mean, deviation = posterior_by_grid(model)
    with torch.random.fork_rng(), double_precision():
        torch.manual_seed(0)
        mcmc = MCMC(NUTS(model), num_samples=200, warmup_steps=100, disable_progbar=True)
        mcmc.run()
        drawn = mcmc.get_samples()["pull"]
    # 200 draws of NUTS on a normal-like posterior have an effective size above 40
    assert drawn.mean().item() == pytest.approx(mean, abs=5 * deviation / np.sqrt(40))


def test_prior_predictive_by_uncondition_keeps_the_visits(model):
    """Without its observation the model draws actions at the states that the panel visits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        free = pyro.poutine.uncondition(model)
        drawn = Predictive(free, num_samples=20)()["actions"]
    assert drawn.shape == (20, *model.game.shape)
    visits = torch.as_tensor(model.law.counts.actions).sum(-1)
    assert torch.equal(drawn.sum(-1), visits.expand(20, *visits.shape))
    assert len({tuple(d.flatten().tolist()) for d in drawn}) > 1


@pytest.mark.parametrize("likelihood", ["causal", "energy"])
def test_drawn_counts_follow_the_policy(likelihood):
    """Shares of drawn actions are within 5 standard errors of the law's probabilities."""
    case = tiny_case(6, n_paths=60)
    model = mfg.TrajectoryModel(case.game, pull, case.panel, likelihood=likelihood)
    law = pyro.poutine.trace(model).get_trace().nodes["actions"]["fn"]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        drawn = law.sample((4000,)).mean(0).numpy()
    policy = np.exp(model.law.log_policy(law.reward.detach().numpy()))
    visits = model.law.counts.actions.sum(-1, keepdims=True)
    error = np.sqrt(visits * policy * (1 - policy) / 4000)
    assert (np.abs(drawn - visits * policy) <= 5 * error + 1e-12).all()


def test_gradient_flows_through_a_handler(model):
    """Autograd through the observed site equals the twin's."""
    weight = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    trace = pyro.poutine.trace(pyro.poutine.condition(model, {"pull": weight})).get_trace()
    (slope,) = torch.autograd.grad(trace.nodes["actions"]["fn"].log_prob(model.observed), weight)
    twin_weight = weight.detach().clone().requires_grad_(True)
    acts = (model.inputs.action == "a0").expand(model.game.shape)
    twin = model.law.log_likelihood(twin_weight * acts)
    (expected,) = torch.autograd.grad(twin, twin_weight)
    assert slope.item() == pytest.approx(expected.item(), abs=1e-10)


def test_a_given_flow_reaches_the_reward_and_the_dynamics():
    """With `mean_field` as an array, the program and a callable transition see that flow."""
    seen = []

    def transition(mean_field, time):
        seen.append(mean_field.clone())
        return torch.full((2, 2, 2), 0.5, dtype=torch.float64)

    game = mfg.MeanFieldGame(
        states=["l", "r"],
        actions=["a0", "a1"],
        horizon=3,
        transition=transition,
        initial=[0.5, 0.5],
    )
    truth = mfg.solve_equilibrium(game, lambda x: 0.0 * x.density).value
    panel = mfg.simulate(game, truth.policy, truth.mean_field, n_agents=20, random_seed=0)
    flow = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    seen.clear()
    model = mfg.TrajectoryModel(game, pull, panel, mean_field=flow)
    np.testing.assert_array_equal(model.inputs.mean_field, flow)
    np.testing.assert_array_equal(torch.stack(seen), flow[:2])


def test_a_panel_shorter_than_the_horizon_needs_a_flow():
    """With the flow given, a panel may stop before the horizon: its trajectories end early."""
    panel = pricing.panel()
    game = mfg.MeanFieldGame(
        states={"margin": range(6)}, actions=["lower", "hold", "raise"], horizon=30,
        transition=panel.estimate_transition(), initial=panel.initial_distribution(),
    )  # fmt: skip

    def reward(x):
        return pyro.sample("w", dist.Normal(0.0, 1.0)) * (x.action == "hold")

    with pytest.raises(ValueError, match=r"25 decision times .* horizon of 30"):
        mfg.TrajectoryModel(game, reward, panel)
    flow = np.full((30, 6), 1 / 6)
    model = mfg.TrajectoryModel(game, reward, panel, mean_field=flow)
    assert model.law.counts.ends_seen.sum() == panel.n_trajectories
    assert model.law.counts.ends_seen[25].sum() == panel.n_trajectories


def test_label_order_of_the_game_does_not_matter():
    """The same model with actions declared in another order has the same estimates."""
    panel = pricing.panel()
    fits = []
    for actions in (["lower", "hold", "raise"], ["raise", "lower", "hold"]):
        game = mfg.MeanFieldGame(
            states={"margin": range(6)}, actions=actions, horizon=25,
            transition=panel.estimate_transition(), initial=panel.initial_distribution(),
            features={"level": ("margin", pricing.CENTRES / 0.1)},
        )  # fmt: skip
        model = mfg.TrajectoryModel(game, pricing.reward_named("base"), panel)
        fits.append(mfg.mle(model, svi_steps=0))
    np.testing.assert_allclose(fits[0].params, fits[1].params, atol=1e-6)
    assert fits[0].llf == pytest.approx(fits[1].llf, abs=1e-8)


def test_fingerprints_tell_games_and_data_apart(model):
    """Hashes are stable and change with the game or the data alone."""
    case = tiny_case(4, n_paths=60)
    again = mfg.TrajectoryModel(case.game, pull, case.panel)
    assert again.fingerprint() == model.fingerprint()
    other = mfg.TrajectoryModel(case.game, pull, case.panel.subset(np.arange(30)),
                                mean_field=model.mean_field)  # fmt: skip
    assert other.fingerprint()["data"] != model.fingerprint()["data"]
    assert other.fingerprint()["game"] == model.fingerprint()["game"]
