# %% [markdown]
# # What the printed theorem costs
#
# **Question.** Theorem 4 as printed gives trajectories an energy law, which is not the law that an
# entropy-regularised equilibrium (ERMFNE) gives them. What does a user of the printed law end up
# believing, with panels of any size, and when is it harmless?
#
# Run `python analyses/theorem4.py` (about four minutes) or, smaller, with `--quick`.

# %%
"""Estimates and predictive scores of the energy law: without end of data, and with some."""

from pathlib import Path
from typing import Any, NamedTuple

import arviz_stats
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro.distributions as dist
from output import run, write_table
from torch import Tensor

import mfgppl as mfg
from mfgppl.data.panel import Counts
from mfgppl.models import invest, left_right, malware, rock_paper_scissors, sis
from mfgppl.plots.style import BAND, DOT, GREY, INK

LAWS = {
    "causal": {"likelihood": "causal"},
    "energy, one constant": {"likelihood": "energy", "start": "marginal"},
    "energy, given the start": {"likelihood": "energy", "start": "conditional"},
}
ENERGY = tuple(LAWS)[1:]
COLOURS = dict(zip(LAWS, (INK, DOT, BAND), strict=True))
SEED, CI_PROB = 4, 0.9
SIZES = (100, 1000, 10_000)  # agents
N_PANELS = 200
SCORED = 200  # agents in the panels that are scored
DIAL = np.linspace(0.0, 0.8, 17)
ANY = dist.Normal(0.0, 3.0)  # plays no part in estimates
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "likelihoods"


# %% [markdown]
# ## Data
#
# Games of the gallery at their true parameters. No weight is bounded here, so that no limit is cut
# off at zero. What no panel identifies is left out (the taste for the crowd in INVEST), and what
# lies on a ridge is held at its truth (that in MALWARE), and free in a row of
# its own.


# %%
class Case(NamedTuple):
    """A game at its true parameters.

    Attributes
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        Its reward program, without bounds on the parameters.
    truth : dict
        The value of each parameter.
    """

    game: mfg.MeanFieldGame
    reward: Any
    truth: dict[str, float]


def quality(x: Any) -> Tensor:
    """Return the feature of INVEST's worth of quality."""
    return x.quality / 10


def infected(x: Any) -> Tensor:
    """Return the feature of MALWARE's cost of infection."""
    return -x.level / 10


def with_crowd(x: Any) -> Tensor:
    """Return the reward of MALWARE, its term in the crowd at the truth."""
    return own_and_repair(x) - malware.TRUTH["crowd"] * x.expect("level") / 10 * x.level / 10


own_and_repair = mfg.linear_reward(
    {"own": infected, "repair": lambda x: -1.0 * (x.action == "repair")}, ANY
)
worth_and_invest = mfg.linear_reward(
    {"worth": quality, "invest": lambda x: -1.0 * (x.action == "invest")}, ANY
)
infection_and_distancing = mfg.linear_reward(
    {
        "infection": lambda x: -1.0 * (x.health == "infected"),
        "distancing": lambda x: -1.0 * (x.action == "distance"),
    },
    ANY,
)


def cases() -> dict[str, Case]:
    """Return the games by name."""

    def known(truth: dict[str, float], *names: str) -> dict[str, float]:
        return {name: truth[name] for name in names}

    rps, lr = rock_paper_scissors, left_right
    return {
        "INVEST": Case(invest.game(), worth_and_invest, known(invest.TRUTH, "worth", "invest")),
        "MALWARE": Case(malware.game(), with_crowd, known(malware.TRUTH, "own", "repair")),
        "MALWARE, crowd free": Case(malware.game(), malware.reward, malware.TRUTH),
        "SIS": Case(sis.game(), infection_and_distancing, sis.TRUTH),
        "RPS": Case(rps.game(), rps.reward, rps.TRUTH),
        "RPS, hands slip": Case(rps.game(changed=True), rps.reward, rps.TRUTH),
        "LR": Case(lr.game(), lr.reward, lr.TRUTH),
        "LR, feet slip": Case(lr.game(changed=True), lr.reward, lr.TRUTH),
    }


# %% [markdown]
# ## Model
#
# The flow is held at the equilibrium of the truth. As a panel grows, its counts over its size go to
#
#     N_t(s, a) = mu_t(s) pi_t(a|s),   starts mu_0,   no early ends
#
# Both likelihoods see a panel through its counts alone, so at these counts each is its expected log
# score a trajectory, and its maximiser is where estimates go. Nothing is simulated.


# %%
def counted(game: mfg.MeanFieldGame, counts: Counts, n_agents: int) -> mfg.CountedPanel:
    """Return counts as a panel."""
    T, S, _ = game.shape
    return mfg.CountedPanel(
        space=game.space,
        actions=game.actions,
        first_time=0,
        horizon=T,
        counts=counts,
        visits=np.vstack([counts.actions.sum(-1), np.zeros(S)]),
        carried_visits=np.zeros((T + 1, S)),
        absorbed=np.zeros((T + 1, S)),
        steps=np.zeros((0, 4), dtype=int),
        step_counts=np.zeros(0),
        n_agents=n_agents,
        n_trajectories=n_agents,
        n_late=0,
        lengths=(T, T),
    )


def expected_panel(game: mfg.MeanFieldGame, world: Any) -> mfg.CountedPanel:
    """Return the expected counts of one agent in an equilibrium, as a panel."""
    T, S, A = game.shape
    often = (world.mean_field[:, :, None] * world.policy).numpy()
    starts = np.zeros((T, S))
    starts[0] = game.initial.numpy()
    return counted(game, Counts(often, starts, np.zeros((T, S)), np.zeros((T, S, A))), 1)


def equilibrium(case: Case) -> Any:
    """Return the equilibrium of the truth."""
    return mfg.solve_equilibrium(case.game, case.reward, parameters=case.truth, throw=True).value


def fit(
    case: Case, world: Any, panel: Any, law: str, init: dict[str, float] | None = None
) -> mfg.results.PointEstimate:
    """Return the maximum of a likelihood."""
    model = mfg.TrajectoryModel(
        case.game, case.reward, panel, mean_field=world.mean_field, **LAWS[law]
    )
    return mfg.mle(model, init=init, svi_steps=0, progressbar=False)


def limits(case: Case) -> dict[str, mfg.results.PointEstimate]:
    """Return where the estimates of each law go as the panel grows; `llf` is nats a trajectory."""
    world = equilibrium(case)
    panel = expected_panel(case.game, world)
    return {law: fit(case, world, panel, law) for law in LAWS}


# %% [markdown]
# ## Inference
#
# First the limits; then panels of growing size, their flow known; then predictive scores of one
# panel each; then a dial from the deterministic game to a noisy one, and from one start to many.


# %%
def limit_table(found: dict[str, dict[str, mfg.results.PointEstimate]]) -> pd.DataFrame:
    """Return one row per game and parameter."""
    rows = [
        {"game": game, "parameter": name, "truth": value}
        | {law: float(point.params[name]) + 0.0 for law, point in found[game].items()}
        for game, case in cases().items()
        for name, value in case.truth.items()
    ]
    return pd.DataFrame(rows)


def finite_data(case: Case, sizes: tuple[int, ...], n_panels: int) -> pd.DataFrame:
    """Return estimates and whether they cover, by panel size, law, parameter and panel."""
    world, rows = equilibrium(case), []
    for n in sizes:

        def task(seed: int, n: int = n) -> list[dict[str, Any]]:
            panel = mfg.simulate(
                case.game, world.policy, world.mean_field, n_agents=n, random_seed=seed
            )
            panel = counted(case.game, panel.counts, n)
            points = {law: fit(case, world, panel, law, case.truth) for law in LAWS}
            return [
                {
                    "agents": n,
                    "law": law,
                    "parameter": name,
                    "error": point.params[name] - value,
                    "covered": bounds["lower"][name] <= value <= bounds["upper"][name],
                }
                for law, point in points.items()
                for bounds in [point.conf_int(ci_prob=CI_PROB)]
                for name, value in case.truth.items()
            ]

        runs = mfg.calibration.replicate(task, n_panels, random_seed=SEED, progressbar=False)
        rows += [row for run in runs for row in run]
    return pd.DataFrame(rows)


def finite_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return bias, root mean squared error and coverage."""
    found = found.assign(square=found["error"] ** 2)
    by = found.groupby(["parameter", "agents", "law"], sort=False)
    table = pd.DataFrame(
        {
            "bias": by["error"].mean(),
            "r.m.s. error": np.sqrt(by["square"].mean()),
            "coverage": by["covered"].mean(),
        }
    )
    return table.reset_index().sort_values("parameter", kind="stable")


def scores(
    case: Case, points: dict[str, mfg.results.PointEstimate], draws: int
) -> list[dict[str, Any]]:
    """Return what each energy law loses to the causal one: in expectation, and by LOO."""
    world = equilibrium(case)
    panel = mfg.simulate(
        case.game, world.policy, world.mean_field, n_agents=SCORED, random_seed=SEED
    )
    by_law = {}
    for law, options in LAWS.items():
        model = mfg.TrajectoryModel(
            case.game, case.reward, panel, mean_field=world.mean_field, **options
        )
        tree = mfg.nuts(
            model, draws=draws, tune=500, chains=4, cores=1, random_seed=SEED, progressbar=False
        )
        by_law[law] = arviz_stats.loo(tree, pointwise=True).elpd_i.values.ravel()
    rows = []
    for law in ENERGY:
        gap = by_law["causal"] - by_law[law]
        rows.append(
            {
                "law": law,
                "expected, a trajectory": points["causal"].llf - points[law].llf,
                "LOO, a trajectory": gap.mean(),
                "s.e.": gap.std(ddof=1) / np.sqrt(SCORED),
                f"LOO, {SCORED} trajectories": gap.sum(),
            }
        )
    return rows


def noisy(share: float) -> Case:
    """Return RPS where a hand is drawn at random with a chance, whatever the action."""
    rps = rock_paper_scissors
    calm = np.asarray(rps.game().transition).reshape(4, 3, 4)
    noise = np.zeros_like(calm)
    noise[:, :, 1:] = 1 / 3
    game = rps.game().replace(transition=(1 - share) * calm + share * noise)
    return Case(game, rps.reward, rps.TRUTH)


def spread(share: float) -> Case:
    """Return RPS where a share of the crowd begins anywhere."""
    rps = rock_paper_scissors
    initial = (1 - share) * np.eye(4)[0] + share / 4
    return Case(rps.game().replace(initial=initial), rps.reward, rps.TRUTH)


def turn_dial(dial: np.ndarray) -> pd.DataFrame:
    """Return limits over their truth along both dials."""
    rows = []
    for what, at in (("noise", noisy), ("start", spread)):
        for share in dial:
            case = at(float(share))
            for law, point in limits(case).items():
                ratios = {k: float(point.params[k]) / v for k, v in case.truth.items()}
                rows.append({"dial": what, "share": float(share), "law": law} | ratios)
    return pd.DataFrame(rows)


# %% [markdown]
# ## Checks
#
# The causal limit is the truth. Failure: an error above 1e-6. At the end of each dial where the
# laws agree, so do the limits. Failure: a ratio away from 1 by 1e-6. An energy limit is where
# estimates of a very large panel go. Failure: a distance above five standard errors, which are
# clustered, as the law is wrong.


# %%
def check_limits(table: pd.DataFrame, dial: pd.DataFrame) -> None:
    """Raise where a limit is not what it must be."""
    missed = float((table["causal"] - table["truth"]).abs().max())
    ratios = dial[list(rock_paper_scissors.TRUTH)]
    exact = (dial["share"] == 0) | (dial["law"] == "causal")
    exact |= (dial["dial"] == "start") & (dial["law"] == "energy, given the start")
    apart = float((ratios[exact] - 1).abs().max(axis=None))
    if missed > 1e-6 or apart > 1e-6:
        raise RuntimeError(
            f"the causal limits miss the truth by {missed:.1e}; dials by {apart:.1e}"
        )
    print(f"causal limits miss the truth by {missed:.1e} at most; agreeing laws by {apart:.1e}")


def check_large_panel(
    case: Case, points: dict[str, mfg.results.PointEstimate], n_agents: int
) -> None:
    """Raise where estimates of a large panel are far from their limit."""
    world = equilibrium(case)
    panel = mfg.simulate(
        case.game, world.policy, world.mean_field, n_agents=n_agents, random_seed=SEED
    )
    for law, limit in points.items():
        point = fit(case, world, panel, law)
        z = (point.params - limit.params) / point.standard_errors("cluster")
        if z.abs().max() > 5:
            raise RuntimeError(f"{law}: {n_agents} agents are {z.abs().max():.1f} s.e. away")
        print(f"{law}: {n_agents} agents are at most {z.abs().max():.1f} s.e. from the limit")


# %% [markdown]
# ## Answer
#
# Tables of limits, of finite panels and of scores, and two figures; they are read in
# `docs/likelihoods.md`.


# %%
def draw_finite(
    case: Case, found: pd.DataFrame, points: dict[str, mfg.results.PointEstimate]
) -> plt.Figure:
    """Draw means and central 90% of estimates by the size of the panel."""
    figure, axes = plt.subplots(1, len(case.truth), figsize=(8.6, 3.4))
    for axis, (name, value) in zip(axes, case.truth.items(), strict=True):
        for k, (law, colour) in enumerate(COLOURS.items()):
            here = found[(found["law"] == law) & (found["parameter"] == name)]
            errors = here.groupby("agents")["error"]
            middle, low, high = errors.mean(), errors.quantile(0.05), errors.quantile(0.95)
            place = middle.index * 1.12 ** (k - 1)
            axis.vlines(place, value + low, value + high, color=colour, lw=2)
            axis.plot(place, value + middle, "o", ms=5, color=colour, label=law)
            axis.axhline(points[law].params[name], color=colour, lw=0.8, ls=":")
        axis.axhline(value, color=GREY, lw=1)
        axis.text(400, value, "truth", ha="center", va="bottom", fontsize=8, color=GREY)
        axis.set_xscale("log")
        axis.set_xlabel("agents in the panel")
        axis.set_ylabel(f"{name}, estimate (reward units)")
    axes[-1].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def draw_dial(dial: pd.DataFrame) -> plt.Figure:
    """Draw limits over their truth along both dials."""
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.4), sharey=True)
    labels = {
        "noise": "chance that a hand is drawn at random",
        "start": "share of agents who begin anywhere",
    }
    for axis, (what, label) in zip(axes, labels.items(), strict=True):
        for law, colour in COLOURS.items():
            here = dial[(dial["dial"] == what) & (dial["law"] == law)]
            wide = law == "energy, given the start"  # drawn below the line that it equals
            look = {"color": colour, "lw": 5 if wide else 1.6, "zorder": 1 if wide else 2}
            axis.plot(here["share"], here["win"], "-", label=law, **look)
            if not wide:
                axis.plot(here["share"], here["lose"], "--", **look)
        axis.set_xlabel(label)
    axes[0].set_ylabel("limit of the estimate / truth")
    axes[0].set_ylim(0.0, 1.05)
    axes[1].legend(frameon=False, fontsize=8, loc="lower left")
    figure.tight_layout()
    return figure


def save(figure: plt.Figure, path: Path) -> None:
    """Write a figure and close it."""
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the analysis and write its tables and figures."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    found = {name: limits(case) for name, case in cases().items()}
    table, dial = limit_table(found), turn_dial(DIAL[::4] if quick else DIAL)
    check_limits(table, dial)
    write_table(table, out, "limits")
    save(draw_dial(dial), out / "dial.png")
    dial.to_csv(out / "dial.csv", index=False)
    noisy_games = {k: v for k, v in cases().items() if k in ("INVEST", "MALWARE", "SIS")}
    for name, case in noisy_games.items():
        check_large_panel(case, found[name], 10_000 if quick else 100_000)
    scored = [
        {"game": name} | row
        for name, case in noisy_games.items()
        for row in scores(case, found[name], 500 if quick else 1000)
    ]
    write_table(pd.DataFrame(scored), out, "scores")
    case = noisy_games["MALWARE"]
    errors = finite_data(case, (100, 1000) if quick else SIZES, 5 if quick else N_PANELS)
    write_table(finite_table(errors), out, "finite")
    save(draw_finite(case, errors, found["MALWARE"]), out / "finite.png")


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="fewer and smaller panels")
