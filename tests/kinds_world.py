"""The reference world of unseen kinds: menu costs of .4 (60 %) and 2.0 (40 %), one crowd."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg

S, A, T = 4, 3, 12
STEPS = np.zeros((S, A, S))
for s in range(S):
    for a, step in enumerate((-1, 0, 1)):
        STEPS[s, a, min(max(s + step, 0), S - 1)] += 0.8
        STEPS[s, a, s] += 0.2
GAME = mfg.MeanFieldGame(
    states={"price": range(S)}, actions=["down", "none", "up"], horizon=T, transition=STEPS,
    initial=np.ones(S) / S,
)  # fmt: skip
TRUTH = {"margin": 0.3, "crowding": 2.0, "share": [0.6, 0.4], "menu": [0.4, 2.0]}


def program(n_kinds):
    """Return the program of so many kinds, who differ in what a move costs."""

    def firm(x):
        margin = pyro.sample("margin", dist.Normal(0.0, 1.0))
        crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
        if n_kinds == 1:
            cost = pyro.sample("menu", dist.HalfNormal(2.0))
        else:
            share = pyro.sample("share", dist.Dirichlet(torch.ones(n_kinds)))
            menu = pyro.sample("menu", dist.HalfNormal(2.0).expand([n_kinds]).to_event(1))
            with x.agents:
                kind = pyro.sample("kind", dist.Categorical(share))
            cost = menu[kind]
        return margin * x.price - crowding * x.density - cost * (x.action != "none")

    return firm


@functools.cache
def world():
    """Return the game in which kinds are types, and its equilibrium."""
    game, reward = mfg.kinds.as_types(GAME, program(2), TRUTH)
    return game, mfg.solve_equilibrium(game, reward, throw=True).value


POOLED = world()[1].mean_field.reshape(T, 2, S).sum(1)


def panel(seed, n=1000, share=None):
    """Return firms of both kinds, in other shares if asked for, as nobody sees their kinds."""
    game, played = world()
    if share is not None:
        game = game.replace(initial=np.outer(share, np.ones(S) / S).ravel())
    drawn = mfg.simulate(game, played.policy, played.mean_field, n_agents=n, random_seed=seed)
    return drawn.drop_type("kind")


def model_of(n_kinds, of_panel):
    """Return the model of a panel along the flow of the world."""
    return mfg.TrajectoryModel(GAME, program(n_kinds), of_panel, mean_field=POOLED)
