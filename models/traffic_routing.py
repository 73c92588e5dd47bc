"""Cars in a network with a bridge: does a new road make everybody's journey worse?

Cars drive from home to work by the upper road, the lower road, or across the bridge that joins the
first half of the upper to the second half of the lower one. The narrow halves OA and BD are the
slower the fuller they are; the wide halves are long and take two steps:

    r = -length long(s) - congestion narrow(s) mu_t(s)
    upper: home, OA, AD, AD2, work   lower: home, OB, OB2, BD, work   bridge: home, OA, AB, BD, work

Two thirds of the cars leave at time 0 and the rest a step later. Every way takes as many steps, so
the two groups never meet. In the Nash equilibrium at the true parameters all cross the bridge: the
early pay 8 each, where they pay 7 without a bridge; the late pay 4 instead of 6. Groups of unequal
size are what identifies both parameters: with one group alone they lie on a ridge.

Source: Braess (1968), "Ueber ein Paradoxon aus der Verkehrsplanung", Unternehmensforschung; as a
mean field game Cabannes, Lauriere, Perolat, Marinier, Girgin, Perrin, Pietquin, Bayen, Goubault and
Elie (2022), "Solving N-player dynamic routing games with congestion: a mean-field approach",
AAMAS.
"""

import numpy as np
import pyro
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "car", "time": "time", "state": "road", "action": "turn"}
TRUTH = {"length": 2.5, "congestion": 6.0}
TURNS = {  # where the turns "upper" and "lower" lead
    "asleep": ("home", "home"),
    "home": ("OA", "OB"),
    "OA": ("AD", "AB"),
    "OB": ("OB2", "OB2"),
    "OB2": ("BD", "BD"),
    "AB": ("BD", "BD"),
    "AD": ("AD2", "AD2"),
    "AD2": ("work", "work"),
    "BD": ("work", "work"),
    "work": ("work", "work"),
}
FORKS, LONG, NARROW = ("home", "OA"), ("OB", "OB2", "AD", "AD2"), ("OA", "BD")


def game(*, bridge: bool = True) -> mfg.MeanFieldGame:
    """Return the game; without a bridge OA leads on to AD only."""
    roads = list(TURNS)
    transition = np.zeros((len(roads), 2, len(roads)))
    for road, ends in TURNS.items():
        for turn, end in enumerate(ends):
            transition[roads.index(road), turn, roads.index(end)] = 1.0
    initial = [{"home": 2 / 3, "asleep": 1 / 3}.get(road, 0.0) for road in roads]
    lower = [road in FORKS and (bridge or road == "home") for road in roads]
    return mfg.MeanFieldGame(
        states={"road": roads},
        actions=["upper", "lower"],
        horizon=6,
        transition=transition,
        initial=initial,
        available=[[1, open_] for open_ in lower],
    )


def reward(x):
    """Return the cost of length and of company on narrow roads."""
    length = pyro.sample("length", dist.Normal(0.0, 5.0))
    congestion = pyro.sample("congestion", dist.Normal(0.0, 5.0))
    return -length * x.road.isin(LONG) - congestion * x.road.isin(NARROW) * x.density


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
