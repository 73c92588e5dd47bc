"""Point estimates against independent optimisers, closed forms and known pathologies."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.optimize
import torch

import mfgppl as mfg
from mfgppl.density.curvature import analyse_curvature, describe_direction
from mfgppl.models import malware, pricing, sis


def one_step_panel(takes, of):
    """Return a game of one state and one decision and a panel where `takes` of `of` take "a"."""
    game = mfg.MeanFieldGame(
        states=["only"], actions=["a", "b"], horizon=2, transition=np.ones((1, 2, 1)), initial=[1.0]
    )
    rows = [(k, t, "only", "a" if k < takes else "b") for k in range(of) for t in (0, 1)]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    return game, mfg.Trajectories.from_frame(frame, action_labels=["a", "b"])


def logit_reward(prior, transform=lambda v: v):
    """Return a reward of taking "a", under a prior and a transform of the site."""

    def reward(x):
        return transform(pyro.sample("w", prior)) * (x.action == "a")

    return reward


def test_one_state_mle_is_the_log_odds():
    """With one state the choice is a logit: the estimate is log(p / (1 - p)), and so its error."""
    game, panel = one_step_panel(30, 100)
    estimate = mfg.mle(mfg.TrajectoryModel(game, logit_reward(dist.Normal(0.0, 1.0)), panel))
    assert estimate.converged
    assert estimate.params["w"] == pytest.approx(np.log(0.3 / 0.7), abs=1e-6)
    assert estimate.bse["w"] == pytest.approx((200 * 0.3 * 0.7) ** -0.5, rel=1e-6)
    assert estimate.llf == pytest.approx(60 * np.log(0.3) + 140 * np.log(0.7), abs=1e-8)
    assert estimate.aic == pytest.approx(2 - 2 * estimate.llf)
    # all agents repeat themselves, so clustering doubles the variance (times G / (G - 1))
    expected = np.sqrt(2 * 100 / 99) * estimate.bse["w"]
    assert estimate.standard_errors("cluster")["w"] == pytest.approx(expected, rel=1e-6)


def test_mle_does_not_depend_on_prior_or_parametrisation_and_map_does():
    """A positive scale has one MLE under any prior or transform; the MAP says its space."""
    game, panel = one_step_panel(70, 100)
    log_odds = np.log(0.7 / 0.3)
    for prior, transform in [
        (dist.HalfNormal(1.0), lambda v: v),
        (dist.HalfNormal(0.1), lambda v: v),
        (dist.Normal(0.0, 1.0), torch.exp),
        (dist.Uniform(0.0, 5.0), lambda v: v),
    ]:
        model = mfg.TrajectoryModel(game, logit_reward(prior, transform), panel)
        value = transform(torch.tensor(mfg.mle(model).params["w"])).item()
        assert value == pytest.approx(log_odds, abs=1e-6)
    model = mfg.TrajectoryModel(game, logit_reward(dist.HalfNormal(0.1)), panel)
    constrained = mfg.map_estimate(model)
    unconstrained = mfg.map_estimate(model, space="unconstrained")
    assert "constrained" in constrained.kind

    def log_posterior(w, jacobian):
        likelihood = 140 * w - 200 * np.log1p(np.exp(w))
        return -(likelihood - w**2 / 0.02 + jacobian * np.log(w))

    for estimate, jacobian in ((constrained, 0.0), (unconstrained, 1.0)):
        best = scipy.optimize.minimize_scalar(
            log_posterior, bounds=(1e-3, 2), args=(jacobian,), options={"xatol": 1e-10},
            method="bounded",
        )  # fmt: skip
        assert estimate.params["w"] == pytest.approx(best.x, abs=1e-5)


@pytest.mark.parametrize("likelihood", ["causal", "energy"])
def test_supermarket_mle_agrees_with_an_independent_optimiser(likelihood):
    """Nelder-Mead on the torch twin, which shares neither kernel nor gradient, agrees."""
    model = pricing.model(name="base", likelihood=likelihood)
    estimate = mfg.mle(model)

    def minus(w):
        table = sum(
            weight * torch.as_tensor(pricing.FEATURES[name](model.inputs)).double()
            for name, weight in zip(pricing.REWARDS["base"], w, strict=True)
        )
        return -model.law.log_likelihood(table.broadcast_to(model.game.shape)).item()

    options = {"xatol": 1e-5, "fatol": 1e-5, "maxiter": 4000, "maxfev": 4000, "adaptive": True}
    best = scipy.optimize.minimize(
        minus, estimate.params.to_numpy() + 0.2, method="Nelder-Mead", options=options
    )
    assert estimate.llf == pytest.approx(-best.fun, abs=0.01)
    np.testing.assert_allclose(estimate.params, best.x, rtol=5e-4, atol=5e-5)


def test_flights_mle_agrees_with_an_independent_optimiser():
    """On the airline panel, with a discount, Powell's method on the twin agrees."""
    centres = np.array([-0.69, -0.15, -0.05, 0.0, 0.05, 0.35])
    panel = mfg.Trajectories.from_frame(
        mfg.datasets.nyc_flights(), agent="service", time="week", state="capacity",
        groups=["carrier"], action_labels=["cut", "keep", "add"],
    )  # fmt: skip
    low = panel.mean_field()[:, :2].sum(1)
    game = mfg.MeanFieldGame(
        states={"capacity": range(6)},
        actions=["cut", "keep", "add"],
        horizon=panel.horizon,
        transition=panel.estimate_transition(),
        initial=panel.initial_distribution(),
        features={"level": ("capacity", centres / 0.1), "distress": ("time", low - low.mean())},
        discount=0.9,
    )
    features = {
        "cut": lambda x: x.action == "cut",
        "add": lambda x: x.action == "add",
        "level": "level",
        "level2": lambda x: x.level**2,
        "regular": lambda x: x.capacity == 3,
        "add_x_distress": lambda x: (x.action == "add") * x.distress,
    }
    model = mfg.TrajectoryModel(game, mfg.linear_reward(features, dist.Normal(0.0, 10.0)), panel)
    estimate = mfg.mle(model)
    assert estimate.converged

    def minus(w):
        table = sum(
            weight * torch.as_tensor(f(x) if callable(f) else getattr(x, f)).double()
            for weight, f in zip(w, features.values(), strict=True)
        )
        return -model.law.log_likelihood(table.broadcast_to(game.shape)).item()

    x = model.inputs
    best = scipy.optimize.minimize(minus, np.zeros(6), method="BFGS", options={"gtol": 1e-3})
    assert estimate.llf == pytest.approx(-best.fun, abs=0.01)
    np.testing.assert_allclose(estimate.params, best.x, rtol=5e-4, atol=5e-5)
    clustered = estimate.standard_errors("cluster", groups="carrier")
    assert np.isfinite(clustered).all()


def test_collinear_parameters_are_refused_errors_and_named():
    """A perfectly collinear pair gets no standard error; the flat combination is named."""
    game, panel = one_step_panel(30, 100)

    def reward(x):
        a, b = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in "ab")
        return (a + 2 * b) * (x.action == "a")

    model = mfg.TrajectoryModel(game, reward, panel)
    with pytest.warns(mfg.exceptions.IdentificationWarning, match=r"a - 0\.5 b"):
        estimate = mfg.mle(model)
    assert estimate.bse.isna().all()
    assert estimate.params["a"] + 2 * estimate.params["b"] == pytest.approx(np.log(3 / 7), abs=1e-5)


def test_parameter_that_does_not_enter_is_named_and_the_others_keep_their_errors():
    """A term in the crowd alone carries no information; the rest is untouched by it."""
    game, panel = one_step_panel(30, 100)

    def reward(x):
        w, idle = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in ("w", "idle"))
        return w * (x.action == "a") + idle * x.density

    with pytest.warns(mfg.exceptions.IdentificationWarning, match="do not identify idle"):
        estimate = mfg.mle(mfg.TrajectoryModel(game, reward, panel))
    assert np.isnan(estimate.bse["idle"])
    assert estimate.bse["w"] == pytest.approx((200 * 0.21) ** -0.5, rel=1e-5)


def test_saddle_is_not_called_an_estimate():
    """Stuck at a saddle (both factors zero), the fit says it is no maximum and gives no errors."""
    game, panel = one_step_panel(30, 100)

    def reward(x):
        a, b = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in "ab")
        return a * b * (x.action == "a")

    model = mfg.TrajectoryModel(game, reward, panel)
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="not a maximum"):
        estimate = mfg.mle(model, init={"a": 0.0, "b": 0.0}, svi_steps=0)
    assert not estimate.converged
    assert estimate.bse.isna().all()


def test_estimate_at_the_edge_of_its_support_has_no_error():
    """A positive weight whose likelihood wants it negative ends at the edge, and says so."""
    game, panel = one_step_panel(30, 100)
    model = mfg.TrajectoryModel(game, logit_reward(dist.HalfNormal(1.0)), panel)
    with pytest.warns(mfg.exceptions.IdentificationWarning, match="edge of its support"):
        estimate = mfg.mle(model)
    assert estimate.params["w"] < 1e-3
    assert np.isnan(estimate.bse["w"])


def test_standard_errors_do_not_depend_on_units():
    """Measuring a feature in other units scales its estimate and its error alike."""
    game, panel = one_step_panel(30, 100)
    fits = [
        mfg.mle(
            mfg.TrajectoryModel(
                game, logit_reward(dist.Normal(0.0, 1e6), lambda v, u=unit: v * u), panel
            )
        )
        for unit in (1.0, 1e-4)
    ]
    assert fits[1].params["w"] == pytest.approx(1e4 * fits[0].params["w"], rel=1e-4)
    assert fits[1].bse["w"] == pytest.approx(1e4 * fits[0].bse["w"], rel=1e-4)


def test_scores_add_up_to_zero_and_to_the_gradient():
    """At the maximum the trajectories' gradients add up to the likelihood's, which is zero."""
    model = pricing.model(name="base")
    estimate = mfg.mle(model)
    np.testing.assert_allclose(estimate.scores.sum(0), 0.0, atol=1e-4)
    energy = mfg.mle(pricing.model(name="base", likelihood="energy"))
    np.testing.assert_allclose(energy.scores.sum(0), 0.0, atol=1e-4)


@pytest.mark.parametrize(("module", "n_agents"), [(sis, 2000), (malware, 2000)])
def test_truth_is_recovered_along_the_true_flow(module, n_agents):
    """With the equilibrium flow given, identified parameters are within 3.5 errors of the truth."""
    game = module.game()
    truth = mfg.solve_equilibrium(game, module.reward, parameters=module.TRUTH).value
    panel = mfg.simulate(game, truth.policy, truth.mean_field, n_agents=n_agents, random_seed=5)
    model = mfg.TrajectoryModel(game, module.reward, panel, mean_field=truth.mean_field)
    estimate = mfg.mle(model)
    gap = estimate.params - np.array([module.TRUTH[k] for k in estimate.params.index])
    assert (gap.abs() < 3.5 * estimate.bse).all()


def test_curvature_finds_flat_and_upward_directions():
    """A hand-made matrix with one flat and one upward direction is read as such."""
    flat = analyse_curvature(np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 4.0]]))
    assert flat.known.tolist() == [False, False, True]
    assert flat.covariance[2, 2] == pytest.approx(0.25)
    assert not flat.saddle
    direction = flat.flat[0] / flat.flat[0][0]
    np.testing.assert_allclose(direction, [1.0, 1.0, 0.0], atol=1e-12)
    assert analyse_curvature(np.diag([1.0, -0.5])).saddle


def test_directions_are_written_in_the_users_names():
    """The largest weight is 1, signs are written, small weights are left out."""
    assert describe_direction(np.array([0.5, -1.0, 1e-6]), ["a", "b", "c"]) == "-0.5 a + b"
    assert describe_direction(np.array([2.0, -1.0]), ["level", "crowd"]) == "level - 0.5 crowd"


def test_no_warning_where_everything_is_known():
    """An ordinary fit is silent and its summary has one row per parameter."""
    game, panel = one_step_panel(30, 100)
    model = mfg.TrajectoryModel(game, logit_reward(dist.Normal(0.0, 1.0)), panel)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate = mfg.mle(model)
    table = estimate.summary(ci_prob=0.95)
    assert list(table.index) == ["w"]
    half = 1.959964 * estimate.bse["w"]
    assert table["upper 95%"]["w"] == pytest.approx(estimate.params["w"] + half, rel=1e-5)
    assert "converged" in str(estimate)


@pytest.mark.parametrize("svi_steps", [0, 200])
@pytest.mark.parametrize("discount", [0.9, 1.0])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_a_term_of_time_alone_is_named_whatever_its_size(svi_steps, discount, power):
    """A large feature without information gets no standard error; the others keep theirs."""
    truth = mfg.solve_equilibrium(malware.game(), malware.reward, parameters=malware.TRUTH).value
    panel = mfg.simulate(
        malware.game(), truth.policy, truth.mean_field, n_agents=300, random_seed=1
    )
    game = mfg.MeanFieldGame(
        states={"level": range(10)}, actions=["nothing", "repair"], horizon=30, discount=discount,
        transition=malware.game().transition, initial=np.full(10, 0.1),
    )  # fmt: skip

    def reward(x):
        idle, own, repair = (pyro.sample(k, dist.Normal(0.0, 5.0)) for k in ("idle", "own", "fix"))
        return idle * x.time**power - own * x.level / 10 - repair * (x.action == "repair")

    with pytest.warns(mfg.exceptions.IdentificationWarning, match="do not identify idle"):
        estimate = mfg.mle(mfg.TrajectoryModel(game, reward, panel), svi_steps=svi_steps)
    assert estimate.converged
    assert np.isnan(estimate.bse["idle"])
    assert (estimate.bse[["own", "fix"]] < 1.0).all()


def test_collapsed_mode_of_a_hierarchy_is_called_that():
    """The joint mode of a hierarchical prior has a scale of zero; the fit says to sample."""
    game, panel = one_step_panel(30, 100)

    def reward(x):
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        with pyro.plate("two", 2):
            w = pyro.sample("w", dist.Normal(0.0, spread))
        return w.sum() * (x.action == "a") * 1e-3

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimate = mfg.map_estimate(mfg.TrajectoryModel(game, reward, panel))
    text = "\n".join(str(w.message) for w in caught)
    assert "use nuts" in text
    assert "do not identify" not in text
    assert np.isnan(estimate.bse["spread"])
