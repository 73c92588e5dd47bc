"""Treasures that only a crowd can lift: which one does everybody dig for?

Each hunter is at one of three places and either digs where it is or sets out for another. Digging
pays the more, and a journey goes astray the less, the nearer the joint distribution `L_t(s, a)` of
places and plans is to everybody digging here, `e_ss`:

    d_t(s) = |L_t - e_ss|^2
    r_t(s, a) = value(s) (1 - d_t(s) / 2) 1{a = s}             for t > 0, else 0
    P(s' | s, a) = (1{s' = a} + d_t(s)) / (1 + 3 d_t(s))       for t > 0, else 1{s' = a}

Source: Guo, Hu and Zhang (2024), "MF-OMO: an optimization formulation of mean-field games", SIAM
Journal on Control and Optimization, conservative treasure hunting.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg

COLUMNS = {"agent": "hunter", "time": "time", "state": "place", "action": "plan"}
TRUTH = {"gold": 2.0, "silver": 1.5, "bronze": 1.0}
PLACES = list(TRUTH)


def game() -> mfg.MeanFieldGame:
    """Return the game; hunters start spread over the places."""
    straight = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)

    def transition(occupancy, time):
        far = (occupancy**2).sum() - 2 * occupancy.diagonal()[:, None, None] + 1
        return straight if time == 0 else (straight + far) / (1 + 3 * far)

    return mfg.MeanFieldGame(
        states={"place": PLACES},
        actions=PLACES,
        horizon=6,
        transition=transition,
        initial=np.full(3, 1 / 3),
        joint=True,
    )


def reward(x):
    """Return what digging yields, by how many dig at the same place."""
    value, digs = 0.0, 0.0
    for name in PLACES:
        worth = pyro.sample(name, dist.Normal(0.0, 5.0))
        here = (x.place == name) * (x.action == name)
        value, digs = value + worth * here, digs + here
    spread = (x.occupancy**2).sum((1, 2), keepdim=True)
    far = spread - 2 * (x.occupancy * digs).sum(2, keepdim=True) + 1
    return value * (1 - far / 2) * (x.time > 0)


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
