"""What a command refuses before its work, and how whatever goes wrong later ends."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from games import ROADS_TRUTH, as_frame, avoid_crowds, played, two_roads

import mfgppl as mfg
from mfgppl import cli
from mfgppl._commands import boundary, output
from mfgppl.cli import main
from mfgppl.exceptions import CompilationWarning

NAMES = {"agent": "driver", "time": "day", "state": "road", "action": "move"}
MODEL = f"""
import mfgppl as mfg
COLUMNS = {NAMES!r}

def model(panel):
    raise RuntimeError("the work began")
"""

MODEL_THAT_FITS = MODEL.replace(
    'raise RuntimeError("the work began")',
    """from games import avoid_crowds, two_roads
    game = two_roads(states={"road": ["left", "right"]})
    return mfg.TrajectoryModel(game, avoid_crowds, panel)""",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a panel and a model file that must not be reached."""
    monkeypatch.chdir(tmp_path)
    panel = played(two_roads(), avoid_crowds, ROADS_TRUTH, 20, 2)
    as_frame(panel).rename(columns=NAMES).to_csv("panel.csv", index=False)
    Path("roads.py").write_text(MODEL)
    return tmp_path


def run(*command: str):
    """Run the command line in this process."""
    return CliRunner().invoke(main, list(command))


def fit(*more: str):
    return run("fit", "roads.py", "panel.csv", *more)


def refused(result, *words: str, code: int = 1) -> None:
    """Check that a command ended before its work, with one line that has the words."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "work began" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    if code == 1:
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("mfgppl: ")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "mle", "--out", "panel.csv"], ["panel.csv", "input"]),
        (["--method", "mle", "--out", "./panel.csv", "--overwrite"], ["panel.csv", "input"]),
        (["--out", "folder.nc"], ["folder.nc", "folder"]),
        (["--out", "a" * 300 + ".nc"], ["too long"]),
        (["--out", "nowhere/fit.nc"], ["no folder"]),
        (["--out", "panel.csv/fit.nc"], ["no folder"]),
        (["--out", "fit.csv"], [".nc"]),
        (["--method", "map", "--out", "fit.nc"], [".csv"]),
        (["--report", "page.nc"], [".html"]),
        (["--report", "foreign.html"], ["foreign.html", "--overwrite"]),
        (["--report", "a.html"], ["a.json", "--overwrite"]),
        (["--out", "foreign.nc"], ["foreign.nc", "--overwrite"]),
        (["--method", "mle", "--out", "foreign.csv"], ["foreign.csv", "--overwrite"]),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(folder, options, words):
    """Nothing is read, and every file stays as it was."""
    Path("folder.nc").mkdir()
    Path("foreign.html").write_text("<!doctype html><title>mine</title>")
    Path("a.json").write_text('{"mine": 1}')
    Path("foreign.csv").write_text("estimate,price\n1,2\n")
    xr.Dataset({"x": ("t", np.arange(3.0))}).to_netcdf("foreign.nc", engine="h5netcdf")
    before = contents(folder)
    refused(fit(*options), *words)
    assert contents(folder) == before


def test_a_link_to_an_input_is_the_input(folder):
    """The same file by another name."""
    Path("linked.csv").symlink_to("panel.csv")
    refused(fit("--method", "mle", "--out", "linked.csv"), "linked.csv", "input")


def test_the_demo_and_the_report_check_their_page_too(folder):
    """Before the panel is read, and before the draws are."""
    Path("report.json").write_text("[]")
    refused(run("demo"), "report.json", "--overwrite")
    refused(run("report", "fit.nc"), "no file fit.nc")
    Path("fit.nc").write_text("no netCDF")
    Path("fit.html").write_text("mine")
    refused(run("report", "fit.nc"), "fit.html", "--overwrite")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--method", "mle", "--draws", "10"], "--draws"),
        (["--method", "map", "--sampler", "pyro"], "--sampler"),
        (["--method", "laplace", "--chains", "2"], "--chains"),
        (["--method", "vi", "--tune", "5"], "--tune"),
        (["--method", "laplace", "--cores", "1"], "--cores"),
        (["--draws", "0"], "--draws"),
        (["--chains", "0"], "--chains"),
        (["--method", "laplace", "--chains", "0"], "--chains"),
        (["--tune", "-1"], "--tune"),
        (["--cores", "0"], "--cores"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_an_option_that_is_wrong_or_unused_is_refused(folder, options, word):
    """By click's own usage error, exit code 2."""
    refused(fit(*options), word, code=2)


def test_wrong_numbers_of_the_other_commands(folder):
    """`demo --draws 0` and a mass that is none."""
    refused(run("demo", "--draws", "0"), "--draws", code=2)
    for mass in ("0", "1", "90", "nan"):
        refused(run("report", "fit.nc", "--ci-prob", mass), "--ci-prob", code=2)


def test_own_files_are_written_over_and_foreign_ones_on_request(tmp_path, monkeypatch):
    """A second run of the same command needs no flag; --overwrite gives up the rest."""
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", "pricing", "supermarket_pricing", "--method", "mle", "--out", "fit.csv"]
    Path("fit.csv").write_text("mine")
    assert run(*arguments).exit_code == 1
    for more in (["--overwrite"], []):
        result = run(*arguments, *more)
        assert result.exit_code == 0, result.output
        assert "std_err" in Path("fit.csv").read_text()


@pytest.mark.parametrize("name", ["fit.csv", "fit.nc", "page.html"])
def test_a_write_that_fails_leaves_a_foreign_file(folder, monkeypatch, name):
    """What --overwrite gives up goes when the new file is whole, and not before."""
    from mfgppl import _files

    def full(*_):
        raise OSError(28, "No space left on device")

    Path("roads.py").write_text(MODEL_THAT_FITS)
    Path(name).write_text("mine")
    option = "--report" if name == "page.html" else "--out"
    method = "laplace" if name == "fit.nc" else "mle"
    monkeypatch.setattr(_files, "_build_file", full)
    result = fit("--method", method, option, name, "--overwrite")
    assert result.exit_code == 1, result.output
    assert "No space left" in result.stderr
    assert Path(name).read_text() == "mine"


def test_the_home_folder_in_every_path(folder, monkeypatch):
    """A shell leaves `--out=~/fit.csv` as it is."""
    monkeypatch.setenv("HOME", str(folder))
    Path("roads.py").write_text(MODEL_THAT_FITS)
    result = run("fit", "~/roads.py", "~/panel.csv", "--method", "mle", "--out=~/fit.csv")
    assert result.exit_code == 0, result.output
    assert Path("fit.csv").exists()
    assert "no folder" in run("report", "~/panel.csv", "--out", "~/nowhere/a.html").stderr
    assert "no file ." in run("report", ".").stderr


ERRORS = [
    (KeyError("crowding"), "KeyError: 'crowding'"),
    (AttributeError("no group"), "AttributeError: no group"),
    (MemoryError(), "not enough memory"),
    (OverflowError("too large"), "OverflowError: too large"),
    (RecursionError("too deep"), "RecursionError: too deep"),
    (ZeroDivisionError("by zero"), "ZeroDivisionError"),
    (ValueError("`draws` must be"), "mfgppl: `draws` must be\n"),
    (ValueError(), "ValueError"),
    (SystemExit(0), "sys.exit(0)"),
    (GeneratorExit(), "GeneratorExit"),
]


@pytest.mark.parametrize(("error", "text"), ERRORS)
def test_whatever_a_library_raises_is_one_line(monkeypatch, error, text):
    """No traceback, and never success."""
    monkeypatch.setattr(cli, "load_model", raising(error))
    result = run("fit", "pricing", "supermarket_pricing")
    assert result.exit_code == 1
    assert text in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def raising(error: BaseException):
    def fail(*_, **__):
        raise error

    return fail


def test_an_interrupt_is_one_line_and_130(monkeypatch):
    """The shell's code for it."""
    monkeypatch.setattr(cli, "load_model", raising(KeyboardInterrupt()))
    result = run("fit", "pricing", "supermarket_pricing")
    assert (result.exit_code, result.stderr) == (130, "mfgppl: interrupted\n")


@pytest.mark.parametrize("place", [["--debug", "fit"], ["fit", "--debug"]])
def test_debug_shows_the_traceback(monkeypatch, place):
    """Before or after the command; the line comes last, with the same exit code."""
    monkeypatch.setattr(cli, "load_model", raising(KeyError("crowding")))
    result = run(*place, "pricing", "supermarket_pricing")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("mfgppl: KeyError: 'crowding'")


def test_a_model_file_that_exits_is_no_success(folder):
    """`sys.exit(0)` while it loads, or while it makes the model."""
    for text in (
        "import sys; sys.exit(0)",
        MODEL.replace("raise RuntimeError", "raise SystemExit"),
    ):
        Path("roads.py").write_text(text)
        result = fit("--method", "mle")
        assert result.exit_code == 1
        assert "SystemExit" in result.stderr


def test_a_model_file_imports_what_lies_beside_it(folder, monkeypatch):
    """As a script does, from any working folder."""
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("sub").mkdir()
    Path("sub/road_words.py").write_text("WORD = 'found beside'\n")
    Path("sub/roads.py").write_text(
        f"import road_words\nCOLUMNS = {NAMES!r}\n"
        "def model(panel):\n    raise RuntimeError(road_words.WORD)\n"
    )
    result = run("fit", "sub/roads.py", "panel.csv", "--method", "mle")
    assert "RuntimeError: found beside" in result.stderr


def test_more_draws_than_the_machine_holds_are_refused():
    """Before the sampler asks for the memory, which would end the process."""
    result = run("fit", "pricing", "supermarket_pricing", "--draws", str(10**15))
    assert result.exit_code == 1
    assert "--draws" in result.stderr
    assert "GB" in result.stderr


def test_a_result_of_another_program_is_one_line(folder):
    """A netCDF file, a text and a folder that are no results."""
    xr.Dataset({"x": ("t", np.arange(3.0))}).to_netcdf("foreign.nc", engine="h5netcdf")
    Path("text.nc").write_text("no netCDF")
    Path("broken.zarr").mkdir()
    Path("broken.zarr/.zgroup").write_text("{")
    for name in ("foreign.nc", "text.nc", "broken.zarr"):
        result = run("report", name)
        assert result.exit_code == 1, name
        assert len(result.stderr.splitlines()) == 1, result.stderr


def test_interrupted_draws_are_written_and_end_with_130(folder, monkeypatch):
    """What the sampler has is kept in --out; the report is not begun."""
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"x": (("chain", "draw"), [[1.0]])})})
    tree.attrs |= {"interrupted": 1, "inference_library": "mfgppl", "warnings": []}
    monkeypatch.setattr(mfg, "nuts", lambda *_, **__: tree)
    monkeypatch.setattr(mfg, "report", raising(AssertionError("a report was begun")))
    monkeypatch.setattr(cli, "build_model", lambda *_: None)
    monkeypatch.setattr(cli, "check_memory", lambda *_: None)
    result = fit("--out", "fit.nc", "--report", "page.html")
    assert result.exit_code == 130, result.output
    assert result.stderr == "mfgppl: interrupted; the draws so far are in fit.nc\n"
    assert Path("fit.nc").exists()


def test_warnings_about_compilation_are_lines_even_where_a_fit_prints_its_own(capsys):
    """A cache that cannot be used is said once; what a result carries is not said twice."""
    with output.noted_warnings():
        for _ in range(2):
            warnings.warn("kernels cannot be kept", CompilationWarning, stacklevel=1)
        warnings.warn("printed with the fit", mfg.exceptions.ConvergenceWarning, stacklevel=1)
    assert capsys.readouterr().err == "mfgppl: warning: kernels cannot be kept\n"


def test_a_line_of_an_error_is_what_it_says():
    """Messages of the package's own errors stand alone."""
    assert boundary.line_of(mfg.exceptions.DataError([])).startswith("the panel has 0 faults")
    assert boundary.line_of(KeyError("x")).startswith("KeyError: 'x'")


def test_an_error_of_several_lines_is_one(folder):
    """But for a table of faults, which comes whole."""
    Path("roads.py").write_text(MODEL.replace('"the work began"', '"one\\n  two\\nthree"'))
    assert fit("--method", "mle").stderr == (
        "mfgppl: roads.py: model(panel) failed: RuntimeError: one two three\n"
    )
    faults = mfg.exceptions.DataError([mfg.exceptions.Fault("a gap", 1, (), "fill it in")])
    assert len(boundary.named(faults).splitlines()) == 3
    assert boundary.named(ValueError()) == "ValueError"
