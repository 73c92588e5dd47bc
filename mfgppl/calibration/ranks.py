"""Simulation-based calibration: are posteriors as wide as they should be, and where they should be?

Parameters drawn from the prior generate a panel; the rank of each among the draws of the posterior
of that panel is uniform if the posterior is the exact one.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr
from threadpoolctl import threadpool_limits

from mfgppl._arguments import Seed, check_function, is_a, positive_int, seed_of, strict_keywords
from mfgppl._replication import replicate
from mfgppl.calibration.worlds import world_of
from mfgppl.data.trajectories import with_rows
from mfgppl.density.draws import flat_draws
from mfgppl.density.of_model import density_of, redrawn
from mfgppl.density.over_draws import panel_at
from mfgppl.density.who_is_who import aligned, exchanges
from mfgppl.exceptions import ConvergenceError, ConvergenceWarning, IdentificationWarning
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.requirements import treatment_of
from mfgppl.posterior.nuts import nuts

Fit = Callable[..., xr.DataTree]

LEVEL = 0.99  # of the simultaneous band
SIMULATIONS = 2000  # uniform samples from which ArviZ takes the band
MOST_KEPT, FEWEST_KEPT = 99, 19  # draws, nearly independent, among which a truth is ranked
CLEAR = 2.0  # standard errors from which a bias or a width of ranks is named

short_nuts: Fit = functools.partial(
    nuts, draws=500, tune=500, chains=2, cores=1, log_likelihood=False, progressbar=False,
    flow_bias=False,
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """Ranks of true parameters among posterior draws, by simulated panel.

    Attributes
    ----------
    ranks : DataFrame
        One row per round that could be used, one column per parameter and `log_likelihood`: the
        share of kept draws below the truth, uniform on (0, 1) for an exact posterior; the place
        between two draws, and among equal ones, is drawn at random.
    truths : DataFrame
        The parameters drawn from the prior, one row per round.
    kept : Series
        Draws among which the truth was ranked, by round.
    failures : Series
        Why a round could not be used, by round.
    mean_field : str
        "known", "empirical" or "equilibrium".
    random_seed : int
        Seed of everything.
    """

    ranks: pd.DataFrame
    truths: pd.DataFrame
    kept: pd.Series
    failures: pd.Series
    mean_field: str
    random_seed: int

    @functools.cached_property
    def band(self) -> pd.DataFrame:
        """Where the ECDF of uniform ranks stays with 99 % probability: `lower`, `upper` by rank."""
        from arviz_stats.ecdf_utils import ecdf_pit  # slow to import, and needed at the end only

        points, _, lower, upper = ecdf_pit(np.zeros(len(self.ranks)), LEVEL, SIMULATIONS)
        return pd.DataFrame({"lower": lower, "upper": upper}, pd.Index(points, name="rank"))

    @property
    def ecdf(self) -> pd.DataFrame:
        """Share of rounds with at most a rank, by rank and quantity."""
        points, n = self.band.index.to_numpy(), len(self.ranks)
        shares = {
            name: np.searchsorted(np.sort(ranks), points, side="right") / n
            for name, ranks in self.ranks.items()
        }
        return pd.DataFrame(shares, self.band.index)

    @property
    def table(self) -> pd.DataFrame:
        """By quantity: is its ECDF `inside` the band, `p` of uniformity, and in words.

        `p` is Kolmogorov and Smirnov's. `bias` is the mean of the ranks less 1/2 and `spread` their
        mean square about 1/2 less 1/12, both in standard errors of uniform ranks. A bias above 0
        is of truths above the draws, a spread above 0 of truths in the tails of the draws.
        """
        above, below = (
            self.ecdf.le(self.band["upper"], axis=0),
            self.ecdf.ge(self.band["lower"], axis=0),
        )
        centred, n = self.ranks - 0.5, len(self.ranks)
        table = pd.DataFrame(
            {
                "inside": (above & below).all(),
                "p": [
                    float(scipy.stats.kstest(r, "uniform").pvalue) for _, r in self.ranks.items()
                ],
                "bias": centred.mean() * np.sqrt(12 * n),
                "spread": ((centred**2).mean() - 1 / 12) * np.sqrt(180 * n),
            }
        )
        shapes = table[["inside", "bias", "spread"]].to_numpy(float).tolist()
        table["verdict"] = [_verdict(*shape) for shape in shapes]
        return table.rename_axis("quantity")

    @property
    def calibrated(self) -> bool:
        """Whether the ranks of all quantities stay within the band."""
        return bool(self.table["inside"].all())

    def __repr__(self) -> str:
        table, n = self.table, len(self.ranks)
        failing = table[~table["inside"]]
        if failing.empty:
            said = f"the ranks of all {len(table)} quantities are uniform"
        else:
            said = "the posterior fails: " + "; ".join(
                f"{name} is {verdict}" for name, verdict in failing["verdict"].items()
            )
        lines = [
            f"{n} panels, {self.mean_field} flow, {LEVEL:.0%} simultaneous bands: {said}",
            table.to_string(float_format=lambda v: f"{v:.3g}"),
        ]
        lines += [f"not used: {k} x {why}" for why, k in self.failures.value_counts().items()]
        return "\n".join(lines)


def _verdict(inside: float, bias: float, spread: float) -> str:
    """Say what the shape of ranks says of the posterior."""
    if inside:
        return "uniform"
    words = []
    if abs(spread) > CLEAR:
        words.append("too narrow" if spread > 0 else "too wide")
    if abs(bias) > CLEAR:
        words.append("biased low" if bias > 0 else "biased high")
    if abs(bias) > abs(spread):
        words.reverse()
    return " and ".join(words) or "not uniform"


@strict_keywords
def sbc(
    model: TrajectoryModel,
    *,
    panels: int = 200,
    fit: Fit | None = None,
    mean_field: str | None = None,
    random_seed: Seed = None,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> Calibration:
    """Check posteriors by simulation: rank parameters from the prior among their posterior's draws.

    Each round draws parameters from the reward program's priors and a panel from them, fits it, and
    ranks the truth among draws of the posterior, for each parameter and for the log likelihood of
    the panel, which also sees a fit that ignores the data. The draws are thinned evenly to their
    smallest effective number over all parameters, at most 99, so that they are nearly independent.
    Ranks are uniform if and only if the posterior is calibrated on average over the prior.

    Parameters
    ----------
    model : TrajectoryModel
        The model; its panel says who is observed, from where and for how long.
    panels : int
        Number of rounds, at least 10.
    fit : callable, optional
        Takes a model and `random_seed`, and returns draws: `nuts`, `laplace`, `vi`, or one of them
        with options set by `functools.partial`; by default `nuts` with two chains of 500 draws.
    mean_field : {"known", "empirical", "equilibrium"}, optional
        The flow of agents and fits. "known": agents face the model's own flow, and so do the fits,
        so that inference alone is judged. Else as many agents play the equilibrium at the
        parameters drawn, and fits plug in the flow of their panel ("empirical"), as with an
        observed one, or solve for it ("equilibrium"). By default "equilibrium" for a coupled
        model, "known" for others.
    random_seed : int or SeedSequence, optional
        Seed of everything; by default a fresh one, recorded.
    n_jobs, progressbar
        As in `replicate`.

    Returns
    -------
    Calibration
        With `table`, one row per quantity. Rounds without an equilibrium, a fit or 19 independent
        draws are in `failures`: ranks are those of the others.

    Raises
    ------
    ValueError
        If an option is unknown, does not fit the model (a known flow one with the energy
        likelihood), or the panel does not keep its trajectories.
    RuntimeError
        If fewer than two rounds could be used.

    References
    ----------
    .. [1] Talts, Betancourt, Simpson, Vehtari and Gelman (2018), *Validating Bayesian inference
       algorithms with simulation-based calibration*, arXiv:1804.06788.
    .. [2] Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman and Vehtari (2023),
       *Simulation-based calibration checking for Bayesian computation: the choice of test
       quantities shapes sensitivity*, Bayesian Analysis.
    .. [3] Säilynoja, Bürkner and Vehtari (2022), *Graphical test for discrete uniformity and its
       applications in goodness-of-fit evaluation and multiple sample comparison*, Statistics and
       Computing 32.
    """
    is_a("model", model, TrajectoryModel)
    positive_int("panels", panels, least=10)
    if fit is not None:
        check_function("fit", fit, "take a model and return draws")
    with_rows(model.panel, "sbc")
    random_seed, treatment = seed_of(random_seed), treatment_of(model, mean_field)
    if treatment == "known" and model.likelihood == "energy":
        raise ValueError(
            "mean_field='known' draws panels from the law of the causal likelihood, which is not "
            "that of likelihood='energy'; use mean_field='empirical', which shows the difference."
        )
    if treatment == "known" and model.flow_is_empirical:
        model = model.along(model.mean_field)
    if treatment == "equilibrium" and not model.coupled:
        model = model.along("equilibrium")
    task = functools.partial(_round, model, fit or short_nuts, treatment)
    rounds = replicate(
        task, panels, random_seed=random_seed, n_jobs=n_jobs, progressbar=progressbar
    )
    used = {k: r for k, r in enumerate(rounds) if not r.failure}
    failures = pd.Series({k: r.failure for k, r in enumerate(rounds) if r.failure}, dtype=object)
    if len(used) < 2:
        raise RuntimeError(
            f"{len(used)} of {panels} rounds could be used; first reason: {failures.iloc[0]}."
        )
    names = density_of(model).program.entry_names()

    index = pd.Index(used, name="round")
    ranks, truths = [r.ranks for r in used.values()], [r.truth for r in used.values()]
    return Calibration(
        ranks=pd.DataFrame(ranks, index, [*names, "log_likelihood"]),
        truths=pd.DataFrame(truths, index, names),
        kept=pd.Series([r.kept for r in used.values()], index, name="kept"),
        failures=failures.rename_axis("round"),
        mean_field=treatment,
        random_seed=random_seed,
    )


class _Round(NamedTuple):
    """One panel: the truth, its ranks among how many draws, or why there are none."""

    truth: np.ndarray
    ranks: np.ndarray
    kept: int
    failure: str = ""


NONE = np.empty(0)


@threadpool_limits.wrap(1)  # the products of a fit are too small to be shared out
def _round(model: TrajectoryModel, fit: Fit, treatment: str, seed: int) -> _Round:
    from_prior, of_panel, of_fit, of_ties = np.random.SeedSequence(seed).generate_state(4)
    density = density_of(model)
    truth = density.constrained(density.program.draw(int(from_prior))[None])[0]
    try:
        if treatment == "known":
            fitted = _draw_along_flow(model, truth, int(of_panel))
        else:
            fitted = _draw_in_equilibrium(model, truth, treatment, int(of_panel))
    except ConvergenceError:
        return _Round(truth, NONE, 0, "the equilibrium was not found")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", IdentificationWarning)
            draws = fit(fitted, random_seed=int(of_fit))
    except (ValueError, ArithmeticError, RuntimeError) as error:
        words = str(error).splitlines() or [""]
        return _Round(truth, NONE, 0, f"the fit raised {type(error).__name__}: {words[0][:80]}")
    values = _independent_draws(fitted, drawn_by("fit", draws))
    if len(values) < FEWEST_KEPT:
        return _Round(truth, NONE, len(values), f"fewer than {FEWEST_KEPT} independent draws")
    density = density_of(fitted)
    both = np.vstack([truth, values])
    if exchanges(density):  # a label means the same kind in the truth as in the draws
        both = density.constrained(aligned(density, density.program.free_rows(both)))
    quantities = np.column_stack([both, density.heights(both)])
    below = (quantities[1:] < quantities[0]).sum(0)
    equal = (quantities[1:] == quantities[0]).sum(0)
    place = np.random.default_rng(of_ties).random(len(below)) * (equal + 1)
    return _Round(truth, (below + place) / (len(values) + 1), len(values))


def drawn_by(argument: str, draws: Any) -> xr.DataTree:
    """Return what a fit returned if it holds draws, else raise a `TypeError`."""
    if not isinstance(draws, xr.DataTree):
        raise TypeError(f"`{argument}` must return draws, a DataTree; got {type(draws).__name__}.")
    return draws


def _independent_draws(model: TrajectoryModel, draws: xr.DataTree) -> np.ndarray:
    """Return flat constrained draws (n, K), evenly thinned to their smallest effective number."""
    from arviz_stats import ess  # slow to import, and needed after sampling only

    flat = flat_draws(density_of(model).program, draws, finite=False)
    sizes = ess(draws["posterior"].dataset[model.parameters], method="bulk")
    smallest = min(float(np.min(v)) for v in sizes.data_vars.values())
    flat = flat.reshape(-1, flat.shape[-1])
    n = int(min(MOST_KEPT, len(flat), np.nan_to_num(smallest)))
    return np.asarray(flat[np.linspace(0, len(flat) - 1, n).round().astype(int)])


def _draw_along_flow(model: TrajectoryModel, truth: np.ndarray, seed: int) -> TrajectoryModel:
    """Return the model of a panel of agents who face the model's flow."""
    return redrawn(model, panel_at(density_of(model), truth, random_seed=seed))


def _draw_in_equilibrium(
    model: TrajectoryModel, truth: np.ndarray, treatment: str, seed: int
) -> TrajectoryModel:
    """Return the model of a panel of agents in the equilibrium, by its treatment of the flow."""
    game, panel = model.game, with_rows(model.panel, "sbc")
    parameters: dict[str, Any] = density_of(model).program.by_site(truth)
    n_times = int(np.diff(panel.offsets).max()) if game.stationary else None
    world = world_of(game, model.reward, parameters)
    n_agents = len(np.unique(panel.agents))
    drawn = world.panel(n_agents=n_agents, random_seed=seed, n_times=n_times)
    if treatment == "equilibrium":
        return redrawn(model, drawn)
    return model.with_panel(drawn, mean_field=treatment)
