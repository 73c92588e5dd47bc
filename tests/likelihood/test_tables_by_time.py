"""One table for all steps and one for each of T-1 = 1 or 0 steps are different dynamics."""

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch

import mfgppl as mfg
from mfgppl.flows.cut import draw_transition
from mfgppl.likelihood.replay import replay

STAY = torch.tensor([[[0.9, 0.1], [0.9, 0.1]], [[0.1, 0.9], [0.1, 0.9]]], dtype=torch.float64)
LEAVE = STAY.flip(0)


def changing(mean_field, time):
    return STAY if time == 0 else LEAVE


def game_of(horizon, transition):
    return mfg.MeanFieldGame(
        states=["l", "h"], actions=["a", "b"], horizon=horizon, initial=[0.5, 0.5],
        transition=transition,
    )  # fmt: skip


def panel_of(n_times, n_agents=400, law=changing):
    """Each agent acts at random, and is seen once more after the last decision."""
    rng, rows = np.random.default_rng(0), []
    for i in range(n_agents):
        s = int(rng.integers(2))
        for t in range(n_times):
            a = int(rng.integers(2))
            rows.append((i, t, "lh"[s], "ab"[a]))
            s = int(rng.choice(2, p=law(None, t)[s, a].numpy()))
        rows.append((i, n_times, "lh"[s], None))
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    return mfg.Trajectories.from_frame(frame, state_labels={"state": ["l", "h"]})


def model_of(game, panel, **options):
    reward = mfg.linear_reward({"w": lambda x: x.action == "a"}, dist.Normal(0.0, 1.0))
    return mfg.TrajectoryModel(game, reward, panel, **options)


@pytest.mark.parametrize(
    ("horizon", "transition", "by_time"),
    [
        (1, STAY, False), (1, changing, True), (1, np.zeros((0, 2, 2, 2)), True),
        (2, STAY, False), (2, changing, True), (2, STAY[None], True), (None, changing, False),
    ],
)  # fmt: skip
def test_game_says_whether_steps_have_tables_of_their_own(horizon, transition, by_time):
    discount = 0.9 if horizon is None else 1.0
    game = mfg.MeanFieldGame(
        states=[0, 1], actions=[0, 1], horizon=horizon, initial=[0.5, 0.5],
        transition=transition, discount=discount,
    )  # fmt: skip
    assert game.tables_by_time is by_time
    flow = torch.full(game.flow_shape, 0.5, dtype=torch.float64)
    assert len(game.transition_along(flow)) == (game.n_steps if by_time else 1)


@pytest.mark.parametrize("mean_field", ["empirical", "equilibrium"])
def test_one_decision_has_no_move_to_explain(mean_field):
    """With T = 1 the law is the softmax of the reward, whatever state follows."""
    panel = panel_of(1)
    model = model_of(game_of(1, changing), panel, mean_field=mean_field)
    found = float(mfg.log_likelihood(model, {"w": 0.4}).sum())
    n = panel.counts.actions.sum((0, 1))
    chosen = np.log(np.exp([0.4, 0.0]) / np.exp([0.4, 0.0]).sum())
    assert found == pytest.approx(float(n @ chosen), abs=1e-10)


def test_replay_of_two_times_draws_one_move():
    model = model_of(game_of(2, changing), panel_of(2))
    drawn = replay(model, np.full((2, 2, 2), 0.5), random_seed=1)
    assert drawn.time.max() == 1
    stays = (np.diff(drawn.state)[drawn.time[1:] == 1] == 0).mean()
    assert stays == pytest.approx(0.9, abs=5 * np.sqrt(0.09 / 400))


def test_replay_draws_the_last_move_of_a_panel_that_ends_before_the_game():
    """A panel of two decisions in a game of three has tables for both moves."""
    flow = np.full((3, 2), 0.5)
    model = model_of(game_of(3, changing), panel_of(2), mean_field=flow)
    drawn = replay(model, np.full((3, 2, 2), 0.5), random_seed=1)
    stays = np.diff(drawn.state) == 0
    assert drawn.time.max() == 2
    assert stays[drawn.time[1:] == 2].mean() == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / 400))


def test_predicted_stays_are_those_of_the_moves_that_have_tables():
    """A game that flips at each second step stays at the first, where alone it is compared."""
    model = model_of(game_of(2, changing), panel_of(2))
    row = mfg.predictive_check(model, {"w": 0.0}, draws=20, random_seed=1).table.loc["stays"]
    assert row["mean"] == pytest.approx(0.9, abs=5 * np.sqrt(0.09 / 400 / 20))
    assert row["observed"] == pytest.approx(0.9, abs=5 * np.sqrt(0.09 / 400))


def test_transitions_are_drawn_from_the_moves_of_their_own_step():
    """Action b is taken at the last decision alone, whose moves are no count of the first step."""
    frame = pd.DataFrame(
        [(i, t, "l", a) for i in range(50) for t, a in enumerate(["a", "b", None])],
        columns=["agent", "time", "state", "action"],
    )
    labels = {"state": ["l", "h"]}
    panel = mfg.Trajectories.from_frame(frame, state_labels=labels, action_labels=["a", "b"])
    model = model_of(game_of(2, STAY[None]), panel)
    drawn = draw_transition(model, panel, np.random.default_rng(0))
    assert drawn.shape == (1, 2, 2, 2)
    np.testing.assert_array_equal(drawn[0, 0, 1], STAY[0, 1])  # never followed: it stays
    assert drawn[0, 0, 0, 0] != STAY[0, 0, 0]
