"""Price setting in a supermarket: do products follow the crowd's margins?

Each product stands at a margin relative to its own median and lowers, holds or raises its price
each month. Changing a price costs; being far from one's median costs; so may being far from where
the other products are. With the bins' centres in tenths, `l_s = c_s / 0.1`, and the crowd's mean
`m_t = sum_s mu_t(s) l_s`:

    r = cut 1{lower} + raise 1{raise} + level l_s + level2 l_s^2 + gap2 (l_s - m_t)^2

Data: Aguirregabiria (1999), "The dynamics of markups and inventories in retailing firms", Review of
Economic Studies 66(2), 275-308; discretised, bundled as `mfgppl.datasets.supermarket_pricing`.
"""

import numpy as np
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "product", "time": "month", "state": "margin", "action": "action"}
CENTRES = np.array([-0.124, -0.057, -0.026, 0.0, 0.026, 0.078])  # of the six margin bins
TRUTH = None  # a real panel

FEATURES = {
    "cut": lambda x: x.action == "lower",
    "raise": lambda x: x.action == "raise",
    "level": lambda x: x.level,
    "level2": lambda x: x.level**2,
    "gap2": lambda x: (x.level - x.expect("level")) ** 2,
    "crowd": lambda x: x.density,
}
REWARDS = {
    "base": ["cut", "raise", "level", "level2"],
    "market": ["cut", "raise", "level", "gap2"],
    "both": ["cut", "raise", "level", "level2", "gap2"],
    "herd": ["cut", "raise", "level", "level2", "crowd"],
}


def panel() -> mfg.Trajectories:
    """Return the bundled panel."""
    return mfg.Trajectories.from_frame(mfg.datasets.supermarket_pricing(), **COLUMNS)


def game(observed: mfg.Trajectories | None = None) -> mfg.MeanFieldGame:
    """Return the game with the panel's pooled transition frequencies."""
    observed = panel() if observed is None else observed
    return mfg.MeanFieldGame(
        states={"margin": range(6)},
        actions=["lower", "hold", "raise"],
        horizon=observed.horizon,
        transition=observed.estimate_transition(),
        initial=observed.initial_distribution(),
        features={"level": ("margin", CENTRES / 0.1)},
    )


def reward_named(name: str):
    """Return one of the four rewards by name, with wide priors."""
    return mfg.linear_reward({k: FEATURES[k] for k in REWARDS[name]}, dist.Normal(0.0, 10.0))


reward = reward_named("both")


def model(
    observed: mfg.Trajectories | None = None, *, name: str = "both", likelihood: str = "causal"
) -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    observed = panel() if observed is None else observed
    return mfg.TrajectoryModel(game(observed), reward_named(name), observed, likelihood=likelihood)
