"""The plain torch twin on a graphics card beside the kernel on one core.

Run `python analyses/benchmarks/devices.py --out FOLDER` on a machine with a CUDA device; elsewhere
the table has the twin on the processor alone.
"""

# %% Constants

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from tables import markdown, ratio
from timing import time_in_turns

import mfgppl as mfg
from mfgppl.likelihood.causal import CausalLikelihood

SIZES, QUICK_SIZES = [(50, 100, 5), (50, 500, 5), (50, 2000, 5)], [(10, 20, 3)]
AGREEMENT = 1e-9  # relative, in value and gradient
AGENTS, SEED = 1000, 1


# %% Data: a random world, and its likelihood


def crowding(x: mfg.RewardInputs) -> Any:
    """Return a reward, which a model has; the likelihood is given another table."""
    return pyro.sample("crowding", dist.Normal(0.0, 1.0)) * x.density


def likelihood(T: int, S: int, A: int) -> CausalLikelihood:
    """Return the causal likelihood of a random panel in a random dense world."""
    generator = np.random.default_rng(SEED)
    transition = generator.dirichlet(np.ones(S), size=(S, A))
    states = {"place": list(range(S))}
    game = mfg.MeanFieldGame(
        states=states, actions=[f"a{k}" for k in range(A)], horizon=T, transition=transition,
        initial=np.full(S, 1 / S),
    )  # fmt: skip
    panel = mfg.simulate(
        game, np.full((T, S, A), 1 / A), np.full((T, S), 1 / S), n_agents=AGENTS, random_seed=SEED
    )
    return mfg.TrajectoryModel(game, crowding, panel).law


# %% Inference: value and gradient, in turns


def by_twin(law: CausalLikelihood, table: np.ndarray, device: str) -> Callable[[], Any]:
    """Return a call for value and gradient by the twin on a device."""
    reward = torch.from_numpy(table).to(device)

    def call() -> tuple[float, np.ndarray]:
        leaf = reward.clone().requires_grad_(True)
        value = law.log_likelihood(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.item(), gradient.cpu().numpy()

    return call


def row(size: tuple[int, int, int], rounds: int) -> list[list[str]]:
    """Check that all agree, and time them."""
    law = likelihood(*size)
    table = np.random.default_rng(SEED).normal(size=size)
    kernel = law.evaluator()
    calls: dict[str, Callable[[], Any]] = {"kernel, one core": lambda: kernel(table)}
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        name = (
            torch.cuda.get_device_name()
            if device == "cuda"
            else f"{torch.get_num_threads()} threads"
        )
        calls[f"torch twin, {name}"] = by_twin(law, table, device)
    value, gradient = (np.array(v) for v in kernel(table))
    for name, call in calls.items():
        v, g = call()
        apart = abs(v - value) / abs(value), np.abs(g - gradient).max() / np.abs(gradient).max()
        if not max(apart) < AGREEMENT:
            raise RuntimeError(f"{name} differs by {apart} (value, gradient), above {AGREEMENT}.")
    times = time_in_turns(calls, rounds=rounds)
    first = next(iter(times.values())).median
    return [
        [" x ".join(map(str, size)), name, f"{t.median / 1e3:,.2f}", ratio(t.median, first)]
        for name, t in times.items()
    ]


def main(quick: bool, out: Path) -> str:
    """Write the table."""
    rows = [r for size in (QUICK_SIZES if quick else SIZES) for r in row(size, 2 if quick else 10)]
    columns = ["times x states x actions", "by", "milliseconds", "/ kernel"]
    text = markdown("Value and gradient of the causal likelihood, by device", columns, rows)
    out.mkdir(parents=True, exist_ok=True)
    (out / "devices.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small world")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
