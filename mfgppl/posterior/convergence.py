"""Automatic checks of posterior draws."""

import numpy as np
import xarray as xr

from mfgppl.density.draws import listed, lost_draws

RHAT = 1.01
ESS_PER_CHAIN = 100
DEEP_SHARE = 0.05
APART = 5.0  # standard deviations of the log density between chains in one mode and in another
CHAINS = 4
VARIES, CONSTANT, UNDEFINED = 0, 1, 2  # what an entry does over the draws


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
        draws at the maximum tree depth, draws that are no numbers, fewer than 4 chains, an
        interrupted run. Entries that are the same in every draw have no R-hat.
    """
    posterior, stats = draws["posterior"].dataset, draws["sample_stats"].dataset
    n_chains, n_draws = posterior.sizes["chain"], posterior.sizes["draw"]
    lost = lost_draws(posterior, listed(draws.attrs).get("parameters"))
    messages = [f"{lost}: the fit failed."] if lost else []
    diverging = int(stats["diverging"].sum())
    if diverging:
        messages.append(
            f"{diverging} of {n_chains * n_draws} draws diverged: the posterior has corners that "
            "the sampler cannot enter; raise `target_accept` or reparametrise."
        )
    judged = {str(k): _kinds(np.asarray(v)) for k, v in posterior.data_vars.items()}
    messages += _unjudged_messages(judged)
    if n_chains > 1 and n_draws >= 4:
        messages += _mixing(posterior, judged, n_chains)
    messages += _modes(stats, n_chains)
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


def _modes(stats: xr.Dataset, n_chains: int) -> list[str]:
    """Return a message where chains are about maxima of different height."""
    if n_chains < 2 or "lp" not in stats:
        return []
    heights = stats["lp"].transpose("chain", ...).values.reshape(n_chains, -1)
    means, spread = heights.mean(1), float(np.median(heights.std(1)))
    apart = means < means.max() - APART * max(spread, 1e-12)
    if not np.isfinite(means).all() or not apart.any():
        return []
    shown = ", ".join(f"{m:.1f}" for m in means)
    return [
        f"{int(apart.sum())} of {n_chains} chains stay about a lower maximum of the density (means "
        f"of the log density: {shown}): the posterior has several modes, which the chains do not "
        "weigh against one another; start them at the best, `init=` a fit with restarts."
    ]


def _mixing(posterior: xr.Dataset, judged: dict[str, np.ndarray], n_chains: int) -> list[str]:
    import arviz_stats  # slow to import, and needed after sampling only

    messages: list[str] = []
    if not any((kinds == VARIES).any() for kinds in judged.values()):
        return messages
    with np.errstate(all="ignore"):
        rhat, which = _worst(arviz_stats.rhat(posterior), judged, largest=True)
    if not rhat <= RHAT:
        messages.append(
            f"R-hat is {rhat:.3f} for {which} (at most {RHAT} is good): chains disagree; draw more."
        )
    floor = ESS_PER_CHAIN * n_chains
    for method in ("bulk", "tail"):
        with np.errstate(all="ignore"):
            sizes = arviz_stats.ess(posterior, method=method)
        ess, which = _worst(sizes, judged, largest=False)
        if not ess >= floor:
            messages.append(
                f"the {method} effective sample size is {ess:.0f} for {which} (at least {floor} "
                "is good); draw more."
            )
    return messages


def _kinds(draws: np.ndarray) -> np.ndarray:
    """Return of each entry of draws (chain, draw, ...) whether it varies, or why it is not judged.

    What differs between chains varies, also where each of them stands still.
    """
    flat = draws.reshape(-1, *draws.shape[2:])
    same, undefined = (flat == flat[0]).all(0), np.isnan(flat).any(0)
    return np.where(undefined, UNDEFINED, np.where(same, CONSTANT, VARIES))


def _unjudged_messages(judged: dict[str, np.ndarray]) -> list[str]:
    """Return what speaks against draws that have no R-hat: constants beside others are sound."""
    messages = []
    for name, kinds in judged.items():
        n = int((kinds == UNDEFINED).sum())
        if n:
            which = name if kinds.size == 1 else f"{n} of {kinds.size} entries of {name}"
            messages.append(f"{which} is not a number in some draws, which cannot be checked.")
    if judged and all((kinds == CONSTANT).all() for kinds in judged.values()):
        messages.append("all draws are the same: the chains did not move.")
    return messages


def _worst(
    values: xr.Dataset, judged: dict[str, np.ndarray], *, largest: bool
) -> tuple[float, str]:
    """Return the extreme value over all entries that vary, NaN first, and whose it is."""
    entries = {str(k): np.asarray(v)[judged[str(k)] == VARIES] for k, v in values.data_vars.items()}
    entries = {k: v for k, v in entries.items() if v.size}
    broken = [k for k, v in entries.items() if np.isnan(v).any()]
    if broken:
        return float("nan"), broken[0]
    pick = np.max if largest else np.min
    extreme = {k: float(pick(v)) for k, v in entries.items()}
    which = (max if largest else min)(extreme, key=lambda k: extreme[k])
    return extreme[which], which
