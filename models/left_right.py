"""Two ways out of one place: how much does company on one's way cost?

All start in the centre and go left or right. Company costs, and on the right twice as much:

    r = -crowding mu_t(left) on the left,  -2 crowding mu_t(right) on the right
    the next state is the action

A choice between two ways has one log odds, so one coefficient is known: with a cost for each side
only a combination of the two would be. The ratio of 2 is therefore given.

Source: Cui and Koeppl (2021), "Approximately solving mean field games via entropy-regularized deep
reinforcement learning", AISTATS, problem LR.
"""

import numpy as np
import pyro
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "agent", "time": "time", "state": "place", "action": "action"}
TRUTH = {"crowding": 1.0}


def game(*, changed: bool = False, horizon: int = 2) -> mfg.MeanFieldGame:
    """Return the game; under changed dynamics an agent goes its way with probability 0.9."""
    meant = 0.9 if changed else 1.0
    transition = np.zeros((3, 2, 3))
    transition[:, :, 1:] = [[meant, 1 - meant], [1 - meant, meant]]
    return mfg.MeanFieldGame(
        states={"place": ["centre", "left", "right"]},
        actions=["left", "right"],
        horizon=horizon,
        transition=transition,
        initial=[1.0, 0.0, 0.0],
    )


def reward(x):
    """Return the cost of company on either side."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 3.0))
    return -crowding * x.density * ((x.place == "left") + 2 * (x.place == "right"))


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
