"""What no panel identifies of agents whose kinds are not seen, said before any fit."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from kinds_world import GAME, POOLED, TRUTH, program

import mfgppl as mfg
from mfgppl.design.derivatives import program_along
from mfgppl.design.identification import ELSEWHERE
from mfgppl.design.rank_test import FOR_MEDIAN
from mfgppl.design.unseen_kinds import Histories

COIN = mfg.MeanFieldGame(
    states=["only"], actions=["a", "b"], horizon=6, transition=np.ones((1, 2, 1)), initial=[1.0]
)


def shares(n):
    return pyro.sample("share", dist.Dirichlet(torch.ones(n)))


def gaps(n_kinds, *, lapse=False):
    """Kinds with one gap in value between two actions, always the same."""

    def agent(x):
        share = shares(n_kinds)
        gap = pyro.sample("gap", dist.Normal(0.0, 1.0).expand([n_kinds]).to_event(1))
        rate = pyro.sample("lapse", dist.Beta(1.0, 5.0)) if lapse else None
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(share))
        return mfg.Preferences(gap[kind] * (x.action == "a"), lapse=rate)

    return agent


def test_the_reference_world_is_identified():
    found = mfg.identify(GAME, program(2), mean_field=POOLED)
    assert found.identified
    assert found.rank == 5
    assert found.reasons == ()
    assert mfg.identify(GAME, program(2), parameters=TRUTH).identified


@pytest.mark.parametrize(("horizon", "rank"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 5)])
def test_more_kinds_than_decisions_allow(horizon, rank):
    """T coins show the T moments of a law on three points, which has five numbers."""
    found = mfg.identify(COIN.replace(horizon=horizon), gaps(3))
    assert found.rank == rank
    assert found.identified == (rank == 5)
    if horizon == 1:
        assert "decides once" in repr(found)
    if 1 < horizon < 5:
        assert "Kasahara and Shimotsu" in repr(found)
    assert not found.identified or not found.reasons


def test_the_further_draws_are_other_points():
    """A direction that is flat at the first point is looked at anew at each of the others."""
    prior = program_along(COIN, gaps(3))
    first = Histories(prior).middle()
    for k in range(ELSEWHERE):
        assert not np.allclose(prior.draw(FOR_MEDIAN + k), first)


def test_kinds_that_no_term_reads():
    def unread(x):
        share, pay = shares(2), pyro.sample("pay", dist.Normal(0.0, 1.0))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(share))
        return pay * (x.action == "up") + 0.0 * kind

    found = mfg.identify(GAME, unread, mean_field=POOLED)
    assert not found.known["share[0]"]
    assert "no choice depends on 'kind'" in repr(found)


def test_kinds_beside_lapses_with_one_gap():
    """Two choice probabilities and a share are seen; two gaps, a share and a rate are asked for."""
    assert mfg.identify(COIN, gaps(2)).identified
    found = mfg.identify(COIN, gaps(2, lapse=True))
    assert found.rank == 3
    assert "lapse" in str(found.directions.index[0])
    assert found.known[["share[0]", "share[1]"]].all()
    assert len(found.reasons) == 1
    assert "these are 3 numbers, fewer than the 4 parameters" in repr(found)


def test_lapses_beside_kinds_whose_gaps_differ_by_period_need_no_reason():
    """Where the gap is another one in some period, choice probabilities are enough."""

    def agent(x):
        share = shares(2)
        gap = pyro.sample("gap", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        late = pyro.sample("late", dist.Normal(0.0, 1.0))
        rate = pyro.sample("lapse", dist.Beta(1.0, 5.0))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(share))
        value = gap[kind] + late * (x.time > 2)
        return mfg.Preferences(value * (x.action == "a"), lapse=rate)

    at = {"share": [0.4, 0.6], "gap": [-1.0, 1.0], "lapse": 0.1}
    for late in (0.7, 0.0):  # at 0.0 all decisions are alike by coincidence
        assert mfg.identify(COIN, agent, parameters=at | {"late": late}).reasons == ()


def test_a_coefficient_on_what_does_not_vary():
    def constant(x):
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
        with x.agents:
            taste = pyro.sample("taste", dist.Normal(0.0, spread))
        return taste + pay * x.price

    found = mfg.identify(GAME, constant, mean_field=POOLED)
    assert list(found.directions.index) == ["spread"]
    assert "no choice depends on 'taste'" in repr(found)


def test_a_discount_that_changes_no_choice():
    """Its effect on the table is rounding, which is no evidence, before a fit or after."""
    game = mfg.MeanFieldGame(
        states={"s": [0, 1, 2]}, actions=["stay", "move"], horizon=5, initial=np.ones(3) / 3,
        transition=np.random.default_rng(0).dirichlet(np.ones(3), size=(3, 2)),
    )  # fmt: skip

    def agent(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 2.0))
        discount = pyro.sample("discount", dist.Beta(5.0, 5.0))
        return mfg.Preferences(pay * (x.action != "stay"), discount=discount)

    assert list(mfg.identify(game, agent).directions.index) == ["discount"]
    played = mfg.solve_equilibrium(game, agent, parameters={"pay": -0.5, "discount": 0.7}).value
    panel = mfg.simulate(game, played.policy, played.mean_field, n_agents=300, random_seed=0)
    model = mfg.TrajectoryModel(game, agent, panel)
    with pytest.warns(mfg.exceptions.IdentificationWarning, match="do not identify discount"):
        fit = mfg.mle(model, progressbar=False)
    assert fit.converged
    assert np.isnan(fit.bse["discount"])
    assert fit.bse["pay"] < 0.1
    with pytest.warns(mfg.exceptions.IdentificationWarning, match="discount; its posterior is"):
        mfg.laplace(model, draws=200, random_seed=0)


def test_a_temperature_beside_a_free_scale_is_named_with_draws():
    """The ridge is curved: flat at the mean of the draws alone, and only the prior ends it."""
    game = mfg.MeanFieldGame(
        states={"s": [0, 1, 2]}, actions=["stay", "move"], horizon=5, initial=np.ones(3) / 3,
        transition=np.random.default_rng(0).dirichlet(np.ones(3), size=(3, 2)),
    )  # fmt: skip

    def agent(x, free=True):
        cost = pyro.sample("cost", dist.Normal(0.0, 2.0))
        worth = pyro.sample("worth", dist.Normal(0.0, 2.0))
        noise = pyro.sample("noise", dist.LogNormal(0.0, 0.5)) if free else 0.8
        return mfg.Preferences(cost * (x.action != "stay") + worth * x.s, temperature=noise)

    truth = {"cost": -0.5, "worth": 0.4, "noise": 0.8}
    played = mfg.solve_equilibrium(game, agent, parameters=truth).value
    panel = mfg.simulate(game, played.policy, played.mean_field, n_agents=500, random_seed=0)
    model = mfg.TrajectoryModel(game, agent, panel)
    with pytest.warns(mfg.exceptions.IdentificationWarning, match="at the mean of the draws"):
        draws = mfg.laplace(model, draws=300, random_seed=0)
    (message,) = [m for m in draws.attrs["warnings"] if "do not identify" in m]
    assert all(name in message for name in truth)
    anchored = mfg.TrajectoryModel(game, lambda x: agent(x, free=False), panel)
    assert mfg.laplace(anchored, draws=300, random_seed=0).attrs["warnings"] == []
