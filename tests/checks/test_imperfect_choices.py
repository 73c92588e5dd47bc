"""What agents leave on the table, against losses followed through all futures."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import random_rows

import mfgppl as mfg

S, A, T, N = 3, 2, 4, 12
TABLE, INITIAL = random_rows(31, S, A, S), random_rows(32, S)
FLOW = random_rows(33, T, S)
DISCOUNT, NOISE, LAPSE, PAY = 0.8, 0.5, 0.2, 1.1
SHOCK = np.array([0.4, -0.9, 0.3, 0.2])


def agent(x):
    pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
    shock = torch.from_numpy(SHOCK)[:, None, None] * (x.action == "move")
    return mfg.Preferences(
        pay * x.state * (x.action == "move") - x.density, terminal=0.5 * x.state, shock=shock,
        discount=DISCOUNT, temperature=NOISE, lapse=LAPSE,
    )  # fmt: skip


def game(**changes):
    arguments = {
        "states": range(S), "actions": ["stay", "move"], "horizon": T, "initial": INITIAL,
        "transition": TABLE,
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


def reward(t, s, a):
    return PAY * s * a - FLOW[t, s]


def best(t, s):
    """Return the value of the best plan."""
    return 0.5 * s if t == T else max(q_best(t, s, a) for a in range(A))


def q_best(t, s, a):
    return reward(t, s, a) + DISCOUNT * sum(TABLE[s, a, x] * best(t + 1, x) for x in range(S))


def gap(t, s, a):
    """Return what a choice loses, with the shock of the moment."""
    worth = [q_best(t, s, b) + SHOCK[t] * b for b in range(A)]
    return max(worth) - worth[a]


@pytest.mark.parametrize("lookahead", [None, 1])
def test_losses_add_up_over_all_futures(lookahead):
    world = game(behaviour="boltzmann", lookahead=lookahead)
    panel = mfg.simulate(world, np.full((T, S, A), 0.5), FLOW, n_agents=N, random_seed=2)
    model = mfg.TrajectoryModel(world, agent, panel, mean_field=FLOW)
    found = mfg.checks.imperfection(model, {"pay": PAY})
    expected = {name: np.zeros(N) for name in ("loss", "noise", "lapses", "plan")}
    for j in range(N):
        for t in range(T):
            row = panel.offsets[j] + t
            s, a = int(panel.state[row]), int(panel.action[row])
            if lookahead is None:
                scores = [q_best(t, s, b) for b in range(A)]
            else:  # a plan of one decision sees nothing but the end, from the last
                ends = [sum(TABLE[s, b, x] * 0.5 * x for x in range(S)) for b in range(A)]
                scores = [reward(t, s, b) + DISCOUNT * (t == T - 1) * ends[b] for b in range(A)]
            scores = np.array(scores) + SHOCK[t] * np.arange(A)
            policy = np.exp(scores / NOISE) / np.exp(scores / NOISE).sum()
            held_best = gap(t, s, int(scores.argmax()))
            weight, gaps = DISCOUNT**t, [gap(t, s, b) for b in range(A)]
            expected["loss"][j] += weight * gaps[a]
            expected["lapses"][j] += weight * LAPSE * np.mean(gaps)
            expected["plan"][j] += weight * (1 - LAPSE) * held_best
            expected["noise"][j] += weight * (1 - LAPSE) * (policy @ gaps - held_best)
    for name, values in expected.items():
        np.testing.assert_allclose(found.table[name], values, rtol=1e-10, atol=1e-12)
        assert found.mean.loc[name, "mean"] == pytest.approx(values.mean(), rel=1e-10, abs=1e-12)
    total = sum(expected[name] for name in ("noise", "lapses", "plan"))
    np.testing.assert_allclose(found.table["expected"], total, rtol=1e-10)
    assert bool(expected["plan"].max() > 0.01) is (lookahead == 1)
    assert (found.table["decisions"] == T).all()
    assert "error, which agents do not expect" in repr(found)
    figure = mfg.plots.plot_imperfection(found)
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "reward left by an agent", "expected, by cause",
    ]  # fmt: skip


def test_wrong_models_are_refused():
    panel = mfg.simulate(game(), np.full((T, S, A), 0.5), FLOW, n_agents=N, random_seed=2)

    def plain(x):
        return pyro.sample("pay", dist.Normal(0.0, 1.0)) * (x.action == "move")

    energy = mfg.TrajectoryModel(game(), plain, panel, likelihood="energy")
    with pytest.raises(ValueError, match="imperfection needs likelihood='causal'"):
        mfg.checks.imperfection(energy, {"pay": PAY})
    counted = mfg.TrajectoryModel(game(), plain, mfg.CountedPanel.from_trajectories(panel))
    with pytest.raises((ValueError, TypeError), match="imperfection"):
        mfg.checks.imperfection(counted, {"pay": PAY})
    with pytest.raises(TypeError, match="`found` must be"):
        mfg.plots.plot_imperfection(panel)
