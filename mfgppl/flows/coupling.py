"""Does the crowd matter? Tests of coupling terms that survive reflection."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import chdtrc, chdtri, ndtr, ndtri

from mfgppl._arguments import Seed, is_a, positive_int, seed_of, strict_keywords
from mfgppl._replication import or_reason, replicate
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.density.of_model import density_of, redrawn
from mfgppl.equilibrium.fixed_point import settled
from mfgppl.estimation.point import mle
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.estimation.refits_along_flows import Refit, Refits, refit_near
from mfgppl.exceptions import ConvergenceError
from mfgppl.flows.free_periods import shocked, with_free_periods
from mfgppl.hypotheses.likelihood_tests import likelihood_ratio_test
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.replay import replay
from mfgppl.likelihood.requirements import needs_causal, needs_one_kind
from mfgppl.likelihood.terms import add_up

LEVEL = 0.05  # of the verdict
BELOW = 1e-6  # a likelihood ratio this far below zero is no maximum
SURVIVES = {
    "chi-squared": False,
    "bootstrap ratio": True,
    "bootstrap estimates": True,
    "shifted flows": False,
    "held-out agents": True,
}


@dataclass(frozen=True, eq=False, repr=False)
class CouplingTest:
    """Tests of a model's coupling terms against a model without them.

    Attributes
    ----------
    table : DataFrame
        One row per test: `statistic`, `mean` and `upper` of its law where there is no coupling
        (upper: exceeded with probability 0.05), `p` (chance of a larger statistic), and `survives`,
        whether the test holds where the flow is made of the choices explained.
    statistic : float
        The likelihood ratio observed.
    df : int
        Degrees of freedom of its chi-squared law.
    drawn : ndarray, shape (R,)
        Likelihood ratios of panels drawn without coupling, NaN where a refit failed.
    estimates : DataFrame
        The coupling parameters' estimates on these panels, one row per panel, NaN where a panel
        does not determine one; the last row, "observed", is the panel's own.
    shifted : Series
        Likelihood ratios along the observed flow shifted in time, by shift; none for coupled
        models.
    gains : Series
        Log likelihood that the coupling terms gain on each held-out agent, nats, NaN where the
        others cannot be fitted or leave a parameter open; none for coupled models.
    n_failed : int
        Replications without a refit.
    coupled : bool
        Whether the flow is solved for, so that no choice explains itself.
    free : bool
        Whether both models have shocks of every period, which all agents share.
    """

    table: pd.DataFrame
    statistic: float
    df: int
    drawn: np.ndarray
    estimates: pd.DataFrame
    shifted: pd.Series
    gains: pd.Series
    n_failed: int
    coupled: bool
    free: bool = False

    @property
    def p(self) -> float:
        """The p of the ratio among those of panels drawn without coupling."""
        return float(self.table["p"]["bootstrap ratio"])

    @property
    def verdict(self) -> str:
        """What the bootstrap says in a sentence, and held-out agents where they contradict it."""
        naive = float(self.table["p"]["chi-squared"])
        cause = "chance" if self.coupled else "reflection"
        given = "with free periods " if self.free else ""
        said = (
            f"the coupling terms gain more than {cause} alone gives them"
            if self.p <= LEVEL
            else f"the coupling terms gain no more than {cause} alone may give them"
        )
        said += f": bootstrap p = {self.p:.3g} (the chi-squared law says {naive:.3g})"
        gained = float(self.gains.sum())
        if self.p <= LEVEL and gained < 0:
            said += f"; but agents left out are predicted worse with them, by {-gained:.2g} nats"
        return given + said

    def __repr__(self) -> str:
        lines = [
            f"coupling test: likelihood ratio {self.statistic:.4g} for {self.df} "
            f"parameter{'s' if self.df > 1 else ''}",
            self.table.to_string(float_format=lambda v: f"{v:.3g}"),
            self.verdict,
        ]
        if self.n_failed:
            lines.append(f"{self.n_failed} of {len(self.drawn)} replications failed")
        unscored = int(self.gains.isna().sum())
        if unscored:
            lines.append(f"{unscored} of {len(self.gains)} agents have no held-out score")
        return "\n".join(lines)


@strict_keywords
def coupling_test(
    model: TrajectoryModel,
    null: TrajectoryModel,
    *,
    free: str | Sequence[str] | None = None,
    replications: int = 199,
    folds: int = 5,
    random_seed: Seed = 0,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> CouplingTest:
    """Test a model's coupling terms against a null model of the same panel without them.

    An empirical flow is made of the very choices that it is to explain, so that likelihood ratios
    of coupling terms come out too large where nobody looks at anybody. Five tests:

    - chi-squared: the textbook's law, which does not survive reflection;
    - bootstrap ratio: the panel is drawn again by the null's fitted policy (same agents, times and
      first states), its flow is taken anew, both models are refitted; the verdict rests on it;
    - bootstrap estimates: how far the coupling parameters lie from their mean over those panels and
      the observed one, in their covariance. Reflection moves estimates, so that zero is not where
      they lie without coupling. It rejects too where the null's panels differ from the observed one
      otherwise;
    - shifted flows: the ratio among those along the observed flow shifted in time, in a circle. A
      shifted flow holds no reflection, the true one does: a description, and none of a coupled
      model, whose flow is solved for;
    - held-out agents: both models are fitted to some agents along those agents' own flow, and
      score the others' choices; agents are the clusters of a one-sided normal test. Conservative,
      as the further parameters cost.

    All but the last take agents to be independent given the flow: shocks common to agents reject
    too. Shocks common to all agents deceive the last as well. With free="time" both models are
    given shocks of every period and action, which all agents share and nobody foresees
    (`with_free_periods`), and panels are drawn with the shocks fitted: what is left to the crowd is
    what differs between states, or types, within a period.

    Of coupled models (mean_field="equilibrium" in both) the flow is no outcome of the choices
    explained, and there is no reflection: the chi-squared law holds in large panels, the bootstrap
    in small ones too, and the last two tests are left out. These models are also more informative
    where reflection hides the crowd from the others; but they trust that the crowd is in
    equilibrium.

    Parameters
    ----------
    model : TrajectoryModel
        With the coupling terms, and the causal likelihood.
    null : TrajectoryModel
        Of the same panel, without them. Terms of the crowd that stay in it are solved for: panels
        are drawn in its equilibrium.
    free : "time", or a list of it and types, optional
        Shocks for which the test is free: of each period and action, and of each label of the types
        named.
    replications : int
        Panels drawn.
    folds : int
        Parts of the held-out test.
    random_seed : int or SeedSequence
        Seed of the draws and the parts.
    n_jobs, progressbar
        As in `replicate`.

    Returns
    -------
    CouplingTest
        A table with one row per test, and a `verdict`.

    Raises
    ------
    ValueError
        If the models' panels differ, are not nested, or a fit does not converge; if `free` names
        anything else, or the game is stationary.
    ConvergenceError
        If the null's equilibrium is not found, or more than half of the refits fail.

    References
    ----------
    .. [1] Manski (1993), *Identification of endogenous social effects: the reflection problem*,
       Review of Economic Studies 60.
    .. [2] Davison and Hinkley (1997), *Bootstrap methods and their application*, section 4.2.
    """
    for name, given in (("model", model), ("null", null)):
        is_a(name, given, TrajectoryModel)
        needs_causal(given, "coupling_test")
        needs_one_kind(given, "coupling_test")
    positive_int("replications", replications, least=19)
    positive_int("folds", folds, least=2)
    random_seed = seed_of(random_seed)
    panel = with_rows(model.panel, "coupling_test")
    if set(model.parameters) <= set(null.parameters):
        raise ValueError(
            "`model` must have parameters that `null` lacks: pass the model with coupling first."
        )
    same = model.fingerprint()["data"] == null.fingerprint()["data"]
    if not same or model.coupled != null.coupled:
        raise ValueError("`model` and `null` must be of the same panel and flow; theirs differ.")
    if free is not None:
        within = shocked(model.game, free)
        model, null = (with_free_periods(m, within=within) for m in (model, null))
    fits = _Fits(
        mle(model, progressbar=False, flow_bias=False),
        mle(null, progressbar=False, flow_bias=False),
    )
    observed = likelihood_ratio_test(fits.null, fits.full)
    world = _world(null, fits.null)

    full, fewer = _refits(model, fits.full), _refits(world.refitted, fits.null)

    def one(stream: int) -> tuple[float, np.ndarray]:
        panel = replay(world.model, world.policy, random_seed=stream)
        found = or_reason(lambda: _ratio(full(panel), fewer(panel)))
        return (np.nan, np.full(len(fits.full.params), np.nan)) if isinstance(found, str) else found

    found = replicate(
        one, replications, random_seed=random_seed, n_jobs=n_jobs, progressbar=progressbar
    )
    drawn = np.array([ratio for ratio, _ in found])
    n_failed = int(np.isnan(drawn).sum())
    if n_failed > replications / 2:
        raise ConvergenceError(f"refits failed in {n_failed} of {replications} panels drawn.")
    names = fits.full.params.index
    estimates = pd.DataFrame([*(v for _, v in found), fits.full.params.to_numpy()], columns=names)
    estimates = estimates.rename(index={replications: "observed"})
    estimates = estimates[[n for n in names if n not in fits.null.params.index]]
    table = _table(observed.statistic, observed.df, drawn, estimates)
    shifted, gains = pd.Series(dtype=float), pd.Series(dtype=float)
    if model.coupled:
        table.loc["chi-squared", "survives"] = True
    else:
        shifted = _shifted(model, panel, fits)
        gains = _gains(model, null, panel, fits, folds, random_seed)
        table = pd.concat([table, _further(observed.statistic, shifted, gains)])
    return CouplingTest(
        table.rename_axis("test"), observed.statistic, observed.df, drawn, estimates, shifted,
        gains, n_failed, model.coupled, free is not None,
    )  # fmt: skip


class _Fits(NamedTuple):
    """Maximum likelihood estimates of both models."""

    full: PointEstimate
    null: PointEstimate


class _World(NamedTuple):
    """What the null's panels are drawn from, and the model that is refitted to them."""

    model: TrajectoryModel
    policy: np.ndarray
    refitted: TrajectoryModel


def _world(null: TrajectoryModel, fit: PointEstimate) -> _World:
    """Return the null's equilibrium at its fit."""
    sites = density_of(null).program.by_site(np.array(fit.params))
    solution = settled(null.game, null.reward, sites, start=null.mean_field, throw=True)
    known = null.with_panel(null.panel, mean_field=solution.mean_field)
    values = fit.params.to_numpy()[None]
    here, there = (density_of(m).rewards(values) for m in (null, known))
    blind = not null.game.crowd_moves_dynamics and np.array_equal(here, there)
    # a reward that does not look at the flow is compiled once, not for each panel's flow
    return _World(known, solution.policy.numpy(), known if blind else null)


def _refits(model: TrajectoryModel, fit: PointEstimate) -> Callable[[Trajectories], Refit]:
    """Return what fits a panel that is like a model's near the model's fit."""
    return Refits(model, fit) if model.flow_is_empirical else functools.partial(_near, model, fit)


def _near(model: TrajectoryModel, fit: PointEstimate, panel: Trajectories) -> Refit:
    """Return the maximum near a fit of a like panel, along a flow that is given or solved for."""
    return refit_near(redrawn(model, panel), fit)


def _ratio(full: Refit, null: Refit) -> tuple[float, np.ndarray]:
    """Return a likelihood ratio and the full model's estimates, NaN where a refit failed."""
    rise = 2 * (full.found.value - null.found.value)
    if not (full.found.converged and null.found.converged and rise > -BELOW):
        return np.nan, np.full(len(full.values), np.nan)
    return max(rise, 0.0), full.values


def _shifted(model: TrajectoryModel, panel: Trajectories, fits: _Fits) -> pd.Series:
    """Return likelihood ratios along flows shifted in time, by shift; none without a horizon."""
    still = model.game.stationary or model.game.crowd_moves_dynamics
    flow, refits = model.mean_field.numpy(), Refits(model, fits.full)
    ratios = {}
    for k in range(1, 0 if still else len(flow)):
        found = refits(panel, np.roll(flow, k, 0)).found
        ratios[k] = 2 * (found.value - fits.null.llf) if found.converged else np.nan
    return pd.Series(ratios, name="likelihood_ratio", dtype=float).rename_axis("shift")


def _gains(
    model: TrajectoryModel, null: TrajectoryModel, panel: Trajectories, fits: _Fits, folds: int,
    seed: int,
) -> pd.Series:  # fmt: skip
    """Return the log likelihood gained on each agent by fits to others along others' flow."""
    codes, agents = pd.factorize(panel.agents)
    if folds > len(agents):
        raise ValueError(f"`folds` must be at most {len(agents)}, how many agents there are.")
    order = np.random.default_rng(seed).permutation(len(agents))
    both = [Refits(model, fits.full), Refits(null, fits.null)]
    gain = np.zeros(len(agents))
    for part in np.array_split(order, folds):
        left = np.isin(codes, part)
        held, rest = panel.subset(left), panel.subset(~left)
        found = or_reason(functools.partial(_held_out, model, both, held, rest))
        if isinstance(found, str):  # as where nobody of the rest is seen at some time
            gain[part] = np.nan
            continue
        np.add.at(gain, codes[left], found)
    index = pd.Index([str(a) for a in agents], name="agent")
    return pd.Series(gain, index, name="gain")


def _held_out(
    model: TrajectoryModel, both: list[Refits], held: Trajectories, rest: Trajectories
) -> np.ndarray:
    """Return by trajectory what the full model gains on those held out, fitted to the rest."""
    assert not isinstance(model.law, KindsLikelihood)
    terms = model.law.terms(held)
    fits = [refits(rest) for refits in both]
    if any(np.isnan(fit.values).any() for fit in fits):  # the climb began at the fit of all
        raise ValueError("the rest does not determine what the panel does")
    full, fewer = (add_up(terms, [fit.log_policy], held.n_trajectories) for fit in fits)
    return np.asarray(full - fewer)


def _table(statistic: float, df: int, drawn: np.ndarray, estimates: pd.DataFrame) -> pd.DataFrame:
    """Return one row per test that looks at the observed flow, or at the equilibrium, alone."""
    away, observed = _distances(estimates)
    return _rows(
        {
            "chi-squared": (statistic, df, chdtri(df, LEVEL), chdtrc(df, statistic)),
            "bootstrap ratio": (statistic, *_against(drawn, statistic)),
            "bootstrap estimates": (observed, *_against(away, observed)),
        }
    )


def _further(statistic: float, shifted: pd.Series, gains: pd.Series) -> pd.DataFrame:
    """Return one row per test that looks at flows of other times, or of other agents."""
    z = gains.sum() / np.sqrt(gains.count() * gains.var())
    return _rows(
        {
            "shifted flows": (statistic, *_against(shifted.to_numpy(), statistic)),
            "held-out agents": (z, 0.0, ndtri(1 - LEVEL), ndtr(-z)),
        }
    )


def _rows(rows: dict[str, tuple[float, ...]]) -> pd.DataFrame:
    columns = ["statistic", "mean", "upper", "p"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
    return table.assign(survives=[SURVIVES[name] for name in rows])


def _distances(estimates: pd.DataFrame) -> tuple[np.ndarray, float]:
    """Return squared distances of estimates from their mean: of each drawn, of the observed.

    Mean and covariance are of all, the observed among them: without coupling it is one like the
    others, and so is its distance.
    """
    table = estimates.to_numpy()
    known = table[np.isfinite(table).all(1)]
    spread = known.std(0)
    centred = (table - known.mean(0)) / np.where(spread > 0, spread, 1.0)
    inverse = np.linalg.pinv(np.atleast_2d(np.cov(centred[np.isfinite(table).all(1)].T)))
    found = np.einsum("ri,ij,rj->r", centred, inverse, centred)
    return found[:-1], float(found[-1])


def _against(drawn: np.ndarray, statistic: float) -> tuple[float, float, float]:
    """Return mean and upper quantile of draws, and the share at or above a value, it included."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return np.nan, np.nan, np.nan
    p = (1 + (drawn >= statistic).sum()) / (len(drawn) + 1)
    return float(drawn.mean()), float(np.quantile(drawn, 1 - LEVEL)), float(p)
