"""What a finer or a coarser cut of a number into bins does to a fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import check_function, is_a, strict_keywords
from mfgppl.data.intervals import discretise, in_memory
from mfgppl.estimation.point_estimate import PointEstimate

LARGE = 1.0  # standard errors that a coefficient may move by from cut to cut


@dataclass(frozen=True)
class BinsMatter:
    """Fits of the same table with one column cut in several ways.

    Attributes
    ----------
    column : str
        The column that is cut.
    table : DataFrame
        One row per cut: number of `bins`; `lost`, the share of variation within them;
        `log_likelihood` of the actions, nats; whether the fit `converged`.
    estimates, std_err : DataFrame
        One row per cut, one column per parameter, NaN where a cut has no such parameter.
    """

    column: str
    table: pd.DataFrame
    estimates: pd.DataFrame
    std_err: pd.DataFrame

    @property
    def moves(self) -> pd.Series:
        """How far each parameter moves over the cuts, in its largest standard error."""
        reach = self.estimates.max() - self.estimates.min()
        return (reach / self.std_err.max()).rename("moves")

    @property
    def verdict(self) -> str:
        """What the cut does, in a sentence."""
        moves = self.moves.dropna()
        cuts = f"{self.table['bins'].min()} to {self.table['bins'].max()} bins of {self.column}"
        if moves.empty:
            return f"{cuts}: no parameter with a standard error is in all fits."
        name, most = moves.idxmax(), moves.max()
        low, high = self.estimates[name].min(), self.estimates[name].max()
        found = f"{name} moves most, from {low:.3g} to {high:.3g}, {most:.1f} standard errors"
        if most > LARGE:
            return f"the cut matters: over {cuts} {found}. Report it with the cut, or cut finer."
        return f"the cut matters little: over {cuts} {found}."

    def __str__(self) -> str:
        shown = self.table.join(self.estimates)
        return f"{shown.to_string(float_format='{:.4g}'.format)}\n{self.verdict}"


@strict_keywords
def bins_matter(
    frame: Any,
    fit: Callable[[pd.DataFrame], PointEstimate],
    *,
    column: str,
    cuts: Sequence[Any],
    method: str = "quantiles",
) -> BinsMatter:
    """Cut one column of numbers in several ways, and fit each.

    Parameters
    ----------
    frame : table
        The raw table, as `discretise` takes it.
    fit : callable
        From the table with bins to a point estimate, as
        `lambda df: mfg.mle(model(mfg.Trajectories.from_frame(df, **COLUMNS)))`. Its reward reads
        the column by `x.margin.centres` or by codes, as labels differ between cuts.
    column : str
        The column to cut.
    cuts : list
        Its cuts, each as `bins` of `discretise`: `[3, 5, 8]`.
    method : {"quantiles", "breaks"}
        How a number of bins is laid; see `discretise`.

    Returns
    -------
    BinsMatter
        The fits side by side, and a verdict.

    Raises
    ------
    TypeError
        If `frame` is no table, or `fit` returns no point estimate.
    ValueError
        If the table lacks the column, or there are fewer than two cuts.

    Notes
    -----
    Log likelihoods are of the same decisions, given states that are cut in another way each. What
    the bins lose is lost to the dynamics as well: a coarse cut blurs where an action leads.

    Examples
    --------
    >>> def fit(df):
    ...     panel = mfg.Trajectories.from_frame(df, **COLUMNS)
    ...     return mfg.mle(model(panel))
    >>> print(mfg.design.bins_matter(df, fit, column="margin", cuts=[3, 5, 8]))  # doctest: +SKIP
    """
    if in_memory("frame", frame) is None:
        raise TypeError(f"`frame` must be a table; got {type(frame).__name__}.")
    is_a("column", column, str)
    check_function("fit", fit, "be a function of a table")
    if not isinstance(cuts, (list, tuple)) or len(cuts) < 2:
        raise ValueError(f"`cuts` must list two or more, as [3, 5, 8]; got {cuts!r}.")
    rows, estimates, errors = [], [], []
    for cut in cuts:
        binned = discretise(frame, method=method, **{column: cut})
        found = fit(binned)
        is_a("fit", found, PointEstimate, " It returns what mfg.mle does.")
        bins = binned.attrs["bins"][column]
        rows.append(
            {
                "bins": len(bins["labels"]),
                "lost": bins["lost"],
                "log_likelihood": found.llf,
                "converged": found.converged,
            }
        )
        estimates.append(found.params)
        errors.append(pd.Series(np.asarray(found.bse), index=found.params.index))
    index = pd.RangeIndex(1, len(rows) + 1, name="cut")
    table, values, spread = (pd.DataFrame(v).set_axis(index) for v in (rows, estimates, errors))
    return BinsMatter(column, table, values, spread)
