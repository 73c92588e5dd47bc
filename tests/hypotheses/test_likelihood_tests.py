"""Wald, likelihood ratio, score and Vuong tests against formulas by hand, and their size."""

import dataclasses
import functools
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import mfgppl as mfg
from mfgppl.density.of_model import redrawn
from mfgppl.hypotheses.restrictions import parse_restrictions
from mfgppl.models import market, pricing

FAST = {"svi_steps": 0, "progressbar": False, "flow_bias": False}
KINDS = ["observed", "opg", "cluster"]
N_FEW, N_MANY = 6, 200  # simulated panels
FIRMS, MONTHS = 400, 6  # in each


@functools.cache
def world(months=24):
    """The market over so many months and its equilibrium at the truth."""
    game = market.game().replace(horizon=months, features={})
    solved = mfg.solve_equilibrium(game, market.reward, parameters=market.TRUTH, throw=True)
    return game, solved.value


def wider(x):
    """The market's reward with two terms whose true weights are zero."""
    top, late = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in ("top", "late"))
    return market.reward(x) + top * (x.price == 3) + late * (x.action == "raise") * x.time / 24


def panel_of(n_firms, seed, months=24):
    """Return a panel drawn at the truth."""
    game, truth = world(months)
    return mfg.simulate(game, truth.policy, truth.mean_field, n_agents=n_firms, random_seed=seed)


@functools.cache
def first(n_firms, reward, months):
    """Return the model of the first panel, along the known flow, compiled for all."""
    game, truth = world(months)
    panel = panel_of(n_firms, 1, months)
    return mfg.TrajectoryModel(game, reward, panel, mean_field=truth.mean_field)


def drawn(n_firms, seed, reward, months=24):
    """Return a model of a panel drawn at the truth, along the known flow."""
    return redrawn(first(n_firms, reward, months), panel_of(n_firms, seed, months))


def fitted(model, **options):
    """Fit quietly: a positive weight may end at its edge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        return mfg.mle(model, **FAST, **options)


@pytest.fixture(scope="module")
def large():
    """A large panel: the full model, its fit and the restricted fit."""
    full, narrow = drawn(4000, 3, wider), drawn(4000, 3, market.reward)
    return full, fitted(full), fitted(narrow)


@pytest.fixture(scope="module")
def prices():
    """Models and fits of the bundled panel, by reward."""
    models = {k: pricing.model(name=k) for k in pricing.REWARDS}
    return models, {k: mfg.mle(m, **FAST) for k, m in models.items()}


@pytest.fixture(scope="module")
def many_ps():
    """The p of each test on many panels drawn under the hypothesis."""
    return drawn_ps(N_MANY)


def collinear_fit():
    """A fit that identifies a + 2 b and neither of them."""
    game = mfg.MeanFieldGame(
        states=["only"], actions=["a", "b"], horizon=2, transition=np.ones((1, 2, 1)), initial=[1.0]
    )
    rows = [(k, t, "only", "a" if k < 30 else "b") for k in range(100) for t in (0, 1)]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    panel = mfg.Trajectories.from_frame(frame, action_labels=["a", "b"])

    def reward(x):
        a, b = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in "ab")
        return (a + 2 * b) * (x.action == "a")

    model = mfg.TrajectoryModel(game, reward, panel)
    return model, fitted(model)


# Restrictions


@pytest.mark.parametrize(
    ("text", "matrix", "values"),
    [
        ("a = 0", [[1, 0, 0]], [0]),
        ("a = 1, b = w[0, 1]", [[1, 0, 0], [0, 1, -1]], [1, 0]),
        ("2 a - .5*b = 3 - a", [[3, -0.5, 0]], [3]),
        ("-a + 1 = 2e-1 + w[0, 1] * 2", [[-1, 0, -2]], [-0.8]),
        ("a = b = w[0, 1]", [[1, -1, 0], [0, 1, -1]], [0, 0]),
        ("0 = a--b", [[-1, -1, 0]], [0]),
    ],
)
def test_text_becomes_a_matrix(text, matrix, values):
    """Sums of numbers times names on both sides, separated by commas."""
    found, right = parse_restrictions(text, ["a", "b", "w[0, 1]"])
    np.testing.assert_allclose(found, matrix)
    np.testing.assert_allclose(right, values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gap = 0", r"'gap' .* did you mean `gap2`"),
        ("cut", "lacks '='"),
        ("cut =", "empty side"),
        ("cut raise = 0", "a term is a number"),
        ("2 = 3", "without a parameter"),
        ("cut - = 0", "sign without a term"),
        ("cut = 0, cut = 1", "contradict"),
        ("cut / 2 = 0", "'/'"),
    ],
)
def test_bad_restrictions_say_what_is_wrong(prices, text, words):
    """The message names the argument and the part of the text."""
    with pytest.raises(ValueError, match=words):
        mfg.hypotheses.wald_test(prices[1]["both"], text)


# Wald


@pytest.mark.parametrize("kind", KINDS)
def test_one_restriction_is_z_squared(prices, kind):
    """For one parameter the statistic is z^2 and p that of the summary."""
    fit = prices[1]["both"]
    row = fit.summary(kind=kind).loc["level2"]
    test = mfg.hypotheses.wald_test(fit, "level2 = 0", kind=kind)
    assert test.df == 1
    assert test.statistic == pytest.approx(row["z"] ** 2, rel=1e-8)
    assert test.p == pytest.approx(row["p"], rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_wald_equals_the_formula(prices, kind):
    """Text, matrix and the formula with an explicit inverse agree; redundant rows do not count."""
    fit = prices[1]["both"]
    matrix = np.array([[1.0, 1, 0, 0, 0], [0, 0, 2, -1, 0]])
    gap = matrix @ fit.params.to_numpy() - [0.1, 0.2]
    middle = np.linalg.inv(matrix @ fit.cov_params(kind).to_numpy() @ matrix.T)
    for test in (
        mfg.hypotheses.wald_test(fit, "cut + raise = 0.1, 2 level - level2 = 0.2", kind=kind),
        mfg.hypotheses.wald_test(fit, matrix, [0.1, 0.2], kind=kind),
        mfg.hypotheses.wald_test(
            fit, np.vstack([matrix, matrix.sum(0)]), [0.1, 0.2, 0.3], kind=kind
        ),
    ):
        assert test.df == 2
        assert test.statistic == pytest.approx(gap @ middle @ gap, rel=1e-8)
        law = scipy.stats.chi2(2)
        if kind == "cluster":  # Hotelling's law of 534 clusters in two dimensions
            law = scipy.stats.f(2, 532)
        scaled = test.statistic * (532 / (533 * 2) if kind == "cluster" else 1.0)
        assert test.p == pytest.approx(law.sf(scaled), rel=1e-8)


def test_only_known_combinations_are_tested():
    """`a + 2 b` is identified and has the logit's error; `a` alone is refused by name."""
    _, fit = collinear_fit()
    expected = np.log(3 / 7) ** 2 * 200 * 0.21
    assert mfg.hypotheses.wald_test(fit, "a + 2 b = 0").statistic == pytest.approx(
        expected, rel=1e-5
    )
    with pytest.raises(ValueError, match=r"moves along a - 0\.5 b, which the data do not identify"):
        mfg.hypotheses.wald_test(fit, "a = 0")


def test_wald_refuses_edges_modes_and_shapes(prices):
    """What has no covariance is refused in words."""
    fit = prices[1]["base"]
    with pytest.raises(ValueError, match=r"shape \(M, 4\)"):
        mfg.hypotheses.wald_test(fit, np.eye(3))
    with pytest.raises(ValueError, match="`kind` must be one of"):
        mfg.hypotheses.wald_test(fit, "cut = 0", kind="robust")
    with pytest.raises(ValueError, match="`values` belong to a matrix"):
        mfg.hypotheses.wald_test(fit, "cut = 0", 1.0)
    with pytest.raises(ValueError, match="whose prior enters"):
        mfg.hypotheses.wald_test(mfg.map_estimate(prices[0]["base"], **FAST), "cut = 0")
    with pytest.raises(TypeError, match="must be a PointEstimate"):
        mfg.hypotheses.wald_test({"cut": 0.5}, "cut = 0")

    def backwards(x):
        return pyro.sample("w", dist.HalfNormal(1.0)) * -x.price * (x.action == "raise")

    edge = fitted(drawn(200, 1, backwards))
    with pytest.raises(ValueError, match="edge of its support"):
        mfg.hypotheses.wald_test(edge, "w = 0")


# Agreement and size


def test_three_tests_agree_on_a_large_panel(large):
    """Under the hypothesis the statistics differ by far less than their spread."""
    full, fit, restricted = large
    ratio = mfg.hypotheses.likelihood_ratio_test(restricted, fit)
    assert ratio.df == 2
    assert ratio.statistic == pytest.approx(2 * (fit.llf - restricted.llf), abs=1e-9)
    for kind in KINDS:
        wald = mfg.hypotheses.wald_test(fit, "top = 0, late = 0", kind=kind)
        score = mfg.hypotheses.score_test(full, {"top": 0.0, "late": 0.0}, kind=kind)
        assert wald.df == score.df == 2
        assert wald.statistic == pytest.approx(ratio.statistic, rel=0.05, abs=0.1)
        assert score.statistic == pytest.approx(ratio.statistic, rel=0.05, abs=0.1)


def ps_of(seed):
    """Return the p of each test on one small panel drawn under the hypothesis."""
    full, narrow = (drawn(FIRMS, seed, r, MONTHS) for r in (wider, market.reward))
    zero = {"top": 0.0, "late": 0.0}
    fit = fitted(full, init=market.TRUTH | zero)
    restricted = fitted(narrow, init=market.TRUTH)
    start = restricted.params.to_dict()
    return {
        "ratio": mfg.hypotheses.likelihood_ratio_test(restricted, fit).p,
        "wald": mfg.hypotheses.wald_test(fit, "top = 0, late = 0").p,
        "wald cluster": mfg.hypotheses.wald_test(fit, "top = 0, late = 0", kind="cluster").p,
        "score": mfg.hypotheses.score_test(full, zero, init=start).p,
        "score opg": mfg.hypotheses.score_test(full, zero, init=start, kind="opg").p,
        "variance": mfg.hypotheses.vuong_test(
            full, fit, narrow, restricted, simulations=2000
        ).variance_p,
    }


def drawn_ps(n):
    """Return a row of p a panel."""
    return pd.DataFrame([ps_of(seed) for seed in range(n)])


def test_ps_are_uniform_on_a_few_panels():
    """Over six panels no p strays further from uniform than one in a thousand would."""
    for name, ps in drawn_ps(N_FEW).items():
        assert scipy.stats.kstest(ps, "uniform").pvalue > 1e-3, name


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.05, 0.1, 0.25])
def test_tests_have_their_size(many_ps, level):
    """Over 200 panels each test refuses as often as its level, within 3.5 binomial errors."""
    refused = (many_ps < level).mean()
    bound = 3.5 * np.sqrt(level * (1 - level) / N_MANY)
    assert (refused - level).abs().max() <= bound, refused.to_string()


# Likelihood ratio


def test_ratio_says_when_its_law_does_not_hold(prices):
    """The record and the docstring warn of the plugged-in flow."""
    test = mfg.hypotheses.likelihood_ratio_test(prices[1]["base"], prices[1]["both"])
    assert test.df == 1
    assert "chi-squared law does not hold" in repr(test)
    assert "does not hold" in mfg.hypotheses.likelihood_ratio_test.__doc__


def test_ratio_refuses_what_cannot_be_nested(prices, large):
    """Other data, the wrong order, a lower full likelihood and posterior modes are refused."""
    _, fits = prices
    ratio = mfg.hypotheses.likelihood_ratio_test
    with pytest.raises(ValueError, match="Pass the restricted fit first"):
        ratio(fits["both"], fits["base"])
    with pytest.raises(ValueError, match="fits of the same data"):
        ratio(fits["base"], large[1])
    stuck = dataclasses.replace(fits["both"], llf=fits["base"].llf - 1.0)
    with pytest.raises(ValueError, match="not nested, or `full` stopped"):
        ratio(fits["base"], stuck)


def test_directions_that_are_not_told_do_not_count():
    """The collinear pair is one degree of freedom above nothing but an idle term."""
    model, fit = collinear_fit()

    def one(x):
        return pyro.sample("b", dist.Normal(0.0, 1.0)) * (x.action == "a")

    same = fitted(mfg.TrajectoryModel(model.game, one, model.panel))
    with pytest.raises(ValueError, match="got 1 and 1"):
        mfg.hypotheses.likelihood_ratio_test(same, fit)


# Score


@pytest.mark.parametrize("kind", ["observed", "opg"])
def test_score_equals_finite_differences(large, kind):
    """Gradient, outer products and second derivatives by differences give the statistic."""
    full, _, restricted = large
    values = restricted.params.to_dict() | {"top": 0.05, "late": 0.02}
    names = list(values)

    def rows(point):
        found = mfg.log_likelihood(full, dict(zip(names, point, strict=True)))
        return found.to_numpy()

    centre, step = np.array(list(values.values())), 1e-4 * np.eye(len(names))
    scores = np.stack([(rows(centre + h) - rows(centre - h)) / 2e-4 for h in step], axis=1)
    if kind == "opg":
        information = scores.T @ scores
    else:
        information = -np.array(
            [
                [
                    sum(
                        s * t * rows(centre + 10 * (s * g + t * h)).sum()
                        for s in (1, -1)
                        for t in (1, -1)
                    )
                    for g in step
                ]
                for h in step
            ]
        ) / (4 * 1e-3**2)
    slope = scores.sum(0)
    expected = slope @ np.linalg.solve(information, slope)
    test = mfg.hypotheses.score_test(
        full, values, kind=kind
    )  # all values given: nothing is re-fitted
    # the positive sites have curvature of their own away from the maximum: compare unconstrained
    if kind == "observed":
        jacobian = np.diag([values[n] if n in ("margin", "menu_cost") else 1.0 for n in names])
        extra = np.diag([slope[k] * jacobian[k, k] for k in range(len(names))])
        extra *= np.diag([n in ("margin", "menu_cost") for n in names])
        information = jacobian @ information @ jacobian - extra
        expected = (jacobian @ slope) @ np.linalg.solve(information, jacobian @ slope)
    assert test.df == len(names)
    assert test.statistic == pytest.approx(expected, rel=1e-3)


def test_score_refits_the_others(prices):
    """The re-fit is the restricted model's own: starting elsewhere changes nothing."""
    models, fits = prices
    plain = mfg.hypotheses.score_test(models["both"], {"gap2": 0.0})
    start = fits["base"].params.to_dict() | {"cut": 3.0, "level2": -6.0}
    again = mfg.hypotheses.score_test(models["both"], {"gap2": 0.0}, init=start)
    assert plain.statistic == pytest.approx(again.statistic, rel=1e-5)
    assert "gap2 = 0.0" in repr(plain)


def test_score_far_from_the_maximum_needs_the_outer_products(large):
    """Where the second derivatives have no definite sign, only "opg" gives a statistic."""
    values = dict(market.TRUTH, menu_cost=0.01, top=0.0, late=0.0)
    with pytest.raises(ValueError, match="use kind='opg'"):
        mfg.hypotheses.score_test(large[0], values)
    assert mfg.hypotheses.score_test(large[0], values, kind="opg").p < 1e-6


def test_score_refuses_edges_and_flat_directions(prices, large):
    """Values at an edge, unknown names, and what the data do not identify are refused in words."""
    with pytest.raises(ValueError, match="edge of the support"):
        mfg.hypotheses.score_test(large[0], {"menu_cost": 0.0})
    with pytest.raises(ValueError, match="did you mean"):
        mfg.hypotheses.score_test(large[0], {"menucost": 0.5})
    with pytest.raises(ValueError, match="must name a site"):
        mfg.hypotheses.score_test(large[0], {})
    with pytest.raises(ValueError, match=r"values` move along a - 0\.5 b"):
        mfg.hypotheses.score_test(collinear_fit()[0], {"a": 0.0})
    with pytest.raises(TypeError, match="must be a TrajectoryModel"):
        mfg.hypotheses.score_test(prices[1]["base"], {"cut": 0.0})


# Vuong


@pytest.mark.parametrize("correction", ["none", "aic", "bic"])
def test_vuong_equals_the_formula(prices, correction):
    """Sum over root n times standard deviation, from the arrays of log likelihoods."""
    models, fits = prices
    test = mfg.hypotheses.vuong_test(
        models["market"], fits["market"], models["herd"], fits["herd"], correction=correction
    )
    a, b = (mfg.log_likelihood(models[k], fits[k]).to_numpy() for k in ("market", "herd"))
    n = len(a)
    taken = {"none": 0, "aic": 4 - 5, "bic": (4 - 5) * np.log(n) / 2}[correction]
    z = ((a - b).sum() - taken) / (np.sqrt(n) * (a - b).std())
    assert test.n == n
    assert test.statistic == pytest.approx(z, rel=1e-9)
    assert test.p == pytest.approx(2 * scipy.stats.norm.sf(abs(z)), rel=1e-6)
    assert "the second model is closer" in repr(test)
    assert test.variance_p < 1e-3
    swapped = mfg.hypotheses.vuong_test(
        models["herd"], fits["herd"], models["market"], fits["market"]
    )
    if correction == "none":
        assert swapped.statistic == pytest.approx(-z, rel=1e-9)


def test_vuong_adds_up_within_clusters(prices):
    """Clusters of one column are the unit: sums of log likelihoods within them."""
    table = mfg.datasets.supermarket_pricing()
    codes, _ = pd.factorize(table["product"])
    columns = pricing.COLUMNS
    panel = mfg.Trajectories.from_frame(table.assign(block=codes // 5), groups=["block"], **columns)
    models = {k: pricing.model(panel, name=k) for k in ("market", "herd")}
    fits = {k: mfg.mle(m, **FAST) for k, m in models.items()}
    test = mfg.hypotheses.vuong_test(
        models["market"], fits["market"], models["herd"], fits["herd"], groups="block"
    )
    gaps = mfg.log_likelihood(models["market"], fits["market"]).to_numpy()
    gaps = gaps - mfg.log_likelihood(models["herd"], fits["herd"]).to_numpy()
    sums = pd.Series(gaps).groupby(panel.groups["block"]).sum()
    assert test.n == len(sums) == 107
    z = sums.sum() / np.sqrt(((sums - sums.mean()) ** 2).sum())
    assert test.statistic == pytest.approx(z, rel=1e-9)


def test_variance_of_nested_models_is_chi_squared(large):
    """For nested models the law of the spread is chi-squared with the restrictions' number."""
    full, fit, restricted = large
    narrow = drawn(4000, 3, market.reward)
    test = mfg.hypotheses.vuong_test(full, fit, narrow, restricted)
    expected = scipy.stats.chi2(2).sf(test.variance_statistic)
    assert test.variance_p == pytest.approx(expected, abs=0.05)


def test_vuong_refuses_counted_panels_and_strangers(prices):
    """Rows are needed, and fits must be of their models."""
    models, fits = prices
    counted = models["base"].with_panel(mfg.CountedPanel.from_trajectories(pricing.panel()))
    with pytest.raises(ValueError, match="trajectories one by one"):
        mfg.hypotheses.vuong_test(counted, mfg.mle(counted, **FAST), models["both"], fits["both"])
    energy = pricing.model(name="base", likelihood="energy")
    with pytest.raises(ValueError, match="is not a fit of `model_a`"):
        mfg.hypotheses.vuong_test(energy, fits["base"], models["both"], fits["both"])
    with pytest.raises(ValueError, match="same log likelihood"):
        mfg.hypotheses.vuong_test(models["base"], fits["base"], models["base"], fits["base"])


# Delta method


def test_delta_method_of_linear_functions_is_exact(prices):
    """For linear functions the covariance is G V G', by either derivative."""
    fit = prices[1]["both"]
    covariance = fit.cov_params("cluster")
    weights = np.array([[1.0, -2, 0, 0, 0], [0, 0, 0, 1, 1]])
    expected = weights @ covariance @ weights.T

    def by_tensor(p):
        return torch.stack([p["cut"] - 2 * p["raise"], p["level2"] + p["gap2"]])

    def by_number(p):
        return np.array([float(p["cut"]) - 2 * float(p["raise"]), float(p["level2"] + p["gap2"])])

    for function, how in ((by_tensor, "autograd"), (by_number, "central differences")):
        found = mfg.hypotheses.delta_method(fit, function, kind="cluster")
        assert found.derivative == how
        np.testing.assert_allclose(found.covariance, expected, rtol=1e-6)
        np.testing.assert_allclose(found.estimate, weights @ fit.params, rtol=1e-9)


def test_delta_method_of_smooth_functions(prices):
    """Log, ratio and product have the closed forms of their derivatives; names are kept."""
    fit = prices[1]["both"]
    a, b = fit.params["cut"], fit.params["raise"]
    v = fit.cov_params().loc[["cut", "raise"], ["cut", "raise"]].to_numpy()
    slopes = np.array([[1 / a, 0.0], [1 / b, -a / b**2], [b, a]])

    def function(p):
        return {
            "log": torch.log(p["cut"]),
            "ratio": p["cut"] / p["raise"],
            "product": p["cut"] * p["raise"],
        }

    found = mfg.hypotheses.delta_method(fit, function, ci_prob=0.95)
    assert list(found.estimate.index) == ["log", "ratio", "product"]
    np.testing.assert_allclose(found.covariance, slopes @ v @ slopes.T, rtol=1e-8)
    half = scipy.stats.norm.ppf(0.975) * np.sqrt(np.diag(slopes @ v @ slopes.T))
    np.testing.assert_allclose(found.upper - found.estimate, half, rtol=1e-8)
    series = mfg.hypotheses.delta_method(fit, lambda p: pd.Series({"log": np.log(p["cut"])}))
    np.testing.assert_allclose(series.std_err["log"], found.std_err["log"], rtol=1e-6)
    assert "95% Wald intervals" in repr(found)


def test_delta_method_of_known_combinations_and_small_units():
    """A combination that the data identify has an error where its parameters have none."""
    _, fit = collinear_fit()
    known = mfg.hypotheses.delta_method(fit, lambda p: 1e-7 * (p["a"] + 2 * p["b"]))
    assert known.std_err["value"] == pytest.approx(1e-7 * (200 * 0.21) ** -0.5, rel=1e-5)
    with pytest.raises(ValueError, match="`function` moves along"):
        mfg.hypotheses.delta_method(fit, lambda p: p["a"] * p["b"])
    with pytest.raises(ValueError, match="finite and smooth"):
        mfg.hypotheses.delta_method(fit, lambda p: torch.log(p["a"] - p["a"]))
    with pytest.raises(TypeError, match="`function` must be a function"):
        mfg.hypotheses.delta_method(fit, "a + b")
