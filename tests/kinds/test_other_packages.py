"""A static panel of two kinds, against what packages of choice models find on the same table."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import mfgppl as mfg

AGENTS, TIMES, MENUS, OPTIONS = 500, 10, 50, 3


@pytest.fixture(scope="module")
def choices():
    """Return the game and panel of agents who choose among three options of a menu each time.

    Menus are drawn at random whatever was chosen, so that no choice looks ahead.
    """
    rng = np.random.default_rng(7)
    price = rng.uniform(0.5, 3.0, (MENUS, OPTIONS))
    quality = rng.uniform(0.0, 3.0, (MENUS, OPTIONS))
    kind = (rng.random(AGENTS) > 0.55).astype(int)
    dear, good = np.array([-1.8, -0.3])[kind], np.array([0.4, 1.6])[kind]
    menu = rng.integers(MENUS, size=(AGENTS, TIMES))
    worth = dear[:, None, None] * price[menu] + good[:, None, None] * quality[menu]
    chosen = (worth + rng.gumbel(size=(AGENTS, TIMES, OPTIONS))).argmax(-1)
    table = pd.DataFrame(
        {"agent": np.repeat(np.arange(AGENTS), TIMES), "time": np.tile(np.arange(TIMES), AGENTS),
         "menu": menu.ravel(), "action": chosen.ravel()}
    )  # fmt: skip
    axes = ("menu", "action")
    game = mfg.MeanFieldGame(
        states={"menu": range(MENUS)}, actions=range(OPTIONS), horizon=TIMES,
        transition=np.full((MENUS, OPTIONS, MENUS), 1 / MENUS), initial=np.full(MENUS, 1 / MENUS),
        features={"price": (axes, price), "quality": (axes, quality)},
    )  # fmt: skip
    panel = mfg.Trajectories.from_frame(
        table, state="menu", state_labels={"menu": range(MENUS)}, action_labels=range(OPTIONS)
    )
    return game, panel


def fitted(choices, program):
    game, panel = choices
    flow = np.full((TIMES, MENUS), 1 / MENUS)
    model = mfg.TrajectoryModel(game, program, panel, mean_field=flow)
    return mfg.mle(model, restarts=2, progressbar=False)


def test_a_latent_class_logit(choices):
    """The log likelihood of biogeme 3.3.2 and of lcl-choice 0.1.46 on this table."""

    def program(x):
        share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
        price = pyro.sample("price", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
        quality = pyro.sample("quality", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(share))
        return price[kind] * x.price + quality[kind] * x.quality

    assert fitted(choices, program).llf == pytest.approx(-4153.196321565823, abs=1e-6)


def test_a_mixed_logit(choices):
    """Near the simulated estimates of xlogit 0.2.7: 1,000 Halton draws give -4411.48 and these."""

    def program(x):
        price = pyro.sample("price", dist.Normal(0.0, 3.0))
        mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
        spread = pyro.sample("spread", dist.HalfNormal(2.0))
        with x.agents(nodes=40):
            quality = pyro.sample("quality", dist.Normal(mean, spread))
        return price * x.price + quality * x.quality

    fit = fitted(choices, program)
    assert fit.llf == pytest.approx(-4411.48, abs=0.2)
    np.testing.assert_allclose(fit.params, [-1.00172, 1.00090, 0.82898], atol=2e-3)
