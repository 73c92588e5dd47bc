"""Rust (1987), *Optimal replacement of GMC bus engines*, Econometrica 55, Table IX, group 4.

The table is the one that econirl carries (the extra `published`; it is read as a file, without
importing econirl). It has the odometer of each month and the month of each replacement, but not the
odometer at which the engine was replaced, from which Rust counts miles: the published digits cannot
be reached from it, only approached. Here an engine is replaced at the reading of its month.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.optimize

import mfgppl as mfg

BINS, DISCOUNT, GROUP = 90, 0.9999, 4
COST, REPLACING, LOG_LIKELIHOOD = 2.2930, 10.0750, -3304.155  # as published
MOVES = np.array([0.3919, 0.5953, 0.0128])
SOLVER = 1e-4  # of a search without gradients whose height is right to 1e-9

found = importlib.util.find_spec("econirl")
pytestmark = pytest.mark.skipif(found is None, reason="econirl, which carries the table, is absent")


@pytest.fixture(scope="module")
def table():
    """Return group 4, 37 buses over 117 months, as econirl carries it."""
    folder = Path(found.submodule_search_locations[0])
    table = pd.read_csv(folder / "datasets" / "rust_bus_original.csv")
    return table[table["group"] == GROUP]


def coded(table):
    """Return what Rust's program reads: bins since replacement, from 0, and their moves.

    As there, the month of a replacement moves by one bin more than the miles since.
    """
    parts, moves = [], []
    for _, bus in table.groupby("bus_id"):
        odometer, replaced = bus["mileage"].to_numpy(), bus["replaced"].to_numpy()
        at = np.where(replaced == 1, odometer, 0.0)
        since = odometer - np.append(0.0, np.maximum.accumulate(at)[:-1])
        place = np.maximum(np.ceil(since / 5.0).astype(int), 1)
        moves.append(place[1:] - place[:-1] * (1 - replaced[:-1]))
        parts.append(bus.assign(bin=place - 1).iloc[1:])
    moved = np.bincount(np.concatenate(moves))
    return pd.concat(parts), moved


def bus_moves(shares):
    """Return the probability of the next bin, (S, A, S); a new engine begins in the first."""
    kept = np.zeros((BINS, BINS))
    for step, share in enumerate(shares):
        np.add.at(kept, (np.arange(BINS), np.minimum(np.arange(BINS) + step, BINS - 1)), share)
    return np.stack([kept, np.broadcast_to(kept[0], kept.shape)], axis=1)


def bus(x):
    """Return what a bus pays, in Rust's units: a thousandth a bin and unit of cost."""
    cost = pyro.sample("cost", dist.Normal(0.0, 10.0))
    replacing = pyro.sample("replacing", dist.Normal(0.0, 20.0))
    keep = x.action == "keep"
    return -0.001 * cost * x.bin * keep - replacing * ~keep


def own_shares(table):
    """Return moves as econirl counts them, within a bus and between replacements alone."""
    parts = []
    for _, bus in table.groupby("bus_id"):
        kept = bus["replaced"].to_numpy()[:-1] == 0
        parts.append(np.diff(bus["mileage_bin"])[kept])
    moved = np.bincount(np.concatenate(parts))
    return moved / moved.sum()


def fitted(table, shares):
    game = mfg.MeanFieldGame(
        states={"bin": range(BINS)}, actions=["keep", "replace"], horizon=None,
        transition=bus_moves(shares), initial=np.eye(BINS)[0], discount=DISCOUNT,
    )  # fmt: skip
    panel = mfg.Trajectories.from_frame(
        table.assign(action=np.where(table["replaced"], "replace", "keep")), agent="bus_id",
        time="period", state="bin", state_labels={"bin": range(BINS)},
        action_labels=["keep", "replace"],
    )  # fmt: skip
    model = mfg.TrajectoryModel(game, bus, panel, mean_field=np.full((1, BINS), 1 / BINS))
    return mfg.mle(model, flow_bias=False, progressbar=False)


def nested_fixed_point(table, shares):
    """Return estimates and log likelihood by Newton's method inside a search without gradients."""
    kept, new = bus_moves(shares).transpose(1, 0, 2)
    miles, eye = np.arange(BINS), np.eye(BINS)
    counts = np.zeros((BINS, 2))
    np.add.at(counts, (table["bin"], table["replaced"]), 1)

    def minus_height(point):
        values = np.zeros(BINS)
        for _ in range(50):
            keep = -0.001 * point[0] * miles + DISCOUNT * kept @ values
            replace = -point[1] + DISCOUNT * new @ values
            chance = 1 / (1 + np.exp(keep - replace))
            under = (1 - chance)[:, None] * kept + chance[:, None] * new
            change = np.linalg.solve(eye - DISCOUNT * under, np.logaddexp(keep, replace) - values)
            values = values + change
            if np.abs(change).max() < 1e-9 * np.abs(values).max():
                break
        return -(counts * np.log(np.stack([1 - chance, chance], axis=1))).sum()

    options = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 2000}
    best = scipy.optimize.minimize(
        minus_height, [COST, REPLACING], method="Nelder-Mead", options=options
    )
    return best.x, -best.fun


def test_group_4_is_as_published(table):
    """Buses, months and decisions are; moves are but for those in the month of a replacement."""
    rows, moved = coded(table)
    assert rows["bus_id"].nunique() == 37
    assert len(rows) == 4292
    assert rows["replaced"].sum() == 33
    assert moved.sum() == 4292
    assert np.abs(moved - 4292 * MOVES).max() < 33 / 2


def test_estimates_are_those_of_a_nested_fixed_point(table):
    """The stationary likelihood finds what an independent program does, as near as the table is."""
    rows, moved = coded(table)
    shares = moved / moved.sum()
    fit = fitted(rows, shares)
    estimates, height = nested_fixed_point(rows, shares)
    assert fit.converged
    np.testing.assert_allclose(fit.params[["cost", "replacing"]], estimates, rtol=SOLVER)
    np.testing.assert_allclose(fit.llf, height, atol=1e-6)
    near = fit.params[["cost", "replacing"]].to_numpy() - [COST, REPLACING]
    assert (np.abs(near) < 0.1 * fit.bse[["cost", "replacing"]]).all()
    np.testing.assert_allclose(height + moved @ np.log(shares), LOG_LIKELIHOOD, atol=3.0)


def test_econirl_finds_the_same_on_its_own_coding(table):
    """Bins as econirl 0.1.1 has them, all 4,329 months: its nested fixed point's numbers."""
    rows = table.assign(bin=table["mileage_bin"])
    fit = fitted(rows, own_shares(table))
    assert len(rows) == 4329
    estimates, _ = nested_fixed_point(rows, own_shares(table))
    np.testing.assert_allclose(fit.params[["cost", "replacing"]], estimates, rtol=SOLVER)
    away = (fit.params[["cost", "replacing"]] - [2.26356, 10.14233]) / fit.bse
    assert (away.abs() < 1e-3).all()  # standard errors; its features are in single precision
    np.testing.assert_allclose(fit.llf, -163.71113, atol=1e-4)
