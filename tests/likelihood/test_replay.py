"""Panels drawn again: what stays, and the law of the rest."""

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import scipy.sparse
from games import ROADS_TRUTH, STANDARD_ERRORS, avoid_crowds, epidemic, fear, shop, two_roads

import mfgppl as mfg

N = 4000
FEAR = {"illness": 1.0, "distance": 0.5}


def unbalanced(game, seed=0, *, last=True):
    """Return a panel of agents who come and go, some of whose last states are seen."""
    rng = np.random.default_rng(seed)
    rows = []
    for agent in range(N):
        begin = int(rng.integers(0, game.horizon - 1))
        end = int(rng.integers(begin + 1, game.horizon + 1))
        state = int(rng.integers(game.n_states))
        steps = game.transition_along(game.initial.expand(game.horizon, -1)).to_dense().numpy()
        for t in range(begin, end):
            action = int(rng.integers(game.n_actions))
            rows.append((agent, t, game.space.labels[state], game.actions[action]))
            state = int(
                rng.choice(game.n_states, p=steps[t if len(steps) > t else -1][state, action])
            )
        if last and agent % 2:
            rows.append((agent, end, game.space.labels[state], None))
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    labels = {"state_labels": {"state": list(game.space.labels)}, "action_labels": game.actions}
    return mfg.Trajectories.from_frame(frame, **labels)


def in_equilibrium(game, reward, truth):
    """Return the model of an unbalanced panel in an equilibrium's flow, and the policy."""
    world = mfg.solve_equilibrium(game, reward, parameters=truth, throw=True).value
    return mfg.TrajectoryModel(game, reward, unbalanced(game), mean_field=world.mean_field), world


@pytest.mark.parametrize(
    ("game", "reward", "truth"),
    [(two_roads(), avoid_crowds, ROADS_TRUTH), (epidemic(), fear, FEAR)],
    ids=["one table", "one table per step"],
)
def test_replay_keeps_who_was_seen_when_and_from_where(game, reward, truth):
    model, world = in_equilibrium(game, reward, truth)
    drawn = mfg.checks.replay(model, world.policy, random_seed=1)
    panel = model.panel
    first = panel.offsets[:-1]
    assert drawn.agents.tolist() == panel.agents.tolist()
    assert (drawn.state[drawn.offsets[:-1]] == panel.state[first]).all()
    assert (drawn.time[drawn.offsets[:-1]] == panel.time[first]).all()
    acted = np.add.reduceat(panel.action >= 0, first, dtype=int)
    assert (np.add.reduceat(drawn.action >= 0, drawn.offsets[:-1], dtype=int) == acted).all()
    assert (drawn.action >= 0).sum() == (panel.action >= 0).sum()
    dropped = 0 if len(game.transition_along(world.mean_field)) == 1 else (panel.time == 4).sum()
    assert len(drawn.time) == len(panel.time) - dropped


def test_replay_draws_actions_by_the_policy_and_states_by_the_dynamics():
    """Expected counts of actions and steps, pushed forward by hand from the first states."""
    game = epidemic()
    model, world = in_equilibrium(game, fear, FEAR)
    policy = world.policy.numpy()
    tables = game.transition_along(world.mean_field).numpy()
    panel = model.panel
    expected = np.zeros(game.shape)
    lengths = np.add.reduceat(panel.action >= 0, panel.offsets[:-1], dtype=int)
    for begin, state, n in zip(
        panel.time[panel.offsets[:-1]], panel.state[panel.offsets[:-1]], lengths, strict=True
    ):
        share = np.eye(game.n_states)[state]
        for t in range(begin, begin + n):
            taken = share[:, None] * policy[t]
            expected[t] += taken
            if t < game.horizon - 1:
                share = np.einsum("sa,sax->x", taken, tables[t])
    drawn = [
        mfg.checks.replay(model, world.policy, random_seed=k).counts.actions for k in range(20)
    ]
    error = np.sqrt(np.maximum(expected, 1.0) / len(drawn))  # at most Poisson
    assert (np.abs(np.mean(drawn, axis=0) - expected) < STANDARD_ERRORS * error).all()
    steps, n = mfg.checks.replay(model, world.policy, random_seed=0).transition_counts()
    assert (tables[steps[:, 0], steps[:, 1], steps[:, 2], steps[:, 3]] > 0).all()
    moves = pd.DataFrame(steps, columns=list("tsax")).assign(n=n)
    total = moves.groupby(["t", "s", "a"])["n"].transform("sum")
    chance = tables[moves["t"], moves["s"], moves["a"], moves["x"]]
    spread = np.sqrt(np.maximum(total * chance * (1 - chance), 1.0))
    assert (np.abs(moves["n"] - total * chance) < STANDARD_ERRORS * spread).all()


def test_replay_is_the_same_for_a_sparse_game():
    game = shop(horizon=3, discount=1.0)
    tables = game.transition_along(game.initial.expand(3, -1))[0].numpy()
    flat = scipy.sparse.csr_array(tables.reshape(-1, game.n_states))
    sparse = shop(horizon=3, discount=1.0, transition=flat)
    reward = mfg.linear_reward({"move": np.eye(4)[None, None, 0]}, dist.Normal(0.0, 1.0))
    policy = np.full(game.shape, 0.25)
    panel = mfg.simulate(game, policy, game.initial.expand(3, -1), n_agents=50, random_seed=1)
    drawn = [
        mfg.checks.replay(mfg.TrajectoryModel(g, reward, panel), policy, random_seed=2)
        for g in (game, sparse)
    ]
    assert (drawn[0].state == drawn[1].state).all()
    assert (drawn[0].action == drawn[1].action).all()


def test_replay_of_a_stationary_game_goes_on_from_step_to_step():
    game = two_roads(horizon=None, discount=0.9)
    world = mfg.solve_equilibrium(game, avoid_crowds, parameters=ROADS_TRUTH, throw=True).value
    panel = mfg.simulate(
        game, world.policy, world.mean_field, n_agents=300, n_times=7, random_seed=1
    )
    drawn = mfg.checks.replay(
        mfg.TrajectoryModel(game, avoid_crowds, panel), world.policy, random_seed=3
    )
    here = np.flatnonzero(np.diff(drawn.trajectory) == 0)
    turned = drawn.action[here] == 1
    assert ((drawn.state[here] != drawn.state[here + 1]) == turned).all()
    assert drawn.n_trajectories == 300


def test_replay_depends_on_its_seed_alone():
    model, world = in_equilibrium(two_roads(), avoid_crowds, ROADS_TRUTH)
    a, b, c = (mfg.checks.replay(model, world.policy, random_seed=k) for k in (1, 1, 2))
    assert (a.state == b.state).all()
    assert (a.action == b.action).all()
    assert (a.action != c.action).any()
