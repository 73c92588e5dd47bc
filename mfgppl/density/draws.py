"""What is taken for a result: as it was made, selected, thinned, merged, or opened by others.

A file opened by xarray or ArviZ has lists as JSON text; a selection can lack a dimension, a merger
have dimensions in another order. All are read here, and draws that are not finite are refused.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mfgppl.reward.parameters import Program

LISTS = ("warnings", "parameters", "mode_weights")  # attributes
SAMPLED = ("posterior", "sample_stats", "log_likelihood", "log_prior", "posterior_predictive")
SAMPLES = ("chain", "draw")


def is_tree(draws: Any) -> bool:
    """Return whether an argument is a tree of draws, of xarray or of ArviZ before version 1."""
    return isinstance(draws, xr.DataTree) or hasattr(draws, "to_datatree")


def received(
    draws: Any, argument: str = "fit", *, finite: Sequence[str] | None = None
) -> xr.DataTree:
    """Return a tree of draws with lists as attributes and groups of (chain, draw, ...), else raise.

    Parameters
    ----------
    draws : DataTree or InferenceData
        A result.
    argument : str
        What the caller calls it.
    finite : sequence of str, optional
        Which variables must have draws, and finite ones; by default the parameters, or all
        variables where these are not known.

    Raises
    ------
    TypeError
        If it is no tree.
    ValueError
        If it has no posterior, no draws, or a draw that is not finite.
    """
    if not is_tree(draws):
        raise TypeError(
            f"`{argument}` must be a DataTree of nuts, laplace or vi; got {type(draws).__name__}."
        )
    tree = draws if isinstance(draws, xr.DataTree) else draws.to_datatree()
    if "posterior" not in tree.children:
        raise ValueError(
            f"`{argument}` must have the group posterior; it has {list(tree.children)}."
        )
    groups = {name: child.to_dataset() for name, child in tree.children.items()}
    groups |= {name: _in_order(groups[name]) for name in SAMPLED if name in groups}
    result = xr.DataTree.from_dict(groups)
    result.attrs = listed(tree.attrs)
    names = result.attrs.get("parameters") if finite is None else finite
    _check_draws(argument, groups["posterior"], names)
    return result


def listed(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return attributes in which lists are lists, from whatever a file made of them."""
    lists = {str(k): v for k, v in attrs.items()}
    return lists | {k: as_list(lists[k]) for k in LISTS if k in lists}


def _check_draws(argument: str, posterior: xr.Dataset, names: Sequence[str] | None) -> None:
    """Raise a `ValueError` unless variables, or all, have draws and these are finite."""
    for name in posterior.data_vars if names is None else names:
        if name not in posterior:
            raise ValueError(f"`{argument}` lacks the parameter {name!r} of the model.")
        values = posterior[name].values
        if not values.size:
            raise ValueError(f"`{argument}` must have draws; it has none of {name!r}.")
    check_finite_draws(f"`{argument}`", posterior, names)


def check_finite_draws(what: str, posterior: xr.Dataset, names: Sequence[str] | None) -> None:
    """Raise a `ValueError` if a draw of some variables, or of any, is not finite."""
    lost = lost_draws(posterior, names)
    if lost:
        raise ValueError(f"{what} must have finite draws; {lost}: drop them, or fit again.")


def lost_draws(posterior: xr.Dataset, names: Sequence[str] | None) -> str | None:
    """Return how many draws of a variable are no finite numbers, None where all are.

    What a program computes from its parameters may be infinite: parameters are judged, all
    variables where it is not known which these are.
    """
    for name in posterior.data_vars if names is None else names:
        values = posterior[name].values if name in posterior else np.zeros(0)
        if values.dtype.kind not in "fciub":
            return f"the draws of {name!r} are no numbers, but {values.dtype}"
        n = int((~np.isfinite(values)).sum())
        if n:
            return f"{n} of {values.size} draws of {name!r} are not finite"
    return None


def _in_order(group: xr.Dataset) -> xr.Dataset:
    """Return a group whose arrays lead with chain and draw, one of each where there is none."""
    missing = [dim for dim in SAMPLES if dim not in group.dims]
    return group.expand_dims(missing).transpose(*SAMPLES, ..., missing_dims="ignore")


def as_list(value: Any) -> list[Any]:
    """Return a list that a file holds as JSON, as an array, or as its only entry."""
    if isinstance(value, str):
        try:
            entries = json.loads(value)
        except ValueError:
            entries = None
        return entries if isinstance(entries, list) else [value]
    if isinstance(value, np.ndarray):
        return list(value.tolist())
    return list(value) if isinstance(value, (list, tuple)) else [value]


def parameters_of(
    program: Program, draws: Any, *, argument: str = "fit", finite: bool = True
) -> dict[str, np.ndarray]:
    """Return posterior draws (chain, draw, ...) by site, else raise a `ValueError`.

    Draws that are not finite are refused, unless the caller has its own word for them.
    """
    names = [site.name for site in program.sites]
    tree = received(draws, argument, finite=())
    posterior = tree["posterior"].dataset
    missing = [name for name in names if name not in posterior]
    if missing:
        raise ValueError(f"`{argument}` lacks the parameter {missing[0]!r} of the model.")
    if finite:
        _check_draws(argument, posterior, names)
    leading = ("chain", "draw")
    flat = [name for name in names if not set(leading) <= set(posterior[name].dims)]
    if flat:
        dims = posterior[flat[0]].dims
        raise ValueError(f"`{argument}` must have the dims {leading} for {flat[0]!r}; got {dims}.")
    found = {name: posterior[name].transpose(*leading, ...).values for name in names}
    for site in program.sites:
        shape = found[site.name].shape[2:]
        if math.prod(shape) != math.prod(site.shape):
            raise ValueError(
                f"`{argument}` must have draws of shape {site.shape} of {site.name!r}; got {shape}."
            )
    return found


def flat_draws(
    program: Program, draws: Any, *, argument: str = "fit", finite: bool = True
) -> np.ndarray:
    """Return constrained posterior draws (chain, draw, K), else raise a `ValueError`."""
    sites = parameters_of(program, draws, argument=argument, finite=finite).values()
    return np.concatenate([v.reshape(*v.shape[:2], -1) for v in sites], axis=-1)
