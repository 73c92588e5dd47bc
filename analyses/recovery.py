# %% [markdown]
# # The methods before this one, on the same tasks
#
# **Question.** How well do behaviour cloning, maximum causal entropy without a crowd, MFIRL, PLIRL
# and MF-AIRL recover a reward, beside the causal likelihood, with the same data? In the world of
# the data and in a changed one, with few plays and many, and where agents are imperfect?
#
# Run `python analyses/recovery.py` (about 20 minutes on one core) or, smaller, with `--quick`.

# %%
"""Five reference tasks, earlier methods and ours: accuracy, transfer, cost, imperfect agents."""

import importlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import torch
from cooperation import cooperative
from output import run, significant, write_table

import mfgppl as mfg
from mfgppl import baselines
from mfgppl.plots.style import AMBER, DOT, GREEN, INK, PURPLE

TASKS = ("invest", "malware", "sis", "rock_paper_scissors", "left_right")
QUICK = TASKS[2::2]
PLAY = 100  # agents of one play of a game
PLAYS = (1, 3, 10)
SEEDS = (1, 2, 3)
IMPERFECT = {  # share of random acts, temperature of the agents; fits assume 0 and 1
    "as assumed": (0.0, 1.0),
    "10 % random": (0.1, 1.0),
    "30 % random": (0.3, 1.0),
    "half the temperature": (0.0, 0.5),
    "twice the temperature": (0.0, 2.0),
}
DIAL = (0.0, 0.5, 1.0)  # cooperation of the agents
DIAL_GAMES = ("equilibrium_price", "rock_paper_scissors")
DIAL_AGENTS = 5000
HIDDEN = (16,)  # units of the networks
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "recovery"
METRICS = {
    "mean_field_deviation": "Dev. MF",
    "policy_deviation": "Dev. policy",
    "return_gap": "return off",
    "exploitability": "exploitability",
    "reward_correlation": "correlation",
    "reward_distance": "distance",
}
BETTER_HIGH = ("reward_correlation",)


# %% [markdown]
# ## Data
#
# Each task is a game of the gallery with its true parameters. A play is 100 agents who follow the
# entropy-regularised equilibrium; plays of a game are pooled. The changed world has other dynamics
# and the same reward.


# %%
class Truth(NamedTuple):
    """A task, the policy its agents follow and the flow that they make."""

    file: ModuleType
    game: mfg.MeanFieldGame
    policy: torch.Tensor
    flow: torch.Tensor

    def panel(self, plays: int, seed: int) -> mfg.Trajectories:
        """Draw plays of the game."""
        n = PLAY * plays
        return mfg.simulate(self.game, self.policy, self.flow, n_agents=n, random_seed=seed)


def truth_of(name: str, random_share: float = 0.0, temperature: float = 1.0) -> Truth:
    """Return a task whose agents act at random at times, or at another temperature."""
    file = importlib.import_module(f"mfgppl.models.{name}")
    game = file.game()
    played = game.replace(temperature=temperature)
    world = mfg.solve_equilibrium(played, file.reward, parameters=file.TRUTH, throw=True).value
    policy = (1 - random_share) * world.policy + random_share / game.n_actions
    return Truth(file, game, policy, mfg.equilibrium.generate_mean_field(game, policy))


# %% [markdown]
# ## Model and inference
#
# All methods fit the declared reward of the task, with its parameters unknown. Those that recover a
# reward are judged by the equilibrium under it; behaviour cloning by its policy. Ours are the
# causal maximum likelihood estimate, the nested pseudo-likelihood, which replaces the flow that was
# seen by the fitted one, the coupled maximum likelihood estimate, which solves for it, and the
# posterior mean under the priors of the gallery.


# %%
class Fit(NamedTuple):
    """A recovered reward, or a policy, and what it took."""

    reward: Any
    parameters: Any
    policy: Any
    n_interactions: int
    messages: tuple[str, ...]


def earlier(method: str, **options: Any) -> Callable[..., Fit]:
    """Return an earlier method as a function of game, reward, panel and seed."""

    def fit(game: mfg.MeanFieldGame, reward: Any, panel: mfg.Trajectories, seed: int) -> Fit:
        call = getattr(baselines, method)
        found = call(panel, game, reward=reward, random_seed=seed, **options)
        policy = found.policy if found.reward is None else None
        return Fit(found.reward_program, None, policy, found.n_interactions, found.messages)

    return fit


def maximum_likelihood(game: Any, reward: Any, panel: Any, seed: int) -> Fit:
    """Return the causal maximum likelihood estimate."""
    model = mfg.TrajectoryModel(game, reward, panel)
    point = mfg.mle(model, svi_steps=50, progressbar=False)
    return Fit(reward, point.params, None, 0, ())


def posterior_mean(game: Any, reward: Any, panel: Any, seed: int) -> Fit:
    """Return the posterior mean of short chains."""
    model = mfg.TrajectoryModel(game, reward, panel)
    draws = mfg.nuts(
        model, draws=250, tune=250, chains=4, cores=1, random_seed=seed, progressbar=False
    )
    mean = draws["posterior"].to_dataset()[model.parameters].mean(("chain", "draw"))
    return Fit(reward, {k: float(v) for k, v in mean.items()}, None, 0, ())


def pseudo_likelihood(game: Any, reward: Any, panel: Any, seed: int) -> Fit:
    """Return the nested pseudo-likelihood estimate, whose flow is not made of the choices seen."""
    found = mfg.flows.nested_pseudo_likelihood(mfg.TrajectoryModel(game, reward, panel))
    return Fit(reward, found.estimate.params, None, 0, ())


def coupled(game: Any, reward: Any, panel: Any, seed: int) -> Fit:
    """Return the maximum of the coupled likelihood, whose flow is the equilibrium's."""
    model = mfg.TrajectoryModel(game, reward, panel, mean_field="equilibrium")
    return Fit(reward, mfg.mle(model, progressbar=False).params, None, 0, ())


METHODS = {
    "cloning": earlier("behaviour_cloning"),
    "no crowd": earlier("max_causal_entropy"),
    "PLIRL": earlier("plirl", max_steps=40),
    "MFIRL": earlier("mfirl"),
    "MF-AIRL": earlier("mfairl", n_rounds=30),
    "MF-AIRL, expected": earlier("mfairl", next_state="expected", n_rounds=30),
    "MF-AIRL, sampled": earlier("mfairl", sampler="sampled", n_rounds=400),
    "MLE": maximum_likelihood,
    "pseudo-likelihood": pseudo_likelihood,
    "coupled": coupled,
    "posterior mean": posterior_mean,
}
OURS = ("MLE", "pseudo-likelihood", "coupled", "posterior mean")
SLOW = (
    "MF-AIRL, expected",
    "MF-AIRL, sampled",
    "pseudo-likelihood",
    "posterior mean",
    "coupled",
)  # left out by --quick
COLOURS = {
    "cloning": "#9aa0a6", "no crowd": AMBER, "PLIRL": PURPLE, "MFIRL": GREEN,
    "MF-AIRL": DOT, "MF-AIRL, expected": "#e58f7b", "MF-AIRL, sampled": "#8c2d1c",
    "MLE": INK, "posterior mean": "#6fa8dc", "pseudo-likelihood": "#3f7fbf",
    "coupled": "#0b1f33",
}  # fmt: skip


def measured(
    fit: Fit, file: ModuleType, game: mfg.MeanFieldGame, panel: mfg.Trajectories
) -> dict[str, Any]:
    """Return the metrics of a fit in a world; its equilibrium is sought from the flow seen."""
    found = baselines.recovery_metrics(
        game,
        file.reward,
        fit.reward,
        parameters=file.TRUTH,
        recovered_parameters=fit.parameters,
        policy=fit.policy,
        mean_field=torch.as_tensor(panel.mean_field()),
    )
    return found._asdict() | {"return_gap": abs(found.true_return - found.expected_return)}


def rows_of(
    truth: Truth, labels: dict[str, Any], panel: Any, seed: int, methods: Any, worlds: Any
) -> list[dict[str, Any]]:
    """Return one row per method and world."""
    rows = []
    for method in methods:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = METHODS[method](truth.game, truth.file.reward, panel, seed)
            noted = {"messages": " | ".join(fit.messages)}
            for world in worlds:
                game = truth.file.game(changed=True) if world == "changed" else truth.game
                found = measured(fit, truth.file, game, panel)
                rows.append({**labels, "method": method, "world": world, **found, **noted})
    return rows


def compared(tasks: Any, plays: Any, seeds: Any, methods: Any) -> pd.DataFrame:
    """Return all fits of all tasks in both worlds."""
    rows = []
    for name in tasks:
        truth = truth_of(name)
        for n in plays:
            for seed in seeds:
                labels = {"task": name, "plays": n, "seed": seed}
                panel = truth.panel(n, seed)
                rows += rows_of(truth, labels, panel, seed, methods, ("original", "changed"))
        print(f"{name}: done")
    return pd.DataFrame(rows)


def with_imperfect(plays: int, seeds: Any, methods: Any, tasks: Any) -> pd.DataFrame:
    """Return fits to agents who are not what the fits assume, judged in the original world."""
    rows = []
    for name in tasks:
        for kind, (share, temperature) in IMPERFECT.items():
            truth = truth_of(name, share, temperature)
            for seed in seeds:
                labels = {"task": name, "agents": kind, "seed": seed}
                panel = truth.panel(plays, seed)
                rows += rows_of(truth, labels, panel, seed, methods, ("original",))
    return pd.DataFrame(rows)


def what_it_takes(tasks: Any, plays: int, methods: Any) -> pd.DataFrame:
    """Return processor time and interactions of a fit of each task, after one to warm up."""
    rows = []
    for name in tasks:
        truth = truth_of(name)
        panel = truth.panel(plays, SEEDS[0])
        for method in methods:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                began = time.process_time()
                fit = METHODS[method](truth.game, truth.file.reward, panel, SEEDS[0])
                seconds = time.process_time() - began
            row = {"task": name, "method": method, "seconds": seconds}
            rows.append(row | {"interactions": fit.n_interactions})
    return pd.DataFrame(rows)


def along_the_dial(names: Any, dial: Any, n_agents: int) -> pd.DataFrame:
    """Return what PLIRL and MFIRL find of agents of each degree of cooperation."""
    rows = []
    for name in names:
        file = importlib.import_module(f"mfgppl.models.{name}")
        game = file.game()
        for degree in dial:
            acted = cooperative(game, file.reward, degree)
            world = mfg.solve_equilibrium(game, acted, parameters=file.TRUTH, throw=True).value
            panel = mfg.simulate(
                game, world.policy, world.mean_field, n_agents=n_agents, random_seed=SEEDS[0]
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                planner = baselines.plirl(panel, game, reward=file.reward).params
                individual = baselines.mfirl(panel, game, reward=acted).params
            for parameter, value in file.TRUTH.items():
                rows.append(
                    {
                        "game": words(name),
                        "cooperation": f"{degree:g}",
                        "parameter": parameter,
                        "truth": value,
                        "PLIRL": planner[parameter],
                        "MFIRL of the dial's reward": individual[parameter],
                    }
                )
    return pd.DataFrame(rows)


def with_networks(plays: int, seeds: Any, tasks: Any) -> pd.DataFrame:
    """Return fits of one network by earlier methods and by its variational posterior."""
    rows = []
    for name in tasks:
        truth = truth_of(name)
        network = mfg.baselines.network_reward(HIDDEN)
        for seed in seeds:
            panel = truth.panel(plays, seed)
            fits = {k: METHODS[k] for k in ("MFIRL", "MF-AIRL")} | {"variational": variational}
            for method, call in fits.items():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    fit = call(truth.game, network, panel, seed)
                    for world in ("original", "changed"):
                        game = truth.file.game(changed=True) if world == "changed" else truth.game
                        found = measured(fit, truth.file, game, panel)
                        labels = {"task": name, "seed": seed, "method": method, "world": world}
                        rows.append({**labels, **found})
    return pd.DataFrame(rows)


def variational(game: Any, reward: Any, panel: Any, seed: int) -> Fit:
    """Return the mean reward under the variational posterior of a network's weights."""
    model = mfg.TrajectoryModel(game, reward, panel)
    start = baselines.mfirl(panel, game, reward=reward, random_seed=seed, max_steps=100).values
    draws = mfg.vi(
        model, guide="diagonal", draws=30, max_steps=1500, particles=4, init=start,
        random_seed=seed,
    )  # fmt: skip
    posterior = draws["posterior"].to_dataset()[model.parameters].isel(chain=0)

    def mean(x: mfg.RewardInputs) -> Any:
        each = []
        for k in range(posterior.sizes["draw"]):
            values = {
                name: torch.tensor(posterior[name].isel(draw=k).to_numpy())
                for name in model.parameters
            }
            with pyro.poutine.block(), pyro.poutine.condition(data=values):
                each.append(reward(x))
        return torch.stack(each).mean(0)

    return Fit(mean, None, None, 0, ())


# %% [markdown]
# ## Checks
#
# - Under deterministic dynamics (`rock_paper_scissors`, `left_right`) MFIRL with its entropy
#   normalisation and MLE have one gradient, so one estimate. Failure: their metrics differ.
# - Along the dial PLIRL's `unit` cost of the cartel is right at 1 and below a third at 0; MFIRL's
#   is right at both. Failure: a name below.
# - Where an earlier method is nearer to the truth than MLE in every seed, it is written down:
#   `where_not.md`.


# %%
def check(found: pd.DataFrame, dial: pd.DataFrame) -> None:
    """Raise where a claim fails."""
    index = ["task", "plays", "seed", "world"]
    wide = found.pivot_table(index=index, columns="method", values="policy_deviation")
    same = wide[wide.index.get_level_values("task").isin(["rock_paper_scissors", "left_right"])]
    apart = (same["MFIRL"] - same["MLE"]).abs() > 0.01 + 0.05 * same["MLE"]
    units = dial[dial["parameter"] == "unit"].set_index("cooperation")
    off = (units["MFIRL of the dial's reward"] - units["truth"]).abs() > 0.2
    planner = units["PLIRL"] / units["truth"]
    biased = planner["0"] > 1 / 3 or abs(planner["1"] - 1) > 0.2
    if apart.any() or off.any() or biased:
        raise RuntimeError(
            f"MFIRL is not MLE in {list(same.index[apart])}; individual level off at "
            f"{list(units.index[off])}; the planner's units over the truth: {planner.to_dict()}"
        )


def against_mle(found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return in how many cases each method is nearer to the truth than MLE, and which these are.

    A case is a task in a world at the most plays; nearer is nearer in every seed, by over 1 %.
    """
    last = found[found["plays"] == found["plays"].max()]
    counted, named = [], []
    for method in [m for m in last["method"].unique() if m != "MLE"]:
        row: dict[str, Any] = {"method": method}
        for metric, title in METRICS.items():
            wide = last[last["method"].isin([method, "MLE"])].pivot_table(
                index=["task", "world", "seed"], columns="method", values=metric, sort=False
            )
            if method not in wide.columns:
                row[title] = ""
                continue
            if metric in BETTER_HIGH:
                wide = 1.0 - wide
            nearer = (wide[method] < 0.99 * wide["MLE"] - 1e-6).groupby(["task", "world"]).all()
            further = (0.99 * wide[method] - 1e-6 > wide["MLE"]).groupby(["task", "world"]).all()
            row[title] = f"{nearer.sum()} nearer, {further.sum()} further"
            middle = wide.groupby(["task", "world"]).median()
            title = f"1 - {title}" if metric in BETTER_HIGH else title
            for task, world in nearer.index[nearer]:
                place = middle.loc[(task, world)]
                named.append(
                    {
                        "task": words(task), "world": world, "metric": title, "method": method,
                        "its median": place[method], "MLE's": place["MLE"],
                    }
                )  # fmt: skip
        counted.append(row)
    cases = pd.DataFrame(named)
    if len(cases):
        cases = cases[~cases["method"].isin(OURS)].sort_values(["task", "world"], kind="stable")
    return pd.DataFrame(counted), cases


# %% [markdown]
# ## Answer
#
# Tables and figures; they are read in `docs/earlier_methods.md`.


# %%
def words(name: str) -> str:
    """Return a file's name in words."""
    return name.replace("_", " ")


def by_method(found: pd.DataFrame, first: list[str]) -> pd.DataFrame:
    """Return medians over seeds, one row per method within the labels of `first`."""
    order = {m: k for k, m in enumerate(found["method"].unique())}
    table = found.groupby([*first, "method"], sort=False)[list(METRICS)].median().reset_index()
    table = table.sort_values("method", key=lambda c: c.map(order), kind="stable")
    labels = {name: k for k, name in enumerate(found[first[0]].unique())}
    table = table.sort_values(first[0], key=lambda c: c.map(labels), kind="stable")
    table[first[0]] = table[first[0]].map(lambda v: words(str(v)))
    return table.rename(columns=METRICS)


def costs(found: pd.DataFrame, spent: pd.DataFrame) -> pd.DataFrame:
    """Return time, interactions and reported failures, one row per method."""
    last = found[(found["plays"] == found["plays"].max()) & (found["world"] == "original")]
    rows = []
    for method, group in spent.groupby("method", sort=False):
        noted = last.loc[last["method"] == method, "messages"]
        rows.append(
            {"method": method}
            | {words(t): f"{v:.2f}" for t, v in zip(group["task"], group["seconds"], strict=True)}
            | {"interactions": f"{group['interactions'].median():,.0f}"}
            | {"fits with a warning": f"{(noted != '').sum()} of {len(noted)}"}
        )
    return pd.DataFrame(rows)


def digits(value: float) -> str:
    """Return a number with three digits, and nothing for NaN."""
    return significant(3)(value) if not abs(value) < 5e-4 else "0.000"


def write_rows(table: pd.DataFrame, out: Path, name: str) -> None:
    """Write a table as Markdown, or that there is no such row."""
    if table.empty:
        (out / f"{name}.md").write_text("Nowhere.\n")
    else:
        write_table(table, out, name, digits, csv=False)


def beside_it(figure: plt.Figure, axis: Any) -> None:
    """Put the names of the methods on the right of a figure."""
    lines, names = axis.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside right upper", frameon=False, fontsize=8)


def draw_plays(found: pd.DataFrame) -> plt.Figure:
    """Draw deviation of policies against plays, one column per task, one row per world."""
    tasks, worlds = found["task"].unique(), found["world"].unique()
    figure, axes = plt.subplots(
        len(worlds), len(tasks), figsize=(13.2, 5.6), layout="constrained", sharex=True
    )
    for row, world in zip(axes, worlds, strict=True):
        for axis, task in zip(row, tasks, strict=True):
            here = found[(found["task"] == task) & (found["world"] == world)]
            for method, group in here.groupby("method", sort=False):
                middle = group.groupby("plays")["policy_deviation"].median().clip(lower=1e-5)
                ours = method in OURS  # below, and wide: others may lie on it
                axis.plot(
                    middle.index, middle, "o-", ms=6 if ours else 4, lw=3 if ours else 1.2,
                    color=COLOURS[str(method)], label=method, zorder=1 if ours else 2,
                )  # fmt: skip
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(list(PLAYS), [str(n) for n in PLAYS])
            axis.minorticks_off()
            axis.spines[["top", "right"]].set_visible(False)
    for axis, task in zip(axes[0], tasks, strict=True):
        axis.set_title(words(str(task)), fontsize=10)
    for row, world in zip(axes, worlds, strict=True):
        row[0].set_ylabel(f"Dev. policy (nats)\n{world} dynamics", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel(f"plays of {PLAY} agents", fontsize=9)
    beside_it(figure, axes[0][0])
    return figure


def draw_costs(found: pd.DataFrame, spent: pd.DataFrame) -> plt.Figure:
    """Draw deviation of policies against time, a dot a task."""
    last = found[(found["plays"] == found["plays"].max()) & (found["world"] == "original")]
    figure, axis = plt.subplots(figsize=(7.4, 4.2), layout="constrained")
    middle = last.groupby(["method", "task"])["policy_deviation"].median().clip(lower=1e-5)
    for method, group in spent.groupby("method", sort=False):
        off = [middle[(method, task)] for task in group["task"]]
        colour = COLOURS[str(method)]
        axis.scatter(group["seconds"].clip(lower=1e-3), off, s=36, color=colour, label=method)
    axis.set(xscale="log", yscale="log", xlabel="seconds a fit", ylabel="Dev. policy (nats)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def draw_imperfect(found: pd.DataFrame) -> plt.Figure:
    """Draw deviation of policies, one panel per task, a group of dots a kind of agents."""
    tasks, kinds = found["task"].unique(), list(found["agents"].unique())
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(2.7 * len(tasks) + 2.0, 3.6), layout="constrained", sharey=True,
        squeeze=False,
    )  # fmt: skip
    methods = list(found["method"].unique())
    for axis, task in zip(axes[0], tasks, strict=True):
        here = found[found["task"] == task]
        for k, method in enumerate(methods):
            middle = here[here["method"] == method].groupby("agents")["policy_deviation"].median()
            place = np.arange(len(kinds))[::-1] + 0.26 * (1 - 2 * k / max(len(methods) - 1, 1))
            axis.plot(
                middle[kinds].clip(lower=1e-4), place, "o", ms=5, color=COLOURS[method],
                label=method,
            )  # fmt: skip
        axis.set(xscale="log", xlabel="Dev. policy (nats)")
        axis.set_title(words(str(task)), fontsize=10)
        axis.set_yticks(np.arange(len(kinds))[::-1], kinds, fontsize=9)
        axis.tick_params(axis="y", length=0)
        axis.hlines(np.arange(len(kinds) - 1) + 0.5, *axis.get_xlim(), color="0.9", lw=1, zorder=0)
        axis.spines[["top", "right", "left"]].set_visible(False)
    beside_it(figure, axes[0][0])
    return figure


def write(
    out: Path,
    found: pd.DataFrame,
    imperfect: pd.DataFrame,
    dial: pd.DataFrame,
    networks: pd.DataFrame,
    spent: pd.DataFrame,
) -> None:
    """Write all tables and figures."""
    last = found[found["plays"] == found["plays"].max()]
    for world, rows in last.groupby("world"):
        write_rows(by_method(rows, ["task"]), out, str(world))
    write_rows(by_method(imperfect, ["task", "agents"]), out, "imperfect")
    write_rows(by_method(networks, ["task", "world"]), out, "networks")
    write_rows(costs(found, spent), out, "costs")
    write_rows(dial, out, "dial")
    counted, cases = against_mle(found)
    write_rows(counted, out, "against_mle")
    write_rows(cases, out, "where_not")
    found.to_csv(out / "fits.csv", index=False, float_format="%.5g")
    imperfect.to_csv(out / "imperfect.csv", index=False, float_format="%.5g")
    for name, figure in (
        ("plays", draw_plays(found)),
        ("costs", draw_costs(found, spent)),
        ("imperfect", draw_imperfect(imperfect)),
    ):
        figure.savefig(out / f"{name}.png", dpi=120)
        plt.close(figure)


def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the analysis and write its tables and figures."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    methods = [m for m in METHODS if not quick or m not in SLOW]
    plays, seeds = ((1,), SEEDS[:1]) if quick else (PLAYS, SEEDS)
    found = compared(QUICK if quick else TASKS, plays, seeds, methods)
    some = ("cloning", "PLIRL", "MFIRL", "MF-AIRL", "MLE")
    tasks = ("left_right",) if quick else ("invest", "sis", "rock_paper_scissors")
    imperfect = with_imperfect(PLAYS[-1], SEEDS[:1] if quick else SEEDS[:2], some, tasks)
    some_games, degrees = (DIAL_GAMES[:1], DIAL[::2]) if quick else (DIAL_GAMES, DIAL)
    dial = along_the_dial(some_games, degrees, DIAL_AGENTS)
    networks = with_networks(
        PLAYS[-1],
        SEEDS[:1] if quick else SEEDS[:2],
        ("left_right",) if quick else ("sis", "rock_paper_scissors"),
    )
    spent = what_it_takes(QUICK[-1:] if quick else TASKS, plays[-1], methods)
    write(out, found, imperfect, dial, networks, spent)
    check(found, dial)
    print(f"{time.perf_counter() - began:.0f} seconds")


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="two games, one seed and fewer methods")
