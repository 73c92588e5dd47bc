# %% [markdown]
# # Do airlines answer the crowd, or the week?
#
# **Question.** In a week of storms or holidays everybody cuts, and adds again a week later. How
# much of the coupling in `capacity.py` is left once each week may have a cost of its own, and does
# the crowd of one's own airport say more than that of all?
#
# Run `python analyses/capacity_weeks.py` (a minute) or, for a small version,
# `python analyses/capacity_weeks.py --quick`.

# %%
"""Airline capacity: three airports, and weeks that all services share."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from output import fixed, run, write_table

import mfgppl as mfg
from mfgppl.models import capacity

TERM = "raise_x_D"  # the coupling
AIRPORTS = ("EWR", "JFK", "LGA")
CONTROLS = [(False, False), (True, False), (True, True)]  # weeks free, airports free
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "capacity"

# %% [markdown]
# ## Data
#
# The bundled panel, with the airport as a second coordinate of the state that never changes: three
# crowds in one game, each with a flow of its own. The dynamics are the pooled frequencies.


# %%
def three_crowds() -> tuple[mfg.MeanFieldGame, mfg.Trajectories]:
    """Return the game in which a service has its airport as a state that never changes."""
    frame = mfg.datasets.nyc_flights()
    columns = capacity.COLUMNS | {"state": ["airport", "capacity"]}
    panel = mfg.Trajectories.from_frame(frame, **columns, groups=["carrier"])
    one = capacity.game()
    pooled = one.transition.numpy().reshape(one.shape[1], one.shape[2], -1)
    moves = np.einsum("ab,sux->asubx", np.eye(len(AIRPORTS)), pooled)
    n = len(AIRPORTS) * one.n_states
    game = mfg.MeanFieldGame(
        states={"airport": AIRPORTS, "capacity": range(one.n_states)},
        actions=one.actions,
        horizon=panel.horizon,
        transition=moves.reshape(n, one.n_actions, n),
        initial=panel.initial_distribution(),
        features={"level": ("capacity", capacity.CENTRES / 0.1)},
        discount=one.discount,
    )
    return game, panel


# %% [markdown]
# ## Model
#
# With a cost of cutting and of adding of its own each week, `D_t` of all services cannot be
# distinguished from the week; but that of one's own airport can, as the three airports differ.


# %%
def below(x: mfg.RewardInputs, whose: str) -> torch.Tensor:
    """Return the share well below normal of all services, or of those of one's own airport."""
    if whose == "all":
        return x.share(capacity=0) + x.share(capacity=1)
    return sum(
        (x.airport == a)
        * (x.share(airport=a, capacity=0) + x.share(airport=a, capacity=1))
        / x.share(airport=a)
        for a in AIRPORTS
    )


def by_airport(whose: str, *, weeks: bool, airports: bool) -> Any:
    """Return a reward of three crowds, with free costs of moving by week or by airport."""

    def reward(x: mfg.RewardInputs) -> torch.Tensor:
        wide, total = dist.Normal(0.0, 10.0), torch.zeros(())
        for name in ("cut", "raise"):
            cost = pyro.sample(name, wide.expand([x.shape[0]]).to_event(1) if weeks else wide)
            moved = capacity.FEATURES[name](x)
            total = total + (cost[:, None, None] if weeks else cost) * moved
            for a in AIRPORTS[1:] if airports else ():
                total = total + pyro.sample(f"{name}_{a}", wide) * moved * (x.airport == a)
        for name in ("level", "level2", "regular"):
            total = total + pyro.sample(name, wide) * capacity.FEATURES[name](x)
        if whose != "nobody":
            answer = (x.action == "add") * (below(x, whose) - capacity.USUAL)
            total = total + pyro.sample(TERM, wide) * answer
        return total

    return reward


# %% [markdown]
# ## Inference and checks
#
# The same coupling under ever freer controls. Failure: the weight collapses or changes its sign
# once weeks are free; a weight of the crowd of all once it cannot be distinguished from the week.


# %%
def fit(model: mfg.TrajectoryModel) -> mfg.results.PointEstimate:
    """Return the maximum likelihood estimate."""
    return mfg.mle(model, svi_steps=0, progressbar=False)


def controls(freed: list[tuple[bool, bool]]) -> pd.DataFrame:
    """Return the coupling under ever freer controls, for the crowd of all and of one's airport."""
    game, panel = three_crowds()
    rows = []
    for weeks, airports in freed:
        free = {"weeks": weeks, "airports": airports}
        null = fit(mfg.TrajectoryModel(game, by_airport("nobody", **free), panel)).llf
        for whose in ("all", "own airport"):
            model = mfg.TrajectoryModel(game, by_airport(whose, **free), panel)
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", mfg.exceptions.IdentificationWarning
                )  # no standard error then
                point = fit(model)
            error = point.standard_errors("cluster", groups="carrier")[TERM]
            row = {k: "free" if v else "alike" for k, v in free.items()} | {"crowd": whose}
            row |= {TERM: point.params[TERM] if np.isfinite(error) else np.nan}
            row |= {"s.e. by carrier": error, "log likelihood": point.llf}
            rows.append(row | {"ratio": 2 * (point.llf - null)})
    return pd.DataFrame(rows)


# %% [markdown]
# ## Answer
#
# The table in `--out`; it is read in `docs/capacity.md`.


# %%
def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the analysis and write its table."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write_table(controls(CONTROLS[:1] if quick else CONTROLS), out, "controls", fixed(2))


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="without free weeks")
