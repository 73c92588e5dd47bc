"""What Theorem 4 as printed costs: where its estimates go, and where it is harmless."""

import importlib
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import mfgppl as mfg

ANALYSES = str(Path(__file__).parents[2] / "analyses")
SAME = 1e-10
STOCHASTIC = ("INVEST", "MALWARE", "SIS")
FORMS = {"energy, one constant": "marginal", "energy, given the start": "conditional"}


@pytest.fixture
def theorem4(monkeypatch):
    """The analysis."""
    monkeypatch.syspath_prepend(ANALYSES)
    return importlib.import_module("theorem4")


def walks(*, initial):
    """Return a random deterministic game with a reward of two weights."""
    rng = np.random.default_rng(7)
    table = np.eye(5)[rng.integers(5, size=(5, 3))]
    first, second = rng.normal(size=(2, 6, 5, 3))
    game = mfg.MeanFieldGame(
        states=range(5), actions=range(3), horizon=6, transition=table, initial=initial
    )
    return game, mfg.linear_reward({"a": first, "b": second}, dist.Normal(0.0, 1.0))


def laws_of(game, reward, n_agents):
    """Return the causal and both energy models of one panel."""
    world = mfg.solve_equilibrium(game, reward, parameters={"a": 1.0, "b": -0.5}).value
    flow = world.mean_field
    panel = mfg.simulate(game, world.policy, flow, n_agents=n_agents, random_seed=1)
    return [
        mfg.TrajectoryModel(game, reward, panel, mean_field=flow, **options)
        for options in (
            {"likelihood": "causal"},
            {"likelihood": "energy", "start": "marginal"},
            {"likelihood": "energy", "start": "conditional"},
        )
    ]


def maximum(model):
    return mfg.mle(model, svi_steps=0, tolerance=1e-10, flow_bias=False, progressbar=False).params


def test_deterministic_dynamics_and_one_start_make_one_law():
    """Log likelihoods by trajectory agree at any parameters, and so do the maximisers."""
    causal, *energy = laws_of(*walks(initial=np.eye(5)[2]), 300)
    rng = np.random.default_rng(1)
    for _ in range(5):
        values = dict(zip("ab", rng.normal(scale=3.0, size=2), strict=True))
        expected = mfg.log_likelihood(causal, values)
        for model in energy:
            found = mfg.log_likelihood(model, values)
            np.testing.assert_allclose(found, expected, atol=SAME)
    for model in energy:
        np.testing.assert_allclose(maximum(model), maximum(causal), atol=SAME)


def test_several_starts_need_a_constant_each():
    """From several starts, one constant is another law; a constant a start is still the same."""
    causal, marginal, conditional = laws_of(*walks(initial=np.full(5, 0.2)), 300)
    values = {"a": 1.0, "b": -0.5}
    expected = mfg.log_likelihood(causal, values)
    np.testing.assert_allclose(mfg.log_likelihood(conditional, values), expected, atol=SAME)
    np.testing.assert_allclose(maximum(conditional), maximum(causal), atol=SAME)
    assert abs(mfg.log_likelihood(marginal, values) - expected).max() > 0.1
    assert abs(maximum(marginal) - maximum(causal)).max() > 0.01


def limit(theorem4, case, law):
    """Return where a law's estimates go."""
    world = theorem4.equilibrium(case)
    return theorem4.fit(case, world, theorem4.expected_panel(case.game, world), law).params


def test_the_causal_limit_is_the_truth(theorem4):
    """At expected counts the causal likelihood is largest at the truth, found from elsewhere."""
    for case in theorem4.cases().values():
        found = limit(theorem4, case, "causal")
        assert found.to_dict() == pytest.approx(case.truth, abs=1e-6)


@pytest.mark.parametrize("law", FORMS)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_energy_limits_meet_their_first_order_conditions(theorem4, name, law):
    """Far from the truth, features are as often under the energy law as under the true one.

    The energy law's features are counted by a forward-backward pass of its own.
    """
    case = theorem4.cases()[name]
    point = limit(theorem4, case, law)
    assert max(abs(point[k] / v - 1) for k, v in case.truth.items()) > 0.2
    world = theorem4.equilibrium(case)
    P = case.game.transition_along(world.mean_field).numpy()
    base, *features = feature_tables(case, world.mean_field)
    reward = base + sum(point[k] * f for k, f in zip(case.truth, features, strict=True))
    often = energy_occupancy(reward, P, case.game.initial.numpy(), FORMS[law])
    data = (world.mean_field[:, :, None] * world.policy).numpy()
    for feature in features:
        assert (often * feature).sum() == pytest.approx((data * feature).sum(), abs=1e-6)
    assert np.abs(often - data).max() > 0.005  # the laws themselves differ


def feature_tables(case, flow):
    """Return the reward at zero weights and each feature, as arrays (T, S, A)."""
    x = mfg.RewardInputs(case.game, flow)
    zero = dict.fromkeys(case.truth, 0.0)
    rewards = []
    for values in [zero] + [zero | {k: 1.0} for k in case.truth]:
        data = {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}
        with pyro.poutine.block(), pyro.poutine.condition(data=data):
            rewards.append(torch.as_tensor(case.reward(x)).broadcast_to(x.shape).numpy())
    return [rewards[0], *(r - rewards[0] for r in rewards[1:])]


def energy_occupancy(reward, P, initial, start):
    """Return how often the energy law is at each time, state and action, by forward-backward."""
    T, S, A = reward.shape
    P = np.broadcast_to(P, (T - 1, S, A, S))
    weights, later = np.exp(reward), np.ones((T + 1, S))
    for t in range(T - 1, -1, -1):
        follows = P[t] @ later[t + 1] if t < T - 1 else np.ones((S, A))
        weights[t] *= follows
        later[t] = weights[t].sum(-1)
    policy = weights / later[:T, :, None]
    state = initial * later[0] if start == "marginal" else initial
    state = state / state.sum()
    often = np.empty_like(reward)
    for t in range(T):
        often[t] = state[:, None] * policy[t]
        if t < T - 1:
            moved = P[t] * later[t + 1]
            moved /= np.maximum(moved.sum(-1, keepdims=True), 1e-300)
            state = np.einsum("sa,sax->x", often[t], moved)
    return often


def test_a_large_panel_goes_to_the_energy_limit_and_not_to_the_truth(theorem4):
    """Of 20,000 firms the energy estimates are near their limits, many errors from the truth."""
    case, law = theorem4.cases()["INVEST"], "energy, given the start"
    world, expected = theorem4.equilibrium(case), limit(theorem4, case, law)
    panel = mfg.simulate(case.game, world.policy, world.mean_field, n_agents=20_000, random_seed=3)
    point = theorem4.fit(case, world, panel, law)
    error = point.standard_errors("cluster")
    assert (((point.params - expected) / error).abs() < 5).all()
    assert (((point.params - np.array(list(case.truth.values()))) / error).abs() > 10).all()


def test_the_dial_of_noise_begins_at_the_truth_and_leaves_it(theorem4):
    """Without noise the limits are the truth; with more noise they are farther from it."""
    table = theorem4.turn_dial(np.array([0.0, 0.2, 0.4]))
    energy = table[(table["dial"] == "noise") & (table["law"] == "energy, one constant")]
    gaps = (energy[["win", "lose"]] - 1).abs().to_numpy()
    assert gaps[0].max() < 1e-6
    assert (np.diff(gaps, axis=0) > 0.05).all()
    start = table[table["dial"] == "start"].pivot(index="share", columns="law", values="win")
    assert (start["energy, given the start"] - 1).abs().max() < 1e-6
    assert (start["energy, one constant"] - 1).abs().max() > 0.05
