"""Results of several plays as one tree."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from mfgppl.inference.compiled import PlaysDensity

BY_PLAY = ("posterior_predictive", "observed_data", "constant_data")


def joined(density: PlaysDensity, trees: Sequence[xr.DataTree]) -> xr.DataTree:
    """Return the plays' trees in one, with a dimension "play" where they differ.

    Parameters
    ----------
    density : PlaysDensity
        Whose plays they are, in its order.
    trees : sequence of DataTree
        Of the same draws.

    Returns
    -------
    DataTree
        Data, predictive draws and constants have the dimension "play" in front of time, state and
        action; log likelihoods go on along "trajectory"; parameters are those that all share.
    """
    labels = [str(label) for label in density.model.models]
    groups = {
        f"/{name}": _group(name, labels, [tree[name].to_dataset() for tree in trees])
        for name in trees[0].children
    }
    found = xr.DataTree.from_dict(groups)
    found.attrs.update(trees[0].attrs)
    found.attrs.update(_noted(labels, trees))
    return found


def _group(name: str, labels: Sequence[str], parts: Sequence[xr.Dataset]) -> xr.Dataset:
    if name == "log_likelihood":
        named = [
            part.assign_coords(trajectory=[f"{label}: {v}" for v in part["trajectory"].values])
            for label, part in zip(labels, parts, strict=True)
        ]
        return xr.concat(named, "trajectory", **_plainly())
    differ = [
        str(k) for k in parts[0] if any(not part[k].equals(parts[0][k]) for part in parts[1:])
    ]
    differ = [str(k) for k in parts[0]] if name in BY_PLAY else differ
    if not differ:
        return parts[0]
    apart = xr.concat([part[differ] for part in parts], "play", **_plainly())
    apart = apart.assign_coords(play=list(labels))
    order = [d for d in ("chain", "draw", "play") if d in apart.dims]
    return xr.merge([parts[0].drop_vars(differ), apart.transpose(*order, ...)], **_exactly())


def _plainly() -> dict[str, Any]:
    """Return options of a concatenation that takes labels as they are."""
    return {"coords": "minimal", "compat": "override", "join": "override", "data_vars": "all"}


def _exactly() -> dict[str, Any]:
    return {"compat": "no_conflicts", "join": "exact"}


def _noted(labels: Sequence[str], trees: Sequence[xr.DataTree]) -> Mapping[str, Any]:
    """Return what the attributes say of all plays together."""
    hashes = {
        name: hashlib.sha256("".join(tree.attrs[name] for tree in trees).encode()).hexdigest()[:16]
        for name in ("game_hash", "data_hash")
    }
    told = [
        f"{label}: {message}"
        for label, tree in zip(labels, trees, strict=True)
        for message in tree.attrs.get("warnings", [])
    ]
    return {**hashes, "plays": list(labels), "warnings": told}
