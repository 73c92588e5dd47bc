"""Investing in quality: what is a better product worth where the others improve theirs?

A firm keeps its product as it is or invests, after which its quality rises at random. Where the
crowd is good already, an investment reaches less far:

    r = -crowd mean(mu_t) + worth s / 10 - invest 1{invest}
    keep: the quality stays
    invest: the next quality is uniform on s .. 9 while mean(mu_t) < 4, else on its lower half

The term `crowd` depends on the crowd and the time alone, so it changes no choice: no panel says
anything about it.

Source: Weintraub, Benkard and Van Roy (2010), "Computational methods for oblivious equilibrium",
Operations Research; the finite form of Subramanian and Mahajan (2019), "Reinforcement learning in
stationary mean-field games", AAMAS.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg

COLUMNS = {"agent": "firm", "time": "time", "state": "quality", "action": "action"}
TRUTH = {"worth": 0.3, "crowd": 0.2, "invest": 0.2}
UNIDENTIFIED = ("crowd",)
LEVELS = 10


def rise(shares) -> np.ndarray:
    """Return the table (S, A, S) where `shares(n)` spreads an investment over n levels."""
    table = np.zeros((LEVELS, 2, LEVELS))
    for level in range(LEVELS):
        table[level, 0, level] = 1.0
        table[level, 1, level:] = shares(LEVELS - level)
    return table


def lower_half(size: int) -> np.ndarray:
    """Return the uniform distribution on the lower half of `size` levels, an odd middle shared."""
    return np.clip(size - 2 * np.arange(size), 0, 2) / size


def game(*, changed: bool = False, horizon: int = 30) -> mfg.MeanFieldGame:
    """Return the game; under changed dynamics the crowd is good from a mean of 5."""
    threshold = 5.0 if changed else 4.0
    far, near = (torch.tensor(rise(k)) for k in (lambda n: np.full(n, 1 / n), lower_half))
    levels = torch.arange(LEVELS, dtype=torch.float64)

    def transition(mean_field, time):
        return torch.where((mean_field * levels).sum() < threshold, far, near)

    return mfg.MeanFieldGame(
        states={"quality": range(LEVELS)},
        actions=["keep", "invest"],
        horizon=horizon,
        transition=transition,
        initial=np.full(LEVELS, 1 / LEVELS),
    )


def reward(x):
    """Return the worth of quality, less the crowd's quality and the cost of an investment."""
    worth = pyro.sample("worth", dist.Normal(0.0, 1.0))
    crowd = pyro.sample("crowd", dist.Normal(0.0, 1.0))
    invest = pyro.sample("invest", dist.HalfNormal(1.0))
    gain = worth * x.quality / 10 - crowd * x.expect("quality")
    return gain - invest * (x.action == "invest")


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
