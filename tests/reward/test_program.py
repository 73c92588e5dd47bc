"""Reward programs: tables, fixed parameters, linear rewards."""

import inspect
import tokenize

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from games import ROADS_TRUTH, ROUNDING, avoid_crowds, played, random_rows, shop, two_roads

import mfgppl as mfg
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import bind, reward_table
from mfgppl.reward.source import reward_source


def roads(*, horizon: int = 4) -> RewardInputs:
    """Return the inputs of `two_roads` along a flow with no two equal shares."""
    return RewardInputs(two_roads(horizon=horizon), torch.as_tensor(random_rows(5, horizon, 2)))


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (2.0, ()), (torch.arange(2.0), (2,)), (torch.arange(4.0)[:, None, None], (4, 1, 1)),
        (torch.full((1, 1, 1), 2.0), (1, 1, 1)),
    ],
)  # fmt: skip
def test_what_a_program_returns_is_spread_over_the_table(value, shape):
    """A number, a row of actions or a column of times fill (T, S, A)."""
    table = reward_table(lambda x: value, roads())
    assert np.shape(value) == shape
    assert table.shape == (4, 2, 2)
    assert table.dtype == torch.float64
    np.testing.assert_array_equal(table, np.broadcast_to(np.asarray(value), (4, 2, 2)))


@pytest.mark.parametrize("ones", [(), (1,), (1, 1), (1, 1, 1)])
def test_a_reward_alike_everywhere_moves_no_choice(ones):
    """Of whatever shape: all actions are as likely, and no data identify what it is."""

    def alike(x):
        return pyro.sample("w", dist.Normal(0.0, 1.0)).reshape(ones)

    game = two_roads()
    model = mfg.TrajectoryModel(game, alike, played(game, avoid_crowds, ROADS_TRUTH, 20, 1))
    with pytest.warns(mfg.exceptions.IdentificationWarning, match="do not identify w"):
        fit = mfg.mle(model, progressbar=False)
    assert fit.llf == pytest.approx(-fit.nobs * np.log(2), rel=1e-12)
    assert np.isnan(fit.bse["w"])


def test_bound_parameters_give_the_hand_written_table():
    """With its parameters fixed a program is the formula it writes."""
    x = roads()
    table = reward_table(bind(avoid_crowds, {"crowding": 2.0, "effort": 0.5}), x)
    for t in range(4):
        for s in range(2):
            for a in range(2):
                expected = -2.0 * float(x.mean_field[t, s]) - 0.5 * (a == 1)
                assert float(table[t, s, a]) == pytest.approx(expected, abs=ROUNDING)


def test_a_bound_program_hides_its_sites():
    """Fixed parameters are no sites of a program that uses the bound one."""
    bound = bind(avoid_crowds, {"crowding": 2.0, "effort": 0.5})
    with pyro.poutine.trace() as tracer:
        bound(roads())
    assert not tracer.trace.nodes


def test_binding_keeps_gradients():
    """A tensor that asks for a gradient gets one through the bound program."""
    crowding = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    x = roads()
    reward_table(bind(avoid_crowds, {"crowding": crowding, "effort": 0.0}), x).sum().backward()
    # each of the two actions counts the density once
    assert float(crowding.grad) == pytest.approx(-2 * float(x.density.sum()))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"crowding": 1.0}, r"lack \['effort'\]"),
        ({"crowding": 1.0, "effort": 1.0, "toll": 1.0}, r"\['toll'\], which the reward lacks"),
    ],
)
def test_missing_and_strange_parameters_are_refused(parameters, words):
    """A value for each site and for no other."""
    with pytest.raises(ValueError, match=words):
        bind(avoid_crowds, parameters)(roads())


def test_a_parameter_of_a_wrong_shape_is_refused():
    """Two values for one weight do not slip in as one value an action."""
    with pytest.raises(ValueError, match="crowding"):
        reward_table(bind(avoid_crowds, {"crowding": [1.0, 2.0], "effort": 0.0}), roads())


def test_a_reward_that_is_not_finite_names_its_place():
    """The message says at which time, state and action, with labels."""

    def broken(x):
        table = torch.zeros(4, 2, 2, dtype=torch.float64)
        table[2, 1, 0] = torch.nan
        table[3, 1, 1] = torch.inf
        return table

    expected = r"2 of 16 .*time=2, state='right', action='stay': nan"
    with pytest.raises(ValueError, match=expected):
        reward_table(broken, roads())


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (None, TypeError, "NoneType.*return"),
        ("much", TypeError, "str"),
        (torch.zeros(3), ValueError, r"\(T, S, A\) = \(4, 2, 2\).*\(3,\)"),
        (torch.zeros(1, 4, 2, 2), ValueError, r"\(1, 4, 2, 2\)"),
    ],
)
def test_what_cannot_be_a_reward_is_refused(value, error, words):
    """No tensor, or one that does not broadcast, is a clear error."""
    with pytest.raises(error, match=words):
        reward_table(lambda x: value, roads())


def test_a_linear_reward_is_the_program_written_by_hand():
    """Names, functions and arrays as features add up with their weights."""
    tolls = np.array([[[0.0, 1.0]]])
    features = {"crowd": "density", "turns": lambda x: x.action == "turn", "toll": tolls}
    linear = mfg.linear_reward(features, dist.Normal(0.0, 1.0))

    def by_hand(x):
        crowd = pyro.sample("crowd", dist.Normal(0.0, 1.0))
        turns = pyro.sample("turns", dist.Normal(0.0, 1.0))
        toll = pyro.sample("toll", dist.Normal(0.0, 1.0))
        return crowd * x.density + turns * (x.action == "turn") + toll * torch.as_tensor(tolls)

    weights = {"crowd": -1.3, "turns": 0.4, "toll": 2.0}
    x = roads()
    found = reward_table(bind(linear, weights), x)
    torch.testing.assert_close(found, reward_table(bind(by_hand, weights), x), atol=0, rtol=1e-12)


def test_a_list_of_names_is_a_linear_reward_of_those_inputs():
    """Each name is both the input and its weight."""
    linear = mfg.linear_reward(["price", "density"], dist.Normal(0.0, 1.0))
    x = RewardInputs(shop(), torch.as_tensor(random_rows(3, 5, 6)))
    table = reward_table(bind(linear, {"price": 2.0, "density": -1.0}), x)
    torch.testing.assert_close(table, (2 * x.price - x.density).broadcast_to(5, 6, 4))


def test_priors_by_name_are_those_of_the_sites():
    """Each weight has the prior given for it."""
    priors = {"time": dist.Normal(0.0, 3.0), "density": dist.HalfNormal(2.0)}
    linear = mfg.linear_reward(["time", "density"], priors)
    with pyro.poutine.trace() as tracer, pyro.poutine.seed(rng_seed=1):
        linear(roads())
    nodes = tracer.trace.nodes
    assert list(nodes) == ["time", "density"]
    assert {k: nodes[k]["fn"] for k in nodes} == priors


def test_one_name_is_a_formula():
    """A string is a formula, not read letter by letter; another thing is refused."""
    assert "density" in mfg.linear_reward("density", dist.Normal(0.0, 1.0)).source
    with pytest.raises(TypeError, match="features"):
        mfg.linear_reward(5, dist.Normal(0.0, 1.0))


def test_a_class_is_no_prior():
    """A distribution without its arguments is refused when the reward is made."""
    with pytest.raises(TypeError, match="density"):
        mfg.linear_reward(["density"], dist.Normal)


@pytest.mark.parametrize("error", [OSError, TypeError, SyntaxError, tokenize.TokenError])
def test_a_program_whose_source_cannot_be_read_is_named_by_its_docstring(monkeypatch, error):
    """A program typed into a page or a shell: a record must not fail for want of its text."""

    def reward(x):
        """What drivers want."""
        return x.density

    def unreadable(_):
        raise error("no source")

    monkeypatch.setattr(inspect, "getsource", unreadable)
    assert reward_source(reward) == "What drivers want."


TOLL = 0.25
BY_HOUR = {"early": 1.0}


def test_a_source_names_the_values_that_a_program_takes_from_outside():
    """A closure's number is part of the reward: the same text with another number is another."""

    def costing(k, worth, gains, name, table, missing):
        def reward(x):
            bill = sum(TOLL * gain for gain in gains.tolist())
            return x.density * k - bill * worth + len(name) + table.mean() + BY_HOUR["early"]

        return reward

    gains, large = torch.tensor([1.0, 2.0]), np.zeros(1000)
    one, other = (costing(k, np.float64(3.0), gains, "toll", large, None) for k in (7.5, 8.5))
    text = inspect.getsource(one)
    read = ["# TOLL = 0.25", "# gains = [1.0, 2.0]", "# name = 'toll'", "# worth = 3.0"]
    for program, k in ((one, 7.5), (other, 8.5)):
        said = reward_source(program)
        assert said.startswith(text)
        assert said.removeprefix(text).splitlines() == sorted([*read, f"# k = {k}"])


def test_a_source_without_outside_values_is_the_text_alone():
    """Modules and functions that a program calls are no values."""
    assert reward_source(avoid_crowds) == inspect.getsource(avoid_crowds)


def test_a_name_without_a_value_yet_leaves_the_source():
    """A closure over what is assigned later: the record does not fail for it."""

    def reward(x):
        return x.density * later

    assert "# later" not in reward_source(reward)
    later = 2.0
    assert "# later = 2.0" in reward_source(reward)


def test_terms_of_a_linear_reward_name_the_values_that_they_take():
    """Two terms of one text differ by the number that each closes over."""

    def above(k):
        return lambda x: x.density > k

    rewards = mfg.linear_reward({"a": above(0.25), "b": above(0.5)}, dist.Normal(0.0, 1.0))
    first, second = rewards.source.splitlines()[1:]
    assert first.endswith("# k = 0.25")
    assert second.endswith("# k = 0.5")


def independent(x):
    pyro.sample("a", dist.HalfNormal(2.0).expand([2]).to_event(1))
    pyro.sample("b", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    pyro.sample("c", dist.Uniform(-1.0, 3.0))
    return torch.zeros(())


def nested(x):
    spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
    pyro.sample("effect", dist.Normal(0.0, spread))
    return torch.zeros(())


def test_draws_from_the_prior_have_its_moments():
    """Half-normal, Dirichlet and uniform means and variances, by their formulas."""
    program = Program(independent, roads())
    n = 20_000
    free = torch.as_tensor(program.draws(n))
    supports = [(dist.HalfNormal(2.0), 0, 2), (dist.Dirichlet(torch.ones(3)), 2, 4)]
    supports.append((dist.Uniform(-1.0, 3.0), 4, 5))
    drawn = np.hstack(
        [torch.distributions.biject_to(law.support)(free[:, i:j]) for law, i, j in supports]
    )
    mean = [2 * np.sqrt(2 / np.pi)] * 2 + [1 / 6, 2 / 6, 3 / 6] + [1.0]
    variance = [4 * (1 - 2 / np.pi)] * 2 + [5 / 252, 8 / 252, 9 / 252] + [16 / 12]
    error = np.sqrt(np.array(variance) / n)
    assert (np.abs(drawn.mean(0) - mean) < 4.5 * error).all()
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.06)
    assert np.abs(np.corrcoef(drawn[:, [0, 1, 2, 5]].T) - np.eye(4)).max() < 0.035


def test_draws_of_a_prior_that_depends_on_another_site_are_those_one_by_one():
    program = Program(nested, roads())
    found = program.draws(200)
    np.testing.assert_array_equal(found, [program.draw(seed) for seed in range(200)])
    sizes = np.exp(found[:, 0])
    assert np.mean(np.abs(found[:, 1]) < sizes) == pytest.approx(0.683, abs=0.1)
