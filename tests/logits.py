"""Panels of one state, whose fits are logits with a closed form."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist

import mfgppl as mfg

COUNTS = {"a": 45, "b": 90, "c": 65}


def panel_of(counts, times=2):
    """Return a game of one state and a panel in which so many agents always take an action."""
    actions = list(counts)
    game = mfg.MeanFieldGame(
        states=["only"], actions=actions, horizon=times,
        transition=np.ones((1, len(actions), 1)), initial=[1.0],
    )  # fmt: skip
    taken = np.repeat(actions, list(counts.values()))
    rows = [(k, t, "only", a) for k, a in enumerate(taken) for t in range(times)]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    return game, mfg.Trajectories.from_frame(frame, action_labels=actions)


def logit(counts, sizes, prior=None, times=2):
    """Return a model with a weight of each action but the last, on a feature of a size."""
    game, panel = panel_of(counts, times)
    actions = list(counts)

    def reward(x):
        total = 0.0
        for action, size in zip(actions, sizes, strict=False):
            law = dist.Normal(0.0, 1.0) if prior is None else prior(size)
            total = total + size * pyro.sample(action, law) * (x.action == action)
        return total

    return mfg.TrajectoryModel(game, reward, panel)


def log_odds(counts, times=2):
    """Return the estimates and standard errors of weights on features of size 1."""
    n = np.array(list(counts.values()), dtype=float)
    return np.log(n[:-1] / n[-1]), np.sqrt((1 / n[:-1] + 1 / n[-1]) / times)
