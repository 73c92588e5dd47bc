"""A crowd that leaves its panel reaches the fit, where its flow is read."""

import pyro
import pyro.distributions as dist
import pytest
from data.test_composition import closed_once, read, shops

import mfgppl as mfg

LEAVES = "200 trajectories end before the last decision time"


def crowded(x):
    """A reward that reads the flow."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    return crowding * x.density * (x.action == "go")


def alone(x):
    """A reward that does not."""
    cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
    return cost * (x.action == "go") * (x.state == "open")


def model(reward, frame, **options) -> mfg.TrajectoryModel:
    panel = read(frame)
    game = mfg.MeanFieldGame(
        states={"state": ["closed", "open"]},
        actions=["go", "stay"],
        horizon=options.pop("horizon", panel.horizon),
        transition=options.pop("transition", panel.estimate_transition(prior_count=0.5)),
        initial=panel.initial_distribution(),
        discount=0.9,
    )
    return mfg.TrajectoryModel(game, reward, panel, **options)


def test_the_message_is_the_models_where_the_flow_is_read():
    """A reward or dynamics that read an empirical flow have it; a given flow has not."""
    frame = closed_once(shops())
    (message,) = model(crowded, frame).messages
    assert LEAVES in message
    assert model(crowded, frame, horizon=None).messages == (message,)
    assert model(crowded, shops()).messages == ()
    assert model(alone, frame).messages == ()
    flow = read(shops()).mean_field()
    assert model(crowded, frame, mean_field=flow).messages == ()
    table = read(frame).estimate_transition(prior_count=0.5).probabilities.values
    moved = model(alone, frame, transition=lambda mean_field, time: table)
    assert moved.messages == (message,)


def test_the_message_reaches_point_fits():
    """`mle` warns of it and keeps it, in its summary too."""
    here = model(crowded, closed_once(shops()))
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match=LEAVES):
        fit = mfg.mle(here, progressbar=False)
    assert LEAVES in fit.messages[-1]
    assert LEAVES in str(fit)
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match=LEAVES):
        assert LEAVES in mfg.flows.cross_fit(here, random_seed=1).messages[0]


def test_the_message_reaches_draws():
    """Draws say it once, and keep it among their warnings."""
    here = model(crowded, closed_once(shops()))
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match=LEAVES):
        draws = mfg.laplace(here, draws=200, random_seed=1, progressbar=False)
    assert sum(LEAVES in line for line in draws.attrs["warnings"]) == 1
