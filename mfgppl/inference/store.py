"""Draws on disk as they come: a zarr store that holds a valid result at any moment.

While chains run, the store holds the constant groups and, under `chains`, what each chain has
written. When they end, the whole result takes its place.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

FORMAT = 2  # of zarr; the third has no settled form for labels
CHUNK = 256  # draws
RUNNING = "running"  # attribute of a store whose chains have not ended
CHAINS, FIXED = "chains", "fixed"


def _open(path: Path, mode: str) -> Any:
    import zarr  # slow to import, and needed for long runs only

    return zarr.open_group(path, mode=mode, zarr_format=FORMAT)  # type: ignore[arg-type]


def create_store(path: Path, constants: xr.DataTree) -> None:
    """Begin a store with the groups and attributes that do not change.

    Raises
    ------
    FileExistsError
        If there is something at `path` already.
    """
    if path.exists():
        raise FileExistsError(
            f"`store` names {path}, which exists; load it, or name another store."
        )
    root = _open(path, "w")
    root.attrs[RUNNING] = 1
    write_zarr(constants, path / FIXED)


def append_draws(path: Path, chain: int, groups: dict[str, dict[str, np.ndarray]]) -> None:
    """Append draws, groups of arrays that lead with the draws' axis, to a chain of a store.

    The log density goes last: as many draws count as it has.
    """
    root = _open(path / CHAINS / str(chain), "a")
    arrays = {f"{g}/{name}": rows for g, group in groups.items() for name, rows in group.items()}
    for name in sorted(arrays, key=lambda name: name == "sample_stats/lp"):
        rows = np.asarray(arrays[name])
        if name not in root:
            fill = np.nan if rows.dtype.kind == "f" else 0
            shape = rows.shape[1:]
            root.create_array(
                name, shape=(0, *shape), chunks=(CHUNK, *shape), dtype=rows.dtype, fill_value=fill
            )
        root[name].append(rows)


def finish_store(path: Path, tree: xr.DataTree) -> None:
    """Put the whole result in the place of what was written on the way."""
    whole, before = path.with_name(path.name + ".whole"), path.with_name(path.name + ".before")
    write_zarr(tree, whole)
    os.replace(path, before)
    os.replace(whole, path)
    shutil.rmtree(before)


def write_zarr(tree: xr.DataTree, path: Path) -> None:
    """Write a tree to a new zarr store."""
    plain = with_plain_attributes(tree)
    plain.to_zarr(path, mode="w-", consolidated=False, zarr_format=FORMAT)


def with_plain_attributes(tree: xr.DataTree) -> xr.DataTree:
    """Return a tree whose attributes that are lists are JSON, which files can hold."""
    tree = tree.copy(deep=False)
    tree.attrs = {k: json.dumps(v) if isinstance(v, list) else v for k, v in tree.attrs.items()}
    return tree


def is_store(path: Path) -> bool:
    """Return whether a folder is a zarr store."""
    return (path / ".zgroup").exists()


def is_running(path: Path) -> bool:
    """Return whether a store was left before its chains ended."""
    return RUNNING in _open(path, "r").attrs


def read_zarr(path: Path) -> xr.DataTree:
    """Read a whole result into memory."""
    with xr.open_datatree(path, engine="zarr", consolidated=False) as opened:
        return opened.load()


def read_unfinished(path: Path) -> tuple[xr.DataTree, list[dict[str, dict[str, Any]]]]:
    """Return the constant groups and what each chain with draws has written, by group and name."""
    folders = sorted((path / CHAINS).glob("*"), key=lambda p: int(p.name))
    chains = [_read_chain(folder) for folder in folders]
    return read_zarr(path / FIXED), [c for c in chains if c]


def _read_chain(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the draws that are there in full."""
    root = _open(folder, "r")
    if "sample_stats/lp" not in root:
        return {}
    written = np.isfinite(np.asarray(root["sample_stats/lp"][:]))
    n = int(np.argmin(written)) if not written.all() else len(written)
    groups = {
        group: {name: np.asarray(array[:n]) for name, array in root[group].arrays()}
        for group in root.group_keys()
    }
    return groups if n else {}
