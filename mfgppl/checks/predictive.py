"""Predictive checks: does the panel look like panels that the fitted model would draw?"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr

from mfgppl._arguments import Seed, names_of, positive_int, strict_keywords, suggestion
from mfgppl._keep import kept
from mfgppl._replication import seeds_of
from mfgppl.data.panel import flow_shares
from mfgppl.data.selection import before
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.density.of_model import density_of
from mfgppl.density.over_draws import action_shares, panels_at
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.requirements import needs_causal
from mfgppl.posterior.fit_values import CI_PROB, TAILS, upper_tail, values_to_draw_at
from mfgppl.posterior.policies import Fit
from mfgppl.posterior.result_tree import labels
from mfgppl.reward.parameters import Program

UNUSUAL = 0.05  # p below which a statistic counts as unusual
BUILT_IN = (
    "flow", "choice_by_state", "choice_by_time", "stays", "switches", "switchers",
    "spread of moves",
)  # fmt: skip
AXES = {
    "flow": ("time", "state"),
    "choice_by_state": ("state", "action"),
    "choice_by_time": ("time", "action"),
}
ROUNDING = 1e-12  # spread of a statistic that is no more
Statistic = Callable[[Trajectories], Any]


@dataclass(frozen=True, eq=False, repr=False)
class PredictiveCheck:
    """Statistics of a panel against those of panels drawn from the fitted model.

    Attributes
    ----------
    table : DataFrame
        One row per statistic. `observed`, `mean`, `lower`, `upper` (equal-tailed 90 % band) of
        scalars; `p`, two-sided for a scalar, for an array the chance of a larger mean squared
        deviation; `within`, the share of an array's entries inside their bands, of those that
        chance can move; `deviation`, the largest, in predictive standard deviations, and `at`,
        its label.
    arrays : dict of str to Dataset
        Of each array: `observed`, `mean`, `lower`, `upper`, `p` (two-sided) and `deviation` (in
        predictive standard deviations) by its own dims.
    n_draws : int
        Panels drawn.
    coordinate : str
        What a label of a state names: the coordinates of the state space.
    """

    table: pd.DataFrame
    arrays: dict[str, xr.Dataset]
    n_draws: int
    coordinate: str = "state"

    @property
    def passed(self) -> bool | None:
        """Whether unusual statistics are neither too many nor too unusual; None without any p."""
        p = self.table["p"].dropna()
        if p.empty:
            return None
        odd = int((p < UNUSUAL).sum())
        too_many = odd > 0 and scipy.stats.binom.sf(odd - 1, len(p), UNUSUAL) < UNUSUAL
        return not (too_many or (p < UNUSUAL / max(len(p), 1)).any())

    @property
    def verdict(self) -> str:
        """What the check says, in one sentence."""
        odd = self.table.loc[self.table["p"] < UNUSUAL, "p"].to_dict()
        known = self.table["p"].notna()
        n = int(known.sum())
        if not n:
            return "No statistic has a value in both the panel and those of the fitted model."
        if not odd:
            without = ", ".join(map(str, self.table.index[~known]))
            said = f"The panel looks like panels of the fitted model in all {n} statistics"
            return f"{said}; without a value: {without}." if without else f"{said}."
        most = {k: f", most at {at}" if at else "" for k, at in self.table["at"].items()}
        named = "; ".join(f"{k} (p = {odd[k]:.2g}){most[k]}" for k in odd)
        if self.passed:
            return (
                f"The panel looks like panels of the fitted model; of {n} statistics chance "
                f"explains {named}."
            )
        return (
            f"The panel is unlike panels of the fitted model in {len(odd)} of {n} statistics "
            f"({UNUSUAL * n:.1f} expected by chance): {named}."
        )

    def __repr__(self) -> str:
        text = self.table.to_string(float_format=lambda v: f"{v:.3g}", na_rep="")
        head = f"{self.n_draws} panels drawn from the fit; equal-tailed {100 * CI_PROB:g}% bands"
        return "\n".join([head, text, self.verdict])


@strict_keywords
def predictive_check(
    model: TrajectoryModel,
    fit: Fit,
    *,
    statistics: Mapping[str, Statistic] | None = None,
    redraw: str | Sequence[str] = (),
    draws: int = 200,
    random_seed: Seed = 0,
) -> PredictiveCheck:
    """Compare statistics of the panel with those of panels drawn from the fitted model.

    Each panel is drawn by `replay`, at a posterior draw or at the point. Built in are the `flow`
    (share of agents by time and state), `choice_by_state` and `choice_by_time` (shares of
    actions), `stays` (share of steps that leave the state as it is), `switches` (changes of action
    from one decision to the next, per trajectory), `switchers` (share of trajectories that ever
    change it) and `spread of moves` (standard deviation of the changes over trajectories, larger
    where agents are of several kinds). As the same panel was used to fit, the p are conservative: a
    right model gives small ones less often than their nominal level [1]_ [2]_.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the causal likelihood.
    fit : DataTree, PointEstimate or mapping
        Posterior draws, a point estimate, or values by site.
    statistics : mapping of str to callable, optional
        Further statistics by name, each of a `Trajectories` panel: a number, an array, or a
        DataArray whose labels name what deviates. A shape must not depend on the panel.
    redraw : str or list of str
        Sites of random effects, shocks with an inferred spread say, that each panel has anew, drawn
        from their prior given the other parameters: what another panel of the same kind may look
        like. By default all are held, as the question is this panel's.
    draws : int
        Panels to draw; at most one a posterior draw, these evenly spaced and as many of each
        chain: 50 of four chains are 48.
    random_seed : int or SeedSequence
        Seed of the panels.

    Returns
    -------
    PredictiveCheck
        With the `table` of all statistics.

    Raises
    ------
    ValueError
        If the likelihood is not causal, the panel does not keep its trajectories, or a statistic
        is not numeric or changes its shape.

    References
    ----------
    .. [1] Gelman, Meng and Stern (1996), *Posterior predictive assessment of model fitness via
       realized discrepancies*, Statistica Sinica 6.
    .. [2] Robins, van der Vaart and Ventura (2000), *Asymptotic distribution of p values in
       composite null models*, JASA 95.
    """
    positive_int("draws", draws, least=2)
    values = values_to_draw_at(model, fit, draws)
    needs_causal(model, "predictive_check")
    asked = _built_in() | _check_statistics(statistics)
    seeds = seeds_of(random_seed, len(values))
    observed = {
        name: _labelled(model, name, value)
        for name, value in _measure(asked, _like_drawn(model)).items()
    }
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in asked}
    density = density_of(model)
    anew = _sites(density.program, redraw)
    if anew:
        pairs = zip(values, seeds, strict=True)
        values = np.array([density.program.redraw(value, anew, seed) for value, seed in pairs])
    for panel in panels_at(density, values, seeds):
        for name, values_drawn in _numbers(asked, panel).items():
            if values_drawn.shape != observed[name].shape:
                raise ValueError(
                    f"the statistic {name!r} must have one shape for all panels; got "
                    f"{observed[name].shape} of the observed and {values_drawn.shape} of a drawn "
                    "one."
                )
            drawn[name].append(values_drawn)
    rows, arrays = {}, {}
    for name, statistic in observed.items():
        rows[name], summary = _compare(statistic, np.stack(drawn[name]))
        if statistic.ndim:
            arrays[name] = summary
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("statistic")
    return PredictiveCheck(table, arrays, len(values), ", ".join(model.game.space.coordinates))


def _sites(program: Program, redraw: str | Sequence[str]) -> list[str]:
    """Return the sites that are drawn anew, else raise a `ValueError`."""
    names = names_of("redraw", redraw)
    known = [site.name for site in program.sites]
    for name in names:
        if name not in known:
            hint = suggestion(name, known) or f" the parameters are {', '.join(known)}."
            raise ValueError(f"`redraw` names {name!r}, which is no parameter;{hint}")
    return names


def _check_statistics(statistics: Mapping[str, Statistic] | None) -> dict[str, Statistic]:
    given = {} if statistics is None else statistics
    if not isinstance(given, Mapping):
        raise TypeError(
            f"`statistics` must be a mapping of names to functions; got {type(given).__name__}."
        )
    for name, function in given.items():
        if name in BUILT_IN:
            raise ValueError(f"`statistics` has {name!r}, which is built in; give it another name.")
        if not callable(function):
            raise TypeError(
                f"`statistics` must hold functions of a panel; {name!r} is a "
                f"{type(function).__name__}."
            )
    return dict(given)


def _like_drawn(model: TrajectoryModel) -> Trajectories:
    """Return the observed panel with the rows that a drawn one has."""
    panel = with_rows(model.panel, "predictive_check")
    game = model.game
    return before(panel, game.shape[0]) if game.tables_by_time else panel


def _measure(asked: Mapping[str, Statistic], panel: Trajectories) -> dict[str, Any]:
    return {name: function(panel) for name, function in asked.items()}


def _numbers(asked: Mapping[str, Statistic], panel: Trajectories) -> dict[str, np.ndarray]:
    return {name: _numeric(name, value) for name, value in _measure(asked, panel).items()}


def _numeric(name: str, value: Any) -> np.ndarray:
    """Return a statistic as finite numbers or NaN, else raise a `ValueError`."""
    values = value.values if isinstance(value, xr.DataArray) else np.asarray(value)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"the statistic {name!r} must be numeric; got {values.dtype}.")
    values = values.astype(float)
    if np.isinf(values).any():
        raise ValueError(
            f"the statistic {name!r} must be finite, or NaN where it has no value; got inf."
        )
    return values


def _labelled(model: TrajectoryModel, name: str, value: Any) -> xr.DataArray:
    """Return a statistic of the observed panel with the labels of its axes."""
    values = _numeric(name, value)
    if isinstance(value, xr.DataArray):
        return value.copy(data=values)
    if name not in AXES:
        return xr.DataArray(values)
    coords, dims = labels(model)[0], AXES[name]
    at = {dim: coords[dim][:n] for dim, n in zip(dims, values.shape, strict=True)}
    return xr.DataArray(values, at, dims)


def _built_in() -> dict[str, Statistic]:
    return {
        "flow": flow_shares,
        "choice_by_state": lambda panel: action_shares(panel.counts.actions)["share_by_state"],
        "choice_by_time": lambda panel: action_shares(panel.counts.actions)["share_by_time"],
        "stays": _stays,
        "switches": lambda panel: _switches(panel).mean(),
        "switchers": lambda panel: (_switches(panel) > 0).mean(),
        "spread of moves": lambda panel: _switches(panel).std(),
    }


def _stays(panel: Trajectories) -> float:
    """Return the share of steps that leave the state as it is, NaN without steps."""
    within = np.diff(panel.trajectory) == 0
    stayed = np.diff(panel.state)[within] == 0
    return float(stayed.mean()) if len(stayed) else np.nan


@kept
def _switches(panel: Trajectories) -> np.ndarray:
    """Return how often each trajectory changes its action, (J,)."""
    acts = panel.action >= 0
    pair = (np.diff(panel.trajectory) == 0) & acts[1:] & acts[:-1]
    changed = pair & (np.diff(panel.action) != 0)
    return np.bincount(panel.trajectory[1:][changed], minlength=panel.n_trajectories)


def _compare(observed: xr.DataArray, drawn: np.ndarray) -> tuple[dict[str, Any], xr.Dataset]:
    """Return a statistic's row of the table, and the summary of its entries."""
    value = observed.values
    with warnings.catch_warnings():  # entries that no panel has are NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        mean, spread = np.nanmean(drawn, axis=0), np.nanstd(drawn, axis=0)
        lower, upper = np.nanquantile(drawn, TAILS, axis=0)
    gap = np.abs(value - mean)
    moves = ~np.isnan(gap) & (np.maximum(gap, spread) > ROUNDING * np.maximum(np.abs(mean), 1.0))
    above = upper_tail(drawn, value)
    two_sided = np.minimum(2 * np.minimum(above, 1 - above), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.where(moves, gap / spread, 0.0)
    parts = {"observed": value, "mean": mean, "lower": lower, "upper": upper, "p": two_sided}
    by_entry = parts | {"deviation": deviation}
    summary = xr.Dataset({k: (observed.dims, v) for k, v in by_entry.items()}, observed.coords)
    row: dict[str, Any] = dict.fromkeys([*parts, "within"], np.nan)
    if not observed.ndim:
        row.update({k: float(v) for k, v in parts.items()})
        return row | {"deviation": float(deviation), "at": ""}, summary
    if not moves.any():
        nothing = np.nan if np.isnan(gap).all() else 1.0
        return row | {"p": nothing, "deviation": 0.0, "at": ""}, summary
    inside = ((value >= lower) & (value <= upper))[moves].mean()
    worst = np.unravel_index(deviation.argmax(), deviation.shape)
    largest = {"deviation": float(deviation[worst]), "at": _label(observed, worst)}
    return row | {"p": _p_of_array(value, drawn), "within": float(inside)} | largest, summary


def _p_of_array(value: np.ndarray, drawn: np.ndarray) -> float:
    """Return the chance of a larger mean squared deviation, all panels treated alike."""
    pool = np.concatenate([value[None], drawn]).reshape(len(drawn) + 1, -1)
    pool = pool[:, (~np.isnan(pool)).sum(0) > 1]
    centred = pool - np.nanmean(pool, axis=0)
    spread = np.sqrt(np.nanmean(centred**2, axis=0))
    moves = spread > ROUNDING
    squares = (centred[:, moves] / spread[moves]) ** 2
    seen = (~np.isnan(squares)).sum(1)
    size = np.where(seen > 0, np.nansum(squares, axis=1) / np.maximum(seen, 1), 0.0)
    return float(upper_tail(size[1:], size[0]))


def _label(array: xr.DataArray, place: tuple[Any, ...]) -> str:
    parts = []
    for dim, k in zip(array.dims, place, strict=True):
        label = array[dim].values[k] if dim in array.coords else k
        parts.append(f"{dim}={label}")
    return ", ".join(parts)
