"""Distancing on a graphon: whose neighbours are infected, and who keeps away?

Agents have positions on [0, 1]. A susceptible agent who goes out catches the infection from those
whom it meets, who are weighed by a graphon W:

    r = -infection 1{infected} - distancing 1{distance}
    P(infected | susceptible, out) = 0.8 int W(x, y) mu_t(y, infected) dy,
    P(susceptible | infected) = 0.2

Under uniform attachment, W = 1 - max(x, y), those near 0 meet many and those near 1 nobody. At the
temperature 0.101 of 100 positions, 0.1484 of the first, 0.1458 of the middle and 0.0043 of the last
are infected at time 25, of whose susceptible 0.3809, 0.1774 and 0.0074 keep their distance.

Source: Cui and Koeppl (2022), "Learning graphon mean field games and approximate Nash equilibria",
ICLR, problem SIS-Graphon.
"""

import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg

COLUMNS = {"agent": "agent", "time": "time", "types": ["position"], "state": "health",
           "action": "action"}  # fmt: skip
TRUTH = {"infection": 2.0, "distancing": 0.5}


def game(
    *,
    graphon: str = "uniform_attachment",
    positions: int = 20,
    temperature: float = 1.0,
    changed: bool = False,
    horizon: int = 50,
) -> mfg.MeanFieldGame:
    """Return the game; under changed dynamics the rates are 0.64 and 0.15."""
    network = mfg.networks.graphon(graphon, positions=positions)
    caught_rate, healed_rate = (0.64, 0.15) if changed else (0.8, 0.2)

    def transition(met, time):
        caught = caught_rate * met[1]
        zero, one = torch.zeros_like(caught), torch.ones_like(caught)
        healed = healed_rate * one
        susceptible = torch.stack([torch.stack([one - caught, caught]), torch.stack([one, zero])])
        infected = torch.stack([healed, one - healed]).expand(2, 2)
        return torch.stack([susceptible, infected])

    return mfg.MeanFieldGame(
        types={"position": network.labels},
        states={"health": ["susceptible", "infected"]},
        actions=["out", "distance"],
        horizon=horizon,
        transition=transition,
        initial=[0.5 / positions] * (2 * positions),
        meets=network,
        temperature=temperature,
    )


def reward(x):
    """Return the cost of being infected and of keeping one's distance."""
    infection = pyro.sample("infection", dist.HalfNormal(4.0))
    distancing = pyro.sample("distancing", dist.HalfNormal(2.0))
    return -infection * (x.health == "infected") - distancing * (x.action == "distance")


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
