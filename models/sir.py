"""Vaccination in an epidemic that passes: who takes the needle, and when?

Each agent is susceptible, infected or recovered, and a recovered one stays so. A susceptible agent
goes out, keeps its distance, or is vaccinated and so counts as recovered from the next step on:

    r = -infection 1{infected} - distancing 1{distance} - needle 1{vaccinate}
    P(infected | susceptible, out) = 0.01 + 0.8 mu_t(infected),  P(recovered | infected) = 0.2

A hundredth comes from outside. Vaccination is open to the susceptible only.

Source: Laguzet and Turinici (2015), "Individual vaccination as Nash equilibrium in a SIR model
with application to the 2009-2010 influenza A (H1N1) epidemic in France", Bulletin of Mathematical
Biology.
"""

import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg

COLUMNS = {"agent": "agent", "time": "time", "state": "health", "action": "action"}
TRUTH = {"infection": 1.0, "distancing": 0.5, "needle": 3.0}
OUTSIDE, RATE, RECOVERY = 0.01, 0.8, 0.2


def game(*, vaccine: bool = True) -> mfg.MeanFieldGame:
    """Return the game; without a vaccine nobody may choose it."""

    def transition(mean_field, time):
        caught = OUTSIDE + RATE * mean_field[1]
        zero, one = torch.zeros_like(caught), torch.ones_like(caught)
        out = torch.stack([one - caught, caught, zero])
        distance, immune = torch.stack([one, zero, zero]), torch.stack([zero, zero, one])
        ill = torch.stack([zero, (1 - RECOVERY) * one, RECOVERY * one])
        susceptible = torch.stack([out, distance, immune])
        return torch.stack([susceptible, ill.expand(3, 3), immune.expand(3, 3)])

    return mfg.MeanFieldGame(
        states={"health": ["susceptible", "infected", "recovered"]},
        actions=["out", "distance", "vaccinate"],
        horizon=50,
        transition=transition,
        initial=[0.95, 0.05, 0.0],
        available=[[1, 1, vaccine], [1, 1, 0], [1, 1, 0]],
    )


def reward(x):
    """Return the cost of being infected, of keeping one's distance and of the vaccination."""
    infection = pyro.sample("infection", dist.HalfNormal(2.0))
    distancing = pyro.sample("distancing", dist.HalfNormal(2.0))
    needle = pyro.sample("needle", dist.HalfNormal(5.0))
    costs = distancing * (x.action == "distance") + needle * (x.action == "vaccinate")
    return -infection * (x.health == "infected") - costs


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
