"""From a table to a comparison on the command line: new, check, fit, compare, report."""

import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from games import ROADS_TRUTH, as_frame, avoid_crowds, played, two_roads

import mfgppl as mfg
from mfgppl.cli import main

NAMES = {"agent": "driver", "time": "day", "state": "road", "action": "move"}
OPTIONS = [part for role, name in NAMES.items() for part in (f"--{role}", name)]
MLE = ["--method", "mle"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a panel of drivers from two towns."""
    monkeypatch.chdir(tmp_path)
    panel = played(two_roads(), avoid_crowds, ROADS_TRUTH, 80, 2)
    frame = as_frame(panel).rename(columns=NAMES)
    frame["town"] = np.where(frame["driver"].astype("category").cat.codes % 2, "east", "west")
    frame.to_csv("panel.csv", index=False)
    return tmp_path


def run(*command: str, answers: str | None = None):
    """Run the command line in this process."""
    return CliRunner().invoke(main, list(command), input=answers)


def test_a_new_study_passes_check_and_fit(folder):
    """The file written is fitted as it stands, with a coefficient for each of its terms."""
    result = run("new", "study", "panel.csv", *OPTIONS)
    assert result.exit_code == 0, result.output
    assert "Model file: study/model.py" in result.stdout
    assert run("check", "panel.csv", *OPTIONS).exit_code == 0
    fitted = run("fit", "study/model.py", "panel.csv", *MLE, "--json")
    assert fitted.exit_code == 0, fitted.output
    record = json.loads(fitted.stdout)
    terms = re.findall(r'^    "(\w+)": .*  # ', Path("study/model.py").read_text(), re.MULTILINE)
    assert list(record["parameters"]) == terms
    assert {"turn", "road_right", "crowd"} == set(terms)
    assert record["passed"]


def test_the_commands_that_a_new_study_names_work(folder):
    """Those of its docstring, as they stand."""
    run("new", "my study", "panel.csv", *OPTIONS)
    text = Path("my study/model.py").read_text()
    check, fit = (re.search(rf"mfgppl ({word} .*)", text).group(1) for word in ("check", "fit"))
    for command in (check, fit):
        result = run(*shlex.split(command))
        assert result.exit_code == 0, result.output


def test_columns_that_are_not_given_are_asked_for(folder):
    """With a column of the role's own name as the answer of an empty line."""
    frame = pd.read_csv("panel.csv").rename(columns={"day": "time"})
    frame.assign(dry=1).to_csv("panel.csv", index=False)
    result = run("new", "study", "panel.csv", "--action", "move", answers="driver\n\nroad, dry\n")
    assert result.exit_code == 0, result.output
    assert "Columns: driver, time, road, move, town, dry" in result.stderr
    text = Path("study/model.py").read_text()
    assert '"agent": "driver",\n    "time": "time",\n    "state": ["road", "dry"]' in text
    wrong = run("new", "other", "panel.csv", "--action", "move", answers="drive\n")
    assert wrong.exit_code == 1
    assert "no column 'drive'; the table has driver, time" in wrong.stderr
    assert not Path("other").exists()


def test_types_and_clusters_of_a_new_study(folder):
    """They are in its columns, and the fit clusters by them."""
    result = run("new", "s", "panel.csv", *OPTIONS, "--type", "town", "--cluster", "town")
    assert result.exit_code == 0, result.output
    text = Path("s/model.py").read_text()
    assert '"type_labels": {"town": ["east", "west"]}' in text
    assert "types=panel.space.cells.coordinates" in text
    fitted = run("fit", "s/model.py", "panel.csv", *MLE, "--cluster", "town", "--out", "fit.csv")
    assert fitted.exit_code == 0, fitted.output
    assert "std_err clustered by town, 2 clusters" in fitted.stdout
    assert "note: 2 clusters, fewer than 30" in fitted.stdout
    panel = mfg.Trajectories.from_frame("panel.csv", **NAMES, types=["town"], groups=["town"])
    assert panel.n_agents == 80
    wrong = run("fit", "s/model.py", "panel.csv", *MLE, "--cluster", "village")
    assert wrong.exit_code == 1
    assert "--cluster must be one of agent, town; got 'village'" in wrong.stderr


def test_a_new_study_with_types_whose_state_is_called_state(folder):
    """The column's usual name is no hindrance."""
    pd.read_csv("panel.csv").rename(columns={"road": "state"}).to_csv("panel.csv", index=False)
    columns = [*OPTIONS[:4], "--state", "state", *OPTIONS[6:], "--type", "town"]
    result = run("new", "s", "panel.csv", *columns)
    assert result.exit_code == 0, result.output
    fitted = run("fit", "s/model.py", "panel.csv", *MLE, "--json")
    assert fitted.exit_code == 0, fitted.output
    assert "state_right" in json.loads(fitted.stdout)["parameters"]


def test_numbers_have_a_slope_and_what_no_data_identify_is_a_comment(folder):
    """A driver's car never changes: no choice depends on what it is worth."""
    rng = np.random.default_rng(1)
    frame = pd.read_csv("panel.csv")
    cars = frame["driver"].astype("category").cat.codes % 3
    frame["car"] = np.array(["small", "large", "very large"])[cars]
    frame["toll"] = rng.integers(0, 3, len(frame))
    frame.to_csv("panel.csv", index=False)
    more = ["--state", "car", "--state", "toll"]
    result = run("new", "s", "panel.csv", *OPTIONS, *more)
    assert result.exit_code == 0, result.output
    text = Path("s/model.py").read_text()
    assert len(re.findall(r'# no data can identify: "car_\w+": lambda x: x.car == "', text)) == 2
    assert '"toll": lambda x: x.toll,' in text
    assert "no data can identify it; a comment in the file" in result.stdout
    fitted = run("fit", "s/model.py", "panel.csv", *MLE)
    assert fitted.exit_code == 0, fitted.output
    assert "do not identify" not in fitted.output


def test_a_model_file_that_is_there_is_kept(folder):
    """Whoever has edited it does not lose it."""
    Path("study").mkdir()
    Path("study/model.py").write_text("mine")
    result = run("new", "study", "panel.csv", *OPTIONS)
    assert result.exit_code == 1
    assert "study/model.py is there" in result.stderr
    assert Path("study/model.py").read_text() == "mine"
    assert run("new", "study", "panel.csv", *OPTIONS, "--overwrite").exit_code == 0


def test_check_as_json_is_the_audit(folder):
    """Standard output is one document."""
    result = run("check", "panel.csv", *OPTIONS, "--json")
    audit = mfg.Trajectories.from_frame("panel.csv", **NAMES).audit()
    assert json.loads(result.stdout) == json.loads(json.dumps(audit))


def test_fit_as_json_has_the_clustered_estimates(folder):
    """The numbers are the package's; the lines for people go to standard error."""
    run("new", "study", "panel.csv", *OPTIONS)
    result = run("fit", "study/model.py", "panel.csv", *MLE, "--cluster", "agent", "--json")
    record = json.loads(result.stdout)
    assert "log likelihood" in result.stderr
    assert record["cluster"] == "agent"
    errors = pd.DataFrame(record["parameters"]).T["error"]
    again = run("fit", "study/model.py", "panel.csv", *MLE, "--json")
    plain = pd.DataFrame(json.loads(again.stdout)["parameters"]).T["error"]
    assert (errors != plain).all()


@pytest.mark.usefixtures("few_panels", "blank_figures")
def test_two_fits_are_compared_and_reported(folder):
    """Estimates of both, ranks by loo, as text, Markdown and JSON; a report in Markdown."""
    run("new", "study", "panel.csv", *OPTIONS)
    text = Path("study/model.py").read_text()
    without = "\n".join(line for line in text.splitlines() if '"crowd"' not in line)
    Path("study/alone.py").write_text(without)
    for name in ("model", "alone"):
        method = ["--method", "laplace", "--seed", "1", "--draws", "200"]
        out = ["--out", f"{name}.nc", *(["--report", "model.md"] if name == "model" else [])]
        result = run("fit", f"study/{name}.py", "panel.csv", *method, *out)
        assert "Draws" in result.stdout, result.output
    assert Path("model.md").read_text().startswith("<!-- generator: mfgppl -->\n# ")
    result = run("compare", "model.nc", "alone.nc", "--out", "table.md")
    assert result.exit_code == 0, result.output
    assert "rank" in result.stdout
    assert "| crowd |" in Path("table.md").read_text()
    assert run("compare", "model.nc", "alone.nc", "--out", "table.md").exit_code == 0
    record = json.loads(run("compare", "model.nc", "alone.nc", "--json").stdout)
    fits = {name: mfg.load(f"{name}.nc") for name in ("model", "alone")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pareto shapes, which the notes have
        score = mfg.loo(fits["model"]).elpd
    assert record["ranks"]["model"]["elpd"] == pytest.approx(score)
    assert record["estimates"]["alone"]["crowd"] is None
    mean = float(fits["model"]["posterior"]["crowd"].mean())
    assert record["estimates"]["model"]["crowd"] == pytest.approx(mean)
    page = run("report", "model.nc", "--model", "study/model.py", "--panel", "panel.csv",
               "--cluster", "agent", "--out", "page.html")  # fmt: skip
    assert page.exit_code == 0, page.output
    assert "clustered by agent" in Path("page.html").read_text()


def test_what_compare_refuses(folder):
    """Files that are not there, twice the same, ends that no table has, and foreign tables."""
    assert "no file a.nc" in run("compare", "a.nc").stderr
    Path("a.nc").write_text("x")
    Path("table.md").write_text("mine")
    assert ".md or .html or .tex or .txt" in run("compare", "a.nc", "--out", "a.doc").stderr
    assert "did not write" in run("compare", "a.nc", "--out", "table.md").stderr
    assert run("compare").exit_code == 2
    result = run("report", "a.nc", "--cluster", "agent")
    assert "--cluster needs --model and --panel" in result.stderr


def test_shells_complete_commands_and_options():
    """By click's own completion, as the page on the command line says."""
    environment = {
        "_MFGPPL_COMPLETE": "bash_complete",
        "COMP_WORDS": "mfgppl com",
        "COMP_CWORD": "1",
    }
    code = "from mfgppl.__main__ import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "compare" in found.stdout
