"""What a file declares of its arrays, looked at before any of them is decoded.

A file from elsewhere can name codecs that run code, and sizes that no memory holds. Functions
return what is wrong, or None.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# these decode bytes and do nothing else; none unfolds a byte to more than UNFOLDED
COMPRESSORS = ("blosc", "gzip", "lz4", "zlib", "zstd")
LABELS = "vlen-utf8"
SERIALISERS = ("bytes", LABELS)
CHECKSUMS = ("crc32c",)
METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
UNFOLDED = 2**15
ALWAYS = 2**26  # bytes that any file may ask for


def zarr_fault(path: Path, *, whole: bool) -> str | None:
    """Return why a zarr store cannot be read, or not without harm.

    Parameters
    ----------
    whole : bool
        Whether all chunks were written, so that one that is missing was lost.
    """
    import zarr  # slow to import, and needed for stores only

    linked = [p for p in _below(path) if p.is_symlink()]
    if linked:
        return f"links {linked[0].relative_to(path)} to another place, which is not followed."
    declared = list(_arrays(path))
    for folder, metadata in declared:
        unknown = _unknown_codec(metadata)
        if unknown:
            known = ", ".join((*COMPRESSORS, *SERIALISERS, *CHECKSUMS))
            return f"names the codec {unknown!r} for {folder.name}; those read are {known}."
        if LABELS in _codecs(metadata) and (fault := _texts_fault(folder, metadata)):
            return fault
    arrays = {p.relative_to(path).as_posix(): zarr.open_array(p, mode="r") for p, _ in declared}
    sizes = {name: math.prod(a.shape) * _item_size(a) for name, a in arrays.items()}
    return _sizes_fault(path, sizes) or (_chunks_fault(arrays) if whole else None)


def _chunks_fault(arrays: Mapping[str, Any]) -> str | None:
    for name, array in arrays.items():
        lost = array.nchunks - array.nchunks_initialized
        if lost:
            return f"is damaged: {name} lacks {lost} of its {array.nchunks} chunks."
    return None


def _texts_fault(folder: Path, declared: Mapping[str, Any]) -> str | None:
    """Return which chunk declares more texts than it has cells: room for all is taken at once."""
    grid = declared.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape")
    most = math.prod(declared["chunks"] if grid is None else grid)
    chunks = [p for p in _below(folder) if p.is_file() and p.name not in METADATA]
    for chunk in chunks:
        asked = int.from_bytes(_uncompressed(chunk.read_bytes(), _codecs(declared))[:4], "little")
        if asked > most:
            return f"is damaged: {folder.name} declares {asked:,} texts in a chunk of {most:,}."
    return None


def _uncompressed(content: bytes, codecs: Sequence[str]) -> bytes:
    import numcodecs  # with zarr

    content = content[:-4] if codecs[-1] in CHECKSUMS else content
    for name in codecs:
        if name in COMPRESSORS:
            content = bytes(numcodecs.get_codec({"id": name}).decode(content))
    return content


def netcdf_fault(path: Path) -> str | None:
    """Return why a netCDF file cannot be read: it holds not its own data, or not as much.

    Raises
    ------
    OSError
        If it is none.
    """
    import h5py

    sizes: dict[str, int] = {}

    def look(group: Any, prefix: str) -> str | None:
        for name in group:
            where = f"{prefix}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                return f"links {where} to another place, which is not followed."
            item = group[name]
            if isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    return f"keeps {where} in another file, which is not read."
                sizes[where] = 0 if item.shape is None else int(item.nbytes)
            elif isinstance(item, h5py.Group) and (fault := look(item, f"{where}/")):
                return fault
        return None

    with h5py.File(path, "r") as file:
        return look(file, "") or _sizes_fault(path, sizes)


def _sizes_fault(path: Path, sizes: Mapping[str, int]) -> str | None:
    """Return why arrays ask for more memory than a file of this size can fill."""
    asked, held = sum(sizes.values()), _bytes_of(path)
    if asked <= max(ALWAYS, UNFOLDED * held):
        return None
    largest = max(sizes, key=lambda name: sizes[name])
    return (
        f"has {held:,} bytes and declares arrays of {asked:,} ({largest} the largest), more than "
        "it can hold: it is damaged, or made to fill the memory."
    )


def _bytes_of(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(os.path.getsize(p) for p in _below(path) if p.is_file())


def _below(path: Path) -> Iterator[Path]:
    """Yield the folders and files of a store."""
    for folder, inside, names in os.walk(path):
        yield from (Path(folder, name) for name in (*inside, *names))


def _arrays(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the folders of arrays with their metadata, in each format in which there are any."""
    for file in _below(path):
        if file.name not in (".zarray", "zarr.json"):
            continue
        declared = json.loads(file.read_text("utf-8"))
        if file.name == ".zarray" or declared.get("node_type") == "array":
            yield file.parent, declared


def _unknown_codec(declared: Mapping[str, Any]) -> str | None:
    """Return the first codec of an array that is not read, or is one too many."""
    names = _codecs(declared)
    roles: tuple[tuple[str, ...], ...] = ((LABELS,), COMPRESSORS)
    if "codecs" in declared:
        roles = (SERIALISERS, COMPRESSORS, CHECKSUMS)
    for role in roles:
        if names and names[0] in role:
            names.pop(0)
    return names[0] if names else None


def _codecs(declared: Mapping[str, Any]) -> list[str]:
    """Return the names of an array's codecs, in the order in which they encode."""
    if "codecs" in declared:
        return [str(codec["name"]) for codec in declared["codecs"]]
    compressor, filters = declared.get("compressor"), declared.get("filters")
    names = [str(f["id"]) for f in filters or []]
    return [*names, str(compressor["id"])] if compressor else names


def _item_size(array: Any) -> int:
    return int(getattr(array.dtype, "itemsize", 8))
