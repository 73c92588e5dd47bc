"""Attributes of a result as files hold them: text and numbers as they are, the rest as JSON."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from mfgppl.density.draws import LISTS, as_list

AS_JSON = "mfgppl_json"  # names of the attributes beside it that are JSON
HOLDS = "mfgppl_holds"  # the parts of a result, so that one that is missing was lost
OURS = (AS_JSON, HOLDS)
LARGEST = 2**63  # beyond, a number is text in files


def with_plain_attributes(tree: xr.DataTree) -> xr.DataTree:
    """Return a tree of the same arrays whose attributes any file can hold.

    Raises
    ------
    TypeError
        If an attribute is nothing that JSON can hold.
    """
    parts = {}
    for path, node in tree.subtree_with_keys:
        dataset = node.to_dataset(inherit=False).drop_encoding()
        dataset.attrs = _plain(dataset.attrs)
        for variable in dataset.variables.values():
            variable.attrs = _plain(variable.attrs)
        parts["/" if path == "." else f"/{path}"] = dataset
    return xr.DataTree.from_dict(parts)


def contents(tree: xr.DataTree) -> list[str]:
    """Return all parts of a tree: arrays by path, which are coordinates, attributes of groups."""
    parts = []
    for path, node in tree.subtree_with_keys:
        parts += [f"{path}/{name}" for name in node.variables]
        parts += [f"coordinate {path}/{name}" for name in node.coords]
        parts += [f"attribute {name} of {path}" for name in node.attrs if name not in OURS]
    return sorted(parts)


def check_names(tree: xr.DataTree, written: xr.DataTree) -> None:
    """Raise a `ValueError` unless what was written has the variables of a tree."""
    lost = sorted(set(contents(tree)) - set(contents(written)))
    if lost:
        raise ValueError(f"a file cannot hold the name of {lost[0]!r}.")


def restore_attributes(tree: xr.DataTree) -> None:
    """Give the attributes of a tree that was read their values back."""
    for node in tree.subtree:
        node.attrs = _restore(node.attrs)
        for variable in node.variables.values():
            variable.attrs = _restore(variable.attrs)
    for name in LISTS:  # written by other means, these are JSON or arrays
        if name in tree.attrs or name in ("warnings", "parameters"):
            tree.attrs[name] = as_list(tree.attrs.get(name, []))


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    odd = [name for name, value in attrs.items() if not _is_plain(value)]
    plain = {str(k): v for k, v in attrs.items() if k not in odd}
    plain |= {str(name): _json(name, attrs[name]) for name in odd}
    return plain | ({AS_JSON: json.dumps(odd)} if odd else {})


def _is_plain(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return False
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "iuf" and value.size > 0
    if isinstance(value, int):
        return -LARGEST <= value < LARGEST
    return isinstance(value, (str, float, np.number))


def _json(name: Any, value: Any) -> str:
    try:
        return json.dumps(_jsonable(value))
    except TypeError:
        raise TypeError(
            f"the attribute {name!r} of `draws` is {value!r:.60}, which a file cannot hold; "
            "make it text, a number, None, or a list or dict of these."
        ) from None


def _jsonable(value: Any) -> Any:
    """Return a value in JSON's terms, else raise a `TypeError`."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError
        return {key: _jsonable(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _restore(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    restored = dict(attrs)
    for name in json.loads(restored.pop(AS_JSON, "[]")):
        restored[name] = json.loads(restored[name])
    return restored
