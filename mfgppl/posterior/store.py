"""Draws on disk as they come: a zarr store that holds a valid result at any moment.

While chains run, the store holds the constant groups and, under `chains`, what each chain has
written. When they end, the whole result takes its place.
"""

import asyncio
import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mfgppl._files import check_new_folder, path_of, write_folder
from mfgppl.posterior.attributes import HOLDS, check_names, contents, with_plain_attributes
from mfgppl.posterior.groups import labelled_groups

FORMAT = 2  # of zarr; the third has no settled form for labels
CHUNK = 256  # draws
RUNNING = "running"  # attribute of a store whose chains have not ended
CHAINS, FIXED = "chains", "fixed"
METADATA = (".zgroup", "zarr.json")  # of the two formats

Groups = dict[str, dict[str, np.ndarray]]


class RunStore:
    """The store of a run; where it cannot be written any more, the run goes on without it.

    Parameters
    ----------
    path : Path
        Of a store that was begun.
    n_chains : int
        Chains that write to it, each in a thread or process of its own.
    """

    def __init__(self, path: Path, n_chains: int) -> None:
        self.path = path
        self._ended = multiprocessing.RawArray("b", n_chains)  # seen by all processes

    def append(self, chain: int, groups: Groups) -> None:
        """Append draws to a chain, up to the first that cannot be written."""
        if self._ended[chain]:
            return
        try:
            append_draws(self.path, chain, groups)
        except Exception:  # whatever it is, the draws in memory are worth more
            self._ended[chain] = 1

    def finish(self, tree: xr.DataTree) -> str | None:
        """Put the whole result in the store, or return why that failed."""
        try:
            finish_store(self.path, tree)
        except Exception as error:  # whatever it is, the draws in memory are worth more
            return (
                f"`store` could not take the result, which is returned all the same: {error}. "
                "Write it elsewhere with mfgppl.save."
            )
        return None


def check_store(store: Any) -> Path:
    """Return where a store is to be made, else raise before anything is sampled."""
    path = path_of("store", store)
    if path.suffix.lower() != ".zarr":
        raise ValueError(f"`store` must end in .zarr; got {path.name!r}.")
    if path.exists():
        raise FileExistsError(
            f"`store` names {path}, which exists; load it, or name another store."
        )
    check_new_folder(path)
    return path


def create_store(path: Path, constants: xr.DataTree, example: Groups | None = None) -> None:
    """Begin a store with the groups and attributes that do not change.

    Parameters
    ----------
    example : dict of dict of ndarray, optional
        Groups of draws as they will come, which are written as a trial.

    Raises
    ------
    FileExistsError
        If there is something at `path` already.
    ValueError
        If a store cannot hold groups like the example.
    """
    check_store(path)

    def build(part: Path) -> None:
        if example is not None:
            _try(part, example)
        root = _open(part, "w")
        root.attrs[RUNNING] = 1
        write_zarr(constants, part / FIXED)

    write_folder(path, build)


def append_draws(path: Path, chain: int, groups: Groups) -> None:
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
    write_folder(path, lambda part: write_zarr(tree, part), replace=True)


def write_zarr(tree: xr.DataTree, path: Path) -> None:
    """Write a tree to a new zarr store, and last of all what it holds.

    Raises
    ------
    ValueError
        If zarr cannot hold a name.
    """
    plain = with_plain_attributes(tree)
    names = [str(name) for node in plain.subtree for name in node.variables]
    odd = [name for name in names if name in METADATA or name.startswith(".")]
    if odd:
        raise ValueError(f"zarr cannot hold {odd[0]!r} as a name.")
    options: dict[str, Any] = {"consolidated": False, "write_empty_chunks": True}
    try:
        plain.to_zarr(path, mode="w-", zarr_format=FORMAT, **options)
    except BaseException:
        _await_writes()
        raise
    with xr.open_datatree(path, engine="zarr", consolidated=False) as written:
        check_names(plain, written)
    _open(path, "a").attrs[HOLDS] = json.dumps(contents(plain))


def _await_writes(seconds: float = 10.0) -> None:
    """Wait for what zarr goes on writing in its threads after one of its writes has raised."""
    from zarr.core.sync import sync

    async def settle() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=seconds)

    sync(settle())


def is_store(path: Path) -> bool:
    """Return whether a folder is a zarr store."""
    return any((path / name).exists() for name in METADATA)


def is_running(path: Path) -> bool:
    """Return whether a store was left before its chains ended."""
    return RUNNING in _open(path, "r").attrs


def is_marked(path: Path) -> bool:
    """Return whether a store says that it was written to its end."""
    return HOLDS in _open(path, "r").attrs


def read_zarr(path: Path) -> xr.DataTree:
    """Read a whole result into memory."""
    with xr.open_datatree(path, engine="zarr", consolidated=False) as opened:
        return opened.load()


def read_unfinished(path: Path) -> tuple[xr.DataTree, list[Groups]]:
    """Return the constant groups and what each chain with draws has written, by group and name."""
    folders = sorted((path / CHAINS).glob("*"), key=lambda p: int(p.name))
    chains = [_read_chain(folder) for folder in folders]
    return read_zarr(path / FIXED), [c for c in chains if c]


def _open(path: Path, mode: str) -> Any:
    import zarr  # slow to import, and needed for long runs only

    how = {"use_consolidated": False} if mode == "r" else {"zarr_format": FORMAT}
    return zarr.open_group(path, mode=mode, **how)  # type: ignore[arg-type]


def _try(path: Path, example: Groups) -> None:
    """Write one draw and remove it."""
    draw = {g: {k: v[None, :1] for k, v in group.items()} for g, group in example.items()}
    try:
        write_zarr(labelled_groups(draw), path)
    except ValueError as error:
        raise ValueError(f"`store` cannot hold the draws of this model: {error}") from None
    shutil.rmtree(path)


def _read_chain(folder: Path) -> Groups:
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
