"""Machines for ever: when is a machine repaired in a world that no longer changes?

The malware game without a horizon: the crowd has settled, the mean field `mu` is one distribution
that reproduces itself, and the future counts by its discount:

    r = -infection (0.2 + mean(mu) / 10) s / 10 - repair 1{repair},  discount 0.9
    nothing: the next level is uniform on s .. 9;  repair: the next level is 0

The settled crowd is one number, so what infection costs by itself and with the crowd's are one
number too: the base of 0.2 is given, and `infection` scales both.

Source: Subramanian and Mahajan (2019), "Reinforcement learning in stationary mean-field games",
AAMAS, after Huang and Ma (2017), "Mean field stochastic games with binary actions".
"""

import numpy as np
import pyro
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "agent", "time": "time", "state": "level", "action": "action"}
TRUTH = {"infection": 1.0, "repair": 0.5}
LEVELS = 10


def game(*, discount: float = 0.9) -> mfg.MeanFieldGame:
    """Return the game, which has no horizon."""
    transition = np.zeros((LEVELS, 2, LEVELS))
    for level in range(LEVELS):
        transition[level, 0, level:] = 1 / (LEVELS - level)
        transition[level, 1, 0] = 1.0
    return mfg.MeanFieldGame(
        states={"level": range(LEVELS)},
        actions=["nothing", "repair"],
        horizon=None,
        transition=transition,
        initial=np.full(LEVELS, 1 / LEVELS),
        discount=discount,
    )


def reward(x):
    """Return the cost of infection, which grows with the crowd's, and of repair."""
    infection = pyro.sample("infection", dist.HalfNormal(3.0))
    repair = pyro.sample("repair", dist.HalfNormal(1.0))
    harm = (0.2 + x.expect("level") / 10) * x.level / 10
    return -infection * harm - repair * (x.action == "repair")


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
