"""Wrong inputs: what is raised, and the decisive words of its message."""

import functools
import gzip
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
import xarray as xr
from click.testing import CliRunner
from games import ROADS_TRUTH, as_frame, avoid_crowds, played, shop, two_roads

import mfgppl as mfg
from mfgppl.cli import main
from mfgppl.exceptions import ConvergenceWarning, DataError

NAN, INF = float("nan"), float("inf")
read = mfg.Trajectories.from_frame
STAY = np.repeat(np.eye(2), 2, axis=0)  # (S * A, S)
BETWEEN = [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]  # anybody may go anywhere


def table(**columns: Any) -> pd.DataFrame:
    """Return a sound panel of three agents at three times, with columns replaced."""
    rows = [
        (agent, time, state, action)
        for agent in ("a", "b", "c")
        for time, state, action in ((0, "low", "up"), (1, "high", "down"), (2, "low", "up"))
    ]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    return frame.assign(**columns)


def with_first(name: str, value: Any) -> pd.DataFrame:
    """Return the sound panel with one cell replaced."""
    return table(**{name: [value, *table()[name][1:]]})


def file_of(name: str, content: bytes) -> Path:
    """Write a file in the working folder."""
    Path(name).write_bytes(content)
    return Path(name)


def folder_called(name: str) -> Path:
    """Make a folder in the working folder."""
    Path(name).mkdir(exist_ok=True)
    return Path(name)


def several_faults() -> Any:
    """Read a panel with a duplicate, a gap and an unknown label."""
    frame = pd.concat([table().drop(index=4), table().iloc[[0]]])
    return read(frame, action_labels=["up", "hold"])


def game(**changes: Any) -> mfg.MeanFieldGame:
    """Return `two_roads` with dynamics that allow every step."""
    return two_roads(**({"transition": BETWEEN} | changes))


def forever(**changes: Any) -> mfg.MeanFieldGame:
    """Return the game without a horizon."""
    return game(**({"horizon": None, "discount": 0.9} | changes))


def inputs(**changes: Any) -> mfg.RewardInputs:
    """Return the inputs of a reward program."""
    return mfg.RewardInputs(game(**changes), torch.full((4, 2), 0.5, dtype=torch.float64))


@functools.cache
def panel() -> mfg.Trajectories:
    """Return a small panel of `two_roads`."""
    return played(two_roads(), avoid_crowds, ROADS_TRUTH, 12, 1)


def model(reward: Any = avoid_crowds, **options: Any) -> mfg.TrajectoryModel:
    """Return a trajectory model of the small panel."""
    return mfg.TrajectoryModel(options.pop("game", two_roads()), reward, panel(), **options)


@functools.cache
def draws() -> xr.DataTree:
    """Return a few draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mfg.nuts(model(), draws=10, tune=20, chains=1, cores=1, random_seed=1)


def noted_draws(note: Any) -> xr.DataTree:
    """Return the draws with an attribute."""
    tree = draws().copy()
    tree.attrs["note"] = note
    return tree


def with_attribute(name: str, value: Any) -> xr.DataTree:
    """Return the draws with another value of an attribute, or without it."""
    tree = draws().copy()
    tree.attrs = {k: v for k, v in tree.attrs.items() if k != name}
    tree.attrs |= {} if value is None else {name: value}
    return tree


def with_draws(change: Any) -> xr.DataTree:
    """Return the draws changed."""
    tree = draws().copy()
    tree["posterior"] = xr.DataTree(change(tree["posterior"].to_dataset()))
    return tree


def few_draws(init: Any) -> xr.DataTree:
    """Return a few draws from chains that start at given values."""
    return mfg.nuts(model(), draws=5, tune=5, chains=1, cores=1, random_seed=1, init=init)


def sparse_moves() -> scipy.sparse.csr_array:
    """Return the dynamics of `two_roads` as a sparse matrix."""
    return scipy.sparse.csr_array(two_roads().transition.numpy().reshape(4, 2))


@functools.cache
def estimate() -> mfg.results.PointEstimate:
    """Return a point estimate."""
    return mfg.mle(model(), svi_steps=5)


def site(name: str, prior: Any = None) -> Any:
    """Return a reward program with one latent site."""
    return lambda x: x.density * pyro.sample(name, prior or dist.Normal(0.0, 1.0))


def of_agents(prior: Any) -> Any:
    """Return a reward program with a site that each agent has for itself."""

    def program(x: mfg.RewardInputs) -> Any:
        weight = pyro.sample("w", dist.Normal(0.0, 1.0))
        with x.agents:
            taste = pyro.sample("taste", prior)
        return weight * x.density * taste

    return program


def twice(x: mfg.RewardInputs) -> Any:
    """Sample one name two times."""
    one, other = (pyro.sample("w", dist.Normal(0.0, 1.0)) for _ in range(2))
    return (one + other) * x.density


SOLVED = {"parameters": ROADS_TRUTH}
EVEN = torch.full((4, 2, 2), 0.5, dtype=torch.float64)
FLOW = torch.full((4, 2), 0.5, dtype=torch.float64)

DATA = [
    ("no rows", lambda: read(table().iloc[:0]), DataError, "empty table"),
    ("no rows, polars", lambda: read(pl.DataFrame(table()).head(0)), DataError, "empty table"),
    ("no column", lambda: read(table().rename(columns={"state": "stat"})), DataError,
     "no column 'state'.*'stat'"),
    ("no columns", lambda: read(table(), agent="firm", action="move"), DataError,
     "2 faults.*\n.*\n.*no column 'firm'.*\n.*no column 'move'"),
    ("column in two parts", lambda: read(table(), state="agent"), ValueError, "'agent'.*twice"),
    ("two columns of one name", lambda: read(pd.concat([table(), table()[["state"]]], axis=1)),
     ValueError, "'state'"),
    ("two columns of one name in a file",
     lambda: read(file_of("same.csv", b"agent,time,state,state,action\n1,0,a,b,c\n")),
     DataError, "two columns have the same name.*'state'"),
    ("folder without a file", lambda: read(folder_called("nothing")), ValueError,
     "`frame`.*nothing.*no file"),
    ("no state column", lambda: read(table(), state=[]), ValueError, "`state`"),
    ("agent no name", lambda: read(table(), agent=3), TypeError, "`agent`.*3"),
    ("groups a word", lambda: read(table(chain="x"), groups="chain"), TypeError, "`groups`"),
    ("duplicate", lambda: read(pd.concat([table(), table().iloc[[4]]])), DataError,
     r"duplicate \(agent, time\) +1 +agent='b', time=1"),
    ("gap", lambda: read(table().drop(index=1)), DataError,
     "gap in time before +1 +agent='a', time=2.*gaps='split'"),
    ("missing agent", lambda: read(with_first("agent", None)), DataError,
     "missing value in 'agent' +1"),
    ("missing time", lambda: read(with_first("time", NAN)), DataError,
     "missing value in 'time' +1"),
    ("missing state", lambda: read(with_first("state", NAN)), DataError,
     "missing value in 'state' +1"),
    ("NaN among numbers", lambda: read(table(state=[NAN, 1, 2] * 3)), DataError,
     "missing value in 'state' +3"),
    ("infinite state", lambda: read(table(state=[INF, 1.0, 2.0] * 3)), DataError,
     "'state'.*inf|not finite.*'state'"),
    ("blank state", lambda: read(with_first("state", "  ")), DataError,
     "missing value in 'state' +1"),
    ("missing action", lambda: read(with_first("action", None)), DataError,
     "missing action before the last row +1 +agent='a', time=0"),
    ("no action, None", lambda: read(table(action=None)), DataError, "no action in any row"),
    ("no action, NaN", lambda: read(table(action=NAN)), DataError, "no action in any row"),
    ("fractional time", lambda: read(with_first("time", 0.5)), DataError,
     "non-integer time +1 +agent='a', time=0.5"),
    ("infinite time", lambda: read(with_first("time", INF)), DataError, "non-integer time +1"),
    ("uneven dates as times", lambda: read(table(time=pd.to_datetime(
     ["2020-01-01", "2020-01-02", "2020-01-05"] * 3))), DataError,
     "times are evenly spaced until 2020-01-02"),
    ("words as times", lambda: read(table(time=list("012") * 3)), DataError,
     "times in 'time' are .*string.*integer periods"),
    ("dates as agents", lambda: read(table(agent=pd.Timestamp("2020-01-01"))), DataError,
     "column 'agent' holds timestamp"),
    ("lists as states", lambda: read(table(state=[[1]] * 9)), DataError,
     "column 'state' holds list"),
    ("bytes as states", lambda: read(table(state=[b"low"] * 9)), DataError,
     "column 'state' holds binary"),
    ("mixed types", lambda: read(with_first("state", 7)), DataError,
     r"mixes types[\s\S]*state"),
    ("unknown state", lambda: read(table(), state_labels={"state": ["low", "mid"]}),
     DataError, r"unknown label in 'state': 'high' +3 .*\['low', 'mid'\]"),
    ("unknown state alone", lambda: read(table(), state_labels={"state": ["low", "mid"]}),
     DataError, "the panel has 1 fault;"),
    ("unknown action", lambda: read(table(), action_labels=["up", "stay"]), DataError,
     "unknown label in 'action': 'down' +3"),
    ("number for a word", lambda: read(table(state=[0, 1, 0] * 3),
     state_labels={"state": ["0", "1"]}), DataError, "unknown label in 'state': 0, 1 +9"),
    ("labels of no column", lambda: read(table(), state_labels={"stock": ["low", "high"]}),
     ValueError, "`state_labels` names 'stock'"),
    ("labels without their column", lambda: read(table(), state_labels=["low", "high"]),
     TypeError, "`state_labels`"),
    ("repeated labels", lambda: read(table(), state_labels={"state": ["low", "high", "low"]}),
     ValueError, "repeats the label low"),
    ("times too far", lambda: read(table(time=[0, 1, 2**63 - 1] * 3)), DataError,
     r"time beyond 2\*\*62 +3 .*count the periods"),
    ("whole floats too far", lambda: read(table(agent=[2.0**60] * 3 + [2.0**61] * 6)),
     DataError, r"'agent' holds whole numbers beyond 2\*\*53 as floats"),
    ("complex states", lambda: read(table(state=[1j] * 9)), DataError,
     "'state' holds complex"),
    ("columns of two levels", lambda: read(table().set_axis(pd.MultiIndex.from_product(
     [["x"], table().columns]), axis=1)), DataError, "columns have 2 levels"),
    ("codes that are one number", lambda: read(file_of("codes.csv",
     b"agent,time,state,action\n7,0,a,u\n007,1,a,u\n")), DataError,
     r"codes in 'agent' that are one number +2 +007 and 7 .*text=\['agent'\]"),
    ("words taken for empty", lambda: read(file_of("words.csv",
     b"agent,time,state,action\n1,0,NA,u\n1,1,EU,u\n")), DataError,
     r"missing value in 'state' +1 .*'NA' counts as empty.*text=\['state'\]"),
    ("text of numbers", lambda: read(table(agent=[1, 2, 3] * 3), text=["agent"]), DataError,
     "'agent' of `text` holds int64"),
    ("text of no part", lambda: read(table(), text=["chain"]), ValueError, "`text` names 'chain'"),
    ("text a word", lambda: read(table(), text="agent"), TypeError,
     r"`text` must be a list.*\['agent'\]"),
    ("groups None", lambda: read(table(), groups=None), TypeError, "`groups` must be a list"),
    ("state a set", lambda: read(table(), state={"state"}), TypeError,
     "`state` must be a column name"),
    ("action a list", lambda: read(table(), action=["action"]), TypeError,
     "`action` must be a column name"),
    ("labels in no order", lambda: read(table(), action_labels={"up", "down"}), TypeError,
     "must be a list of labels"),
    ("gaps None", lambda: read(table(), gaps=None), ValueError, "`gaps`.*'error', 'split'.*None"),
    ("zipped file", lambda: read(file_of("panel.csv.zip", b"PK")), ValueError,
     r"ends in \.csv\.zip.*decompress"),
    ("nobody at a time", lambda: read(table(time=[0, 1, 3] * 3), gaps="split"), DataError,
     "no agent observed at a time within the panel.*time=2"),
    ("rows past the end", lambda: read(pd.concat([table(), table(
     time=[4, 5, 6] * 3, action=None)]), gaps="split"), DataError,
     "rows past the last decision"),
    ("group changes", lambda: read(table(chain=range(9)), groups=["chain"]), DataError,
     "group 'chain' changes within an agent +3 +'a'; 'b'; 'c'"),
    ("several faults", several_faults, DataError,
     r"3 faults(.*\n)+.*unknown label(.*\n)+.*duplicate(.*\n)+.*gap"),
    ("word for gaps", lambda: read(table(), gaps="stitch"), ValueError,
     "`gaps`.*'error', 'split'.*'stitch'"),
    ("no table, dict", lambda: read({"agent": [1]}), TypeError, "`frame`.*got dict"),
    ("no table, None", lambda: read(None), TypeError, "`frame`.*got NoneType"),
    ("no such file", lambda: read("none.csv"), FileNotFoundError, "none.csv"),
    ("unknown file", lambda: read(file_of("panel.txt", b"x")), ValueError,
     r"\.csv, \.csv\.gz or \.parquet.*'panel\.txt'"),
    ("empty file", lambda: read(file_of("empty.csv", b"")), DataError, "empty table"),
    ("header only", lambda: read(file_of("head.csv", b"agent,time,state,action\n")),
     DataError, "empty table"),
    ("ragged file", lambda: read(file_of("rag.csv", b"agent,time,state,action\n1,2\n")),
     DataError, "not a CSV table.*Expected 4 columns, got 2"),
    ("bytes in a file", lambda: read(file_of("latin.csv",
     b"agent,time,state,action\na,0,\xff\xfe,u\nb,1,\xff,u\n")), ValueError, "UTF-8"),
    ("broken gzip", lambda: read(file_of("broken.csv.gz", b"no gzip")), (OSError, ValueError),
     r"broken\.csv\.gz"),
    ("cut gzip", lambda: read(file_of("cut.csv.gz", gzip.compress(b"agent,time\n" * 900)[:30])),
     (OSError, ValueError), r"cut\.csv\.gz"),
    ("broken parquet", lambda: read(file_of("broken.parquet", b"no parquet")), ValueError,
     r"broken\.parquet"),
    ("foreign word", lambda: read(table(), actions="action"), TypeError, "did you mean `action`"),
    ("zero row", lambda: read(table()).estimate_transition(), DataError,
     "never followed.*\n?.*state='high', action='up'.*`prior_count`"),
    ("negative prior count", lambda: read(table()).estimate_transition(prior_count=-1),
     ValueError, "`prior_count`.*-1"),
    ("prior count no number", lambda: read(table()).mean_field(prior_count="some"), TypeError,
     "`prior_count`.*'some'"),
    ("infinite prior count", lambda: read(table()).mean_field(prior_count=INF), ValueError,
     "`prior_count`.*inf"),
    ("bins of numbers that are complex", lambda: mfg.discretise([1j], 2), TypeError,
     "`values` must hold numbers"),
    ("no bins", lambda: mfg.discretise([1.0, 2.0], 0), ValueError, "`bins`.*0"),
    ("a column of a table by a number", lambda: panel().to_frame(agent=3), TypeError,
     "`agent` must be a str; got int"),
    ("unknown panel", lambda: mfg.datasets.path("flights"), ValueError,
     "supermarket_pricing, nyc_flights.*'flights'"),
]  # fmt: skip

GAMES = [
    ("missing argument", lambda: mfg.MeanFieldGame(states=["a"], actions=["b"]), TypeError,
     "horizon"),
    ("foreign word, gamma", lambda: game(gamma=0.9), TypeError, "`gamma`.*did you mean `discount`"),
    ("foreign word, beta", lambda: game(beta=1), TypeError, "`beta`.*did you mean `temperature`"),
    ("misspelt word", lambda: game(horizn=3), TypeError, "`horizn`.*did you mean `horizon`"),
    ("states a word", lambda: game(states="left"), TypeError, "list of labels.*'left'"),
    ("states a number", lambda: game(states={"road": 2}), TypeError, "'road'.*list of labels.*2"),
    ("no states", lambda: game(states={}), ValueError, "`states`.*at least one"),
    ("no labels", lambda: game(states={"road": []}), ValueError, "'road'.*at least one label"),
    ("repeated action", lambda: game(actions=["up", "up"]), ValueError, "`actions` repeats.*up"),
    ("None as a label", lambda: game(actions=["up", None]), TypeError, "`actions`.*None"),
    ("NaN as a label", lambda: game(actions=[0.0, NAN]), (TypeError, ValueError),
     "`actions`.*nan"),
    ("reserved name", lambda: game(states={"time": ["left", "right"]}), ValueError,
     "'time'.*Reserved"),
    ("name of the inputs", lambda: game(states={"shape": ["left", "right"]}), ValueError,
     "'shape'"),
    ("private name", lambda: game(features={"_game": ("state", [1, 2])}), ValueError, "'_game'"),
    ("no Python name", lambda: game(states={"the road": ["left", "right"]}), ValueError,
     "'the road'.*Python name"),
    ("Python's own word", lambda: game(states={"class": ["left", "right"]}), ValueError,
     "'class'"),
    ("name of two things", lambda: game(states={"road": ["left", "right"]},
     features={"road": ("road", [1, 2])}), ValueError, "`features`.*'road'.*coordinate"),
    ("horizon zero", lambda: game(horizon=0), ValueError, "`horizon`.*at least 1.*0"),
    ("horizon a float", lambda: game(horizon=4.0), TypeError, "`horizon`.*integer.*4.0"),
    ("discount above one", lambda: game(discount=1.1), ValueError, r"`discount`.*\(0, 1\].*1.1"),
    ("discount zero", lambda: game(discount=0), ValueError, r"\(0, 1\]; got 0.*lookahead=1"),
    ("discount NaN", lambda: game(discount=NAN), ValueError, "`discount`.*nan"),
    ("temperature zero", lambda: game(temperature=0), ValueError, "`temperature`.*above 0.*0"),
    ("temperature infinite", lambda: game(temperature=INF), ValueError, "`temperature`.*inf"),
    ("temperature a word", lambda: game(temperature="hot"), TypeError,
     "`temperature`.*number.*'hot'"),
    ("initial shape", lambda: game(initial=[1.0]), ValueError, r"`initial`.*\(2,\).*\(1,\)"),
    ("initial sum", lambda: game(initial=[0.5, 0.6]), ValueError, "`initial`.*sum.*1.1"),
    ("initial negative", lambda: game(initial=[1.5, -0.5]), ValueError,
     "`initial`.*negative.*-0.5"),
    ("initial NaN", lambda: game(initial=[NAN, 1.0]), ValueError, "`initial`.*not finite"),
    ("initial words", lambda: game(initial=["a", "b"]), TypeError, "`initial`.*numbers"),
    ("initial of other labels", lambda: game(
     initial=xr.DataArray([0.5, 0.5], {"state": ["left", "middle"]}, ("state",))), ValueError,
     "`initial` lacks 'right'"),
    ("transition shape", lambda: game(transition=np.full((2, 2), 0.5)), ValueError,
     r"`transition`.*\(S, A, S\) = \(2, 2, 2\).*\(2, 2\)"),
    ("transition rows of 3", lambda: game(transition=3 * np.array(BETWEEN)), ValueError,
     "`transition`.*sum to 1.*4 do not.*state='left', action='stay'.*3"),
    ("transition negative", lambda: game(transition=np.array([1.5, -0.5]) + np.zeros((2, 2, 2))),
     ValueError, "`transition`.*negative.*-0.5"),
    ("transition NaN", lambda: game(transition=np.full((2, 2, 2), NAN)), ValueError,
     "`transition`.*not finite"),
    ("two tables too many", lambda: game(transition=np.array([BETWEEN] * 5)), ValueError,
     r"`transition` must have shape \(T-1, S, A, S\) = \(3, 2, 2, 2\); got \(5, 2, 2, 2\)"),
    ("transition words", lambda: game(transition="random"), TypeError, "`transition`.*str"),
    ("sparse shape", lambda: game(transition=scipy.sparse.eye_array(4)), ValueError,
     r"sparse.*\(S\*A, S\) = \(4, 2\).*\(4, 4\)"),
    ("sparse tables too few", lambda: game(transition=[scipy.sparse.csr_array(STAY)] * 2),
     ValueError, "T-1 = 3 sparse matrices"),
    ("sparse among dense", lambda: game(transition=[scipy.sparse.csr_array(STAY), STAY, STAY]),
     TypeError, "sparse matrices only; got ndarray"),
    ("sparse NaN", lambda: game(transition=scipy.sparse.csr_array([[NAN, 1.0]] * 4)), ValueError,
     "`transition`.*not finite"),
    ("function fails", lambda: game(transition=lambda mean_field, time: 1 / 0), ValueError,
     "`transition` failed at time 0.*ZeroDivisionError"),
    ("function of a wrong shape", lambda: game(transition=lambda m, t: np.ones((2, 2))),
     ValueError, r"`transition`.*at time 0.*\(2, 2\)"),
    ("function of wrong sums", lambda: game(transition=lambda m, t: 2 * np.array(BETWEEN)),
     ValueError, "`transition`.*sum to 1.*time=0 with sum 2"),
    ("estimate of other states", lambda: game(
     transition=read(table()).estimate_transition(prior_count=1.0)), ValueError,
     "estimated `transition`.*'high'"),
    ("estimate of fewer actions", lambda: two_roads(
     states=["high", "low"], actions=["up", "down", "hold"],
     transition=read(table()).estimate_transition(prior_count=1.0)), ValueError,
     r"\['down', 'up'\].*\['up', 'down', 'hold'\].*`action_labels`"),
    ("available shape", lambda: game(available=[True, False]), ValueError,
     r"`available`.*\(2, 2\).*\(2,\)"),
    ("available no truth", lambda: game(available=[[1, 2], [1, 1]]), ValueError,
     "`available`.*true or false"),
    ("nothing available", lambda: game(available=[[0, 0], [1, 1]]), ValueError,
     "`available`.*no action.*'left'"),
    ("feature without names", lambda: game(features={"toll": [1.0, 2.0]}), ValueError,
     r"'toll'.*\(dims, values\).*\(4, 2, 2\).*\(2,\)"),
    ("feature of an unknown axis", lambda: game(features={"toll": ("stat", [1.0, 2.0])}),
     ValueError, "'toll'.*'stat'.*did you mean `state`"),
    ("feature too long", lambda: game(features={"toll": ("state", [1.0, 2.0, 3.0])}), ValueError,
     "'toll' has 3 entries along 'state'.*2"),
    ("feature axes", lambda: game(features={"toll": (("time", "state"), [1.0, 2.0])}),
     ValueError, "'toll'.*axes"),
    ("feature NaN", lambda: game(features={"toll": ("state", [1.0, NAN])}), ValueError,
     "'toll'.*not finite"),
    ("feature of words", lambda: game(features={"toll": ("state", ["a", "b"])}),
     (TypeError, ValueError), "'toll'.*numbers"),
    ("feature as a list", lambda: game(features={"toll": ["state", [1.0, 2.0]]}),
     (TypeError, ValueError), r"'toll'.*\(dims, values\)"),
    ("features no mapping", lambda: game(features=[1, 2]), TypeError, "`features`"),
    ("feature of other labels", lambda: game(features={
     "toll": xr.DataArray([1.0, 2.0], {"action": ["stay", "jump"]}, ("action",))}), ValueError,
     "'?`?toll`?'? lacks 'turn' along 'action'"),
    ("feature of a state and a coordinate", lambda: shop(
     features={"f": (("state", "price"), np.ones((6, 3)))}), ValueError, "'state'.*coordinate"),
    ("for ever without discount", lambda: forever(discount=1.0), ValueError,
     "without `horizon` needs a `discount` below 1"),
    ("for ever by time", lambda: forever(transition=np.full((3, 2, 2, 2), 0.5)), ValueError,
     r"`transition`.*\(2, 2, 2\).*\(3, 2, 2, 2\)"),
    ("for ever in a list", lambda: forever(transition=[scipy.sparse.csr_array(STAY)]), ValueError,
     "stationary game takes one `transition`"),
    ("joint as a word", lambda: game(joint="yes"), TypeError, "`joint`.*True or False.*'yes'"),
    ("replace a stranger", lambda: game().replace(beta=2.0), TypeError,
     "`beta`.*did you mean `temperature`"),
    ("joint flow", lambda: game(joint=True).check_flow("mean_field", FLOW), ValueError,
     r"`mean_field`.*\(T, S, A\) = \(4, 2, 2\).*\(4, 2\)"),
    ("occupancy of states", lambda: inputs().occupancy, AttributeError, "joint=True"),
]  # fmt: skip

REWARDS = [
    ("misspelt input", lambda: model(lambda x: x.desnity), AttributeError,
     "x.desnity.*did you mean `density`"),
    ("misspelt label", lambda: model(lambda x: x.action == "turns"), ValueError,
     "'turns'.*did you mean `turn`"),
    ("mean of a number", lambda: inputs().expect(3.0), TypeError, r"x\.expect"),
    ("mean of nothing", lambda: inputs().expect("toll"), AttributeError, r"x\.toll.*inputs:"),
    ("share of nothing", lambda: inputs().share(road="left"), ValueError, "road='left'"),
    ("no return", lambda: model(lambda x: None), TypeError, "must be a tensor.*`return`"),
    ("complex reward", lambda: model(lambda x: 1j * x.density), TypeError,
     "reward.*real numbers.*Tensor of torch.complex128"),
    ("array of words as reward", lambda: model(lambda x: np.array(["a"])), TypeError,
     "reward.*real numbers.*ndarray of <U1"),
    ("wrong shape", lambda: model(lambda x: torch.ones(3)), ValueError,
     r"\(T, S, A\) = \(4, 2, 2\).*\(3,\)"),
    ("not finite", lambda: model(lambda x: torch.log(x.density - 2)), ValueError,
     "not finite at 16 of 16.*time=0, state='left', action='stay'"),
    ("no site", lambda: model(lambda x: x.density), ValueError, "no latent site.*pyro.sample"),
    ("param site", lambda: model(lambda x: pyro.param("w", torch.tensor(1.0)) * x.density),
     ValueError, "`pyro.param`.*'w'"),
    ("discrete site", lambda: model(site("k", dist.Categorical(torch.ones(2)))), ValueError,
     "'k' is discrete.*with x.agents"),
    ("agents' site of another law", lambda: model(of_agents(dist.Gamma(1.0, 1.0))), TypeError,
     "'taste' has the law Gamma.*Categorical"),
    ("agents' share by time", lambda: model(of_agents(dist.Categorical(torch.ones(4, 1, 1, 2)))),
     ValueError, "'taste' differ by time"),
    ("agents' kinds beside energy",
     lambda: model(of_agents(dist.Categorical(torch.ones(2))), likelihood="energy"), ValueError,
     "knows agents of one kind"),
    ("agents' kinds in equilibrium",
     lambda: mfg.solve_equilibrium(
         game(), of_agents(dist.Categorical(torch.ones(2))), parameters={"w": 1.0}
     ), ValueError, "'taste'.*mfg.kinds.as_types"),
    ("prior no distribution", lambda: model(lambda x: pyro.sample("w", 1.0)), TypeError,
     "the prior of 'w' must be a Pyro distribution; got 1.0"),
    ("period effects by a number", lambda: model(lambda x: x.density * mfg.period_effects(
     x, "m", dist.Normal(0.0, 1.0), by=3)), TypeError, "`by` must be a name or a list of them.*3"),
    ("period effects by nothing known", lambda: model(lambda x: x.density * mfg.period_effects(
     x, "m", dist.Normal(0.0, 1.0), by="stat")), ValueError, "`by` must be of.*'stat'"),
    ("share within a number", lambda: inputs().share(within=3, state="left"), TypeError,
     "`within` must be a name.*3"),
    ("share of an array", lambda: inputs().share(state=np.arange(3)), ValueError,
     "is no label of 'state'"),
    ("discount of Preferences a word", lambda: model(lambda x: mfg.Preferences(
     avoid_crowds(x), discount="low")), TypeError, "discount"),
    ("inputs of no game", lambda: mfg.RewardInputs("game", FLOW), TypeError, "`game` must be a"),
    ("inputs along an array", lambda: mfg.RewardInputs(game(), FLOW.numpy()), TypeError,
     "`mean_field` must be a Tensor"),
    ("linear, features a number", lambda: mfg.linear_reward(3, dist.Normal(0.0, 1.0)), TypeError,
     "`features` must be a formula, a mapping or a list of names; got 3"),
    ("count site", lambda: model(site("k", dist.Poisson(2.0))), ValueError, "'k' is discrete"),
    ("site called actions", lambda: model(site("actions")), ValueError, "called 'actions'"),
    ("site called draw", lambda: model(site("draw")), ValueError, "'draw'"),
    ("site called chain", lambda: model(site("chain")), ValueError, "'chain'"),
    ("site called state", lambda: model(site("state")), ValueError, "'state'"),
    ("site called time", lambda: model(site("time")), ValueError, "'time'"),
    ("site twice", lambda: model(twice), (RuntimeError, ValueError), "'w'"),
    ("linear, no features", lambda: mfg.linear_reward([], dist.Normal(0.0, 1.0)), ValueError,
     "`features`.*at least one"),
    ("linear, other names", lambda: mfg.linear_reward(["time"], {"tim": dist.Normal(0.0, 1.0)}),
     ValueError, r"`priors`.*\['time'\].*\['tim'\]"),
    ("linear, prior a number", lambda: mfg.linear_reward(["time"], 2.0), TypeError,
     "prior of 'time'.*2.0"),
    ("linear, prior a class", lambda: mfg.linear_reward(["time"], dist.Normal), TypeError,
     "prior of 'time'"),
    ("linear, foreign word", lambda: mfg.linear_reward(["time"], prior=dist.Normal(0.0, 1.0)),
     TypeError, "`prior`.*did you mean `priors`"),
]  # fmt: skip

MODELS = [
    ("arguments swapped", lambda: mfg.TrajectoryModel(panel(), avoid_crowds, two_roads()),
     TypeError, "`game` must be a MeanFieldGame; got Trajectories"),
    ("a frame as panel", lambda: mfg.TrajectoryModel(two_roads(), avoid_crowds,
     as_frame(panel())), TypeError,
     "`panel` must be Trajectories or a CountedPanel; got DataFrame.*from_frame"),
    ("no reward", lambda: model(3.0), TypeError, "`reward`.*float"),
    ("horizon", lambda: model(game=two_roads(horizon=6)), ValueError,
     "4 decision times.*horizon of 6"),
    ("panel longer than the flow", lambda: model(game=two_roads(horizon=2),
     mean_field=FLOW[:2]), ValueError, "4 decision times.*horizon 2"),
    ("unknown state", lambda: model(game=two_roads(states=["left", "rihgt"])), ValueError,
     "'right' of 'state'.*did you mean `rihgt`"),
    ("unknown coordinate", lambda: model(game=two_roads(states={"road": ["left", "right"]})),
     ValueError, r"\['state'\].*\['road'\]"),
    ("unknown action", lambda: model(game=two_roads(actions=["stay", "go"])), ValueError,
     "action 'turn'"),
    ("likelihood", lambda: model(likelihood="exact"), ValueError,
     "`likelihood`.*'causal'.*'exact'"),
    ("start", lambda: model(start="any"), ValueError, "`start`.*'marginal'.*'any'"),
    ("energy with a discount", lambda: model(game=two_roads(discount=0.9), likelihood="energy"),
     ValueError, "energy.*`discount`.*0.9"),
    ("flow a word", lambda: model(mean_field="observed"), ValueError,
     "`mean_field`.*'empirical'.*'observed'"),
    ("flow shape", lambda: model(mean_field=FLOW[:3]), ValueError,
     r"`mean_field`.*\(4, 2\).*\(3, 2\)"),
    ("flow sums", lambda: model(mean_field=0.8 * FLOW), ValueError, "`mean_field`.* sum to 1"),
    ("flow NaN", lambda: model(mean_field=NAN * FLOW), ValueError, "`mean_field`"),
    ("foreign word", lambda: model(likelihod="causal"), TypeError, "did you mean `likelihood`"),
    ("equilibrium of the energy law", lambda: model(likelihood="energy", mean_field="equilibrium"),
     ValueError, "mean_field='equilibrium' needs likelihood='causal'"),
    ("equilibrium of sparse dynamics", lambda: model(
        game=two_roads(transition=lambda mean_field, time: sparse_moves()),
        mean_field="equilibrium"), ValueError, "dense tensors.*sparse"),
    ("a type that changes", lambda: mfg.Trajectories.from_frame(
        as_frame(panel()).assign(city=range(len(as_frame(panel())))), types=["city"]), DataError,
        "type 'city' changes"),
    ("types as a list", lambda: game(types=["city"]), TypeError, "`types`.*mapping.*'size'"),
    ("meets no type", lambda: game(types={"city": ["a", "b"]}, initial=np.full(4, 0.25),
     meets="town"), ValueError, r"`meets`.*'town'.*\['city'\]"),
    ("a start without types", lambda: game(types={"city": ["a", "b"]}), ValueError,
     r"`initial`.*over types and states"),
    ("split by no group", lambda: panel().split("city"), ValueError,
     r"no groups.*groups=\['city'\]"),
    ("action not available", lambda: model(game=game(available=[[1, 0], [1, 1]])), DataError,
     "action not available in its state.*agent=[0-9]+, time=[0-9], state='left'"),
    ("impossible step", lambda: model(game=two_roads(transition=np.stack([np.eye(2)] * 2, 1))),
     DataError, "step of probability zero.*'left' to 'right' by 'turn'"),
]  # fmt: skip

FITS = [
    ("flag a number", lambda: mfg.mle(model(), flow_bias=1), TypeError,
     "`flow_bias` must be True or False; got 1"),
    ("log likelihood a word", lambda: mfg.laplace(model(), log_likelihood="all"), TypeError,
     "`log_likelihood` must be True or False; got 'all'"),
    ("jackknife of one part", lambda: mfg.jackknife(model(), parts=1), ValueError, "`parts`.*1"),
    ("jackknife by no group", lambda: mfg.jackknife(model(), by="firm"), ValueError,
     "`by` must be one of 'agent'; got 'firm'"),
    ("nuts of no model", lambda: mfg.nuts(two_roads()), TypeError,
     "`model` must be a TrajectoryModel; got MeanFieldGame"),
    ("nuts warmup", lambda: mfg.nuts(model(), warmup=500), TypeError,
     "`warmup`.*did you mean `tune`"),
    ("nuts num_samples", lambda: mfg.nuts(model(), num_samples=500), TypeError,
     "`num_samples`.*did you mean `draws`"),
    ("nuts adapt_delta", lambda: mfg.nuts(model(), adapt_delta=0.9), TypeError,
     "`adapt_delta`.*did you mean `target_accept`"),
    ("nuts seed", lambda: mfg.nuts(model(), seed=1), TypeError, "did you mean `random_seed`"),
    ("nuts draws zero", lambda: mfg.nuts(model(), draws=0), ValueError, "`draws`.*at least 1.*0"),
    ("nuts draws a float", lambda: mfg.nuts(model(), draws=1e3), TypeError,
     "`draws`.*integer.*1000.0"),
    ("nuts no tuning", lambda: mfg.nuts(model(), tune=0), ValueError, "`tune`.*0"),
    ("nuts no chains", lambda: mfg.nuts(model(), chains=0), ValueError, "`chains`.*0"),
    ("nuts no cores", lambda: mfg.nuts(model(), cores=0), ValueError, "`cores`.*0"),
    ("nuts target", lambda: mfg.nuts(model(), target_accept=1.0), ValueError,
     r"`target_accept`.*\(0, 1\).*1"),
    ("nuts tree depth", lambda: mfg.nuts(model(), max_treedepth=0), ValueError,
     "`max_treedepth`.*0"),
    ("nuts mass matrix", lambda: mfg.nuts(model(), mass_matrix="full"), ValueError,
     "`mass_matrix`.*'diagonal', 'low_rank', 'dense'.*'full'"),
    ("nuts dense by nutpie", lambda: mfg.nuts(model(), mass_matrix="dense"), ValueError,
     "`mass_matrix`.*'diagonal' or 'low_rank' with sampler='nutpie'.*'dense'"),
    ("nuts low rank by Pyro", lambda: mfg.nuts(model(), sampler="pyro", mass_matrix="low_rank"),
     ValueError, "`mass_matrix`.*'diagonal' or 'dense' with sampler='pyro'.*'low_rank'"),
    ("nuts full_mass", lambda: mfg.nuts(model(), full_mass=True), TypeError,
     "`full_mass`.*did you mean `mass_matrix`"),
    ("nuts seed negative", lambda: mfg.nuts(model(), random_seed=-1), ValueError,
     "`random_seed`.*-1"),
    ("nuts sampler", lambda: mfg.nuts(model(), sampler="stan"), ValueError,
     "`sampler`.*'nutpie', 'pyro'.*'stan'"),
    ("nuts init of another name", lambda: few_draws({"crowd": 1.0, **ROADS_TRUTH}), ValueError,
     "`init` names 'crowd'.*did you mean `crowding`"),
    ("nuts init of some", lambda: few_draws({"crowding": 1.0}), ValueError,
     "`init`.*'effort'"),
    ("nuts init shape", lambda: few_draws({"crowding": [1.0, 2.0], "effort": 1.0}), ValueError,
     "`init`.*'crowding'.*shape"),
    ("nuts init outside", lambda: few_draws({"crowding": 1.0, "effort": -1.0}), ValueError,
     "`init`.*'effort'.*-1"),
    ("nuts init no result", lambda: few_draws(xr.DataTree()), ValueError,
     "`init` must have the group posterior"),
    ("nuts init of another model", lambda: mfg.nuts(model(site("w")), init=draws()), ValueError,
     "`init` lacks the parameter 'w'"),
    ("nuts store no zarr", lambda: mfg.nuts(model(), store="run.nc"), ValueError,
     r"`store` must end in \.zarr; got 'run\.nc'"),
    ("nuts store in no folder", lambda: mfg.nuts(model(), store="none/run.zarr"),
     FileNotFoundError, "no folder none"),
    ("nuts store taken", lambda: mfg.nuts(model(), store=folder_called("run.zarr")),
     FileExistsError, "`store` names run.zarr, which exists"),
    ("nuts store for Pyro", lambda: mfg.nuts(model(), store="run.zarr", sampler="pyro"),
     ValueError, "`store` needs sampler='nutpie'"),
    ("mle of no model", lambda: mfg.mle(avoid_crowds), TypeError,
     "`model` must be a TrajectoryModel; got function"),
    ("mle init of another name", lambda: mfg.mle(model(), init={"crowd": 1.0}), ValueError,
     "`init` names 'crowd'.*did you mean `crowding`"),
    ("mle init shape", lambda: mfg.mle(model(), init={"crowding": [1.0, 2.0]}), ValueError,
     "`init`.*'crowding'.*shape"),
    ("mle init outside", lambda: mfg.mle(model(), init={"effort": -1.0}), ValueError,
     "`init`.*'effort'.*-1"),
    ("mle init no mapping", lambda: mfg.mle(model(), init=3), TypeError, "`init`.*3"),
    ("mle SVI steps", lambda: mfg.mle(model(), svi_steps=-1), ValueError, "`svi_steps`.*-1"),
    ("mle learning rate", lambda: mfg.mle(model(), learning_rate=0), ValueError,
     "`learning_rate`.*above 0"),
    ("mle tolerance", lambda: mfg.mle(model(), tolerance=-1), ValueError, "`tolerance`.*above 0"),
    ("mle steps", lambda: mfg.mle(model(), max_steps=0), ValueError, "`max_steps`.*at least 1"),
    ("mle seed a word", lambda: mfg.mle(model(), random_seed="one"), TypeError,
     "`random_seed`.*'one'"),
    ("mle space", lambda: mfg.mle(model(), space="constrained"), TypeError, "`space`.*valid:"),
    ("map space", lambda: mfg.map_estimate(model(), space="free"), ValueError,
     "`space`.*'constrained', 'unconstrained'.*'free'"),
    ("estimate level", lambda: estimate().conf_int(90), ValueError, r"`ci_prob`.*\(0, 1\).*90"),
    ("estimate covariance", lambda: estimate().cov_params("robust"), ValueError,
     "`kind`.*'observed', 'opg', 'cluster'.*'robust'"),
    ("estimate groups", lambda: estimate().cov_params("cluster", groups="firm"), ValueError,
     "`groups`.*'agent'.*'firm'"),
    ("policy of no model", lambda: mfg.policy("model", ROADS_TRUTH), TypeError, "`model`.*str"),
    ("policy of no fit", lambda: mfg.policy(model(), None), TypeError, "`fit`.*NoneType"),
    ("policy of a word", lambda: mfg.policy(model(), "crowding effort"), TypeError, "`fit`.*str"),
    ("policy of too few", lambda: mfg.policy(model(), {"crowding": 1.0}), ValueError,
     "`fit` lacks.*'effort'"),
    ("policy of too many", lambda: mfg.policy(model(), {**ROADS_TRUTH, "toll": 1.0}), ValueError,
     "`fit`.*'toll'"),
    ("policy of a wrong shape", lambda: mfg.policy(model(), {"crowding": [1.0, 2.0],
     "effort": 1.0}), ValueError, "`fit`.*'crowding'"),
    ("policy of another model's estimate", lambda: mfg.policy(model(site("w")), estimate()),
     ValueError, r"\['crowding', 'effort'\].*\['w'\]"),
    ("policy of another model's draws", lambda: mfg.policy(model(site("w")), draws()), ValueError,
     "`fit` lacks.*'w'"),
    ("policy of no draws", lambda: mfg.policy(model(), draws(), draws=0), ValueError, "`draws`"),
    ("choices, foreign word", lambda: mfg.choice_probabilities(model(), ROADS_TRUTH, n_draws=3),
     TypeError, "did you mean `draws`"),
]  # fmt: skip

SOLVERS = [
    ("solve no game", lambda: mfg.solve_equilibrium("game", avoid_crowds), TypeError, "`game`"),
    ("solve without parameters", lambda: mfg.solve_equilibrium(two_roads(), avoid_crowds),
     ValueError, r"`parameters` lack \['crowding', 'effort'\]"),
    ("solve with others", lambda: mfg.solve_equilibrium(two_roads(), avoid_crowds,
     parameters={**ROADS_TRUTH, "toll": 1}), ValueError, r"`parameters` name \['toll'\]"),
    ("solve damping", lambda: mfg.solve_equilibrium(two_roads(), avoid_crowds, **SOLVED,
     damping=0), ValueError, "`damping`.*0"),
    ("solve tolerance", lambda: mfg.solve_equilibrium(two_roads(), avoid_crowds, **SOLVED,
     tolerance=0), ValueError, "`tolerance`.*above 0"),
    ("solve steps", lambda: mfg.solve_equilibrium(two_roads(), avoid_crowds, **SOLVED,
     max_steps=0), ValueError, "`max_steps`.*at least 1"),
    ("solve flow shape", lambda: mfg.solve_equilibrium(two_roads(), avoid_crowds, **SOLVED,
     mean_field=FLOW[:2]), ValueError, r"`mean_field`.*\(4, 2\).*\(2, 2\)"),
    ("solve flow sums", lambda: mfg.solve_equilibrium(two_roads(), avoid_crowds, **SOLVED,
     mean_field=3 * FLOW), ValueError, "`mean_field`.*1"),
    ("soft control, beta", lambda: mfg.equilibrium.soft_backward_induction(EVEN,
     torch.as_tensor(BETWEEN),
     beta=1.0), TypeError, "`beta`.*did you mean `temperature`"),
    ("simulate, seed", lambda: mfg.simulate(two_roads(), EVEN, FLOW, n_agents=3, seed=1),
     TypeError, "did you mean `random_seed`"),
    ("simulate nobody", lambda: mfg.simulate(two_roads(), EVEN, FLOW, n_agents=0, random_seed=1),
     ValueError, "`n_agents`.*at least 1"),
    ("simulate policy shape", lambda: mfg.simulate(two_roads(), EVEN[:2], FLOW, n_agents=3,
     random_seed=1), ValueError, r"`policy`.*\(4, 2, 2\).*\(2, 2, 2\)"),
    ("simulate policy sums", lambda: mfg.simulate(two_roads(), 2 * EVEN, FLOW, n_agents=3,
     random_seed=1), ValueError, "`policy`.*1"),
    ("solve method", lambda: mfg.solve_equilibrium(two_roads(), avoid_crowds, **SOLVED,
     method="newtons"), ValueError, "`method`.*did you mean `newton`"),
    ("solve damping elsewhere", lambda: mfg.solve_equilibrium(two_roads(), avoid_crowds, **SOLVED,
     method="newton", damping=0.5), ValueError, "`damping` belongs to method='damped'"),
    ("solve reward shape", lambda: mfg.solve_equilibrium(two_roads(), lambda x: torch.ones(3)),
     ValueError, r"broadcast to \(T, S, A\) = \(4, 2, 2\).*\(3,\)"),
    ("solve dynamics that change shape", lambda: mfg.solve_equilibrium(two_roads(
     transition=lambda crowd, t: torch.full((2, 2, 2 + (t == 1)), 0.5)), avoid_crowds, **SOLVED),
     ValueError, r"`transition`.*at time 1.*\(2, 2, 2\).*\(2, 2, 3\)"),
    ("several starts", lambda: mfg.equilibrium.find_equilibria(two_roads(), avoid_crowds, **SOLVED,
     n_starts=0), ValueError, "`n_starts`.*at least 1"),
    ("nash method", lambda: mfg.solve_nash(two_roads(), avoid_crowds, **SOLVED,
     method="fictitious"), ValueError, "`method`.*fictitious_play"),
    ("nash rate", lambda: mfg.solve_nash(two_roads(), avoid_crowds, **SOLVED,
     method="annealing", rate=0.1), ValueError, "`rate` belongs to mirror_descent"),
    ("nash rate of zero", lambda: mfg.solve_nash(two_roads(), avoid_crowds, **SOLVED,
     method="mirror_descent", rate=0.0), ValueError, "`rate`.*above 0"),
    ("nash tolerance", lambda: mfg.solve_nash(two_roads(), avoid_crowds, **SOLVED,
     tolerance=-1.0), ValueError, "`tolerance`.*-1"),
    ("exploitability of a wrong shape", lambda: mfg.equilibrium.exploitability(two_roads(),
     avoid_crowds,
     EVEN[:2], **SOLVED), ValueError, r"`policy`.*\(4, 2, 2\).*\(2, 2, 2\)"),
    ("exploitability of what is not allowed", lambda: mfg.equilibrium.exploitability(
     two_roads(available=[[1, 0], [1, 1]]), avoid_crowds, EVEN, **SOLVED), ValueError,
     "`policy` takes the action 'turn' in state 'left'"),
    ("optimum tolerance", lambda: mfg.equilibrium.social_optimum(two_roads(), avoid_crowds,
     **SOLVED,
     tolerance=0), ValueError, "`tolerance`.*above 0"),
    ("optimum temperature", lambda: mfg.equilibrium.social_optimum(two_roads(), avoid_crowds,
     **SOLVED,
     temperature=-1), ValueError, "`temperature`.*-1"),
    ("flow of no policy", lambda: mfg.equilibrium.generate_mean_field(two_roads(), 2 * EVEN),
     ValueError,
     "`policy`.*1"),
    ("simulate a word", lambda: mfg.simulate(two_roads(), EVEN, "own", n_agents=3,
     random_seed=1), ValueError, "'empirical'; got 'own'"),
    ("simulate times", lambda: mfg.simulate(two_roads(), EVEN, FLOW, n_agents=3, random_seed=1,
     n_times=9), ValueError, "`n_times` belongs to stationary games.*4"),
    ("simulate without times", lambda: mfg.simulate(forever(), EVEN[:1], FLOW[:1], n_agents=3,
     random_seed=1), ValueError, "say how many `n_times`"),
    ("simulate who reacts to what", lambda: mfg.simulate(two_roads(), lambda crowd, t: EVEN[0],
     FLOW, n_agents=3, random_seed=1), ValueError, "needs mean_field='empirical'"),
    ("simulate who reacts in another shape", lambda: mfg.simulate(two_roads(),
     lambda crowd, t: EVEN[0, :1], "empirical", n_agents=3, random_seed=1), ValueError,
     r"`policy` must return.*\(2, 2\).*\(1, 2\)"),
    ("population for ever", lambda: mfg.equilibrium.finite_population(forever(), avoid_crowds,
     EVEN[:1],
     n_agents=[10], random_seed=1, **SOLVED), ValueError, "needs a game with a horizon"),
    ("population of one world", lambda: mfg.equilibrium.finite_population(two_roads(),
     avoid_crowds, EVEN,
     n_agents=[10], random_seed=1, n_worlds=1, **SOLVED), ValueError, "`n_worlds`.*at least 2"),
    ("stationary control, times", lambda: mfg.equilibrium.soft_policy_iteration(EVEN,
     torch.as_tensor(BETWEEN), discount=0.9), ValueError, r"`reward`.*\(1, S, A\).*\(4, 2, 2\)"),
    ("stationary control, discount", lambda: mfg.equilibrium.soft_policy_iteration(EVEN[:1],
     torch.as_tensor(BETWEEN), discount=1.0), ValueError, r"`discount`.*\(0, 1\).*1"),
    ("stationary flow of two worlds", lambda: mfg.equilibrium.invariant_mean_field(EVEN[:1],
     torch.as_tensor(STAY).reshape(2, 2, 2)), ValueError, "several distributions"),
    ("simulate seed of text", lambda: mfg.simulate(two_roads(), EVEN, FLOW, n_agents=3,
     random_seed="one"), TypeError, "`random_seed`.*one"),
]  # fmt: skip

RESULTS = [
    ("report level", lambda: mfg.report(draws(), "r.html", ci_prob=90), ValueError,
     r"`ci_prob`.*\(0, 1\).*90"),
    ("report folder", lambda: mfg.report(draws(), "none/r.html"), FileNotFoundError,
     r"no folder none .*r\.html"),
    ("report of a number", lambda: mfg.report(3, "r.html"), TypeError,
     "`fit` must be a DataTree.*or a PointEstimate; got int"),
    ("report without an attribute", lambda: mfg.report(with_attribute("priors", None), "r.html"),
     ValueError, "`fit` lacks the attribute 'priors'"),
    ("report with a damaged attribute", lambda: mfg.report(with_attribute("audit", "["), "r.html"),
     ValueError, r"`fit`.*'audit' damaged: '\['"),
    ("report of words as draws", lambda: mfg.report(with_draws(lambda d: d.astype(str)), "r.html"),
     ValueError, "`fit` must have finite draws; the draws of 'crowding' are no numbers"),
    ("draws of another shape",
     lambda: mfg.checks.contraction(with_draws(lambda d: d.rename(draw="sample")), model()),
     ValueError, r"`draws` must have draws of shape \(\) of 'crowding'.*got \(10,\)"),
    ("report of another tree", lambda: mfg.report(xr.DataTree(), "r.html"), ValueError,
     "`fit`.*mfgppl"),
    ("report, foreign word", lambda: mfg.report(draws(), "r.html", hdi_prob=0.9), TypeError,
     "did you mean `ci_prob`"),
    ("load no file", lambda: mfg.load("none.nc"), FileNotFoundError, r"none\.nc"),
    ("load another file", lambda: mfg.load(file_of("x.nc", b"x")), ValueError,
     r"x\.nc is not a netCDF file"),
    ("load another's file", lambda: mfg.load(foreign_file()), ValueError,
     "not a result of mfgppl"),
    ("load a folder", lambda: mfg.load("."), ValueError, "a folder and no zarr store"),
    ("mle restarts negative", lambda: mfg.mle(model(), restarts=-1), ValueError,
     "`restarts` must be at least 0; got -1"),
    ("mle init of another model", lambda: mfg.mle(model(site("w")), init=estimate()), ValueError,
     "`init` has the parameters"),
    ("replicate no task", lambda: mfg.calibration.replicate("task", 3, random_seed=1), TypeError,
     "`task` must be a function of a seed; got str"),
    ("replicate no runs", lambda: mfg.calibration.replicate(abs, 0, random_seed=1), ValueError,
     "`n` must be at least 1; got 0"),
    ("replicate workers", lambda: mfg.calibration.replicate(abs, 2, random_seed=1, cores=2),
     TypeError, "no argument `cores`"),
    ("bootstrap of no model", lambda: mfg.bootstrap(estimate(), random_seed=1), TypeError,
     "`model` must be a TrajectoryModel; got PointEstimate"),
    ("bootstrap of no group", lambda: mfg.bootstrap(model(), cluster="firm", random_seed=1),
     ValueError, "`cluster` must be one of 'agent'; got 'firm'"),
    ("save over a store", lambda: mfg.save(draws(), folder_called("x.zarr")), FileExistsError,
     "x.zarr exists"),
    ("save over another's file", lambda: mfg.save(draws(), file_of("x.csv", b"a,b")),
     FileExistsError, r"x\.csv exists and is no result of mfgppl"),
    ("save an empty tree", lambda: mfg.save(xr.DataTree(), "x.nc"), ValueError,
     "`draws` is not a result of mfgppl"),
    ("save an attribute of another kind",
     lambda: mfg.save(noted_draws({1: 2}), "noted.nc"), TypeError,
     "attribute 'note' of `draws`.*cannot hold"),
    ("save to a number", lambda: mfg.save(draws(), 3), TypeError,
     "`path` must be a path, as text or Path; got int"),
    ("load a number", lambda: mfg.load(3), TypeError,
     "`path` must be a path, as text or Path; got int"),
    ("report over another's numbers",
     lambda: mfg.report(draws(), file_of("y.json", b"{}").with_suffix(".html")),
     FileExistsError, r"y\.json exists and is no report of mfgppl"),
    ("save no tree", lambda: mfg.save(estimate(), "x.nc"), TypeError, "`draws`.*PointEstimate"),
    ("save in no folder", lambda: mfg.save(draws(), "none/x.nc"), FileNotFoundError,
     r"no folder none .*x\.nc"),
]  # fmt: skip


CHECKS: list[tuple[str, Any, type[Exception], str]] = [
    ("replay no policy", lambda: mfg.checks.replay(model(), "policy", random_seed=1), TypeError,
     "`policy` must be an array of numbers"),
    ("replay of another shape", lambda: mfg.checks.replay(model(), np.ones((1, 2, 2)),
     random_seed=1),
     ValueError, r"`policy` must have shape \(T, S, A\)"),
    ("check of no statistics",
     lambda: mfg.predictive_check(model(), estimate(), statistics=[abs], random_seed=1),
     TypeError, "`statistics` must be a mapping"),
    ("residuals of no fit", lambda: mfg.checks.residuals(model(), 3), TypeError,
     "`fit` must be posterior draws"),
    ("residuals least", lambda: mfg.checks.residuals(model(), estimate(), least=0), ValueError,
     "`least` must be above 0; got 0"),
    ("exploitability of no group",
     lambda: mfg.checks.observed_exploitability(model(), estimate(), cluster="firm", random_seed=1),
     ValueError, "`cluster` must be one of 'agent'; got 'firm'"),
    ("loo of no draws", lambda: mfg.loo(estimate()), TypeError, "`draws` must be a DataTree"),
    ("kfold one fold", lambda: mfg.checks.kfold(model(), mfg.mle, folds=1, random_seed=1),
     ValueError,
     "`folds` must be at least 2; got 1"),
    ("kfold no method", lambda: mfg.checks.kfold(model(), "mle", random_seed=1), TypeError,
     "`fit_method` must be a function"),
    ("compare one model", lambda: mfg.compare_models({}), ValueError, "at least two"),
    ("no draws of a prior",
     lambda: mfg.prior_predictive(two_roads(), avoid_crowds, draws=0, random_seed=1), ValueError,
     "`draws` must be at least 1; got 0"),
    ("a panel of nobody",
     lambda: mfg.prior_predictive(two_roads(), avoid_crowds, random_seed=1, n_agents=0),
     ValueError, "`n_agents` must be at least 1; got 0"),
    ("scales without odds", lambda: mfg.design.default_scales(two_roads(), avoid_crowds,
     log_odds=0),
     ValueError, "`log_odds` must be above 0; got 0"),
    ("a feature of time alone", lambda: mfg.design.weakly_informative(two_roads(), {"t": "time"}),
     ValueError, "'t', which has no scale: no choice depends on it"),
    ("scales into a program", lambda: mfg.design.weakly_informative(two_roads(), avoid_crowds),
     TypeError, "`features` must be a formula, a mapping or a list"),
    ("ranks of the energy law",
     lambda: mfg.calibration.sbc(model(likelihood="energy"), random_seed=1), ValueError,
     "use mean_field='empirical'"),
    ("ranks of few panels", lambda: mfg.calibration.sbc(model(), panels=5, random_seed=1),
     ValueError,
     "`panels` must be at least 10; got 5"),
    ("ranks by no fit", lambda: mfg.calibration.sbc(model(), fit="nuts", random_seed=1), TypeError,
     "`fit` must take a model and return draws; got str"),
    ("recovery by no method",
     lambda: mfg.calibration.recovery(two_roads(), avoid_crowds, truth=ROADS_TRUTH, n_agents=10,
                          methods="walt", random_seed=1),
     ValueError, "did you mean `wald`"),
    ("recovery of half a truth",
     lambda: mfg.calibration.recovery(two_roads(), avoid_crowds, truth={"effort": 1.0}, n_agents=10,
                          random_seed=1),
     ValueError, "crowding"),
    ("widths of no game",
     lambda: mfg.design.expected_widths([], avoid_crowds, parameters=ROADS_TRUTH), ValueError,
     "at least one game"),
    ("agents for no table", lambda: mfg.design.agents_for({"a": 1}, 0.5), TypeError,
     "Make it with expected_widths"),
    ("another world that is none",
     lambda: mfg.counterfactual(model(), estimate(), 1), TypeError,
     "`changed` must be a MeanFieldGame"),
    ("another world of another length",
     lambda: mfg.counterfactual(model(), estimate(), two_roads(horizon=5)), ValueError,
     "same horizon as the model's game, 4"),
    ("another world of other states",
     lambda: mfg.counterfactual(model(), estimate(), two_roads(states=["a", "b"])), ValueError,
     "must have the same states"),
    ("a tax on no state", lambda: mfg.taxed(avoid_crowds, {"lift": 1})(inputs()), ValueError,
     "`tax` names the state 'lift'"),
    ("a tax on no reward", lambda: mfg.taxed(1, {}), TypeError,
     "`reward` must be a reward program"),
    ("cross-fit in one part", lambda: mfg.flows.cross_fit(model(), folds=1, random_seed=1),
     ValueError,
     "at least 2"),
    ("cross-fit by no group", lambda: mfg.flows.cross_fit(model(), by="firm", random_seed=1),
     ValueError,
     "`by` must be one of"),
    ("pseudo-likelihood without steps",
     lambda: mfg.flows.nested_pseudo_likelihood(model(), damping=0.0), ValueError,
     "`damping` must lie in"),
    ("efficient pseudo-likelihood without steps",
     lambda: mfg.flows.efficient_pseudo_likelihood(model(), max_steps=0), ValueError,
     "`max_steps` must be at least 1"),
    ("a cut of a coupled model", lambda: mfg.flows.cut_posterior(
        model(mean_field="equilibrium"), random_seed=1), ValueError, "no flow to draw"),
    ("a cut of dynamics", lambda: mfg.flows.cut_posterior(model(), dynamics="unknown",
     random_seed=1),
     ValueError, "`dynamics`.*'known', 'estimated'.*'unknown'"),
    ("a cut of one flow", lambda: mfg.flows.cut_posterior(model(), flows=1, random_seed=1),
     ValueError,
     "`flows` must be at least 2"),
    ("coupling against itself",
     lambda: mfg.flows.coupling_test(model(), model(), random_seed=1), ValueError,
     "must have parameters that `null` lacks"),
    ("running away beyond everything", lambda: mfg.checks.runaway(model(), ROADS_TRUTH, beyond=1.0),
     ValueError, r"`beyond` must lie in \(0, 1\)"),
    ("running away of another fit",
     lambda: mfg.checks.runaway(model(), pd.DataFrame({"a": [1.0]})), ValueError,
     "`fit` has the columns"),
    ("loo by groups without their model", lambda: mfg.loo(draws(), by="agent"), ValueError,
     "by='agent' needs the fitted `model`"),
    ("loo of ten draws", lambda: mfg.loo(draws()), ValueError,
     "`draws` must hold 25 draws or more.*10"),
    ("treatments by no group", lambda: mfg.flows.treatments(model(), by="firm"), ValueError,
     "`by` must be one of 'agent'; got 'firm'"),
    ("treatments beside no model", lambda: mfg.flows.treatments(model(), null=3), TypeError,
     "`null` must be a TrajectoryModel"),
    ("free periods within a number", lambda: mfg.flows.with_free_periods(model(), within=3),
     TypeError, "`within` must be a name.*3"),
    ("kinds of no model", lambda: mfg.kinds.describe("model", ROADS_TRUTH), TypeError,
     "`model` must be a TrajectoryModel"),
    ("kinds that nobody has", lambda: mfg.kinds.probabilities(model(), ROADS_TRUTH), ValueError,
     "agent-level sites.*this one has none"),
    ("number of kinds by no function", lambda: mfg.kinds.choose(3), TypeError,
     "`model_of` must be a function.*got int"),
    ("kinds as types without parameters", lambda: mfg.kinds.as_types(game(), of_agents(
     dist.Categorical(torch.ones(2))), {}), ValueError, "`parameters`"),
    ("redrawn sites by a number", lambda: mfg.predictive_check(model(), estimate(), redraw=3),
     TypeError, "`redraw` must be a name.*3"),
    ("report of a point alone", lambda: mfg.report(estimate(), "r.html"), ValueError,
     "give `model` as well"),
    ("report to JSON", lambda: mfg.report(draws(), "r.json"), ValueError,
     "`path` is the page and must end in .html"),
]  # fmt: skip


def parts() -> mfg.Trajectories:
    """Return a panel of which one agent came late."""
    frame = as_frame(panel())
    return read(frame.drop(index=0), state="state", state_labels={"state": ["left", "right"]})


def earlier(method: str = "mfirl", *given: Any, **options: Any) -> Any:
    """Run an earlier method on the small panel."""
    seen, world = given or (panel(), two_roads())
    return getattr(mfg.baselines, method)(seen, world, **({"reward": avoid_crowds} | options))


BASELINES = [
    ("panel of no panel", lambda: earlier("mfirl", as_frame(panel()), two_roads()), TypeError,
     "`trajectories` must be Trajectories or a CountedPanel; got DataFrame"),
    ("panel of parts", lambda: earlier("mfirl", parts(), two_roads()), DataError,
     "trajectory begins after the first time.*keep agents seen at all decision times"),
    ("panel of another horizon", lambda: earlier("mfairl", panel(), two_roads(horizon=6)),
     ValueError, "the panel has 4 decision times and the game a horizon of 6"),
    ("panel with forbidden acts",
     lambda: earlier("plirl", panel(), two_roads(available=[[1, 0], [1, 1]])), DataError,
     "action not available.*state='left', action='turn'"),
    ("panel with impossible moves",
     lambda: earlier("mfirl", panel(), two_roads(transition=np.stack([np.eye(2)] * 2, 1))),
     DataError, "step of probability zero.*'left' to 'right' by 'turn'"),
    ("game of no game", lambda: earlier("mfirl", panel(), "roads"), TypeError,
     "`game` must be a MeanFieldGame; got str"),
    ("game stationary", lambda: earlier("mfirl", panel(), forever()), ValueError,
     "for games with a `horizon`"),
    ("reward no program", lambda: earlier(reward=3), TypeError,
     "`reward` must be a reward program.*got 3"),
    ("reward without sites", lambda: earlier(reward=lambda x: -x.density), ValueError,
     "no latent site"),
    ("reward with a param", lambda: earlier(
        reward=lambda x: pyro.param("w", torch.tensor(1.0)) * x.density), ValueError,
     "`pyro.param` site 'w'"),
    ("reward discrete", lambda: earlier(reward=site("n", dist.Poisson(1.0))), ValueError,
     "'n' is discrete"),
    ("seed a foreign word", lambda: earlier(seed=1), TypeError, "did you mean `random_seed`"),
    ("seed a word", lambda: earlier(random_seed="one"), TypeError, "`random_seed`.*'one'"),
    ("MFIRL normalisation", lambda: earlier(normalisation="norm"), ValueError,
     "`normalisation`.*'entropy', 'advantage', 'none'.*'norm'"),
    ("MFIRL steps", lambda: earlier(max_steps=0), ValueError, "`max_steps`.*at least 1"),
    ("MFIRL tolerance", lambda: earlier(tolerance=0.0), ValueError, "`tolerance`.*above 0"),
    ("PLIRL partition", lambda: earlier("plirl", partition="IS"), ValueError,
     "`partition`.*'exact', 'sampled'.*'IS'"),
    ("PLIRL one flow", lambda: earlier("plirl", n_flows=1), ValueError, "`n_flows`.*at least 2"),
    ("MF-AIRL sampler", lambda: earlier("mfairl", sampler="ppo"), ValueError,
     "`sampler`.*'exact', 'sampled'.*'ppo'"),
    ("MF-AIRL next state", lambda: earlier("mfairl", next_state="mean"), ValueError,
     "`next_state`.*'observed', 'expected'.*'mean'"),
    ("MF-AIRL potential", lambda: earlier("mfairl", potential="linear"), ValueError,
     "`potential`.*'table', 'network'.*'linear'"),
    ("MF-AIRL rate", lambda: earlier("mfairl", policy_rate=2.0), ValueError,
     r"`policy_rate`.*\(0, 1\].*2"),
    ("cloning count", lambda: earlier("behaviour_cloning", prior_count=-1.0), ValueError,
     "`prior_count`.*not negative"),
    ("metrics of nothing", lambda: mfg.baselines.recovery_metrics(
        two_roads(), avoid_crowds, None, parameters=ROADS_TRUTH), ValueError,
     "give `recovered`, a reward program, or a `policy`"),
    ("metrics stationary", lambda: mfg.baselines.recovery_metrics(
        forever(), avoid_crowds, avoid_crowds, parameters=ROADS_TRUTH), ValueError,
     "needs a game with a horizon"),
    ("network without layers", lambda: mfg.baselines.network_reward(()), ValueError,
     "at least one layer"),
    ("network of a number", lambda: mfg.baselines.network_reward(8), TypeError,
     "`hidden` must be a sequence of layer sizes"),
    ("Gymnasium stationary", lambda: mfg.interop.to_gymnasium(
        forever(), avoid_crowds, FLOW[:1], parameters=ROADS_TRUTH), ValueError,
     "needs a game with a `horizon`"),
    ("Gymnasium flow", lambda: mfg.interop.to_gymnasium(
        two_roads(), avoid_crowds, FLOW[:2], parameters=ROADS_TRUTH), ValueError,
     "`mean_field` must have shape"),
    ("Gymnasium without parameters", lambda: mfg.interop.to_gymnasium(two_roads(), avoid_crowds,
     FLOW),
     ValueError, "`parameters` lack"),
]  # fmt: skip


def foreign_file() -> str:
    """Write a netCDF file that is no result."""
    xr.Dataset({"a": 1}).to_netcdf("other.nc", engine="h5netcdf")
    return "other.nc"


TABLES = {
    "data": DATA,
    "game": GAMES,
    "reward": REWARDS,
    "model": MODELS,
    "fit": FITS,
    "solver": SOLVERS,
    "result": RESULTS,
    "check": CHECKS,
    "earlier method": BASELINES,
}
ROWS = [
    pytest.param(*row[1:], id=f"{room}: {row[0]}") for room, rows in TABLES.items() for row in rows
]


@pytest.mark.parametrize(("wrong", "error", "words"), ROWS)
def test_a_wrong_input_raises_a_message_with_the_decisive_words(
    wrong, error, words, tmp_path, monkeypatch
):
    """Each wrong input raises its kind of error, which says what is wrong and what came."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        wrong()


GOOD = """
import pyro
import pyro.distributions as dist
import mfgppl as mfg

def reward(x):
    return pyro.sample("w", dist.Normal(0.0, 1.0)) * x.density

def model(panel):
    game = mfg.MeanFieldGame(
        states=["left", "right"], actions=["stay", "turn"], horizon=panel.horizon,
        transition=panel.estimate_transition(prior_count=0.5),
        initial=panel.initial_distribution(),
    )
    return mfg.TrajectoryModel(game, reward, panel)
"""
COMMANDS = [
    ("check no file", ["check", "none.csv"], "no panel 'none.csv'.*nyc_flights"),
    ("check a folder's file", ["check", "none/panel.csv"], "no panel 'none/panel.csv'"),
    ("check no table", ["check", "notes.txt"], r"\.csv.*'notes\.txt'"),
    ("fit no model", ["fit", "none.py", "panel.csv"], "no model file 'none.py'"),
    ("fit no gallery model", ["fit", "nosuchgame", "panel.csv"], "no model file 'nosuchgame'"),
    ("fit no panel", ["fit", "good.py", "none.csv"], "no panel 'none.csv'"),
    ("fit broken syntax", ["fit", "syntax.py", "panel.csv"], r"syntax\.py failed \(line 2\)"),
    ("fit broken import", ["fit", "broken.py", "panel.csv"],
     r"broken\.py failed.*ModuleNotFoundError.*nosuchmodule"),
    ("fit without model", ["fit", "empty.py", "panel.csv"], r"empty\.py must define `model"),
    ("fit a text file", ["fit", "notes.txt", "panel.csv"], r"notes\.txt is not a Python file"),
    ("fit a model that raises", ["fit", "raises.py", "panel.csv"], "NameError.*nosuchname"),
    ("fit a model of nothing", ["fit", "nothing.py", "panel.csv"],
     "TrajectoryModel.*NoneType"),
    ("fit columns misspelt", ["fit", "columns.py", "panel.csv"], "`agents`.*`agent`"),
    ("fit in no folder", ["fit", "good.py", "panel.csv", "--out", "none/fit.nc"],
     r"no folder none .*fit\.nc"),
    ("fit draws in a table", ["fit", "good.py", "panel.csv", "--draws", "5", "--out", "fit.csv"],
     r"\.nc"),
    ("fit estimates in a tree", ["fit", "good.py", "panel.csv", "--method", "mle", "--out",
     "fit.nc"], r"\.csv"),
    ("report no file", ["report", "none.nc"], r"no file none\.nc"),
    ("report another file", ["report", "notes.txt"], "not a netCDF file"),
    ("demo in no folder", ["demo", "--out", "none/report.html", "--draws", "1"],
     r"no folder none .*report\.html"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a panel, good and broken model files."""
    monkeypatch.chdir(tmp_path)
    as_frame(panel()).to_csv("panel.csv", index=False)
    files = {
        "good.py": GOOD,
        "syntax.py": "x = 1\ndef model(panel:\n",
        "broken.py": "import nosuchmodule\n",
        "empty.py": "x = 1\n",
        "raises.py": "def model(panel):\n    return nosuchname\n",
        "nothing.py": "def model(panel):\n    pass\n",
        "columns.py": GOOD + "\nCOLUMNS = {'agents': 'agent'}\n",
        "notes.txt": "no table\n",
    }
    for name, text in files.items():
        Path(name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "words"), [pytest.param(*row[1:], id=row[0]) for row in COMMANDS]
)
def test_a_wrong_command_prints_one_line_and_no_traceback(folder, command, words):
    """Each wrong command ends with exit code 1 and one clear line on standard error."""
    result = CliRunner().invoke(main, command)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("mfgppl: ")
    assert pd.Series(lines).str.contains(words, regex=True).all(), lines[0]
    assert "Traceback" not in result.output
    assert "NUTS" not in result.stdout  # nothing long is begun


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["fit", "good.py", "panel.csv", "--draws", "0"], "'--draws': 0 is not in the range"),
        (["fit", "good.py", "panel.csv", "--seed", "-1"], "'--seed': -1 is not in the range"),
        (
            ["fit", "good.py", "panel.csv", "--method", "vb"],
            "'vb'.*'nuts', 'laplace', 'vi', 'mle', 'map'",
        ),
        (["fit", "good.py"], "PANEL"),
        (["sample"], "No such command 'sample'"),
        (["check", "panel.csv", "--stat", "state"], "--stat"),
    ],
)
def test_a_command_that_is_not_one_shows_its_usage(folder, command, words):
    """An unknown option, choice or command is a usage error of click, with the valid ones."""
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert pd.Series([result.stderr]).str.contains(words, regex=True).all(), result.stderr
    assert "Traceback" not in result.output


def test_a_wrong_column_is_a_fault_of_the_table(folder):
    """A column that is not there comes as the panel's fault table, with exit code 1."""
    result = CliRunner().invoke(main, ["check", "panel.csv", "--state", "stat"])
    assert result.exit_code == 1
    assert "no column 'stat'" in result.stderr
    assert "did you mean 'state'?" in result.stderr
    assert "Traceback" not in result.output
