"""Leaving a building: how much hurry, and how much room on the stairs?

People on several floors want to be on the ground floor. Each upper floor has one staircase down, in
opposite corners on odd and even floors, so that a floor has to be crossed. Room is liked:

    r = haste 1{ground floor} - crowding log mu_t(s) - effort 1{not stay}

The logarithm is of `mu_t(s) + 0.001`. A step into a wall, or down where there are no stairs, leaves
a person in place.

Source: Perolat, Perrin, Elie, Lauriere, Piliouras, Geist, Tuyls and Pietquin (2021), "Scaling up
mean field games with online mirror descent", arXiv 2103.00623, section 5.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.sparse
import torch

import mfgppl as mfg

STATE = ["floor", "row", "column"]
COLUMNS = {"agent": "person", "time": "time", "state": STATE, "action": "move"}
TRUTH = {"haste": 3.0, "crowding": 1.0, "effort": 0.2}
FLOORS, SIDE = 3, 6
LEAST = 1e-3  # keeps the logarithm finite in an empty cell
STEPS = {"north": (-1, 0), "south": (1, 0), "west": (0, -1), "east": (0, 1)}
ACTIONS = ["stay", *STEPS, "downstairs", "upstairs"]


def reached(floor: int, row: int, column: int, move: str) -> tuple[int, int, int]:
    """Return where a move leads."""
    stairs = [(f % 2) * (SIDE - 1) for f in range(FLOORS + 1)]  # down from floor f, row and column
    if move == "downstairs" and floor > 0 and row == column == stairs[floor]:
        return floor - 1, row, column
    if move == "upstairs" and floor < FLOORS - 1 and row == column == stairs[floor + 1]:
        return floor + 1, row, column
    row, column = np.add((row, column), STEPS.get(move, (0, 0))).clip(0, SIDE - 1)
    return floor, int(row), int(column)


def game() -> mfg.MeanFieldGame:
    """Return the game; people start spread over the floors above the ground floor."""
    shape = (FLOORS, SIDE, SIDE)
    ends = [reached(*cell, move) for cell in np.ndindex(shape) for move in ACTIONS]
    columns = np.ravel_multi_index(np.transpose(ends), shape)
    entries = (np.ones(len(ends)), (np.arange(len(ends)), columns))
    initial = np.repeat([0.0, 1.0, 1.0], SIDE**2)
    return mfg.MeanFieldGame(
        states={"floor": range(FLOORS), "row": range(SIDE), "column": range(SIDE)},
        actions=ACTIONS,
        horizon=30,
        transition=scipy.sparse.csr_array(entries, (len(ends), np.prod(shape))),
        initial=initial / initial.sum(),
    )


def reward(x):
    """Return the worth of the ground floor and of room, less the cost of a step."""
    haste = pyro.sample("haste", dist.Normal(0.0, 5.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
    effort = pyro.sample("effort", dist.Normal(0.0, 2.0))
    room = -crowding * torch.log(x.density + LEAST)
    return haste * (x.floor == 0) + room - effort * (x.action != "stay")


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
