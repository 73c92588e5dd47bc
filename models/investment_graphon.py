"""Investment beside competitors on a graphon: who pays for quality where others have it?

A firm at position x of [0, 1] has a quality of 0 to 9. Investing raises it by one with probability
(9 - quality) / 10. What quality is worth falls with that of the firms met, weighed by a graphon W:

    r = return quality / (1 + int W(x, y) E[quality of y] dy) - cost 1{invest}

With the return 0.3, the cost 2 and 101 positions that include both ends, mean qualities at the end
of the Nash equilibrium at x = 0, 1/2 and 1 are 4.1499, 4.9760 and 7.4407 under uniform attachment.

Source: Cui and Koeppl (2022), "Learning graphon mean field games and approximate Nash equilibria",
ICLR, problem Investment-Graphon.
"""

import numpy as np
import pyro
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "firm", "time": "time", "types": ["position"], "state": "quality",
           "action": "action"}  # fmt: skip
TRUTH = {"worth": 0.3, "cost": 2.0}
LEVELS = 10


def game(
    *,
    graphon: str = "uniform_attachment",
    positions: int = 10,
    temperature: float = 1.0,
    horizon: int = 50,
) -> mfg.MeanFieldGame:
    """Return the game; all firms begin with quality 0."""
    network = mfg.networks.graphon(graphon, positions=positions)
    initial = np.zeros((positions, LEVELS))
    initial[:, 0] = 1 / positions
    return mfg.MeanFieldGame(
        types={"position": network.labels},
        states={"quality": range(LEVELS)},
        actions=["keep", "invest"],
        horizon=horizon,
        transition=dynamics(),
        initial=initial.ravel(),
        meets=network,
        temperature=temperature,
    )


def dynamics() -> np.ndarray:
    """Return the probabilities of the next quality, shape (10, 2, 10)."""
    table = np.zeros((LEVELS, 2, LEVELS))
    for quality in range(LEVELS):
        raised = (LEVELS - 1 - quality) / LEVELS
        table[quality, 0, quality] = 1.0
        table[quality, 1, quality] = 1 - raised
        table[quality, 1, min(quality + 1, LEVELS - 1)] += raised
    return table


def reward(x):
    """Return what quality is worth beside that of others, less the cost of investing."""
    worth = pyro.sample("worth", dist.HalfNormal(1.0))
    cost = pyro.sample("cost", dist.HalfNormal(4.0))
    return worth * x.quality / (1 + x.expect("quality")) - cost * (x.action == "invest")


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
