"""How many kinds there are, what kinds are as types, and panels drawn by kind."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import STANDARD_ERRORS, random_rows
from kinds_world import GAME, POOLED, STEPS, TRUTH, S, T, model_of, panel, program, world

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.density.over_draws import panel_at
from mfgppl.estimation.parts import random_parts
from mfgppl.likelihood.replay import replay_kinds

N, FOLDS = 400, 2


@pytest.fixture(scope="module")
def number():
    firms = panel(5, n=N)
    return mfg.kinds.choose(
        lambda k: model_of(k, firms), up_to=3, restarts=1, folds=FOLDS, bootstrap=0, random_seed=1,
        progressbar=False,
    )  # fmt: skip


def test_two_kinds_are_chosen(number):
    """By BIC, by held-out agents, and the table adds up."""
    table = number.table
    assert (number.by_bic, number.by_held_out) == (2, 2)
    assert "held-out agents are explained best by 2 kinds; BIC agrees" in number.verdict
    assert table.loc[2, "llf"] - table.loc[1, "llf"] > 100
    assert table.loc[3, "llf"] >= table.loc[2, "llf"] - 0.01
    gains = table["held_out"].diff().dropna() * N
    np.testing.assert_allclose(table["gain"].dropna(), gains, rtol=1e-9, atol=1e-9)
    known = table["n_params"].to_numpy()
    assert list(known[:2]) == [3, 5]
    np.testing.assert_allclose(table["bic"], known * np.log(N) - 2 * table["llf"])
    assert table.loc[1, "entropy"] == 0 < table.loc[2, "entropy"] < 1
    figure = mfg.plots.plot_number_of_kinds(number)
    assert len(figure.axes) == 2
    plt.close(figure)


def test_held_out_agents_are_scored_by_fits_of_others(number):
    """Against a loop of fits on rebuilt panels."""
    firms = panel(5, n=N)
    total = 0.0
    seed = int(np.random.SeedSequence(1).spawn(3)[1].generate_state(1)[0])
    parts = random_parts(firms, "agent", FOLDS, seed, what="", argument="")
    for part in parts:
        rest = firms.subset(np.setdiff1d(np.arange(N), part))
        fit = mfg.mle(model_of(1, rest), flow_bias=False, progressbar=False)
        total += float(mfg.log_likelihood(model_of(1, firms.subset(part)), fit).sum())
    assert number.table.loc[1, "held_out"] == pytest.approx(total / N, abs=1e-6)


def test_one_kind_is_not_made_two():
    """In a world with one kind the ratio is no larger than in panels drawn from it."""
    firms = panel(6, n=100, share=[1.0, 0.0])
    found = mfg.kinds.choose(
        lambda k: model_of(k, firms), up_to=2, restarts=1, folds=2, bootstrap=2, random_seed=2,
        progressbar=False,
    )  # fmt: skip
    assert (found.by_bic, found.by_held_out) == (1, 1)
    assert found.table.loc[2, "p_bootstrap"] > 1 / 3  # a panel drawn has a larger ratio
    assert "held-out agents are explained best by 1 kind" in repr(found)


def test_what_choose_does_not_take():
    with pytest.raises(TypeError, match="a function of the number of kinds"):
        mfg.kinds.choose(3)
    with pytest.raises(TypeError, match=r"model_of\(1\)"):
        mfg.kinds.choose(lambda k: k)
    with pytest.raises(ValueError, match="none"):
        mfg.kinds.describe(model_of(1, panel(0, n=20)), {"margin": 0, "crowding": 0, "menu": 1})


def test_kinds_as_types_are_the_game_of_both():
    """Start, shared crowd and rewards; the pooled flow is what the world's panels show."""
    game, played = world()
    assert game.space.types == ("kind",)
    np.testing.assert_allclose(game.initial, np.outer([0.6, 0.4], np.ones(S) / S).ravel())
    other = mfg.MeanFieldGame(
        states={"price": range(S)}, actions=["down", "none", "up"], horizon=T, transition=STEPS,
        initial=game.initial, types={"kind": [0, 1]},
    )  # fmt: skip

    def seen(x):
        cost = torch.tensor([0.4, 2.0])[x.kind.codes]
        return 0.3 * x.price - 2.0 * x.density - cost * (x.action != "none")

    expected = mfg.solve_equilibrium(other, seen, throw=True).value
    np.testing.assert_allclose(played.mean_field, expected.mean_field, atol=1e-9)
    np.testing.assert_allclose(played.policy, expected.policy, atol=1e-9)


def test_kinds_beside_types_who_meet_their_own():
    """Kinds of a type share the crowd of that type; an exposure matrix is spread over kinds."""
    start = random_rows(51, 2 * S)
    apart = {"city": ["north", "south"]}
    base = GAME.replace(types=apart, initial=start, meets="city")
    by_matrix = base.replace(meets=pd.DataFrame(np.eye(2), apart["city"], apart["city"]))
    flows = []
    for game in (base, by_matrix):
        typed, bound = mfg.kinds.as_types(game, program(2), TRUTH)
        assert typed.space.types == ("kind", "city")
        flows.append(mfg.solve_equilibrium(typed, bound, throw=True).value.mean_field.numpy())
    np.testing.assert_allclose(flows[0], flows[1], atol=1e-8)
    alone = GAME.replace(initial=start[:S] / start[:S].sum())
    typed, bound = mfg.kinds.as_types(alone, program(2), TRUTH)
    of_north = mfg.solve_equilibrium(typed, bound, throw=True).value.mean_field.numpy()
    north = flows[0].reshape(T, 2, 2, S)[:, :, 0]
    np.testing.assert_allclose(north / start[:S].sum(), of_north.reshape(T, 2, S), atol=1e-8)


def test_as_types_takes_parts_of_preferences():
    """Terminal values, shocks and lapses by kind reach the game of types."""

    def agent(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
        end = pyro.sample("end", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(torch.ones(2)))
        last = end[kind] * (x.price == 3)
        return mfg.Preferences(pay * x.price, terminal=last, lapse=0.3 * (kind == 1), discount=0.9)

    given = {"pay": 0.2, "end": [0.0, 3.0]}
    game, bound = mfg.kinds.as_types(GAME, agent, given)
    policy = mfg.solve_equilibrium(game, bound, throw=True).value.policy.numpy()
    model = mfg.TrajectoryModel(GAME, agent, panel(0, n=10), mean_field=POOLED)
    density = density_of(model)
    core = density.rewards(np.array([[0.2, 0.0, 3.0]]))[0]
    expected = np.exp(model.law.table_arrays(core)[0])  # no term reads the crowd
    np.testing.assert_allclose(policy.reshape(T, 2, S, 3).swapaxes(0, 1), expected, atol=1e-9)


def test_what_as_types_does_not_take():
    with pytest.raises(ValueError, match="no agent-level site"):
        mfg.kinds.as_types(GAME, program(1), {"margin": 0.3, "crowding": 2.0, "menu": 1.0})
    with pytest.raises(ValueError, match="lack"):
        mfg.kinds.as_types(GAME, program(2), {"margin": 0.3})
    named = GAME.replace(types={"kind": ["a", "b"]}, initial=np.ones(2 * S) / (2 * S))
    with pytest.raises(ValueError, match="called as a coordinate"):
        mfg.kinds.as_types(named, program(2), TRUTH)
    with pytest.raises(ValueError, match="`name`"):
        panel(0, n=10).drop_type("kind")


def test_panels_are_drawn_by_kind():
    """Shares of kinds and of their actions, against the weights and policies of the law."""
    model = model_of(2, panel(0, n=4000))
    density = density_of(model)
    value = np.concatenate([np.ravel(TRUTH[s.name]) for s in density.program.sites])
    core = density.rewards(value[None])[0]
    drawn, node = replay_kinds(model, core, flow=POOLED, random_seed=3)
    error = np.sqrt(0.24 / 4000)
    assert abs((node == 0).mean() - 0.6) < STANDARD_ERRORS * error
    policies = np.exp(model.law.table_arrays(core)[0])
    for k in (0, 1):
        own = drawn.subset(np.flatnonzero(node == k))
        counts = own.counts.actions
        n = counts.sum(-1, keepdims=True)
        away = np.abs(counts - n * policies[k]) / np.sqrt(n * policies[k] + 1)
        assert away.max() < STANDARD_ERRORS
    again = panel_at(density, value, random_seed=3)
    np.testing.assert_array_equal(again.action, drawn.action)


@pytest.mark.usefixtures("few_panels", "blank_figures")
def test_the_report_has_a_section(tmp_path):
    model = model_of(2, panel(0, n=300))
    fit = mfg.mle(model, restarts=2, progressbar=False)
    page = mfg.report(fit, tmp_path / "page.html", model=model)
    text = (tmp_path / "page.html").read_text()
    assert "Who is who?" in text
    assert "Data can identify all 5 parameters" in text or "identify" in text
    assert page is not None
    figure = mfg.plots.plot_kinds(mfg.kinds.describe(model, fit))
    assert len(figure.axes) == 2
    plt.close(figure)
