"""What the posterior of the reference problem costs by library: seconds and effective draws.

Run `python analyses/benchmarks/samplers.py --out FOLDER` on a quiet machine. Each library samples
the same posterior with its default No-U-Turn settings in a process of its own, twice: the first
run pays for compilation, the second does not where the library keeps what it compiled. Imports and
the building of arrays count for nobody.
"""

# %% Constants

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import reference
from tables import markdown, ratio

LARGEST_Z = 5.0  # difference of posterior means, in Monte Carlo standard errors
FULL, QUICK = (1000, 1000), (150, 150)  # draws and tuning steps a chain
PYRO_FULL, PYRO_QUICK = (500, 500), (40, 60)
LOOP = (200, 200)
QUICK_SIZE = reference.Size(horizon=12, n_states=6, n_actions=3, n_agents=200)
SEEDS = (1, 2)  # of the first and the second run


class Run(NamedTuple):
    """One library's way to sample.

    Attributes
    ----------
    library : str
        A key of `WORKERS`.
    chains : int
        Number of chains.
    how : str
        What the library is asked to do.
    devices : int
        Host devices that JAX is given.
    cache : {"", "empty", "filled"}
        By default each library's own: numba keeps compiled kernels on disk, JAX nothing. "empty"
        takes numba's away; "filled" gives JAX its persistent one, from an earlier process.
    """

    library: str
    chains: int
    how: str = ""
    devices: int = 1
    cache: str = ""


RUNS = {
    "mfgppl (nutpie), 4 chains": Run("mfgppl", 4, "nutpie"),
    "mfgppl (nutpie), 1 chain": Run("mfgppl", 1, "nutpie"),
    "mfgppl (nutpie), 4 chains, nothing on disk": Run("mfgppl", 4, "nutpie", cache="empty"),
    "NumPyro, 4 vectorized": Run("numpyro", 4, "vectorized"),
    "NumPyro, 4 sequential": Run("numpyro", 4, "sequential"),
    "NumPyro, 2 parallel on 2 devices": Run("numpyro", 2, "parallel", devices=2),
    "NumPyro, 4 parallel on 4 devices": Run("numpyro", 4, "parallel", devices=4),
    "NumPyro, 4 parallel on 4 devices, JAX's cache filled": Run(
        "numpyro", 4, "parallel", devices=4, cache="filled"
    ),
    "NumPyro, 1 chain": Run("numpyro", 1, "sequential"),
    "Pyro on mfgppl's density, 1 chain": Run("mfgppl", 1, "pyro"),
    "Pyro on the torch loop, 1 chain": Run("pyro", 1),
}
BASE = "NumPyro, 2 parallel on 2 devices"  # whose means the others are held against
QUICK_RUNS = ["mfgppl (nutpie), 4 chains", BASE, "NumPyro, 4 parallel on 4 devices"]


# %% Inference: a library in this process; a function of the seed to draws and seconds


Sample = Callable[[int], tuple[np.ndarray, dict[str, float]]]


def by_mfgppl(arrays: reference.Arrays, run: Run, draws: int, tune: int) -> Sample:
    """Sample with `mfgppl.nuts`; the first call traces the reward program and loads the kernels."""
    import arviz_base  # noqa: F401
    import arviz_stats  # noqa: F401
    import nutpie  # noqa: F401

    import mfgppl as mfg

    model = reference.model(arrays)

    def sample(seed: int) -> tuple[np.ndarray, dict[str, float]]:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", mfg.exceptions.ConvergenceWarning
            )  # few draws in quick runs
            tree = mfg.nuts(
                model,
                draws=draws,
                tune=tune,
                chains=run.chains,
                random_seed=seed,
                sampler=run.how,
                log_likelihood=False,
                progressbar=False,
            )
        posterior = tree["posterior"]
        flat = [posterior[k].values.reshape(run.chains, draws, -1) for k in _NAMES]
        steps = float(tree["sample_stats"]["n_steps"].mean())
        seconds = {k: float(tree.attrs[k]) for k in ("compile_time", "sampling_time")}
        return np.concatenate(flat, axis=-1), seconds | {"steps": steps}

    return sample


def by_numpyro(arrays: reference.Arrays, run: Run, draws: int, tune: int) -> Sample:
    """Sample with NumPyro's NUTS, all of a run under one `jit` (or `pmap`, for parallel chains).

    `MCMC.run` compiles its loop again at each call, so that it has no run without compilation.
    """
    import jax
    import numpyro.infer
    import peers_jax

    inside = run.chains if run.how == "vectorized" else 1
    model = peers_jax.model(arrays)

    def chain(key: Any) -> tuple[dict[str, Any], Any]:
        mcmc = numpyro.infer.MCMC(
            numpyro.infer.NUTS(model),
            num_warmup=tune,
            num_samples=draws,
            num_chains=inside,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(key, extra_fields=("num_steps",))
        return mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields()["num_steps"]

    compiled = jax.pmap(chain) if run.how == "parallel" else jax.jit(chain)

    def sample(seed: int) -> tuple[np.ndarray, dict[str, float]]:
        key = jax.random.PRNGKey(seed)
        if run.how == "vectorized":
            found = [compiled(key)]
        elif run.how == "parallel":
            found = [compiled(jax.random.split(key, run.chains))]
        else:
            found = [compiled(k) for k in jax.random.split(key, run.chains)]
        by_site = [np.concatenate([np.asarray(v[k]) for v, _ in found]) for k in _NAMES]
        flat = [v.reshape(run.chains, draws, -1) for v in by_site]
        steps = float(np.mean([np.mean(n) for _, n in found]))
        return np.concatenate(flat, axis=-1), {"steps": steps}

    return sample


def by_pyro(arrays: reference.Arrays, run: Run, draws: int, tune: int) -> Sample:
    """Sample with Pyro's NUTS through autograd on the plain loop."""
    import peers_torch
    import pyro
    import torch
    from pyro.infer import MCMC, NUTS

    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)

    def sample(seed: int) -> tuple[np.ndarray, dict[str, float]]:
        pyro.set_rng_seed(seed)
        kernel = NUTS(peers_torch.model(arrays))
        mcmc = MCMC(kernel, draws, warmup_steps=tune, disable_progbar=True)
        mcmc.run()
        found = mcmc.get_samples(group_by_chain=True)
        flat = [found[k].numpy().reshape(run.chains, draws, -1) for k in _NAMES]
        return np.concatenate(flat, axis=-1), {}

    return sample


_NAMES = ("slopes", "shift", "scale")
WORKERS = {"mfgppl": by_mfgppl, "numpyro": by_numpyro, "pyro": by_pyro}


def work(name: str, draws: int, tune: int, times: int, folder: Path) -> None:
    """Sample in this process `times` times and leave draws and seconds in a folder."""
    run, arrays = RUNS[name], reference.read(folder / "problem.npz")
    sample = WORKERS[run.library](arrays, run, draws, tune)
    records = []
    for seed in SEEDS[:times]:
        began, busy = time.perf_counter(), processor_seconds()
        values, notes = sample(seed)
        wall = {"wall": time.perf_counter() - began, "cpu": processor_seconds() - busy}
        records.append(wall | notes)
    np.save(folder / "draws.npy", values)
    (folder / "seconds.json").write_text(json.dumps(records))


def processor_seconds() -> float:
    """Return what this process and those it waited for used, which a busy machine moves less."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


# %% Inference: each library in a fresh process


class Result(NamedTuple):
    """What a library's runs gave.

    Attributes
    ----------
    draws : ndarray, shape (chains, draws, K)
        Of the last run.
    cold, warm : float
        Wall seconds of the first run, and of the second without compilation; `warm` is NaN where
        there is one run.
    notes : dict of str to float
        What the library says of the last run.
    """

    draws: np.ndarray
    cold: float
    warm: float
    notes: dict[str, float]


def in_fresh_process(
    name: str, arrays: reference.Arrays, *, draws: int, tune: int, times: int
) -> Result:
    """Run a library in a process of its own and read what it left."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reference.write(arrays, folder / "problem.npz")
        flag = f"--xla_force_host_platform_device_count={RUNS[name].devices}"
        options = [str(v) for v in (draws, tune, times, folder)]
        command = [sys.executable, __file__, "--work", name, *options]
        environment = os.environ | {"XLA_FLAGS": flag}
        if RUNS[name].cache == "empty":
            environment["NUMBA_CACHE_DIR"] = str(folder / "numba")
        if RUNS[name].cache == "filled":
            environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "jax")
            environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
            environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
            subprocess.run(command, check=True, env=environment)
        subprocess.run(command, check=True, env=environment)
        values = np.load(folder / "draws.npy")
        records = json.loads((folder / "seconds.json").read_text())
    last = records[-1]
    warm = last["wall"] - last.get("compile_time", 0.0) if times > 1 else np.nan
    return Result(values, records[0]["wall"], warm, last)


def run_all(quick: bool, arrays: reference.Arrays) -> dict[str, Result]:
    """Run the libraries one after another."""
    results = {}
    for name, run in RUNS.items():
        if quick and name not in QUICK_RUNS:
            continue
        draws, tune = QUICK if quick else FULL
        if run.how == "pyro":
            draws, tune = PYRO_QUICK if quick else PYRO_FULL
        if run.library == "pyro":
            draws, tune = LOOP
        times = 1 if run.library == "pyro" else 2
        results[name] = in_fresh_process(name, arrays, draws=draws, tune=tune, times=times)
        print(f"{name}: {results[name].cold:.1f} s", flush=True)
    return results


# %% Checks: the posterior means agree within Monte Carlo error


def largest_z(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference of two posterior means in Monte Carlo standard errors."""
    from arviz_stats import mcse

    found = []
    for k in range(one.shape[-1]):
        errors = [float(mcse(v[..., k], method="mean")) for v in (one, other)]
        found.append(abs(one[..., k].mean() - other[..., k].mean()) / np.hypot(*errors))
    return max(found)


def smallest_ess(draws: np.ndarray) -> float:
    """Return the smallest bulk effective sample size over parameters."""
    from arviz_stats import ess

    return min(float(ess(draws[..., k], method="bulk")) for k in range(draws.shape[-1]))


def check(results: Mapping[str, Result], truth: np.ndarray) -> list[list[str]]:
    """Return means by library; raise if one is off, which says that a posterior is another."""
    rows = [["(true parameters)", *(f"{v:.4f}" for v in truth), ""]]
    for name, result in results.items():
        z = largest_z(result.draws, results[BASE].draws) if name != BASE else 0.0
        if not z < LARGEST_Z:
            raise RuntimeError(f"{name} differs from {BASE} by {z:.1f} Monte Carlo errors.")
        means = result.draws.mean(axis=(0, 1))
        rows.append([name, *(f"{v:.4f}" for v in means), f"{z:.1f}"])
    return rows


# %% Answer


def times(results: Mapping[str, Result]) -> list[list[str]]:
    """Return seconds and effective draws a second, with ratios to NumPyro's best."""
    rates: dict[str, tuple[float, float]] = {}
    for name, result in results.items():
        n = smallest_ess(result.draws)
        rates[name] = n / result.cold, n / result.warm
    best = [max(r[k] for name, r in rates.items() if "NumPyro" in name) for k in (0, 1)]
    return [
        [
            name,
            f"{result.draws.shape[0]} x {result.draws.shape[1]}",
            f"{result.cold:.1f}",
            _or_blank(f"{result.warm:.1f}", result.warm),
            f"{smallest_ess(result.draws):,.0f}",
            f"{rates[name][0]:,.0f}",
            _or_blank(f"{rates[name][1]:,.0f}", result.warm),
            ratio(rates[name][0], best[0]),
            _or_blank(ratio(rates[name][1], best[1]), result.warm),
        ]
        for name, result in results.items()
    ]


def _or_blank(text: str, value: float) -> str:
    return "" if np.isnan(value) else text


def spent(results: Mapping[str, Result]) -> list[list[str]]:
    """Return what the last run took, by part for `mfgppl.nuts`, and its leapfrog steps a draw."""
    rows = []
    for name, result in results.items():
        notes = result.notes
        if "sampling_time" in notes:
            rest = notes["wall"] - notes["compile_time"] - notes["sampling_time"]
            parts = [f"{v:.2f}" for v in (notes["compile_time"], notes["sampling_time"], rest)]
        else:
            parts = [""] * 3
        steps = f"{notes['steps']:.1f}" if "steps" in notes else ""
        rows.append([name, *parts, f"{notes['wall']:.2f}", f"{notes['cpu']:.2f}", steps])
    return rows


def draw_rates(results: Mapping[str, Result], path: Path) -> None:
    """Draw effective draws a second, with and without compilation."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(results)[::-1]
    places = np.arange(len(names))
    figure, panel = plt.subplots(figsize=(7.5, 0.5 * len(names) + 1.2), layout="constrained")
    for cold, label in ((True, "with compilation"), (False, "without")):
        seconds = [results[n].cold if cold else results[n].warm for n in names]
        rates = [smallest_ess(results[n].draws) / s for n, s in zip(names, seconds, strict=True)]
        panel.plot(rates, places, "o" if cold else "s", ms=7, label=label)
    panel.set(yticks=places, yticklabels=names, xscale="log")
    panel.set_xlabel("smallest bulk effective sample size a second")
    panel.grid(alpha=0.3, axis="both", lw=0.4)
    panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(quick: bool, out: Path) -> str:
    """Sample, check, draw; return the tables as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    arrays = reference.build(QUICK_SIZE if quick else reference.Size())
    reference.model(arrays).law.evaluator()(np.zeros(arrays.counts.shape))
    results = run_all(quick, arrays)
    parameters = [f"slope {k}" for k in range(len(arrays.weights) - 2)] + ["shift", "scale"]
    means = check(results, arrays.weights)
    pieces = [
        markdown(
            "Posterior means, and the largest z against " + BASE, ["", *parameters, "z"], means
        )
    ]
    columns = ["", "chains x draws", "s with compilation", "s without", "min bulk ESS"]
    columns += ["ESS/s with", "ESS/s without", "x NumPyro's best with", "without"]
    pieces.append(markdown("Sampling", columns, times(results)))
    columns = ["", "tracing, s", "sampling, s", "results, s", "wall, s", "processor, s"]
    columns += ["leapfrog steps a draw"]
    pieces.append(markdown("The last run, compilation included", columns, spent(results)))
    draw_rates(results, out / "samplers.png")
    text = "\n".join(pieces)
    (out / "samplers.md").write_text(text)
    return text


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        worker, n_draws, n_tune, n_times, where = sys.argv[2:]
        work(worker, int(n_draws), int(n_tune), int(n_times), Path(where))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small problem and few draws")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
