"""Two standards of which the more common is the better: which one does the crowd settle on?

Each agent uses one of two standards and may change it at a cost. A standard is worth more the more
others use it, so the crowd's own expectation decides: although four in five start with the first
standard, there is an equilibrium in which nearly all come to the second. Where a solver starts
decides what it finds:

    r = company mu_t(s) - effort 1{change}
    a change succeeds with probability 0.5

Given the flow that was played, both parameters are identified, whichever equilibrium it is.

Source: Katz and Shapiro (1985), "Network externalities, competition, and compatibility", American
Economic Review; as a mean field game Gueant, Lasry and Lions (2011), "Mean field games and
applications", Paris-Princeton Lectures on Mathematical Finance.
"""

import pyro
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "agent", "time": "time", "state": "standard", "action": "action"}
TRUTH = {"company": 2.0, "effort": 1.0}


def game() -> mfg.MeanFieldGame:
    """Return the game; four in five start with the first standard."""
    keep, change = [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]
    return mfg.MeanFieldGame(
        states={"standard": ["first", "second"]},
        actions=["keep", "change"],
        horizon=20,
        transition=[[keep[s], change[s]] for s in range(2)],
        initial=[0.8, 0.2],
    )


def reward(x):
    """Return the worth of company, less the cost of a change."""
    company = pyro.sample("company", dist.Normal(0.0, 3.0))
    effort = pyro.sample("effort", dist.Normal(0.0, 2.0))
    return company * x.density - effort * (x.action == "change")


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
