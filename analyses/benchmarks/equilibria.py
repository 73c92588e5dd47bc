"""What equilibria cost beside MFGLib: one iteration, and exploitability for the same computing.

Run `python analyses/benchmarks/equilibria.py --out FOLDER`. Both libraries solve MFGLib's own
environments, and MFGLib's function judges the policies of both. Times are those of computing, on
one core.
"""

# %% Constants

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import mfglib.alg  # before mfglib.scoring, which needs it
import numpy as np
import torch
from mfglib.env import Environment
from mfglib.scoring import exploitability_score
from tables import markdown
from timing import time_in_turns

import mfgppl as mfg
from mfgppl.equilibrium.linearisation import AnyResponseMap, response_map_of

ENVIRONMENTS = (
    "beach_bar", "building_evacuation", "conservative_treasure_hunting", "crowd_motion",
    "equilibrium_price", "left_right", "linear_quadratic", "random_linear", "rock_paper_scissors",
    "susceptible_infected",
)  # fmt: skip
TIMED = ("susceptible_infected", "crowd_motion", "building_evacuation", "beach_bar")
HORIZONS, QUICK_HORIZONS = (10, 20, 50, 100, 200, 400), (10, 20)
WIDTHS, QUICK_WIDTHS = (5, 10, 20, 30, 40), (5, 10)
SECONDS, QUICK_SECONDS = 30.0, 2.0  # a library's time on one environment
AIM = 1e-7  # exploitability over the reward's bound at which mfgppl stops
BATCH = 10
PROBED = 5  # steps of MFGLib's algorithms that say how many fit into a time
THEIR_STEPS, OUR_STEPS = 50, 1_000  # of a whole call


# %% Models: a step of mirror descent in both libraries


def their_step(env: Environment) -> Callable[[], Any]:
    """Return one step of MFGLib's mirror descent, without its certificate."""
    descent = mfglib.alg.OnlineMirrorDescent()
    start = descent.init_state(env, torch.ones((env.T + 1, *env.S, *env.A)) / env.n_actions)
    return lambda: descent.step_next_state(start, None, None)


def order_products(env: Environment) -> None:
    """Let torch order the factors of MFGLib's products, or not: whichever is faster there."""
    step = their_step(env)

    def ordered(order: bool) -> None:
        torch.backends.opt_einsum.enabled = order
        step()

    ways = {str(order): lambda order=order: ordered(order) for order in (True, False)}
    timing = time_in_turns(ways, rounds=3, clock=time.process_time)
    torch.backends.opt_einsum.enabled = timing["True"].median < timing["False"].median


def our_world(env: Environment) -> AnyResponseMap:
    """Return MFGLib's environment as the arrays that our solvers work on."""
    game, reward = mfg.interop.from_mfglib(env)
    return response_map_of(game, reward, {})


def our_steps(env: Environment) -> Callable[[], Any]:
    """Return a batch of steps of our mirror descent, as `solve_nash` takes them."""
    response_map = our_world(env)
    logits = np.zeros(response_map.game.shape)
    return lambda: response_map.mirrored(logits, 0.01, BATCH)


def one_iteration(env: Environment, rounds: int) -> tuple[float, float]:
    """Return microseconds of a step in MFGLib and here."""
    order_products(env)
    steps = {"theirs": their_step(env), "ours": our_steps(env)}
    timing = time_in_turns(steps, rounds=rounds, clock=time.process_time)
    return timing["theirs"].median, timing["ours"].median / BATCH


def one_of_a_call(env: Environment, rounds: int) -> tuple[float, float]:
    """Return microseconds of a step within a call, certificates included, there and here."""
    order_products(env)
    game, reward = mfg.interop.from_mfglib(env)
    algorithm = mfglib.alg.OnlineMirrorDescent()
    calls = {
        "theirs": lambda: algorithm.solve(env, max_iter=THEIR_STEPS, atol=None, rtol=None),
        "ours": lambda: mfg.solve_nash(
            game, reward, method="mirror_descent", max_steps=OUR_STEPS, tolerance=0.0
        ),
    }
    timing = time_in_turns(calls, rounds=rounds, clock=time.process_time)
    return timing["theirs"].median / THEIR_STEPS, timing["ours"].median / OUR_STEPS


# %% Inference: exploitability for the same seconds of computing


def ours(env: Environment, seconds: float) -> tuple[float, float, str]:
    """Return exploitability by MFGLib's judgement, seconds, and how."""
    game, reward = mfg.interop.from_mfglib(env)
    began = time.process_time()
    best, how, steps = np.inf, "", 400
    while time.process_time() - began < seconds:
        found = mfg.solve_nash(game, reward, tolerance=AIM * env.r_max, max_steps=steps)
        score = exploitability_score(env, mfg.interop.to_mfglib(found.value.policy, env))
        if score < best:
            best, how = score, f"{time.process_time() - began:.1f}"
        if found.converged or steps > 10_000:
            break
        steps *= 5
    return max(best, 0.0), time.process_time() - began, how


def theirs(env: Environment, seconds: float) -> tuple[float, str]:
    """Return the least exploitability of MFGLib's algorithms, each with so many seconds.

    MFGLib's fictitious play does not run where actions have several axes.
    """
    order_products(env)
    algorithms = [
        mfglib.alg.OnlineMirrorDescent(), mfglib.alg.OnlineMirrorDescent(alpha=0.1),
        mfglib.alg.PriorDescent(), mfglib.alg.PriorDescent(n_inner=10), mfglib.alg.MFOMO(),
    ]  # fmt: skip
    if len(env.A) == 1:
        algorithms += [mfglib.alg.FictitiousPlay(), mfglib.alg.FictitiousPlay(alpha=0.1)]
    best, name = np.inf, ""
    for algorithm in algorithms:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            began = time.process_time()
            algorithm.solve(env, max_iter=PROBED, atol=None, rtol=None)
            n = max(int(seconds * PROBED / (time.process_time() - began)), PROBED)
            _, scores, _ = algorithm.solve(env, max_iter=n, atol=None, rtol=None)
        if min(scores) < best:
            best, name = min(scores), type(algorithm).__name__
    return max(best, 0.0), name


# %% Checks: both see the same game


def same_game(env: Environment) -> None:
    """Compare the uniform policy's exploitability, by both libraries."""
    game, reward = mfg.interop.from_mfglib(env)
    uniform = torch.full(game.shape, 1 / game.n_actions, dtype=torch.float64)
    own = mfg.equilibrium.exploitability(game, reward, uniform)
    other = exploitability_score(env, mfg.interop.to_mfglib(uniform, env))
    assert abs(own - other) <= 1e-4 * max(other, 1.0), (own, other)


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Run everything; return and write the tables."""
    matplotlib.use("agg")
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    rounds = 3 if quick else 15
    rows = []
    for name in TIMED[: 2 if quick else None]:
        env = getattr(Environment, name)()
        same_game(env)
        size = f"{env.T + 1} x {np.prod(env.S)} x {np.prod(env.A)}"
        row = [name, size]
        for measure in (one_iteration, one_of_a_call):
            other, own = measure(env, rounds)
            row += [f"{other:,.0f}", f"{own:,.0f}", f"{other / own:.0f}"]
        rows.append(row)
    columns = [
        "environment", "times x states x actions", "a step: MFGLib, us", "mfgppl, us", "ratio",
        "in a call: MFGLib, us", "mfgppl, us", "ratio",
    ]  # fmt: skip
    text = [markdown("One iteration of mirror descent", columns, rows)]
    _draw(out, quick, rounds)
    for env in (
        Environment.susceptible_infected(T=3),
        Environment.crowd_motion(torus_l=5, torus_w=5),
    ):
        ours(env, 1.0)  # numba compiles its kernels, or finds them on disk
    rows = []
    for name in ENVIRONMENTS[4:6] if quick else ENVIRONMENTS:
        env = getattr(Environment, name)()
        same_game(env)
        limit = QUICK_SECONDS if quick else SECONDS
        score, spent, when = ours(env, limit)
        other, algorithm = theirs(env, max(spent, 0.5))
        rows.append([
            name, f"{spent:.1f}", f"{score / env.r_max:.1e}", when, f"{other / env.r_max:.1e}",
            algorithm,
        ])  # fmt: skip
    columns = [
        "environment", "seconds for each", "mfgppl", "reached after, s", "MFGLib's best", "by",
    ]  # fmt: skip
    title = "Exploitability over the reward's bound, by MFGLib's judgement"
    text.append(markdown(title, columns, rows))
    (out / "equilibria.md").write_text("\n".join(text))
    return "\n".join(text)


def _draw(out: Path, quick: bool, rounds: int) -> None:
    """Draw time against horizon (SIS) and states (crowd motion)."""
    horizons, widths = (QUICK_HORIZONS, QUICK_WIDTHS) if quick else (HORIZONS, WIDTHS)
    by_time = [one_iteration(Environment.susceptible_infected(T=n), rounds) for n in horizons]
    by_state = [
        one_iteration(Environment.crowd_motion(torus_l=n, torus_w=n), rounds) for n in widths
    ]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    panels = [
        (axes[0], list(horizons), by_time, "decision times (SIS)"),
        (axes[1], [n * n for n in widths], by_state, "states (crowd motion, 4 times)"),
    ]
    for axis, sizes, taken, label in panels:
        for k, (name, colour) in enumerate((("MFGLib", "#888888"), ("mfgppl", "#c1440e"))):
            axis.loglog(sizes, [t[k] for t in taken], marker="o", color=colour, label=name)
        axis.set_xlabel(label)
        axis.set_ylabel("microseconds an iteration")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(out / "equilibria.png", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few environments, seconds each")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
