"""Producers of one good: what does production cost where supply makes the price?

A firm holds an inventory of raw material. Each period it produces `q` and orders `h`; what the
inventory lacks is bought in a rush. The price falls with what the crowd produces, so the mean field
is the joint distribution of states and actions, `L_t(s, a)`:

    p_t = demand / (1 + sum L_t(s, a) q(a))
    r = (p_t - unit) q - convex q^2 - material h - (material + rush) max(q - s, 0) - storage s
    s' = min(s - min(q, s) + h, 3)

Source: Guo, Hu, Xu and Zhang (2023), "A general framework for learning mean-field games",
Mathematics of Operations Research, equilibrium price problem.
"""

import itertools

import numpy as np
import pyro
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "firm", "time": "period", "state": "inventory", "action": "plan"}
TRUTH = {"unit": 1.0, "convex": 0.3, "material": 0.5, "rush": 0.5, "storage": 0.2}
LARGEST, HORIZON = 3, 10
PLANS = list(itertools.product(range(3), range(3)))  # what is produced, what is ordered


def game(*, demand: float = 4.0) -> mfg.MeanFieldGame:
    """Return the game; a plan is labelled as in "make 2, order 1"."""
    transition = np.zeros((LARGEST + 1, len(PLANS), LARGEST + 1))
    for stock in range(LARGEST + 1):
        for plan, (made, ordered) in enumerate(PLANS):
            transition[stock, plan, min(stock - min(made, stock) + ordered, LARGEST)] = 1.0
    made, ordered = np.transpose(PLANS)
    return mfg.MeanFieldGame(
        states={"inventory": range(LARGEST + 1)},
        actions=[f"make {q}, order {h}" for q, h in PLANS],
        horizon=HORIZON,
        transition=transition,
        initial=np.full(LARGEST + 1, 1 / (LARGEST + 1)),
        features={
            "made": ("action", made),
            "ordered": ("action", ordered),
            "demand": ("time", np.full(HORIZON, demand)),
        },
        joint=True,
    )


def reward(x):
    """Return the profit: sales at the crowd's price, less the costs of a plan."""
    unit = pyro.sample("unit", dist.Normal(0.0, 2.0))
    convex = pyro.sample("convex", dist.Normal(0.0, 2.0))
    material = pyro.sample("material", dist.Normal(0.0, 2.0))
    rush = pyro.sample("rush", dist.Normal(0.0, 2.0))
    storage = pyro.sample("storage", dist.Normal(0.0, 2.0))
    supply = (x.occupancy * x.made).sum((1, 2), keepdim=True)
    price = x.demand / (1 + supply)
    lacking = (x.made - x.inventory).clamp_min(0.0)
    sales = (price - unit) * x.made - convex * x.made**2
    return sales - material * x.ordered - (material + rush) * lacking - storage * x.inventory


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
