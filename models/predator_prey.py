"""Three species that chase each other in a ring: how strong are hunger and fear?

Each species hunts the next and flees the one before on a torus. The species is a type: it never
changes, all walk alike, and animals distinguish the species that they meet. With `m^k_t` the
distribution of species k over the cells of the torus:

    r = hunger m^(k+1)_t(cell) - fear m^(k-1)_t(cell) - crowding m^k_t(cell) - effort 1{not stay}

A step succeeds with probability 0.9.

Source: Perolat, Perrin, Elie, Lauriere, Piliouras, Geist, Tuyls and Pietquin (2021), "Scaling up
mean field games with online mirror descent", arXiv 2103.00623, section 5.4.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.sparse

import mfgppl as mfg

STATE = ["row", "column"]
COLUMNS = {
    "agent": "animal", "time": "time", "state": STATE, "action": "walk", "types": ["species"],
}  # fmt: skip
TRUTH = {"hunger": 3.0, "fear": 3.0, "crowding": 1.0, "effort": 0.3}
SPECIES, SIDE, HORIZON = ["lion", "dog", "hare"], 5, 15
STEPS = {"stay": (0, 0), "up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def game() -> mfg.MeanFieldGame:
    """Return the game; each species starts in a corner of its own, a third of all animals."""
    cells, n_actions = SIDE**2, len(STEPS)
    walk = scipy.sparse.lil_array((cells * n_actions, cells))
    for cell in range(cells):
        for k, step in enumerate(STEPS.values()):
            row, column = np.add(divmod(cell, SIDE), step) % SIDE
            walk[cell * n_actions + k, row * SIDE + column] += 0.9
            walk[cell * n_actions + k, cell] += 0.1
    initial = np.zeros((3, SIDE, SIDE))
    initial[0, 0, 0] = initial[1, 0, -2] = initial[2, -2, 0] = 1 / 3
    return mfg.MeanFieldGame(
        states={"row": range(SIDE), "column": range(SIDE)},
        actions=list(STEPS),
        types={"species": SPECIES},
        horizon=HORIZON,
        transition=walk,
        initial=initial.ravel(),
    )


def reward(x):
    """Return the worth of prey, less the cost of hunters, of one's own kind and of a step."""
    hunger = pyro.sample("hunger", dist.Normal(0.0, 5.0))
    fear = pyro.sample("fear", dist.Normal(0.0, 5.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 5.0))
    effort = pyro.sample("effort", dist.Normal(0.0, 2.0))
    met = [x.among(species=kind).density for kind in SPECIES]
    company = 0.0
    for k, kind in enumerate(SPECIES):
        prey, hunters = met[(k + 1) % 3], met[k - 1]
        own = hunger * prey - fear * hunters - crowding * met[k]
        company = company + own * (x.species == kind)
    return company - effort * (x.action != "stay")


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
