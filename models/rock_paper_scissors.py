"""Rock, paper, scissors with unequal stakes: what is a win worth, and what does a loss cost?

Each agent shows a hand at the next step and is paid by the shares of the hands that it beats and
that beat it. Paper plays for twice the stakes of rock, scissors for three times:

    r = stake(s) (win mu_t(beaten by s) - lose mu_t(beats s)),  stake = 1, 2, 3
    the next state is the action

The crowd's mixture is the same at all times, so two log odds are known of the six coefficients of
a general reward: the stakes are given and `win` and `lose` are what remains.

Source: Cui and Koeppl (2021), "Approximately solving mean field games via entropy-regularized deep
reinforcement learning", AISTATS, problem RPS, after Shapley (1964).
"""

import numpy as np
import pyro
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "agent", "time": "time", "state": "hand", "action": "action"}
TRUTH = {"win": 2.0, "lose": 1.0}
HANDS = ["rock", "paper", "scissors"]
STAKES = {"rock": 1.0, "paper": 2.0, "scissors": 3.0}


def game(*, changed: bool = False, horizon: int = 5) -> mfg.MeanFieldGame:
    """Return the game; under changed dynamics a hand is shown as meant with probability 0.8."""
    meant = 0.8 if changed else 1.0
    shown = np.full((3, 3), (1 - meant) / 2)
    np.fill_diagonal(shown, meant)
    transition = np.zeros((4, 3, 4))
    transition[:, :, 1:] = shown
    return mfg.MeanFieldGame(
        states={"hand": ["start", *HANDS]},
        actions=HANDS,
        horizon=horizon,
        transition=transition,
        initial=[1.0, 0.0, 0.0, 0.0],
    )


def reward(x):
    """Return the stake times what the crowd's hands pay."""
    win = pyro.sample("win", dist.Normal(0.0, 3.0))
    lose = pyro.sample("lose", dist.Normal(0.0, 3.0))
    total = 0.0
    for k, hand in enumerate(HANDS):
        beaten, beats = HANDS[k - 1], HANDS[(k + 1) % 3]
        pay = win * x.share(hand=beaten) - lose * x.share(hand=beats)
        total = total + STAKES[hand] * pay * (x.hand == hand)
    return total


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
