"""Two ways to the coupled estimate: `mle`, and the efficient pseudo-likelihood from the plug-in.

Run `python analyses/benchmarks/efficient.py --out FOLDER`.
"""

# %% Constants

import argparse
import importlib
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from tables import markdown, ratio

import mfgppl as mfg

GAMES = [
    "beach_bar", "equilibrium_price", "invest", "lasry_lions", "left_right", "linear_quadratic",
    "malware", "market", "multiple_equilibria", "random_game", "rock_paper_scissors", "sir", "sis",
    "stationary_repair", "traffic_routing", "treasure_hunting", "crowd_motion",
]  # fmt: skip
QUICK_GAMES = ["left_right", "market"]
N_AGENTS, N_TIMES = 300, 20  # times of games without a horizon
ROUNDS, QUICK_ROUNDS = 3, 1


# %% Model: both from the game and the panel on, nothing recorded or compiled before


def one_game(name: str, rounds: int) -> list[str]:
    """Return a row of seconds of computing and of how far the two ends are apart."""
    module = importlib.import_module(f"mfgppl.models.{name}")
    game = module.game()
    world = mfg.solve_equilibrium(game, module.reward, parameters=module.TRUTH, throw=True).value
    panel = mfg.simulate(
        game, world.policy, world.mean_field, n_agents=N_AGENTS, random_seed=1,
        n_times=N_TIMES if game.stationary else None,
    )  # fmt: skip

    def coupled() -> Any:
        model = mfg.TrajectoryModel(module.game(), module.reward, panel, mean_field="equilibrium")
        return mfg.mle(model, progressbar=False)

    def efficient() -> Any:
        model = mfg.TrajectoryModel(module.game(), module.reward, panel)
        return mfg.flows.efficient_pseudo_likelihood(model)

    fit, found = coupled(), efficient()  # kernels are loaded once
    seconds: dict[Any, list[float]] = {coupled: [], efficient: []}
    for k in range(rounds):
        for way in (coupled, efficient)[:: 1 if k % 2 == 0 else -1]:
            began = time.process_time()
            way()
            seconds[way].append(time.process_time() - began)
    slow, fast = (float(np.median(s)) for s in seconds.values())
    known = fit.bse.notna()
    apart = float(((found.params - fit.params) / fit.bse)[known].abs().max())
    shortened = int(found.path["shortened"].sum())
    return [name, f"{len(found.path)}", f"{shortened}", "yes" if found.converged else "no",
            f"{abs(found.estimate.llf - fit.llf):.0e}", f"{apart:.0e}", f"{slow:.2f}",
            f"{fast:.2f}", ratio(fast, slow)]  # fmt: skip


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Time all games; return and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    rounds, games = (QUICK_ROUNDS, QUICK_GAMES) if quick else (ROUNDS, GAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of several equilibria, and of what is not identified
        rows = [one_game(name, rounds) for name in games]
    columns = ["game", "steps", "shortened", "converged", "nats apart", "errors apart", "mle, s",
               "efficient, s", "efficient / mle"]  # fmt: skip
    text = markdown("The coupled estimate, two ways", columns, rows)
    (out / "efficient.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two games, one round")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
