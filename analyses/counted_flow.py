# %% [markdown]
# # Which intervals survive that the crowd's flow is counted, and does the fit know?
#
# **Question.** A fit along a counted flow is biased, and takes the flow as known. How often do
# nominal 90 % intervals hold the truth by the plug-in, by the group jackknife, by cross-fitting, by
# the efficient pseudo-likelihood, by the coupled likelihood and by the adjusted posterior? And does
# the warning come where the plug-in's intervals fail, and only there?
#
# Run `python analyses/counted_flow.py` (about four hours on one core), with options `--designs`,
# `--worlds` and `--methods` for a part of it, `--n-jobs` for several processes, or, smaller, with
# `--quick`. It may be stopped at any time: what `worlds.csv` holds is not fitted again.

# %%
"""Coverage of six treatments of a counted flow, and of the warning that it costs too much."""

import argparse
import functools
import math
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from output import significant, write_figure, write_table
from scipy.stats import beta

import mfgppl as mfg
from mfgppl.equilibrium.response import Equilibrium
from mfgppl.models import invest, lasry_lions, malware, market, sis
from mfgppl.plots.style import BAND, GREY, INK

CI_PROB = 0.9
WORLDS, FEW_WORLDS = 200, 30  # of each design; and by cross-fitting, which is not a candidate
FOLDS, DRAWS = 10, 2000
THRESHOLDS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.88)  # expected coverage that is too little
FAR = (0.5, 1.0, 2.0)  # standard errors from the cross-fit that are too many
SEED = 20260
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "counted_flow"

# %% [markdown]
# ## Data: five games
#
# Agents play the equilibrium at the truth, and all of them are seen.
#
# - *market* and *lasry_lions*: the crowd enters by the reward, and agents avoid each other.
# - *sis* and *invest*: the crowd enters by the dynamics alone.
# - *malware*: the crowd's mean enters the reward, and is known much better than shares are.
#
# The priors are wide and normal: maximum likelihood is then free of edges, and the posterior's
# intervals are not the prior's.


# %%
def wide(names: Iterable[str]) -> tuple[Any, ...]:
    """Return parameters under wide priors."""
    return tuple(pyro.sample(name, dist.Normal(0.0, 10.0)) for name in names)


def market_reward(x: mfg.RewardInputs) -> Any:
    """Return the value of a price, less the cost of company and of a change."""
    margin, crowding, menu_cost = wide(market.TRUTH)
    return margin * x.price - crowding * x.density - menu_cost * (x.action != "hold")


def ring_reward(x: mfg.RewardInputs) -> Any:
    """Return the worth of a place, less the cost of company and of a step."""
    worth, crowding, effort = wide(lasry_lions.TRUTH)
    ring = torch.cos(2 * math.pi * x.place / lasry_lions.PLACES)
    return worth * ring - crowding * x.density - effort * (x.action != "stay")


def sis_reward(x: mfg.RewardInputs) -> Any:
    """Return the cost of being infected and of keeping one's distance."""
    infection, distancing = wide(sis.TRUTH)
    return -infection * (x.health == "infected") - distancing * (x.action == "distance")


def malware_reward(x: mfg.RewardInputs) -> Any:
    """Return the cost of infection, one's own and with the crowd's, and of repair."""
    own, crowd, repair = wide(malware.TRUTH)
    infection = (own + crowd * x.expect("level") / 10) * x.level / 10
    return -infection - repair * (x.action == "repair")


def invest_reward(x: mfg.RewardInputs) -> Any:
    """Return the worth of quality less the cost of an investment; the rest changes no choice."""
    worth, cost = wide(("worth", "invest"))
    return worth * x.quality / 10 - cost * (x.action == "invest")


ALL = ("plug-in", "jackknife", "cross-fit", "efficient", "coupled", "adjusted")


class Design(NamedTuple):
    """A game, its reward, the truth, the coefficient judged, agents and methods."""

    game: Callable[[], mfg.MeanFieldGame]
    reward: Callable[[mfg.RewardInputs], Any]
    truth: dict[str, float]
    parameter: str
    n_agents: int
    methods: tuple[str, ...]


def short() -> mfg.MeanFieldGame:
    """Return the market over eight months."""
    return market.game().replace(horizon=8, features={})


def all_designs() -> dict[str, Design]:
    """Return the designs by name, the more important first."""
    found = {}
    for n_agents in (1000, 300, 3000):
        for model, reward in ((market, market_reward), (lasry_lions, ring_reward)):
            name = f"{model.__name__.split('.')[-1]} {n_agents}"
            found[name] = Design(model.game, reward, model.TRUTH, "crowding", n_agents, ALL)
    invested = {name: invest.TRUTH[name] for name in ("worth", "invest")}
    return found | {
        "sis 300": Design(sis.game, sis_reward, sis.TRUTH, "infection", 300, ALL),
        "malware 300": Design(malware.game, malware_reward, malware.TRUTH, "crowd", 300, ALL),
        "invest 300": Design(invest.game, invest_reward, invested, "worth", 300, ALL),
        QUICK: Design(short, market_reward, market.TRUTH, "crowding", 300, ALL),
    }


QUICK = "quick"
DESIGNS = all_designs()
GAMES = list(dict.fromkeys(name.split()[0] for name in DESIGNS))
SHOWN = sorted(DESIGNS, key=lambda name: (GAMES.index(name.split()[0]), DESIGNS[name].n_agents))


@functools.cache
def equilibrium(design: str) -> Equilibrium:
    """Return the equilibrium at the truth."""
    case = DESIGNS[design]
    return mfg.solve_equilibrium(case.game(), case.reward, parameters=case.truth, throw=True).value


class World:
    """A panel of a design, and what several methods use of it."""

    def __init__(self, design: str, number: int) -> None:
        case, played = DESIGNS[design], equilibrium(design)
        panel = mfg.simulate(
            case.game(), played.policy, played.mean_field, n_agents=case.n_agents,
            random_seed=np.random.SeedSequence([SEED, list(DESIGNS).index(design), number]),
        )  # fmt: skip
        self.model = mfg.TrajectoryModel(case.game(), case.reward, panel)
        counts = mfg.CountedPanel.from_trajectories(panel)
        self.counted = mfg.TrajectoryModel(case.game(), case.reward, counts)

    @functools.cached_property
    def plug_in(self) -> Any:
        """The fit along the counted flow, with what the count costs."""
        return mfg.mle(self.model, svi_steps=0, progressbar=False)

    @functools.cached_property
    def jackknife(self) -> Any:
        """The corrected fit."""
        return mfg.jackknife(self.model, init=self.plug_in)


# %% [markdown]
# ## Inference: six treatments
#
# Searches start at the plug-in fit. A method's time leaves out the fits that it starts from. Where
# the flow is solved for, counts suffice, and no gradients by agent are worked out.


# %%
def by_wald(fit: Any, parameter: str) -> dict[str, float]:
    """Return estimate, standard error and interval of a fit."""
    if not fit.converged:
        raise mfg.exceptions.ConvergenceError(fit.reason)
    interval = fit.conf_int(CI_PROB).loc[parameter]
    return {"estimate": fit.params[parameter], "std_err": fit.bse[parameter], **interval}


def plug_in(world: World, parameter: str) -> dict[str, Any]:
    """Return the plug-in's interval, and what it says of the counted flow."""
    fit = world.plug_in
    cost = fit.counted_flow
    return by_wald(fit, parameter) | {
        "warned": bool(cost.messages()),
        "named": parameter in cost.untrusted,
        "bias_se": cost.table.loc[parameter, "bias_se"],
        "expected": cost.table.loc[parameter, "coverage"],
        "least_expected": cost.table["coverage"].min(),
        "unmeasured": cost.reason,
    }


def jackknife(world: World, parameter: str) -> dict[str, float]:
    """Return the jackknife's interval."""
    return by_wald(world.jackknife, parameter)


def cross_fit(world: World, parameter: str) -> dict[str, Any]:
    """Return the cross-fit's interval, and how far it moves the plug-in, in errors of that."""
    fit = mfg.flows.cross_fit(world.model, folds=FOLDS, random_seed=SEED, init=world.plug_in)
    moved = ((world.plug_in.params - fit.params) / world.plug_in.bse).abs()
    return by_wald(fit, parameter) | {"moved": moved[parameter], "most_moved": moved.max()}


def efficient(world: World, parameter: str) -> dict[str, float]:
    """Return the efficient pseudo-likelihood's interval."""
    found = mfg.flows.efficient_pseudo_likelihood(world.counted, init=world.plug_in)
    if not found.converged:
        raise mfg.exceptions.ConvergenceError(found.reason)
    return by_wald(found.estimate, parameter)


def coupled(world: World, parameter: str) -> dict[str, float]:
    """Return the coupled likelihood's interval."""
    model = world.counted.along("equilibrium")
    return by_wald(mfg.mle(model, init=world.plug_in, progressbar=False), parameter)


def adjusted(world: World, parameter: str) -> dict[str, float]:
    """Return the equal-tailed interval of the adjusted posterior."""
    draws = mfg.laplace(world.model, draws=DRAWS, random_seed=SEED, progressbar=False)
    moved = mfg.flows.adjust(draws, world.jackknife, world.model)
    values = np.ravel(moved["adjusted_posterior"][parameter].values)
    lower, upper = np.quantile(values, [(1 - CI_PROB) / 2, (1 + CI_PROB) / 2])
    return {"estimate": values.mean(), "std_err": values.std(), "lower": lower, "upper": upper}


METHODS: dict[str, Callable[[World, str], dict[str, Any]]] = {
    "plug-in": plug_in,
    "jackknife": jackknife,
    "cross-fit": cross_fit,
    "efficient": efficient,
    "coupled": coupled,
    "adjusted": adjusted,
}
STARTS: dict[str, tuple[str, ...]] = {
    "plug-in": (),
    "adjusted": ("plug_in", "jackknife"),
}  # what a method starts from; the others from the plug-in
COLUMNS = [
    "design", "world", "method", "estimate", "std_err", "lower", "upper", "warned", "named",
    "bias_se", "expected", "least_expected", "unmeasured", "moved", "most_moved", "seconds",
    "failure",
]  # fmt: skip


def row_of(design: str, world: World, number: int, method: str) -> dict[str, Any]:
    """Return one row of the table: what a method finds in a world, or why it does not."""
    found: dict[str, Any] = {"design": design, "world": number, "method": method, "failure": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is in the row
        began = time.process_time()
        try:
            for start in STARTS.get(method, ("plug_in",)):
                getattr(world, start)
            began = time.process_time()
            found |= METHODS[method](world, DESIGNS[design].parameter)
            if not np.isfinite([found["lower"], found["upper"]]).all():
                found["failure"] = "the interval has no end"
        except (ValueError, ArithmeticError, RuntimeError) as error:
            found["failure"] = (str(error).splitlines() or [""])[0][:120]
    return found | {"seconds": time.process_time() - began}


def lacking(designs: Iterable[str], worlds: int, methods: Iterable[str], done: set[Any]) -> Any:
    """Yield each world with the methods that it lacks; all designs grow together."""
    for number in range(worlds):
        for design in designs:
            here = [
                name
                for name in methods
                if name in DESIGNS[design].methods
                and not (name == "cross-fit" and number >= FEW_WORLDS)
                and (design, number, name) not in done
            ]
            if here:
                yield design, number, here


def rows_of(job: tuple[str, int, list[str]]) -> list[dict[str, Any]]:
    """Return the rows of one world."""
    design, number, names = job
    world = World(design, number)
    return [row_of(design, world, number, name) for name in names]


def fit(
    designs: Iterable[str], worlds: int, methods: Iterable[str], path: Path, n_jobs: int
) -> pd.DataFrame:
    """Fit what is not fitted yet, append it to a file, and return all that the file holds."""
    if not path.exists():
        pd.DataFrame(columns=COLUMNS).to_csv(path, index=False)
    known = pd.read_csv(path)
    done = set(zip(known["design"], known["world"], known["method"], strict=True))
    with multiprocessing.get_context("spawn").Pool(n_jobs) as pool:
        for rows in pool.imap_unordered(rows_of, lacking(designs, worlds, methods, done)):
            pd.DataFrame(rows, columns=COLUMNS).to_csv(path, mode="a", header=False, index=False)
            first, times = rows[0], (f"{r['method']} {r['seconds']:.1f} s" for r in rows)
            print(first["design"], first["world"], *times, flush=True)
    return pd.read_csv(path)


# %% [markdown]
# ## Checks
#
# Failure would be coverage below nominal of what claims to count the flow's error, and a warning
# that is absent in more than one fit of twenty where the plug-in's intervals hold the truth in less
# than 80 % of worlds, or present in more than one of ten where they do in 85 % or more. The table
# of warnings has the rule that there is, expected coverage below 0.75, others with other numbers,
# and one by how far the cross-fit is from the plug-in.


# %%
def law_of_share(hits: int, n: int) -> Any:
    """Return what is known of a chance after so many hits, under the prior of Jeffreys."""
    return beta(hits + 0.5, n - hits + 0.5)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per design and method: means over the worlds with an interval."""
    found = []
    for (design, method), here in rows.groupby(["design", "method"]):
        case, fitted = DESIGNS[design], here[here["failure"].isna()]
        truth = case.truth[case.parameter]
        inside = fitted["lower"].le(truth) & fitted["upper"].ge(truth)
        n, share = len(fitted), law_of_share(int(inside.sum()), len(fitted))
        found.append(
            {
                "design": design, "parameter": case.parameter, "truth": truth, "method": method,
                "worlds": len(here), "failed": len(here) - n,
                "mean": fitted["estimate"].mean(), "sd": fitted["estimate"].std(),
                "std_err": fitted["std_err"].mean(),
                "coverage": inside.mean(), "coverage_error": share.std(),
                "lower": share.ppf(0.025), "upper": share.ppf(0.975),
                "warned": fitted["warned"].astype(float).mean(),
                "expected": fitted["expected"].median(),
                "seconds": here["seconds"].median(),
            }
        )  # fmt: skip
    table = pd.DataFrame(found)
    order = [table[k].map(v.index) for k, v in (("design", SHOWN), ("method", list(METHODS)))]
    return table.iloc[np.lexsort(order[::-1])].reset_index(drop=True)


def rules(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the shares of plug-in fits that rules would warn of, one row per design.

    The rules that compare with the cross-fit are worked out for the worlds that have one.
    """
    fitted = rows[rows["failure"].isna()]
    crossed = fitted[fitted["method"] == "cross-fit"].set_index(["design", "world"])["most_moved"]
    plug_ins = fitted[fitted["method"] == "plug-in"].drop(columns="most_moved")
    plug_ins = plug_ins.join(crossed, on=["design", "world"])
    found = []
    for design in sorted(plug_ins["design"].unique(), key=SHOWN.index):
        here, case = plug_ins[plug_ins["design"] == design], DESIGNS[design]
        truth, few = case.truth[case.parameter], here["least_expected"]
        far = here["most_moved"].dropna()
        inside = here["lower"].le(truth) & here["upper"].ge(truth)
        row = {"design": design, "worlds": len(here), "coverage": inside.mean()}
        row |= {"warned": here["warned"].astype(float).mean(), "bias_se": here["bias_se"].median()}
        row |= {f"expected < {t:g}": (few < t).mean() for t in THRESHOLDS}
        row |= {"crossed": len(far), "moved": far.median()}
        row |= {f"moved > {t:g}": (far > t).mean() if len(far) else np.nan for t in FAR}
        found.append(row)
    return pd.DataFrame(found)


def at_a_glance(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean, coverage and number of worlds by method, one row per design."""
    found = []
    for design in dict.fromkeys(table["design"]):
        here = table[table["design"] == design].set_index("method")
        case = DESIGNS[design]
        row = {"design": f"{design}: {case.parameter} {case.truth[case.parameter]:g}"}
        for name in METHODS:
            row[name] = "-"
            if name in here.index:
                one = here.loc[name]
                fitted = one["worlds"] - one["failed"]
                row[name] = f"{one['mean']:.2f}, {one['coverage']:.0%} of {fitted}"
        found.append(row | {"warned": f"{here.loc['plug-in', 'warned']:.0%}"})
    return pd.DataFrame(found)


STYLES = {
    "plug-in": ("#b03a2e", "o"),
    "jackknife": ("#c2a12d", "s"),
    "cross-fit": ("#6a9a5b", "P"),
    "efficient": ("#5b8fc7", "D"),
    "coupled": (INK, "v"),
    "adjusted": ("#8a5a99", "^"),
}


def coverage_figure(table: pd.DataFrame) -> plt.Figure:
    """Draw coverage by design and method, with 95 % bands of Monte Carlo error."""
    names = list(dict.fromkeys(table["design"]))
    figure, axis = plt.subplots(figsize=(7.5, 1.0 + 0.34 * len(names)))
    axis.axvline(CI_PROB, color=GREY, lw=0.8)
    for k, (method, (colour, marker)) in enumerate(STYLES.items()):
        rows = table[table["method"] == method]
        at = np.array([names.index(name) for name in rows["design"]]) + 0.13 * (k - 2.5)
        ends = [rows["coverage"] - rows["lower"], rows["upper"] - rows["coverage"]]
        axis.errorbar(
            rows["coverage"], at, xerr=np.maximum(ends, 0.0), fmt=marker, color=colour, ms=3.5,
            lw=1.0, label=method,
        )  # fmt: skip
    axis.hlines(np.arange(1, len(names)) - 0.5, -0.02, 1.02, color=BAND, lw=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("share of 90% intervals that hold the truth (line: nominal)")
    figure.legend(loc="lower center", ncols=len(STYLES), frameon=False)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    return figure


def main(
    quick: bool = False,
    out: Path | str = OUT,
    designs: Iterable[str] = (),
    worlds: int = WORLDS,
    methods: Iterable[str] = (),
    n_jobs: int = 1,
) -> None:
    """Fit the worlds that are not fitted yet, and write tables and figure of all that are."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    chosen = [QUICK] if quick else list(designs) or [name for name in DESIGNS if name != QUICK]
    methods = list(methods) or METHODS
    rows = fit(chosen, min(worlds, 2) if quick else worlds, methods, out / "worlds.csv", n_jobs)
    table = summary(rows)
    table.to_csv(out / "coverage.csv", index=False)
    write_table(table.drop(columns=["lower", "upper"]), out, "coverage", significant(3), csv=False)
    write_table(at_a_glance(table), out, "table", csv=False)
    write_table(rules(rows), out, "warnings", significant(3))
    write_figure(coverage_figure(table), out, "coverage", dpi=200)


# %% [markdown]
# ## Answer
#
# `coverage.md` and `coverage.png`: whose intervals hold their level. `warnings.md`: whether the
# warning of the plug-in fit comes where it should.

# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two worlds of one small design")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of tables and figures")
    parser.add_argument("--designs", nargs="+", choices=list(DESIGNS), default=[])
    parser.add_argument("--worlds", type=int, default=WORLDS, help="of each design at most")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=[])
    parser.add_argument(
        "--n-jobs", type=int, default=1, help="processes, each with worlds of its own"
    )
    main(**vars(parser.parse_args()))
