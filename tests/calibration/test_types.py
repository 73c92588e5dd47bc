"""Agents of several types in calibration, tests of coupling and variational fits."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from games import random_rows

import mfgppl as mfg

S, T, N = 3, 5, 150
TABLE = random_rows(51, S, 2, S)
START = np.concatenate([random_rows(52, S) / 3, 2 * random_rows(53, S) / 3])


def game():
    return mfg.MeanFieldGame(
        states={"price": range(S)}, actions=["hold", "move"], types={"size": ["small", "large"]},
        horizon=T, transition={"small": TABLE, "large": TABLE[::-1, :, ::-1]}, initial=START,
    )  # fmt: skip


def alone(x):
    cost = pyro.sample("cost", x.size.each(dist.Normal(0.5, 0.3)))
    worth = pyro.sample("worth", dist.Normal(0.3, 0.2))
    return worth * x.price - cost[x.size.codes] * (x.action == "move")


def crowded(x):
    return alone(x) - pyro.sample("crowding", dist.Normal(1.0, 0.5)) * x.density


@pytest.fixture(scope="module")
def models():
    truth = {"cost": [0.8, 0.4], "worth": 0.3, "crowding": 1.0}
    found = mfg.solve_equilibrium(game(), crowded, parameters=truth, throw=True).value
    panel = mfg.simulate(game(), found.policy, found.mean_field, n_agents=N, random_seed=1)
    return [mfg.TrajectoryModel(game(), program, panel) for program in (crowded, alone)]


@pytest.mark.slow
def test_ranks_of_types_are_those_of_their_labels(models):
    """One quantity for each label; a right posterior is not rejected."""

    def fit(model, random_seed):
        return mfg.laplace(model, draws=300, random_seed=random_seed, flow_bias=False)

    options = {"panels": 20, "fit": fit, "random_seed": 1, "n_jobs": 1, "progressbar": False}
    found = mfg.calibration.sbc(models[0], mean_field="known", **options)
    assert list(found.table.index) == [
        "cost[small]", "cost[large]", "worth", "crowding", "log_likelihood",
    ]  # fmt: skip
    assert found.table["inside"].all()


def test_coupling_is_tested_with_periods_free_within_types(models):
    """More shocks than of all together; as many degrees of freedom of the test itself."""
    options = {"replications": 19, "random_seed": 1, "n_jobs": 1, "progressbar": False}
    found = mfg.flows.coupling_test(*models, free=["time", "size"], **options)
    assert found.df == 1
    assert found.n_failed == 0
    for within, n in (((), T - 1), ("size", 2 * (T - 1))):
        freed = mfg.flows.with_free_periods(models[1], within=within)
        assert mfg.mle(freed, svi_steps=0, progressbar=False).params.size == 3 + n


def test_variational_draws_have_an_axis_of_labels(models):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        draws = mfg.vi(models[0], max_steps=200, draws=100, random_seed=1, flow_bias=False)
    assert draws["posterior"]["cost"].dims == ("chain", "draw", "size")
    assert draws["posterior"]["size"].values.tolist() == ["small", "large"]
