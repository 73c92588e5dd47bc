"""The groups of a result as labelled datasets, in which no name can meet another.

Each group has its own dimensions and labels: what a site is called matters in its group alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mfgppl.density.draws import SAMPLES

Values = Mapping[str, Any]  # arrays by name


def labelled_groups(
    groups: Mapping[str, Values],
    *,
    dims: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    coords: Mapping[str, Any] | None = None,
    draws: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Return groups of arrays as a tree in ArviZ's schema; those that are empty are left out.

    Parameters
    ----------
    groups : mapping of str to mapping of str to array
        Arrays by group and name; they lead with chain and draw unless the group is of data.
    dims : mapping of str to mapping, optional
        By group and name, the dimensions after these; others are named after the array.
    coords : mapping of str to sequence, optional
        Labels by dimension.
    draws : mapping of str to sequence, optional
        Labels of the draws by group, where they are not numbered from 0.
    """
    from arviz_base import make_attrs, rcParams  # slow to import, and needed after sampling only

    origin, datasets = rcParams["data.index_origin"], {}
    for group, values in groups.items():
        if not values:
            continue
        lead = [] if "data" in group else list(SAMPLES)
        named = _dims(values, (dims or {}).get(group, {}), len(lead))
        arrays = {name: ([*lead, *named[name]], array) for name, array in values.items()}
        labels = {
            dim: np.arange(origin, size + origin)
            for of_one, array in arrays.values()
            for dim, size in zip(of_one, np.shape(array), strict=True)
        }
        labels |= {k: v for k, v in (coords or {}).items() if k in labels}
        if draws and group in draws:
            labels["draw"] = draws[group]
        datasets[group] = xr.Dataset(arrays, labels, make_attrs())
    return xr.DataTree.from_dict(datasets)


def _dims(values: Values, given: Mapping[str, Sequence[str]], n_lead: int) -> dict[Any, Any]:
    """Return dimensions of arrays: those given, or called as ArviZ does, made not to meet."""
    taken = {*values, *SAMPLES, *(dim for dims in given.values() for dim in dims)}
    dims_of = {name: list(dims) for name, dims in given.items() if name in values}
    for name, array in values.items():
        if name in dims_of:
            continue
        dims_of[name] = []
        for k in range(np.ndim(array) - n_lead):
            dim = f"{name}_dim_{k}"
            while dim in taken:
                dim += "_"
            taken.add(dim)
            dims_of[name].append(dim)
    return dims_of
