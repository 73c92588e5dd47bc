"""Where fits start: given values, another fit's estimates, or draws from the prior."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arguments import suggestion
from mfgppl.density.draws import flat_draws
from mfgppl.density.protocol import LogDensity
from mfgppl.density.sizes import effects_of
from mfgppl.estimation.point_estimate import PointEstimate, point_values
from mfgppl.reward.parameters import Program
from mfgppl.reward.site_values import checked_values

OPEN = 30.0  # temperatures up to which a parameter may move a reward at the default start

Start = Mapping[str, Any] | pd.Series | PointEstimate | xr.DataTree


def starting_values(density: LogDensity, init: Start | None, random_seed: int) -> dict[str, Any]:
    """Return where to start, by site: the given values, else medians of draws from the prior."""
    program = density.program
    given = {} if init is None else _given_values(density, init)
    if len(given) == len(program.sites):
        start = given
    else:
        values = density.record(density.start(random_seed)[None])[0]
        start = {**_moderate_values(density, {k: v[0] for k, v in values.items()}), **given}
    program.free(start, argument="init")
    return start


def _moderate_values(density: LogDensity, values: dict[str, Any]) -> dict[str, Any]:
    """Return values nearer to zero where they move rewards by so much that no choice is open.

    There a likelihood has no curvature. Values whose support rules that out stay as they are.
    """
    program = density.program
    theta = program.free(values)
    entries = program.by_site(effects_of(density, theta).entries)
    moderate = dict(values)
    for name, value in values.items():
        if name not in entries:
            continue
        farthest = OPEN / np.where(entries[name] > 0, entries[name], np.nan)
        nearer = np.where(np.abs(value) > farthest, np.sign(value) * farthest, value)
        if not np.array_equal(nearer, value):
            try:
                program.free({**moderate, name: nearer})
            except ValueError:
                continue
            moderate[name] = nearer
    return moderate


def _given_values(density: LogDensity, init: Any) -> dict[str, Any]:
    """Return the values that are given, by site."""
    program = density.program
    if isinstance(init, PointEstimate):
        return point_values(program, init, argument="init")
    if isinstance(init, xr.DataTree):
        rows = flat_draws(program, init, argument="init")
        free = program.free_rows(rows.reshape(-1, rows.shape[-1]))
        return program.by_site(density.constrained(np.mean(free, axis=0)[None])[0])
    if isinstance(init, pd.Series):
        return _series_values(program, init)
    if not isinstance(init, Mapping):
        raise TypeError(
            "`init` must be a mapping or Series of parameters to values, or a fit (a PointEstimate "
            f"or draws); got {init!r}."
        )
    return checked_values("init", init, program.sites, complete=False)


def _series_values(program: Program, given: pd.Series) -> dict[str, Any]:
    """Return a Series over the names of entries, as a fit's `params`, by site."""
    places = {name: k for k, name in enumerate(program.entry_names())}
    flat = np.full(len(places), np.nan)
    for name, value in given.items():
        if name not in places:
            hint = suggestion(name, places)
            raise ValueError(
                f"`init` names {name!r}; the parameters are {', '.join(places)}.{hint}"
            )
        flat[places[str(name)]] = float(value)
    named = {k: v for k, v in program.by_site(flat).items() if not np.isnan(v).all()}
    for site, values in named.items():
        if np.isnan(values).any():
            raise ValueError(f"`init` must give all entries of {site!r}, or none.")
    return named
