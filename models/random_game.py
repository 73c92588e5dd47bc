"""A game without a story: are estimates right where neither rewards nor dynamics have structure?

Rewards and dynamics are drawn at random and are affine in the mean field, before the softmax that
makes probabilities of the latter:

    r = own worth(s, a) + crowd pull(s, a) sum_s' mu_t(s') taste(s')
    P(s' | s, a) = softmax over s' of ( B(s, a, s') + sum_s'' K(s, a, s', s'') mu_t(s'') )

`worth`, `pull`, `taste` and `B` are standard normal, the entries of `K` normal with the given
standard deviation `coupling`.

Source: the general linear environment of Guo, Hu, Santamaria, Tajrobehkar and Zhang (2023),
"MFGLib: a library for mean-field games", arXiv 2304.08630.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg

COLUMNS = {"agent": "agent", "time": "time", "state": "state", "action": "action"}
TRUTH = {"own": 1.0, "crowd": 1.0}


def game(
    *, n_states: int = 6, n_actions: int = 3, coupling: float = 1.0, seed: int = 1
) -> mfg.MeanFieldGame:
    """Return the game of a seed; the same seed gives the same game."""
    rng = np.random.default_rng(seed)
    shape = (n_states, n_actions)
    base = torch.tensor(rng.standard_normal((*shape, n_states)))
    turn = torch.tensor(coupling * rng.standard_normal((*shape, n_states, n_states)))

    def transition(mean_field, time):
        return torch.softmax(base + turn @ mean_field, dim=-1)

    return mfg.MeanFieldGame(
        states=range(n_states),
        actions=range(n_actions),
        horizon=10,
        transition=transition,
        initial=np.eye(n_states)[0],
        features={
            "worth": (("state", "action"), rng.standard_normal(shape)),
            "pull": (("state", "action"), rng.standard_normal(shape)),
            "taste": ("state", rng.standard_normal(n_states)),
        },
    )


def reward(x):
    """Return the random worth of states and actions, alone and with the crowd's taste."""
    own = pyro.sample("own", dist.Normal(0.0, 2.0))
    crowd = pyro.sample("crowd", dist.Normal(0.0, 2.0))
    return own * x.worth + crowd * x.pull * x.expect("taste")


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
