"""What the coupled likelihood costs: beside the plug-in density, and autograd through the solution.

Run `python analyses/benchmarks/coupled.py --out FOLDER`.
"""

# %% Constants

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tables import markdown, ratio
from timing import time_in_turns

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.equilibrium.response_map import ResponseMap
from mfgppl.models import malware, market, sis

GAMES = {"market": market, "sis": sis, "malware": malware}
N_AGENTS = 300
SPREAD = 1.0  # standard errors around the estimate: where a sampler goes
ROUNDS, QUICK_ROUNDS = 15, 2


# %% Model: value and gradient of one panel's likelihood, three ways


def one_game(module: Any, rounds: int) -> tuple[list[str], list[list[str]]]:
    """Return a row of microseconds an evaluation, and rows of what an evaluation computes."""
    game = module.game()
    world = mfg.solve_equilibrium(game, module.reward, parameters=module.TRUTH, throw=True).value
    panel = mfg.simulate(game, world.policy, world.mean_field, n_agents=N_AGENTS, random_seed=1)
    plug_in = mfg.TrajectoryModel(game, module.reward, panel)
    coupled = mfg.TrajectoryModel(game, module.reward, panel, mean_field="equilibrium")
    fit = mfg.mle(coupled, progressbar=False)
    errors = np.sqrt(np.diag(np.linalg.inv(fit.information)))
    rng = np.random.default_rng(1)
    points = fit.theta + SPREAD * errors * rng.standard_normal((50, len(errors)))
    density = density_of(coupled)
    fast, along = density.evaluator(prior=0.0, jacobian=0.0), density_of(plug_in).evaluator()
    values = density.constrained(points)
    for theta, value in zip(points[:3], values[:3], strict=True):
        assert abs(fast(theta)[0] - density.by_autograd(value)[0]) < 1e-6
    name = module.__name__.rsplit(".", 1)[-1]
    counts = [
        [name, where, *(f"{n:.1f}" for n in counts_of(fast, at))]
        for where, at in (
            ("one standard error away", points),
            ("anchor", density.anchor.theta[None]),
        )
    ]
    turn = {"k": 0}

    def following() -> int:
        turn["k"] = (turn["k"] + 1) % len(points)
        return turn["k"]

    taken = time_in_turns(
        {
            "coupled": lambda: fast(points[following()]),
            "plug-in": lambda: along(points[following()]),
            "autograd": lambda: density.by_autograd(values[following()]),
        },
        rounds=rounds,
    )
    medians = [taken[name].median for name in ("plug-in", "coupled", "autograd")]
    shape = " x ".join(map(str, game.shape))
    row = [name, shape, *(f"{m:,.0f}" for m in medians), ratio(medians[1], medians[0]),
           ratio(medians[2], medians[1])]  # fmt: skip
    return row, counts


def counts_of(evaluate: Any, points: np.ndarray) -> list[float]:
    """Return mean numbers of best responses, sweeps back and linear systems an evaluation."""
    means = []
    for kind in ("image", "pull", "sweeps"):
        plain, n = getattr(ResponseMap, kind), {"calls": 0}

        def counting(self: Any, *given: Any, plain: Any = plain, n: Any = n, **named: Any) -> Any:
            n["calls"] += 1
            return plain(self, *given, **named)

        setattr(ResponseMap, kind, counting)
        for point in points:
            evaluate(point)
        setattr(ResponseMap, kind, plain)
        means.append(n["calls"] / len(points))
    return means


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Time all games; return and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    found = [one_game(module, rounds) for module in GAMES.values()]
    columns = ["game", "times x states x actions", "plug-in, us", "coupled, us", "autograd, us",
               "coupled / plug-in", "autograd / coupled"]  # fmt: skip
    text = markdown(
        "Value and gradient of the coupled likelihood", columns, [row for row, _ in found]
    )
    kinds = ["game", "points", "best responses", "sweeps back", "linear systems"]
    counts = [row for _, rows in found for row in rows]
    text += "\n" + markdown("What an evaluation computes, means over points", kinds, counts)
    (out / "coupled.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
