"""One contract for all methods: what they return, leave alone, and detect."""

import functools
import warnings

import games
import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from baselines.worlds import ALONE, alone, coin

import mfgppl as mfg
from mfgppl import baselines
from mfgppl.baselines.estimate import sampling_gap, total_variation
from mfgppl.baselines.task import task_of

METHODS = {
    "behaviour_cloning": {},
    "max_causal_entropy": {},
    "mfirl": {},
    "mfirl hard": {"normalisation": "advantage", "max_steps": 20},
    "plirl": {"max_steps": 3},
    "plirl sampled": {"partition": "sampled", "n_rounds": 4, "n_flows": 6},
    "mfairl": {"n_rounds": 3},
    "mfairl sampled": {"sampler": "sampled", "n_rounds": 5, "n_agents": 20},
    "mfairl network": {"potential": "network", "next_state": "expected", "n_rounds": 2},
}


def fitted(name, panel, reward=games.avoid_crowds, game=None, **changes):
    """Run a method without its warnings."""
    method = getattr(baselines, name.split()[0])
    game = games.two_roads() if game is None else game
    options = METHODS[name] | {"random_seed": 1} | changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        return method(panel, game, reward=reward, **options)


@pytest.fixture(scope="module")
def usual(roads_panel):
    """The estimate by each method's name, from the drivers' panel in their game."""
    return functools.cache(lambda name: fitted(name, roads_panel))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_returns_the_same_record(name, usual):
    """Tables have the game's shape, a policy's rows sum to 1, costs are counted."""
    game = games.two_roads()
    found = usual(name)
    assert isinstance(found, baselines.Estimate)
    torch.testing.assert_close(found.policy.sum(-1), torch.ones(4, 2, dtype=torch.float64))
    assert isinstance(found.history, pd.DataFrame)
    assert found.seconds > 0
    assert isinstance(found.converged, bool)
    assert (found.n_interactions > 0) == ("sampled" in name)
    assert found.reason in repr(found)
    if name == "behaviour_cloning":
        assert found.reward is None
        with pytest.raises(ValueError, match="recovers no reward"):
            found.solve()
        return
    assert found.reward.shape == game.shape
    assert list(found.params.index) == ["crowding", "effort"]
    assert found.params["effort"] > 0  # the support of its prior holds
    assert len(found.history) > 0


@pytest.mark.parametrize("name", [n for n in METHODS if n != "behaviour_cloning"])
def test_a_recovered_reward_is_a_program_of_any_world(name, usual, roads_panel):
    """The table is the program's along the panel's flow, and the program solves other worlds."""
    game = games.two_roads()
    found = usual(name)
    flow = torch.as_tensor(roads_panel.mean_field())
    along = mfg.RewardInputs(game, flow)
    table = torch.as_tensor(found.reward_program(along)).broadcast_to(game.shape)
    torch.testing.assert_close(table, found.reward)
    other = game.replace(initial=[0.3, 0.7], temperature=2.0)
    assert found.solve(other).converged


@pytest.mark.parametrize("name", METHODS)
def test_the_seed_alone_decides(name, roads_panel):
    """The same seed gives the same numbers under any global state, which is left as it was."""
    found = []
    for seed in (3, 4):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            found.append(fitted(name, roads_panel).policy)
            assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*found)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("name", ["max_causal_entropy", "mfirl", "plirl", "mfairl"])
def test_labels_are_put_in_the_games_order(name, usual, roads_panel):
    """A panel coded the other way round gives the same reward at the same labels."""
    turned = games.two_roads(
        states=["right", "left"],
        initial=[0.2, 0.8],
        actions=["turn", "stay"],
        transition=np.stack([np.eye(2)[::-1], np.eye(2)], axis=1),
    )
    one, other = usual(name), fitted(name, roads_panel, game=turned)
    torch.testing.assert_close(one.reward, other.reward.flip(1, 2), atol=1e-4, rtol=0)


def test_counts_are_enough(usual, roads_panel):
    """A counted panel gives what its trajectories give."""
    counted = mfg.CountedPanel.from_trajectories(roads_panel)
    for name in ("mfirl", "mfairl"):
        one, other = usual(name), fitted(name, counted)
        assert torch.equal(one.reward, other.reward)


def test_an_unavailable_action_is_never_taken():
    """All policies leave it out, and rewards stay finite there."""
    shop = games.shop(
        available=np.array([[1, 1, 1, 0]] + [[1, 1, 1, 1]] * 5), discount=1.0, horizon=3
    )
    reward = mfg.linear_reward(
        {"stay": lambda x: x.action == "hold", "shut": lambda x: x.action == "close"},
        priors=dist.Normal(0.0, 1.0),
    )
    panel = games.played(shop, reward, {"stay": 1.0, "shut": -1.0}, 200, 1)
    for name in METHODS:
        found = fitted(name, panel, reward=reward, game=shop)
        assert (found.policy[:, 0, 3] == 0).all(), name
        assert torch.isfinite(found.policy).all(), name
        if found.reward is not None:
            assert torch.isfinite(found.reward).all(), name


def test_one_decision_is_enough():
    """A game of one decision has no moves: all methods end at the log odds of its shares."""
    game = games.two_roads(horizon=1, initial=[1.0, 0.0])
    reward = mfg.linear_reward({"turn": lambda x: x.action == "turn"}, dist.Normal(0.0, 1.0))
    panel = games.played(game, reward, {"turn": 0.7}, 400, 1)
    turned = panel.counts.actions[0, 0, 1] / 400
    odds = np.log(turned / (1 - turned))
    for name in ("max_causal_entropy", "mfirl", "plirl", "mfairl"):
        more = {"mfairl": {"n_rounds": 30}, "plirl": {"max_steps": 10}}.get(name, {})
        found = fitted(name, panel, reward=reward, game=game, **more)
        assert found.params["turn"] == pytest.approx(odds, abs=2e-3)


@pytest.mark.parametrize("name", METHODS)
def test_a_sparse_transition_gives_what_a_dense_one_does(name, usual, roads_panel):
    """The same numbers by stored entries."""
    rows = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1).reshape(4, 2)
    sparse = games.two_roads(transition=scipy.sparse.csr_array(rows))
    one, other = usual(name), fitted(name, roads_panel, game=sparse)
    torch.testing.assert_close(one.policy, other.policy, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["mfirl", "plirl", "mfairl", "mfairl sampled"])
def test_a_joint_game_that_reads_states_alone_is_the_plain_game(name, usual, roads_panel):
    """Rewards of the shares of states give the same fit where the mean field is joint."""
    one, other = usual(name), fitted(name, roads_panel, game=games.two_roads(joint=True))
    np.testing.assert_allclose(one.params, other.params, atol=1e-4)


def test_chance_explains_the_gap_that_panels_have_from_their_own_law():
    """The formula is the mean over panels of the same size, to a tenth."""
    game = coin()
    policy = mfg.solve_equilibrium(game, alone, parameters=ALONE).value.policy
    flow = mfg.equilibrium.generate_mean_field(game, policy)
    law, gaps = flow[..., None] * policy, []
    for seed in range(40):
        panel = mfg.simulate(game, policy, flow, n_agents=100, random_seed=seed)
        task = task_of(panel, game, None)
        gaps.append(total_variation(task.occupancy, law))
    assert sampling_gap(task, law) == pytest.approx(np.mean(gaps), rel=0.1)


def test_an_estimate_is_where_other_fits_may_start(usual, roads_panel):
    """Its values by site are an `init`, and hold what its parameters do."""
    game = games.two_roads()
    found = usual("mfirl")
    assert {k: float(v) for k, v in found.values.items()} == found.params.to_dict()
    model = mfg.TrajectoryModel(game, games.avoid_crowds, roads_panel)
    point = mfg.mle(model, init=found.values, svi_steps=0, progressbar=False)
    np.testing.assert_allclose(point.params, found.params, atol=1e-4)


def test_a_warning_points_at_the_callers_line(roads_panel):
    """It names this file, so that a user sees which fit it was."""
    with pytest.warns(mfg.exceptions.ConvergenceWarning) as caught:
        baselines.mfirl(roads_panel, games.two_roads(), reward=games.avoid_crowds, max_steps=1)
    assert {w.filename for w in caught} == {__file__}
