"""How well a model predicts what it has not seen, by actual refits, as ArviZ's `ELPDData`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import joblib
import numpy as np
import xarray as xr

from mfgppl._arguments import is_a, one_of, positive_int, strict_keywords
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.diagnostics.drawn import before
from mfgppl.diagnostics.held_out import (
    FitMethod,
    Units,
    as_elpd,
    check_method,
    held_out,
    log_mean,
    scores,
)
from mfgppl.inference.progress import progress
from mfgppl.likelihood.model import TrajectoryModel

if TYPE_CHECKING:
    from arviz_stats import ELPDData

T = TypeVar("T")
FLOWS = ["panel", "training"]


@strict_keywords
def kfold(
    model: TrajectoryModel,
    fit_method: FitMethod,
    *,
    folds: int = 5,
    by: str = "trajectory",
    flow: str = "panel",
    random_seed: int,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> "ELPDData":
    """Score each trajectory, or group of them, under a fit of the folds that it is not in.

    The agents of one world face one flow, so by default all fits and scores take the model's: the
    question is what is said of another agent of the same crowd. With "training" the flow is that
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
        What stays together: "trajectory", "agent", or one of the panel's `groups`.
    flow : {"panel", "training"}
        The flow along which fits and scores are made.
    random_seed : int
        Seed of the folds.
    n_jobs, progressbar
        As in `replicate`.

    Returns
    -------
    ELPDData
        Of ArviZ, in nats, with `elpd_i` by trajectory or group. It has no effective number of
        parameters, `p`, as all data are never fitted.

    Raises
    ------
    ValueError
        If there are more folds than trajectories (groups), or the panel keeps none.
    """
    units = Units(model, by, "kfold")
    check_method(fit_method)
    positive_int("folds", folds, least=2)
    one_of("flow", flow, FLOWS)
    n = len(units.labels)
    if folds > n:
        raise ValueError(f"`folds` must be at most {n}, how many there are by {by}; got {folds}.")
    rng = np.random.default_rng(positive_int("random_seed", random_seed, least=0))
    parts = np.array_split(rng.permutation(n), folds)
    found = _each(
        lambda part: held_out(units, fit_method, part, flow), parts, n_jobs, progressbar, "folds"
    )
    score = np.empty(n)
    score[np.concatenate(parts)] = np.concatenate(found)
    coords = xr.DataArray(score, {by: units.labels}, (by,))
    return as_elpd("loo_kfold", coords.assign_attrs(flow=flow), n_folds=folds)


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
    panel = with_rows(model.panel, "leave_future_out")
    check_method(fit_method)
    positive_int("step", step)
    if model.likelihood_name != "causal":
        raise ValueError(
            "leave_future_out needs likelihood='causal': the energy likelihood has no law of the "
            "earlier decisions alone."
        )
    if model.game.stationary:
        raise ValueError("leave_future_out needs a game with a horizon; a stationary one has none.")
    first = positive_int("start", start, least=panel.first_time) - panel.first_time
    acts = panel.action >= 0
    latest = int(panel.time[acts].max())
    if not int(panel.time[acts].min()) < first <= latest:
        raise ValueError(
            f"`start` must have decisions before it and from it on, at most "
            f"{latest + panel.first_time}; got {start}."
        )

    def block(time: int) -> tuple[np.ndarray, int]:
        given = "equilibrium" if model.coupled else model.mean_field
        training = model.with_panel(before(panel, time), mean_field=given)
        found = scores(training, fit_method(training), _blanked(panel, time, step))
        return log_mean(found), len(found)

    times = list(range(first, latest + 1, step))
    blocks, n_draws = zip(*_each(block, times, n_jobs, progressbar, "refits"), strict=True)
    score = np.sum(blocks, axis=0)
    scored = np.unique(panel.trajectory[acts & (panel.time >= first)])
    names = [str(v) for v in panel.labels[scored]]
    values = xr.DataArray(score[scored], {"trajectory": names}, ("trajectory",))
    attrs = {"start": int(start), "step": int(step)}
    return as_elpd("lfo", values.assign_attrs(attrs), n_folds=len(times), n_draws=max(n_draws))


def _blanked(panel: Trajectories, time: int, step: int) -> Trajectories:
    """Return the panel with the decisions of some times alone."""
    within = (panel.time >= time) & (panel.time < time + step)
    return replace(panel, action=np.where(within, panel.action, -1))


def _each(
    task: Callable[[Any], T],
    items: Sequence[Any],
    n_jobs: int | None,
    progressbar: bool,
    label: str,
) -> list[T]:
    shown = progress(items, label, progressbar, total=len(items))
    return list(joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(task)(item) for item in shown))
