"""Distancing in an epidemic: when is staying home worth its cost?

Each agent is susceptible or infected and goes out or keeps its distance. Going out, a susceptible
agent catches the infection with a probability proportional to the share of infected agents:

    r = -infection 1{infected} - distancing 1{distance}
    P(infected | susceptible, out) = 0.81 mu_t(infected),  P(susceptible | infected) = 0.3

Source: Cui and Koeppl (2021), "Approximately solving mean field games via entropy-regularized deep
reinforcement learning", AISTATS, problem SIS.
"""

import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg

COLUMNS = {"agent": "agent", "time": "time", "state": "health", "action": "action"}
TRUTH = {"infection": 1.0, "distancing": 0.5}


def game(
    *,
    changed: bool = False,
    infection_rate: float = 0.81,
    recovery: float = 0.3,
    horizon: int = 50,
) -> mfg.MeanFieldGame:
    """Return the game; under changed dynamics the rates are 0.64 and 0.2."""
    if changed:
        infection_rate, recovery = 0.64, 0.2

    def transition(mean_field, time):
        caught = infection_rate * mean_field[1]
        zero, one = torch.zeros_like(caught), torch.ones_like(caught)
        healed = recovery * one
        susceptible = torch.stack([torch.stack([one - caught, caught]), torch.stack([one, zero])])
        infected = torch.stack([healed, one - healed]).expand(2, 2)
        return torch.stack([susceptible, infected])

    return mfg.MeanFieldGame(
        states={"health": ["susceptible", "infected"]},
        actions=["out", "distance"],
        horizon=horizon,
        transition=transition,
        initial=[0.4, 0.6],
    )


def reward(x):
    """Return the cost of being infected and of keeping one's distance."""
    infection = pyro.sample("infection", dist.HalfNormal(2.0))
    distancing = pyro.sample("distancing", dist.HalfNormal(2.0))
    return -infection * (x.health == "infected") - distancing * (x.action == "distance")


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
