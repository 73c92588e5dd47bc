"""A simulated pricing market with a known reward: do firms avoid crowded prices?

A firm stands at a price and a stock level and lowers, holds or raises its price each month. A price
change succeeds with probability 0.8; stock is likelier to run low at low prices:

    r = margin * price - crowding * mu_t(price, stock) - menu_cost 1{not hold}

The firms play the entropy-regularised equilibrium at the true parameters. Source: this package.
"""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "firm", "time": "month", "state": ["price", "stock"], "action": "move"}
TRUTH = {"margin": 0.3, "crowding": 2.0, "menu_cost": 0.8}
PRICES, STOCKS = [0, 1, 2, 3], ["low", "high"]
STEPS = {"lower": -1, "hold": 0, "raise": 1}
MONTHS = 24


def game() -> mfg.MeanFieldGame:
    """Return the game; a further feature is a price index of rivals from outside, by month."""
    transition = np.zeros((4, 2, 3, 4, 2))  # price, stock, move, next price, next stock
    for price in PRICES:
        for move, step in enumerate(STEPS.values()):
            for reached, chance in ((min(max(price + step, 0), 3), 0.8), (price, 0.2)):
                low = 0.7 - 0.15 * reached
                transition[price, :, move, reached] += chance * np.array([low, 1 - low])
    return mfg.MeanFieldGame(
        states={"price": PRICES, "stock": STOCKS},
        actions=list(STEPS),
        horizon=MONTHS,
        transition=transition.reshape(8, 3, 8),
        initial=np.full(8, 1 / 8),
        features={"rival_price": rival_price()},
    )


def rival_price() -> tuple[str, np.ndarray]:
    """Return the rivals' price index as a feature by its named axis."""
    return "time", np.linspace(1.0, 2.0, MONTHS)


def reward(x):
    """Return the value of a price, less the cost of company and of a change."""
    margin = pyro.sample("margin", dist.HalfNormal(1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    menu_cost = pyro.sample("menu_cost", dist.HalfNormal(1.0))
    return margin * x.price - crowding * x.density - menu_cost * (x.action != "hold")


def model(panel: mfg.Trajectories | mfg.CountedPanel) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)


def frame(n_firms: int = 1000, random_seed: int = 7) -> pd.DataFrame:
    """Return firms in the equilibrium at the true parameters, one row per firm and month."""
    world = mfg.solve_equilibrium(game(), reward, parameters=TRUTH, throw=True).value
    drawn = mfg.simulate(
        game(), world.policy, world.mean_field, n_agents=n_firms, random_seed=random_seed
    )
    return drawn.to_frame(agent="firm", time="month", action="move")
