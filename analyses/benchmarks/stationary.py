"""Replacement of bus engines, for ever: the stationary likelihood near a discount of one.

Run `python analyses/benchmarks/stationary.py --out FOLDER`. The world is made after Rust (1987,
Econometrica 55): 90 intervals of mileage, of which a bus moves on by none, one or two a month.
"""

# %% Constants

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from tables import markdown, ratio
from timing import time_in_turns

import mfgppl as mfg
from mfgppl.density.of_model import density_of

N_STATES, MOVES = 90, (0.35, 0.60, 0.05)
# who looks ten months ahead never pays 10 for an engine, and then the data have no estimate
TRUTHS = {
    0.9: {"cost": 20.0, "replacement": 5.0},
    0.9999: {"cost": 2.3, "replacement": 10.0},
}
N_BUSES, N_MONTHS = 100, 80
DRAWS, QUICK_DRAWS = 500, 50
SPREAD = 1.0  # standard errors around the estimate: where a sampler goes
ROUNDS, QUICK_ROUNDS = 9, 2


# %% Model: running costs grow with mileage, and a replaced engine is new


def game(discount: float) -> mfg.MeanFieldGame:
    """Return the buses' world, in which nobody minds the others."""
    moves = np.zeros((N_STATES, 2, N_STATES))
    for state in range(N_STATES):
        for step, chance in enumerate(MOVES):
            moves[state, 0, min(state + step, N_STATES - 1)] += chance
            moves[state, 1, step] += chance
    return mfg.MeanFieldGame(
        states={"mileage": range(N_STATES)},
        actions=["keep", "replace"],
        horizon=None,
        transition=moves,
        initial=np.eye(N_STATES)[0],
        discount=discount,
    )


def reward(x: mfg.RewardInputs) -> torch.Tensor:
    """Return the cost of running an old engine, or of a new one."""
    cost = pyro.sample("cost", dist.HalfNormal(5.0))
    replacement = pyro.sample("replacement", dist.HalfNormal(20.0))
    running = -0.001 * cost * x.mileage
    return torch.where(x.action == "replace", 0.0 * running - replacement, running)


# %% Inference: one evaluation by kernel and by its twin, and both fits, in seconds of computing


def one_discount(discount: float, rounds: int, n_draws: int) -> list[str]:
    """Return a row of microseconds an evaluation, the least of the rounds, and of seconds."""
    world = game(discount)
    found = mfg.solve_equilibrium(world, reward, parameters=TRUTHS[discount], throw=True).value
    panel = mfg.simulate(
        world, found.policy, found.mean_field, n_agents=N_BUSES, random_seed=1, n_times=N_MONTHS
    )
    model = mfg.TrajectoryModel(world, reward, panel)
    fit = mfg.mle(model, progressbar=False)  # kernels are loaded once
    assert fit.converged, "the points to time are around an estimate"
    law, density = model.law, density_of(model)
    errors = np.sqrt(np.diag(np.linalg.inv(fit.information)))
    rng = np.random.default_rng(1)
    points = fit.theta + SPREAD * errors * rng.standard_normal((20, len(errors)))
    tables = density.rewards(density.constrained(points))
    kernel, turn = law.evaluator(), {"k": 0}

    def following() -> np.ndarray:
        turn["k"] = (turn["k"] + 1) % len(tables)
        return np.ascontiguousarray(tables[turn["k"]])

    def twin() -> tuple[float, torch.Tensor]:
        at = torch.tensor(following(), requires_grad=True)
        value = law.log_likelihood(at)
        return value.item(), torch.autograd.grad(value, at)[0]

    for _ in range(3):
        value, gradient = kernel(following())
        turn["k"] -= 1
        expected, slope = twin()
        assert abs(value - expected) <= 1e-6
        assert np.abs(gradient - slope.numpy()).max() <= 1e-5 * float(slope.abs().max())
    taken = time_in_turns({"kernel": lambda: kernel(following()), "twin": twin}, rounds=rounds)
    began = time.process_time()
    mfg.mle(mfg.TrajectoryModel(game(discount), reward, panel), progressbar=False)
    fitted = time.process_time() - began
    began = time.process_time()
    mfg.nuts(model, draws=n_draws, tune=n_draws, chains=4, random_seed=1, progressbar=False)
    drawn = time.process_time() - began
    us = [taken[name].best for name in ("twin", "kernel")]
    return [
        f"{discount:g}",
        *(f"{m:,.0f}" for m in us),
        ratio(*us),
        f"{fitted:.2f}",
        f"{drawn:.2f}",
    ]


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Time all discounts; return and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    rounds, draws = (QUICK_ROUNDS, QUICK_DRAWS) if quick else (ROUNDS, DRAWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of chains that are short in a quick run
        rows = [one_discount(b, rounds, draws) for b in TRUTHS]
    columns = ["discount", "torch, us", "kernel, us", "torch / kernel", "mle, s",
               f"nuts, 4 x ({draws} + {draws}), s"]  # fmt: skip
    text = markdown("Replacement of bus engines", columns, rows)
    (out / "stationary.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds and draws")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
