"""Automatic checks of posterior draws."""

import numpy as np
import xarray as xr

RHAT = 1.01
ESS_PER_CHAIN = 100
DEEP_SHARE = 0.05
CHAINS = 4


def convergence_messages(draws: xr.DataTree) -> list[str]:
    """Return what speaks against trusting draws, worst first; empty where nothing does.

    Parameters
    ----------
    draws : DataTree
        With groups posterior and sample_stats.

    Returns
    -------
    list of str
        R-hat above 1.01, effective sample size below 100 a chain, divergences, more than 5 % of
        draws at the maximum tree depth, fewer than 4 chains, an interrupted run.
    """
    posterior, stats = draws["posterior"].dataset, draws["sample_stats"].dataset
    n_chains, n_draws = posterior.sizes["chain"], posterior.sizes["draw"]
    messages = []
    diverging = int(stats["diverging"].sum())
    if diverging:
        messages.append(
            f"{diverging} of {n_chains * n_draws} draws diverged: the posterior has corners that "
            "the sampler cannot enter; raise `target_accept` or reparametrise."
        )
    if n_chains > 1 and n_draws >= 4:
        messages += _mixing(posterior, n_chains)
    if n_draws < 4:
        messages.append(f"{n_draws} draws a chain are too few to check convergence.")
    deep = float(stats["reached_max_treedepth"].mean())
    if deep > DEEP_SHARE:
        messages.append(
            f"{100 * deep:.0f}% of draws reached the maximum tree depth; parameters may be "
            "collinear: see mle(...) for flat directions."
        )
    if n_chains < CHAINS:
        messages.append(f"{n_chains} chains; {CHAINS} or more show better whether they agree.")
    if draws.attrs.get("interrupted"):
        messages.append(
            f"the run was interrupted: {n_chains} chains of {n_draws} draws were kept of "
            f"{draws.attrs['chains_asked']} of {draws.attrs['draws_asked']}."
        )
    return messages


def _mixing(posterior: xr.Dataset, n_chains: int) -> list[str]:
    import arviz_stats  # slow to import, and needed after sampling only

    messages = []
    rhat, which = _worst(arviz_stats.rhat(posterior), largest=True)
    if not rhat <= RHAT:
        messages.append(
            f"R-hat is {rhat:.3f} for {which} (at most {RHAT} is good): chains disagree; draw more."
        )
    floor = ESS_PER_CHAIN * n_chains
    for method in ("bulk", "tail"):
        ess, which = _worst(arviz_stats.ess(posterior, method=method), largest=False)
        if not ess >= floor:
            messages.append(
                f"the {method} effective sample size is {ess:.0f} for {which} (at least {floor} "
                "is good); draw more."
            )
    return messages


def _worst(values: xr.Dataset, *, largest: bool) -> tuple[float, str]:
    """Return the extreme value over all variables, NaN first, and whose it is."""
    found = {str(k): np.asarray(v) for k, v in values.data_vars.items()}
    broken = [k for k, v in found.items() if np.isnan(v).any()]
    if broken:
        return float("nan"), broken[0]
    pick = np.max if largest else np.min
    extreme = {k: float(pick(v)) for k, v in found.items()}
    which = (max if largest else min)(extreme, key=lambda k: extreme[k])
    return extreme[which], which
