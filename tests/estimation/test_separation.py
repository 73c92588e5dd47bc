"""Choices that a combination of parameters separates have no maximum likelihood estimate."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
from logits import logit, panel_of

import mfgppl as mfg

FAST = {"svi_steps": 0, "progressbar": False}


def two_states(share=1.0, n=40):
    """Return a game and a panel in which this share takes "a" in state l and "b" in h."""
    rows = []
    for i in range(n):
        for t in range(3):
            low = (i + t) % 2 == 0
            follows = i < share * n
            rows.append((i, t, "l" if low else "h", "a" if low == follows else "b"))
    game = mfg.MeanFieldGame(
        states=["l", "h"], actions=["a", "b"], horizon=3, initial=[0.5, 0.5],
        transition=np.full((2, 2, 2), 0.5),
    )  # fmt: skip
    frame = pd.DataFrame(rows, columns=["agent", "time", "state", "action"])
    return game, mfg.Trajectories.from_frame(frame)


def follow(sign=1.0, size=1.0):
    """Return a reward of following the state."""

    def reward(x):
        weight = pyro.sample("w", dist.Normal(0.0, 1.0))
        low, high = (x.state == "l") * 1.0, (x.state == "h") * 1.0
        return sign * size * weight * (x.action == "a") * (low - high)

    return reward


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize(("sign", "way"), [(1.0, "rises"), (-1.0, "falls")])
def test_separated_choices_are_not_converged(size, sign, way):
    """The fit names the direction and gives no standard error, in any units."""
    game, panel = two_states()
    model = mfg.TrajectoryModel(game, follow(sign, size), panel)
    with pytest.warns(
        mfg.exceptions.ConvergenceWarning, match=f"separated along w, .* as that {way}"
    ) as said:
        fit = mfg.mle(model, **FAST)
    assert len(said) == 1
    assert not fit.converged
    assert np.isnan(fit.bse["w"])
    with pytest.raises(ValueError, match="separated along w"):
        mfg.hypotheses.wald_test(fit, "w = 0")
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="separated along w"):
        assert not mfg.mle(model, init={"w": sign * 1e3 / size}, **FAST).converged
    with pytest.warns(mfg.exceptions.ConvergenceWarning):
        assert not mfg.mle(model, init={"w": -sign * 1e3 / size}, **FAST).converged
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="separated along w"):
        crossed = mfg.flows.cross_fit(model, folds=2, random_seed=1, init={"w": 0.0})
    assert not crossed.converged
    assert np.isnan(crossed.bse["w"])


def test_one_choice_against_the_rest_is_a_maximum():
    """Nearly all is not all: the estimate is the log odds."""
    game, panel = two_states(share=0.99, n=100)
    fit = mfg.mle(mfg.TrajectoryModel(game, follow(), panel), **FAST)
    assert fit.converged
    assert fit.params["w"] == pytest.approx(np.log(99) / 1.0, rel=1e-6)


def test_a_prior_gives_separated_choices_a_mode():
    """The posterior has a maximum where the likelihood has none."""
    game, panel = two_states()
    fit = mfg.map_estimate(mfg.TrajectoryModel(game, follow(), panel), **FAST)
    assert fit.converged
    assert np.isfinite(fit.bse["w"])


def test_what_is_not_separated_keeps_its_standard_error():
    """An action that nobody takes has no weight; those of the others are log odds."""
    model = logit({"never": 0, "a": 80, "b": 120}, (1.0, 1.0))
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="separated along never, .* falls"):
        fit = mfg.mle(model, **FAST)
    assert not fit.converged
    assert np.isnan(fit.bse["never"])
    assert fit.params["a"] == pytest.approx(np.log(80 / 120), rel=1e-5)
    assert fit.bse["a"] == pytest.approx(np.sqrt((1 / 80 + 1 / 120) / 2), rel=1e-4)


def test_a_combination_is_named():
    """Two features that only their sum separates."""
    game, panel = panel_of({"a": 60, "b": 0})

    def reward(x):
        one, two = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in ("one", "two"))
        return (one + 2 * two) * (x.action == "a")

    with (
        pytest.warns(mfg.exceptions.ConvergenceWarning, match=r"separated along .*one.*two"),
        pytest.warns(mfg.exceptions.IdentificationWarning, match=r"one - 0\.5 two"),
    ):
        fit = mfg.mle(mfg.TrajectoryModel(game, reward, panel), **FAST)
    assert fit.bse.isna().all()


def test_no_standard_error_where_actions_tie_for_those_who_expect_no_errors():
    """Who enters may take or leave; fewer enter than would by chance, so that taking is worth 0 at
    best: the likelihood falls from a kink on the one side and is flat on the other.
    """
    steps = np.zeros((3, 2, 3))
    steps[:, 0, 2] = steps[:, 1, 2] = steps[0, 0, 1] = 1.0
    steps[0, 0, 2] = 0.0
    game = mfg.MeanFieldGame(
        states=["door", "in", "out"], actions=["first", "second"], horizon=2, transition=steps,
        initial=[1.0, 0.0, 0.0], behaviour="boltzmann",
    )  # fmt: skip

    def worth(x):
        worth = pyro.sample("worth", dist.Normal(0.0, 1.0))
        other = pyro.sample("other", dist.Normal(0.0, 1.0))
        taken = worth * (x.state == "in") * (x.action == "first")
        return taken + other * (x.state == "out") * (x.action == "first") * (x.time == 1)

    rows = [(k, 0, "door", "first" if k < 4 else "second") for k in range(12)]
    rows += [(k, 1, "in" if k < 4 else "out", "first" if k % 2 else "second") for k in range(12)]
    panel = mfg.Trajectories.from_frame(
        pd.DataFrame(rows, columns=["agent", "time", "state", "action"]),
        state_labels={"state": ["door", "in", "out"]},
    )
    model = mfg.TrajectoryModel(game.replace(behaviour="boltzmann"), worth, panel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = mfg.mle(model, progressbar=False)
        smooth = mfg.mle(
            mfg.TrajectoryModel(game.replace(behaviour="entropy"), worth, panel), progressbar=False
        )
    assert abs(fit.params["worth"]) < 1e-3
    assert np.isnan(fit.bse["worth"])
    assert any("two actions tie" in message and "worth" in message for message in fit.messages)
    assert smooth.bse.notna().all()
