"""Exploring four rooms: how much is an empty cell worth against the steps to it?

A crowd starts in a corner of a house of four rooms that are joined by four doors. Walls are no
states: a step into one leaves the walker where it is. Walkers like cells where few others are:

    r = -crowding log mu_t(s) - effort 1{not stay}

The logarithm is of `mu_t(s) + 0.001`. Without effort the crowd spreads as evenly as the house and
its own randomness let it.

Source: Geist, Perolat, Lauriere, Elie, Perrin, Bachem, Munos and Pietquin (2022), "Concave utility
reinforcement learning: the mean-field game viewpoint", AAMAS; the rooms are those of Sutton, Precup
and Singh (1999), "Between MDPs and semi-MDPs", Artificial Intelligence.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.sparse
import torch

import mfgppl as mfg

COLUMNS = {"agent": "walker", "time": "time", "state": "cell", "action": "walk"}
TRUTH = {"crowding": 1.0, "effort": 0.3}
LEAST = 1e-3  # keeps the logarithm finite in an empty cell
STEPS = {"stay": (0, 0), "up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
HOUSE = [
    ".....#.....",
    ".....#.....",
    "...........",
    ".....#.....",
    ".....#.....",
    "#.####.....",
    ".....###.##",
    ".....#.....",
    ".....#.....",
    "...........",
    ".....#.....",
]
CELLS = [(i, j) for i, line in enumerate(HOUSE) for j, c in enumerate(line) if c == "."]


def game() -> mfg.MeanFieldGame:
    """Return the game; a cell is labelled by its row and column, as in "2,5"."""
    place = {cell: k for k, cell in enumerate(CELLS)}
    reached = [
        place.get((row + up, column + across), place[row, column])
        for row, column in CELLS
        for up, across in STEPS.values()
    ]
    rows = np.arange(len(reached))
    shape = (len(reached), len(CELLS))
    return mfg.MeanFieldGame(
        states={"cell": [f"{row},{column}" for row, column in CELLS]},
        actions=list(STEPS),
        horizon=25,
        transition=scipy.sparse.csr_array((np.ones(len(reached)), (rows, reached)), shape),
        initial=np.eye(len(CELLS))[0],
    )


def reward(x):
    """Return the worth of an empty cell, less the cost of a step."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
    effort = pyro.sample("effort", dist.Normal(0.0, 2.0))
    return -crowding * torch.log(x.density + LEAST) - effort * (x.action != "stay")


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
