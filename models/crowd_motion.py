"""A crowd in a square that follows an attraction: how strong is it against the crush?

People walk on a grid towards a point of interest that moves on every four steps, and avoid each
other. Half of the time a walker is pushed to a neighbouring cell besides:

    r = -distance |s - point_t| / (rows + columns) - effort 1{not stay} - crowding log mu_t(s)

where |.| counts steps along rows and columns and the logarithm is of `mu_t(s) + 0.001`.

Source: Perolat, Perrin, Elie, Lauriere, Piliouras, Geist, Tuyls and Pietquin (2021), "Scaling up
mean field games with online mirror descent", arXiv 2103.00623.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.sparse
import torch

import mfgppl as mfg

COLUMNS = {"agent": "walker", "time": "time", "state": ["row", "column"], "action": "walk"}
TRUTH = {"distance": 10.0, "effort": 0.5, "crowding": 1.0}
SIDE, HORIZON, STILL = 10, 20, 0.5
LEAST = 1e-3  # keeps the logarithm finite in an empty cell
STEPS = {"stay": (0, 0), "up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
POINTS = [(2, 2), (2, 7), (5, 7), (7, 7), (7, 2)]  # of interest, four steps each


def game() -> mfg.MeanFieldGame:
    """Return the game; walkers stop at the walls."""
    cells, n_actions = SIDE**2, len(STEPS)
    transition = scipy.sparse.lil_array((cells * n_actions, cells))
    for cell in range(cells):
        for walk, step in enumerate(STEPS.values()):
            for push in STEPS.values():
                place = np.add(np.add(divmod(cell, SIDE), step), push).clip(0, SIDE - 1)
                chance = STILL if push == (0, 0) else (1 - STILL) / 4
                transition[cell * n_actions + walk, place[0] * SIDE + place[1]] += chance
    return mfg.MeanFieldGame(
        states={"row": range(SIDE), "column": range(SIDE)},
        actions=list(STEPS),
        horizon=HORIZON,
        transition=transition,
        initial=np.full(cells, 1 / cells),
        features={"way": (("time", "row", "column"), way())},
    )


def way() -> np.ndarray:
    """Return the number of steps from each cell to the point of interest, by time."""
    point = np.repeat(POINTS, HORIZON // len(POINTS), axis=0)
    apart = np.abs(np.arange(SIDE) - point[:, :, None])  # time, axis, place
    return apart[:, 0, :, None] + apart[:, 1, None, :]


def reward(x):
    """Return the cost of the way to the point of interest, of walking and of company."""
    distance = pyro.sample("distance", dist.HalfNormal(20.0))
    effort = pyro.sample("effort", dist.Normal(0.0, 2.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
    company = crowding * torch.log(x.density + LEAST)
    return -distance * x.way / (2 * SIDE) - effort * (x.action != "stay") - company


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
