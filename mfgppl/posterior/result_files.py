"""A result as a file: written whole or not at all, read only where it is whole."""

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr

from mfgppl._arguments import is_a, strict_keywords
from mfgppl._files import (
    check_new_folder,
    check_target,
    path_of,
    recoverable,
    write_files,
    write_folder,
)
from mfgppl.density.draws import check_finite_draws, listed
from mfgppl.posterior import store
from mfgppl.posterior.attributes import (
    HOLDS,
    check_names,
    contents,
    restore_attributes,
    with_plain_attributes,
)
from mfgppl.posterior.convergence import convergence_messages
from mfgppl.posterior.file_headers import netcdf_fault, zarr_fault
from mfgppl.posterior.groups import labelled_groups

LIBRARY = "inference_library"  # attribute that names this package


@strict_keywords
def save(draws: xr.DataTree, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a result to a netCDF file, or to a zarr store where `path` ends in .zarr.

    The file is built aside and takes the place of the old one when it is whole, so that a kill or
    a full disk leaves what was there. Attributes may be text, numbers, None, and lists and dicts
    of them; all come back from `load` as they were.

    Parameters
    ----------
    draws : DataTree
        A result of `nuts`, `laplace` or `vi`.
    path : str or Path
        Where to write; ~ is the home folder. A result in a netCDF file is replaced.
    overwrite : bool
        Whether to replace what is at `path` where it is a zarr store, or a file that is no
        result.

    Raises
    ------
    TypeError
        If `draws` is no DataTree, or has an attribute that a file cannot hold.
    ValueError
        If it is no result of this package, or has draws that are not finite.
    FileNotFoundError
        If the folder of `path` does not exist.
    FileExistsError
        If there is a zarr store at `path` already, or a file that is no result.
    OSError
        If it cannot be written; what was at `path` is as it was.
    """
    check_result("`draws`", is_a("draws", draws, xr.DataTree))
    path = path_of("path", path)
    try:
        if path.suffix.lower() == ".zarr":
            _check_store(path, overwrite)
            write_folder(path, lambda part: store.write_zarr(draws, part), replace=overwrite)
        else:
            _check_file(path, overwrite)
            write_files({path: _netcdf(draws)})
    except ValueError as error:
        raise ValueError(f"`draws` cannot be written to {path}: {error}") from error


def load(path: str | Path) -> xr.DataTree:
    """Read a result into memory, from a netCDF file or a zarr store.

    A store whose run was killed gives the draws that all its chains have, labelled as interrupted.
    Arrays are read only after their codecs and sizes were looked at.

    Parameters
    ----------
    path : str or Path
        What `save` or `nuts(store=)` wrote; ~ is the home folder.

    Returns
    -------
    DataTree
        The result.

    Raises
    ------
    FileNotFoundError
        If there is no such file or store.
    ValueError
        If it is not a result of this package, is damaged, has draws that are not finite, or a
        store holds no draws yet.
    """
    path = path_of("path", path)
    tree = _read_file(path) if path.is_file() else _read_folder(path)
    with _damages(path):
        lost = sorted(set(json.loads(tree.attrs.pop(HOLDS, "[]"))) - set(contents(tree)))
    if lost:
        raise ValueError(
            f"{path} is damaged: it lacks {len(lost)} of its parts, such as {lost[0]!r}."
        )
    check_result(str(path), tree)
    return tree


def check_result(what: str, tree: xr.DataTree) -> None:
    """Raise a `ValueError` unless a tree is a result of this package with finite draws."""
    if tree.attrs.get(LIBRARY) != "mfgppl":
        raise ValueError(f"{what} is not a result of mfgppl; write one with mfgppl.save.")
    if "posterior" not in tree.children or not tree["posterior"].data_vars:
        raise ValueError(
            f"{what} must have draws in the group posterior; it has the groups "
            f"{sorted(tree.children)}."
        )
    names = listed(tree.attrs).get("parameters")
    check_finite_draws(what, tree["posterior"].to_dataset(), names)


def _check_store(path: Path, overwrite: bool) -> None:
    check_new_folder(path)
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists; remove it, write to another store, or pass overwrite=True"
        )
    if path.exists() and not store.is_store(path):
        raise FileExistsError(f"{path} exists and is no zarr store; name another")


def _check_file(path: Path, overwrite: bool) -> None:
    check_target(path)
    if not overwrite and path.exists() and path.stat().st_size and not _is_result(path):
        raise FileExistsError(
            f"{path} exists and is no result of mfgppl; name another file, or pass overwrite=True"
        )


def _is_result(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get(LIBRARY) == "mfgppl")
    except OSError:
        return False


def _netcdf(draws: xr.DataTree) -> bytes:
    """Return the bytes of a file: HDF5 ends the process where it meets a full disk itself."""
    plain = with_plain_attributes(draws)
    plain.attrs[HOLDS] = json.dumps(contents(plain))
    buffer = io.BytesIO()
    plain.to_netcdf(buffer, engine="h5netcdf")
    content = buffer.getvalue()
    with xr.open_datatree(io.BytesIO(content), engine="h5netcdf") as written:
        check_names(plain, written)
    return content


def _read_file(path: Path) -> xr.DataTree:
    with _damages(path):
        try:
            fault = netcdf_fault(path)
        except OSError as error:
            fault = f"is not a netCDF file: {error}"
    if fault:
        raise ValueError(f"{path} {fault}")
    with _damages(path), xr.open_datatree(path, engine="h5netcdf") as opened:
        tree = opened.load()
        restore_attributes(tree)
        return tree


def _read_folder(path: Path) -> xr.DataTree:
    """Read a store, or what was left of it where the write that was to replace it was killed."""
    folders = recoverable(path)
    if not folders:
        raise FileNotFoundError(f"no file {path}: give the .nc file or the .zarr store of a fit")
    stores = [folder for folder in folders if store.is_store(folder)]
    if not stores:
        raise ValueError(f"{path} is a folder and no zarr store; give the .zarr store of a fit.")
    with _damages(path):
        running = [store.is_running(folder) for folder in stores]
    best = stores[running.index(False)] if False in running else stores[0]
    return _read_store(best, running=all(running))


def _read_store(path: Path, *, running: bool) -> xr.DataTree:
    with _damages(path):
        marked = store.is_marked(path)
        fault = zarr_fault(path, whole=marked)
    if fault:
        raise ValueError(f"{path} {fault}")
    if running:
        return _read_unfinished(path)
    if not marked:
        warnings.warn(
            f"{path} does not say that it is whole, as stores of mfgppl.save and nuts(store=) do; "
            "groups may be missing.",
            stacklevel=4,
        )
    with _damages(path):
        tree = store.read_zarr(path)
        restore_attributes(tree)
    return tree


@contextmanager
def _damages(path: Path) -> Iterator[None]:
    """Say that a file is damaged where the libraries stumble over it."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(
            f"{path} asks for more memory than there is: it is damaged, or too large for this "
            "machine"
        ) from error
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"{path} is damaged and cannot be read: {kind}: {error}") from error


def _read_unfinished(path: Path) -> xr.DataTree:
    """Return what a run had written when it was killed as a shorter result that says so."""
    with _damages(path):
        tree, chains = store.read_unfinished(path)
        restore_attributes(tree)
    if not chains:
        raise ValueError(f"{path} holds no draws after tuning; the run ended too early.")
    n = min(len(chain["sample_stats"]["lp"]) for chain in chains)
    drawn = {
        group: {name: np.stack([c[group][name][:n] for c in chains]) for name in values}
        for group, values in chains[0].items()
    }
    for name, child in labelled_groups(drawn).children.items():
        tree[name] = child
    tree.attrs["interrupted"] = 1
    tree.attrs["warnings"] = convergence_messages(tree)
    return tree
