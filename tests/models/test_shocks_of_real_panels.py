"""Log likelihoods of the two real panels, computed independently with other software."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

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


def of_kinds(x, axis, down, up, n_kinds, *, crowd, slope=False):
    """Return the preferences of so many unseen kinds, who share the shocks of each period."""
    each = dist.Normal(0.0, 3.0).expand([n_kinds]).to_event(1)
    table = dist.Normal(0.0, 3.0).expand([n_kinds, len(axis.labels)]).to_event(2)
    share = pyro.sample("share", dist.Dirichlet(torch.ones(n_kinds)))
    cut, lift = (pyro.sample(name, each) for name in ("cut", "lift"))
    tilts = [pyro.sample(f"{name} by level", each) for name in ("cut", "lift")] if slope else None
    level, end = (pyro.sample(name, table) for name in ("level", "end"))
    with x.agents:
        kind = pyro.sample("kind", dist.Categorical(share))
    reward = cut[kind] * (x.action == down) + lift[kind] * (x.action == up)
    reward = reward + level[kind, axis.codes]
    if crowd:
        reward = reward + pyro.sample("crowd", each)[kind] * x.density
    if tilts is not None:
        for tilt, action in zip(tilts, (down, up), strict=True):
            reward = reward + tilt[kind] * x.level * (x.action == action)
    shock = shocks(x, down, up, slope=x.level if slope else None)
    return mfg.Preferences(reward, terminal=end[kind, axis.codes], shock=shock)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "n_kinds", "slope", "height", "rank"),
    [
        (pricing, 2, False, -11484.5, 75),
        (pricing, 3, False, -11433.4, 89),
        (pricing, 4, False, -11382.9, 103),
        (pricing, 2, True, -11352.0, 127),
        (capacity, 2, False, -6695.1, 125),
        (capacity, 3, False, -6611.2, 138),
        (capacity, 2, True, -6546.2, 229),
    ],
)
def test_heights_of_models_with_unseen_kinds(case, n_kinds, slope, height, rank):
    """Reached or beaten; shares that sum to one are one direction fewer than entries."""
    panel = case.panel()

    def program(x):
        if case is pricing:
            return of_kinds(x, x.margin, "lower", "raise", n_kinds, crowd=True, slope=slope)
        return of_kinds(x, x.capacity, "cut", "add", n_kinds, crowd=False, slope=slope)

    model = mfg.TrajectoryModel(case.game(panel), program, panel)
    with warnings.catch_warnings():  # that constants of all bins are not identified
        warnings.simplefilter("ignore")
        found = mfg.mle(model, restarts=6, svi_steps=0, flow_bias=False, progressbar=False)
    assert found.converged
    assert found.llf > height - 0.06
    assert len(found.theta) - len(found.curvature.flat) == rank


@pytest.mark.slow
def test_a_posterior_of_a_hundred_shocks():
    """Effects of each month on cuts and lifts, and their slopes, with spreads that are inferred.

    Levels are contrasts, as a constant of all changes no choice.
    """
    from mfgppl.reward.period_effects import centred

    panel = pricing.panel()

    def program(x):
        unit = dist.Normal(0.0, 1.0)
        n = len(x.margin.labels)
        cut, lift, crowd = (pyro.sample(k, dist.Normal(0.0, 3.0)) for k in ("cut", "lift", "crowd"))
        level, end = (
            pyro.sample(k, unit.expand([n - 1]).to_event(1)) @ centred(n) for k in ("level", "end")
        )
        slope, shock = x.margin.codes - 2.5, 0.0
        for name, action in (("cuts", "lower"), ("lifts", "raise")):
            spread = pyro.sample(f"spread of {name}", dist.HalfNormal(1.0))
            tilt = pyro.sample(f"tilt of {name}", dist.HalfNormal(0.5))
            effect = spread * mfg.period_effects(x, name, unit)
            effect = effect + tilt * mfg.period_effects(x, f"{name} by level", unit) * slope
            shock = shock + effect * (x.action == action)
        reward = cut * (x.action == "lower") + lift * (x.action == "raise")
        reward = reward + level[x.margin.codes] + crowd * x.density
        return mfg.Preferences(reward, terminal=end[x.margin.codes], shock=shock)

    model = mfg.TrajectoryModel(pricing.game(panel), program, panel)
    draws = mfg.nuts(
        model, draws=1000, tune=1000, chains=4, random_seed=1, flow_bias=False, progressbar=False
    )
    assert draws.attrs["warnings"] == []
    assert sum(v.size for v in draws["posterior"].isel(chain=0, draw=0).data_vars.values()) > 100
