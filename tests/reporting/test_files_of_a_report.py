"""The two files of a report: written together, over nobody else's."""

import json

import pytest

import mfgppl as mfg
from mfgppl import _files
from mfgppl.reporting import sections


@pytest.fixture(scope="module")
def fitted(roads_model):
    """A fit that is quickly reported."""
    return mfg.laplace(roads_model, draws=100, random_seed=1, progressbar=False)


@pytest.fixture
def no_work(monkeypatch):
    """Sections that must not be computed."""

    def begun(*args):
        raise AssertionError("work began")

    monkeypatch.setattr(sections, "sections_of", begun)


@pytest.mark.parametrize("name", ["a.html", "a.json"])
def test_files_of_others_are_refused_before_any_work(fitted, tmp_path, no_work, name):
    """A page or JSON file that is no report of ours is kept, and nothing is computed."""
    (tmp_path / name).write_text('{"name": "settings"}')
    with pytest.raises(FileExistsError, match=rf"{name} exists and is no report.*overwrite=True"):
        mfg.report(fitted, tmp_path / "a.html")
    assert (tmp_path / name).read_text() == '{"name": "settings"}'


def test_targets_are_checked_before_any_work(fitted, tmp_path, no_work):
    """No folder, a folder in place of either file, and no path at all."""
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError, match=r"a\.json is a folder"):
        mfg.report(fitted, tmp_path / "a.html")
    with pytest.raises(FileNotFoundError, match="no folder"):
        mfg.report(fitted, tmp_path / "none" / "a.html")
    with pytest.raises(TypeError, match="`path` must be a path"):
        mfg.report(fitted, 3)


@pytest.fixture
def short(monkeypatch):
    """Reports of one section."""
    monkeypatch.setattr(sections, "sections_of", lambda subject: [sections.panel(subject)])


@pytest.mark.usefixtures("short")
def test_a_report_replaces_its_own_and_others_on_demand(fitted, tmp_path, monkeypatch):
    """The second report of a name takes the place of the first, in the home folder as well."""
    monkeypatch.setenv("HOME", str(tmp_path))
    page = mfg.report(fitted, "~/a.html", title="first")
    assert page == tmp_path / "a.html"
    mfg.report(fitted, page, title="second")
    assert json.loads((tmp_path / "a.json").read_text())["title"] == "second"
    assert "second" in page.read_text()
    page.write_text("a letter")
    mfg.report(fitted, page, title="third", overwrite=True)
    assert "third" in page.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.json"]


@pytest.mark.usefixtures("short")
def test_a_report_that_cannot_be_written_leaves_the_last(fitted, tmp_path, monkeypatch):
    """Where the second file cannot be built the first is not replaced either."""
    page = mfg.report(fitted, tmp_path / "a.html", title="first")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    build = _files._build_file

    def failing(part, target, content):
        if target.suffix == ".json":
            raise OSError(28, "No space left on device")
        build(part, target, content)

    monkeypatch.setattr(_files, "_build_file", failing)
    with pytest.raises(OSError, match="No space left"):
        mfg.report(fitted, page, title="second")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
