"""How much of a posterior is data, and how much is the prior."""

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arguments import Seed, is_a, positive_int, seed_of, strict_keywords
from mfgppl.density.draws import flat_draws, received
from mfgppl.density.of_model import density_of
from mfgppl.density.protocol import LogDensity
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.unidentified import CONTRACTED

FLAT = 1e-12  # spread of a log density that is no more than rounding
SENSITIVE = 0.05  # power-scaling sensitivity that counts


@strict_keywords
def contraction(
    draws: xr.DataTree, model: TrajectoryModel, *, prior_draws: int = 1000, random_seed: Seed = 0
) -> pd.DataFrame:
    """Compare posterior with prior variances, and say which parameters the prior drives.

    Parameters
    ----------
    draws : DataTree
        Posterior draws of the model.
    model : TrajectoryModel
        The model, whose program draws from the prior.
    prior_draws : int
        Draws from the prior for its variances, where these are not known in closed form.
    random_seed : int or SeedSequence
        Seed of these.

    Returns
    -------
    DataFrame
        One row per parameter. `prior_sd` and `posterior_sd`; `contraction`, 1 - posterior variance
        / prior variance; `prior_sensitivity` and `likelihood_sensitivity`, how much the posterior
        moves where prior or likelihood are raised to a power near 1 (NaN without their groups);
        `verdict`, "prior-driven" if the contraction is below 0.1, or if the prior's sensitivity is
        above 0.05 and the likelihood's below; "unknown" where the prior's variance is.

    Raises
    ------
    ValueError
        If the draws lack a parameter of the model.

    References
    ----------
    .. [1] Kallioinen, Paananen, Bürkner and Vehtari (2024), *Detecting and diagnosing prior and
       likelihood sensitivity with power-scaling*, Statistics and Computing 34.
    """
    draws = received(draws, "draws", finite=())
    is_a("model", model, TrajectoryModel)
    positive_int("prior_draws", prior_draws, least=2)
    random_seed = seed_of(random_seed)
    density = density_of(model)
    program = density.program
    flat = flat_draws(program, draws, argument="draws")
    table = pd.DataFrame(
        {
            "prior_sd": _prior_spreads(density, prior_draws, random_seed),
            "posterior_sd": flat.reshape(-1, flat.shape[-1]).std(0, ddof=1),
        },
        index=program.entry_names(),
    )
    table["contraction"] = 1 - (table["posterior_sd"] / table["prior_sd"]) ** 2
    sites = model.parameters
    table["prior_sensitivity"] = _sensitivity(draws, sites, "prior", "log_prior")
    table["likelihood_sensitivity"] = _sensitivity(draws, sites, "likelihood", "log_likelihood")
    driven = table["contraction"] < CONTRACTED
    driven |= (table["prior_sensitivity"] > SENSITIVE) & (
        table["likelihood_sensitivity"] < SENSITIVE
    )
    table["verdict"] = np.where(driven, "prior-driven", "data-driven")
    table.loc[~driven & table["contraction"].isna(), "verdict"] = "unknown"
    return table


def _prior_spreads(density: LogDensity, prior_draws: int, random_seed: int) -> np.ndarray:
    """Return the prior's standard deviations (P,), of draws where they have no closed form."""
    program = density.program
    known = program.spreads()
    if not np.isnan(known).any():
        return known
    seeds = np.random.default_rng(random_seed).integers(2**31, size=prior_draws)
    drawn = density.constrained(np.stack([program.draw(int(seed)) for seed in seeds]))
    return np.where(np.isnan(known), drawn.std(0, ddof=1), known)


def _sensitivity(draws: xr.DataTree, sites: list[str], group: str, needed: str) -> np.ndarray:
    """Return the power-scaling sensitivity of all entries of the sites, NaN without its group."""
    if needed not in draws.children:
        return np.full((), np.nan)
    import arviz_stats  # slow to import, and needed after sampling only

    parts = [v.values for v in draws[needed].dataset.data_vars.values()]
    total = sum(v.reshape(*v.shape[:2], -1).sum(-1) for v in parts)
    if np.ptp(total) < FLAT:  # power-scaling a constant changes nothing
        return np.zeros(())
    try:
        sensitivity = arviz_stats.psense(draws, var_names=sites, group=group)
    except (ValueError, IndexError):  # too few draws for the tail of the weights
        return np.full((), np.nan)
    return np.concatenate([np.ravel(sensitivity[site].values) for site in sites])
