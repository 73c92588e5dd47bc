"""Fits of unseen kinds in the reference world: two kinds of firms, who share one crowd."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from kinds_world import GAME, POOLED, TRUTH, model_of, panel, program

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.density.who_is_who import aligned, exchanges, relabelled


@pytest.fixture(scope="module")
def fitted():
    model = model_of(2, panel(0))
    return model, mfg.mle(model, restarts=3, random_seed=1, flow_bias=False, progressbar=False)


def test_the_truth_is_found(fitted):
    """Each parameter within three standard errors, from each start."""
    _, fit = fitted
    order = np.argsort(fit.params[["menu[0]", "menu[1]"]].to_numpy())
    assert fit.converged
    assert max(fit.attained) - min(fit.attained) < 0.01
    for name, true in (("menu", TRUTH["menu"]), ("share", TRUTH["share"])):
        names = [f"{name}[{k}]" for k in order]
        away = (fit.params[names] - true) / fit.bse[names]
        assert (away.abs() < 3).all()
    assert ((fit.params[["margin", "crowding"]] - [0.3, 2.0]).abs() < 3 * fit.bse[:2].max()).all()


def test_a_fit_says_who_is_who(fitted):
    """Its probabilities are those of Bayes' rule, its words those of its starts."""
    model, fit = fitted
    np.testing.assert_allclose(fit.kinds.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(fit.kinds, mfg.kinds.probabilities(model, fit), atol=1e-12)
    share = fit.params[["share[0]", "share[1]"]].to_numpy()
    np.testing.assert_allclose(fit.kinds.mean(), share, atol=1e-6)  # as at any maximum
    assert "4 of 4 starts reach this maximum" in repr(fit)
    assert f"{fit.kinds[0].sum():.1f}" in repr(fit)


def test_what_agents_of_each_kind_do(fitted):
    """Those whom a move costs more move less; decisions and states add up."""
    model, fit = fitted
    found = mfg.kinds.describe(model, fit)
    dear = int(fit.params[["menu[0]", "menu[1]"]].to_numpy().argmax())
    assert found.kinds.loc[dear, "none"] > found.kinds.loc[1 - dear, "none"] + 0.2
    assert found.kinds.loc[dear, "moves"] < found.kinds.loc[1 - dear, "moves"]
    np.testing.assert_allclose(found.kinds[["down", "none", "up"]].sum(axis=1), 1.0)
    np.testing.assert_allclose(found.states.sum(axis=1), 1.0)
    assert found.kinds["agents"].sum() == pytest.approx(model.panel.n_agents)
    assert found.coefficients is None


def test_equal_kinds_are_a_saddle_with_a_name(fitted):
    """A start with equal kinds stays there, and the fit says so; the default start is elsewhere."""
    model, fit = fitted
    alike = {"margin": 0.3, "crowding": 2.0, "share": [0.5, 0.5], "menu": [0.98, 0.98]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stuck = mfg.mle(model, init=alike, svi_steps=0, flow_bias=False, progressbar=False)
    assert any("this is the symmetric saddle" in m for m in stuck.messages)
    assert not stuck.converged
    one = mfg.mle(model_of(1, model.panel), flow_bias=False, progressbar=False)
    assert stuck.llf == pytest.approx(one.llf, abs=1e-4)
    assert fit.llf > one.llf + 100


def test_kinds_that_the_panel_does_not_have():
    """Of a world with one kind, two are twins or one is empty: the fit does not hide it."""
    world = panel(3, share=[1.0, 0.0])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fit = mfg.mle(model_of(2, world), restarts=2, flow_bias=False, progressbar=False)
    one = mfg.mle(model_of(1, world), flow_bias=False, progressbar=False)
    words = " ".join(fit.messages)
    assert fit.llf - one.llf < 6
    if fit.llf - one.llf < 1e-3:
        assert "do the same" in words or "is empty" in words or "edge" in words
        assert seen


def test_labels_are_exchangeable_and_draws_agree_on_them(fitted):
    """Draws whose labels were exchanged by hand come back; shared parameters stay."""
    model, fit = fitted
    density = density_of(model)
    (exchange,) = exchanges(density)
    assert exchange.axes == (("share", 0), ("menu", 0))
    rng = np.random.default_rng(0)
    rows = fit.params.to_numpy() + 0.01 * rng.standard_normal((40, len(fit.params)))
    rows[:, 2] = 1 - rows[:, 3]
    order = np.array([[0, 1], [1, 0]])[rng.integers(2, size=40)]
    theta = density.program.free_rows(relabelled(density, rows, exchange, order))
    back = density.constrained(aligned(density, theta))
    menu = np.sort(rows[:, 4:6], axis=1)
    np.testing.assert_allclose(np.sort(back[:, 4:6], axis=1), menu, atol=1e-9)
    assert len(np.unique(np.argmax(back[:, 4:6], axis=1))) == 1
    np.testing.assert_allclose(back[:, :2], rows[:, :2], atol=1e-9)


def test_priors_that_order_kinds_leave_nothing_to_exchange():
    def ordered(x):
        low = pyro.sample("low", dist.HalfNormal(2.0))
        more = pyro.sample("more", dist.HalfNormal(2.0))
        share = pyro.sample("share", dist.Beta(2.0, 2.0))
        cost = torch.stack([low, low + more])
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(torch.stack([share, 1 - share])))
        return -cost[kind] * (x.action != "none")

    model = mfg.TrajectoryModel(GAME, ordered, panel(0, n=50), mean_field=POOLED)
    assert exchanges(density_of(model)) == []


def sampled(model):
    with warnings.catch_warnings():  # of short chains
        warnings.simplefilter("ignore")
        return mfg.nuts(model, draws=200, tune=200, chains=2, random_seed=2, progressbar=False)


def test_draws_hold_kinds_and_scores_by_agent(fitted):
    """NUTS along the compiled density, its groups, and what is computed of them."""
    model, fit = fitted
    draws = sampled(model)
    menu = draws["posterior"]["menu"].mean(("chain", "draw")).values
    np.testing.assert_allclose(np.sort(menu), np.sort(fit.params[["menu[0]", "menu[1]"]]), atol=0.1)
    assert draws["kinds"]["probability"].dims == ("agent", "kind")
    np.testing.assert_allclose(draws["kinds"]["probability"].sum("kind"), 1.0, atol=1e-9)
    assert draws["log_likelihood"]["actions"].dims == ("chain", "draw", "agent")
    score = mfg.loo(draws)
    assert score.elpd_i.dims == ("agent",)
    assert score.elpd < fit.llf
    check = mfg.predictive_check(model, draws, draws=60, random_seed=0)
    assert (check.table["p"] > 0.01).all()
    one = model_of(1, model.panel)
    blind = mfg.predictive_check(one, sampled(one), draws=60, random_seed=0)
    assert blind.table.loc["spread of moves", "p"] < 0.05
    assert check.table.loc["spread of moves", "p"] > 0.05


def test_held_out_agents_and_bootstrap(fitted):
    model, fit = fitted
    found = mfg.checks.kfold(
        model, lambda m: mfg.mle(m, init=fit, flow_bias=False, progressbar=False), folds=3,
        random_seed=0, progressbar=False,
    )  # fmt: skip
    assert found.elpd_i.dims == ("agent",)
    assert found.elpd == pytest.approx(fit.llf, rel=0.01)
    drawn = mfg.bootstrap(model, replications=20, random_seed=0, progressbar=False).mean()
    away = np.abs(by_cost(drawn) - by_cost(fit.params))  # whose labels are those of another fit
    assert (away < 1.5 * fit.bse[away.index]).all()


def by_cost(values):
    """Return parameters by entry, the cheaper kind first."""
    first = int(values["menu[0]"] > values["menu[1]"])
    other = {f"{name}[{k}]": f"{name}[{k ^ first}]" for name in ("share", "menu") for k in (0, 1)}
    return values.rename(other).sort_index()


def test_jackknife_without_parts(fitted):
    """Refits without a part of the agents, along the flow of the rest."""
    model = mfg.TrajectoryModel(GAME, program(2), panel(0, n=200))
    with warnings.catch_warnings():  # of what counting so few agents costs
        warnings.simplefilter("ignore")
        fit = mfg.jackknife(model, parts=6)
    assert fit.bse.notna().all()
    assert fit.counted_flow is not None


def test_nodes_that_are_too_few_are_said():
    """Agents who are seen so long that each stands on one node."""

    def coarse(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        spread = pyro.sample("spread", dist.HalfNormal(2.0))
        with x.agents(nodes=3):
            cost = pyro.sample("cost", dist.Normal(mean, spread))
        return -cost * (x.action != "none")

    model = mfg.TrajectoryModel(GAME, coarse, panel(0), mean_field=POOLED)
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="fewer than 2 nodes"):
        fit = mfg.mle(model, flow_bias=False, progressbar=False)
    table = mfg.kinds.describe(model, fit).coefficients
    assert table.loc["cost", "median_nodes"] < 2
    with pytest.raises(ValueError, match="no categorical site"):
        mfg.kinds.probabilities(model, fit)


def test_panels_with_gaps_are_scored_by_agent():
    """Two trajectories of an agent share a kind: tests and scores add them up alike."""
    table = panel(0, n=200).to_frame()
    table = table[~((table["time"] == 5) & (table["agent"] % 3 == 0))]
    split = mfg.Trajectories.from_frame(
        table, state="price", state_labels={"price": range(4)},
        action_labels=["down", "none", "up"], gaps="split",
    )  # fmt: skip
    models = {k: model_of(k, split) for k in (1, 2)}
    fits = {k: mfg.mle(m, flow_bias=False, progressbar=False) for k, m in models.items()}
    found = mfg.hypotheses.vuong_test(models[2], fits[2], models[1], fits[1])
    agents = split.agents[np.unique(split.owner, return_index=True)[1]]
    logs = {k: mfg.log_likelihood(m, fits[k]) for k, m in models.items()}
    one = pd.Series(logs[1].values).groupby(split.owner).sum()
    gaps = logs[2].values - one.to_numpy()
    assert list(logs[2]["agent"].values) == [str(a) for a in agents]
    expected = gaps.sum() / (np.sqrt(len(gaps)) * gaps.std())
    assert found.n == 200
    assert found.statistic == pytest.approx(expected, rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = mfg.laplace(models[2], draws=200, random_seed=0, flow_bias=False)
        score, plain = mfg.loo(draws, by="agent", model=models[2]), mfg.loo(draws)
    assert score.elpd == pytest.approx(plain.elpd, rel=1e-9)
