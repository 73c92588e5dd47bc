# %% [markdown]
# # Kinds that nobody sees
#
# **Question.** Firms find a change of price cheap or dear, and no column says which. Are both costs
# and the shares of both kinds recovered, do intervals and posteriors hold what they say, and how
# many kinds do the two bundled panels have?
#
# Run `python analyses/unseen_kinds.py` (about half an hour on one core), or, smaller, with
# `--quick`. It may be stopped at any time: what `panels.csv` holds is not fitted again.

# %%
"""Recovery, coverage and ranks of a mixture of two kinds; kinds in two real panels."""

import functools
import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from output import fixed, resumed, run, write_figure, write_table

import mfgppl as mfg
from mfgppl.models import capacity, pricing

CI_PROB, PANELS, N_FIRMS, SEED = 0.9, 500, 1000, 20262
FEW, ROUNDS, N_FEW = 12, 200, 200
RESTARTS = 6
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "unseen_kinds"
TRUTH = {"margin": 0.3, "crowding": 2.0, "share": [0.6, 0.4], "menu": [0.4, 2.0]}
NAMES = {
    "margin": 0.3, "crowding": 2.0, "share[0]": 0.6, "share[1]": 0.4,
    "menu[0]": 0.4, "menu[1]": 2.0,
}  # fmt: skip

# %% [markdown]
# ## Data: a market of firms of two kinds
#
# Four prices, twelve periods; a step succeeds with probability 0.8 and stops at the ends. The crowd
# is the equilibrium of the mixture, and firms face it as it is.


# %%
@functools.cache
def game() -> mfg.MeanFieldGame:
    """Return the market."""
    steps = np.zeros((4, 3, 4))
    for s in range(4):
        for a, step in enumerate((-1, 0, 1)):
            steps[s, a, min(max(s + step, 0), 3)] += 0.8
            steps[s, a, s] += 0.2
    return mfg.MeanFieldGame(
        states={"price": range(4)}, actions=["down", "none", "up"], horizon=12, transition=steps,
        initial=np.ones(4) / 4,
    )  # fmt: skip


def firms(n_kinds: int, wide: float = 2.0) -> Any:
    """Return the program of firms of so many kinds."""

    def firm(x: mfg.RewardInputs) -> Any:
        margin = pyro.sample("margin", dist.Normal(0.0, 0.5 * wide))
        crowding = pyro.sample("crowding", dist.Normal(0.0, wide))
        menu = pyro.sample("menu", dist.HalfNormal(wide).expand([n_kinds]).to_event(1))
        cost = menu[0]
        if n_kinds > 1:
            share = pyro.sample("share", dist.Dirichlet(2.0 * torch.ones(n_kinds)))
            with x.agents:
                kind = pyro.sample("kind", dist.Categorical(share))
            cost = menu[kind]
        return margin * x.price - crowding * x.density - cost * (x.action != "none")

    return firm


@functools.cache
def world() -> tuple[mfg.MeanFieldGame, Any, torch.Tensor]:
    """Return the game of both kinds, its equilibrium, and the flow that everybody sees."""
    typed, reward = mfg.kinds.as_types(game(), firms(2), TRUTH)
    played = mfg.solve_equilibrium(typed, reward, throw=True).value
    return typed, played, played.mean_field.reshape(12, 2, 4).sum(1)


def panel_of(number: int) -> mfg.Trajectories:
    """Return a panel in which nobody sees the kinds."""
    typed, played, _ = world()
    drawn = mfg.simulate(
        typed, played.policy, played.mean_field, n_agents=N_FIRMS,
        random_seed=np.random.SeedSequence([SEED, number]),
    )  # fmt: skip
    return drawn.drop_type("kind")


# %% [markdown]
# ## Inference: maximum likelihood of one kind and of two
#
# Labels mean nothing: the cheaper kind is called 0.


# %%
def rows_of(number: int) -> list[dict[str, Any]]:
    """Return one row per parameter of the fit of two kinds, beside the fit of one."""
    panel, flow = panel_of(number), world()[2]
    two, one = (
        mfg.mle(
            mfg.TrajectoryModel(game(), firms(n), panel, mean_field=flow),
            restarts=2 * (n > 1), random_seed=number, svi_steps=0, progressbar=False,
        )
        for n in (2, 1)
    )  # fmt: skip
    swapped = two.params["menu[0]"] > two.params["menu[1]"]
    other = {f"{name}[{k}]": f"{name}[{1 - k}]" for name in ("menu", "share") for k in (0, 1)}
    interval, rows = two.conf_int(CI_PROB), []
    for name in NAMES:
        own = other.get(name, name) if swapped else name
        rows.append(
            {"panel": number, "parameter": name, "estimate": two.params[own],
             "lower": interval.loc[own, "lower"], "upper": interval.loc[own, "upper"],
             "converged": two.converged, "ratio": 2 * (two.llf - one.llf),
             "one kind": one.params.get(name.replace("menu[1]", "menu[0]"), np.nan)}
        )  # fmt: skip
    return rows


# %% [markdown]
# ## Checks
#
# Failure would be estimates away from the truth by more than their Monte Carlo error, coverage more
# than three binomial standard errors from nominal, or ranks that are not uniform.


# %%
def recovered(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean and spread of the estimates of a few panels."""
    few = rows[rows["panel"] < FEW]
    table = few.groupby("parameter", sort=False)["estimate"].agg(["mean", "std"]).reset_index()
    table.insert(1, "truth", [NAMES[name] for name in table["parameter"]])
    table["one kind"] = few.groupby("parameter", sort=False)["one kind"].mean().to_numpy()
    ratio = pd.DataFrame(
        [{"parameter": "likelihood ratio", "truth": np.nan, "mean": few["ratio"].mean(),
          "std": few.groupby("panel")["ratio"].first().std(), "one kind": np.nan}]
    )  # fmt: skip
    return pd.concat([table, ratio], ignore_index=True)


def coverage(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per parameter."""
    found = []
    for name, here in rows.groupby("parameter", sort=False):
        truth = NAMES[str(name)]
        inside = here["lower"].le(truth) & here["upper"].ge(truth)
        error = (CI_PROB * (1 - CI_PROB) / len(here)) ** 0.5
        found.append(
            {"parameter": name, "truth": truth, "mean": here["estimate"].mean(),
             "coverage": inside.mean(), "Monte Carlo error": error, "panels": len(here),
             "binomial errors": (inside.mean() - CI_PROB) / error,
             "not converged": int((~here["converged"]).sum())}
        )  # fmt: skip
    return pd.DataFrame(found)


def ranks(quick: bool, out: Path) -> None:
    """Write the ranks of true parameters among draws, whose labels are made to agree."""
    start = panel_of(0).subset(np.arange(N_FEW))
    model = mfg.TrajectoryModel(game(), firms(2, wide=1.0), start, mean_field=world()[2])

    def sampled(here: mfg.TrajectoryModel, *, random_seed: int) -> Any:
        return mfg.nuts(
            here, draws=250, tune=250, chains=2, cores=1, random_seed=random_seed,
            progressbar=False, flow_bias=False, log_likelihood=False,
        )  # fmt: skip

    found = mfg.calibration.sbc(
        model, panels=10 if quick else ROUNDS, fit=sampled, random_seed=SEED, progressbar=False
    )
    print(found)
    write_table(found.table.reset_index(names="quantity"), out, "ranks")
    write_figure(mfg.plots.plot_ranks(found), out, "ranks")


# %% [markdown]
# ## Two real panels
#
# Each kind has costs of moving, values of the levels and worth of the end of its own, and in the
# supermarket its own sense of the crowd. Shocks of each period are common to all.

# %%
WIDE = dist.Normal(0.0, 10.0)


def of_panel(axis: str, down: str, up: str, n_kinds: int, *, crowd: bool) -> Any:
    """Return the program of a real panel."""
    prior = dist.Normal(0.0, 3.0)

    def agent(x: mfg.RewardInputs) -> mfg.Preferences:
        levels = getattr(x, axis)
        n, where = len(levels.labels), levels.codes
        share = pyro.sample("share", dist.Dirichlet(torch.ones(n_kinds)))
        each = prior.expand([n_kinds]).to_event(1)
        cut, lift = pyro.sample("cut", each), pyro.sample("lift", each)
        table = prior.expand([n_kinds, n]).to_event(2)
        level, end = pyro.sample("level", table), pyro.sample("end", table)
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(share))
        reward = cut[kind] * (x.action == down) + lift[kind] * (x.action == up) + level[kind, where]
        if crowd:
            reward = reward + pyro.sample("crowd", each)[kind] * x.density
        shock = mfg.period_effects(x, "cuts", WIDE) * (x.action == down)
        shock = shock + mfg.period_effects(x, "lifts", WIDE) * (x.action == up)
        return mfg.Preferences(reward, terminal=end[kind, where], shock=shock)

    return agent


def real_panels(quick: bool) -> pd.DataFrame:
    """Return one row per panel and number of kinds."""
    cases = [
        ("supermarket", pricing, ("margin", "lower", "raise"), True, (2, 3, 4)),
        ("flights", capacity, ("capacity", "cut", "add"), False, (2, 3)),
    ]
    rows = []
    for name, case, words, crowd, numbers in cases:
        panel = case.panel()
        for n in numbers[:1] if quick else numbers:
            program = of_panel(*words, n, crowd=crowd)
            model = mfg.TrajectoryModel(case.game(panel), program, panel)
            with warnings.catch_warnings():  # that constants of all levels are not identified
                warnings.simplefilter("ignore")
                fit = mfg.mle(
                    model, restarts=0 if quick else RESTARTS, svi_steps=0, flow_bias=False,
                    progressbar=False,
                )  # fmt: skip
            assert fit.kinds is not None
            shares = sorted(fit.kinds.mean().to_numpy(), reverse=True)
            reached = np.mean(max(fit.attained) - np.array(fit.attained) < 0.01)
            rows.append(
                {"panel": name, "kinds": n, "log likelihood": round(fit.llf, 1),
                 "known": len(fit.theta) - len(fit.curvature.flat),
                 "shares": ", ".join(f"{s:.2f}" for s in shares),
                 "certain": f"{(fit.kinds.max(axis=1) > 0.9).mean():.2f}",
                 "starts at the best": f"{reached:.2f}"}
            )  # fmt: skip
    return pd.DataFrame(rows)


# %% [markdown]
# ## Results


# %%
def main(quick: bool, out: Path) -> None:
    """Fit, judge and write the tables."""
    out.mkdir(parents=True, exist_ok=True)
    rows = resumed(rows_of, FEW if quick else PANELS, out / "panels.csv")
    write_table(recovered(rows), out, "reference")
    write_table(coverage(rows), out, "coverage")
    write_table(real_panels(quick), out, "real_panels", fixed(1))
    ranks(quick, out)


if __name__ == "__main__":
    run(main, __doc__, OUT, "twelve panels, two kinds of each real panel, ten rounds")
