"""Expressions mean what they say, recorded on the tape and run by torch alike."""

import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.reward.program import reward_table

FLOAT = torch.float64
STOCK, LAST, ACTIONS, YEARS = ["none", "low", "high"], ["go", "stay"], ["stay", "go"], range(5, 9)
TABLE = np.random.default_rng(0).dirichlet(np.ones(6), size=(6, 2))
RENT, FLAGS, ARRAY = np.array([1.0, 2.0, 3.0, 4.0]), [0, 1, 0, 1], np.array([3.0, 1.0, 7.0, 1.0])
FLOW = np.random.default_rng(1).dirichlet(np.ones(6), size=4)
W, V = 0.3, np.array([0.1, -0.2, 0.4])

t, s, last, a = np.ogrid[:4, :3, :2, :2]  # axes of the reward by hand, the states' two apart
GO = a == 1
DENSITY = FLOW.reshape(4, 3, 2, 1)


def game(**changes) -> mfg.MeanFieldGame:
    arguments = {
        "states": {"stock": STOCK, "last": LAST}, "actions": ACTIONS, "horizon": YEARS,
        "transition": TABLE, "initial": np.full(6, 1 / 6),
        "features": {"rent": ("time", RENT), "flag": ("time", FLAGS)},
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


def model(expression) -> mfg.TrajectoryModel:
    def reward(x):
        w = pyro.sample("w", dist.Normal(torch.zeros((), dtype=FLOAT), 1.0))
        v = pyro.sample("v", dist.Normal(torch.zeros(3, dtype=FLOAT), 1.0).to_event(1))
        return expression(x, w, v) * (x.action == "go")

    half = np.full((4, 6, 2), 0.5)
    panel = mfg.simulate(game(), half, FLOW, n_agents=40, random_seed=1)
    return mfg.TrajectoryModel(game(), reward, panel, mean_field=FLOW)


# what a program says, and what it means, by hand
MEANT = {
    "axes compared": (lambda x, w, v: w * (x.last != x.action), W * ((last == 0) != (a == 1))),
    "axes alike": (lambda x, w, v: w * (x.action == x.last), W * ((last == 0) == (a == 1))),
    "and": (
        lambda x, w, v: w * ((x.stock == "low") & (x.last == "go")),
        W * ((s == 1) & (last == 0)),
    ),
    "or of numbers": (
        lambda x, w, v: w * ((x.stock == "low") | (x.density > 0.2)),
        W * ((s == 1) | (DENSITY > 0.2)),
    ),
    "number first": (
        lambda x, w, v: w * ((x.density > 0.2) & (x.stock == "low")),
        W * ((s == 1) & (DENSITY > 0.2)),
    ),
    "not": (lambda x, w, v: w * ~(x.stock == "low"), W * (s != 1)),
    "not of a number": (lambda x, w, v: w * ~(x.density > 0.2), W * ~(DENSITY > 0.2)),
    "one less": (lambda x, w, v: w * (1 - (x.density > 0.2)), W * (1.0 - (DENSITY > 0.2))),
    "minus": (lambda x, w, v: w * -(x.density > 0.2), -W * (DENSITY > 0.2)),
    "two added": (
        lambda x, w, v: w * ((x.density > 0.1) + (x.density > 0.2)),
        W * (1.0 * (DENSITY > 0.1) + (DENSITY > 0.2)),
    ),
    "one from another": (
        lambda x, w, v: w * ((x.density > 0.1) - (x.stock == "low")),
        W * (1.0 * (DENSITY > 0.1) - (s == 1)),
    ),
    "indexed by words": (lambda x, w, v: v[x.stock], V[s]),
    "indexed by codes": (lambda x, w, v: v[x.stock.codes], V[s]),
    "indexed by time": (lambda x, w, v: w * torch.arange(4)[x.time], W * t),
    "a parameter by time": (lambda x, w, v: torch.cat([v, v[:1]])[x.time], np.append(V, V[0])[t]),
    "a flag by and": (lambda x, w, v: w * ((x.period == 6) & (x.flag == 1)), W * (t == 1)),
    "array times axis": (
        lambda x, w, v: w * (ARRAY[:, None, None] * x.rent),
        W * ARRAY[t] * RENT[t],
    ),
    "axis times array": (
        lambda x, w, v: w * (x.rent * ARRAY[:, None, None]),
        W * ARRAY[t] * RENT[t],
    ),
    "array over axis": (
        lambda x, w, v: w * (ARRAY[:, None, None] / x.rent),
        W * ARRAY[t] / RENT[t],
    ),
    "array minus condition": (
        lambda x, w, v: w * (ARRAY[:, None, None] - (x.stock == "low")),
        W * (ARRAY[t] - (s == 1)),
    ),
    "array compared": (
        lambda x, w, v: w * (ARRAY[:, None, None] > x.rent),
        W * (ARRAY[t] > RENT[t]),
    ),
    "array by codes": (lambda x, w, v: w * torch.as_tensor(ARRAY)[x.time.codes], W * ARRAY[t]),
    "function of NumPy": (lambda x, w, v: w * np.exp(x.rent), W * np.exp(RENT[t])),
    "numbers of NumPy": (lambda x, w, v: np.float64(2) * w * np.int64(3) * x.rent, 6 * W * RENT[t]),
    "Python's numbers": (lambda x, w, v: 2 * w / 3 - True * x.rent, 2 * W / 3 - RENT[t]),
    "order of words": (lambda x, w, v: w * (x.stock >= "low"), W * (s >= 1)),
    "order of words below": (lambda x, w, v: w * (x.stock < "low"), W * (s < 1)),
    "by labels of time": (lambda x, w, v: w * (x.period >= 7), W * (t >= 2)),
    "one label of time": (lambda x, w, v: w * (x.period == 7), W * (t == 2)),
    "times from zero": (lambda x, w, v: w * x.time, W * t),
    "indexed by labels of time": (
        lambda x, w, v: torch.cat([v, v[:1]])[x.period.codes],
        np.append(V, V[0])[t],
    ),
}


@pytest.mark.parametrize(("program", "meant"), MEANT.values(), ids=MEANT)
def test_both_ways_give_what_is_meant(program, meant):
    """The tape, the model as Pyro runs it, and the reward's table agree with arrays by hand."""
    made = model(program)
    density = density_of(made)
    by_hand = model(
        lambda x, w, v: torch.tensor(np.broadcast_to(meant, (4, 3, 2, 2)).reshape(4, 6, 2))
    )
    values = {"w": torch.tensor(W, dtype=FLOAT), "v": torch.tensor(V, dtype=FLOAT)}
    trace = [
        pyro.poutine.trace(pyro.poutine.condition(one.__call__, values)).get_trace()
        for one in (made, by_hand)
    ]
    eager, expected = (float(one.log_prob_sum()) for one in trace)
    taped = density.evaluator(prior=1.0, jacobian=1.0)(np.array([W, *V]))[0]
    np.testing.assert_allclose([taped, eager], expected, rtol=1e-12)


# what cannot work, the error, and what it says to write
REFUSED = {
    "and": (
        lambda x, w, v: w * ((x.stock == "low") and (x.last == "go")),
        TypeError,
        r"by &, \| and ~",
    ),
    "or": (
        lambda x, w, v: w * ((x.density > 0.1) or (x.last == "go")),
        TypeError,
        r"by &, \| and ~",
    ),
    "not": (lambda x, w, v: w * (not (x.rent > 2)), TypeError, r"by &, \| and ~"),
    "if": (lambda x, w, v: w if x.stock == "low" else 0 * w, TypeError, "torch.where"),
    "max": (lambda x, w, v: w * max(x.rent, 2.0), TypeError, "torch.maximum"),
    "chain": (lambda x, w, v: w * (1 < x.rent < 3), TypeError, "chains"),
    "in": (lambda x, w, v: w * (x.stock in ["low"]), TypeError, "isin"),
    "a list of labels": (
        lambda x, w, v: w * (x.stock == ["low", "high"]),
        ValueError,
        r"x.stock.isin\(\['low', 'high'\]\)",
    ),
    "no parentheses": (
        lambda x, w, v: w * (x.stock == "low" & x.last == "go"),
        TypeError,
        "parentheses",
    ),
    "no parentheses of a number": (
        lambda x, w, v: w * ((x.last == "go") & x.density > 0.1),
        TypeError,
        "parentheses",
    ),
    "no parentheses of a word": (
        lambda x, w, v: w * ((x.last == "go") | x.stock == "low"),
        TypeError,
        "parentheses",
    ),
    "not of an axis": (lambda x, w, v: w * ~x.rent, TypeError, "no condition"),
    "array by an axis": (
        lambda x, w, v: w * ARRAY[x.time],
        IndexError,
        r"torch.as_tensor\(array\)\[x.a",
    ),
    "list by codes": (
        lambda x, w, v: w * [1, 2, 3][x.stock.codes],
        TypeError,
        r"torch.as_tensor\(array\)",
    ),
    "words in a dict": (lambda x, w, v: w * {"low": 1.0}[x.stock], TypeError, r"\[x.a.codes\]"),
    "array times parameter": (
        lambda x, w, v: ARRAY[:, None, None] * w,
        TypeError,
        r"torch.as_tensor\(array\)",
    ),
    "parameter times array": (
        lambda x, w, v: w * ARRAY[:, None, None],
        ValueError,
        r"torch.as_tensor\(array\) of a NumPy array",
    ),
    "math of an axis": (lambda x, w, v: w * math.log(x.rent), ValueError, "torch's function"),
    "number of torch": (
        lambda x, w, v: w * torch.maximum(x.rent, 2.0),
        TypeError,
        r"torch.tensor\(2.0\)",
    ),
    "words reckoned with": (lambda x, w, v: w * x.stock, TypeError, "x.stock.codes"),
    "no label in common": (
        lambda x, w, v: w * (x.stock == x.action),
        ValueError,
        "no label in common",
    ),
    "no common order": (lambda x, w, v: w * (x.stock > x.last), ValueError, "no common order"),
    "years as positions": (
        lambda x, w, v: torch.cat([v, v[:1]])[x.period],
        TypeError,
        r"\[x.period.codes\]",
    ),
    "no centre": (lambda x, w, v: w * x.stock.centres, AttributeError, "bin the column with"),
}


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # raised by torch
@pytest.mark.parametrize(("program", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_says_what_to_write(program, error, words):
    with pytest.raises(error, match=words):
        model(program)


def test_labels_of_time_need_a_game_that_has_them():
    plain = game(horizon=4)
    panel = mfg.simulate(plain, np.full((4, 6, 2), 0.5), FLOW, n_agents=4, random_seed=1)
    with pytest.raises(AttributeError, match=r"MeanFieldGame\(horizon=panel.periods\)"):
        mfg.TrajectoryModel(plain, lambda x: 1.0 * (x.period > 1), panel)


def test_a_game_with_types_reads_labels_of_time_and_axes():
    """With an axis of types in front the same comparisons broadcast."""
    typed = game(types={"size": ["go", "stay"]}, initial=np.full(12, 1 / 12))

    def reward(x):
        return (x.size == x.action) * (x.period >= 7) * torch.arange(4)[x.time]

    table = mfg.RewardInputs(typed, torch.full((4, 12), 1 / 12, dtype=FLOAT))
    found = reward_table(reward, table).reshape(4, 2, 6, 2)
    t, c, _, a = np.ogrid[:4, :2, :6, :2]
    expected = ((c == 0) == (a == 1)) * (t >= 2) * t * np.ones((4, 2, 6, 2))
    np.testing.assert_array_equal(found, expected)


def test_bins_are_read_by_their_centres():
    """A panel's bins, through the game, in a reward: the value is the mean of the raw numbers."""
    rng = np.random.default_rng(0)
    frame = {"agent": np.repeat(np.arange(50), 4), "time": np.tile(range(4), 50),
             "state": rng.gamma(2.0, size=200), "action": rng.choice(["a", "b"], 200)}  # fmt: skip
    raw = pd.DataFrame(frame)
    panel = mfg.Trajectories.from_frame(mfg.discretise(raw, state=3))
    world = mfg.MeanFieldGame(
        states=panel.space.coordinates, actions=panel.actions, horizon=panel.horizon,
        transition=panel.estimate_transition(), initial=panel.initial_distribution(),
    )  # fmt: skip
    found = mfg.RewardInputs(world, torch.as_tensor(panel.mean_field())).state.centres
    by_hand = raw["state"].groupby(pd.qcut(raw["state"], 3).cat.codes).mean()
    np.testing.assert_allclose(found.flatten(), by_hand, rtol=1e-14)
    other = mfg.discretise(raw, state=3, centres={"state": [1, 2, 3]})
    with pytest.raises(ValueError, match="'state' have other centres in the game than in the"):
        mfg.TrajectoryModel(
            world, lambda x: 1.0 * x.state.centres, mfg.Trajectories.from_frame(other)
        )
