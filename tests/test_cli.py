"""The command line on small panels and model files."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from games import ROADS_TRUTH, as_frame, avoid_crowds, played, two_roads

import mfgppl as mfg
from mfgppl.cli import main

MODEL = '''
"""Drivers who avoid crowds."""
import pyro
import pyro.distributions as dist
import mfgppl as mfg

COLUMNS = {"agent": "driver", "time": "day", "state": "road", "action": "move"}

def reward(x):
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    effort = pyro.sample("effort", dist.HalfNormal(1.0))
    return -crowding * x.density - effort * (x.action == "turn")

def model(panel):
    game = mfg.MeanFieldGame(
        states={"road": ["left", "right"]},
        actions=["stay", "turn"],
        horizon=panel.horizon,
        transition=panel.estimate_transition(),
        initial=panel.initial_distribution(),
    )
    return mfg.TrajectoryModel(game, reward, panel)
'''
NAMES = {"agent": "driver", "time": "day", "state": "road", "action": "move"}
OPTIONS = [part for role, name in NAMES.items() for part in (f"--{role}", name)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a panel and a model file."""
    monkeypatch.chdir(tmp_path)
    panel = played(two_roads(), avoid_crowds, ROADS_TRUTH, 80, 2)
    as_frame(panel).rename(columns=NAMES).to_csv("panel.csv", index=False)
    Path("roads.py").write_text(MODEL)
    return tmp_path


def run(*command: str):
    """Run the command line in this process."""
    return CliRunner().invoke(main, list(command))


def fitted() -> mfg.results.PointEstimate:
    """Return the estimate that the fit command should print, by the package itself."""
    panel = mfg.Trajectories.from_frame("panel.csv", **NAMES)
    game = mfg.MeanFieldGame(
        states={"road": ["left", "right"]},
        actions=["stay", "turn"],
        horizon=4,
        transition=panel.estimate_transition(),
        initial=panel.initial_distribution(),
    )
    return mfg.mle(mfg.TrajectoryModel(game, avoid_crowds, panel))


def test_check_describes_a_good_panel(folder):
    """A sound table ends with exit code 0 and its sizes."""
    result = run("check", "panel.csv", *OPTIONS)
    assert result.exit_code == 0, result.stderr
    rows = [line.split(":", 1) for line in result.stdout.splitlines()]
    found = {key: value.strip() for key, value in rows}
    assert (found["agents"], found["decisions"], found["decision times"]) == ("80", "320", "4")


def test_check_takes_several_state_columns(folder):
    """A repeated --state makes a product space."""
    frame = pd.read_csv("panel.csv")
    frame.assign(weather="dry").to_csv("panel.csv", index=False)
    result = run("check", "panel.csv", *OPTIONS, "--state", "weather")
    assert result.exit_code == 0, result.stderr
    assert "weather: dry" in result.stdout


def test_check_reports_all_faults_of_a_bad_panel(folder):
    """A faulty table ends with exit code 1 and the table of its faults on standard error."""
    frame = pd.read_csv("panel.csv")
    frame.loc[2, "road"] = None
    pd.concat([frame, frame.iloc[[8]]]).to_csv("panel.csv", index=False)
    result = run("check", "panel.csv", *OPTIONS)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "missing value in 'road'" in result.stderr
    assert "duplicate (driver, day)" in result.stderr or "duplicate (agent, time)" in result.stderr
    assert "Traceback" not in result.output


def test_check_splits_at_gaps_on_request(folder):
    """A gap is a fault, or with --gaps split the start of a new trajectory."""
    pd.read_csv("panel.csv").drop(index=1).to_csv("panel.csv", index=False)
    assert run("check", "panel.csv", *OPTIONS).exit_code == 1
    result = run("check", "panel.csv", *OPTIONS, "--gaps", "split")
    assert result.exit_code == 0, result.stderr
    assert "trajectories:                       81" in result.stdout


@pytest.mark.parametrize("name", mfg.datasets.PANELS)
def test_check_knows_the_bundled_panels(name):
    """A bundled panel is named without a path."""
    columns = {
        "supermarket_pricing": ["--agent", "product", "--time", "month", "--state", "margin"],
        "nyc_flights": ["--agent", "service", "--time", "week", "--state", "capacity"],
    }
    assert run("check", name, *columns[name]).exit_code == 0


def test_fit_by_mle_writes_the_estimates(folder):
    """The table written has the estimates that the package gives on the same panel."""
    result = run("fit", "roads.py", "panel.csv", "--method", "mle", "--out", "fit.csv")
    assert result.exit_code == 0, result.output
    assert "log likelihood" in result.stdout
    written = pd.read_csv("fit.csv", index_col=0)["estimate"]
    # both are Newton's point, to the last digits of a CSV file
    pd.testing.assert_series_equal(written, fitted().params, check_names=False, rtol=1e-6)


def test_fit_says_in_one_line_what_it_read_and_over_which_space_a_mode_is(folder):
    """The panel's sizes, not its rows."""
    result = run("fit", "roads.py", "panel.csv", "--method", "map")
    assert result.exit_code == 0, result.output
    assert "map (constrained)" in result.stdout
    first = result.stdout.splitlines()[0]
    assert first.startswith("Trajectories(80 trajectories, 320 decisions at 4 times")


@pytest.mark.usefixtures("few_panels", "blank_figures")
@pytest.mark.parametrize("method", ["mle", "map", "laplace"])
def test_fit_writes_its_report(folder, method):
    """The page has the sections that need the model; its numbers lie beside it."""
    result = run("fit", "roads.py", "panel.csv", "--method", method, "--report", "page.html")
    assert "Report: page.html" in result.stdout, result.output
    titles = [s["title"] for s in json.loads(Path("page.json").read_text())["sections"]]
    assert "Identification" in titles
    assert ("Sensitivity to the prior" in titles) is (method == "laplace")


@pytest.mark.usefixtures("few_panels", "blank_figures")
def test_report_of_saved_draws_takes_the_model(folder):
    """With --model and --panel the checks that need the model are there."""
    assert run("fit", "roads.py", "panel.csv", "--method", "laplace", "--out", "f.nc").output
    for more, there in (((), False), (("--model", "roads.py", "--panel", "panel.csv"), True)):
        result = run("report", "f.nc", *more)
        assert result.exit_code == 0, result.output
        titles = [s["title"] for s in json.loads(Path("f.json").read_text())["sections"]]
        assert ("Identification" in titles) is there


def draw(*more: str, seed: str | None = "3"):
    """Run a short NUTS fit."""
    sizes = ["--draws", "60", "--tune", "150", "--chains", "2", "--cores", "1"]
    seeded = [] if seed is None else ["--seed", seed]
    return run("fit", "roads.py", "panel.csv", *sizes, *seeded, *more)


@pytest.mark.usefixtures("few_panels", "blank_figures")
def test_fit_by_nuts_writes_draws_and_report_reads_them(folder):
    """Draws are saved, their warnings printed with exit code 3, and the report made of them, which
    goes where asked, with the intervals asked.
    """
    result = draw("--out", "fit.nc")
    assert result.exit_code == 3, result.output
    assert "warning: 2 chains" in result.stdout
    assert "seed 3" in result.stdout
    tree = mfg.load("fit.nc")
    assert tree["posterior"].sizes == {"chain": 2, "draw": 60}
    assert set(tree["posterior"].data_vars) == {"crowding", "effort"}
    assert any("2 chains" in message for message in tree.attrs["warnings"])
    result = run("report", "fit.nc", "--out", "page.html", "--ci-prob", "0.5")
    assert result.exit_code == 0, result.output
    assert "50%" in Path("page.html").read_text("utf-8")
    assert not Path("fit.html").exists()
    result = run("report", "fit.nc")
    assert result.exit_code == 0, result.output
    page = Path("fit.html").read_text("utf-8")
    assert "crowding" in page
    assert "effort" in page
    assert "2 chains" in page


def test_a_fresh_seed_is_recorded_saved_and_gives_the_same_draws_again(folder):
    """Without --seed one is drawn; the file keeps it; passing it prints and draws the same."""
    fresh = draw("--out", "fit.nc", seed=None)
    assert fresh.exit_code == 3, fresh.output
    tree = mfg.load("fit.nc").load()
    seed = str(int(tree.attrs["random_seed"]))
    assert f"seed {seed}" in fresh.stdout
    again = draw("--out", "fit.nc", seed=seed)
    assert again.exit_code == 3, again.output
    assert mfg.load("fit.nc")["posterior"].equals(tree["posterior"])
    printed, other = (
        [line for line in run.stdout.splitlines() if " s, seed " not in line]  # the seconds taken
        for run in (fresh, again)
    )
    assert printed == other


def test_a_gallery_model_is_fitted_by_name():
    """A model of the gallery and a bundled panel need no files."""
    result = run("fit", "pricing", "supermarket_pricing", "--method", "mle")
    assert result.exit_code == 0, result.output
    assert "13350 decisions of 534 trajectories" in result.stdout


@pytest.mark.parametrize("command", [[], ["demo"], ["fit"], ["report"], ["check"]])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help(command, option):
    """Help says how the command is used and ends with exit code 0."""
    result = run(*command, option)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    assert len(result.stdout.splitlines()) > 5


def test_version_is_the_packages():
    """`mfgppl --version` prints the version."""
    result = run("--version")
    assert result.exit_code == 0
    assert mfg.__version__ in result.stdout
