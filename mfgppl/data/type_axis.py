"""Labelled arrays by type: one axis for types before that of states, or one for pairs of both."""

from typing import Any

import xarray as xr

from mfgppl.data.space import StateSpace, state_labels, text_labels


def by_type(data: Any, space: StateSpace) -> Any:
    """Return labelled arrays with an axis "type" where states stand for pairs of type and state.

    It comes before time. Along it stand the labels of each type that there is, under its name.

    Parameters
    ----------
    data : DataArray or Dataset
        With the dimension "state" over stacked states, if at all.
    space : StateSpace
        The types and states. Without types the arrays stay as they are.
    """
    if not space.types or "state" not in data.dims:
        return data
    if isinstance(data, xr.Dataset):
        parts = {str(k): by_type(v, space) for k, v in data.data_vars.items()}
        return xr.Dataset(parts, attrs=data.attrs)
    axis = list(data.dims).index("state")
    shape = (*data.shape[:axis], space.n_cells, space.within.size, *data.shape[axis + 1 :])
    dims = [*data.dims[:axis], "type", *data.dims[axis:]]
    order = [d for d in dims if d != "type"]
    order.insert(order.index("time") if "time" in order else order.index("state"), "type")
    coords = {k: v for k, v in data.coords.items() if "state" not in v.dims}
    apart = xr.DataArray(data.values.reshape(shape), coords, dims, data.name, data.attrs)
    labels = {
        "type": text_labels(space.cells.labels),
        "state": state_labels(space.within),
        **{name: ("type", values) for name, values in space.cells.columns.items()},
    }
    return apart.assign_coords(labels).transpose(*order)


def stacked(data: xr.DataArray) -> xr.DataArray:
    """Return a labelled array with one axis "state" over pairs of type and state.

    The inverse of `by_type`; an array without an axis "type" stays as it is.
    """
    if not {"type", "state"} <= set(data.dims):
        return data
    order = [d for d in data.dims if d != "type"]
    pairs = [x for d in order for x in (("type", d) if d == "state" else (d,))]
    array = data.transpose(*pairs)
    axis = pairs.index("type")
    shape = (*array.shape[:axis], -1, *array.shape[axis + 2 :])
    coords = {k: v for k, v in array.coords.items() if not {"type", "state"} & set(v.dims)}
    kinds, states = (array[k].values.tolist() for k in ("type", "state"))
    coords["state"] = [f"{kind}, {state}" for kind in kinds for state in states]
    return xr.DataArray(array.values.reshape(shape), coords, order, data.name, data.attrs)
