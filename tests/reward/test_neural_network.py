"""Networks as reward programs: one class for the earlier methods and for posteriors."""

import warnings

import games
import numpy as np
import pyro
import pytest
import torch

import mfgppl as mfg
from mfgppl import baselines


def sites(reward, game):
    """Run a network once and return its sites' values and the reward."""
    flow = torch.full(game.shape[:2], 1 / game.n_states, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]), pyro.poutine.trace() as tracer:
        torch.manual_seed(1)
        table = reward(mfg.RewardInputs(game, flow))
    nodes = tracer.trace.nodes
    return {k: v["value"].numpy() for k, v in nodes.items() if v["type"] == "sample"}, table, flow


def test_a_network_is_its_formula():
    """Two hidden layers against NumPy on one-hot inputs, entry by entry."""
    game = games.shop()
    w, table, flow = sites(mfg.baselines.network_reward((3, 2)), game)
    for t, s, a in [(0, 0, 0), (2, 5, 3), (4, 1, 2)]:
        first = (
            w["state_weights"][s] + w["action_weights"][a] + flow[t].numpy() @ w["crowd_weights"]
        )
        hidden = np.tanh(first + w["hidden_bias_1"])
        hidden = np.tanh(hidden @ w["hidden_weights_2"] + w["hidden_bias_2"])
        expected = hidden @ w["last_weights"]
        assert table.broadcast_to(game.shape)[t, s, a].item() == pytest.approx(expected)


def test_a_network_without_a_crowd_does_not_see_it():
    """Its table is the same along any flow."""
    game = games.two_roads()
    w, table, _ = sites(mfg.baselines.network_reward((4,), crowd=False), game)
    assert "crowd_weights" not in w
    assert table.shape[0] == 1


def test_the_scale_is_that_of_the_prior():
    """The last layer's prior has the standard deviation asked for over the root of its inputs."""
    with pyro.poutine.trace() as tracer, torch.random.fork_rng(devices=[]):
        mfg.baselines.network_reward((16,), scale=2.0)(
            mfg.RewardInputs(games.two_roads(), torch.full((4, 2), 0.5).double())
        )
    last = tracer.trace.nodes["last_weights"]["fn"]
    assert float(last.base_dist.scale[0]) == pytest.approx(2.0 / 4.0)


@pytest.mark.parametrize("method", ["mfirl", "mfairl", "plirl"])
def test_the_earlier_methods_fit_a_network(method, roads_panel):
    """A network fits the choices at least as well as the declared class does, to 0.02 nats."""
    game = games.two_roads()
    options = {"mfairl": {"n_rounds": 10}, "plirl": {"max_steps": 40}}.get(method, {})
    truth = {"parameters": games.ROADS_TRUTH}
    panel = games.played(game, games.avoid_crowds, games.ROADS_TRUTH, 500, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        found = getattr(baselines, method)(
            panel, game, reward=mfg.baselines.network_reward((6,)), random_seed=1, **options
        )
    policy = mfg.equilibrium.soft_backward_induction(found.reward, game.transition).log_policy
    if method == "plirl":
        policy = found.policy.log()
    true = mfg.solve_equilibrium(game, games.avoid_crowds, **truth).value.policy.log()
    counts = torch.as_tensor(panel.counts.actions)
    gain = float((counts * (policy - true)).sum() / counts.sum())
    assert gain > -0.02


def test_a_networks_posterior_is_sampled_by_the_main_path(roads_panel):
    """Variational inference over its weights predicts choices as the declared reward does."""
    game = games.two_roads()
    model = mfg.TrajectoryModel(game, mfg.baselines.network_reward((4,)), roads_panel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = mfg.vi(model, guide="diagonal", draws=50, max_steps=150, particles=2, random_seed=1)
    declared = mfg.TrajectoryModel(game, games.avoid_crowds, roads_panel)
    point = mfg.mle(declared, svi_steps=20, progressbar=False)
    ours = mfg.policy(model, draws).mean(("chain", "draw")).to_numpy()
    theirs = mfg.policy(declared, point).to_numpy()
    shares = roads_panel.counts.actions.sum(-1) / roads_panel.n_decisions
    assert (shares * np.abs(ours - theirs).max(-1)).sum() < 0.1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"hidden": ()}, "at least one layer"),
        ({"hidden": 8}, "sequence of layer sizes"),
        ({"hidden": (0,)}, "`hidden` must be at least 1"),
        ({"scale": 0.0}, "`scale`"),
        ({"crowd": 1}, "`crowd`"),
    ],
)
def test_a_wrong_network_is_refused(wrong, words):
    """Each wrong argument is named."""
    with pytest.raises((ValueError, TypeError), match=words):
        mfg.baselines.network_reward(**wrong)
