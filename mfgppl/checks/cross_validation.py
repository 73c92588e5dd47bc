"""How well a model predicts what it has not seen, by actual refits, as ArviZ's `ELPDData`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import joblib
import numpy as np
import xarray as xr

from mfgppl._arguments import Seed, is_a, positive_int, seed_of, strict_keywords
from mfgppl._progress import progress
from mfgppl._replication import or_reason, warn_of_failures
from mfgppl.checks.scores import (
    FitMethod,
    Units,
    as_elpd,
    check_method,
    flow_of_crowd,
    held_out,
    log_mean,
    scores,
)
from mfgppl.data.selection import before
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.density.of_model import of_panel
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.requirements import needs_one_kind, treatment_of

if TYPE_CHECKING:
    from arviz_stats import ELPDData

T = TypeVar("T")


@strict_keywords
def kfold(
    model: TrajectoryModel,
    fit_method: FitMethod,
    *,
    folds: int = 5,
    by: str = "trajectory",
    mean_field: str | None = None,
    random_seed: Seed = 0,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> "ELPDData":
    """Score each trajectory, or group of them, under a fit of the folds that it is not in.

    The agents of one world face one flow, so by default all fits and scores take the model's: the
    question is what is said of another agent of the same crowd. With "empirical" the flow is that
    of the trajectories that are fitted, and nothing of those left out is used.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    fit_method : callable
        Fits a model, as `mle`, or `functools.partial(nuts, random_seed=1, progressbar=False)`. A
        point is scored as it is, draws by the log of their mean likelihood.
    folds : int
        Number of folds; as many as there are trajectories (groups) leaves out each.
    by : str
        What stays together: "trajectory", "agent", or one of the panel's `groups`. Where kinds are
        not seen, agents stand in place of trajectories.
    mean_field : {"known", "empirical", "equilibrium"}, optional
        The flow along which fits and scores are made: the model's own; that of the trajectories
        that are fitted; or the equilibrium under the reward itself. By default "equilibrium" for
        a coupled model, "known" for others.
    random_seed : int or SeedSequence
        Seed of the folds.
    n_jobs, progressbar
        As in `replicate`.

    Returns
    -------
    ELPDData
        Of ArviZ, in nats, with `elpd_i` by trajectory or group. It has no effective number of
        parameters, `p`, as all data are never fitted. Folds whose rest cannot be fitted are left
        out, and counted in the attribute `n_failed` of `elpd_i`.

    Warns
    -----
    ConvergenceWarning
        If a fold is left out.

    Raises
    ------
    ValueError
        If there are more folds than trajectories (groups), or the panel keeps none.
    """
    units = Units(model, by, "kfold")
    check_method(fit_method)
    positive_int("folds", folds, least=2)
    n = len(units.labels)
    if n < 2:
        raise ValueError(f"kfold leaves out one {by} of several; the panel has one alone.")
    if folds > n:
        raise ValueError(f"`folds` must be at most {n}, how many there are by {by}; got {folds}.")
    rng = np.random.default_rng(seed_of(random_seed))
    parts = np.array_split(rng.permutation(n), folds)
    treatment = treatment_of(model, mean_field)
    if treatment == "equilibrium" and not model.coupled:
        model.along("equilibrium")  # raises where the equilibrium has no likelihood
    flow = model.mean_field if treatment == "known" else treatment

    def scored(part: np.ndarray) -> np.ndarray | str:
        return or_reason(lambda: held_out(units, fit_method, part, flow))

    outcomes = _run_each(scored, parts, n_jobs, progressbar, "folds")
    failures = Counter(f for f in outcomes if isinstance(f, str))
    score, kept = np.full(n, np.nan), np.zeros(n, dtype=bool)
    for part, values in zip(parts, outcomes, strict=True):
        if not isinstance(values, str):
            score[part], kept[part] = values, True
    warn_of_failures(failures, folds, "folds", "left out, with all that is in them")
    coords = xr.DataArray(score, {units.by: units.labels}, (units.by,))
    attrs = {"mean_field": treatment, "n_failed": failures.total()}
    return as_elpd("loo_kfold", coords[kept].assign_attrs(attrs), n_folds=folds)


@strict_keywords
def leave_future_out(
    model: TrajectoryModel,
    fit_method: FitMethod,
    *,
    start: int,
    step: int = 1,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> "ELPDData":
    """Score decisions from a time on under fits of the decisions before them.

    The decisions at `start .. start + step - 1` are scored by a fit of those before `start`, the
    next `step` times by a fit of those before them, and so on. The flow is the model's at all
    times: what is foretold are choices in a known crowd, not the crowd.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the causal likelihood and a horizon.
    fit_method : callable
        Fits a model, as in `kfold`.
    start : int
        First time that is scored, as the data count times.
    step : int
        Times scored by one fit.
    n_jobs, progressbar
        As in `replicate`; refits at a time.

    Returns
    -------
    ELPDData
        Of ArviZ, in nats, with `elpd_i` by trajectory: the sum over its blocks of times.
        Trajectories without a decision from `start` on are left out.

    Raises
    ------
    ValueError
        If the likelihood is not causal, the game is stationary, or nothing comes before or after
        `start`.

    References
    ----------
    .. [1] Bürkner, Gabry and Vehtari (2020), *Approximate leave-future-out cross-validation for
       Bayesian time series models*, Journal of Statistical Computation and Simulation 90.
    """
    is_a("model", model, TrajectoryModel)
    needs_one_kind(model, "leave_future_out")
    panel = with_rows(model.panel, "leave_future_out")
    check_method(fit_method)
    positive_int("step", step)
    if model.likelihood != "causal":
        raise ValueError(
            "leave_future_out needs likelihood='causal': the energy likelihood has no law of the "
            "earlier decisions alone."
        )
    if model.game.stationary:
        raise ValueError("leave_future_out needs a game with a horizon; a stationary one has none.")
    first = panel.periods.position(start)
    if first is None:
        raise ValueError(
            f"`start` must be a time of the panel, as {panel.time_label(0)} is; got {start!r}."
        )
    acts = panel.action >= 0
    latest = int(panel.time[acts].max())
    if not int(panel.time[acts].min()) < first <= latest:
        raise ValueError(
            f"`start` must have decisions before it and from it on, at most "
            f"{panel.time_label(latest)}; got {start}."
        )

    def block(time: int) -> tuple[np.ndarray, int]:
        training = of_panel(model, before(panel, time), flow_of_crowd(model))
        by_draw = scores(training, fit_method(training), _decisions_from(panel, time, step))
        return log_mean(by_draw), len(by_draw)

    times = list(range(first, latest + 1, step))
    blocks, n_draws = zip(*_run_each(block, times, n_jobs, progressbar, "refits"), strict=True)
    score = np.sum(blocks, axis=0)
    scored = np.unique(panel.trajectory[acts & (panel.time >= first)])
    names = [str(v) for v in panel.labels[scored]]
    values = xr.DataArray(score[scored], {"trajectory": names}, ("trajectory",))
    attrs = {"start": int(start), "step": int(step)}
    return as_elpd("lfo", values.assign_attrs(attrs), n_folds=len(times), n_draws=max(n_draws))


def _decisions_from(panel: Trajectories, time: int, step: int) -> Trajectories:
    """Return the panel with the decisions of some times alone."""
    within = (panel.time >= time) & (panel.time < time + step)
    return replace(panel, action=np.where(within, panel.action, -1))


def _run_each(
    task: Callable[[Any], T],
    items: Sequence[Any],
    n_jobs: int | None,
    progressbar: bool,
    label: str,
) -> list[T]:
    shown = progress(items, label, progressbar, total=len(items))
    return list(joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(task)(item) for item in shown))
