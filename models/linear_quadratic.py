"""Keeping up with the average: how is a push weighed against being off the crowd's mean?

An agent's position drifts towards the crowd's mean `m_t` and moves by its push `a` and by noise;
between two grid points the mass is shared by distance, so the dynamics are continuous in `m_t`:

    x = s + drift (m_t - s) + a + noise,  drift = 0.2
    r = -effort a^2 / 2 + lean a (m_t - s) - gap (m_t - s)^2 / 2   before the last step
    r = -last (m_T - s)^2 / 2                                      at the last step

Source: Carmona, Fouque and Sun (2015), "Mean field games and systemic risk", Communications in
Mathematical Sciences; the finite form after Perrin et al. (2020), "Fictitious play for mean field
games: continuous time analysis and applications", NeurIPS.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import mfgppl as mfg

COLUMNS = {"agent": "agent", "time": "time", "state": "position", "action": "push"}
TRUTH = {"effort": 1.0, "lean": 0.1, "gap": 0.5, "last": 1.0}
POSITIONS, PUSHES, HORIZON = range(-5, 6), range(-2, 3), 10
DRIFT, NOISE = 0.2, {-1.0: 0.25, 0.0: 0.5, 1.0: 0.25}


def game() -> mfg.MeanFieldGame:
    """Return the game; a third starts on the left, the rest on the right."""
    grid = torch.tensor([float(s) for s in POSITIONS], dtype=torch.float64)
    push = torch.tensor([float(a) for a in PUSHES], dtype=torch.float64)

    def transition(mean_field, time):
        aim = grid + DRIFT * ((mean_field * grid).sum() - grid)
        aim = aim[:, None, None] + push[:, None]
        near = [
            chance * torch.relu(1 - (grid - (aim + noise).clamp(grid[0], grid[-1])).abs())
            for noise, chance in NOISE.items()
        ]
        return sum(near)

    initial = np.zeros(len(POSITIONS))
    initial[[1, 8]] = [1 / 3, 2 / 3]
    return mfg.MeanFieldGame(
        states={"position": POSITIONS},
        actions=PUSHES,
        horizon=HORIZON,
        transition=transition,
        initial=initial,
    )


def reward(x):
    """Return the cost of a push and of the gap to the mean."""
    effort = pyro.sample("effort", dist.Normal(0.0, 2.0))
    lean = pyro.sample("lean", dist.Normal(0.0, 2.0))
    gap = pyro.sample("gap", dist.Normal(0.0, 2.0))
    last = pyro.sample("last", dist.Normal(0.0, 2.0))
    off = x.expect("position") - x.position
    running = -effort * x.action**2 / 2 + lean * x.action * off - gap * off**2 / 2
    return torch.where(x.time < HORIZON - 1, running, -last * off**2 / 2)


def model(panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    return mfg.TrajectoryModel(game(), reward, panel)
