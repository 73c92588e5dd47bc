"""One chain of nutpie's No-U-Turn Sampler, which calls a native density by its address."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from mfgppl._kernels.bridge import NativeDensity
from mfgppl._progress import Watch
from mfgppl._quasi_newton import extended_value
from mfgppl.density.protocol import LogDensity
from mfgppl.posterior.chain_starts import Start
from mfgppl.posterior.chains import Chain, Keep, Settings

LOOK_EVERY = 0.5  # seconds between looks at what a running chain has drawn


def nutpie_chain(
    density: LogDensity,
    settings: Settings,
    start: Start,
    seed: int,
    watch: Watch,
    keep: Keep,
) -> Chain:
    """Run a chain; an interrupt ends it and keeps the draws it has."""
    import nutpie

    native = density.native()
    sampled = _by_python(density, start) if native is None else _by_address(native, density, start)
    options: dict[str, Any] = {}
    if start.step_size is not None:
        options["initial_step"] = start.step_size
    if settings.mass_matrix == "low_rank":
        options["low_rank_modified_mass_matrix"] = True
    sampler = nutpie.sample(
        sampled,
        draws=settings.draws,
        tune=settings.tune,
        chains=1,
        cores=1,
        seed=seed,
        target_accept=settings.target_accept,
        maxdepth=settings.max_treedepth,
        progress_bar=False,
        return_raw_trace=True,
        blocking=False,
        **options,
    )
    n_kept = 0

    def look(trace: Any) -> Chain:
        nonlocal n_kept
        chain, n_tuning = _draws_of(trace, density.n_dim)
        watch.at(len(chain.theta) + n_tuning, int(chain.stats["diverging"].sum()))
        keep(Chain(chain.theta[n_kept:], {k: v[n_kept:] for k, v in chain.stats.items()}))
        n_kept = len(chain.theta)
        return chain

    try:
        while True:
            try:
                return look(sampler.wait(timeout=LOOK_EVERY))
            except TimeoutError:
                if watch.stopped.is_set():
                    return look(sampler.abort())
                look(sampler.inspect())
                watch.show()
    except KeyboardInterrupt:
        return look(sampler.abort())


def _draws_of(trace: Any, n_dim: int) -> tuple[Chain, int]:
    """Return the draws after tuning of one chain's raw trace, and how many came before."""
    draws, stats = (pa.record_batch(batches[0]) for batches in trace.get_arrow_trace())
    kept = ~stats["tuning"].to_numpy(zero_copy_only=False)
    theta = draws["theta"].flatten().to_numpy().reshape(-1, n_dim)[kept]
    names = {
        "lp": "logp",
        "energy": "energy",
        "diverging": "diverging",
        "tree_depth": "depth",
        "n_steps": "n_steps",
        "step_size": "step_size",
        "acceptance_rate": "mean_tree_accept",
        "reached_max_treedepth": "maxdepth_reached",
    }
    kept_stats = {k: stats[v].to_numpy(zero_copy_only=False)[kept] for k, v in names.items()}
    return Chain(theta, kept_stats), int((~kept).sum())


def _by_address(native: NativeDensity, density: LogDensity, start: Start) -> Any:
    """Return a density as a sampler's model that calls it by its address, without Python."""
    from nutpie.compile_pymc import CompiledPyMCModel

    n = density.n_dim
    known = {field.name for field in dataclasses.fields(CompiledPyMCModel)}
    by_release: dict[str, Any] = {"shared_var_keys": {}} if "shared_var_keys" in known else {}
    return CompiledPyMCModel(
        _n_dim=n,
        dims={},
        _coords={},
        _shapes={"theta": (n,)},
        compiled_logp_func=native.function,
        compiled_expand_func=native.keeper,
        initial_point_func=lambda _: start.theta,
        shared_data={},
        user_data=native.data,
        n_expanded=n,
        shape_info=(["theta"], [slice(0, n)], [(n,)]),
        logp_func=native,  # kept alive with its arrays
        expand_func=None,
        **by_release,
    )


def _by_python(density: LogDensity, start: Start) -> Any:
    """Return a density as a sampler's model that calls it through Python."""
    from nutpie import compiled_pyfunc

    return compiled_pyfunc.from_pyfunc(
        density.n_dim,
        lambda: _own_stack(extended_value(density.evaluator())),
        lambda *_: lambda theta: {"theta": np.array(theta)},
        [np.dtype("float64")],
        [(density.n_dim,)],
        ["theta"],
        make_initial_point_fn=lambda _: start.theta,
    )


def _own_stack(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]],
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Evaluate in a thread of Python's: the sampler's have stacks too small for LAPACK."""
    pool = ThreadPoolExecutor(1)

    def evaluated(theta: np.ndarray) -> tuple[float, np.ndarray]:
        return pool.submit(evaluate, theta).result()

    return evaluated
