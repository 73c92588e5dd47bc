"""Terminal values against a game with one more period; period effects against their definition."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from games import ROUNDING, random_rows

import mfgppl as mfg
from mfgppl.density.of_model import density_of

S, A, T = 3, 2, 4
TABLES = random_rows(11, T, S, A, S)
INITIAL = random_rows(12, S)
OPEN = np.ones((T + 1, S, A), dtype=bool)
OPEN[T, :, 1] = False  # after the last decision nothing is chosen


def slowed(crowd, time):
    """Return dynamics that a crowd slows down, which differ by time."""
    stay = torch.eye(S, dtype=torch.float64)[:, None, :].expand(-1, A, -1)
    return crowd[:, None, None] * stay + (1 - crowd[:, None, None]) * torch.from_numpy(TABLES)[time]


def sparse(tables):
    return [scipy.sparse.csr_array(t.reshape(S * A, S)) for t in tables]


KINDS = {
    "one table": TABLES[0],
    "tables by time": TABLES,
    "sparse": sparse(TABLES[:1])[0],
    "sparse by time": sparse(TABLES),
    "moving": slowed,
}


def game(kind, horizon=T, **changes):
    arguments = {
        "states": range(S), "actions": ["stay", "move"], "horizon": horizon, "initial": INITIAL,
        "transition": KINDS[kind], "discount": 0.9, "temperature": 0.7,
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


def parts(x):
    pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    end = pyro.sample("end", dist.Normal(0.0, 1.0).expand([S]).to_event(1))
    return pay * x.state * (x.action == "move") - crowding * x.density, end[x.state.codes]


def ended(x):
    """Return the reward of each decision, and what a state is worth after the last."""
    reward, end = parts(x)
    return mfg.Preferences(reward, terminal=end)


def paid_later(x):
    """Return the same where the worth is the reward of one more period without a choice."""
    reward, end = parts(x)
    last = x.time == T
    return torch.where(last, end, reward)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mean_field", ["given", "equilibrium"])
def test_a_terminal_value_is_the_reward_of_one_more_period_without_a_choice(kind, mean_field):
    """Values, gradients and equilibria."""
    short, longer = game(kind), game(kind, T + 1, available=OPEN)
    truth = {"pay": 0.4, "crowding": 1.0, "end": [0.0, 1.0, -0.5]}
    one = mfg.solve_equilibrium(short, ended, parameters=truth, throw=True).value
    other = mfg.solve_equilibrium(longer, paid_later, parameters=truth, throw=True).value
    np.testing.assert_allclose(one.mean_field, other.mean_field[:T], atol=1e-9)
    np.testing.assert_allclose(one.policy, other.policy[:T], atol=1e-8)
    panel = mfg.simulate(short, one.policy, one.mean_field, n_agents=100, random_seed=1)
    flows = [w.mean_field for w in (one, other)] if mean_field == "given" else ["equilibrium"] * 2
    densities = []
    for world, program, flow in zip((short, longer), (ended, paid_later), flows, strict=True):
        seen = mfg.CountedPanel.from_trajectories(panel) if mean_field == "given" else panel
        densities.append(density_of(mfg.TrajectoryModel(world, program, seen, mean_field=flow)))
    for theta in np.random.default_rng(1).normal(size=(2, 5)):
        found, expected = (d.evaluator(prior=0.0, jacobian=0.0) for d in densities)
        value, gradient = found(theta)
        reference, slope = expected(theta)
        assert value == pytest.approx(reference, rel=1e-9)
        np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-7)


def test_what_follows_from_a_terminal_value():
    """Returns, exploitability and identification: a constant of all states changes nothing."""
    world, truth = game("one table"), {"pay": 0.4, "crowding": 1.0, "end": [0.0, 1.0, -0.5]}
    solution = mfg.solve_equilibrium(world, ended, parameters=truth, throw=True).value
    flow, policy = solution.mean_field, solution.policy
    table = 0.4 * np.arange(S)[:, None] * np.arange(A) - flow.numpy()[:, :, None]
    earned = sum(
        0.9**t * float((flow[t][:, None] * policy[t] * torch.from_numpy(table[t])).sum())
        for t in range(T)
    )
    arrived = np.einsum("sa,sax->x", (flow[-1][:, None] * policy[-1]).numpy(), TABLES[0])
    earned += 0.9**T * arrived @ np.array(truth["end"])
    found = mfg.equilibrium.expected_return(world, ended, policy, parameters=truth)
    assert found == pytest.approx(earned, rel=ROUNDING)
    identified = mfg.identify(world, ended)
    assert identified.rank == identified.n_directions - 1
    (direction,) = identified.directions.index
    assert all(f"end[{k}]" in direction for k in range(S))
    assert mfg.equilibrium.exploitability(world, ended, policy, parameters=truth) > 0


def test_terminal_values_by_type():
    world = game("one table", types={"size": ["small", "large"]}, initial=np.tile(INITIAL, 2) / 2)

    def typed(x):
        end = pyro.sample("end", x.size.each(dist.Normal(0.0, 1.0)))
        reward = 0.3 * x.state * (x.action == "move")
        return mfg.Preferences(reward, terminal=end[x.size.codes] * x.state)

    def plain(x):
        end = pyro.sample("end", dist.Normal(0.0, 1.0))
        return mfg.Preferences(0.3 * x.state * (x.action == "move"), terminal=end * x.state)

    both = mfg.solve_equilibrium(world, typed, parameters={"end": [0.2, -0.7]}, throw=True).value
    for k, end in enumerate((0.2, -0.7)):
        one = mfg.solve_equilibrium(game("one table"), plain, parameters={"end": end}, throw=True)
        mine = both.policy.reshape(T, 2, S, A)[:, k]
        np.testing.assert_allclose(mine, one.value.policy, atol=1e-12)


def test_period_effects_sum_to_zero():
    world = game("one table", types={"size": ["small", "large"]}, initial=np.tile(INITIAL, 2) / 2)
    x = mfg.RewardInputs(world, torch.from_numpy(np.tile(INITIAL, (T, 2)) / 2))
    normal = dist.Normal(torch.tensor(0.0, dtype=torch.float64), 2.0)
    with pyro.poutine.trace() as tracer:
        plain = mfg.period_effects(x, "month", normal)
        by_action = mfg.period_effects(x, "act", normal, by="action")
        by_size = mfg.period_effects(x, "size_month", normal, by="size")
    sites = {k: v["value"].shape for k, v in tracer.trace.nodes.items()}
    assert sites == {"month": (T - 1,), "act": (T - 1, A - 1), "size_month": (2, T - 1)}
    assert plain.shape == (T, 1, 1)
    assert by_action.shape == (T, 1, A)
    assert by_size.shape == (2, T, 1, 1)
    np.testing.assert_allclose(plain.sum(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(by_action.sum(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(by_action.sum(-1), 0.0, atol=1e-12)
    np.testing.assert_allclose(by_size.sum(1), 0.0, atol=1e-12)


def test_the_law_of_period_effects():
    """All alike: standard deviation spread sqrt(1 - 1/T), correlation -1 / (T - 1)."""
    x = mfg.RewardInputs(game("one table"), torch.from_numpy(np.tile(INITIAL, (T, 1))))
    torch.manual_seed(1)
    drawn = np.stack(
        [mfg.period_effects(x, "m", dist.Normal(0.0, 2.0)).numpy().ravel() for _ in range(4000)]
    )
    np.testing.assert_allclose(drawn.std(0), 2.0 * np.sqrt(1 - 1 / T), rtol=0.06)
    correlation = np.corrcoef(drawn.T)[~np.eye(T, dtype=bool)]
    np.testing.assert_allclose(correlation, -1 / (T - 1), atol=0.06)


def test_wrong_preferences_are_refused():
    flow = np.tile(INITIAL, (T, 1))

    def returns(value):
        return lambda x: value * pyro.sample("w", dist.Normal(0.0, 1.0)) if value is None else value

    world = game("one table")
    with pytest.raises(TypeError, match="the reward that the program returns must be a tensor"):
        mfg.solve_equilibrium(world, returns(mfg.Preferences(None)))
    with pytest.raises(TypeError, match="the terminal value that the program returns must be"):
        mfg.solve_equilibrium(world, returns(mfg.Preferences(0.0, terminal="none")))
    with pytest.raises(ValueError, match=r"terminal value must broadcast to \(1, S, 1\)"):
        mfg.solve_equilibrium(world, returns(mfg.Preferences(0.0, terminal=torch.ones(T, S, 1))))
    with pytest.raises(ValueError, match=r"give `transition` with T = 4 tables; got 3"):
        mfg.solve_equilibrium(
            game("one table", transition=TABLES[: T - 1]),
            returns(mfg.Preferences(0.0, terminal=1.0)),
        )
    with pytest.raises(ValueError, match="a stationary game has no last decision"):
        mfg.solve_equilibrium(
            game("one table", horizon=None), returns(mfg.Preferences(0.0, terminal=1.0))
        )
    x = mfg.RewardInputs(world, torch.from_numpy(flow))
    with pytest.raises(ValueError, match="`by` must be of"):
        mfg.period_effects(x, "m", dist.Normal(0.0, 1.0), by="actoin")
    with pytest.raises(TypeError, match="`prior` must be the prior of one number"):
        mfg.period_effects(x, "m", dist.Normal(torch.zeros(3), 1.0))
    single = mfg.RewardInputs(game("one table", horizon=1), torch.from_numpy(flow[:1]))
    with pytest.raises(ValueError, match="two decision times at least; the game has 1"):
        mfg.period_effects(single, "m", dist.Normal(0.0, 1.0))


def test_a_tax_is_taken_from_the_reward_alone():
    taxed = mfg.taxed(ended, {1: 0.3})
    x = mfg.RewardInputs(game("one table"), torch.from_numpy(np.tile(INITIAL, (T, 1))))
    with pyro.poutine.seed(rng_seed=1):
        before, after = (pyro.poutine.seed(f, rng_seed=1)(x) for f in (ended, taxed))
    np.testing.assert_allclose(after.terminal, before.terminal)
    due = (before.reward - after.reward).broadcast_to(T, S, A)
    np.testing.assert_allclose(due[0, :, 0], [0.0, 0.3, 0.0], atol=1e-12)


def test_linear_rewards_have_ends_and_shocks_too():
    """The same numbers as of a program that is written out."""
    world = game("one table")
    season = np.array([0.5, -0.5, 0.25, -0.25])[:, None, None]
    prior = dist.Normal(0.0, 1.0)
    moves = {"move": lambda x: x.action == "move"}
    short = mfg.linear_reward(
        moves, prior, terminal={"end": "state"}, shock={"size": season * np.array([0.0, 1.0])}
    )

    def written_out(x):
        move, end, size = (pyro.sample(name, prior) for name in ("move", "end", "size"))
        shock = size * torch.from_numpy(season) * (x.action == "move")
        return mfg.Preferences(move * (x.action == "move"), terminal=end * x.state, shock=shock)

    panel = mfg.simulate(
        world, np.full((T, S, A), 0.5), np.tile(INITIAL, (T, 1)), n_agents=50, random_seed=1
    )
    values = []
    for program in (short, written_out):
        density = density_of(mfg.TrajectoryModel(world, program, panel))
        found, gradient = density.evaluator()(np.array([0.4, -0.3, 0.8]))
        values.append([found, *gradient])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-12)
    assert "end * x.state  (terminal)" in short.source
    with pytest.raises(ValueError, match="two weights are called 'move'"):
        mfg.linear_reward(moves, prior, terminal={"move": "state"})
    with pytest.raises(TypeError, match="`shock` must be a formula, a mapping or a list"):
        mfg.linear_reward(moves, prior, shock=3)
    with pytest.raises(ValueError, match=r"`priors` must name the features \['end', 'move'\]"):
        mfg.linear_reward(moves, {"move": prior}, terminal={"end": "state"})


def test_effects_by_action_and_type_have_an_axis_for_each():
    """Zero over time and actions, another set for each label; a latent size is inferred."""
    world = game("one table", types={"size": ["small", "large"]}, initial=np.tile(INITIAL, 2) / 2)
    x = mfg.RewardInputs(world, torch.from_numpy(np.tile(INITIAL, (T, 2)) / 2))
    with pyro.poutine.trace() as tracer:
        effects = mfg.period_effects(x, "month", dist.Normal(0.0, 1.0), by=["action", "size"])
    assert tracer.trace.nodes["month"]["value"].shape == (2, T - 1, A - 1)
    assert effects.shape == (2, T, 1, A)
    np.testing.assert_allclose(effects.sum(1), 0.0, atol=1e-12)
    np.testing.assert_allclose(effects.sum(-1), 0.0, atol=1e-12)
    assert not torch.allclose(effects[0], effects[1])


def test_what_identifies_a_discount_and_a_temperature():
    """A horizon and a reward that stays as it is: a discount. A weight that is given: the scale."""
    world = game("one table", horizon=4, transition=TABLES[0])

    def of(weight, patient=True):
        def program(x):
            parts = {"temperature": pyro.sample("noise", dist.LogNormal(0.0, 1.0))}
            if patient:
                parts["discount"] = pyro.sample("patience", dist.Beta(8.0, 2.0))
            pay = 0.8 if weight == "given" else pyro.sample("pay", dist.Normal(0.0, 1.0))
            return mfg.Preferences(pay * x.state - 0.1 * (weight == "given") * x.time, **parts)

        return program

    assert mfg.identify(world, of("given")).identified
    free = mfg.identify(world, of("free"))
    assert free.rank == free.n_directions - 1
    (flat,) = free.directions.index
    assert "pay" in flat
    assert "noise" in flat
    assert "patience" not in flat
    short = game("one table", horizon=1)  # nothing comes later
    lone = mfg.identify(short, of("given"))
    assert "patience" in " ".join(lone.directions.index)
