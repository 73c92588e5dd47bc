"""Models ranked by what they predict, with weights."""

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arguments import is_a, one_of, strict_keywords
from mfgppl.checks.loo import loo
from mfgppl.density.draws import is_tree
from mfgppl.estimation.latex import Table

if TYPE_CHECKING:
    from arviz_stats import ELPDData


@strict_keywords
def compare_models(
    results: Mapping[str, "ELPDData | xr.DataTree"], *, method: str = "stacking"
) -> pd.DataFrame:
    """Rank models by what they predict, with weights.

    Parameters
    ----------
    results : mapping of str to ELPDData or DataTree
        Results of `loo`, `kfold` or `leave_future_out` by model, all of one kind and of the same
        data; draws are scored by `loo`.
    method : {"stacking", "bb-pseudo-bma", "pseudo-bma"}
        How weights are made.

    Returns
    -------
    DataFrame
        Of `arviz_stats.compare`, the best model first: `rank`, `elpd` (nats), `p`, `elpd_diff` to
        the best, `weight`, `se`, `dse` (of the difference), `warning`.

    Raises
    ------
    ValueError
        If there are fewer than two results, or they do not score the same.

    References
    ----------
    .. [1] Yao, Vehtari, Simpson and Gelman (2018), *Using stacking to average Bayesian predictive
       distributions*, Bayesian Analysis 13.
    """
    from arviz_stats import ELPDData, compare  # slow to import

    if not isinstance(results, Mapping):
        raise TypeError(f"`results` must be a mapping of names; got {type(results).__name__}.")
    one_of("method", method, ["stacking", "bb-pseudo-bma", "pseudo-bma"])
    if len(results) < 2:
        raise ValueError(f"`results` must hold at least two models; got {list(results)}.")
    scored = {k: loo(v) if is_tree(v) else v for k, v in results.items()}
    for name, elpd in scored.items():
        is_a("results", elpd, ELPDData, f" {name!r}: score it by loo, kfold or leave_future_out.")
    _check_alike(scored)
    # what all scores share cancels in weights and differences, and would underflow in exp()
    common = np.max([v.elpd_i.values for v in scored.values()], axis=0)
    light = {k: _subtract(v, common) for k, v in scored.items()}
    with warnings.catch_warnings():  # ArviZ's own use of pandas
        warnings.simplefilter("ignore", DeprecationWarning)
        table = compare(light, method=method, **_rounding_option(compare))
    names = list(table.index)
    table["elpd"] = [scored[k].elpd for k in names]
    table["se"] = [scored[k].se for k in names]
    return Table(table.rename_axis("model"))


def _rounding_option(compare: Callable[..., pd.DataFrame]) -> dict[str, str]:
    """Return the option that keeps ArviZ from rounding a table, which version 1 does."""
    return {"round_to": "none"} if "round_to" in inspect.signature(compare).parameters else {}


def _check_alike(scored: Mapping[str, "ELPDData"]) -> None:
    """Raise unless all results score the same by the same rule."""
    (first, one), *others = scored.items()
    for name, other in others:
        if other.kind != one.kind or other.elpd_i.attrs != one.elpd_i.attrs:
            raise ValueError(
                f"`results` must be of one kind; {first!r} is {_kind(one)} and {name!r} is "
                f"{_kind(other)}."
            )
        if _units_of(other) != _units_of(one):
            raise ValueError(
                f"`results` must score the same; {first!r} has {one.n_data_points} by "
                f"{one.elpd_i.dims[0]} and {name!r} {other.n_data_points} by "
                f"{other.elpd_i.dims[0]}, or of other labels."
            )


def _units_of(elpd: "ELPDData") -> tuple[str, list[str]]:
    """Return what has a score, and the labels."""
    (dim,) = elpd.elpd_i.dims
    return str(dim), [str(v) for v in elpd.elpd_i[dim].values]


def _kind(elpd: "ELPDData") -> str:
    settings = ", ".join(f"{k}={v!r}" for k, v in elpd.elpd_i.attrs.items())
    return f"{elpd.kind}({settings})"


def _subtract(elpd: "ELPDData", common: np.ndarray) -> "ELPDData":
    values = elpd.elpd_i - common
    return dataclasses.replace(elpd, elpd_i=values, elpd=float(values.sum()))
