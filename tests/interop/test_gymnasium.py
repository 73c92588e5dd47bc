"""A game as a Gymnasium environment: its law, its rewards, and a trainer that learns in it."""

import builtins

import games
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import mfgppl as mfg
from mfgppl.interop.gymnasium import _environment

FLOW = torch.full((4, 2), 0.5, dtype=torch.float64)


def roads(**changes):
    """Return the environment of `two_roads` against an even flow."""
    game = games.two_roads(**changes)
    return mfg.interop.to_gymnasium(game, games.avoid_crowds, FLOW, parameters=games.ROADS_TRUTH)


@pytest.mark.filterwarnings("ignore:.*not within the.*registry.*")
@pytest.mark.filterwarnings("ignore:.*render.*")
def test_gymnasiums_own_checks_pass():
    """`check_env` finds no fault in spaces, seeding and what steps return."""
    check_env(roads(), skip_render_check=True)


def test_an_episode_has_the_horizons_decisions_and_the_tables_rewards():
    """Each step earns the reward of its time, state and action, and the last one ends it."""
    env = roads()
    x = mfg.RewardInputs(env.game, FLOW)
    table = (-1.5 * x.density - 0.4 * (x.action == "turn")).broadcast_to(env.game.shape)
    (time, state), info = env.reset(seed=1)
    for t, action in enumerate([0, 1, 1, 0]):
        assert time == t
        assert info["action_mask"].all()
        (time, reached), earned, ended, cut, info = env.step(action)
        assert earned == pytest.approx(float(table[t, state, action]))
        assert ended == (t == 3)
        assert not cut
        if not ended:
            assert reached == (state if action == 0 else 1 - state)
        state = reached


def test_moves_have_the_frequencies_of_the_dynamics_along_the_flow():
    """Within five standard errors of the crowd's dynamics, which differ from step to step."""
    game = games.epidemic()
    flow = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)
    truth = {"illness": 1.0, "distance": 0.5}
    env = mfg.interop.to_gymnasium(game, games.fear, flow, parameters=truth)
    starts, moves = np.zeros(2), np.zeros((3, 2, 2))
    env.reset(seed=1)
    for _ in range(2000):
        (_, state), _ = env.reset()
        starts[state] += 1
        for t in range(3):
            (_, reached), *_ = env.step(0)
            moves[t, state, reached] += 1
            state = reached
    tables = game.transition_along(flow)[:, :, 0].numpy()
    for t, s in np.ndindex(3, 2):
        n, p = moves[t, s].sum(), tables[t, s, 1]
        assert abs(moves[t, s, 1] / n - p) < games.STANDARD_ERRORS * np.sqrt(p * (1 - p) / n)
    assert abs(starts[1] / 2000 - 0.3) < games.STANDARD_ERRORS * np.sqrt(0.21 / 2000)


def test_q_learning_in_the_environment_finds_the_best_response():
    """A trainer that knows only the environment earns what backward induction promises."""
    env = roads()
    T, S, A = env.game.shape
    q, rng = np.zeros((T + 1, S, A)), np.random.default_rng(1)
    env.reset(seed=1)
    for _ in range(400):
        (time, state), _ = env.reset()
        ended = False
        while not ended:
            action = int(rng.integers(A))
            (later, reached), earned, ended, *_ = env.step(action)
            ahead = 0.0 if ended else q[later, reached].max()
            q[time, state, action] += 0.5 * (earned + ahead - q[time, state, action])
            time, state = later, reached
    values = np.zeros(S)
    for t in range(T - 1, -1, -1):
        stay, turn = values, values[::-1]
        values = np.maximum(-0.75 + stay, -0.75 - 0.4 + turn)
        np.testing.assert_allclose(q[t].max(-1), values, atol=1e-3)


def test_an_action_that_is_not_available_is_refused():
    """The mask says so, and a step that ignores it raises."""
    env = roads(available=[[1, 0], [1, 1]], initial=[1.0, 0.0])
    _, info = env.reset(seed=1)
    np.testing.assert_array_equal(info["action_mask"], [True, False])
    with pytest.raises(ValueError, match=r"`action` 'turn' is not available in state 'left'"):
        env.step(1)


def test_without_the_library_the_remedy_is_named(monkeypatch):
    """The extra to install is in the message."""
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "gymnasium":
            raise ImportError("no gymnasium")
        return real(name, *args, **kwargs)

    _environment.cache_clear()
    monkeypatch.setattr("importlib.import_module", lambda name: absent(name))
    with pytest.raises(ImportError, match=r"mfgppl\[gymnasium\]"):
        roads()
    _environment.cache_clear()


def test_environments_are_gymnasiums():
    """Trainers ask for an instance of its class."""
    assert isinstance(roads(), gymnasium.Env)
