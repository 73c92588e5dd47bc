"""Profile likelihood against independent re-fits, closed forms and Wald intervals."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats
import torch

import mfgppl as mfg
from mfgppl.models import market, pricing

CRITICAL = scipy.stats.chi2(1).ppf(0.9)


def one_step_model(takes, reward, of=100):
    """Return a model of one state and one decision where `takes` of `of` agents take "a"."""
    game = mfg.MeanFieldGame(
        states=["only"], actions=["a", "b"], horizon=2, transition=np.ones((1, 2, 1)), initial=[1.0]
    )
    rows = [(k, t, "only", "a" if k < takes else "b") for k in range(of) for t in (0, 1)]
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    panel = mfg.Trajectories.from_frame(frame, action_labels=["a", "b"])
    return mfg.TrajectoryModel(game, reward, panel)


def logit(prior):
    """Return a reward of taking "a" under a prior."""
    return lambda x: pyro.sample("w", prior) * (x.action == "a")


def fitted(model):
    """Fit quietly: edges and separated data warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        return mfg.mle(model, svi_steps=0, progressbar=False)


def logit_ends(takes, of=100):
    """Solve the likelihood ratio of a logit of `2 of` decisions for its two ends."""
    share = takes / of

    def excess(w):
        llf = 2 * of * (share * w - np.log1p(np.exp(w)))
        top = 2 * of * (share * np.log(share) + (1 - share) * np.log(1 - share))
        return 2 * (top - llf) - CRITICAL

    centre = np.log(share / (1 - share))
    return [scipy.optimize.brentq(excess, centre, centre + side) for side in (-3, 3)]


@pytest.mark.parametrize("takes", [20, 50, 97])
def test_one_parameter_interval_solves_the_likelihood_ratio(takes):
    """With no other parameter the ends are where the logit's likelihood has fallen enough."""
    model = one_step_model(takes, logit(dist.Normal(0.0, 1.0)))
    profile = mfg.hypotheses.profile_likelihood(model, fitted(model), "w")
    np.testing.assert_allclose([profile.lower, profile.upper], logit_ends(takes), atol=1e-5)
    assert profile.converged


def test_interval_does_not_depend_on_the_declaration():
    """A positive site and an interval give the same ends where these lie inside."""
    ends = []
    for prior in (dist.Normal(0.0, 1.0), dist.HalfNormal(1.0), dist.Uniform(-5.0, 9.0)):
        model = one_step_model(70, logit(prior))
        profile = mfg.hypotheses.profile_likelihood(model, fitted(model), "w")
        ends.append([profile.lower, profile.upper])
    np.testing.assert_allclose(ends[1:], [ends[0]] * 2, atol=1e-5)


def test_ends_agree_with_independent_refits():
    """Powell's method on the likelihood by trajectory finds the fall at both ends."""
    model = pricing.model(name="both")
    fit = mfg.mle(model, svi_steps=0, progressbar=False, flow_bias=False)
    profile = mfg.hypotheses.profile_likelihood(model, fit, "gap2")
    others = fit.params.drop("gap2")
    scale = fit.bse[others.index].to_numpy()

    for end in (profile.lower, profile.upper):

        def minus(z, end=end):
            values = dict(zip(others.index, others + scale * z, strict=True)) | {"gap2": end}
            return -float(mfg.log_likelihood(model, values).sum())

        best = scipy.optimize.minimize(
            minus, np.zeros(len(others)), method="Powell", options={"ftol": 1e-8, "xtol": 1e-3}
        )
        assert 2 * (fit.llf + best.fun) == pytest.approx(CRITICAL, abs=1e-3)


def test_curve_agrees_with_fits_of_the_restricted_model():
    """At grid values, `mle` of the reward with that value written in gives the same height."""
    panel = mfg.Trajectories.from_frame(market.frame(200), **market.COLUMNS)
    model = market.model(panel)
    fit = mfg.mle(model, svi_steps=0, progressbar=False, flow_bias=False)
    profile = mfg.hypotheses.profile_likelihood(model, fit, "menu_cost", points=5)
    for value, row in profile.curve.iloc[[0, len(profile.curve) // 3, -1]].iterrows():

        def reward(x, value=value):
            margin = pyro.sample("margin", dist.HalfNormal(1.0))
            crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
            return margin * x.price - crowding * x.density - value * (x.action != "hold")

        restricted = mfg.TrajectoryModel(market.game(), reward, panel)
        again = mfg.mle(restricted, svi_steps=0, progressbar=False, flow_bias=False)
        assert row["log_likelihood"] == pytest.approx(again.llf, abs=1e-5)
        assert row["crowding"] == pytest.approx(again.params["crowding"], abs=1e-2)
        assert row["statistic"] == pytest.approx(2 * (fit.llf - again.llf), abs=1e-5)


def test_large_panels_give_the_wald_interval():
    """The gap to the Wald interval, in standard errors, shrinks as decisions are added."""
    gaps = []
    for of in (20, 2000):
        model = one_step_model(of // 4, logit(dist.Normal(0.0, 1.0)), of)
        fit = fitted(model)
        profile = mfg.hypotheses.profile_likelihood(model, fit, "w")
        wald = fit.conf_int().loc["w"]
        gap = max(abs(profile.lower - wald["lower"]), abs(profile.upper - wald["upper"]))
        gaps.append(gap / fit.bse["w"])
    assert gaps[1] < 0.02
    assert gaps[1] < gaps[0] / 5


@pytest.mark.parametrize(
    ("prior", "takes", "lower", "upper"),
    [
        (dist.HalfNormal(1.0), 55, 0.0, logit_ends(55)[1]),
        (dist.Uniform(-1.0, 5.0), 30, -1.0, logit_ends(30)[1]),
        (dist.Uniform(-0.9, 5.0), 30, -0.9, logit_ends(30)[1]),
        (dist.Uniform(-5.0, -0.7), 30, logit_ends(30)[0], -0.7),
    ],
)
def test_a_side_may_end_at_the_edge_of_the_support(prior, takes, lower, upper):
    """Where the likelihood has not fallen enough at an edge, the edge is the end, in words."""
    model = one_step_model(takes, logit(prior))
    profile = mfg.hypotheses.profile_likelihood(model, fitted(model), "w")
    assert profile.lower == pytest.approx(lower, abs=1e-5)
    assert profile.upper == pytest.approx(upper, abs=1e-5)
    assert "edge of the support" in profile.reason


def test_an_estimate_at_the_edge_has_a_one_sided_interval():
    """With fewer than half taking "a", a positive weight ends at 0; the other end is finite."""
    model = one_step_model(45, logit(dist.HalfNormal(1.0)))
    profile = mfg.hypotheses.profile_likelihood(model, fitted(model), "w")
    centre = 200 * (0.45 * 0 - np.log(2))

    def excess(w):
        return 2 * (centre - 200 * (0.45 * w - np.log1p(np.exp(w)))) - CRITICAL

    assert profile.lower == 0.0
    assert profile.upper == pytest.approx(scipy.optimize.brentq(excess, 0, 3), abs=1e-4)


@pytest.mark.parametrize("prior", [dist.Normal(0.0, 1.0), dist.HalfNormal(1.0)])
def test_separated_choices_are_unbounded_above(prior):
    """Where everybody takes "a" no weight is too large."""
    model = one_step_model(100, logit(prior))
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="separated along w"):
        fit = mfg.mle(model, svi_steps=0, progressbar=False)
    profile = mfg.hypotheses.profile_likelihood(model, fit, "w")
    low = scipy.optimize.brentq(lambda w: 400 * np.log1p(np.exp(-w)) - CRITICAL, 0, 30)
    assert profile.lower == pytest.approx(low, abs=1e-4)
    assert profile.upper == np.inf
    assert "does not fall enough" in profile.reason


def test_entries_of_vectors_are_profiled_one_by_one():
    """An entry of a vector has the interval of the same parameter declared by itself."""

    def together(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        return w[0] * (x.action == "a") + w[1] * (x.action == "a") * (x.time == 1)

    def apart(x):
        first, second = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in ("first", "second"))
        return first * (x.action == "a") + second * (x.action == "a") * (x.time == 1)

    ends = []
    for reward, name in ((together, "w[1]"), (apart, "second")):
        model = one_step_model(30, reward)
        profile = mfg.hypotheses.profile_likelihood(model, fitted(model), name)
        ends.append([profile.lower, profile.upper])
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-5)


def test_wrong_inputs_say_what_is_wrong():
    """Ties, flat parameters, misspelt names and posterior modes are refused in words."""

    def simplex(x):
        w = pyro.sample("w", dist.Dirichlet(torch.ones(3)))
        return 9 * w[0] * (x.action == "a") + w[1] * (x.action == "a") * (x.time == 1)

    def collinear(x):
        a, b = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in "ab")
        return (a + 2 * b) * (x.action == "a")

    model = one_step_model(60, simplex)
    with pytest.raises(ValueError, match=r"'w\[2\]' is tied to others"):
        mfg.hypotheses.profile_likelihood(model, fitted(model), "w[2]")
    model = one_step_model(60, collinear)
    with pytest.raises(ValueError, match=r"do not identify a - 0\.5 b"):
        mfg.hypotheses.profile_likelihood(model, fitted(model), "a")
    model = one_step_model(60, logit(dist.Normal(0.0, 1.0)))
    fit = fitted(model)
    with pytest.raises(ValueError, match="`parameter` must be one of 'w'"):
        mfg.hypotheses.profile_likelihood(model, fit, "v")
    with pytest.raises(ValueError, match="must lie in"):
        mfg.hypotheses.profile_likelihood(model, fit, "w", ci_prob=90)
    with pytest.raises(ValueError, match="must be a maximum likelihood estimate"):
        mfg.hypotheses.profile_likelihood(model, mfg.map_estimate(model, progressbar=False), "w")
    other = one_step_model(60, collinear)
    with pytest.raises(ValueError, match="has the parameters"):
        mfg.hypotheses.profile_likelihood(other, fit, "w")
