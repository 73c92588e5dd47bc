"""Posterior draws by the No-U-Turn Sampler: nutpie by default, Pyro's own as the reference."""

import functools
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mfgppl._arguments import (
    Seed,
    is_a,
    kept_seed,
    one_of,
    positive_int,
    real_between,
    seed_of,
    strict_keywords,
)
from mfgppl._progress import Watch
from mfgppl._replication import seeds_of
from mfgppl.data.trajectories import with_rows
from mfgppl.density.of_model import density_of
from mfgppl.density.protocol import LogDensity
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.chain_starts import Start, starts_of_chains
from mfgppl.posterior.chains import Chain, RunChain, Settings, complete_chains, run_chains
from mfgppl.posterior.doubts import CHAINS, FLOW, KNOWN, UNIDENTIFIED, Draws, note
from mfgppl.posterior.nutpie_chain import nutpie_chain
from mfgppl.posterior.pyro_chain import pyro_chain
from mfgppl.posterior.result_tree import (
    fixed_datatree,
    one_labelling,
    predictive,
    recorded,
    to_datatree,
)
from mfgppl.posterior.store import RunStore, check_store, create_store

try:
    from os import process_cpu_count as cpu_count  # type: ignore[attr-defined]
except ImportError:
    from os import cpu_count

MASS_MATRICES = {"nutpie": ("diagonal", "low_rank"), "pyro": ("diagonal", "dense")}


@strict_keywords
def nuts(
    model: TrajectoryModel,
    *,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    cores: int | None = None,
    target_accept: float = 0.8,
    max_treedepth: int = 10,
    mass_matrix: str = "diagonal",
    init: Mapping[str, Any] | PointEstimate | xr.DataTree | None = None,
    random_seed: Seed = None,
    sampler: str = "nutpie",
    log_likelihood: bool | None = None,
    store: str | Path | None = None,
    progressbar: bool = True,
    flow_bias: bool = True,
) -> xr.DataTree:
    """Draw from the posterior of a trajectory model.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    draws, tune : int
        Draws kept and tuning steps of each chain.
    chains : int
        Number of chains.
    cores : int, optional
        Chains at a time; by default the processors at hand.
    target_accept : float in (0, 1)
        Acceptance rate that tuning aims at.
    max_treedepth : int
        At most 2 ** max_treedepth gradients a draw.
    mass_matrix : {"diagonal", "low_rank", "dense"}
        What tuning learns of the posterior: the scales of the parameters, or correlations too.
        Where parameters correlate strongly a "low_rank" matrix takes fewer gradients for the same
        effective size. It needs nutpie, "dense" Pyro's sampler.
    init : mapping of str to value, PointEstimate or DataTree, optional
        Where chains start: values by site or an estimate, with a little jitter; or an earlier
        result, whose last draws and step sizes are taken up, so that a short `tune` is enough; or
        draws of `laplace` or `vi`, where each chain takes another. By default uniform in
        (-2, 2) over unconstrained parameters.
    random_seed : int or SeedSequence, optional
        The same seed gives the same draws, whatever the cores; by default a fresh one,
        recorded.
    sampler : {"nutpie", "pyro"}
        The sampler.
    log_likelihood : bool, optional
        Whether to keep the log likelihood by trajectory; by default if the panel keeps its
        trajectories and it takes below 1 GB.
    store : path, optional
        A new zarr store, `run.zarr`, to which draws are written as they come; ~ is the home
        folder. After the process was killed, `load` gives what was written, and `init` takes it
        up. What the store cannot hold is refused before sampling. Needs nutpie.
    progressbar : bool
        Whether to show progress on a terminal.
    flow_bias : bool
        Whether to measure what it costs that the flow is counted from the panel, as in `mle`, at
        the maximum of the likelihood; the attribute `counted_flow` holds it, `warnings` what
        speaks against the fit.

    Returns
    -------
    DataTree
        ArviZ groups posterior, sample_stats, log_likelihood, log_prior, posterior_predictive,
        observed_data and constant_data. An interrupt returns the finished draws.

    Warns
    -----
    ConvergenceWarning
        If the checks find a reason not to trust the draws.
    IdentificationWarning
        If the data do not identify some combination of parameters, whose posterior is its prior.
    UserWarning
        If `store` could not take the result, as on a full disk; it is returned all the same.

    References
    ----------
    .. [1] Hoffman and Gelman (2014), *The No-U-Turn Sampler*, JMLR 15, 1593-1623.
    """
    is_a("model", model, TrajectoryModel)
    positive_int("draws", draws)
    positive_int("tune", tune)
    positive_int("chains", chains)
    positive_int("max_treedepth", max_treedepth)
    real_between("target_accept", target_accept, above=0.0, upto=1.0, strict=True)
    one_of("sampler", sampler, list(MASS_MATRICES))
    one_of("mass_matrix", mass_matrix, ["diagonal", "low_rank", "dense"])
    if mass_matrix not in MASS_MATRICES[sampler]:
        known = " or ".join(repr(name) for name in MASS_MATRICES[sampler])
        raise ValueError(
            f"`mass_matrix` must be {known} with sampler={sampler!r}; got {mass_matrix!r}."
        )
    if store is not None and sampler != "nutpie":
        raise ValueError(f"`store` needs sampler='nutpie'; got {sampler!r}.")
    path = None if store is None else check_store(store)
    if log_likelihood:
        with_rows(model.panel, "`log_likelihood`")
    cores = positive_int("cores", cores) if cores is not None else (cpu_count() or 1)
    random_seed = seed_of(random_seed)
    began = time.perf_counter()
    density = density_of(model, progressbar=progressbar)
    compiled = time.perf_counter()
    # one stream a chain, one for predictions
    streams = seeds_of(random_seed, chains + 1)
    starts = starts_of_chains(density, init, streams[:-1])
    attrs: dict[str, Any] = {
        "sampler": sampler,
        "random_seed": kept_seed(random_seed),
        "compile_time": compiled - began,
        "tuning_steps": tune,
        "target_accept": target_accept,
        "max_treedepth": max_treedepth,
        "mass_matrix": mass_matrix,
        "chains_asked": chains,
        "draws_asked": draws,
    }
    run_store = None if path is None else _begun_store(path, density, attrs, starts)
    settings = Settings(draws, tune, target_accept, max_treedepth, mass_matrix)
    away = model.client is not None  # whose wires to its workers no fork can share
    done, interrupted = run_chains(
        _chain_of(sampler, density, settings, starts, streams, run_store),
        chains,
        cores=1 if away and sampler == "pyro" else min(cores, chains),
        draws=draws,
        tune=tune,
        threads=sampler == "nutpie" and (density.is_native or away),
        progressbar=progressbar,
    )
    done = complete_chains(done)
    if not done:
        raise KeyboardInterrupt("interrupted before the first draw after tuning")
    done = one_labelling(density, done)
    attrs["sampling_time"] = time.perf_counter() - compiled
    attrs["interrupted"] = int(interrupted)
    with ThreadPoolExecutor(1) as pool:  # predictive draws take no interpreter lock
        predicted = pool.submit(predictive, density, done, streams[-1])
        if cores == 1 or not density.is_native:  # programs and anchors are one thread's at a time
            wait([predicted])
        tree = to_datatree(density, done, attrs, log_likelihood)
        drawn = Draws(density, np.stack([chain.theta for chain in done]), tree)
        noted = note(drawn, (CHAINS, KNOWN, UNIDENTIFIED, *[FLOW] * flow_bias))
        tree["posterior_predictive"] = predicted.result()
    unstored = None if run_store is None else run_store.finish(tree)
    if unstored:
        warnings.warn(unstored, stacklevel=3)
    noted.warn(stacklevel=4)
    return tree


def _begun_store(
    path: Path, density: LogDensity, attrs: dict[str, Any], starts: Sequence[Start]
) -> RunStore:
    """Return a new store, with what a run knows before its first draw."""
    example = recorded(density, starts[0].theta[None])
    create_store(path, fixed_datatree(density, attrs), example)
    return RunStore(path, len(starts))


def _chain_of(
    sampler: str,
    density: LogDensity,
    settings: Settings,
    starts: Sequence[Start],
    streams: Sequence[int],
    store: RunStore | None,
) -> RunChain:
    """Return what samples a chain, and puts its draws into the store as they come."""
    sample = nutpie_chain if sampler == "nutpie" else pyro_chain
    if sampler == "nutpie":
        import nutpie.compile_pymc  # noqa: F401 - imports once, before the chains fork

    def keep(k: int, new: Chain) -> None:
        if store is not None and len(new.theta):
            store.append(k, recorded(density, new.theta) | {"sample_stats": new.stats})

    def run(k: int, watch: Watch) -> Chain:
        return sample(density, settings, starts[k], streams[k], watch, functools.partial(keep, k))

    return run
