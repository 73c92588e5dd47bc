"""Log likelihoods of the two real panels, computed independently with other software."""

import warnings

import pyro
import pyro.distributions as dist
import pytest

import mfgppl as mfg
import mfgppl.reward.soundness as soundness
from mfgppl.models import capacity, pricing

WIDE = dist.Normal(0.0, 10.0)


def bins_and_end(x, axis, down, up, *, crowd):
    """Return the reward of bins and moves, and what the last bin is worth."""
    cut, lift = (pyro.sample(name, WIDE) for name in ("cut", "lift"))
    level, end = (pyro.sample(name, axis.each(WIDE)) for name in ("level", "end"))
    reward = cut * (x.action == down) + lift * (x.action == up) + level[axis.codes]
    if crowd:
        reward = reward + pyro.sample("crowd", WIDE) * x.density
    return reward, end[axis.codes]


def shocks(x, down, up, *, slope=None):
    """Return shocks to both moves of each period, with slopes if asked for."""
    total = 0.0
    for name, action in (("cuts", down), ("lifts", up)):
        effect = mfg.period_effects(x, name, WIDE)
        if slope is not None:
            effect = effect + mfg.period_effects(x, f"{name} by slope", WIDE) * slope
        total = total + effect * (x.action == action)
    return total


def of_prices(x, *, slope=False):
    reward, end = bins_and_end(x, x.margin, "lower", "raise", crowd=True)
    level = x.margin.codes - 2.5
    if slope:
        reward = reward + pyro.sample("cut by level", WIDE) * level * (x.action == "lower")
        reward = reward + pyro.sample("lift by level", WIDE) * level * (x.action == "raise")
    shock = shocks(x, "lower", "raise", slope=level if slope else None)
    return mfg.Preferences(reward, terminal=end, shock=shock)


def of_flights(x, *, slope=False):
    reward, end = bins_and_end(x, x.capacity, "cut", "add", crowd=False)
    if slope:
        reward = reward + pyro.sample("cut by level", WIDE) * x.level * (x.action == "cut")
        reward = reward + pyro.sample("lift by level", WIDE) * x.level * (x.action == "add")
    shock = shocks(x, "cut", "add", slope=x.level if slope else None)
    return mfg.Preferences(reward, terminal=end, shock=shock)


def fitted(game, program, panel):
    model = mfg.TrajectoryModel(game, program, panel)
    with warnings.catch_warnings():  # that a constant of all bins is not identified
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        return mfg.mle(model, svi_steps=0, flow_bias=False, progressbar=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "program", "slope", "height", "rank"),
    [
        (pricing, of_prices, False, -11759.9, 61),
        (pricing, of_prices, True, -11638.3, 111),
        (capacity, of_flights, False, -7053.3, 112),
        (capacity, of_flights, True, -6903.9, 214),
    ],
    ids=["prices", "prices by level", "flights", "flights by level"],
)
def test_heights_of_models_with_shocks(case, program, slope, height, rank):
    """Reached or beaten, with as many directions identified."""
    panel = case.panel()
    found = fitted(case.game(panel), lambda x: program(x, slope=slope), panel)
    assert found.converged
    assert found.llf > height - 0.06
    assert len(found.params) - len(found.curvature.flat) == rank
    if not slope:
        assert found.llf == pytest.approx(height, abs=0.06)


@pytest.mark.slow
def test_a_shock_whose_mean_is_free_runs_away(monkeypatch):
    """Let through, the fit finds no maximum: the reward of a raise rises as the shocks fall."""
    panel = pricing.panel()

    def free(x):
        reward, end = bins_and_end(x, x.margin, "lower", "raise", crowd=True)
        months = x.game.shape[0]
        lifts = pyro.sample("lifts", WIDE.expand([months]).to_event(1))[:, None, None]
        return mfg.Preferences(reward, terminal=end, shock=lifts * (x.action == "raise"))

    with pytest.raises(ValueError, match="does not sum to zero over time"):
        mfg.TrajectoryModel(pricing.game(panel), free, panel)
    monkeypatch.setattr(soundness, "_check_shocks", lambda shocks: None)
    with pytest.warns(mfg.exceptions.ConvergenceWarning, match="no maximum"):
        found = fitted(pricing.game(panel), free, panel)
    assert not found.converged
    assert found.params["lift"] > 5
    means = found.params[[name for name in found.params.index if name.startswith("lifts")]].mean()
    assert means < -5
