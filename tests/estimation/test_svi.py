"""Steps of SVI on the compiled density are those of Pyro's own on the model."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import two_roads
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, init_to_value
from pyro.optim import ClippedAdam

import mfgppl as mfg
from mfgppl.density.climb import Objective
from mfgppl.density.of_model import density_of
from mfgppl.estimation.svi import run_svi
from mfgppl.reward.program import double_precision

START = {"crowding": 0.7, "effort": 0.4}
RATE, STEPS = 0.05, 20


def reward(x):
    crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
    effort = pyro.sample("effort", dist.HalfNormal(2.0))
    return -crowding * x.density - effort * (x.action == "turn")


def by_pyro(model):
    """Where Pyro's SVI with a point guide of the program's sites ends."""
    values = {k: torch.tensor(v, dtype=torch.float64) for k, v in START.items()}
    with double_precision(), pyro.get_param_store().scope():
        guide = AutoDelta(model, init_loc_fn=init_to_value(values=values))
        svi = SVI(model, guide, ClippedAdam({"lr": RATE}), Trace_ELBO())
        for _ in range(STEPS):
            svi.step()
        return {name: value.item() for name, value in guide().items()}


@pytest.mark.parametrize("likelihood", ["causal", "energy"])
def test_its_steps_are_those_of_pyro_on_the_program(roads_panel, likelihood):
    """One site with a factor, the compiled density, leads where the program's sites lead."""
    model = mfg.TrajectoryModel(two_roads(), reward, roads_panel, likelihood=likelihood)
    density = density_of(model)
    start = density.program.free(START)
    begun = start.copy()
    end = run_svi(
        Objective(density, 1.0, 0.0), start, np.ones(2), n_steps=STEPS, learning_rate=RATE,
        random_seed=0, progressbar=False,
    )  # fmt: skip
    expected = by_pyro(model)
    np.testing.assert_allclose(density.constrained(end[None])[0], list(expected.values()), 1e-10)
    np.testing.assert_array_equal(start, begun)
    assert (np.abs(end - begun) > 0.1).all()


def test_a_start_is_kept_where_steps_end_nowhere():
    """Where the objective is not finite at the end, the climb begins at the start."""

    class Cliff:
        def value_and_gradient(self, theta):
            return (-float(theta[0] ** 2) if theta[0] > -1 else -np.inf), np.array([-5.0])

    end = run_svi(
        Cliff(), np.zeros(1), np.ones(1), n_steps=40, learning_rate=0.1, random_seed=0,
        progressbar=False,
    )  # fmt: skip
    assert end.tolist() == [0.0]
