"""A towel on the beach: how near to the bar does one lie, and how far from the others?

The beach is a row of places with a bar at one of them. At each step a bather walks one place to
the left or the right, or stays, and half of the time the wind moves the towel by one more:

    r = -distance |s - bar| / n - effort 1{not stay} / n - crowding log mu_t(s)

The logarithm is of `mu_t(s) + 0.001`, so that an empty place is worth something finite.

Source: Perrin, Perolat, Lauriere, Geist, Elie and Pietquin (2020), "Fictitious play for mean field
games: continuous time analysis and applications", NeurIPS.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg

COLUMNS = {"agent": "bather", "time": "time", "state": "place", "action": "walk"}
TRUTH = {"distance": 5.0, "effort": 5.0, "crowding": 1.0}
PLACES, BAR, STILL = 12, 8, 0.5
LEAST = 1e-3  # keeps the logarithm finite at an empty place
STEPS = {"left": -1, "stay": 0, "right": 1}


def game() -> mfg.MeanFieldGame:
    """Return the game; walkers stop at the ends of the beach."""
    transition = np.zeros((PLACES, 3, PLACES))
    for place in range(PLACES):
        for walk, step in enumerate(STEPS.values()):
            for gust, chance in ((-1, (1 - STILL) / 2), (0, STILL), (1, (1 - STILL) / 2)):
                reached = min(max(place + step + gust, 0), PLACES - 1)
                transition[place, walk, reached] += chance
    return mfg.MeanFieldGame(
        states={"place": range(PLACES)},
        actions=list(STEPS),
        horizon=20,
        transition=transition,
        initial=np.full(PLACES, 1 / PLACES),
    )


def reward(x):
    """Return the cost of the way to the bar, of walking and of company."""
    distance = pyro.sample("distance", dist.HalfNormal(10.0))
    effort = pyro.sample("effort", dist.HalfNormal(10.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
    walking = distance * (x.place - BAR).abs() + effort * (x.action != "stay")
    return -walking / PLACES - crowding * torch.log(x.density + LEAST)


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
