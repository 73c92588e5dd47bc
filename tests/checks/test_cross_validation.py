"""Scores of what was not fitted, against closed forms, quadrature and refits by hand."""

import functools
import inspect
import math
import warnings

import arviz_stats
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.special
import xarray as xr
from games import ROADS_TRUTH, avoid_crowds, played, two_roads

import mfgppl as mfg
from mfgppl.checks.cross_validation import kfold, leave_future_out
from mfgppl.checks.loo import loo
from mfgppl.checks.model_comparison import compare_models
from mfgppl.models import market

FIT = functools.partial(mfg.mle, svi_steps=0, progressbar=False)
QUIET = {"progressbar": False}
TIMES, AGENTS = 6, 24


def taste(x):
    """A coin with log odds `odds`, thrown by all at all times."""
    odds = pyro.sample("odds", dist.Normal(0.0, 2.0))
    return odds * (x.action == "yes")


@functools.cache
def coins(**changes):
    """Agents of eight cities who say yes with a chance of their own, seen from time 10 on."""
    rng = np.random.default_rng(4)
    rows = []
    for agent in range(AGENTS):
        for t in range(agent % 3, TIMES):
            says = "yes" if rng.random() < 0.3 + 0.05 * (agent % 8) else "no"
            rows.append((agent, "abcdefgh"[agent % 8], 10 + t, "only", says))
    frame = pd.DataFrame(rows, columns=["agent", "city", "time", "state", "action"])
    game = mfg.MeanFieldGame(
        states=["only"], actions=["no", "yes"], horizon=TIMES, transition=np.ones((1, 2, 1)),
        initial=[1.0],
    )  # fmt: skip
    panel = mfg.Trajectories.from_frame(frame, action_labels=["no", "yes"], groups=["city"])
    return mfg.TrajectoryModel(game, taste, panel, **changes), frame


@functools.cache
def said(by="agent"):
    """Return how often each unit said yes, and of how often, in the order of its name."""
    frame = coins()[1].assign(yes=lambda f: f["action"] == "yes")
    return frame.groupby(by)["yes"].agg(["sum", "size"])


@functools.cache
def draws():
    return mfg.laplace(coins()[0], draws=4000, random_seed=1, progressbar=False)


def log_score(yes, n, share):
    return yes * np.log(share) + (n - yes) * np.log(1 - share)


def exact(part):
    """Return evenly spaced quantiles of the posterior of a part, by quadrature, as draws."""
    yes, n = part.panel.counts.actions[:, 0, 1].sum(), part.panel.n_decisions
    odds = np.linspace(-6, 6, 6001)
    log = log_score(yes, n, scipy.special.expit(odds)) - 0.5 * (odds / 2.0) ** 2
    mass = np.exp(log - log.max())
    drawn = np.interp(
        (np.arange(4000) + 0.5) / 4000, (mass.cumsum() - 0.5 * mass) / mass.sum(), odds
    )[None]
    return xr.DataTree.from_dict({"posterior": xr.Dataset({"odds": (("chain", "draw"), drawn)})})


def left_out_exactly(by):
    """Return `log p(y_j | y_-j)` of each unit by quadrature over the log odds."""
    odds = np.linspace(-6, 6, 6001)
    share = scipy.special.expit(odds)
    prior = -0.5 * (odds / 2.0) ** 2
    units = said(by)
    whole = log_score(units["sum"].sum(), units["size"].sum(), share) + prior
    found = [
        scipy.special.logsumexp(whole)
        - scipy.special.logsumexp(whole - log_score(row["sum"], row["size"], share))
        for _, row in units.iterrows()
    ]
    return pd.Series(found, [str(k) for k in units.index])


@pytest.mark.parametrize("by", ["trajectory", "agent", "city"])
def test_loo_equals_quadrature(by):
    """Of trajectories, and of groups that are left out whole."""
    exact = left_out_exactly("city" if by == "city" else "agent")
    found = loo(draws(), by=by, model=coins()[0])
    np.testing.assert_allclose(found.elpd_i.to_series()[exact.index], exact, atol=0.03)
    assert found.elpd_i.dims == (by,)
    assert math.isclose(found.elpd, exact.sum(), abs_tol=0.15)


def test_loo_of_nuts_equals_quadrature():
    sampled = mfg.nuts(coins()[0], draws=500, tune=300, chains=4, random_seed=1, cores=1,
                       progressbar=False)  # fmt: skip
    exact = left_out_exactly("agent")
    found = loo(sampled)
    assert not found.approx_posterior
    np.testing.assert_allclose(found.elpd_i.to_series()[exact.index], exact, atol=0.03)


def test_a_large_pareto_shape_is_refitted():
    """Scores of a biased posterior, for which no weights help, are replaced by those of fits."""
    model, _ = coins()
    biased = draws().copy(deep=True)
    odds = biased["posterior"]["odds"].values
    shift = 1.5
    biased["posterior"]["odds"].values[:] = odds + shift
    units = said()
    share = scipy.special.expit(odds + shift)[..., None]
    values = log_score(units["sum"].to_numpy(), units["size"].to_numpy(), share)
    biased["log_likelihood"]["actions"].values[:] = values
    whole = values.sum(-1) - 0.5 * ((odds + shift) / 2.0) ** 2
    biased["sample_stats"]["lp"].values[:] = whole
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="give `refit`, or use kfold"):
        bad = loo(biased)
    n_bad = int((bad.pareto_k > bad.good_k).sum())
    assert n_bad > 0
    fits = []

    def refit(part):
        fits.append(part)
        return exact(part)

    found = loo(biased, model=model, refit=refit)
    assert len(fits) == n_bad
    scores = left_out_exactly("agent").to_numpy()
    again = (found.pareto_k == 0).values
    assert again.sum() == n_bad
    np.testing.assert_allclose(found.elpd_i.values[again], scores[again], atol=1e-3)
    assert math.isclose(found.elpd, float(found.elpd_i.sum()))


@pytest.mark.parametrize(("by", "folds"), [("trajectory", AGENTS), ("agent", 5), ("city", 8)])
def test_kfold_equals_the_closed_form_of_the_share_elsewhere(by, folds):
    """With one coin the estimate without a fold is the share of yes in the others."""
    units = said("city" if by == "city" else "agent")
    found = kfold(coins()[0], FIT, folds=folds, by=by, random_seed=3, **QUIET)
    score = found.elpd_i.to_series()
    rng = np.random.default_rng(3)
    expected = {}
    for part in np.array_split(rng.permutation(len(units)), folds):
        others = units.drop(index=units.index[part]).sum()
        for k in part:
            yes, n = units.iloc[k]
            expected[str(units.index[k])] = log_score(yes, n, others["sum"] / others["size"])
    np.testing.assert_allclose(score[list(expected)], list(expected.values()), rtol=1e-7)
    assert math.isclose(found.se, math.sqrt(len(score) * np.var(score)))
    assert f"{folds}-fold" in str(found)


def test_kfold_leaving_out_each_agrees_with_loo():
    one = kfold(coins()[0], exact, folds=AGENTS, random_seed=1, **QUIET)
    other = loo(draws())
    assert abs(one.elpd - other.elpd) < 0.2
    np.testing.assert_allclose(one.elpd_i, other.elpd_i, atol=0.03)
    np.testing.assert_allclose(one.elpd_i, left_out_exactly("agent"), atol=1e-3)


def given(part):
    """Return draws that are made up."""
    odds = np.array([[-1.0, 0.0], [0.5, 1.0]])
    return xr.DataTree.from_dict({"posterior": xr.Dataset({"odds": (("chain", "draw"), odds)})})


def test_draws_are_scored_by_the_log_of_their_mean_likelihood():
    units = said("city")
    found = kfold(coins()[0], given, folds=2, by="city", random_seed=1, **QUIET)
    share = scipy.special.expit(np.array([-1.0, 0.0, 0.5, 1.0]))
    for city, (yes, n) in units.iterrows():
        expected = np.log(np.mean(share**yes * (1 - share) ** (n - yes)))
        assert math.isclose(float(found.elpd_i.sel(city=city)), expected)


def test_kfold_takes_the_panels_flow_or_that_of_the_training_part():
    panel = played(two_roads(), avoid_crowds, ROADS_TRUTH, 40, 2)
    model = mfg.TrajectoryModel(two_roads(), avoid_crowds, panel)
    seen = []

    def fit(part):
        seen.append((part.mean_field.numpy(), part.panel.mean_field()))
        return ROADS_TRUTH

    by_panel = kfold(model, fit, folds=2, random_seed=1, **QUIET)
    assert all((flow == model.mean_field.numpy()).all() for flow, _ in seen)
    whole = mfg.log_likelihood(model, ROADS_TRUTH)
    np.testing.assert_allclose(by_panel.elpd_i.values, whole.values)
    seen.clear()
    by_part = kfold(model, fit, folds=2, mean_field="empirical", random_seed=1, **QUIET)
    assert all((flow == own).all() for flow, own in seen)
    assert not np.allclose(by_part.elpd_i, by_panel.elpd_i)
    with pytest.raises(ValueError, match="of one kind"):
        compare_models({"a": by_panel, "b": by_part})


def refusing(refused):
    """Return a fit that refuses models by their number of agents."""

    def fit(part):
        if refused(part.panel.n_trajectories):
            raise ValueError("too few for a fit\nof theirs")
        return FIT(part)

    return fit


def test_folds_without_a_fit_are_left_out_and_told():
    """Twenty-four agents in five folds leave 19 or 20 to fit."""
    with pytest.warns(
        mfg.exceptions.ConvergenceWarning,
        match="4 of 5 folds cannot be fitted and are left out, .*: 4 x too few for a fit$",
    ):
        found = kfold(coins()[0], refusing(lambda n: n == 19), random_seed=1, **QUIET)
    assert found.elpd_i.attrs["n_failed"] == 4
    assert found.elpd_i.sizes == {"trajectory": 4}
    assert np.isfinite(found.elpd_i).all()
    with pytest.raises(mfg.exceptions.ConvergenceError, match="none of the 5 folds can be fitted"):
        kfold(coins()[0], refusing(lambda n: True), random_seed=1, **QUIET)


@pytest.mark.slow
def test_folds_do_not_depend_on_the_workers():
    game = market.game().replace(horizon=4, features={})
    panel = played(game, market.reward, market.TRUTH, 40, 1)
    model = mfg.TrajectoryModel(game, market.reward, panel)
    fit = functools.partial(mfg.map_estimate, space="unconstrained", svi_steps=0, progressbar=False)
    one, two = (kfold(model, fit, folds=2, random_seed=1, n_jobs=n, **QUIET) for n in (1, 2))
    np.testing.assert_allclose(one.elpd_i, two.elpd_i)


def test_the_energy_likelihood_is_scored_by_itself():
    panel = played(two_roads(), avoid_crowds, ROADS_TRUTH, 30, 2)
    model = mfg.TrajectoryModel(two_roads(), avoid_crowds, panel, likelihood="energy")
    found = kfold(model, lambda part: ROADS_TRUTH, folds=3, random_seed=1, **QUIET)
    np.testing.assert_allclose(found.elpd_i, mfg.log_likelihood(model, ROADS_TRUTH))


@pytest.mark.parametrize("step", [1, 2, 5])
def test_leave_future_out_equals_a_sum_by_hand(step):
    """Decisions are scored by the share of yes before the block that they are in."""
    model, frame = coins()
    found = leave_future_out(model, FIT, start=12, step=step, **QUIET)
    expected = dict.fromkeys(map(str, range(AGENTS)), 0.0)
    for begin in range(12, 16, step):
        share = (frame[frame["time"] < begin]["action"] == "yes").mean()
        block = frame[(frame["time"] >= begin) & (frame["time"] < begin + step)]
        for row in block.itertuples():
            expected[str(row.agent)] += np.log(share if row.action == "yes" else 1 - share)
    score = found.elpd_i.to_series()
    np.testing.assert_allclose(score[list(expected)], list(expected.values()), rtol=1e-7)
    assert found.n_folds == -(-4 // step)


def test_leave_future_out_weighs_draws_by_block():
    found = leave_future_out(coins()[0], given, start=13, step=2, **QUIET)
    share = scipy.special.expit(np.array([-1.0, 0.0, 0.5, 1.0]))
    frame = coins()[1].query("agent == 0")
    expected = 0.0
    for begin in (13, 15):
        block = frame[(frame["time"] >= begin) & (frame["time"] < begin + 2)]["action"] == "yes"
        expected += np.log(np.mean([np.prod(np.where(block, p, 1 - p)) for p in share]))
    assert math.isclose(float(found.elpd_i.sel(trajectory="0")), expected)
    assert found.n_samples == 4


def test_agents_without_later_decisions_have_no_score():
    frame = coins()[1]
    early = frame[(frame["agent"] != 7) | (frame["time"] < 13)]
    panel = mfg.Trajectories.from_frame(early, action_labels=["no", "yes"])
    model = mfg.TrajectoryModel(coins()[0].game, taste, panel)
    found = leave_future_out(model, FIT, start=13, **QUIET)
    assert sorted(map(int, found.elpd_i["trajectory"].values)) == sorted({*range(AGENTS)} - {7})


def biased_coin(x):
    odds = pyro.sample("odds", dist.Normal(0.0, 2.0))
    return (odds + 0.6 * (x.time > 1)) * (x.action == "yes")


def test_models_are_compared_by_arviz():
    """Weights, differences and standard errors are those of arviz_stats.compare."""
    other = mfg.TrajectoryModel(coins()[0].game, biased_coin, coins()[0].panel)
    results = {
        "same": kfold(coins()[0], FIT, random_seed=1, **QUIET),
        "drift": kfold(other, FIT, random_seed=1, **QUIET),
    }
    table = compare_models(results)
    assert "..." not in repr(table)
    assert all(column in repr(table) for column in table.columns)
    with warnings.catch_warnings():  # its own use of pandas
        warnings.simplefilter("ignore", DeprecationWarning)
        newer = "round_to" in inspect.signature(arviz_stats.compare).parameters
        expected = arviz_stats.compare(results, **({"round_to": "none"} if newer else {}))
    assert list(table.index) == list(expected.index)
    for column in ("elpd", "elpd_diff", "weight", "se", "dse"):
        np.testing.assert_allclose(table[column], expected[column], atol=1e-4)
    gap = results["same"].elpd_i.values - results["drift"].elpd_i.values
    assert math.isclose(table["dse"].iloc[1], math.sqrt(len(gap) * np.var(gap)))


def test_weights_of_long_trajectories_do_not_underflow():
    """Scores of groups may be thousands of nats below zero, where exp() is zero."""
    rng = np.random.default_rng(1)
    small = {k: rng.normal(size=30) for k in "ab"}

    def result(values):
        like = kfold(coins()[0], given, folds=2, by="city", random_seed=1, **QUIET)
        like.elpd_i = xr.DataArray(values, {"city": np.arange(30)}, ("city",))
        like.elpd, like.se = values.sum(), math.sqrt(30 * values.var())
        like.n_data_points = 30
        return like

    near = compare_models({k: result(v) for k, v in small.items()})
    far = compare_models({k: result(v - 5000.0) for k, v in small.items()})
    np.testing.assert_allclose(near["weight"], far["weight"], atol=1e-6)
    np.testing.assert_allclose(far["elpd"], near["elpd"] - 150_000)
    assert (far["weight"] > 0.1).all()


def test_draws_are_compared_by_loo():
    other = mfg.TrajectoryModel(coins()[0].game, biased_coin, coins()[0].panel)
    drift = mfg.laplace(other, draws=2000, random_seed=1, progressbar=False)
    table = compare_models({"same": draws(), "drift": loo(drift)})
    assert math.isclose(table.loc["same", "elpd"], loo(draws()).elpd)


def counted():
    """Return the coins without their agents."""
    model = coins()[0]
    return model.with_panel(mfg.CountedPanel.from_trajectories(model.panel))


def coupled():
    return coins()[0].along("equilibrium")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m, d: loo(m), TypeError, "`draws` must be a DataTree"),
        (lambda m, d: loo(given(m)), ValueError, "group log_likelihood"),
        (lambda m, d: loo(d, by="city"), ValueError, "needs the fitted `model`"),
        (lambda m, d: loo(d, by="town", model=m), ValueError, "`by` must be one of.*'town'"),
        (lambda m, d: loo(d, model=m.with_panel(m.panel.subset(np.arange(5)))), ValueError,
         "of 24 trajectories; the model has 5"),
        (lambda m, d: kfold("m", FIT), TypeError, "`model` must be a TrajectoryModel; got str"),
        (lambda m, d: kfold(counted(), FIT), ValueError, "kfold needs the trajectories one by one"),
        (lambda m, d: kfold(m, FIT, by="town"), ValueError, "one of 'trajectory', 'agent', 'city'"),
        (lambda m, d: kfold(m.with_panel(m.panel.subset([0])), FIT), ValueError,
         "kfold leaves out one trajectory of several"),
        (lambda m, d: kfold(m, FIT, folds=1, random_seed=1), ValueError, "`folds` must be at le"),
        (lambda m, d: kfold(m, FIT, folds=2.5), TypeError, "`folds` must be an integer; got 2.5"),
        (lambda m, d: kfold(m, FIT, by="city", folds=9, random_seed=1), ValueError, "at most 8"),
        (lambda m, d: kfold(m, FIT, mean_field="mine"), ValueError, "`mean_field` must be one"),
        (lambda m, d: kfold(coupled(), FIT, mean_field="known"), ValueError,
         "coupled model solves for its own; use 'empirical'"),
        (lambda m, d: kfold(coins(likelihood="energy")[0], FIT, mean_field="equilibrium"),
         ValueError, "needs likelihood='causal'"),
        (lambda m, d: kfold(m, FIT, random_seed=-1), ValueError, "`random_seed` must be at least"),
        (lambda m, d: kfold(m, FIT, n_jobs=0), ValueError, "`n_jobs` must be a number of workers"),
        (lambda m, d: kfold(m, FIT, n_jobs="two"), TypeError, "`n_jobs` must be an integer"),
        (lambda m, d: kfold(m, FIT, progressbar="no"), TypeError, "`progressbar` must be True or"),
        (lambda m, d: kfold(m, "mle", random_seed=1), TypeError, "`fit_method` must be a function"),
        (lambda m, d: kfold(m, dict, random_seed=1), TypeError, "as mle; got the class dict"),
        (lambda m, d: kfold(m, lambda p: 3, random_seed=1), TypeError, "`fit` must be posterior"),
        (lambda m, d: kfold(m, FIT, seed=1), TypeError, "did you mean `random_seed`"),
        (lambda m, d: leave_future_out(m, FIT, start=10), ValueError, "at most 15; got 10"),
        (lambda m, d: leave_future_out(m, FIT, start=16), ValueError, "at most 15; got 16"),
        (lambda m, d: leave_future_out(m, FIT, start=12, step=0), ValueError, "`step`"),
        (lambda m, d: leave_future_out(coins(likelihood="energy")[0], FIT, start=12), ValueError,
         "needs likelihood='causal'"),
        (lambda m, d: compare_models([loo(d)]), TypeError, "`results` must be a mapping"),
        (lambda m, d: compare_models({"a": loo(d)}), ValueError, "at least two"),
        (lambda m, d: compare_models({"a": loo(d), "b": 3}), TypeError, "'b': score it by"),
        (lambda m, d: compare_models({"a": loo(d), "b": loo(d, by="city", model=m)}), ValueError,
         "must score the same"),
        (lambda m, d: compare_models({"a": loo(d), "b": leave_future_out(m, FIT, start=15)}),
         ValueError, "of one kind"),
        (lambda m, d: compare_models({"a": loo(d), "b": loo(d)}, method="aic"), ValueError,
         "`method` must be one of"),
    ],
)  # fmt: skip
def test_wrong_inputs(call, error, words):
    with pytest.raises(error, match=words):
        call(coins()[0], draws())


def test_a_stationary_game_has_no_future():
    game = two_roads(horizon=None, discount=0.9)
    model = mfg.TrajectoryModel(game, avoid_crowds, played(game, avoid_crowds, ROADS_TRUTH, 9, 1))
    with pytest.raises(ValueError, match="a game with a horizon"):
        leave_future_out(model, FIT, start=2)
