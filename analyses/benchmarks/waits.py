"""What a user waits for: seconds of each step from a table to a report, in a fresh process.

Run `python analyses/benchmarks/waits.py --out FOLDER` on a quiet machine: one process finds no
compiled kernel on disk, as after an installation, a second finds those of the first, and takes the
steps twice. Before that, what it costs to declare shocks of each period.
"""

# %% Constants

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tables import markdown, ratio
from timing import time_in_turns

N_AGENTS, QUICK_AGENTS = 300, 100
DRAWS, QUICK_DRAWS = 1000, 100
STEPS = ("import", "panel and model", "mle", "nuts", "report")

# %% Inference: the steps, in this process


def steps(n_agents: int, draws: int, times: int) -> list[dict[str, float]]:
    """Return seconds of each step, as many times as asked."""
    began = time.perf_counter()
    import mfgppl as mfg
    from mfgppl.models import market

    imported = time.perf_counter() - began
    table, rows = market.frame(n_agents), []
    for k in range(times):
        row = {"import": imported} if k == 0 else {}
        made: dict[str, Any] = {}
        acts: dict[str, Callable[[], Any]] = {
            "panel and model": lambda: market.model(
                mfg.Trajectories.from_frame(table, **market.COLUMNS)
            ),
            "mle": lambda made=made: mfg.mle(made["panel and model"], progressbar=False),
            "nuts": lambda made=made: mfg.nuts(
                made["panel and model"], draws=draws, tune=draws, random_seed=1, progressbar=False
            ),
            "report": lambda made=made: mfg.report(
                made["nuts"], "report.html", model=made["panel and model"], overwrite=True
            ),
        }
        for name, act in acts.items():
            began = time.perf_counter()
            made[name] = act()
            row[name] = time.perf_counter() - began
        rows.append(row)
    return rows


def first_and_second(n_agents: int, draws: int, *, anew: bool) -> list[dict[str, float]]:
    """Return seconds of the steps in a first process, in a second, and there once more.

    The first finds no kernel on disk, if it is to begin anew.
    """
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        surroundings = os.environ | {"MPLBACKEND": "agg"}
        if anew:
            surroundings["NUMBA_CACHE_DIR"] = f"{folder}/kernels"
        for times in (1, 2):
            command = [sys.executable, "-W", "ignore", __file__, "--work"]
            numbers = [str(n) for n in (n_agents, draws, times)]
            ran = subprocess.run(
                [*command, *numbers], check=True, stdout=subprocess.PIPE, text=True, cwd=folder,
                env=surroundings,
            )  # fmt: skip
            found += json.loads(ran.stdout.splitlines()[-1])
    return found


# %% Shocks of each period


def shocks(n_agents: int) -> str:
    """Return microseconds of value and gradient with and without shocks of each period."""
    import pyro.distributions as dist

    import mfgppl as mfg
    from mfgppl.density.of_model import density_of
    from mfgppl.models import market

    def with_shocks(x: mfg.RewardInputs) -> Any:
        shock = mfg.period_effects(x, "cuts", dist.Normal(0.0, 1.0)) * (x.action == "lower")
        return mfg.Preferences(market.reward(x), shock=shock)

    panel = mfg.Trajectories.from_frame(market.frame(n_agents), **market.COLUMNS)
    calls = {}
    for name, reward in (("none", market.reward), ("one of each month", with_shocks)):
        density = density_of(mfg.TrajectoryModel(market.game(), reward, panel))
        evaluate, theta = density.evaluator(), density.program.draw(0)
        calls[name] = lambda e=evaluate, at=theta: e(at)
    timed = time_in_turns(calls, rounds=15)
    rows = [
        [name, f"{t.median:.0f}", ratio(t.median, timed["none"].median)]
        for name, t in timed.items()
    ]
    header = ["shocks", "microseconds", "/ none"]
    return markdown("The market, 24 months: value and gradient", header, rows)


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Return and write the tables as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    sizes = (QUICK_AGENTS, QUICK_DRAWS) if quick else (N_AGENTS, DRAWS)
    columns = first_and_second(*sizes, anew=not quick)
    rows = [[name, *(f"{c[name]:.2f}" if name in c else "" for c in columns)] for name in STEPS]
    rows.append(["all", *(f"{sum(c.values()):.2f}" for c in columns)])
    header = ["step", "nothing on disk, s", "kernels on disk, s", "again, s"]
    title = f"{sizes[0]} firms, 24 months; NUTS of 4 chains of {sizes[1]} + {sizes[1]}"
    text = f"{markdown(title, header, rows)}\n{shocks(sizes[0])}"
    (out / "waits.md").write_text(text)
    return text


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        print(json.dumps(steps(*map(int, sys.argv[2:]))))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few firms and draws, and the kernels that the disk has",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
