"""Residuals of choices: where, when and by which action a fitted model is wrong."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import chdtrc

from mfgppl._arguments import positive_int, real_between, strict_keywords
from mfgppl.data.space import text_labels
from mfgppl.data.type_axis import by_type
from mfgppl.density.of_model import density_of
from mfgppl.density.over_draws import over_draws
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.posterior.policies import Fit, values_of
from mfgppl.posterior.result_tree import labels

N_WORST = 10  # cells named


@dataclass(frozen=True, eq=False, repr=False)
class Residuals:
    """Observed against expected choices by time, state and action.

    Attributes
    ----------
    cells : Dataset
        `observed` and `expected` counts and the standardised `residual`, dims (time, state,
        action), led by type where there are some; the last is NaN where nobody decides or too few
        are expected.
    by_state, by_time : DataFrame
        `visits`; `chi2`, Pearson's sum over the cells there; `df`, what a right model gives on
        average; `p`, by the chi-squared law.
    by_type : DataFrame or None
        The same by type; None without types.
    table : DataFrame
        The cells with the largest residuals.
    """

    cells: xr.Dataset
    by_state: pd.DataFrame
    by_time: pd.DataFrame
    by_type: pd.DataFrame | None
    table: pd.DataFrame

    def __repr__(self) -> str:
        chi2, df = float(self.by_state["chi2"].sum()), float(self.by_state["df"].sum())
        kept = int(self.cells["residual"].notnull().sum())  # noqa: PD004 - xarray's name
        return "\n".join(
            [
                f"chi-squared {chi2:.1f} over {kept} cells, {df:.1f} expected of a right model "
                f"(p = {_tail(df, chi2):.2g})",
                "largest standardised residuals",
                self.table.to_string(float_format=lambda v: f"{v:.3g}"),
            ]
        )


@strict_keywords
def residuals(
    model: TrajectoryModel, fit: Fit, *, draws: int = 200, least: float = 1.0
) -> Residuals:
    """Compare how often each action is taken with what the fitted policy expects.

    At each time and state the number of agents is taken as it is. With `n` of them and the
    policy's chance `pi` of an action, a residual is `(observed - n E[pi]) / sd`, with
    `sd^2 = E[n pi (1 - pi)] + n^2 Var[pi]`, E and Var over posterior draws: binomial chance, and
    what the posterior leaves open.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    fit : DataTree, PointEstimate or mapping
        Posterior draws, a point estimate, or values by site.
    draws : int
        Draws to use at most, evenly spaced, as many of each chain: 50 of four chains are 48.
    least : float
        Expected number of those who take the action, and of those who do not, below which a cell
        has no residual.

    Returns
    -------
    Residuals
        With sums by state, by time and by type, and the worst cells named in `table`.

    Raises
    ------
    ValueError
        If the fit has other parameters than the model.
    """
    positive_int("draws", draws)
    real_between("least", least, above=0.0)
    values, _ = values_of(model, fit, draws)
    first, second = _moments(model, values)
    observed = model.law.counts.actions
    n = observed.sum(-1, keepdims=True)
    expected = n * first
    variance = n * (first - second) + n**2 * np.maximum(second - first**2, 0.0)
    shown = (expected >= least) & (n - expected >= least)
    spread = np.sqrt(np.where(shown, variance, 1.0))
    residual = np.where(shown, (observed - expected) / spread, np.nan)
    coords, _ = labels(model)
    dims = ("time", "state", "action")
    parts = {"observed": observed, "expected": expected, "residual": residual}
    cells = xr.Dataset({k: (dims, v) for k, v in parts.items()}, {k: coords[k] for k in dims})
    # (O - E)^2 / E is the squared residual times 1 - pi, its own expectation
    weight = np.where(shown, 1.0 - first, 0.0)
    chi2 = weight * np.nan_to_num(residual) ** 2
    by = {
        dim: _sums(pd.Index(coords[dim], name=dim), *(v.sum(axis) for v in (n, chi2, weight)))
        for dim, axis in (("state", (0, 2)), ("time", (1, 2)))
    }
    space, of_types = model.game.space, None
    if space.types:
        index = pd.Index(text_labels(space.cells.labels), name="type")
        parts_of_types = (
            v.sum((0, 2)).reshape(space.n_cells, -1).sum(1) for v in (n, chi2, weight)
        )
        of_types = _sums(index, *parts_of_types)
    cells = by_type(cells, space)
    return Residuals(cells, by["state"], by["time"], of_types, _worst(cells))


def _moments(model: TrajectoryModel, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means (T, S, A) of the policy and of its square over draws."""
    sums: list[tuple[np.ndarray, np.ndarray]] = []
    density = density_of(model)

    def use(part: slice, given: np.ndarray) -> None:
        policy = np.exp(density.log_policies(given))
        sums.append((policy.sum(0), (policy**2).sum(0)))

    over_draws(density, values, use)
    first, second = (sum(s[k] for s in sums) / len(values) for k in (0, 1))
    return np.asarray(first), np.asarray(second)


def _sums(
    index: pd.Index, visits: np.ndarray, chi2: np.ndarray, expected: np.ndarray
) -> pd.DataFrame:
    table = pd.DataFrame({"visits": visits, "chi2": chi2, "df": expected}, index)
    table["p"] = [_tail(df, x) for df, x in zip(expected, chi2, strict=True)]
    return table


def _tail(df: float, chi2: float) -> float:
    """Return the chance of a larger chi-squared, NaN without cells."""
    return float(chdtrc(df, chi2)) if df > 0 else np.nan


def _worst(cells: xr.Dataset) -> pd.DataFrame:
    """Return the cells with the largest residuals, a row each."""
    size = np.abs(cells["residual"].values).ravel()
    order = np.argsort(np.where(np.isnan(size), -1.0, size))[::-1]
    order = order[~np.isnan(size[order])][:N_WORST]
    places = np.unravel_index(order, cells["residual"].shape)
    columns = {
        dim: cells[dim].values[k] for dim, k in zip(cells["residual"].dims, places, strict=True)
    }
    columns |= {k: cells[k].values[places] for k in ("observed", "expected", "residual")}
    return pd.DataFrame(columns)
