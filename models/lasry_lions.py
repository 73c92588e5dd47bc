"""Places of a ring that get worse as they fill: is there more than one way to share them?

Agents walk on a ring of places of different worth. A place is worth less the fuller it is, so for
any two flows `sum_s (mu - mu')(s) (r(s, mu) - r(s, mu')) = -crowding |mu - mu'|^2 <= 0`: the reward
is monotone, and the equilibrium is the only one, whatever the temperature:

    r = worth cos(2 pi s / n) - crowding mu_t(s) - effort 1{not stay}

Source: Lasry and Lions (2007), "Mean field games", Japanese Journal of Mathematics; in discrete
time Gomes, Mohr and Souza (2010), "Discrete time, finite state space mean field games", Journal de
Mathematiques Pures et Appliquees.
"""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg

COLUMNS = {"agent": "agent", "time": "time", "state": "place", "action": "walk"}
TRUTH = {"worth": 1.0, "crowding": 4.0, "effort": 0.5}
PLACES = 8
STEPS = {"left": -1, "stay": 0, "right": 1}


def game() -> mfg.MeanFieldGame:
    """Return the game; a step succeeds with probability 0.9, and all start at place 4."""
    transition = np.zeros((PLACES, 3, PLACES))
    for place in range(PLACES):
        for walk, step in enumerate(STEPS.values()):
            transition[place, walk, (place + step) % PLACES] += 0.9
            transition[place, walk, place] += 0.1
    return mfg.MeanFieldGame(
        states={"place": range(PLACES)},
        actions=list(STEPS),
        horizon=20,
        transition=transition,
        initial=np.eye(PLACES)[4],
    )


def reward(x):
    """Return the worth of a place, less the cost of company and of a step."""
    worth = pyro.sample("worth", dist.Normal(0.0, 2.0))
    crowding = pyro.sample("crowding", dist.HalfNormal(5.0))
    effort = pyro.sample("effort", dist.Normal(0.0, 2.0))
    ring = torch.cos(2 * math.pi * x.place / PLACES)
    return worth * ring - crowding * x.density - effort * (x.action != "stay")


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
