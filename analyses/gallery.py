# %% [markdown]
# # The gallery of games
#
# **Question.** Does every game of the gallery have an equilibrium at its true parameters, what does
# it look like, and does a simulated panel give the parameters back?
#
# Run `python analyses/gallery.py` (about a minute) or, smaller, with `--quick`.

# %%
"""A picture of each game of the gallery: its equilibrium flow and the recovery of its reward."""

import importlib
import inspect
import pkgutil
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import SubFigure
from output import run, significant, write_table

import mfgppl as mfg
import mfgppl.models
from mfgppl.plots.style import DOT, INK

SEED = 1
STANDARD_ERRORS = 3.0
STATIONARY = 20  # decisions of an agent in a game without a horizon
MOST_LABELS = 12  # states whose labels fit on an axis
MOST_NUMBERS = 24  # cells of a heatmap that are filled with their numbers
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "gallery"
COLOURS = "Blues"


# %% [markdown]
# ## Data
#
# The files of `mfgppl.models` that know their true parameters. Each is solved at them, and agents
# who play its equilibrium are drawn.


# %%
class Played(NamedTuple):
    """A game of the gallery, solved and estimated.

    Attributes
    ----------
    name : str
        Name of its file.
    file : module
        The file.
    game : MeanFieldGame
        The game.
    solution : Solution
        The equilibrium at the true parameters.
    point : PointEstimate
        Maximum likelihood from a panel of agents in that equilibrium, its flow given.
    """

    name: str
    file: ModuleType
    game: mfg.MeanFieldGame
    solution: Any
    point: mfg.results.PointEstimate


def gallery() -> dict[str, ModuleType]:
    """Return the files with true parameters by name."""
    names = [name for _, name, _ in pkgutil.iter_modules(mfgppl.models.__path__)]
    files = {name: importlib.import_module(f"mfgppl.models.{name}") for name in sorted(names)}
    return {name: file for name, file in files.items() if file.TRUTH is not None}


# %% [markdown]
# ## Model and inference
#
# The causal likelihood with the true flow, so that standard errors account for all that is unknown.


# %%
def play(name: str, file: ModuleType, n_agents: int) -> Played:
    """Solve a game, draw a panel and estimate its reward."""
    game = file.game()
    solution = mfg.solve_equilibrium(game, file.reward, parameters=file.TRUTH, throw=True)
    policy, flow = solution.value.policy, solution.value.mean_field
    n_times = STATIONARY if game.stationary else None
    panel = mfg.simulate(game, policy, flow, n_agents=n_agents, random_seed=SEED, n_times=n_times)
    model = mfg.TrajectoryModel(game, file.reward, panel, mean_field=flow)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        point = mfg.mle(model, progressbar=False)
    return Played(name, file, game, solution, point)


def distances(played: Played) -> pd.Series:
    """Return how many standard errors each identified estimate is from the truth."""
    truth = pd.Series(played.file.TRUTH)
    away = (played.point.params[truth.index] - truth) / played.point.bse[truth.index]
    return away.drop(list(getattr(played.file, "UNIDENTIFIED", ())))


def summary(all_played: list[Played]) -> pd.DataFrame:
    """Return one row per game."""
    rows = []
    for played in all_played:
        steps, *sizes = played.game.shape
        rows.append(
            {
                "game": played.name,
                "states": sizes[0],
                "actions": sizes[1],
                "decisions": "for ever" if played.game.stationary else str(steps),
                "residual": played.solution.residual,
                "solver steps": played.solution.n_steps,
                "furthest estimate (s.e.)": distances(played).abs().max(),
            }
        )
    return pd.DataFrame(rows)


# %% [markdown]
# ## Checks
#
# Each equilibrium has a residual within the solver's tolerance, and each identified parameter is
# within three standard errors of the truth. Failure: a name that is raised below. With some fifty
# parameters, one beyond three standard errors would be no proof of an error; at this seed none is.


# %%
def check(table: pd.DataFrame) -> None:
    """Raise where a game is not solved or not recovered."""
    far = table[~(table["furthest estimate (s.e.)"] <= STANDARD_ERRORS)]
    rough = table[~(table["residual"] <= 1e-10)]
    if len(far) or len(rough):
        raise RuntimeError(f"not recovered: {[*far['game']]}; not solved: {[*rough['game']]}")


# %% [markdown]
# ## Answer
#
# One figure per game, a table, and the page's sections, drawn from the files' own docstrings by one
# template; they are read in `docs/gallery.md`.


# %%
def as_map(played: Played, flow: np.ndarray) -> np.ndarray | None:
    """Return shares (S,) as a picture of the plane, several side by side, None without a plane."""
    if played.name == "four_rooms":
        house = np.full(np.max(played.file.CELLS, axis=0) + 1, np.nan)
        house[tuple(np.transpose(played.file.CELLS))] = flow
        return house
    sizes = {k: len(v) for k, v in played.game.space.coordinates.items()}
    if list(sizes)[-2:] != ["row", "column"]:
        return None
    sheets = flow.reshape(-1, sizes["row"], sizes["column"])
    gap = np.full((len(sheets), sizes["row"], 1), np.nan)
    return np.hstack(list(np.concatenate([sheets, gap], axis=2)))[:, :-1]


def draw_maps(panel: SubFigure, played: Played, flow: np.ndarray) -> None:
    """Draw the plane at three times."""
    times = [0, len(flow) // 2, len(flow) - 1]
    maps = [as_map(played, flow[t]) for t in times]
    several = maps[0].shape[1] > 1.5 * maps[0].shape[0]
    axes = panel.subplots(*((3, 1) if several else (1, 3)))
    first, labels = next(iter(played.game.space.coordinates.items()))
    for axis, time, plane in zip(axes, times, maps, strict=True):
        axis.set_facecolor("#d9d9d9" if not several else "none")
        image = axis.imshow(plane, cmap=COLOURS, vmin=0)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(not several)
        (axis.set_ylabel if several else axis.set_title)(f"time {time}", fontsize=9)
        bar = panel.colorbar(image, ax=axis, shrink=0.9 if several else 0.45)
        bar.ax.tick_params(labelsize=7)
        bar.set_label("share", fontsize=8)
    if several:
        names = [v if isinstance(v, str) else f"{first} {v}" for v in labels]
        width = maps[0].shape[1]
        ticks = (np.arange(len(names)) + 0.5) * (width + 1) / len(names) - 1
        axes[-1].set_xticks(ticks, names, fontsize=9)
        axes[-1].tick_params(length=0)


def draw_flow(panel: SubFigure, played: Played, flow: np.ndarray) -> None:
    """Draw shares of states against time, or as bars where there is no time."""
    axis = panel.subplots()
    labels = [label if isinstance(label, str) else str(label) for label in state_names(played)]
    what = ", ".join(played.game.space.coordinates)
    if len(flow) == 1:
        axis.bar(np.arange(len(labels)), flow[0], color=INK)
        axis.set_xticks(np.arange(len(labels)), labels)
        axis.set_xlabel(what)
        axis.set_ylabel("share of the crowd")
        axis.spines[["top", "right"]].set_visible(False)
        return
    image = axis.imshow(flow.T, cmap=COLOURS, vmin=0, aspect="auto", interpolation="nearest")
    every = -(-len(labels) // MOST_LABELS)
    axis.set_yticks(np.arange(0, len(labels), every), labels[::every], fontsize=8)
    axis.xaxis.set_major_locator(plt.MaxNLocator(8, integer=True))
    axis.set_xlabel("time")
    axis.set_ylabel(what)
    if flow.size <= MOST_NUMBERS:
        for (t, s), share in np.ndenumerate(flow):
            shade = "white" if share > 0.6 * flow.max() else INK
            axis.text(t, s, f"{share:.2f}", ha="center", va="center", color=shade, fontsize=9)
    panel.colorbar(image, ax=axis, label="share of the crowd")


def state_names(played: Played) -> list[str]:
    """Return a name for each state."""
    sizes = [list(v) for v in played.game.space.coordinates.values()]
    grid = np.meshgrid(*[np.array(v, dtype=object) for v in sizes], indexing="ij")
    return [", ".join(map(str, names)) for names in zip(*[g.ravel() for g in grid], strict=True)]


def draw_recovery(panel: SubFigure, played: Played) -> None:
    """Draw a strip a parameter: the estimate and three standard errors against the truth."""
    axes = np.atleast_1d(panel.subplots(len(played.file.TRUTH), 1))
    for axis, (name, truth) in zip(axes, played.file.TRUTH.items(), strict=True):
        estimate, error = played.point.params[name], played.point.bse[name]
        axis.axvline(truth, color=DOT, lw=1.5)
        axis.set_yticks([0], [name])
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelsize=8)
        axis.set_ylim(-1, 1)
        axis.spines[["top", "left", "right"]].set_visible(False)
        if name in getattr(played.file, "UNIDENTIFIED", ()):
            axis.set_xlim(truth - 1, truth + 1)
            axis.text(truth + 0.06, 0, "not identified", color=INK, va="center", fontsize=9)
        else:
            reach = 1.15 * (abs(estimate - truth) + STANDARD_ERRORS * error)
            axis.errorbar(estimate, 0, xerr=STANDARD_ERRORS * error, fmt="o", ms=5, color=INK)
            axis.set_xlim(truth - reach, truth + reach)
        axis.xaxis.set_major_locator(plt.MaxNLocator(4))
    axes[-1].set_xlabel("estimate, 3 s.e. (line: truth)", fontsize=9)


def draw_figure(played: Played) -> plt.Figure:
    """Draw the equilibrium flow on the left and the recovery on the right."""
    figure = plt.figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.7, 1), wspace=0.04)
    flow = played.solution.value.mean_field
    flow = (flow.sum(-1) if played.game.joint else flow).numpy()
    (draw_flow if as_map(played, flow[0]) is None else draw_maps)(left, played, flow)
    draw_recovery(right, played)
    return figure


def section(played: Played) -> str:
    """Return a game's section of the page: its docstring, picture and file."""
    question, _, text = inspect.getdoc(played.file).partition("\n")
    picture = f"![Left: shares of the crowd in equilibrium. Right: estimates of the reward's\
 parameters against the truth.](results/gallery/{played.name}.png)"
    return f"## `{played.name}`\n\n**{question}**\n{text.rstrip()}\n\n{picture}\n"


def main(quick: bool = False, out: Path | str = OUT) -> None:
    """Run the analysis and write its table, sections and figures."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    games, n_agents = (list(gallery().items())[::5], 500) if quick else (gallery().items(), 5000)
    all_played = [play(name, file, n_agents) for name, file in games]
    for played in all_played:
        figure = draw_figure(played)
        figure.savefig(out / f"{played.name}.png", dpi=110)
        plt.close(figure)
    (out / "sections.md").write_text("\n".join(section(played) for played in all_played))
    table = summary(all_played)
    write_table(table, out, "table", significant(2), csv=False)
    check(table)


if __name__ == "__main__":
    run(main, __doc__, OUT, quick="every fifth game and smaller panels")
