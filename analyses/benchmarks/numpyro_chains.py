"""NumPyro's NUTS as fast as it goes here: its chains one after another under one `jit`."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import arviz_base
import arviz_stats
import jax
import numpy as np
import numpyro.infer


def chains_of(
    declared: Callable[[], None], names: Sequence[str], draws: int
) -> tuple[dict[str, np.ndarray], float]:
    """Return draws of four chains by site, and seconds with tuning but without compilation."""

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
