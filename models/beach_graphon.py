"""A beach shared with those whom one knows: how much does the company of acquaintances cost?

Bathers walk on a ring of ten places with a bar at one of them. They have positions on [0, 1], and
mind the company of those whom they know, weighed by the graphon `(1 - a)^2 (x y)^-a` of a sparse
network, a = 1/2: bathers near 0 know very many, those near 1 few.

    r = -distance |s - bar| / 5 - effort 1{not stay} / 5 - crowding int W(x, y) mu_t(y, s) dy

The wind moves a towel by one more place with probability 0.1, half of it to each side.

Source: Fabian, Cui and Koeppl (2022), "Learning sparse graphon mean field games", arXiv 2209.03880,
problem Beach.
"""

import numpy as np
import pyro
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "bather", "time": "time", "types": ["position"], "state": "place",
           "action": "walk"}  # fmt: skip
TRUTH = {"distance": 1.0, "effort": 1.0, "crowding": 3.0}
PLACES, BAR, WIND = 10, 5, 0.1
STEPS = {"left": -1, "stay": 0, "right": 1}


def game(*, positions: int = 10, temperature: float = 1.0, horizon: int = 50) -> mfg.MeanFieldGame:
    """Return the game; all places are as full at the start."""
    network = mfg.networks.graphon("power_law", a=0.5, positions=positions)
    transition = np.zeros((PLACES, 3, PLACES))
    for place in range(PLACES):
        for walk, step in enumerate(STEPS.values()):
            for gust, chance in ((-1, WIND / 2), (0, 1 - WIND), (1, WIND / 2)):
                transition[place, walk, (place + step + gust) % PLACES] += chance
    return mfg.MeanFieldGame(
        types={"position": network.labels},
        states={"place": range(PLACES)},
        actions=list(STEPS),
        horizon=horizon,
        transition=transition,
        initial=np.full(positions * PLACES, 1 / (positions * PLACES)),
        meets=network,
        temperature=temperature,
    )


def reward(x):
    """Return the cost of the way to the bar, of walking and of known company."""
    distance = pyro.sample("distance", dist.HalfNormal(2.0))
    effort = pyro.sample("effort", dist.HalfNormal(2.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 5.0))
    walking = distance * (x.place - BAR).abs() + effort * (x.action != "stay")
    return -walking / 5 - crowding * x.density


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
