"""Airline capacity: do services answer how many others fly below normal?

Each service (a carrier's flights from one airport to one destination) stands at a level of weekly
flights against its own median, and cuts, keeps or adds flights each week. Changing the schedule
costs, being far from normal may cost, and the regular schedule may be worth something. Adding may
be worth more or less while many fly well below normal. With the bins' centres in tenths of log
flights, `l_s = c_s / 0.1`, and the share of services well below normal, `D_t = mu_t(0) + mu_t(1)`:

    r = cut 1{cut} + raise 1{add} + level l_s + level2 l_s^2 + regular 1{s = 3}
        + raise_x_D 1{add} (D_t - 0.183)

The constant is the mean of `D_t` over the 51 weeks, so that `raise` is the worth of adding in a
usual week.

Data: US Bureau of Transportation Statistics, on-time performance records of 2013, New York's three
airports; aggregated to weeks and discretised, bundled as `mfgppl.datasets.nyc_flights`.
"""

import numpy as np
import pyro.distributions as dist

import mfgppl as mfg

COLUMNS = {"agent": "service", "time": "week", "state": "capacity", "action": "action"}
GROUPS = ["carrier", "airport", "dest"]
CENTRES = np.array([-0.69, -0.15, -0.05, 0.0, 0.05, 0.35])  # of the six bins of log flights
USUAL = 0.183  # mean over the weeks of the share well below normal
TRUTH = None  # a real panel


def below(x: mfg.RewardInputs):
    """Return the share of services well below normal, D_t."""
    return x.share(capacity=0) + x.share(capacity=1)


FEATURES = {
    "cut": lambda x: x.action == "cut",
    "raise": lambda x: x.action == "add",
    "level": lambda x: x.level,
    "level2": lambda x: x.level**2,
    "regular": lambda x: x.capacity == 3,
    "raise_x_D": lambda x: (x.action == "add") * (below(x) - USUAL),
}
REWARDS = {"base": list(FEATURES)[:-1], "crowd": list(FEATURES)}


def panel() -> mfg.Trajectories:
    """Return the bundled panel, with its groups."""
    return mfg.Trajectories.from_frame(mfg.datasets.nyc_flights(), **COLUMNS, groups=GROUPS)


def game(observed: mfg.Trajectories | None = None, *, discount: float = 0.9) -> mfg.MeanFieldGame:
    """Return the game with the panel's pooled transition frequencies."""
    observed = panel() if observed is None else observed
    return mfg.MeanFieldGame(
        states={"capacity": range(6)},
        actions=["cut", "keep", "add"],
        horizon=observed.horizon,
        transition=observed.estimate_transition(),
        initial=observed.initial_distribution(),
        features={"level": ("capacity", CENTRES / 0.1)},
        discount=discount,
    )


def reward_named(name: str):
    """Return one of the two rewards by name, with wide priors."""
    return mfg.linear_reward({k: FEATURES[k] for k in REWARDS[name]}, dist.Normal(0.0, 10.0))


reward = reward_named("crowd")


def model(observed: mfg.Trajectories | None = None, *, name: str = "crowd") -> mfg.TrajectoryModel:
    """Return the trajectory model of a panel."""
    observed = panel() if observed is None else observed
    return mfg.TrajectoryModel(game(observed), reward_named(name), observed)
