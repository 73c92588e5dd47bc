"""Results as files: what comes back, what is kept of an old file, what is refused and why."""

import errno
import json
import shutil
import warnings

import h5py
import numcodecs
import numpy as np
import pytest
import xarray as xr
from full_disk import full_disk

import mfgppl as mfg
from mfgppl.posterior import file_headers as declared
from mfgppl.posterior.attributes import with_plain_attributes

SUFFIXES = (".nc", ".zarr")


def result(n=200, **attrs):
    """Return a tree that passes for a result, with labels, counts and a computed infinity."""
    rng = np.random.default_rng(1)
    coords = {"chain": [0, 1], "draw": np.arange(n), "state": ["low", "a longer label"]}
    posterior = xr.Dataset(
        {
            "w": (("chain", "draw"), rng.normal(size=(2, n))),
            "v": (("chain", "draw", "state"), rng.normal(size=(2, n, 2))),
            "ratio": (("chain", "draw"), np.full((2, n), np.inf)),
        },
        coords,
    )
    stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((2, n), dtype=bool))})
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats})
    basics = {"inference_library": "mfgppl", "parameters": ["w", "v"], "warnings": []}
    tree.attrs = basics | attrs
    return tree


def arrays_equal(one, other):
    """Whether two trees have the same groups with the same arrays."""
    return set(one.children) == set(other.children) and all(
        one[k].dataset.equals(other[k].dataset) for k in one.children
    )


def edited(path, change):
    """Change a JSON file in place."""
    known = json.loads(path.read_text())
    change(known)
    path.write_text(json.dumps(known))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_attributes_come_back_as_they_were(tmp_path, suffix):
    """None, truth, lists, dicts and long integers survive, of groups and variables as well."""
    odd = {
        "none": None, "true": True, "list": [1, "a", None], "empty": [],
        "dict": {"a": [1.5, False]}, "long": 2**70, "text": "[1]", "number": 1.5,
        "warnings": ["one"], "plays": ["a", "b"],
    }  # fmt: skip
    tree = result(**odd)
    tree["posterior"].attrs = {"note": None}
    tree["posterior"]["w"].attrs["unit"] = {"of": "reward"}
    before = tree.copy(deep=True)
    mfg.save(tree, tmp_path / f"a{suffix}")
    again = mfg.load(tmp_path / f"a{suffix}")
    assert again.attrs == tree.attrs
    assert again["posterior"].attrs == {"note": None}
    assert again["posterior"]["w"].attrs == {"unit": {"of": "reward"}}
    assert arrays_equal(again, tree)
    assert tree.identical(before)


@pytest.mark.parametrize("first", SUFFIXES)
@pytest.mark.parametrize("second", SUFFIXES)
def test_what_was_loaded_can_be_saved(tmp_path, first, second):
    """From either format to either, and once more over itself."""
    tree = result()
    mfg.save(tree, tmp_path / f"a{first}")
    mfg.save(mfg.load(tmp_path / f"a{first}"), tmp_path / f"b{second}")
    mfg.save(mfg.load(tmp_path / f"b{second}"), tmp_path / f"b{second}", overwrite=True)
    assert arrays_equal(mfg.load(tmp_path / f"b{second}"), tree)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, suffix):
    """An attribute or a name that no file holds is an error, and what was there is whole."""
    path = tmp_path / f"a{suffix}"
    mfg.save(result(), path)
    with pytest.raises(TypeError, match=r"attribute 'note' of `draws`.*cannot hold"):
        mfg.save(result(note=object()), path, overwrite=True)
    with pytest.raises(TypeError, match="attribute 'note'"):
        mfg.save(result(note={1: 2}), path, overwrite=True)
    for name in ("a\0b", ".") if suffix == ".nc" else ("a\0b", "..", ".zarray", ".zgroup"):
        odd = result()
        odd["posterior"] = odd["posterior"].to_dataset().rename(w=name)
        odd.attrs["parameters"] = [name, "v"]
        with pytest.raises(ValueError, match="`draws` cannot be written"):
            mfg.save(odd, path, overwrite=True)
    assert arrays_equal(mfg.load(path), result())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_old_file(tmp_path, suffix):
    """An error that says so, nothing left over, and the old result whole."""
    path = tmp_path / f"a{suffix}"
    mfg.save(result(20), path)
    with (
        full_disk(),
        pytest.raises(OSError, match="was not written, what was there is left") as caught,
    ):
        mfg.save(result(2000), path, overwrite=True)
    assert caught.value.errno == errno.EFBIG
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert arrays_equal(mfg.load(path), result(20))


def test_files_of_others_are_kept(tmp_path):
    """A file that is no result is replaced only on demand; one of ours, or an empty one, is."""
    table, ours, empty = (tmp_path / name for name in ("a.csv", "a.nc", "empty.nc"))
    table.write_text("a,b")
    empty.touch()
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    for path in (table, tmp_path / "other.nc"):
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match=r"no result of mfgppl.*overwrite=True"):
            mfg.save(result(), path)
        assert path.read_bytes() == before
    for path in (ours, ours, empty):
        mfg.save(result(), path)
    mfg.save(result(), table, overwrite=True)
    assert arrays_equal(mfg.load(table), result())


def test_folders_of_others_are_kept_whatever_is_asked(tmp_path):
    """`overwrite` replaces a zarr store, and no other folder."""
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    (folder / "letter").write_text("dear")
    with pytest.raises(FileExistsError, match="is no zarr store"):
        mfg.save(result(), folder, overwrite=True)
    assert (folder / "letter").read_text() == "dear"
    mfg.save(result(), tmp_path / "b.zarr")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        mfg.save(result(20), tmp_path / "b.zarr")
    mfg.save(result(20), tmp_path / "b.zarr", overwrite=True)
    assert mfg.load(tmp_path / "b.zarr")["posterior"].sizes["draw"] == 20


def test_no_result_is_not_saved(tmp_path):
    """What `load` would refuse is refused by `save`: no draws, another's tree, lost draws."""
    with pytest.raises(ValueError, match="`draws` is not a result of mfgppl"):
        mfg.save(xr.DataTree(), tmp_path / "a.nc")
    empty = xr.DataTree()
    empty.attrs["inference_library"] = "mfgppl"
    with pytest.raises(ValueError, match="must have draws in the group posterior"):
        mfg.save(empty, tmp_path / "a.nc")
    lost = result()
    lost["posterior"]["w"][:, 3] = np.nan
    with pytest.raises(ValueError, match="2 of 400 draws of 'w' are not finite"):
        mfg.save(lost, tmp_path / "a.nc")
    for wrong in (3, None, b"a.nc"):
        with pytest.raises(TypeError, match="`path` must be a path"):
            mfg.save(result(), wrong)
        with pytest.raises(TypeError, match="`path` must be a path"):
            mfg.load(wrong)
    assert not list(tmp_path.iterdir())


def test_the_home_folder_and_capitals(tmp_path, monkeypatch):
    """~ is the home folder, and .ZARR a store, for both functions."""
    monkeypatch.setenv("HOME", str(tmp_path))
    mfg.save(result(), "~/a.nc")
    mfg.save(result(), "~/A.ZARR")
    assert (tmp_path / "A.ZARR").is_dir()
    assert arrays_equal(mfg.load("~/a.nc"), mfg.load("~/A.ZARR"))


@pytest.mark.parametrize("lost", ["posterior/w/0.0", "posterior/w", "sample_stats", "posterior"])
def test_a_store_that_lost_a_part_is_refused(tmp_path, lost):
    """A chunk, an array or a group that is missing is named, and nothing is filled in."""
    path = tmp_path / "a.zarr"
    mfg.save(result(), path)
    found = path / lost
    found.unlink() if found.is_file() else shutil.rmtree(found)
    with pytest.raises(ValueError, match=rf"is damaged.*{lost.split('/')[0]}"):
        mfg.load(path)


def described(n=20):
    """Return a result in which each group has an attribute and a coordinate that is no index."""
    tree = result(n)
    note = xr.DataArray(["a", "b"], dims="place")
    tree["constant_data"] = xr.DataTree(xr.Dataset(coords={"unit": note}))
    for name, child in tree.children.items():
        child.attrs = {"note": f"of {name}"}
    return tree


@pytest.mark.parametrize("group", ["posterior", "sample_stats", "constant_data"])
@pytest.mark.parametrize("left", [None, "{}"])
def test_the_attributes_of_each_group_are_missed(tmp_path, group, left):
    """The file of a group's attributes is lost, or empty; arrays, too, would be other ones."""
    path = tmp_path / "a.zarr"
    mfg.save(described(), path)
    assert mfg.load(path)[group].attrs == {"note": f"of {group}"}
    attributes = path / group / ".zattrs"
    attributes.unlink() if left is None else attributes.write_text(left)
    with pytest.raises(ValueError, match=f"is damaged: it lacks .*'attribute note of {group}'"):
        mfg.load(path)


def test_coordinates_that_come_back_as_data_are_missed(tmp_path):
    """A group without attributes of its own lists there which of its arrays are coordinates."""
    path, tree = tmp_path / "a.zarr", described()
    tree["constant_data"].attrs = {}
    mfg.save(tree, path)
    assert set(mfg.load(path)["constant_data"].coords) == {"unit"}
    (path / "constant_data" / ".zattrs").unlink()
    with pytest.raises(ValueError, match=r"lacks .*'coordinate constant_data/unit'"):
        mfg.load(path)


def test_the_root_that_lost_its_attributes_is_no_result(tmp_path):
    """They name the package and say what the store holds."""
    path = tmp_path / "a.zarr"
    mfg.save(described(), path)
    (path / ".zattrs").unlink()
    with (
        pytest.warns(UserWarning, match="does not say that it is whole"),
        pytest.raises(ValueError, match="is not a result of mfgppl"),
    ):
        mfg.load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_names_arrays_alone_is_read(tmp_path, suffix):
    """The list of older files: arrays without coordinates and attributes of groups."""
    path, tree = tmp_path / f"a{suffix}", described()
    older = with_plain_attributes(tree)
    arrays = [f"{g}/{name}" for g, node in tree.children.items() for name in node.variables]
    older.attrs["mfgppl_holds"] = json.dumps(arrays)
    if suffix == ".nc":
        older.to_netcdf(path, engine="h5netcdf")
    else:
        older.to_zarr(path, zarr_format=2, consolidated=False, write_empty_chunks=True)
    again = mfg.load(path)
    assert arrays_equal(again, tree)
    assert again.attrs == tree.attrs


@pytest.mark.parametrize("damage", ["{", ""])
def test_a_store_with_broken_metadata_is_refused(tmp_path, damage):
    """Metadata that was cut short is a ValueError that says so."""
    path = tmp_path / "a.zarr"
    mfg.save(result(), path)
    (path / "posterior" / "w" / ".zarray").write_text(damage)
    with pytest.raises(ValueError, match="is damaged and cannot be read"):
        mfg.load(path)


def test_a_file_cut_short_is_refused(tmp_path):
    """Every prefix of a netCDF file that we try is a ValueError."""
    path = tmp_path / "a.nc"
    mfg.save(result(), path)
    whole = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"a\.nc (is not a netCDF file|is damaged)"):
            mfg.load(path)


@pytest.mark.parametrize("options", [{"zarr_format": 3}, {"zarr_format": 2, "consolidated": False}])
def test_a_store_by_other_means_is_read_with_a_warning(tmp_path, options):
    """Either format of zarr is read; that nothing says it is whole is said."""
    tree = result()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels have no settled form in the third format
        tree.to_zarr(tmp_path / "a.zarr", **options)
    with pytest.warns(UserWarning, match="does not say that it is whole"):
        again = mfg.load(tmp_path / "a.zarr")
    assert arrays_equal(again, tree)
    assert again.attrs["parameters"] == ["w", "v"]


def test_a_file_by_other_means_is_read(tmp_path):
    """Lists that netCDF holds as arrays, or as their only entry, are lists again."""
    tree = result(warnings=["only one"])
    tree.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    again = mfg.load(tmp_path / "a.nc")
    assert again.attrs["parameters"] == ["w", "v"]
    assert again.attrs["warnings"] == ["only one"]


def test_lost_draws_of_a_store_by_other_means_are_refused(tmp_path):
    """Where nothing says what was written, missing chunks show as draws that are not finite."""
    path = tmp_path / "a.zarr"
    result().to_zarr(path, zarr_format=2, consolidated=False)
    (path / "posterior" / "w" / "0.0").unlink()
    with (
        pytest.warns(UserWarning, match="does not say that it is whole"),
        pytest.raises(ValueError, match="400 of 400 draws of 'w' are not finite"),
    ):
        mfg.load(path)


class Evil(numcodecs.abc.Codec):
    """A codec that notes that it was run."""

    codec_id = "evil"
    ran = False

    def encode(self, buf):
        """Return what came."""
        return buf

    def decode(self, buf, out=None):
        """Run."""
        Evil.ran = True
        return buf


def test_codecs_that_are_not_known_are_not_run(tmp_path):
    """A store that names a codec of its own is refused before any array is decoded."""
    numcodecs.register_codec(Evil)
    for key, value in (("compressor", {"id": "evil"}), ("filters", [{"id": "evil"}])):
        path = tmp_path / f"{key}.zarr"
        mfg.save(result(), path)
        edited(path / "posterior" / "w" / ".zarray", lambda z: z.update({key: value}))  # noqa: B023
        with pytest.raises(ValueError, match="names the codec 'evil' for w"):
            mfg.load(path)
    assert not Evil.ran


def test_the_codecs_of_both_formats_are_looked_at(tmp_path):
    """An array may be declared twice, and which declaration a library prefers is its own affair."""
    path = tmp_path / "a.zarr"
    mfg.save(result(), path)
    second = {"zarr_format": 3, "node_type": "array", "codecs": [{"name": "sharding_indexed"}]}
    (path / "posterior" / "w" / "zarr.json").write_text(json.dumps(second))
    with pytest.raises(ValueError, match="names the codec 'sharding_indexed' for w"):
        mfg.load(path)


def test_a_frame_that_claims_all_memory_is_refused_in_words(tmp_path):
    """The header of a compressed chunk claims 2**50 bytes."""
    path = tmp_path / "a.zarr"
    mfg.save(result(), path)
    edited(path / "posterior/w/.zarray", lambda z: z.update(compressor={"id": "zstd", "level": 1}))
    frame = b"\x28\xb5\x2f\xfd\xe0" + (2**50).to_bytes(8, "little") + b"\x01\0\0"
    (path / "posterior/w/0.0").write_bytes(frame)
    with pytest.raises(MemoryError, match=r"a\.zarr asks for more memory than there is"):
        mfg.load(path)


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.filterwarnings("ignore:.*does not say that it is whole")
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
@pytest.mark.filterwarnings("ignore:The codec `vlen-utf8`")
def test_a_chunk_of_texts_holds_no_more_than_its_cells(tmp_path, form):
    """The header of nine bytes claims four thousand million texts."""
    path, tree = tmp_path / "a.zarr", result()
    words = np.array(["left", "right"], dtype=object)
    tree["observed_data"] = xr.DataTree(xr.Dataset({"word": ("agent", words)}))
    for compressed in (True, False):
        shutil.rmtree(path, ignore_errors=True)
        if form == 2:
            mfg.save(tree, path)
        else:
            with_plain_attributes(tree).to_zarr(path, zarr_format=3, consolidated=False)
        loaded = mfg.load(path)["observed_data"]["word"]
        np.testing.assert_array_equal(loaded, words)
        folder = path / "observed_data" / "word"
        chunk = folder / ("0" if form == 2 else "c/0")
        header = (2**32 - 1).to_bytes(4, "little") + b"\x01\0\0\0a"
        name = ".zarray" if form == 2 else "zarr.json"
        header_of = json.loads((folder / name).read_text())
        if form == 2:
            header_of["compressor"] = {"id": "zstd", "level": 1} if compressed else None
        else:
            names = ["vlen-utf8", *(["zstd"] if compressed else [])]
            header_of["codecs"] = [{"name": n, "configuration": {}} for n in names]
        (folder / name).write_text(json.dumps(header_of))
        chunk.write_bytes(numcodecs.Zstd().encode(header) if compressed else header)
        with pytest.raises(ValueError, match=r"word declares 4,294,967,295 texts in a chunk of 2"):
            mfg.load(path)


def test_a_list_of_contents_that_is_none_is_a_damage(tmp_path):
    """The attribute that says what a store holds is JSON."""
    path = tmp_path / "a.zarr"
    mfg.save(result(), path)
    edited(path / ".zattrs", lambda z: z.update(mfgppl_holds="["))
    with pytest.raises(ValueError, match="is damaged and cannot be read"):
        mfg.load(path)


@pytest.mark.parametrize(
    ("metadata", "unknown"),
    [
        ({"compressor": {"id": "zstd"}, "filters": [{"id": "vlen-utf8"}]}, None),
        ({"compressor": None, "filters": None}, None),
        ({"compressor": {"id": "bz2"}, "filters": None}, "bz2"),
        ({"compressor": None, "filters": [{"id": "pickle"}]}, "pickle"),
        ({"compressor": {"id": "zstd"}, "filters": [{"id": "zstd"}]}, "zstd"),
        ({"codecs": [{"name": "bytes"}, {"name": "zstd"}, {"name": "crc32c"}]}, None),
        ({"codecs": [{"name": "bytes"}, {"name": "zstd"}, {"name": "zstd"}]}, "zstd"),
        ({"codecs": [{"name": "sharding_indexed"}]}, "sharding_indexed"),
        ({"codecs": [{"name": "numcodecs.pickle"}]}, "numcodecs.pickle"),
    ],
)
def test_codecs_that_are_read(metadata, unknown):
    """Known codecs, each once and in its place; a chain of them unfolds without bound."""
    assert declared._unknown_codec(metadata) == unknown


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sizes_are_checked_before_memory_is_taken(tmp_path, suffix):
    """A small file that declares terabytes is refused by its size."""
    path = tmp_path / f"a{suffix}"
    mfg.save(result(), path)
    if suffix == ".nc":
        with h5py.File(path, "a") as file:
            file["posterior"].create_dataset("huge", (10**12,), "f8", chunks=(1000,))
    else:
        edited(path / "posterior/w/.zarray", lambda z: z.update(shape=[2, 10**12], chunks=[2, 200]))
    with pytest.raises(ValueError, match=r"declares arrays of .*more than it can hold"):
        mfg.load(path)


def test_links_to_other_places_are_not_followed(tmp_path):
    """A file or store that points elsewhere is refused."""
    mfg.save(result(), tmp_path / "a.nc")
    mfg.save(result(), tmp_path / "a.zarr")
    with h5py.File(tmp_path / "b.nc", "w") as file:
        file["posterior"] = h5py.ExternalLink("a.nc", "/posterior")
    with pytest.raises(ValueError, match="links posterior to another place"):
        mfg.load(tmp_path / "b.nc")
    for inside in ("extra", "posterior/w/0.0", "posterior/.zattrs"):
        mfg.save(result(), tmp_path / "a.zarr", overwrite=True)
        link, target = tmp_path / "a.zarr" / inside, tmp_path / "elsewhere"
        link.rename(target) if link.exists() else target.mkdir()
        link.symlink_to(target)
        with pytest.raises(ValueError, match=f"links {inside} to another place"):
            mfg.load(tmp_path / "a.zarr")
        target.unlink() if target.is_file() else target.rmdir()
