"""Options that a path does not use are refused, and so is what is no option at all."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from logits import COUNTS, logit, panel_of

import mfgppl as mfg
from mfgppl._arguments import positive_int, real_between

FAST = {"svi_steps": 0, "progressbar": False}


@functools.cache
def model():
    return logit(COUNTS, (1.0, 1.0))


@functools.cache
def fit():
    return mfg.mle(model(), **FAST)


@pytest.mark.parametrize(
    "use",
    [
        lambda: fit().cov_params(groups="agent"),
        lambda: fit().standard_errors("opg", groups="agent"),
        lambda: fit().conf_int(groups="agent"),
        lambda: fit().summary(groups="agent"),
        lambda: mfg.hypotheses.delta_method(fit(), lambda p: p["a"], groups="agent"),
        lambda: mfg.hypotheses.wald_test(fit(), "a = 0", groups="agent"),
        lambda: mfg.hypotheses.score_test(model(), {"a": 0.0}, groups="agent"),
        lambda: mfg.compare_fits({"one": fit()}, groups="agent"),
    ],
)
def test_groups_without_clusters_are_refused(use):
    """Errors that do not cluster must not look as if they did."""
    with pytest.raises(ValueError, match="`groups` belongs to kind='cluster'"):
        use()


def test_clusters_are_agents_by_default():
    """With kind="cluster" alone the default holds."""
    cluster = fit().standard_errors("cluster")
    assert cluster.equals(fit().standard_errors("cluster", groups="agent"))
    assert "clustered by agent" in mfg.compare_fits({"one": fit()}, kind="cluster").to_text()


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        (
            {"tolerance": 1e300},
            ValueError,
            "`tolerance` must be at most 0.1: a fit that is farther",
        ),
        ({"tolerance": True}, TypeError, "`tolerance` must be a number"),
        ({"svi_steps": 0, "learning_rate": 0.1}, ValueError, "`learning_rate` belongs to SVI"),
        ({"progressbar": "no"}, TypeError, "`progressbar` must be True or False"),
        ({"max_steps": 2**64}, ValueError, r"`max_steps` must be at most .* 2\*\*63"),
        ({"restarts": np.array([1, 2])}, TypeError, "`restarts` must be an integer"),
    ],
)
def test_useless_settings_of_mle_are_refused(options, kind, words):
    """The message names the argument, what must hold and what came."""
    with pytest.raises(kind, match=words):
        mfg.mle(model(), **options)
    if "tolerance" in options:
        with pytest.raises(kind, match="`tolerance`"):
            mfg.flows.cross_fit(model(), folds=2, random_seed=1, **options)
        with pytest.raises(kind, match="`tolerance`"):
            mfg.flows.nested_pseudo_likelihood(model(), **options)
        with pytest.raises(kind, match="`tolerance`"):
            mfg.flows.efficient_pseudo_likelihood(model(), **options)


@pytest.mark.parametrize("given", [3, np.int32(3), np.array(3), torch.tensor(3)])
def test_integers_may_be_arrays_of_one(given):
    """Whatever is an integer, without a fraction or a second entry."""
    assert positive_int("n", given) == 3


@pytest.mark.parametrize(
    "given", [True, np.True_, torch.tensor(True), 3.0, np.array(3.0), torch.tensor([3, 4]), "3"]
)
def test_what_is_no_integer_is_refused(given):
    """With our words, never another library's."""
    with pytest.raises(TypeError, match="`n` must be an integer"):
        positive_int("n", given)


@pytest.mark.parametrize("given", [True, np.True_, "0.5", [0.5, 0.6], 10**400])
def test_what_is_no_number_is_refused(given):
    """Booleans and words are no numbers."""
    with pytest.raises(TypeError, match="`x` must be a number"):
        real_between("x", given, above=0.0)


def test_fewer_groups_than_folds_are_a_part_each():
    """Ten folds of three agents are three."""
    small = logit({"a": 2, "b": 1}, (1.0,))
    ten = mfg.flows.cross_fit(small, folds=10, random_seed=1, init={"a": 0.0})
    three = mfg.flows.cross_fit(small, folds=None, random_seed=2, init={"a": 0.0})
    assert ten.llf == pytest.approx(three.llf, rel=1e-10)


def test_wald_test_says_what_a_simplex_ties():
    """Entries of a simplex sum to 1: one restriction follows from the others."""
    game, panel = panel_of({"a": 130, "b": 150, "c": 100})

    def reward(x):
        shares = pyro.sample("w", dist.Dirichlet(torch.ones(3)))
        return shares[0] * (x.action == "a") + shares[1] * (x.action == "b")

    found = mfg.mle(mfg.TrajectoryModel(game, reward, panel), **FAST)
    with pytest.raises(ValueError, match=r"leaves 2 of them free to fail.*entries of a simplex"):
        mfg.hypotheses.wald_test(found, "w[0] = 0.3, w[1] = 0.3, w[2] = 0.4")
    assert mfg.hypotheses.wald_test(found, "w[0] = 0.3, w[1] = 0.3").df == 2
