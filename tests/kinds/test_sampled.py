"""Quadrature against coefficients that are sampled, one for each agent."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from kinds_world import GAME, POOLED, S, panel

import mfgppl as mfg


def summed(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with x.agents(nodes=25):
        cost = pyro.sample("cost", dist.Normal(mean, spread))
    return -cost * (x.action != "none")


def sampled(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    lean = pyro.sample("lean", x.firm.each(dist.Normal(0.0, 1.0)))
    cost = mean + spread * lean[x.firm.codes]
    return -cost * (x.action != "none")


@pytest.mark.slow
def test_a_quadrature_is_the_integral_that_sampling_takes():
    """The reference: each agent a type of its own, whose coefficient is a parameter."""
    firms = panel(7, n=60)
    table = firms.to_frame().assign(firm=lambda t: t["agent"])
    labels = {"firm": list(range(60))}
    apart = mfg.Trajectories.from_frame(
        table, state="price", types=["firm"], type_labels=labels,
        state_labels={"price": range(S)}, action_labels=["down", "none", "up"],
    )  # fmt: skip
    game = GAME.replace(types=labels, initial=np.full(60 * S, 1 / (60 * S)))
    flow = np.tile(POOLED.numpy() / 60, 60)
    models = [
        mfg.TrajectoryModel(GAME, summed, firms, mean_field=POOLED),
        mfg.TrajectoryModel(game, sampled, apart, mean_field=flow),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = [
            mfg.nuts(m, draws=1500, tune=1000, chains=4, random_seed=3, progressbar=False)
            for m in models
        ]
    import arviz_stats

    for name in ("mean", "spread"):
        each = [d["posterior"][name] for d in draws]
        errors = [float(d.std()) / np.sqrt(float(arviz_stats.ess(d.values))) for d in each]
        away = abs(float(each[0].mean()) - float(each[1].mean()))
        assert away < 4 * np.hypot(*errors)
        assert float(each[0].std()) == pytest.approx(float(each[1].std()), rel=0.15)
