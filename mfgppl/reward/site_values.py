"""Parameters as users give them: by site, by entry, or as a fit."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arrays import is_labelled

ENTRY = re.compile(r"(?P<site>.+)\[(?P<place>\d+(?:, ?\d+)*)\]")


def site_values(argument: str, given: Any) -> dict[str, Any]:
    """Return a value for each site, else raise a `TypeError`.

    Parameters
    ----------
    argument : str
        What the caller calls them.
    given : mapping, Series, point fit or None
        Values by site; a Series may also have entries of arrays, `w[0]` and `w[1]`, as a fit's
        `params` does.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If entries of an array are missing or repeated.
    """
    if given is None:
        return {}
    params = getattr(given, "params", None)
    if isinstance(params, pd.Series):  # a fit
        given = params
    if isinstance(given, pd.Series):
        return _by_site(argument, given)
    if isinstance(given, Mapping) and not isinstance(given, (xr.Dataset, xr.DataTree)):
        return {k: v.to_numpy() if is_labelled(v) else v for k, v in given.items()}
    draws = isinstance(given, (xr.Dataset, xr.DataTree))
    remedy = " Draws are many values: give one, as of their mean." if draws else ""
    came = repr(given) if isinstance(given, (int, float, str)) else type(given).__name__
    raise TypeError(
        f"`{argument}` must be a mapping of parameters to values, a Series or a point fit; got "
        f"{came}.{remedy}"
    )


def _by_site(argument: str, series: pd.Series) -> dict[str, Any]:
    """Return the entries of a Series as arrays by site."""
    repeated = series.index[series.index.duplicated()]
    if len(repeated):
        raise ValueError(f"`{argument}` gives {repeated[0]!r} twice; give each once.")
    sites: dict[str, Any] = {}
    for name, value in zip(map(str, series.index), series, strict=True):
        entry = ENTRY.fullmatch(name)
        if entry is None:
            sites[name] = value
            continue
        place = tuple(map(int, entry["place"].split(",")))
        sites.setdefault(entry["site"], {})[place] = value
    sites = {k: _array(argument, k, v) if isinstance(v, dict) else v for k, v in sites.items()}
    return {k: v.to_numpy() if is_labelled(v) else v for k, v in sites.items()}


def _array(argument: str, site: str, entries: dict[tuple[int, ...], Any]) -> np.ndarray:
    """Return the array that has given entries, all of them."""
    n_axes = {len(place) for place in entries}
    shape = tuple(np.max(list(entries), axis=0) + 1) if len(n_axes) == 1 else ()
    if np.prod(shape, dtype=int) != len(entries):
        raise ValueError(f"`{argument}` lacks entries of {site!r}; it has {list(entries)}.")
    array = np.empty(shape)
    for place, value in entries.items():
        array[place] = value
    return array
