"""Four chains of each sampler as fast as it goes here, timed alike."""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import arviz_base
import arviz_stats
import jax
import numpy as np
import numpyro.infer

import mfgppl as mfg


def chains_of_ours(
    model: mfg.TrajectoryModel, names: Sequence[str], draws: int
) -> tuple[dict[str, np.ndarray], float]:
    """Return draws of four chains by site, and seconds with tuning but without compilation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = mfg.nuts(
            model, draws=draws, tune=draws, chains=4, random_seed=1, log_likelihood=False,
            flow_bias=False, progressbar=False,
        )  # fmt: skip
    return {k: tree["posterior"][k].values for k in names}, float(tree.attrs["sampling_time"])


def chains_of_numpyro(
    declared: Callable[[], None], names: Sequence[str], draws: int
) -> tuple[dict[str, np.ndarray], float]:
    """Return the same of NumPyro, whose chains run one after another under one `jit`."""

    def chain(key: Any) -> Any:
        mcmc = numpyro.infer.MCMC(
            numpyro.infer.NUTS(declared), num_warmup=draws, num_samples=draws, progress_bar=False
        )
        mcmc.run(key)
        return mcmc.get_samples()

    compiled = jax.jit(chain)
    keys = jax.random.split(jax.random.PRNGKey(1), 5)
    jax.block_until_ready(compiled(keys[4]))  # compilation
    began = time.perf_counter()
    chains = [jax.block_until_ready(compiled(key)) for key in keys[:4]]
    seconds = time.perf_counter() - began
    return {k: np.stack([np.asarray(c[k]) for c in chains]) for k in names}, seconds


def least_effective(draws: dict[str, np.ndarray]) -> float:
    """Return the effective draws of the entry that has fewest."""
    found = arviz_stats.ess(arviz_base.from_dict({"posterior": draws}))
    return float(min(np.min(v.values) for v in found.data_vars.values()))
