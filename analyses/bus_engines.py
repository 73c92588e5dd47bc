# %% [markdown]
# # Bus engines whose brand nobody sees
#
# **Question.** Buses were on the road before anybody wrote down their miles, and of two brands
# that the table does not name. Are costs and shares recovered, does it matter whether shares
# depend on the first miles seen, and what goes wrong with one brand? The design is that of
# Arcidiacono and Miller (2011), *Conditional choice probability estimation of dynamic discrete
# choice models with unobserved heterogeneity*, Econometrica 79, section 7, with fewer routes.
#
# Run `python analyses/bus_engines.py` (an hour on one core), or, smaller, with `--quick`. It may be
# stopped at any time: what `panels.csv` holds is not fitted again.

# %%
"""Arcidiacono and Miller's bus engines: initial conditions where kinds are not seen."""

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from output import resumed, run, write_table

import mfgppl as mfg

SEED, PANELS, BUSES, PERIODS, UNSEEN = 20267, 12, 1000, 30, 10
DISCOUNT, COST, WORTH, SHARE = 0.9, 0.15, (2.0, 3.0), 0.4  # share of the first kind
STEP = 0.125
MILES = np.arange(0.0, 25.0 + STEP / 2, STEP)
ROUTES = tuple(float(r) for r in np.round(np.linspace(0.25, 1.25, 5), 2))
TRUTH = {
    "worth": SHARE * WORTH[0] + (1 - SHARE) * WORTH[1],  # of all together
    "worth[0]": WORTH[0], "worth[1]": WORTH[1], "cost": COST, "share": SHARE,
}  # fmt: skip
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "bus_engines"

# %% [markdown]
# ## Data: miles on a grid, routes that never change
#
# A kept engine gains miles by an exponential law whose rate is the route's, a new one from zero.
# Keeping pays `worth - 0.15 miles`, with 3 for one brand and 2 for the other; replacing pays 0.


# %%
def moves_on(route: float) -> np.ndarray:
    """Return the probability of the next miles, (S, A, S): what the grid's end cuts off stays."""
    upto = 1.0 - np.exp(-route * (MILES + STEP))
    gain = np.diff(upto, prepend=0.0)
    S = len(MILES)
    kept = np.stack([np.append(np.zeros(s), gain[: S - s]) for s in range(S)])
    kept[:, -1] += 1.0 - kept.sum(1)
    return np.stack([kept, np.broadcast_to(kept[0], kept.shape)], axis=1)


@functools.cache
def game() -> mfg.MeanFieldGame:
    """Return the bus company, without a horizon; each route is a type."""
    new = np.eye(len(MILES))[0] / len(ROUTES)
    return mfg.MeanFieldGame(
        states={"miles": MILES.tolist()}, actions=["keep", "replace"], horizon=None,
        transition={route: moves_on(route) for route in ROUTES}, discount=DISCOUNT,
        initial=np.tile(new, len(ROUTES)), types={"route": list(ROUTES)},
    )  # fmt: skip


@functools.cache
def replaced() -> np.ndarray:
    """Return the probability of replacing by brand, route and miles, (2, R, S)."""
    each = []
    for worth in WORTH:
        reward = np.stack([worth - COST * MILES, np.zeros_like(MILES)], axis=1)[None]
        each += [
            mfg.equilibrium.soft_policy_iteration(
                torch.from_numpy(reward), torch.from_numpy(moves_on(route)), discount=DISCOUNT
            ).log_policy[0, :, 1].exp()
            for route in ROUTES
        ]  # fmt: skip
    return torch.stack(each).reshape(2, len(ROUTES), len(MILES)).numpy()


def panel_of(number: int, n_buses: int) -> tuple[mfg.Trajectories, np.ndarray]:
    """Return what is seen of buses that begin new, from the eleventh period on, and brands."""
    rng = np.random.default_rng([SEED, number])
    brand = (rng.random(n_buses) >= SHARE).astype(int)
    route = rng.integers(len(ROUTES), size=n_buses)
    upto = np.stack([moves_on(r)[:, 0].cumsum(-1) for r in ROUTES])
    place, rows = np.zeros(n_buses, dtype=int), []
    for period in range(PERIODS):
        new = rng.random(n_buses) < replaced()[brand, route, place]
        if period >= UNSEEN:
            rows.append(
                pd.DataFrame(
                    {"agent": np.arange(n_buses), "time": period, "miles": MILES[place],
                     "action": np.where(new, "replace", "keep"),
                     "route": np.array(ROUTES)[route]}
                )
            )  # fmt: skip
        begun = np.where(new, 0, place)
        reached = (rng.random((n_buses, 1)) >= upto[route, begun]).sum(1)
        place = np.minimum(reached, len(MILES) - 1)
    panel = mfg.Trajectories.from_frame(
        pd.concat(rows), state="miles", state_labels={"miles": MILES.tolist()},
        action_labels=["keep", "replace"], types=["route"], type_labels={"route": list(ROUTES)},
    )  # fmt: skip
    return panel, brand


# %% [markdown]
# ## Model: two brands, with or without the first miles in their shares; and one brand


# %%
def one_brand(x: mfg.RewardInputs) -> Any:
    """Return what a bus pays if all are alike."""
    worth = pyro.sample("worth", dist.Normal(0.0, 5.0))
    cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
    return (worth - cost * x.miles) * (x.action == "keep")


def bus(x: mfg.RewardInputs, *, by_first_state: bool) -> Any:
    """Return what a bus pays; the log odds of its brand are linear in miles, route and both."""
    worth = pyro.sample("worth", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
    odds = pyro.sample("odds", dist.Normal(0.0, 3.0))
    if by_first_state:
        miles, route = 0.1 * x.first_state.miles, x.route
        terms = (miles, miles**2, route, miles * route)
        slopes = pyro.sample("slopes", dist.Normal(0.0, 3.0).expand([len(terms)]).to_event(1))
        odds = odds + sum(slope * term for slope, term in zip(slopes, terms, strict=True))
    with x.agents:
        kind = pyro.sample("kind", dist.Categorical(logits=torch.stack([odds, 0.0 * odds], -1)))
    return (worth[kind] - cost * x.miles) * (x.action == "keep")


def fitted(
    panel: mfg.Trajectories, program: Any, init: dict[str, Any] | None = None
) -> mfg.results.PointEstimate:
    """Fit one of the models; no term reads the crowd."""
    nobody = np.full((1, game().shape[1]), 1.0 / game().shape[1])
    model = mfg.TrajectoryModel(game(), program, panel, mean_field=nobody)
    return mfg.mle(model, init=init, svi_steps=0, flow_bias=False, progressbar=False)


# %% [markdown]
# ## Inference: both models, panel by panel
#
# The model with constant shares is the other's where all slopes are zero: the second fit starts
# there. The brand whose engines are worth less is called 0.


# %%
def rows_of(number: int, n_buses: int = BUSES) -> list[dict[str, Any]]:
    """Return one row per model and parameter."""
    panel, brand = panel_of(number, n_buses)
    alike, init = fitted(panel, one_brand), None
    rows: list[dict[str, Any]] = [
        {"panel": number, "shares": "one brand", "parameter": name, "estimate": alike.params[name],
         "converged": alike.converged, "llf": alike.llf, "in the panel": np.nan}
        for name in ("worth", "cost")
    ]  # fmt: skip
    for by_first_state in (False, True):
        fit = fitted(panel, functools.partial(bus, by_first_state=by_first_state), init)
        assert fit.kinds is not None
        init = {
            "worth": fit.params[["worth[0]", "worth[1]"]].to_numpy(), "cost": fit.params["cost"],
            "odds": fit.params["odds"], "slopes": np.zeros(4),
        }  # fmt: skip
        first = int(fit.params["worth[0]"] > fit.params["worth[1]"])
        less, more = init["worth"][[first, 1 - first]]
        found = {
            "worth[0]": less, "worth[1]": more, "cost": fit.params["cost"],
            "share": float(fit.kinds.iloc[:, first].mean()),
        }  # fmt: skip
        rows += [
            {"panel": number, "shares": "by first state" if by_first_state else "constant",
             "parameter": name, "estimate": value, "converged": fit.converged, "llf": fit.llf,
             "in the panel": 1 - brand.mean() if name == "share" else np.nan}
            for name, value in found.items()
        ]  # fmt: skip
    return rows


# %% [markdown]
# ## Checks
#
# Failure would be means over panels away from the truth by more than three Monte Carlo errors with
# two brands, or as close to it with one.


# %%
def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean, spread and bias of the estimates, in Monte Carlo errors."""
    found = []
    for (shares, name), here in rows.groupby(["shares", "parameter"], sort=False):
        error = here["estimate"].std() / len(here) ** 0.5
        found.append(
            {"shares": shares, "parameter": name, "truth": TRUTH[name],
             "mean": here["estimate"].mean(), "std": here["estimate"].std(),
             "Monte Carlo errors": (here["estimate"].mean() - TRUTH[name]) / error,
             "panels": len(here), "not converged": int((~here["converged"]).sum())}
        )  # fmt: skip
    return pd.DataFrame(found)


# %% [markdown]
# ## Results


# %%
def main(quick: bool, out: Path) -> None:
    """Fit, judge and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    n = 2 if quick else PANELS
    rows = resumed(
        functools.partial(rows_of, n_buses=200 if quick else BUSES), n, out / "panels.csv"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_table(summary(rows), out, "recovered")


if __name__ == "__main__":
    run(main, __doc__, OUT, "two panels of 200 buses")
