"""What one value and gradient of the causal likelihood costs, beside torch and JAX.

Run `python analyses/benchmarks/density.py --out FOLDER` on a quiet machine. All libraries are given
the same arrays in float64, agree in value and gradient, and are timed in turns: torch on one core,
the kernel on one by nature, JAX as it pleases.
"""

# %% Constants

import argparse
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import floors
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro.infer.util
import peers_jax
import peers_torch
import pyro.infer.mcmc.util
import pyro.ops.integrator
import reference
import torch
from tables import markdown, ratio
from timing import Timing, time_in_turns

from mfgppl._kernels import sweeps
from mfgppl.density.of_model import density_of

matplotlib.use("Agg")
import matplotlib.pyplot as plt

AGREEMENT = 1e-8  # relative, in value and gradient
ROUNDS, QUICK_ROUNDS = 40, 3
GRIDS: dict[str, list[int]] = {
    "horizon": [10, 25, 50, 100, 200],
    "n_states": [5, 10, 20, 40, 80],
    "n_actions": [2, 5, 10, 20],
    "n_parameters": [3, 5, 10, 20, 50],
}
QUICK_GRIDS = {"horizon": [10], "n_states": [5]}
AGENTS, QUICK_AGENTS = [10**3, 10**4, 10**5, 10**6, 10**7], [10**3, 10**7]
GRID_AGENTS = 500  # trajectories of the problems on the grids
WORDS = {
    "horizon": "decision times T",
    "n_states": "states S",
    "n_actions": "actions A",
    "n_parameters": "parameters",
    "n_agents": "trajectories",
}


class Candidate(NamedTuple):
    """A way to compute a log density.

    Attributes
    ----------
    call : callable
        Computes value and gradient, as the library holds them; this is timed.
    read : callable
        From its result to the value and the flat gradient in NumPy.
    """

    call: Callable[[], Any]
    read: Callable[[Any], tuple[float, np.ndarray]]


# %% Data: one value and gradient of the likelihood by each library


def likelihoods(arrays: reference.Arrays, *, form: str = "linear") -> dict[str, Candidate]:
    """Return log likelihood and gradient in the reward at the true parameters, by library."""
    table = reference.true_reward(arrays, form=form)
    kernel = reference.model(arrays, form=form).law.evaluator()
    tensors = [torch.from_numpy(v) for v in (arrays.transition, arrays.counts)]
    constants = peers_jax.with_last(arrays.transition), jnp.asarray(arrays.counts)
    reward = jnp.asarray(table)

    def by_torch() -> tuple[Any, Any]:
        leaf = torch.from_numpy(table).requires_grad_(True)
        value = peers_torch.log_likelihood(leaf, *tensors)
        return value, torch.autograd.grad(value, leaf)[0]

    def by_jax(law: Callable[..., Any]) -> Candidate:
        compiled = jax.jit(jax.value_and_grad(law))
        return Candidate(lambda: jax.block_until_ready(compiled(reward, *constants)), _plain)

    return {
        "torch loop, autograd": Candidate(by_torch, _plain),
        "JAX scan": by_jax(peers_jax.log_likelihood),
        "JAX scan, adjoint by hand": by_jax(peers_jax.by_hand),
        "mfgppl kernel": Candidate(lambda: kernel(table), _plain),
    }


def _plain(pair: tuple[Any, Any]) -> tuple[float, np.ndarray]:
    value, gradient = (v.detach() if isinstance(v, torch.Tensor) else v for v in pair)
    return float(value), np.asarray(gradient).copy()


# %% Data: log density and gradient over unconstrained parameters


def densities(arrays: reference.Arrays, *, form: str) -> dict[str, Candidate]:
    """Return log density and gradient in the parameters near the true ones, by library."""
    theta = 0.9 * reference.free(arrays.weights)
    density = density_of(reference.model(arrays, form=form))
    compiled = density.evaluator()
    return {
        "Pyro, eager, torch loop": _pyro(peers_torch.model(arrays, form=form), theta),
        "Pyro, eager, mfgppl kernel": _pyro(density.model, theta),
        "NumPyro, jitted": _numpyro(peers_jax.model(arrays, form=form), theta),
        f"mfgppl, compiled ({density.path})": Candidate(lambda: compiled(theta), _plain),
    }


def _pyro(model: Callable[[], Any], theta: np.ndarray) -> Candidate:
    start = {k: torch.as_tensor(v) for k, v in reference.by_site(theta).items()}
    with torch.random.fork_rng(devices=[]):
        _, potential, _, _ = pyro.infer.mcmc.util.initialize_model(model, initial_params=start)

    def read(pair: tuple[Any, Any]) -> tuple[float, np.ndarray]:
        gradients, value = pair
        return -value.item(), -np.concatenate([np.ravel(gradients[name]) for name in start])

    return Candidate(lambda: pyro.ops.integrator.potential_grad(potential, start), read)


def _numpyro(model: Callable[[], Any], theta: np.ndarray) -> Candidate:
    start = {k: jnp.asarray(v) for k, v in reference.by_site(theta).items()}
    found = numpyro.infer.util.initialize_model(jax.random.PRNGKey(0), model)
    compiled = jax.jit(jax.value_and_grad(found.potential_fn))

    def read(pair: tuple[Any, Any]) -> tuple[float, np.ndarray]:
        value, gradients = pair
        return -float(value), -np.concatenate([np.ravel(gradients[name]) for name in start])

    return Candidate(lambda: jax.block_until_ready(compiled(start)), read)


# %% Checks: the libraries compute the same numbers


def disagreement(candidates: Mapping[str, Candidate]) -> dict[str, tuple[float, float]]:
    """Return the relative difference from the last candidate in value and in gradient."""
    results = {name: candidate.read(candidate.call()) for name, candidate in candidates.items()}
    value, gradient = list(results.values())[-1]
    size = np.abs(gradient).max()
    return {
        name: (abs(v - value) / abs(value), float(np.abs(g - gradient).max() / size))
        for name, (v, g) in results.items()
    }


def check(candidates: Mapping[str, Candidate]) -> dict[str, tuple[float, float]]:
    """Raise unless the candidates agree: a difference means that times compare other things."""
    found = disagreement(candidates)
    for name, pair in found.items():
        if not max(pair) < AGREEMENT:
            raise RuntimeError(f"{name} differs by {pair} (value, gradient), above {AGREEMENT}.")
    return found


# %% Inference: times, taken in turns


def compared(
    candidates: Mapping[str, Candidate], *, rounds: int, against: tuple[str, str]
) -> list[list[str]]:
    """Check candidates, time them and return table rows with ratios to two of them."""
    found = check(candidates)
    times = time_in_turns({k: c.call for k, c in candidates.items()}, rounds=rounds)
    return [
        [
            name,
            f"{times[name].median:,.0f}",
            f"{times[name].best:,.0f}",
            *(ratio(times[name].median, times[base].median) for base in against),
            f"{found[name][0]:.0e}",
            f"{found[name][1]:.0e}",
        ]
        for name in candidates
    ]


def parts(arrays: reference.Arrays, *, form: str, rounds: int) -> list[list[str]]:
    """Time the stages of the compiled density: where an evaluation's time goes."""
    density = density_of(reference.model(arrays, form=form))
    theta, affine = reference.free(arrays.weights), density.compiled.affine
    forward, pullback = density.compiled.stages()
    kernel, whole = density.model.law.evaluator(), density.evaluator()
    table = density.rewards(density.constrained(theta[None]))[0]
    found, slope = forward(theta), kernel(table)[1].ravel()
    cotangent = np.ones(found.size)
    name = "prior and transforms" if affine is not None else "prior, transforms and reward"
    stages: dict[str, Callable[[], Any]] = {
        "whole evaluation": lambda: whole(theta),
        "kernel": lambda: kernel(table),
        name: lambda: forward(theta),
        "their derivative": lambda: pullback(cotangent),
    }
    if affine is not None:
        flat, weights = np.empty(table.size), found[2:].copy()
        stages["weights @ features"] = lambda: sweeps.affine(*affine, weights, flat)
        stages["features @ slope"] = lambda: sweeps.affine_pullback(affine.matrix, slope, weights)
    times = time_in_turns(stages, rounds=rounds)
    total = times["whole evaluation"].median
    return [[form, name, f"{t.median:,.1f}", ratio(t.median, total)] for name, t in times.items()]


# %% Inference: how the time grows


def growth(*, quick: bool, rounds: int) -> list[tuple[str, int, dict[str, Timing]]]:
    """Time the kernel, JAX and the compiled density along each size of the problem."""
    rows = []
    base = reference.Size(n_agents=GRID_AGENTS)
    for name, grid in (QUICK_GRIDS if quick else GRIDS).items():
        for n in grid:
            size = base._replace(**{name: n})
            times = _scaled(reference.build(size), rounds=rounds)
            rows.append((name, n, times | {"floor": _floor(size)}))
    for n in QUICK_AGENTS if quick else AGENTS:
        arrays = reference.build(base)
        arrays = arrays._replace(counts=expected_counts(arrays, n_agents=n))
        by_library = likelihoods(arrays)
        law = reference.model(arrays).law
        table, kernel = reference.true_reward(arrays), law.evaluator(arrays.counts)
        candidates = {
            "torch loop": by_library["torch loop, autograd"],
            "JAX scan": by_library["JAX scan"],
            "mfgppl kernel": Candidate(functools.partial(kernel, table), _plain),
        }
        check(candidates)
        calls = {k: c.call for k, c in candidates.items()}
        times = time_in_turns(calls, rounds=rounds)
        rows.append(("n_agents", n, times | {"floor": _floor(base)}))
    return rows


def _floor(size: reference.Size) -> Timing:
    T, S, A = size.horizon, size.n_states, size.n_actions
    lowest = 1e6 * floors.floor(floors.dense_work(T, S, A, n_tables=T - 1)).seconds
    return Timing(lowest, lowest)


def _scaled(arrays: reference.Arrays, *, rounds: int) -> dict[str, Timing]:
    by_library, over_parameters = likelihoods(arrays), densities(arrays, form="linear")
    kept = {k: by_library[k] for k in ("torch loop, autograd", "JAX scan", "mfgppl kernel")}
    check(kept)
    kept = {"torch loop" if "torch" in k else k: v for k, v in kept.items()}
    whole = {k: v for k, v in over_parameters.items() if not k.startswith("Pyro")}
    check(whole)
    whole = {"mfgppl, compiled" if "compiled" in k else k: v for k, v in whole.items()}
    calls = {k: c.call for k, c in (kept | whole).items()}
    return time_in_turns(calls, rounds=rounds)


def expected_counts(arrays: reference.Arrays, *, n_agents: int) -> np.ndarray:
    """Draw the action counts of a crowd of any size without simulating each trajectory."""
    rng = np.random.default_rng(0)
    T, _, _ = shape = arrays.counts.shape
    shares = (arrays.counts + 0.1).reshape(T, -1)
    shares /= shares.sum(-1, keepdims=True)
    return rng.multinomial(n_agents, shares).astype(float).reshape(shape)


def draw_growth(rows: list[tuple[str, int, dict[str, Timing]]], path: Path) -> None:
    """Draw the time of an evaluation against each size."""
    names = list(dict.fromkeys(name for name, _, _ in rows))
    labels = list(dict.fromkeys(label for _, _, times in rows for label in times))
    figure, panels = plt.subplots(
        1, len(names), figsize=(3.0 * len(names), 3.2), sharey=True, layout="constrained"
    )
    for panel, name in zip(panels, names, strict=True):
        for k, label in enumerate(labels):
            points = [(n, t[label].median) for which, n, t in rows if which == name and label in t]
            if points:
                x, y = zip(*points, strict=True)
                style = {"ls": ":", "color": "0.4"} if label == "floor" else {"color": f"C{k}"}
                panel.plot(x, y, marker="o", ms=4, label=label, **style)
        panel.set(xscale="log", yscale="log", xlabel=WORDS[name])
        panel.grid(alpha=0.3, which="both", lw=0.4)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("microseconds an evaluation")
    handles, shown = panels[0].get_legend_handles_labels()
    figure.legend(handles, shown, loc="outside upper center", ncols=len(shown), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Check, time, draw; return the tables as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    arrays = reference.build(reference.Size())
    columns = ["", "median us", "best us", "", "", "value differs", "gradient differs"]
    pieces = []

    against = ("mfgppl kernel", "JAX scan")
    columns[3:5] = ["x kernel", "x JAX"]
    rows = compared(likelihoods(arrays), rounds=rounds, against=against)
    pieces.append(markdown("Likelihood: value and gradient in the reward", columns, rows))

    columns[3:5] = ["x mfgppl", "x NumPyro"]
    forms = reference.FORMS[:2] if quick else reference.FORMS
    for form in forms:
        problem = arrays if form == "linear" else reference.build(reference.Size(), form=form)
        candidates = densities(problem, form=form)
        against = (list(candidates)[-1], "NumPyro, jitted")
        rows = compared(candidates, rounds=rounds, against=against)
        title = f"Log density: value and gradient in 5 parameters, {form} reward"
        pieces.append(markdown(title, columns, rows))

    rows = [row for f in forms for row in parts(arrays, form=f, rounds=rounds)]
    title = "Stages of the compiled density"
    pieces.append(markdown(title, ["reward", "stage", "median us", "x whole"], rows))

    sizes = growth(quick=quick, rounds=max(rounds // 4, 3))
    draw_growth(sizes, out / "density.png")
    names = ["torch loop", "JAX scan", "mfgppl kernel", "floor"]
    names += ["NumPyro, jitted", "mfgppl, compiled"]
    rows = [
        [
            WORDS[name],
            f"{n:,}",
            *(f"{t[k].median:,.0f}" if k in t else "" for k in names),
            ratio(t["JAX scan"].median, t["mfgppl kernel"].median),
            ratio(t["mfgppl kernel"].median, t["floor"].median),
        ]
        for name, n, t in sizes
    ]
    header = ["size", "value", *(f"{name}, us" for name in names), "JAX / kernel"]
    header += ["kernel / floor"]
    pieces.append(markdown("Median time along each size, others at the reference", header, rows))
    text = "\n".join(pieces)
    (out / "density.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
